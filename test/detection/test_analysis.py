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

"""Duplicates, confusions and separability against values worked out by hand."""

from cgdet_core.data.coco import ImageRecord
from cgdet_core.detection import analysis
from cgdet_core.runtime.detection.postprocess import Detections, iou
import numpy as np
import pytest

PERSON, BICYCLE, CAR = range(3)


def truth(*objects: tuple, crowd: tuple[int, ...] = ()) -> ImageRecord:
    """Return a frame of objects (x1, y1, x2, y2, label)."""
    values = np.array(objects, np.float32).reshape(-1, 5)
    return ImageRecord(
        1, None, 100, 100, boxes=values[:, :4], labels=values[:, 4].astype(np.int64),
        areas=np.ones(len(values), np.float32),
        crowd=np.array([int(i in crowd) for i in range(len(values))], np.int64))


def found(*boxes: tuple) -> Detections:
    """Return detections (x1, y1, x2, y2, label, score)."""
    values = np.array(boxes, np.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 5], values[:, 4].astype(np.int64))


def test_overlaps() -> None:
    a = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 5], [7, 7, 7, 7]], np.float32)
    assert iou(a, b) == pytest.approx(np.array([[1 / 3, 0.5, 0], [0, 0, 0]]))


def test_candidates_are_every_class_of_every_box_above_the_score() -> None:
    boxes = np.arange(8, dtype=np.float32).reshape(2, 4)
    scores = np.array([[0.9, 0.1, 0.3], [0.2, 0.25, 0.0]], np.float32)
    every = analysis.candidates(boxes, scores, 0.25)
    assert every.boxes.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert every.labels.tolist() == [0, 2, 1]
    assert every.scores == pytest.approx([0.9, 0.3, 0.25])


def test_boxes_belong_to_the_object_they_overlap_most() -> None:
    # Two neighbors whose boxes overlap each other by 0.54; a car; an object that is not found.
    frame = truth((0, 0, 10, 10, PERSON), (3, 0, 13, 10, PERSON), (50, 50, 70, 60, CAR),
                  (80, 80, 90, 90, BICYCLE))
    boxes = found(
        (0, 0, 10, 10, PERSON, 0.9), (0, 0, 10, 9, PERSON, 0.5), (1, 0, 10, 10, PERSON, 0.44),
        (3, 0, 13, 10, PERSON, 0.8),
        (50, 50, 70, 60, PERSON, 0.9),  # another class
        (50, 50, 59, 60, CAR, 0.7),  # IoU 0.45
        (50, 50, 60, 60, CAR, 0.6))  # IoU 0.5, just enough
    counts = analysis.boxes_per_object(boxes, frame)
    assert counts.tolist() == [3, 1, 1, 0]
    assert analysis.boxes_per_object(boxes, frame, 0.5).tolist() == [2, 1, 1, 0]
    assert analysis.duplicates([counts, np.array([2, 0])]) == {
        'objects': 6, 'found': 4, 'boxes': 7, 'duplicates': 0.75}


def test_relative_duplicates_require_one_good_box() -> None:
    frame = truth((0, 0, 10, 10, PERSON))
    weak = found((0, 0, 10, 10, PERSON, 0.24), (0, 0, 10, 9, PERSON, 0.2))
    assert analysis.boxes_per_object(weak, frame, 0.5).tolist() == [0]


def test_duplicates_without_objects_boxes_or_frames() -> None:
    none = {'objects': 0, 'found': 0, 'boxes': 0, 'duplicates': None}
    assert analysis.duplicates([]) == none
    empty = analysis.boxes_per_object(found((0, 0, 1, 1, 0, 0.9)), truth())
    assert analysis.duplicates([empty]) == none
    unseen = analysis.boxes_per_object(found(), truth((0, 0, 1, 1, 0)))
    assert analysis.duplicates([unseen]) == {**none, 'objects': 1}


def test_duplicates_at_the_score_that_finds_a_share() -> None:
    frames = [truth((0, 0, 10, 10, PERSON), (20, 0, 30, 10, PERSON), (40, 0, 50, 10, CAR)),
              truth((0, 0, 10, 10, CAR), (90, 0, 99, 10, PERSON))]
    boxes = [
        found((0, 0, 10, 10, PERSON, 0.9), (0, 0, 10, 9, PERSON, 0.8), (0, 0, 9, 10, PERSON, 0.3),
              (20, 0, 30, 10, PERSON, 0.5), (60, 0, 70, 10, PERSON, 0.9),
              (40, 0, 50, 10, CAR, 0.2), (40, 0, 50, 10, PERSON, 0.9)),
        found((0, 0, 10, 10, CAR, 0.6), (0, 0, 10, 9, CAR, 0.5))]
    pairs = list(zip(boxes, frames))
    found_scores = [analysis.scores_of_objects(*pair) for pair in pairs]
    assert [best.tolist() for _, best in found_scores] == [
        pytest.approx([0.9, 0.5, 0.2]), pytest.approx([0.6, 0])]
    by_recall = analysis.duplicates_at_recall(found_scores)
    # Of five objects the first is found alone at 0.9, two with three boxes at 0.6, three with
    # five at 0.5, four with seven at 0.2, the last one never.
    assert by_recall == pytest.approx({
        '0.1': 0, '0.2': 0, '0.3': 0.5, '0.4': 0.5, '0.5': 2 / 3, '0.6': 2 / 3, '0.7': 0.75,
        '0.8': 0.75, '0.9': None})
    # A detector that is less sure of the same boxes has the same duplicates.
    less = [(scores / 2, best / 2) for scores, best in found_scores]
    assert analysis.duplicates_at_recall(less) == by_recall
    assert set(analysis.duplicates_at_recall([]).values()) == {None}


