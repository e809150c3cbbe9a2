# Copyright 2026 cgdet_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Pascal VOC labels, one XML file per image: the generic layout, M3FD and LLVIP."""

from collections import Counter
import math
from pathlib import Path
import re
from typing import NamedTuple
from xml.etree import ElementTree

from cgdet_core.data.formats import native
from cgdet_core.data.formats.native import Item, Listing, NativeFrame, Options, Pictures
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import files_below, natural

# A bus or truck is not a "car", a motorcycle not a "bicycle", but similar enough that detecting
# one as such is not counted as wrong.
M3FD_CLASSES = {'people': 'person', 'car': 'car', 'bus': 'ignore-car', 'truck': 'ignore-car',
                'motorcycle': 'ignore-bicycle'}
# The split of each list; of several for one split, the first is read.
LISTS = {'train': 'train', 'trainval': 'train'} | native.SPLITS
TRUTH = {'': '0', 'false': '0', 'true': '1'}


class Labels(NamedTuple):
    """The contents of a VOC file; declared: width and height of the image, if it states them."""

    items: list[Item]
    declared: tuple[int, int] | None


def parse_voc(path: Path, occlusion: int | None = None) -> Labels:
    """
    Read a VOC file, boxes as xmin, ymin, xmax, ymax or (KAIST) x, y, w, h.

    "difficult" objects are ignored, as in the evaluation of VOC, and those with at least this
    occlusion, if it is set. UserError names a damaged file.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # also encoding errors
        raise UserError(f'{path} is not a readable XML file: {error}.') from None
    _check_elements(path, root)
    items = []
    for number, node in enumerate(root.iter('object')):
        if node.find('robndbox') is not None:
            raise UserError(f'{path}: object {number} has a rotated box (robndbox); export '
                            'upright boxes.')
        for key in ('name', 'bndbox'):
            if (count := len(node.findall(key))) > 1:
                raise UserError(f'{path}: object {number} has {count} elements "{key}"; write an '
                                'object for each.')
        name, box = node.findtext('name', '').strip(), node.find('bndbox')
        try:
            if box is None or not name:
                raise ValueError
            sized = box.find('xmin') is None
            keys = ('x', 'y', 'w', 'h') if sized else ('xmin', 'ymin', 'xmax', 'ymax')
            x1, y1, x2, y2 = (native.number(box.findtext(key, '')) for key in keys)
            corners = (x1, y1, x1 + x2, y1 + y2) if sized else (x1, y1, x2, y2)
            if not all(map(math.isfinite, corners)):
                raise ValueError
        except ValueError:
            raise UserError(f'{path}: object {number} has no valid name and box; '
                            'fix or remove the file.') from None
        ignore = _whole(path, number, node, 'difficult') == 1 or (
            occlusion is not None and _whole(path, number, node, 'occlusion') >= occlusion)
        items.append(Item(name, corners, ignore))
    width, height = (root.findtext(f'size/{side}', '').strip() for side in ('width', 'height'))
    known = all(re.fullmatch(r'0*[1-9]\d{,5}', side) for side in (width, height))
    return Labels(items, (int(width), int(height)) if known else None)  # some tools write 0


def _check_elements(path: Path, root: ElementTree.Element) -> None:
    """Remove namespaces in place; UserError if objects could be under another name."""
    for node in root.iter():
        node.tag = node.tag.rpartition('}')[2]
    if root.tag != 'annotation':
        raise UserError(f'{path} is not a VOC file, as its root is "{root.tag}", not '
                        '"annotation"; export the labels as Pascal VOC.')
    for node in root.iter():
        boxes = any(child.tag.lower() in ('bndbox', 'robndbox') for child in node)
        if node.tag not in ('object', 'part') and (boxes or node.tag.lower() == 'object'):
            raise UserError(f'{path}: the element "{node.tag}" seems to be an object; name it '
                            '"object", as in Pascal VOC.')


def _whole(path: Path, number: int, node: ElementTree.Element, key: str) -> int:
    """Return a whole number of an object, 0 if it is not there; some tools write true or false."""
    word = node.findtext(key, '').strip()
    try:
        value = native.number(TRUTH.get(word.lower(), word))
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise UserError(f'{path}: "{key}" of object {number} is not a whole number such as 0 or '
                        f'1, but {word[:60]!r}; correct it.')
    return int(value)


def frame_of(split: str, thermal: Path, rgb: Path | None, labels: Path,
             time_of_day: str = 'unknown') -> NativeFrame:
    """Return a frame that a VOC file labels."""
    found = parse_voc(labels)
    return NativeFrame(split, thermal, rgb, found.items, time_of_day, declared=found.declared)


def _first_folder(folder: Path, *names: str) -> Path | None:
    return next((folder / n for n in names if (folder / n).is_dir()), None)


def _splits(lists: Path) -> dict[str, list[str]]:
    """Return the frames of each split; trainval is train, without what is in the list of val."""
    splits: dict[str, list[str]] = {}
    for name, split in LISTS.items():
        if split not in splits and (path := lists / f'{name}.txt').is_file():
            splits[split] = native.read_names(path)
    if {'train', 'val'} <= splits.keys() and not (lists / 'train.txt').is_file():
        val = {*splits['val']}
        splits['train'] = [stem for stem in splits['train'] if stem not in val]
    return splits


def _frames(
    lists: Path, labels: Path, thermal: Pictures, rgb: Pictures | None, counts: Counter[str],
) -> list[NativeFrame]:
    """Return the labeled frames in the lists of train, val and test, or all without lists."""
    files = native.files_in(labels, '.xml')
    splits = _splits(lists)
    if splits:
        counts[native.UNLISTED] += len(files.keys() - set().union(*splits.values()))
    frames = []
    for split, stems in (splits or {'all': sorted(files.keys() | thermal.keys())}).items():
        for stem in native.unique(stems, counts):
            if stem in files:
                frames.append(frame_of(split, thermal[stem], None if rgb is None else rgb[stem],
                                       files[stem]))
            else:
                counts[native.UNLABELLED] += 1
    return frames


def read_voc(folder: Path, options: Options) -> Listing:
    """Read Annotations/*.xml, JPEGImages/ and the lists in ImageSets/Main/ if any, see LISTS."""
    options.allow('voc', 'rgb')
    labels = _first_folder(folder, 'Annotations', 'Annotation', 'annotations')
    images = _first_folder(folder, 'JPEGImages', 'images', 'Images')
    if labels is None or images is None or not native.files_in(labels, '.xml'):
        raise native.wrong_layout(folder, 'VOC', 'Annotations/*.xml and JPEGImages/')
    rgb = Pictures(native.existing(folder, options.rgb, 'RGB')) if options.rgb else None
    inner = len(files_below(labels, ('.xml',))) - len(native.files_in(labels, '.xml'))
    counts = Counter({f'label files in folders of {labels.name}/, left out': inner})
    frames = _frames(folder / 'ImageSets' / 'Main', labels, Pictures(images), rgb, counts)
    names = sorted({item.name for frame in frames for item in frame.items})
    return Listing(frames, native.own_classes(names), f'{labels.name}/*.xml and {images.name}/',
                   counts, categories=())


def read_m3fd(folder: Path, options: Options) -> Listing:
    """Read Ir/, Vis/ and Annotation/*.xml, and the lists in meta/ if there are any."""
    options.allow('m3fd')
    labels = _first_folder(folder, 'Annotation', 'Annotations')
    ir = _first_folder(folder, 'Ir', 'ir', 'IR')
    vis = _first_folder(folder, 'Vis', 'vis', 'VIS', 'Vi') or folder / 'Vis'
    if labels is None or ir is None or not native.files_in(labels, '.xml'):
        raise native.wrong_layout(folder, 'M3FD', 'Ir/, Vis/ and Annotation/*.xml')
    counts = Counter[str]()
    frames = _frames(folder / 'meta', labels, Pictures(ir), Pictures(vis), counts)
    return Listing(frames, M3FD_CLASSES, 'lists of meta/' if (folder / 'meta').is_dir()
                   else 'no split of its own', counts)


def read_llvip(folder: Path, options: Options) -> Listing:
    """
    Read infrared/ and visible/ with their train and test folders: night scenes, people only.

    There are also corrected labels: of several Annotations* folders, the last one in natural
    order is read (Annotations_v2, not Annotations), or `options.labels`.
    """
    options.allow('llvip', 'labels')
    # The lower-case folder is our output, unless it contains the labels.
    versions = sorted((p for p in folder.glob('[Aa]nnotation*') if native.files_in(p, '.xml')),
                      key=lambda p: natural(p.name.lower()))
    if not (folder / 'infrared').is_dir() or not (versions or options.labels):
        raise native.wrong_layout(folder, 'LLVIP', 'infrared/{train,test}/, '
                                  'visible/{train,test}/ and Annotations/*.xml')
    labels = native.resolve(folder, options.labels) if options.labels else versions[-1]
    files = native.files_in(labels, '.xml')
    if not files:
        raise UserError(f'The label folder {options.labels} has no XML files.')
    listing = Listing([], {'person': 'person'}, f'labels of {labels.name}/')
    pictured: set[str] = set()
    for split in ('train', 'test'):
        thermal = Pictures(folder / 'infrared' / split)
        rgb = Pictures(folder / 'visible' / split)
        pictured |= thermal.keys()
        listing.counts[native.UNLABELLED] += len(thermal.keys() - files.keys())
        listing.frames += [
            frame_of(split, path, rgb[stem], files[stem], 'night')
            for stem, path in thermal.items() if stem in files]
    # The first release had more images than the current one; their labels are still there.
    listing.counts['labels without a picture'] += len(files.keys() - pictured)
    listing.notes += [_difference(other, files) for other in versions if other != labels]
    return listing


def _difference(other: Path, files: dict[str, Path]) -> str:
    theirs = native.files_in(other, '.xml')
    differ = sum(stem not in theirs or parse_voc(theirs[stem]).items != parse_voc(path).items
                 for stem, path in files.items())
    return f'{other.name}/ has different labels for {differ} of {len(files)} frames; not read.'
