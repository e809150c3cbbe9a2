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

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.data.coco import read_coco
from cgdet_core.data.formats import native
from cgdet_core.data.formats.native import Item, Listing, NativeFrame, Options, Pictures
from cgdet_core.data.formats.voc import frame_of
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import read_json
from cgdet_core.runtime.inference.card import is_count

V1_NAMES = {1: 'person', 2: 'bicycle', 3: 'car', 18: 'dog', 91: 'other vehicle'}
# In version 1 motorcycles are bicycles; version 2 distinguishes them.
V1_CLASSES = {'person': 'person', 'people': 'person', 'bicycle': 'bicycle', 'car': 'car',
              'other vehicle': 'ignore-car'}
V2_CLASSES = {'person': 'person', 'bike': 'bicycle', 'car': 'car', 'motor': 'ignore-bicycle',
              'bus': 'ignore-car', 'truck': 'ignore-car', 'other vehicle': 'ignore-car'}
V1_PLACES = {'train': 'train', 'training': 'train', 'val': 'val', 'validation': 'val',
             'video': 'video'}
V2_PLACES = {'images_thermal_train': 'train', 'images_thermal_val': 'val',
             'video_thermal_test': 'test'}
ALIGNED_LISTS = {'align_train.txt': 'train', 'align_validation.txt': 'val'}


class Entry(NamedTuple):
    """An image of a COCO file with its boxes."""

    file_name: str
    items: list[Item]
    image: dict[str, Any]

    @property
    def declared(self) -> tuple[int, int] | None:
        """Return width and height of the image, if the file states them."""
        width, height = (self.image.get(side) for side in ('width', 'height'))
        return (width, height) if is_count(width) and is_count(height) else None


def to_item(annotation: Any, names: dict[int, str], where: str) -> Item:
    """Return an annotation as an item; UserError names one that is not valid."""
    try:
        x, y, w, h = (float(v) for v in annotation['bbox'])
        category = int(annotation['category_id'])  # FLIR v1 writes some as text
        crowd = bool(int(annotation.get('iscrowd') or 0))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise UserError(f'{where} is not valid: it must have "bbox" (x, y, width, height) and '
                        '"category_id".') from None
    return Item(names.get(category, f'category {category}'), (x, y, x + w, y + h), crowd)


def read_entries(path: Path, names: dict[int, str], counts: Counter[str]) -> list[Entry]:
    """
    Read a COCO file; `names` are the names of categories that it does not name.

    An image listed twice is read once. Images that share an id are left out, as their boxes
    cannot be distinguished. UserError names what is not valid.
    """
    data = read_coco(path, check=False)
    try:
        names = names | {int(c['id']): str(c['name']) for c in data.get('categories') or []}
        files: dict[Any, list[str]] = defaultdict(list)
        images: dict[str, dict[str, Any]] = {}
        for image in data['images']:
            name = str(image['file_name'])
            counts['frames listed twice'] += name in images
            if name not in images:
                images[name] = image
                files[image['id']].append(name)
        items: dict[Any, list[Item]] = defaultdict(list)
        for number, annotation in enumerate(data.get('annotations') or []):
            items[annotation['image_id']].append(
                to_item(annotation, names, f'{path}: annotation {number}'))
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f'{path} is not a valid COCO annotation file: {type(error).__name__} '
                        f'{error}.') from None
    counts['boxes of pictures that are not listed'] += sum(
        len(found) for key, found in items.items() if key not in files)
    shared = {key for key, same in files.items() if len(same) > 1}
    counts['frames that share an id, left out'] += sum(len(files[key]) for key in shared)
    return [Entry(name, items[image['id']], image) for name, image in images.items()
            if image['id'] not in shared]


def _twin(place: Path, folder_8_bit: str, folder_16_bit: str, bits: int | None) -> Pictures:
    """Return the 16-bit or 8-bit images of a split; by default 16-bit if there are any."""
    twins = {8: Pictures(place / folder_8_bit), 16: Pictures(place / folder_16_bit)}
    return twins[16] or twins[8] if bits is None else twins[bits]


