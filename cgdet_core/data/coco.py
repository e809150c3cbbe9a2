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

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
import logging
from pathlib import Path
from typing import Any

from cgdet_core.data.coco_checks import (
    boxes_inside,
    check_entries,
    check_links,
    check_names,
    check_sizes,
    image_size,
)
from cgdet_core.data.image_folder import find_folder
from cgdet_core.data.layouts import conversion
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import read_json
from cgdet_core.runtime.imaging.frames import is_gray, read_frame
from cgdet_core.runtime.imaging.signal import (
    CARD,
    check_polarity,
    check_signal,
    check_unit,
    POLARITIES,
    seen,
)
from cgdet_core.words import counted
import numpy as np
from numpy.typing import NDArray

UNKNOWN = 'unknown'  # license of a set that states none
NO_CLASS = -1  # label of ignore regions that are objects of other categories
_log = logging.getLogger(__name__)


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
    video: str | None = None  # name of the video
    file_name: str = ''  # as the COCO file has it
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    areas: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    crowd: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    scores: NDArray[np.float32] | None = None  # of boxes that a detector found
    unit: str = CARD  # of a 16-bit frame, see `signal.UNITS`
    polarity: str = ''  # of the frame; '': as a model expects it

    def stated(self) -> dict[str, str]:
        """Return unit and polarity, if they are known, as entries of a COCO image."""
        return {name: value for name, value in (('unit', self.unit), ('polarity', self.polarity))
                if value not in ('', CARD)}

    def read(self, channels: int = 1, polarity: str = POLARITIES[0]) -> NDArray[Any]:
        """
        Return the frame as a model of 1 (thermal) or 3 (RGB) channels sees it.

        A thermal frame is in the polarity that the model expects, and in kelvin if the set states
        a unit with a temperature. UserError if it cannot be read, or its size differs.
        """
        pixels = read_frame(self.path, channels)
        height, width = pixels.shape[:2]
        if (width, height) != (self.width, self.height):
            raise UserError(f'{self.path} has {width}x{height} pixels, but the annotation file '
                            f'lists {self.width}x{self.height}, so its boxes are at other places.')
        return pixels if channels != 1 else seen(pixels, self.unit, self.polarity, polarity)


@dataclass
class CocoSet:
    """
    Frames in the order of the file; labels index `classes`, boxes are x1, y1, x2, y2.

    others: the number of boxes of the file's other categories, by name. prelabels: the number of
    boxes that have a score, so that a model made them.
    """

    path: Path
    images: list[ImageRecord]
    classes: tuple[str, ...]
    others: dict[str, int] = field(default_factory=dict)
    license: str = UNKNOWN
    prelabels: int = 0

    def warn_of_prelabels(self) -> None:
        """Warn in the log if boxes were made by a model: they are no truth before a check."""
        if self.prelabels:
            _log.warning('%s: %s by a model (with a score) and not checked by a person; "cgdet '
                         'data relabel" replaces pre-labels by corrected boxes.', self.path,
                         counted(self.prelabels, 'box was made', 'boxes were made'))

    def check_signal(self, kind: str, model: str) -> None:
        """Raise UserError if a model's normalization needs temperatures and a frame has none."""
        for record in self.images:
            check_signal(kind, record.unit, record.polarity, model, f' of {record.path}')

    def check_rgb(self) -> None:
        """Raise UserError if RGB images of frames are missing."""
        listed = [record.rgb_path for record in self.images if record.rgb_path is not None]
        if missing := [path for path in listed if not path.is_file()]:
            raise UserError(f'{len(missing)} of the RGB images listed in {self.path} are missing, '
                            f'the first is {missing[0]}.')

    def boxes(self) -> dict[str, int]:
        """Return the number of boxes of each class, without ignore regions."""
        labels = [r.labels[r.crowd == 0] for r in self.images]
        counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]),
                             minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist()))


def without_rgb(records: list[ImageRecord]) -> list[ImageRecord]:
    """Return frames as if none had an RGB image."""
    return [replace(record, rgb_path=None) for record in records]


