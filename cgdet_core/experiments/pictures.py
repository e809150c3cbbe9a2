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

"""Annotated frames of an ablation: where two variants differ, and where one fails."""

from pathlib import Path

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.detection.analysis import match
from cgdet_core.detection.curves import choose, text_width, write_caption, write_text
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.drawing import COLORS, save_png
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.imaging.geometry import resize
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import cv2
import numpy as np
from numpy.typing import NDArray

TRIPTYCHS = 6  # half where the shown variant finds more, half where it finds less
FAILURES = 4
WIDTH = 480  # pixels of a frame
Picture = NDArray[np.uint8]


def write_triptychs(
    found: list[list[Detections]], titles: tuple[str, str], coco: CocoSet,
    normalization: Normalization, path: Path,
) -> Path:
    """
    Draw reference, variant and truth side by side (CGDet's figure 3) and return the file.

    found: the detections of both in all frames. The frames are those in which the numbers of
    correct detections differ most, half in favor of each.
    """
    right = [np.array([_right(f, r) for f, r in zip(part, coco.images)]) for part in found]
    gain = right[1] - right[0]
    chosen = choose(gain, TRIPTYCHS // 2) + choose(-gain, TRIPTYCHS // 2)
    rows = []
    # If nothing differs, the first frames are drawn.
    for i in chosen or list(range(min(len(coco.images), TRIPTYCHS // 2))):
        record = coco.images[i]
        real = int((record.crowd == 0).sum())
        rows.append([
            *(_picture(record, part[i], normalization,
                       f'{title}: {count[i]} of {real}')
              for part, title, count in zip(found, titles, right)),
            _truth(record, coco.classes, normalization)])
    return _write(rows, path)


def write_failures(
    found: list[Detections], title: str, coco: CocoSet, normalization: Normalization, path: Path,
) -> Path:
    """Draw the frames with most misses and false boxes above the truth (CGDet's figure 4)."""
    wrong, captions = [], []
    for detections, record in zip(found, coco.images):
        right = _right(detections, record)
        missed = int((record.crowd == 0).sum()) - right
        false = len(detections) - right - int((match(detections, record) == -2).sum())
        wrong.append(missed + false)
        captions.append(f'{title}: {missed} missed, {false} false')
    chosen = choose(np.array(wrong), FAILURES) or [0]
    top = [_picture(coco.images[i], found[i], normalization, captions[i]) for i in chosen]
    bottom = [_truth(coco.images[i], coco.classes, normalization) for i in chosen]
    return _write([top, bottom], path)


def _right(found: Detections, record: ImageRecord) -> int:
    """Return the number of detections that match an object and its class."""
    objects = match(found, record)
    hit = objects >= 0
    return int((record.labels[objects[hit]] == found.labels[hit]).sum())


def _truth(
    record: ImageRecord, classes: tuple[str, ...], normalization: Normalization,
) -> Picture:
    ones = np.ones(len(record.labels), np.float32)
    truth = Detections(record.boxes, ones, record.labels)
    return _picture(record, truth, normalization, 'truth:', classes)


def _picture(
    record: ImageRecord, found: Detections, normalization: Normalization, caption: str,
    legend: tuple[str, ...] = (),
) -> Picture:
    """Draw boxes in the color of their class, and a caption in a strip below the frame."""
    gray = (normalize(read_thermal(record.path), normalization) * 255).astype(np.uint8)
    scale = WIDTH / gray.shape[1]
    fitted = np.empty((max(1, round(gray.shape[0] * scale)), WIDTH), np.uint8)
    resize(gray, fitted)
    picture = cv2.cvtColor(fitted, cv2.COLOR_GRAY2BGR)
    # Names and scores would hide small objects in crowded frames.
    for box, label in zip(np.rint(found.boxes * scale).astype(int), found.labels):
        cv2.rectangle(picture, box[:2].tolist(), box[2:].tolist(), COLORS[label % len(COLORS)], 1)
    strip = write_caption(caption, WIDTH)
    x = 4 + text_width(caption)
    for label, name in enumerate(legend):
        x = write_text(strip, name, x + 10, COLORS[label % len(COLORS)])
    return np.vstack([picture, strip])


def _write(rows: list[list[Picture]], path: Path) -> Path:
    height = max(p.shape[0] for row in rows for p in row)
    padded = [np.hstack([cv2.copyMakeBorder(
        p, 0, height - p.shape[0], 0, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for p in row]) for row in rows]
    return save_png(path, np.vstack(padded))