def test_crowds_have_no_duplicates() -> None:
    frame = truth((0, 0, 10, 10, PERSON), (50, 50, 60, 60, PERSON), crowd=(0,))
    boxes = found((0, 0, 10, 10, PERSON, 0.9), (50, 50, 60, 60, PERSON, 0.9))
    assert analysis.boxes_per_object(boxes, frame).tolist() == [1]


def test_confusion() -> None:
    frame = truth((0, 0, 10, 10, PERSON), (20, 0, 40, 10, CAR), (50, 0, 60, 10, BICYCLE),
                  (0, 50, 30, 80, CAR), crowd=(3,))
    boxes = found(
        (0, 0, 10, 9, PERSON, 0.9),
        (20, 0, 40, 10, BICYCLE, 0.8), (20, 0, 40, 10, CAR, 0.7),  # the better score is wrong
        (70, 70, 80, 80, CAR, 0.6),  # nothing there
        (0, 50, 30, 79, CAR, 0.5), (0, 51, 30, 80, CAR, 0.4))  # a crowd, whatever is in it
    assert analysis.match(boxes, frame).tolist() == [0, 1, -1, -1, -2, -2]
    counts = analysis.confusion(boxes, frame, 3)
    assert counts.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 2, 0]]
    assert analysis.confused(counts) == 0.5


def test_confusion_of_nothing() -> None:
    assert analysis.confusion(found(), truth(), 2).tolist() == [[0] * 3] * 3
    assert analysis.confused(np.zeros((3, 3), np.int64)) is None
    only = analysis.confusion(found((0, 0, 1, 1, 0, 0.5)), truth(), 2)
    assert only.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    missed = analysis.confusion(found(), truth((0, 0, 1, 1, 1)), 2)
    assert missed.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_separability_of_far_and_of_equal_classes() -> None:
    rng = np.random.default_rng(0)
    labels, frames = np.arange(90) % 3, np.arange(90)
    noise = rng.normal(size=(90, 8)).astype(np.float32)
    far = analysis.separability(noise * 0.01 + np.eye(3, 8)[labels], labels, frames)
    assert far['silhouette'] > 0.9 and far['neighbours'] == 1
    mixed = analysis.separability(noise, labels, frames)
    assert abs(mixed['silhouette']) < 0.1 and mixed['neighbours'] < 0.6


def test_silhouette_of_four_points() -> None:
    # Seen from their mean and of unit length the points stay what they are, over sqrt 2:
    # distances are 1 within a class, 1 and 2 to the two of the other.
    points = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    value = analysis.separability(points, np.array([0, 0, 1, 1]), np.arange(4))
    assert value['silhouette'] == pytest.approx((1.5 - 1) / 1.5, abs=1e-4)


def test_neighbors_of_the_same_frame_do_not_count() -> None:
    labels = np.array([0, 0, 1, 1])
    points = np.array([[1, 0], [1, 0.1], [-1, 0], [-1, 0.1]], np.float32)
    assert analysis.separability(points, labels, labels)['neighbours'] == 0


def test_one_class_or_lone_objects_cannot_be_separated() -> None:
    nothing = {'silhouette': None, 'neighbours': None}
    points = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    for labels in ([0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 2, 3]):
        assert analysis.separability(points, np.array(labels), np.arange(4)) == nothing
    assert analysis.separability(points[:0], np.zeros(0, int), np.zeros(0, int)) == nothing


def test_many_objects_are_sampled_and_rare_classes_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, 'MAX_OBJECTS', 50)
    labels = np.array([0] * 500 + [1] * 10)
    chosen = analysis._sample(labels)
    assert len(chosen) == 50 and (labels[chosen] == 1).sum() == 10
    assert (np.diff(chosen) > 0).all()
    points = np.random.default_rng(0).normal(size=(510, 3)).astype(np.float32)
    points[labels == 1] += 9
    assert analysis.separability(points, labels, np.arange(510))['neighbours'] > 0.9


def test_projection_keeps_the_direction_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    points = rng.normal(0, 0.1, (60, 5)) + np.where(labels, 1, -1)[:, None]
    flat = analysis.project(points.astype(np.float32))
    assert flat.shape == (60, 2)
    assert (np.sign(flat[:, 0]) == np.sign(flat[0, 0])).tolist() == (labels == 0).tolist()


def test_each_mistake_has_one_kind() -> None:
    frame = truth((0, 0, 10, 10, PERSON), (20, 0, 30, 10, PERSON), (40, 0, 50, 10, CAR),
                  (60, 0, 70, 10, BICYCLE), (80, 0, 90, 30, PERSON), crowd=(4,))
    boxes = found(
        (0, 0, 10, 10, PERSON, 0.9),  # right
        (0, 0, 10, 9, CAR, 0.8),  # on an object that is found: not a confusion
        (24, 0, 34, 10, PERSON, 0.7),  # IoU 0.43
        (25, 0, 35, 10, PERSON, 0.6),  # a second box of the same object
        (40, 0, 50, 10, PERSON, 0.5),
        (80, 0, 90, 29, PERSON, 0.4))  # on the ignore region
    marks = analysis.mistakes(boxes, frame)
    assert marks.objects == ['', 'bad box', 'confused', 'missed', '']
    assert marks.detections == ['', 'false', 'bad box', 'false', 'confused', '']
    nothing = analysis.mistakes(found(), frame)
    assert nothing.objects == ['missed'] * 4 + [''] and nothing.detections == []
    assert analysis.mistakes(boxes, truth()).detections == ['false'] * 6
