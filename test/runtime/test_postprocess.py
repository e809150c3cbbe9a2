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

from cgdet_core.runtime.detection.postprocess import Detections, scale, select
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


def test_nothing_is_suppressed_at_an_overlap_of_1() -> None:
    boxes = np.repeat(np.array([[0, 0, 10, 10]], np.float32), 3, 0)
    scores = np.array([[0.3, 0.0], [0.9, 0.6], [0.5, 0.0]], np.float32)
    found = select(boxes, scores, 0.2, 1.0, 10)
    np.testing.assert_allclose(found.scores, [0.9, 0.6, 0.5, 0.3])
    assert found.labels.tolist() == [0, 1, 0, 0] and len(select(boxes, scores, 0.2, 1.0, 2)) == 2


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


def random_outputs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 300 overlapping boxes in groups, and scores of three classes."""
    rng = np.random.default_rng(seed)
    corner = np.repeat(rng.uniform(0, 400, (60, 2)), 5, 0) + rng.normal(0, 3, (300, 2))
    boxes = np.hstack([corner, corner + rng.uniform(25, 35, (300, 2))]).astype(np.float32)
    return boxes, (rng.uniform(0, 1, (300, 3)) ** 3).astype(np.float32)


SCALING = np.array([[2.9, -0.3], [0.4, 0.3], [1.0, -2.0]])


def test_scaled_scores_are_the_formula_and_keep_the_order() -> None:
    scores = np.array([[0.0, 0.5, 1.0], [0.2, 0.9, 0.5]], np.float32)
    found = scale(scores, SCALING)
    assert found[0].tolist() == [0, pytest.approx(1 / (1 + np.exp(-0.3))), 1]
    assert found[1, 0] == pytest.approx(1 / (1 + np.exp(0.3) * 4**2.9), rel=1e-6)
    raw = np.sort(np.random.default_rng(0).uniform(0, 1, 10_000)).astype(np.float32)
    for label in range(3):
        values = scale(np.repeat(raw[:, None], 3, 1), SCALING)[:, label]
        assert values.dtype == np.float32 and (np.diff(values) >= 0).all()


@pytest.mark.parametrize('voting_iou', [None, 0.5])
@pytest.mark.parametrize('seed', range(3))
def test_scaling_changes_neither_boxes_nor_order_of_a_class(
    seed: int, voting_iou: float | None,
) -> None:
    boxes, scores = random_outputs(seed)
    raw = select(boxes, scores, 0.001, 0.5, 40, voting_iou)
    floor = scale(np.full(3, 0.001, np.float32), SCALING)
    found = select(boxes, scores, floor, 0.5, 40, voting_iou, SCALING)
    assert len(raw) == len(found) == 40, 'raw scores also choose which detections remain'
    assert (np.diff(found.scores) <= 0).all()
    for label in range(3):
        before, after = raw.boxes[raw.labels == label], found.boxes[found.labels == label]
        np.testing.assert_array_equal(before, after)
        np.testing.assert_array_equal(
            scale(raw.scores[raw.labels == label, None].repeat(3, 1), SCALING)[:, label],
            found.scores[found.labels == label])


def test_a_threshold_of_scaled_scores() -> None:
    boxes, scores = random_outputs(0)
    found = select(boxes, scores, 0.3, 0.5, 1000, None, SCALING)
    everything = select(boxes, scores, 0.0, 0.5, 1000, None, SCALING)
    np.testing.assert_array_equal(found.scores, everything.above(0.3).scores)
    assert 0 < len(found) < len(everything) and found.scores.min() >= 0.3


@pytest.mark.parametrize('seed', range(3))
def test_boxes_vote_with_their_squared_scores(seed: int) -> None:
    boxes, scores = random_outputs(seed)
    plain = select(boxes, scores, 0.3, 0.5, 1000)
    voted = select(boxes, scores, 0.3, 0.5, 1000, 0.6)
    np.testing.assert_array_equal(plain.scores, voted.scores)
    np.testing.assert_array_equal(plain.labels, voted.labels)
    for box, label, found in zip(plain.boxes, plain.labels, voted.boxes):
        near = [i for i in range(len(boxes)) if overlap(*np.float64([box, boxes[i]])) >= 0.6]
        weights = scores[near, label].astype(float) ** 2
        np.testing.assert_allclose(found, weights @ boxes[near] / weights.sum(), rtol=1e-5)
    assert (plain.boxes != voted.boxes).any()


def test_a_voted_box_does_not_depend_on_the_threshold() -> None:
    boxes, scores = random_outputs(1)
    some = select(boxes, scores, 0.5, 0.5, 1000, 0.5)
    more = select(boxes, scores, 0.01, 0.5, 1000, 0.5).above(0.5)
    np.testing.assert_array_equal(some.boxes, more.boxes)
    flat = np.array([[5, 5, 5, 9]] * 2, np.float32)  # overlaps nothing, itself included
    np.testing.assert_array_equal(
        select(flat, np.full((2, 1), 0.9, np.float32), 0.5, 0.5, 9, 0.5).boxes[:1], flat[:1])
