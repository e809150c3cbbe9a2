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

"""Average precision in cases whose value is known."""

from pathlib import Path

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.detection.metrics import evaluate
from cgdet_core.runtime import Detections
import numpy as np
import pytest

CLASSES = ('person', 'bicycle', 'car')


def record(boxes: list, labels: list, **values: object) -> ImageRecord:
    b = np.array(boxes, np.float32).reshape(-1, 4)
    return ImageRecord(
        1, Path(), 640, 512, boxes=b, labels=np.array(labels, np.int64),
        areas=(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]),
        crowd=np.zeros(len(b), np.int64), **values)  # type: ignore[arg-type]


def found(boxes: list, scores: list, labels: list) -> Detections:
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32),
                      np.array(labels, np.int64))


def test_perfect_and_missed() -> None:
    truth = [record([[0, 0, 50, 50], [100, 100, 200, 200]], [0, 2])]
    perfect = evaluate([found([[0, 0, 50, 50], [100, 100, 200, 200]], [0.9, 0.8], [0, 2])],
                       CocoSet(Path(), truth, CLASSES))
    assert perfect['AP'] == pytest.approx(1) and perfect['AP50'] == pytest.approx(1)
    assert perfect['per_class']['bicycle'] == {'AP': None, 'AP50': None}
    half = evaluate([found([[0, 0, 50, 50]], [0.9], [0])], CocoSet(Path(), truth, CLASSES))
    assert half['AP50'] == pytest.approx(0.5)
    assert half['per_class']['person']['AP50'] == pytest.approx(1)
    assert half['per_class']['car']['AP50'] == 0


def test_iou_decides() -> None:
    truth = [record([[0, 0, 100, 100]], [0])]
    shifted = evaluate([found([[0, 0, 100, 62]], [0.9], [0])], CocoSet(Path(), truth, CLASSES))
    assert shifted['AP50'] == pytest.approx(1) and shifted['AP75'] == 0
    assert shifted['AP'] == pytest.approx(0.3)  # IoU 0.50, 0.55 and 0.60 of ten


def test_nothing_found_and_nothing_there() -> None:
    nothing = found([], [], [])
    missed = evaluate([nothing], CocoSet(Path(), [record([[0, 0, 9, 9]], [0])], CLASSES))
    assert missed['AP50'] == 0
    empty = evaluate([nothing], CocoSet(Path(), [record([], [])], CLASSES))
    assert empty['AP50'] is None


@pytest.mark.parametrize('entry', ['time_of_day', 'source'])
def test_day_and_night_and_sources_are_scored_apart(entry: str) -> None:
    truth = [record([[0, 0, 50, 50]], [0], **{entry: 'day'}),
             record([[0, 0, 50, 50]], [0], **{entry: 'night'})]
    report = evaluate([found([[0, 0, 50, 50]], [0.9], [0]), found([], [], [])],
                      CocoSet(Path(), truth, CLASSES))
    times = report[f'per_{entry}']
    assert times['day']['AP50'] == pytest.approx(1) and times['night']['AP50'] == 0
