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

"""YOLO text labels, boxes in fractions of the image size: the generic layout and MSRS."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from cgdet_core.data.formats import native
from cgdet_core.data.formats.native import Item, Listing, NativeFrame, Options, Pictures
from cgdet_core.errors import UserError
from cgdet_core.runtime.bounded_yaml import load_yaml
from cgdet_core.runtime.files import read_text
from cgdet_core.runtime.imaging.frames import files_below, IMAGE_SUFFIXES, is_stray
import yaml

MSRS_NAMES = {0: 'person', 1: 'bicycle', 2: 'car'}
MSRS_TIMES = {'D': 'day', 'N': 'night'}  # the last letter of a frame's name


def parse_yolo(path: Path, names: dict[int, str]) -> list[Item]:
    """
    Read "class x y width height" lines: center and size in fractions of the image size.

    A score after them is skipped. UserError names the line that is not valid.
    """
    items = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) > 6:
            raise UserError(f'{path}, line {number} has {len(words)} values: polygons and rotated '
                            'boxes are not supported; export "class x y width height".')
        try:
            first, x, y, w, h = map(native.number, words[:5])
            label = int(first)  # 0.0 is one, 0.5 is not
            # Boxes may be slightly outside at the borders; pixel values are another format.
            good = len(words) in (5, 6) and label == first and min(w, h) >= 0 and all(
                -1 <= v <= 2 for v in (x, y, w, h))
        except (ValueError, OverflowError):
            good = False
        if not good:
            raise UserError(f'{path}, line {number}: "{line[:60]}" is not "class x y width '
                            'height" with fractions of the image size.')
        if label not in names:
            raise UserError(f'{path}, line {number}: class {label} has no name; the last name '
                            f'is that of class {max(names)}.')
        items.append(Item(names[label], (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
    return items


def read_class_names(folder: Path) -> dict[int, str]:
    """
    Read the names of data.yaml or classes.txt.

    UserError if there are none, one is twice, or two files contradict each other.
    """
    files = [(path, read) for pattern, read in NAME_FILES.items()
             for path in sorted(folder.glob(pattern)) if path.is_file()]
    if not files:
        raise UserError(f'{folder} has neither a data.yaml with "names" nor a classes.txt; add '
                        'one, as YOLO labels have only class numbers.')
    (first, read_first), *others = files
    names = _different(read_first(first), first)
    for other, read in others:
        found: dict[int, str] = {}
        with suppress(UserError):  # what is no list of names contradicts nothing
            found = read(other)
        for number in names.keys() & found.keys():
            if names[number].lower() != found[number].lower():
                raise UserError(f'Class {number} is {names[number]} in {first} and '
                                f'{found[number]} in {other}; delete the file that the labels '
                                'were not written with.')
    return names


def _text_names(path: Path) -> dict[int, str]:
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not any(lines):
        raise UserError(f'{path} names no class; write the names in order of their numbers, one a '
                        'line.')
    if not all(lines):
        raise UserError(f'{path} has an empty line between the names, whose lines are the numbers '
                        'of the classes; remove it, or write the name of that class.')
    # Some tools write the number before the name.
    return {i: line.removeprefix(f'{i} ').strip() for i, line in enumerate(lines)}


def _different(names: dict[int, str], path: Path) -> dict[int, str]:
    for name, number in Counter(names.values()).items():
        if number > 1:
            raise UserError(f'{path} names the class {name} twice; give each number its own name.')
    return names


def _yaml_names(path: Path) -> dict[int, str]:
    try:
        content: Any = load_yaml(read_text(path))
    except yaml.YAMLError as error:
        reason = ' '.join(str(error).split())
        raise UserError(f'{path} is not a readable YAML file: {reason}.') from None
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if isinstance(names, dict) and names and all(type(k) is int for k in names):
        if isinstance(count := content.get('nc'), int) and count != len(names):
            raise UserError(f'{path} has {count} classes (nc), but names {len(names)}; correct '
                            'one of them.')
        for k, name in names.items():
            if isinstance(name, bool) or not isinstance(name, (str, int, float)):
                raise UserError(f'{path} names class {k} {str(name)[:60]}, which is not text to '
                                'YAML; write the name in quotes.')
        return {k: str(n).strip() for k, n in names.items()}
    raise UserError(f'{path} has no list "names"; write the class names in order of their '
                    'numbers.')


NAME_FILES = {
    'data.yaml': _yaml_names, 'data.yml': _yaml_names, 'dataset.yaml': _yaml_names,
    **dict.fromkeys(('classes.txt', 'labels/classes.txt', 'labels/*/classes.txt',
                     '*/labels/classes.txt'), _text_names)}


def _places(folder: Path) -> dict[str, tuple[Path, Path, str]]:
    """Return the folders of images and labels of each split, and the split's folder name."""
    found: dict[str, tuple[Path, Path, str]] = {}
    for name, split in native.SPLITS.items():
        for images, labels in ((folder / 'images' / name, folder / 'labels' / name),
                               (folder / name / 'images', folder / name / 'labels')):
            if images.is_dir() and labels.is_dir():
                found.setdefault(split, (images, labels, name))
    if not found and (folder / 'images').is_dir() and (folder / 'labels').is_dir():
        found['all'] = folder / 'images', folder / 'labels', '.'
    return found


