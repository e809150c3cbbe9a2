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

"""Pascal VOC: one XML file per image; the generic layout, and a parser for related sets."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from cgdet_core.data.formats.native import (
    Item,
    Listing,
    NativeFrame,
    Options,
    own_classes,
    Pictures,
    read_names,
    rgb_folder,
    unique,
    UNLABELLED,
    wrong_layout,
)
from cgdet_core.errors import UserError

LABEL_FOLDERS = ('Annotations', 'Annotation', 'annotations')
PICTURE_FOLDERS = ('JPEGImages', 'images', 'Images')


def parse_voc(path: Path, occlusion: int | None = None) -> list[Item]:
    """
    Read the objects of a VOC file, boxes as xmin, ymin, xmax, ymax or (KAIST) x, y, w, h.

    "difficult" objects are ignored, as in the evaluation of VOC, and those with at least this
    occlusion, if it is set. UserError names a damaged file.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # also encoding errors
        raise UserError(f'{path} is not a readable XML file: {error}.') from None
    items = []
    for number, node in enumerate(root.iter('object')):
        name, box = node.findtext('name', '').strip(), node.find('bndbox')
        try:
            if box is None or not name:
                raise ValueError
            if box.find('xmin') is None:
                x, y, w, h = (float(box.findtext(k, '')) for k in ('x', 'y', 'w', 'h'))
                corners = x, y, x + w, y + h
            else:
                x1, y1, x2, y2 = (
                    float(box.findtext(k, '')) for k in ('xmin', 'ymin', 'xmax', 'ymax'))
                corners = x1, y1, x2, y2
            ignore = _flag(node, 'difficult') == 1 or (
                occlusion is not None and _flag(node, 'occlusion') >= occlusion)
        except (ValueError, OverflowError):
            raise UserError(f'{path}: object {number} has no valid name and box; '
                            'fix or remove the file.') from None
        items.append(Item(name, corners, ignore))
    return items


def _flag(node: ElementTree.Element, name: str) -> int:
    return int(node.findtext(name) or 0)


def first_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of the named subfolders that exists."""
    return next((folder / n for n in names if (folder / n).is_dir()), None)


def split_lists(folder: Path) -> dict[str, list[str]]:
    """Read the lists of train, val and test that exist."""
    lists = {s: folder / f'{s}.txt' for s in ('train', 'val', 'test')}
    return {s: read_names(p) for s, p in lists.items() if p.is_file()}


def labeled(
    stems: Iterable[str], split: str, thermal: Pictures, rgb: Pictures | None, labels: Path,
    counts: Counter[str],
) -> list[NativeFrame]:
    """Return the frames that have an XML file, and count the others."""
    frames = []
    for stem in unique(stems, counts):
        path = labels / f'{stem}.xml'
        if path.is_file():
            frames.append(NativeFrame(
                split, thermal[stem], None if rgb is None else rgb[stem], parse_voc(path)))
        else:
            counts[UNLABELLED] += 1
    return frames


def stems_of(labels: Path, thermal: Pictures) -> list[str]:
    """Return the frames that have a label or an image."""
    # Archives made on macOS contain a hidden "._name" for each file.
    xml = {p.stem for p in labels.glob('*.xml') if not p.name.startswith('.')}
    return sorted(xml | thermal.keys())


def read_voc(folder: Path, options: Options) -> Listing:
    """Read Annotations/*.xml, JPEGImages/ and ImageSets/Main/{train,val,test}.txt if any."""
    options.allow('voc', 'rgb')
    labels, images = first_folder(folder, LABEL_FOLDERS), first_folder(folder, PICTURE_FOLDERS)
    if labels is None or images is None or not any(labels.glob('*.xml')):
        raise wrong_layout(folder, 'VOC', 'Annotations/*.xml and JPEGImages/')
    thermal, counts = Pictures(images), Counter[str]()
    rgb = Pictures(rgb_folder(folder, options.rgb)) if options.rgb else None
    lists = split_lists(folder / 'ImageSets' / 'Main') or {'all': stems_of(labels, thermal)}
    frames = [f for split, stems in lists.items()
              for f in labeled(stems, split, thermal, rgb, labels, counts)]
    names = sorted({item.name for frame in frames for item in frame.items})
    return Listing(frames, own_classes(names), f'{labels.name}/*.xml and {images.name}/', counts,
                   categories=())
