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

"""Boxes of third-party COCO files, and of FLIR's variants."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.data.coco import read_coco
from cgdet_core.data.formats.native import Item
from cgdet_core.errors import UserError


class Entry(NamedTuple):
    """An image of a COCO file with its boxes."""

    file_name: str
    items: list[Item]
    image: dict[str, Any]


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
