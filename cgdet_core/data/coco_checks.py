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

"""What is checked in a COCO file: entries, ids, names, boxes and image sizes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
import json
import logging
import os
from pathlib import Path
import re
from typing import Any, NamedTuple
import unicodedata

from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import read_frame
from cgdet_core.runtime.imaging.normalization import is_number

ORIENTATION = 0x0112  # EXIF tag; above 1 the image is stored turned or mirrored
SMALLEST = 1.0  # pixels of a box in its image, each way
LARGEST = 100.0  # width or height of a box in those of its image
CORNERS = 5  # boxes from which it is no chance that all could be x1, y1, x2, y2
LOST = 'smaller than a pixel or outside their image left out'
_log = logging.getLogger(__name__)


def _is_whole(value: Any) -> bool:
    return is_number(value) and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_path(value: Any) -> bool:
    return _is_text(value) and '\0' not in value


def _is_size(value: Any) -> bool:
    return _is_whole(value) and value > 0


def _is_box(value: Any) -> bool:
    return (isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
            and min(value[2:]) >= 0)


class Field(NamedTuple):
    """What an entry must contain; `words` completes "must be"."""

    name: str
    is_valid: Callable[[Any], bool]
    words: str
    required: bool = True


WHOLE, TEXT, PATH = 'a whole number', 'text', 'text without NUL'
FIELDS = {
    'images': (
        Field('id', _is_whole, WHOLE), Field('file_name', _is_path, PATH),
        Field('width', _is_size, f'{WHOLE} above 0'),
        Field('height', _is_size, f'{WHOLE} above 0'),
        Field('rgb_file_name', _is_path, PATH, False), Field('bag', _is_text, TEXT, False),
        Field('stamp_ns', _is_whole, WHOLE, False)),
    'categories': (Field('id', _is_whole, WHOLE), Field('name', _is_text, TEXT)),
    'annotations': (
        Field('image_id', _is_whole, WHOLE), Field('category_id', _is_whole, WHOLE),
        Field('bbox', _is_box, 'x, y, width, height: four finite numbers, the last two not '
              'negative'),
        Field('iscrowd', lambda value: value in (0, 1), '0 or 1', False),
        Field('area', lambda value: is_number(value) and 0 <= value < 1e30,
              'a number of at least 0 pixels', False))}
NUMBERS = ('id', 'width', 'height', 'image_id', 'category_id', 'stamp_ns')


def check_entries(path: Path, data: dict[str, Any]) -> None:
    """
    Raise UserError for an entry that is not valid; it states what is wrong with it.

    Whole numbers become integers (640.0 is valid), paths of Windows those of Linux, and optional
    values that are null are removed.
    """
    for section, fields in FIELDS.items():
        entries = data.setdefault(section, [])
        if not isinstance(entries, list):
            raise UserError(f'{path} is not a COCO annotation file: "{section}" is not a list.')
        for number, entry in enumerate(entries):
            if reason := _problem(entry, fields):
                raise UserError(f'{path}: entry {number} of "{section}" is not valid: {reason}; '
                                f'it is {json.dumps(entry)[:120]}')
            for key in NUMBERS:
                if type(value := entry.get(key)) is float and value.is_integer():
                    entry[key] = int(value)
            for key in ('file_name', 'rgb_file_name'):
                if key in entry:
                    entry[key] = entry[key].replace('\\', '/')
    turned = [a for a in data['annotations'] if _is_rotated(a)]
    if turned:
        raise UserError(f'{path}: {len(turned)} of the {len(data["annotations"])} boxes are '
                        f'rotated, the first is that of image {turned[0]["image_id"]} '
                        '("rotation" of its attributes); draw them upright and export again.')


def _problem(entry: Any, fields: Iterable[Field]) -> str:
    """Return what is wrong with an entry, or nothing; optional null values are removed."""
    if not isinstance(entry, dict):
        return 'it must be a JSON object'
    for field in fields:
        value = entry.get(field.name)
        if value is None:
            if field.required:
                return f'it has no "{field.name}"' + (
                    '; export boxes, not only outlines' if field.name == 'bbox' else '')
            entry.pop(field.name, None)
        elif not field.is_valid(value):
            if field.name == 'bbox' and isinstance(value, list) and len(value) in (5, 8):
                return 'its "bbox" is rotated; export upright boxes (x, y, width, height)'
            return f'"{field.name}" must be {field.words}'
    return ''


def _is_rotated(annotation: dict[str, Any]) -> bool:
    """Return whether CVAT exported a rotated box: its "bbox" is the one before the rotation."""
    attributes = annotation.get('attributes')
    angle = attributes.get('rotation') if isinstance(attributes, dict) else None
    try:
        return angle is not None and 0.1 < float(angle) % 180 < 179.9
    except (TypeError, ValueError, OverflowError):  # another tool's word for something else
        return False


def check_links(path: Path, data: dict[str, Any]) -> None:
    """Raise UserError if images or categories are listed twice, or a box's category is not."""
    for section, key, what in (('images', 'id', 'the image id'), ('images', 'file_name', 'image'),
                               ('categories', 'id', 'the category id'),
                               ('categories', 'name', 'the category')):
        values = [entry[key] for entry in data[section]]
        if key == 'file_name':  # ./a.png is a.png
            values = [os.path.normpath(value) for value in values]
        for value, count in Counter(values).most_common(1):
            if count > 1:
                raise UserError(f'{path} lists {what} {value} '
                                + ('twice.' if count == 2 else f'{count} times.'))
    check_different(path, [category['name'] for category in data['categories']])
    known = {category['id'] for category in data['categories']}
    unknown = Counter(a['category_id'] for a in data['annotations']
                      if a['category_id'] not in known)
    for number, count in unknown.most_common(1):
        raise UserError(f'{path} does not list the category {number}, which {count} of its '
                        f'{len(data["annotations"])} boxes have.')


