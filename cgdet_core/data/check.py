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

"""What to know about a set before training: sizes, boxes, near-duplicates, doubtful labels."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.data.pairs.check import check_records
from cgdet_core.data.pairs.edges import is_dark
from cgdet_core.data.show import evenly, save_crops, save_sheet
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.detection.postprocess import Detections, iou
from cgdet_core.runtime.imaging.frames import is_gray, read_bgr, read_thermal, to_gray
from cgdet_core.runtime.imaging.signal import seen
import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TINY = 64  # pixels of a box; less than a cell of the finest feature map
BORDER = 1.0  # pixels from the border of the image, up to which a box is cut by it
SAME = 0.9  # overlap from which two boxes are of one object
ALIKE = 0.8  # minimum correlation of the thumbnails of near-duplicates
CELLS = 16  # of a thumbnail, each way
UNREADABLE = ('unreadable', 'unreadable_rgb')  # kinds of findings that cannot be drawn
SURE, FAINT = 0.6, 0.05  # minimum scores: of a detection to trust, of any sign of an object


@dataclass
class Finding:
    """
    Frames with something to look at.

    kind: a word for files and reports; words: what it is. places: the frames, each with the boxes
    concerned (K, 4), and another frame that is like it.
    """

    kind: str
    words: str
    places: list[tuple[ImageRecord, Floats, ImageRecord | None]] = field(default_factory=list)

    def add(self, record: ImageRecord, boxes: Floats, other: ImageRecord | None = None) -> None:
        """Add a frame, unless none of its boxes is concerned."""
        if len(boxes) or other is not None:
            self.places.append((record, boxes, other))

    @property
    def count(self) -> int:
        """The number of boxes, or of frames if the finding is about whole frames."""
        return sum(len(boxes) or 1 for _, boxes, _ in self.places)


def thumbnail(frame: NDArray[Any]) -> Floats:
    """Return the slopes of brightness over 16x16 cells, (512,), of unit length; gain is lost."""
    small = cv2.resize(frame.astype(np.float32), (CELLS + 1, CELLS + 1),
                       interpolation=cv2.INTER_AREA)
    slopes = np.concatenate([np.diff(small, axis=1)[:-1].ravel(),
                             np.diff(small, axis=0)[:, :-1].ravel()])
    return np.asarray(slopes / max(float(np.linalg.norm(slopes)), 1e-9), np.float32)


def check(
    sets: Sequence[CocoSet], detector: Detector | None = None,
    progress: Callable[[int], None] = lambda frames: None,
) -> tuple[dict[str, Any], list[Finding]]:
    """
    Return the numbers of one or two sets (training, validation), and what to look at.

    detector: its confident detections are compared with the boxes of the classes it knows.
    """
    empty = Finding('empty', 'frames without boxes')
    damaged = Finding('unreadable', 'images that cannot be read')
    no_rgb = Finding('unreadable_rgb', 'RGB images that are missing or cannot be read')
    dark = Finding('dark', 'pairs whose RGB is black or nearly uniform')
    labels, doubts = _label_findings(), _doubts()
    thumbnails: list[list[Floats]] = []
    depths: list[Counter[str]] = []
    for coco in sets:
        thumbnails.append([])
        depths.append(Counter())
        for record in coco.images:
            progress(1)
            try:
                raw = read_thermal(record.path)
            except UserError:
                damaged.places.append((record, record.boxes[:0], None))
                thumbnails[-1].append(thumbnail(np.zeros((1, 1), np.uint8)))
                continue
            thumbnails[-1].append(thumbnail(raw))
            depths[-1][f'{8 * raw.itemsize}-bit'] += 1
            if record.rgb_path is not None:
                try:
                    if is_dark(np.asarray(to_gray(read_bgr(record.rgb_path)), np.uint8)):
                        dark.places.append((record, record.boxes[:0], None))
                except UserError:
                    no_rgb.places.append((record, record.boxes[:0], None))
            if not len(record.boxes):
                empty.places.append((record, record.boxes, None))
            _check_boxes(record, labels)
            if detector is not None:
                _compare(record, coco.classes, detector.card.classes,
                         _detect(detector, record, raw), doubts)
    alike = _near_duplicates(sets, thumbnails)
    findings = [damaged, no_rgb, *alike, empty, dark, *labels.values(),
                *(doubts.values() if detector else ())]
    report = {'sets': [_numbers(coco, depth) for coco, depth in zip(sets, depths)],
              'findings': {f.kind: {'what': f.words, 'count': f.count, 'frames': [
                  {'file': record.file_name, 'boxes': boxes.round(1).tolist(),
                   'like': other and other.file_name} for record, boxes, other in f.places]}
                  for f in findings}}
    return report, [f for f in findings if f.places]


def _detect(detector: Detector, record: ImageRecord, raw: NDArray[Any]) -> Detections:
    """Return the detections with any sign of an object; UserError names a frame."""
    try:
        return detector.detect(
            seen(raw, record.unit, record.polarity, detector.card.polarity), FAINT)
    except ValueError as error:
        raise UserError(f'{record.path}: {error}.', 'model') from None


def _numbers(coco: CocoSet, depth: Counter[str]) -> dict[str, Any]:
    """Return the JSON values that describe a set."""
    sample = coco.images[::max(1, len(coco.images) // 8)]
    classes = {}
    for label, name in enumerate(coco.classes):
        chosen = [r.boxes[(r.labels == label) & (r.crowd == 0)] for r in coco.images]
        boxes = np.concatenate(chosen)
        sides = boxes[:, 2:] - boxes[:, :2]
        classes[name] = {
            'boxes': len(boxes), 'frames': sum(map(bool, map(len, chosen))),
            'median_size': np.median(sides, 0).tolist() if len(boxes) else None,
            'tiny': int((sides.prod(1) < TINY).sum())}
    return {
        'file': str(coco.path), 'frames': len(coco.images), 'license': coco.license,
        'sizes': dict(Counter(f'{r.width}x{r.height}' for r in coco.images).most_common()),
        'depth': dict(depth), 'with_rgb': sum(r.rgb_path is not None for r in coco.images),
        'pairs': check_records(coco.images).values(),
        'color': sum(not is_gray(r.path) for r in sample) > len(sample) / 2,
        'classes': classes, 'others': coco.others, 'prelabels': coco.prelabels,
        'ignored': sum(int(r.crowd.sum()) for r in coco.images)}


def _label_findings() -> dict[str, Finding]:
    return {f.kind: f for f in (
        Finding('tiny', f'boxes smaller than {TINY} square pixels'),
        Finding('cut', 'boxes that the border of the image cuts'),
        Finding('double', 'pairs of boxes on one object'),
        Finding('odd', 'boxes that fill the image, or are 8 times as long as wide'))}


def _check_boxes(record: ImageRecord, findings: dict[str, Finding]) -> None:
    boxes = record.boxes[record.crowd == 0]
    sides = boxes[:, 2:] - boxes[:, :2]
    size = np.array([record.width, record.height], np.float32)
    cut = (boxes[:, :2] < BORDER).any(1) | (boxes[:, 2:] > size - BORDER).any(1)
    long = sides.max(1, initial=0) >= 8 * np.maximum(sides.min(1, initial=np.inf), 1)
    pairs = np.triu(iou(boxes, boxes) > SAME, 1).any(1)
    for kind, chosen in (('tiny', sides.prod(1) < TINY), ('cut', cut), ('double', pairs),
                         ('odd', long | (sides.prod(1) > 0.8 * size.prod()))):
        findings[kind].add(record, boxes[chosen])


def _near_duplicates(
    sets: Sequence[CocoSet], thumbnails: Sequence[Sequence[Floats]],
) -> list[Finding]:
    """Return frames like one of the other set, and frames like an earlier one of their set."""
    across = Finding('leak', 'validation frames that are like a training frame')
    within = Finding('alike', 'frames that are like an earlier one of their set')
    stacked = [np.array(values) for values in thumbnails]
    for number, (coco, values) in enumerate(zip(sets, stacked)):
        for i, record in enumerate(coco.images):
            earlier = values[:i] @ values[i]
            if len(earlier) and earlier.max() >= ALIKE:
                within.add(record, record.boxes[:0], coco.images[int(earlier.argmax())])
            if number:
                others = stacked[0] @ values[i]
                if others.max() >= ALIKE:
                    across.add(record, record.boxes[:0], sets[0].images[int(others.argmax())])
    return [across, within]


def _doubts() -> dict[str, Finding]:
    return {f.kind: f for f in (
        Finding('unlabeled', f'confident detections (score {SURE} or more) without a box'),
        Finding('contradicted', 'boxes where a confident detection has another class'),
        Finding('unseen', f'boxes where nothing reaches a score of {FAINT}'))}


def _compare(
    record: ImageRecord, classes: tuple[str, ...], known: tuple[str, ...], found: Detections,
    findings: dict[str, Finding],
) -> None:
    """Add the boxes of one frame that the detections contradict, and detections without a box."""
    shared = iou(found.boxes, record.boxes)
    sure = found.scores >= SURE
    names = np.array([known[label] for label in found.labels], object)
    given = np.array([classes[label] for label in record.labels], object)
    covered = (_inside(found.boxes, record.boxes[record.crowd == 1]) > 0.5).any(1)
    free = sure & (shared.max(1, initial=0) < 0.3) & ~covered & np.isin(names, classes)
    findings['unlabeled'].add(record, found.boxes[free])
    real = (record.crowd == 0) & np.isin(given, known)
    best = np.where(sure[:, None], shared, 0)
    same = names[:, None] == given[None]
    other = (best * ~same).max(0, initial=0)
    findings['contradicted'].add(
        record, record.boxes[real & (other > 0.6) & ((shared * same).max(0, initial=0) < 0.5)])
    findings['unseen'].add(record, record.boxes[real & (shared.max(0, initial=0) < 0.1)])


def _inside(boxes: Floats, regions: Floats) -> NDArray[np.float64]:
    """Return the share (A, B) of each box (A, 4) that lies in each region (B, 4)."""
    a, b = boxes.astype(np.float64)[:, None], regions.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    areas = (a[..., 2:] - a[..., :2]).prod(-1)
    return np.asarray(sides.clip(min=0).prod(-1) / np.maximum(areas, 1e-9))


def sheets(folder: Path) -> list[Path]:
    """Return all files that a check may write."""
    kinds = [*_label_findings(), *_doubts(), 'empty', 'dark', 'leak', 'alike']
    return [folder / f'{kind}.png' for kind in kinds]


def save_findings(folder: Path, findings: Sequence[Finding], classes: tuple[str, ...]) -> None:
    """
    Write a sheet of each finding, <kind>.png: frames beside those like them, or boxes.

    Those of an earlier check are removed. There is none of images that cannot be read.
    """
    for path in sheets(folder):
        path.unlink(missing_ok=True)
    for finding in findings:
        places, path = finding.places, folder / f'{finding.kind}.png'
        if finding.kind in ('leak', 'alike'):
            pairs = [r for record, _, other in evenly(places, 12) for r in (record, other) if r]
            save_sheet(path, pairs, classes)
        elif finding.kind in ('empty', 'dark'):
            save_sheet(path, [record for record, _, _ in evenly(places, 24)], classes)
        elif finding.kind not in UNREADABLE:
            save_crops(path, evenly([(r, box) for r, boxes, _ in places for box in boxes], 36))
