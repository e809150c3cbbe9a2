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

"""COCO annotation files: read and check them, and find their images."""

from dataclasses import dataclass, field, replace
import json
import math
from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.frames import is_gray
import numpy as np
from numpy.typing import NDArray

GRAY_SAMPLE = 8  # images read to distinguish a thermal set from a set of color images


@dataclass
class ImageRecord:
    """A frame and its boxes; `path` is the model input, thermal except for RGB models."""

    image_id: int
    path: Path
    width: int
    height: int
    rgb_path: Path | None = None
    time_of_day: str = 'unknown'
    stamp_ns: int | None = None  # of the frame in a bag
    bag: str | None = None  # name of the bag
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    areas: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    crowd: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class CocoSet:
    """Frames in the order of the file; labels index `classes`, boxes are x1, y1, x2, y2."""

    path: Path
    images: list[ImageRecord]
    classes: tuple[str, ...]


def load_coco(
    path: str | Path, images: str | Path | None = None, classes: tuple[str, ...] | None = None,
    channels: int = 1,
) -> CocoSet:
    """
    Read a COCO file and check that all its images exist.

    images: the folder that file names are relative to; by default the annotation file's
    folder or that folder's parent. classes: keep the categories with these names and drop the
    others; by default the file's categories in the order of their ids. channels: 3 reads the
    RGB images of a thermal set, with its boxes, and skips frames without one; a set of color
    images is unchanged. UserError: the file is missing or not COCO, has no common class, or
    images are missing.
    """
    path = Path(path)
    data = read_coco(path)
    root = _root(path, images, data['images'])
    names = {c['id']: c['name'] for c in data.get('categories', [])}
    if classes is None:
        classes = tuple(names[i] for i in sorted(names))
    label_of = {i: classes.index(name) for i, name in names.items() if name in classes}
    if names and not label_of:
        raise UserError(f'{path} has the categories {", ".join(names.values())}; '
                        f'none of them is one of the classes {", ".join(classes)}.')
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in data.get('annotations', []):
        if annotation['category_id'] in label_of:
            by_image.setdefault(annotation['image_id'], []).append(annotation)
    records = [_record(item, root, by_image.get(item['id'], []), label_of)
               for item in data['images']]
    missing = [r.path for r in records if not r.path.is_file()]
    if missing:
        raise UserError(f'{len(missing)} of the {len(records)} images listed in {path} are '
                        f'missing, the first is {missing[0]}; set the folder that the file names '
                        'are relative to.', 'images')
    coco = CocoSet(path, records, classes)
    return _seen_in_rgb(coco) if channels == 3 else coco