def read_flir_v1(folder: Path, options: Options) -> Listing:
    """
    Read train, val and video, or training, validation and video of the first release.

    The later release has thermal_annotations.json, thermal_8_bit/ and thermal_16_bit/; the first
    release has Annotations/*.json per frame, PreviewData/ (8-bit) and Data/ (16-bit). The RGB
    camera has another field of view, so frames are paired with RGB only on request.
    """
    options.allow('flir-adas-v1', 'bits', 'unregistered_rgb')
    listing, read = Listing([], V1_CLASSES, ''), []
    for name, split in V1_PLACES.items():
        place, rgb = folder / name, Pictures(folder / name / 'RGB')
        if (place / 'thermal_annotations.json').is_file():
            thermal = _twin(place, 'thermal_8_bit', 'thermal_16_bit', options.bits)
            entries = read_entries(place / 'thermal_annotations.json', V1_NAMES, listing.counts)
            found = [(Path(entry.file_name).stem, entry.items, entry.declared)
                     for entry in entries]
        elif any((place / 'Annotations').glob('*.json')):
            thermal = _twin(place, 'PreviewData', 'Data', options.bits)
            found = _v1_per_frame(place / 'Annotations')
        else:
            continue
        frames = [NativeFrame(split, thermal[stem], rgb[stem] if options.unregistered_rgb
                              else None, items, declared=declared)
                  for stem, items, declared in found]
        listing.counts[native.UNLABELLED] += len(thermal.keys() - {f.thermal.stem for f in frames})
        listing.frames += frames
        read.append(f'{name}/{thermal.folder.name}')
    if not read:
        raise native.wrong_layout(
            folder, 'FLIR ADAS v1', 'train/ and val/ with thermal_annotations.json and '
            'thermal_16_bit/ or thermal_8_bit/, or training/ and validation/ with '
            'Annotations/*.json and Data/ or PreviewData/')
    listing.layout = ', '.join(read)
    if not options.unregistered_rgb:
        listing.notes.append('RGB is left out: its camera has another field of view and is not '
                             'registered to thermal, as guidance requires; use the subset '
                             'flir-aligned, or pair the unregistered RGB anyway.')
    return listing


def _v1_per_frame(labels: Path) -> list[tuple[str, list[Item], tuple[int, int] | None]]:
    frames: list[tuple[str, list[Item], tuple[int, int] | None]] = []
    for stem, path in native.files_in(labels, '.json').items():
        data = read_json(path)
        found = data.get('annotation') if isinstance(data, dict) else None
        if not isinstance(found, list):
            raise UserError(f'{path} is not a FLIR ADAS v1 label file: it has no list '
                            '"annotation".')
        frames.append((stem, [to_item(a, V1_NAMES, f'{path}: annotation {i}')
                              for i, a in enumerate(found)], None))
    return frames


def read_flir_v2(folder: Path, options: Options) -> Listing:
    """
    Read images_thermal_train, images_thermal_val and video_thermal_test (as test).

    Only the test video has RGB frames of the same time as the thermal ones, listed in
    rgb_to_thermal_vid_map.json; the RGB and thermal images of train and val are independent.
    """
    options.allow('flir-adas-v2', 'bits')
    listing, partner, read = Listing([], V2_CLASSES, ''), _video_map(folder), []
    for name, split in V2_PLACES.items():
        place = folder / name
        if not (place / 'coco.json').is_file():
            continue
        thermal = _twin(place, 'data', 'analyticsData', options.bits)
        read.append(f'{name}/{thermal.folder.name}')
        for entry in read_entries(place / 'coco.json', {}, listing.counts):
            file = Path(entry.file_name)
            extra = entry.image.get('extra_info')
            hours = str(extra.get('hours') if isinstance(extra, dict) else '').lower()
            other = partner.get(file.name)
            listing.frames.append(NativeFrame(
                split, thermal[file.stem],
                folder / 'video_rgb_test' / 'data' / other if other else None, entry.items,
                hours if hours in ('day', 'night') else 'unknown',
                declared=entry.declared))
    if not read:
        raise native.wrong_layout(folder, 'FLIR ADAS v2', 'images_thermal_train/coco.json, '
                           'images_thermal_val/coco.json or video_thermal_test/coco.json')
    listing.layout = ', '.join(read)
    return listing


def _video_map(folder: Path) -> dict[str, str]:
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
        raise native.wrong_layout(
            folder, 'FLIR-aligned', 'JPEGImages/ with *_PreviewData.jpeg and *_RGB.jpg, '
            'Annotations/*_PreviewData.xml, align_train.txt and align_validation.txt')
    listing = Listing([], V1_CLASSES, ', '.join(p.name for p in lists.values()))
    times = {name: time for time in ('day', 'night')
             for path in root.rglob(f'align_*_{time}.txt') for name in _aligned_names(path)}
    found = Pictures(images)
    for split, path in lists.items():
        for name in native.unique(_aligned_names(path), listing.counts):
            label = labels / f'{name}_PreviewData.xml'
            if not label.is_file():
                listing.counts[native.UNLABELLED] += 1
                continue
            thermal = found.get(f'{name}_PreviewData', images / f'{name}_PreviewData.jpeg')
            rgb = found.get(f'{name}_RGB', images / f'{name}_RGB.jpg')
            listing.frames.append(frame_of(
                split, thermal, rgb, label, times.get(name, 'unknown')))
    listed = {f'{name}_PreviewData' for path in lists.values() for name in _aligned_names(path)}
    listing.counts[native.UNLISTED] += len(native.files_in(labels, '.xml').keys() - listed)
    return listing


def _aligned_names(path: Path) -> list[str]:
    return [n.removesuffix('_PreviewData').removesuffix('_RGB') for n in native.read_names(path)]