def warn_of_shared(
    path: str | Path, images: Collection[ImageRecord], training: Iterable[ImageRecord],
) -> None:
    """Log how many of the validation frames of a file are also trained on."""
    seen = {record.path.resolve() for record in training}
    if shared := sum(record.path.resolve() in seen for record in images):
        _log.warning('%d of the %s of %s also in the training data; metrics of these say little '
                     'of other frames.', shared, counted(len(images), 'frame'),
                     f'{path} are' if len(images) > 1 else f'{path} is')


def load_coco(
    path: str | Path, images: str | Path | None = None, classes: tuple[str, ...] | None = None,
    channels: int = 1, ignore_others: bool = False,
) -> CocoSet:
    """
    Read a COCO file and check that all its images exist and have the listed sizes.

    images: the folder that file names are relative to, see `find_folder`; by default the
    annotation file's folder, that folder's parent, or a folder in one of both. classes: keep the
    categories with these names and leave out the others, or make them ignore regions without a
    class (ignore_others); by default the file's categories in the order of their ids. channels: 3
    reads the RGB images of a thermal set, with its boxes, and skips frames without one; a set of
    color images is unchanged. Boxes without an area in their image are left out, and reported in
    the log. UserError: the file is missing or not COCO, has no common class, or images are
    missing.
    """
    path = Path(path)
    data = read_coco(path)
    root, start = find_folder(path, images, [item['file_name'] for item in data['images']])
    names = {c['id']: c['name'] for c in data['categories']}
    if classes is None:
        classes = tuple(names[i] for i in sorted(names))
    check_names(path, names.values(), classes)
    label_of = {i: classes.index(name) for i, name in names.items() if name in classes}
    if names and not label_of:
        raise UserError(f'{path} has the categories {", ".join(names.values())}; '
                        f'none of them is one of the classes {", ".join(classes)}.')
    others: Counter[str] = Counter()
    prelabels = 0
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in boxes_inside(path, data):
        category = annotation['category_id']
        if category not in label_of:
            others[names[category]] += not annotation.get('iscrowd', 0)
        prelabels += 'score' in annotation
        if category in label_of or ignore_others:
            by_image[annotation['image_id']].append(annotation)
    records = [_record(item, root, start, by_image[item['id']], label_of,
                       **_signal(path, data, item))
               for item in data['images']]
    missing = [r.path for r in records if not r.path.is_file()]
    if missing:
        raise UserError(f'{len(missing)} of the {len(records)} images listed in {path} are '
                        f'missing, the first is {missing[0]}; move {path.name} to where its file '
                        'names lead to them, or set the folder that the file names are relative '
                        'to.', 'images')
    color = channels == 3 and not any(r.rgb_path for r in records)
    check_sizes(path, [(r.path, (r.width, r.height)) for r in records], 3 if color else 1)
    coco = CocoSet(path, records, classes, {n: k for n, k in others.items() if k}, _license(data),
                   prelabels)
    return _seen_in_rgb(coco) if channels == 3 else coco


def classes_with_boxes(path: Path) -> tuple[str, ...]:
    """Return the categories of a COCO file with boxes, in the order of their ids; log them."""
    data = read_coco(path)
    used = {a['category_id'] for a in data['annotations'] if not a.get('iscrowd', 0)}
    names = {c['id']: c['name'] for c in data['categories']}
    found = tuple(names[i] for i in sorted(names) if i in used)
    empty = [names[i] for i in sorted(names) if i not in used]
    _log.info('The classes are those of %s: %s%s.', path, ', '.join(found) or 'none',
              f'; without boxes: {", ".join(empty)}' if empty else '')
    return found


def counts_text(counts: dict[str, int]) -> str:
    """Return counts by name as text, without those of 0."""
    return ', '.join(f'{name} {count}' for name, count in counts.items() if count) or 'none'


