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

"""What is checked in a COCO file beyond its single entries: ids, names, boxes and image sizes."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
import logging
from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError

ORIENTATION = 0x0112  # EXIF tag; from 5, width and height are exchanged
_log = logging.getLogger(__name__)


def check_links(path: Path, data: dict[str, Any]) -> None:
    """Raise UserError if images or categories are listed twice, or a box's category is not."""
    for section, key, what in (('images', 'id', 'the image id'), ('images', 'file_name', 'image'),
                               ('categories', 'id', 'the category id'),
                               ('categories', 'name', 'the category')):
        for value, count in Counter(entry[key] for entry in data[section]).most_common(1):
            if count > 1:
                raise UserError(f'{path} lists {what} {value} '
                                + ('twice.' if count == 2 else f'{count} times.'))
    known = {category['id'] for category in data['categories']}
    unknown = Counter(a['category_id'] for a in data['annotations']
                      if a['category_id'] not in known)
    for category, count in unknown.most_common(1):
        raise UserError(f'{path} does not list the category {category}, which {count} of its '
                        f'{len(data["annotations"])} boxes have.')


def boxes_inside(path: Path, data: dict[str, Any]) -> list[dict[str, Any]]:
    """
    Return the annotations with an area in their image, and log how many have none.

    Boxes that are mostly outside are clipped. UserError if most boxes have no area in their image.
    """
    images = {image['id']: image for image in data['images']}
    kept: list[dict[str, Any]] = []
    counts: dict[str, list[str]] = {}  # the images, by what was done
    for annotation in data['annotations']:
        image, box = images.get(annotation['image_id']), annotation['bbox']
        if image is None:
            counts.setdefault('of images that are not listed left out', []).append('')
            continue
        clipped = _clipped(box, image['width'], image['height'])
        area = clipped[2] * clipped[3] if min(clipped[2:]) > 0 else 0
        if area == 0:
            reason = 'of zero size or outside their image left out'
        elif area < box[2] * box[3] / 2:
            reason = 'mostly outside their image clipped'
            annotation = annotation | {'bbox': clipped, 'area': area}
        else:
            kept.append(annotation)
            continue
        counts.setdefault(reason, []).append(image['file_name'])
        if area:
            kept.append(annotation)
    boxes = [a['bbox'] for a in data['annotations']]
    if boxes and (max(map(max, boxes)) <= 1
                  or len(counts.get('of zero size or outside their image left out', ())) * 2
                  > len(boxes)):
        raise UserError(f'{path}: most of the {len(boxes)} boxes have no area in their image; '
                        '"bbox" must be x, y, width, height in pixels.')
    for reason, names in counts.items():
        _log.warning('%s: %d %s %s%s.', path, len(names), 'box' if len(names) == 1 else 'boxes',
                     reason, f', the first in {names[0]}' if names[0] else '')
    return kept


def _clipped(box: list[float], width: int, height: int) -> list[float]:
    left, top = max(box[0], 0), max(box[1], 0)
    return [left, top, min(box[0] + box[2], width) - left, min(box[1] + box[3], height) - top]


def shown_size(picture: Any) -> tuple[int, int]:
    """Return width and height of Pillow's image in the orientation that its EXIF states."""
    width, height = picture.size
    return (height, width) if picture.getexif().get(ORIENTATION, 1) >= 5 else (width, height)


def check_sizes(path: Path, listed: Sequence[tuple[Path, tuple[int, int]]]) -> None:
    """Raise UserError if images have other sizes than listed, where Pillow is installed."""
    try:
        from PIL import Image  # reads a size without the pixels; only installed for training
    except ModuleNotFoundError:
        return
    wrong = []
    for file, size in listed:
        with suppress(OSError), Image.open(file) as picture:  # a damaged one: error when read
            if shown_size(picture) != size:
                wrong.append((file, shown_size(picture), size))
    if wrong:
        file, found, size = wrong[0]
        raise UserError(f'{len(wrong)} of the {len(listed)} images listed in {path} have another '
                        f'size than listed, the first is {file}: {found[0]}x{found[1]}, listed '
                        f'{size[0]}x{size[1]}.')
