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

"""FLIR ADAS: version 1 in both layouts, version 2, and the aligned subset of version 1."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cgdet_core.data.formats.coco_json import read_entries, to_item
from cgdet_core.data.formats.native import (
    Item,
    Listing,
    NativeFrame,
    Options,
    Pictures,
    read_json,
    read_names,
    unique,
    UNLABELLED,
    wrong_layout,
)
from cgdet_core.data.formats.voc import parse_voc
from cgdet_core.errors import UserError

V1_NAMES = {1: 'person', 2: 'bicycle', 3: 'car', 18: 'dog', 91: 'other vehicle'}
# In version 1 motorcycles are bicycles; version 2 distinguishes them.
V1_CLASSES = {'person': 'person', 'people': 'person', 'bicycle': 'bicycle', 'car': 'car',
              'other vehicle': 'ignore-car', 'dog': 'drop'}
V2_CLASSES = {'person': 'person', 'bike': 'bicycle', 'car': 'car', 'motor': 'ignore-bicycle',
              'bus': 'ignore-car', 'truck': 'ignore-car', 'other vehicle': 'ignore-car'}
V1_PLACES = {'train': 'train', 'training': 'train', 'val': 'val', 'validation': 'val',
             'video': 'video'}
V2_PLACES = {'images_thermal_train': 'train', 'images_thermal_val': 'val',
             'video_thermal_test': 'test'}
ALIGNED_LISTS = {'align_train.txt': 'train', 'align_validation.txt': 'val'}


def _twin(folders: dict[int, Path], bits: int | None) -> Pictures:
    """Return the 16-bit or 8-bit images of a split; by default 16-bit if there are any."""
    twins = {depth: Pictures(path) for depth, path in folders.items()}
    if bits is not None:
        return twins[bits]
    return twins[16] or twins[8]


def _check_bits(options: Options) -> None:
    if options.bits not in (None, 8, 16):
        raise UserError(f'The bits must be 8 or 16, not {options.bits}', 'bits')


def read_flir_v1(folder: Path, options: Options) -> Listing:
    """
    Read train, val and video, or training, validation and video of the first release.

    The later release has thermal_annotations.json, thermal_8_bit/ and thermal_16_bit/; the first
    release has Annotations/*.json per frame, PreviewData/ (8-bit) and Data/ (16-bit). The RGB
    camera has another field of view, so frames are paired with RGB only on request.
    """
    options.allow('flir-adas-v1', 'bits', 'unregistered_rgb')
    _check_bits(options)
    listing = Listing([], V1_CLASSES, '')
    read = []
    for name, split in V1_PLACES.items():
        place, rgb = folder / name, Pictures(folder / name / 'RGB')
        if (place / 'thermal_annotations.json').is_file():
            thermal = _twin({8: place / 'thermal_8_bit', 16: place / 'thermal_16_bit'},
                            options.bits)
            found = _v1_table(place / 'thermal_annotations.json', listing.counts)
        elif any((place / 'Annotations').glob('*.json')):
            thermal = _twin({8: place / 'PreviewData', 16: place / 'Data'}, options.bits)
            found = _v1_per_frame(place / 'Annotations')
        else:
            continue
        paired = options.unregistered_rgb
        frames = [NativeFrame(split, thermal[stem], rgb[stem] if paired else None, items)
                  for stem, items in found]
        listing.counts[UNLABELLED] += len(thermal.keys() - {f.thermal.stem for f in frames})
        listing.frames += frames
        read.append(f'{name}/{thermal.folder.name}')
    if not read:
        raise wrong_layout(
            folder, 'FLIR ADAS v1', 'train/ and val/ with thermal_annotations.json and '
            'thermal_16_bit/ or thermal_8_bit/, or training/ and validation/ with '
            'Annotations/*.json and Data/ or PreviewData/')
    listing.layout = ', '.join(read)
    if not options.unregistered_rgb:
        listing.notes.append('RGB is left out: its camera has another field of view and is not '
                             'registered to thermal, as guidance requires; use the subset '
                             'flir-aligned, or pair the unregistered RGB anyway.')
    return listing


def _v1_table(path: Path, counts: Counter[str]) -> Iterator[tuple[str, list[Item]]]:
    for entry in read_entries(path, V1_NAMES, counts):
        yield Path(entry.file_name).stem, entry.items


def _v1_per_frame(labels: Path) -> Iterator[tuple[str, list[Item]]]:
    for path in sorted(p for p in labels.glob('*.json') if not p.name.startswith('.')):
        data = read_json(path)
        found = data.get('annotation') if isinstance(data, dict) else None
        if not isinstance(found, list):
            raise UserError(f'{path} is not a FLIR ADAS v1 label file: it has no list '
                            '"annotation".')
        yield path.stem, [to_item(a, V1_NAMES, f'{path}: annotation {i}')
                          for i, a in enumerate(found)]


def read_flir_v2(folder: Path, options: Options) -> Listing:
    """
    Read images_thermal_train, images_thermal_val and video_thermal_test (as test).

    Only the test video has RGB frames of the same time as the thermal ones, listed in
    rgb_to_thermal_vid_map.json; the RGB and thermal images of train and val are independent.
    """
    options.allow('flir-adas-v2', 'bits')
    _check_bits(options)
    listing, partner, read = Listing([], V2_CLASSES, ''), _video_map(folder), []
    for name, split in V2_PLACES.items():
        place = folder / name
        if not (place / 'coco.json').is_file():
            continue
        thermal = _twin({8: place / 'data', 16: place / 'analyticsData'}, options.bits)
        read.append(f'{name}/{thermal.folder.name}')
        for entry in read_entries(place / 'coco.json', {}, listing.counts):
            file = Path(entry.file_name)
            extra = entry.image.get('extra_info')
            hours = str(extra.get('hours') if isinstance(extra, dict) else '').lower()
            other = partner.get(file.name)
            listing.frames.append(NativeFrame(
                split, thermal[file.stem],
                folder / 'video_rgb_test' / 'data' / other if other else None, entry.items,
                hours if hours in ('day', 'night') else 'unknown'))
    if not read:
        raise wrong_layout(folder, 'FLIR ADAS v2', 'images_thermal_train/coco.json, '
                           'images_thermal_val/coco.json or video_thermal_test/coco.json')
    listing.layout = ', '.join(read)
    return listing


def _video_map(folder: Path) -> dict[str, str]:
    """Return the RGB file of each thermal file of the test video."""
    path = folder / 'rgb_to_thermal_vid_map.json'
    if not path.is_file():
        return {}
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f'{path} is not a table of RGB and thermal file names.')
    return {Path(str(thermal)).name: Path(str(rgb)).name for rgb, thermal in data.items()}


def read_flir_aligned(folder: Path, options: Options) -> Listing:
    """Read JPEGImages/, Annotations/*_PreviewData.xml and the align_*.txt lists."""
    options.allow('flir-aligned')
    root = folder / 'align' if (folder / 'align').is_dir() else folder
    images, labels = root / 'JPEGImages', root / 'Annotations'
    lists = {split: path for name, split in ALIGNED_LISTS.items()
             for path in (root / name, root / 'ImageSets' / 'Main' / name) if path.is_file()}
    if not lists or not images.is_dir() or not labels.is_dir():
        raise wrong_layout(
            folder, 'FLIR-aligned', 'JPEGImages/ with *_PreviewData.jpeg and *_RGB.jpg, '
            'Annotations/*_PreviewData.xml, align_train.txt and align_validation.txt')
    listing = Listing([], V1_CLASSES, ', '.join(p.name for p in lists.values()))
    times = {name: time for time in ('day', 'night')
             for path in root.rglob(f'align_*_{time}.txt') for name in _aligned_names(path)}
    found = Pictures(images)
    for split, path in lists.items():
        for name in unique(_aligned_names(path), listing.counts):
            label = labels / f'{name}_PreviewData.xml'
            if not label.is_file():
                listing.counts[UNLABELLED] += 1
                continue
            thermal = found.get(f'{name}_PreviewData', images / f'{name}_PreviewData.jpeg')
            rgb = found.get(f'{name}_RGB', images / f'{name}_RGB.jpg')
            listing.frames.append(NativeFrame(
                split, thermal, rgb, parse_voc(label), times.get(name, 'unknown')))
    return listing


def _aligned_names(path: Path) -> list[str]:
    return [n.removesuffix('_PreviewData').removesuffix('_RGB') for n in read_names(path)]