def _labels(
    folder: Path, images: Pictures, names: dict[int, str], counts: Counter[str],
) -> dict[str, Path]:
    """Return the label files by stem, without other text such as a README, which is counted."""
    files = native.files_in(folder, '.txt')
    for stem in files.keys() - images.keys():
        try:
            parse_yolo(files[stem], names)
        except UserError:
            del files[stem]
            counts['text files without an image that are not labels, left out'] += 1
    return files


def read_yolo(folder: Path, options: Options) -> Listing:
    """Read images/ and labels/, with or without folders for train, val and test."""
    options.allow('yolo', 'rgb')
    places = _places(folder)
    if not places:
        raise native.wrong_layout(folder, 'YOLO', 'images/ and labels/ (or images/train/ and '
                                  'labels/train/, or train/images/ and train/labels/)')
    names, counts, frames, read = read_class_names(folder), Counter[str](), [], []
    for split, place in places.items():
        found: list[NativeFrame] = []
        for images, labels, name in _below(*place):
            rgb = None
            if options.rgb is not None:
                other = native.existing(folder, options.rgb, 'RGB')
                rgb = Pictures(other / name if (other / name).is_dir() else other)
            inner = _frames(split, Pictures(images), rgb, labels, names, counts)
            if inner:
                read.append(f'{images.relative_to(folder)}/ with {labels.relative_to(folder)}/')
            found += inner
        if not found:
            raise UserError(f'{place[1]} has no label files (*.txt).')
        frames += found
    counts['labeled frames in no folder of train, val or test, left out'] += sum(
        _beside(labels, [place[1] for place in places.values()])
        for labels in (folder / 'labels', *folder.glob('*/labels')))
    classes = native.own_classes(names[i] for i in sorted(names))
    return Listing(frames, classes, ', '.join(read), counts, categories=())


def _below(images: Path, labels: Path, name: str) -> list[tuple[Path, Path, str]]:
    """Return the folders of images and labels, and those in them, as of a camera or a day."""
    inner = {p.relative_to(root) for root in (images, labels) for p in root.rglob('*')
             if p.is_dir() and not is_stray(p.relative_to(root))}
    return [(images / p, labels / p, str(name / p)) for p in (Path('.'), *sorted(inner))]


def _beside(labels: Path, read: list[Path]) -> int:
    """Return the number of images with labels that are in none of the folders that are read."""
    stems = {path.relative_to(labels).with_suffix('') for path in files_below(labels, ('.txt',))
             if not any(path.is_relative_to(place) for place in read)}
    images = labels.with_name('images')
    return len(stems and stems & {path.relative_to(images).with_suffix('')
                                  for path in files_below(images, IMAGE_SUFFIXES)})


def _frames(
    split: str, thermal: Pictures, rgb: Pictures | None, labels: Path, names: dict[int, str],
    counts: Counter[str],
) -> list[NativeFrame]:
    files = _labels(labels, thermal, names, counts)
    if not files:
        counts[native.UNLABELLED] += len(thermal)
        return []
    # Many tools write no file for a frame without objects.
    counts['frames without a label file, taken as empty'] += len(thermal.keys() - files.keys())
    return [NativeFrame(
        split, thermal[stem], None if rgb is None else rgb[stem],
        parse_yolo(files[stem], names) if stem in files else [], fractions=True)
        for stem in sorted(files.keys() | thermal.keys())]


def read_msrs(folder: Path, options: Options) -> Listing:
    """
    Read the frames that have a label file; the others are left out, not read as empty.

    Without labels for train and test, the 80 labeled frames of detection/ are the test set.
    """
    options.allow('msrs', 'labels')
    if options.labels is not None:
        chosen = native.existing(folder, options.labels, 'label')
        candidates = [chosen / 'infrared', chosen]
    else:  # the labels are published as MSRS-detection-label; those of thermal are in infrared/
        candidates = [folder / 'infrared', *sorted(folder.glob('MSRS-detection-label*/infrared')),
                      folder / 'labels']
    counts, frames, read = Counter[str](), [], []
    for split in ('train', 'test'):
        place = next((p / split for p in candidates if native.files_in(p / split, '.txt')), None)
        if place is not None:
            frames += _msrs_frames(split, folder / split, place, counts)
            read.append(str(place.relative_to(folder) if place.is_relative_to(folder) else place))
    own = folder / 'detection'
    if not frames and (own / 'labels').is_dir():
        frames = _msrs_frames('test', own, own / 'labels', counts)
        read.append('detection/labels')
    if not frames and not counts:
        raise native.wrong_layout(folder, 'MSRS', '{train,test}/{ir,vi}/ and labels in YOLO text '
                                  'in infrared/{train,test}/ or detection/{ir,vi,labels}/')
    classes = {name: name for name in MSRS_NAMES.values()}
    return Listing(frames, classes, f'labels of {", ".join(read)}', counts)


def _msrs_frames(split: str, place: Path, labels: Path, counts: Counter[str]) -> list[NativeFrame]:
    thermal, rgb = Pictures(place / 'ir', '.png'), Pictures(place / 'vi', '.png')
    files = _labels(labels, thermal, MSRS_NAMES, counts)
    counts[native.UNLABELLED] += len(thermal.keys() - files.keys())
    return [NativeFrame(split, thermal[stem], rgb[stem], parse_yolo(path, MSRS_NAMES),
                        MSRS_TIMES.get(stem[-1], 'unknown'), fractions=True)
            for stem, path in files.items()]