def _license(data: dict[str, Any]) -> str:
    """Return the license that a COCO file states, in `licenses` or `info`."""
    entries = data.get('licenses')
    found = [entry.get('name') or entry.get('url') for entry in (
        entries if isinstance(entries, list) else []) if isinstance(entry, dict)]
    info = data.get('info')
    if not any(found) and isinstance(info, dict):
        found = [info.get('license')]
    return ', '.join(dict.fromkeys(str(name) for name in found if name)) or UNKNOWN


def _signal(path: Path, data: dict[str, Any], item: dict[str, Any]) -> dict[str, str]:
    """Return unit and polarity of an image, as far as its entry or `info` states them."""
    info = data.get('info')
    stated = {**(info if isinstance(info, dict) else {}), **item}
    return {name: check(stated[name], str(path)) for name, check in (
        ('unit', check_unit), ('polarity', check_polarity)) if stated.get(name) is not None}


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
    assert record.rgb_path is not None
    try:
        width, height = image_size(record.rgb_path, 3)
    except Exception as error:  # Pillow raises any
        reason = 'does not exist' if isinstance(error, FileNotFoundError) else 'cannot be read'
        raise UserError(f'The RGB image {record.rgb_path} {reason}.') from None
    x, y = width / record.width, height / record.height
    boxes = (record.boxes * np.array([x, y, x, y])).astype(np.float32)
    return replace(record, path=record.rgb_path, width=width, height=height, boxes=boxes,
                   areas=(record.areas * x * y).astype(np.float32))


def read_coco(path: Path, check: bool = True) -> dict[str, Any]:
    """
    Read a COCO file; UserError if it is not one.

    check: also check every entry, see `check_entries`; readers of third-party files handle invalid
    entries themselves.
    """
    if path.is_dir():
        files = [p for p in sorted(path.glob('**/*.json')) if p.name != 'report.json']
        raise UserError(not files and conversion(path) or (
            f'{path} is a folder; a COCO annotation file is required' + (
                f', such as {files[0]}.' if files else
                ', which "cgdet data convert" writes from other labels.')))
    if not path.is_file():
        raise UserError(f'The annotation file {path} does not exist.')
    if path.suffix.lower() in ('.xml', '.yaml', '.yml') and (other := conversion(path)):
        raise UserError(other)
    data = read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get('images'), list):
        raise UserError(f'{path} is not a COCO annotation file: it has no list "images"; '
                        'export the labels as COCO.')
    if not check:
        return data
    if not data['images']:
        raise UserError(f'{path} lists no images.')
    check_entries(path, data)
    if data['annotations'] and not data['categories']:
        raise UserError(f'{path} has annotations but no "categories", the names of their '
                        'classes; export it with them.')
    check_links(path, data)
    return data


def _record(
    item: dict[str, Any], root: Path, start: str, annotations: list[dict[str, Any]],
    label_of: dict[int, int], **signal: Any,
) -> ImageRecord:
    """Return an image and its boxes; root, start: see `find_folder`."""
    boxes = np.array([a['bbox'] for a in annotations], np.float32).reshape(-1, 4)
    areas = [a.get('area', a['bbox'][2] * a['bbox'][3]) for a in annotations]
    boxes[:, 2:] += boxes[:, :2]
    rgb, video = item.get('rgb_file_name'), item.get('video')
    return ImageRecord(
        image_id=item['id'], path=root / item['file_name'].removeprefix(start),
        width=int(item['width']), height=int(item['height']),
        rgb_path=root / rgb.removeprefix(start) if rgb else None,
        time_of_day=str(item.get('time_of_day') or 'unknown'),
        source=str(item.get('source') or 'unknown'), stamp_ns=item.get('stamp_ns'),
        bag=item.get('bag'), video=video if isinstance(video, str) else None,
        file_name=item['file_name'], boxes=boxes,
        labels=np.array([label_of.get(a['category_id'], NO_CLASS) for a in annotations],
                        np.int64),
        areas=np.array(areas, np.float32),
        crowd=np.array([a.get('iscrowd', 0) or int(a['category_id'] not in label_of)
                        for a in annotations], np.int64), **signal)


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
