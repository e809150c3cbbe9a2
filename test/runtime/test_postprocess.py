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

"""Selection of detections, against a plain-Python reference."""

from cgdet_core.runtime.detection.postprocess import Detections, select
import numpy as np
import pytest


def reference(boxes, scores, threshold, iou_threshold):
    """Return the result of greedy per-class suppression, one box at a time."""
    kept = []
    for label in range(scores.shape[1]):
        order = sorted((i for i in range(len(boxes)) if scores[i, label] >= threshold),
                       key=lambda i: -scores[i, label])
        chosen: list[int] = []
        for i in order:
            if all(overlap(boxes[i], boxes[j]) <= iou_threshold for j in chosen):
                chosen.append(i)
        kept += [(i, label) for i in chosen]
    return sorted(kept, key=lambda k: -scores[k])


def overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / area


@pytest.mark.parametrize('seed', range(5))
def test_equals_greedy_suppression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (80, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 40, (80, 2))]).astype(np.float32)
    scores = rng.uniform(0, 1, (80, 3)).astype(np.float32)
    found = select(boxes, scores, 0.3, 0.5, 1000)
    expected = reference(boxes, scores, 0.3, 0.5)
    assert len(found) == len(expected)
    for i, (cell, label) in enumerate(expected):
        assert found.labels[i] == label
        assert found.scores[i] == scores[cell, label]
        np.testing.assert_array_equal(found.boxes[i], boxes[cell])


def test_classes_do_not_suppress_each_other_and_the_limit_holds() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], np.float32)
    found = select(boxes, scores, 0.15, 0.5, 10)
    assert found.labels.tolist() == [0, 1]
    assert len(select(boxes, scores, 0.15, 0.5, 1)) == 1


def test_nothing_above_the_threshold_is_an_empty_result() -> None:
    found = select(np.zeros((5, 4), np.float32), np.zeros((5, 3), np.float32), 0.1, 0.5, 10)
    assert len(found) == 0 and found.boxes.shape == (0, 4)


def test_thresholds_per_class() -> None:
    found = Detections(np.zeros((3, 4), np.float32), np.array([0.5, 0.5, 0.5], np.float32),
                       np.array([0, 1, 0]))
    assert found.above(np.array([0.4, 0.6], np.float32)).labels.tolist() == [0, 0]
    assert len(found.above(0.5)) == 3 and len(found.above(0.6)) == 0
