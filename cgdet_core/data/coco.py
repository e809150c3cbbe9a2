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

"""COCO annotation files: read and check them, find their images, and replace their boxes."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
import json
import math
import os
from pathlib import Path, PurePosixPath
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import check_outputs, write_json
from cgdet_core.runtime.imaging.frames import is_gray
import numpy as np
from numpy.typing import NDArray


@dataclass
class ImageRecord:
    """A frame and its boxes; `path` is the model input, thermal except for RGB models."""

    image_id: int
    path: Path
    width: int
    height: int
    rgb_path: Path | None = None
    time_of_day: str = 'unknown'
    source: str = 'unknown'  # data set or camera that the frame is from
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
    names = {c['id']: c['name'] for c in data['categories']}
    if classes is None:
        classes = tuple(names[i] for i in sorted(names))
    label_of = {i: classes.index(name) for i, name in names.items() if name in classes}
    if names and not label_of:
        raise UserError(f'{path} has the categories {", ".join(names.values())}; '
                        f'none of them is one of the classes {", ".join(classes)}.')
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in data['annotations']:
        if annotation['category_id'] in label_of:
            by_image[annotation['image_id']].append(annotation)
    records = [_record(item, root, by_image[item['id']], label_of) for item in data['images']]
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
    # Some 8 images distinguish a thermal set from a set of color images.
    if all(is_gray(r.path) for r in coco.images[::max(1, len(coco.images) // 8)]):
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
    except OSError as error:
        reason = 'does not exist' if isinstance(error, FileNotFoundError) else 'cannot be read'
        raise UserError(f'The RGB image {record.rgb_path} {reason}.') from None
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
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise UserError(f'The image folder {images} does not exist.')
    # Both the folder `thermal` itself and file names that start with `thermal/` are common.
    first = records[0]['file_name']
    return next((f for f in (folder, folder.parent) if (f / first).is_file()), folder)


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
        time_of_day=item.get('time_of_day') or 'unknown',
        source=str(item.get('source') or 'unknown'), stamp_ns=item.get('stamp_ns'),
        bag=item.get('bag'), boxes=boxes,
        labels=np.array([label_of[a['category_id']] for a in annotations], np.int64),
        areas=np.array(areas, np.float32),
        crowd=np.array([a.get('iscrowd', 0) for a in annotations], np.int64))


def annotations_of(detections: Detections, image_id: int, first: int) -> list[dict[str, Any]]:
    """
    Return COCO annotations with scores, boxes as x, y, width, height; category = label + 1.

    first: the first annotation's id. CVAT's import requires the empty segmentation.
    """
    boxes = detections.boxes.astype(float).round(2)
    boxes[:, 2:] -= boxes[:, :2]
    return [
        {'id': first + i, 'image_id': image_id, 'category_id': int(label) + 1,
         'bbox': box.round(2).tolist(), 'area': round(float(box[2] * box[3]), 2), 'iscrowd': 0,
         'segmentation': [], 'score': round(float(score), 5)}
        for i, (box, score, label) in enumerate(zip(boxes, detections.scores, detections.labels))]


def relabel(path: Path, labels: Path, output: Path, overwrite: bool) -> tuple[int, int, int]:
    """
    Write a set's frames with the boxes of another COCO file, which lacks RGB and stamps.

    Frames are matched by file name, as tools may change folders and suffixes; frames that are not
    in the labels are left out. Returns the numbers of frames, boxes and frames left out.
    UserError if the labels list an image that is not in the set, twice, or of another size.
    """
    if output.absolute().parent != path.absolute().parent:
        raise UserError(f'{output} must be in the folder of {path.name}, as image paths are '
                        'relative.')
    check_outputs([output], overwrite=overwrite)
    ours, theirs = read_coco(path), read_coco(labels)
    by_stem: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for frame in ours['images']:
        by_stem[PurePosixPath(frame['file_name']).stem].append(frame)
    ids: dict[int, int] = {}
    for image in theirs['images']:
        name = image['file_name']
        frame = _find(name, by_stem[PurePosixPath(name).stem], path)
        if any(frame[side] != image[side] for side in ('width', 'height')):
            raise UserError(f'{name} has {image["width"]}x{image["height"]} pixels in {labels}, '
                            f'{frame["width"]}x{frame["height"]} in {path}.')
        if image['id'] in ids or frame['id'] in ids.values():
            raise UserError(f'{labels} lists {name}, or another image with its id, twice.')
        ids[image['id']] = frame['id']
    categories = {category['id'] for category in theirs['categories']}
    for box in theirs['annotations']:
        if box['image_id'] not in ids or box['category_id'] not in categories:
            raise UserError(f'{labels} has a box for an image or category that it does not list: '
                            f'{json.dumps(box)[:120]}')
    labeled = set(ids.values())
    kept = [frame for frame in ours['images'] if frame['id'] in labeled]
    boxes = [box | {'image_id': ids[box['image_id']]} for box in theirs['annotations']]
    content = ours | {'images': kept, 'categories': theirs['categories'], 'annotations': boxes}
    write_json(output, content, indent=None)
    return len(kept), len(boxes), len(ours['images']) - len(kept)


def _find(name: str, frames: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    """Return the frame whose path has the longest common ending with the name."""
    if not frames:
        raise UserError(f'{name} is not in {path}.')
    wanted = PurePosixPath(name).with_suffix('').parts[::-1]

    def common(frame: dict[str, Any]) -> int:
        parts = PurePosixPath(frame['file_name']).with_suffix('').parts[::-1]
        return len(os.path.commonprefix([parts, wanted]))

    best = max(map(common, frames))
    found = [frame for frame in frames if common(frame) == best]
    if len(found) > 1:
        raise UserError(f'{name} matches {len(found)} frames of {path}; export file names with '
                        'more of their path.')
    return found[0]