def check_different(path: Path, names: Iterable[str]) -> None:
    """Raise UserError for categories that differ only in case, blanks or Unicode form."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[folded(name)].append(name)
    for first, *others in alike.values():
        if others:
            raise UserError(f'{path} lists the categories {first!r} and {others[0]!r}, which '
                            'differ only in case, blanks or Unicode form; give their boxes one '
                            'category.')


def folded(name: str) -> str:
    """Return a class name without case, blanks, hyphens, underscores and invisible characters."""
    seen = (c for c in unicodedata.normalize('NFKC', name) if unicodedata.category(c) != 'Cf')
    return re.sub(r'[\s_-]+', '', ''.join(seen)).casefold()


def check_names(path: Path, names: Iterable[str], classes: Sequence[str]) -> None:
    """Raise UserError for a category that is a class except for case or blanks."""
    known = {folded(name): name for name in classes}
    for name in names:
        same = known.get(folded(name))
        if same is not None and name not in classes:
            raise UserError(f'{path} names a category {name!r}, and the class is {same!r}; write '
                            'both in the same way.')


def boxes_inside(path: Path, data: dict[str, Any]) -> list[dict[str, Any]]:
    """
    Return the annotations that can be found in their image, and log how many cannot, and why.

    Boxes that are mostly outside are clipped. UserError if most boxes have no area in their image.
    """
    images = {image['id']: image for image in data['images']}
    kept: list[dict[str, Any]] = []
    counts: dict[str, list[str]] = {}  # the images, by what was done
    seen: set[tuple[Any, ...]] = set()
    for annotation in data['annotations']:
        image, box = images.get(annotation['image_id']), annotation['bbox']
        key = *(annotation[k] for k in ('image_id', 'category_id')), *box
        if image is None:
            reason, name = 'of images that are not listed left out', str(annotation['image_id'])
        else:
            reason, name = _fault(box, image['width'], image['height']), image['file_name']
            if not reason and key in seen:
                reason = 'listed again left out'
        seen.add(key)
        if reason:
            counts.setdefault(reason, []).append(name)
        if image is not None and reason in ('', CLIPPED):
            clipped = _clipped(box, image['width'], image['height'])
            kept.append(annotation if not reason else annotation | {
                'bbox': clipped, 'area': clipped[2] * clipped[3]})
    boxes = [a['bbox'] for a in data['annotations']]
    if len(counts.get(LOST, ())) * 2 > len(boxes):
        raise UserError(f'{path}: most of the {len(boxes)} boxes have no area in their image; '
                        '"bbox" must be x, y, width, height in pixels.')
    if CLIPPED in counts and len(boxes) >= CORNERS and all(
            w > x and h > y for x, y, w, h in boxes):
        raise UserError(f'{path}: boxes reach far outside their images, and all of them could be '
                        'x1, y1, x2, y2; "bbox" must be x, y, width, height in pixels.')
    for reason, names in counts.items():
        _log.warning('%s: %d %s %s, the first in %s.', path, len(names),
                     'box' if len(names) == 1 else 'boxes', reason, names[0])
    return kept


CLIPPED = 'mostly outside their image clipped'


def _fault(box: list[float], width: int, height: int) -> str:
    """Return what is wrong with the place of a box, or nothing."""
    clipped = _clipped(box, width, height)
    if min(clipped[2:]) < SMALLEST:
        return LOST
    if box[2] > LARGEST * width or box[3] > LARGEST * height:
        return f'larger than {LARGEST:.0f} images left out'
    return CLIPPED if clipped[2] * clipped[3] < box[2] * box[3] / 2 else ''


def _clipped(box: list[float], width: int, height: int) -> list[float]:
    left, top = max(box[0], 0), max(box[1], 0)
    return [left, top, min(box[0] + box[2], width) - left, min(box[1] + box[3], height) - top]


def image_size(path: Path, channels: int = 1) -> tuple[int, int]:
    """
    Return width and height of an image as it is read, of most without reading its pixels.

    UserError or an exception of Pillow if it cannot be read.
    """
    from PIL import Image  # only installed for training

    with Image.open(path) as picture:
        if picture.getexif().get(ORIENTATION, 1) == 1:
            return picture.size
    height, width = read_frame(path, channels).shape[:2]
    return width, height


def check_sizes(
    path: Path, listed: Sequence[tuple[Path, tuple[int, int]]], channels: int = 1,
) -> None:
    """
    Raise UserError if images have other sizes than listed, where Pillow is installed.

    channels: as for `read_frame`.
    """
    wrong = []
    for file, size in listed:
        try:
            found = image_size(file, channels)
        except ModuleNotFoundError:
            return
        except Exception:  # Pillow raises any; a damaged image is an error when it is read
            continue
        if found != size:
            wrong.append((file, found, size))
    if wrong:
        file, found, size = wrong[0]
        turned = ('; if it is turned by an EXIF orientation, save it upright'
                  if found == size[::-1] else '')
        raise UserError(f'{len(wrong)} of the {len(listed)} images listed in {path} have another '
                        f'size than listed, the first is {file}: {found[0]}x{found[1]}, listed '
                        f'{size[0]}x{size[1]}{turned}.')