def _seen_in_rgb(coco: CocoSet) -> CocoSet:
    paired = [r for r in coco.images if r.rgb_path is not None]
    if paired:
        return replace(coco, images=[_with_rgb(r) for r in paired])
    some = coco.images[::max(1, len(coco.images) // GRAY_SAMPLE)]
    if all(is_gray(r.path) for r in some):
        raise UserError(f'{coco.path} is a thermal set without RGB images (rgb_file_name), '
                        'which a model with model.in_channels=3 requires.')
    return coco


def _with_rgb(record: ImageRecord) -> ImageRecord:
    """Return a record of the frame's RGB image, with the boxes scaled to its pixels."""
    from PIL import Image  # reads a size without the pixels; only installed for training

    assert record.rgb_path is not None
    try:
        with Image.open(record.rgb_path) as picture:
            width, height = picture.size
    except FileNotFoundError:
        raise UserError(f'The RGB image {record.rgb_path} does not exist.') from None
    except OSError:
        raise UserError(f'The RGB image {record.rgb_path} cannot be read.') from None
    x, y = width / record.width, height / record.height
    boxes = (record.boxes * np.array([x, y, x, y])).astype(np.float32)
    return replace(record, path=record.rgb_path, width=width, height=height, boxes=boxes,
                   areas=(record.areas * x * y).astype(np.float32))


def read_json(path: Path) -> Any:
    """Read a JSON file; UserError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding='utf-8-sig'))
    except (ValueError, OSError) as error:
        raise UserError(f'{path} is not a readable JSON file: {error}.') from None


def read_coco(path: Path, check: bool = True) -> dict[str, Any]:
    """
    Read a COCO file unchanged; UserError if it is not one.

    check: also check every entry; readers of third-party files handle invalid entries themselves.
    """
    if not path.is_file():
        raise UserError(f'The annotation file {path} does not exist.')
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get('images'), list):
        raise UserError(f'{path} is not a COCO annotation file: it has no list "images".')
    if not check:
        return data
    if not data['images']:
        raise UserError(f'{path} lists no images.')
    for section, is_valid in (('images', _is_image), ('categories', _is_category),
                              ('annotations', _is_annotation)):
        entries = data.setdefault(section, [])
        if not isinstance(entries, list):
            raise UserError(f'{path} is not a COCO annotation file: "{section}" is not a list.')
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not is_valid(entry):
                raise UserError(f'{path}: entry {number} of "{section}" is not valid: '
                                f'{json.dumps(entry)[:120]}')
    if data['annotations'] and not data['categories']:
        raise UserError(f'{path} has annotations but no "categories".')
    return data


def _is_image(entry: dict[str, Any]) -> bool:
    return (isinstance(entry.get('id'), int) and isinstance(entry.get('file_name'), str)
            and all(isinstance(entry.get(k), int) and entry[k] > 0 for k in ('width', 'height')))


def _is_category(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get('id'), int) and isinstance(entry.get('name'), str)


def _is_annotation(entry: dict[str, Any]) -> bool:
    box = entry.get('bbox')
    return (isinstance(entry.get('image_id'), int) and isinstance(entry.get('category_id'), int)
            and isinstance(box, list) and len(box) == 4
            and all(isinstance(v, int | float) and math.isfinite(v) for v in box)
            and box[2] >= 0 and box[3] >= 0 and entry.get('iscrowd', 0) in (0, 1))


def _root(path: Path, images: str | Path | None, records: list[dict[str, Any]]) -> Path:
    if images is not None:
        if not Path(images).is_dir():
            raise UserError(f'The image folder {images} does not exist.')
        # Both the folder `thermal` itself and file names that start with `thermal/` are common.
        candidates = [Path(images), Path(images).parent]
    else:
        candidates = [path.parent, path.parent.parent]
    first = records[0]['file_name']
    return next((c for c in candidates if (c / first).is_file()), candidates[0])


def _record(
    item: dict[str, Any], root: Path, annotations: list[dict[str, Any]], label_of: dict[int, int],
) -> ImageRecord:
    boxes = np.array([a['bbox'] for a in annotations], np.float32).reshape(-1, 4)
    areas = [a.get('area', a['bbox'][2] * a['bbox'][3]) for a in annotations]
    boxes[:, 2:] += boxes[:, :2]
    rgb = item.get('rgb_file_name')
    return ImageRecord(
        image_id=item['id'], path=root / item['file_name'],
        width=int(item['width']), height=int(item['height']),
        rgb_path=root / rgb if rgb else None,
        time_of_day=item.get('time_of_day') or 'unknown', stamp_ns=item.get('stamp_ns'),
        bag=item.get('bag'), boxes=boxes,
        labels=np.array([label_of[a['category_id']] for a in annotations], np.int64),
        areas=np.array(areas, np.float32),
        crowd=np.array([a.get('iscrowd', 0) for a in annotations], np.int64))


def annotations_of(
    detections: Detections, image_id: int, first_id: int,
) -> list[dict[str, Any]]:
    """
    Return COCO annotations with scores, boxes as x, y, width, height; category = label + 1.

    CVAT's import requires the empty segmentation.
    """
    boxes = detections.boxes.astype(float).round(2)
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {'id': first_id + i, 'image_id': image_id, 'category_id': int(label) + 1,
         'bbox': box.round(2).tolist(), 'area': round(float(box[2] * box[3]), 2), 'iscrowd': 0,
         'segmentation': [], 'score': round(float(score), 5)}
        for i, (box, score, label) in enumerate(
            zip(boxes, detections.scores, detections.labels))]
