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

"""Track ids on simulated drives: crossings, occlusions, misses, jitter, jumps of time."""

from collections.abc import Callable, Sequence

from cgdet_core.runtime import Detections
from cgdet_core.runtime.detection.multi_object import (
    ConstantVelocity,
    match,
    MultiObjectTracker,
    Track,
)
from cgdet_core.runtime.detection.postprocess import iou
import numpy as np
import pytest

Objects = list[tuple[float, float, int] | None]  # center x and y, label; None: not detected
PERSON, CAR = 0, 2
SIZES = {PERSON: (16.0, 40.0), CAR: (60.0, 40.0)}


@pytest.fixture
def tracker() -> MultiObjectTracker:
    """Return a tracker that keeps unseen tracks for one second."""
    return MultiObjectTracker(max_age_s=1.0)


def follow(
    tracker: MultiObjectTracker, scene: Callable[[float], Objects], times: Sequence[float],
    jitter: float = 0.0, seed: int = 0,
) -> list[list[str | None]]:
    """Return for each time the ids of the scene's objects, None for those not detected."""
    rng = np.random.default_rng(seed)
    result = []
    for time in times:
        objects = scene(time)
        order = rng.permutation([i for i, o in enumerate(objects) if o is not None])
        boxes, labels = [], []
        for i in order:
            x, y, label = objects[i]  # type: ignore[misc]
            half = np.array(SIZES[label]) / 2
            boxes.append(np.hstack([(x, y) - half, (x, y) + half]) + rng.normal(0, jitter, 4))
            labels.append(label)
        ids = tracker.update(Detections(
            np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32),
            np.array(labels, np.int64)), 100.0 + time)
        found: list[str | None] = [None] * len(objects)
        for i, track in zip(order, ids, strict=True):
            found[i] = track
        result.append(found)
    return result


def ids_of(result: list[list[str | None]], number: int) -> set[str]:
    """Return the ids an object ever had."""
    return {ids[number] for ids in result if ids[number]}  # type: ignore[misc]


def at(rate: float, seconds: float = 4.0) -> list[float]:
    return [i / rate for i in range(round(rate * seconds))]


@pytest.mark.parametrize('rate', [5, 9, 30, 60])
def test_an_object_keeps_its_id_from_the_third_frame_on(
    tracker: MultiObjectTracker, rate: int,
) -> None:
    result = follow(tracker, lambda t: [(50 + 60 * t, 100, PERSON)], at(rate), jitter=1.0)
    assert [ids[0] for ids in result[:2]] == ['', '']
    assert all(ids[0] == result[2][0] != '' for ids in result[2:])
    assert result[2][0].isdecimal()  # type: ignore[union-attr]


@pytest.mark.parametrize('rate', [10, 30])
@pytest.mark.parametrize('seed', range(5))
def test_crossing_objects_keep_their_ids(
    tracker: MultiObjectTracker, rate: int, seed: int,
) -> None:
    def scene(t: float) -> Objects:
        return [(40 + 60 * t, 100, PERSON), (280 - 60 * t, 112, PERSON)]

    result = follow(tracker, scene, at(rate), jitter=0.7, seed=seed)
    assert len(ids_of(result, 0)) == len(ids_of(result, 1)) == 1
    assert ids_of(result, 0) != ids_of(result, 1)


def test_an_object_hidden_while_it_crosses_another_comes_back_with_its_id(
    tracker: MultiObjectTracker,
) -> None:
    def scene(t: float) -> Objects:
        left, right = 40 + 60 * t, 280 - 60 * t
        hidden = abs(left - right) < 14
        return [(left, 100, PERSON), None if hidden else (right, 112, PERSON)]

    result = follow(tracker, scene, at(30), jitter=0.7)
    assert sum(ids[1] is None for ids in result) >= 5
    assert len(ids_of(result, 0)) == len(ids_of(result, 1)) == 1
    assert ids_of(result, 0) != ids_of(result, 1)


@pytest.mark.parametrize('rate', [10, 30])
def test_an_occlusion_of_half_a_second_is_bridged(tracker: MultiObjectTracker, rate: int) -> None:
    def scene(t: float) -> Objects:
        return [None if 2.0 <= t < 2.5 else (50 + 80 * t, 100, PERSON)]

    result = follow(tracker, scene, at(rate), jitter=0.5)
    assert len(ids_of(result, 0)) == 1 and result[-1][0]


@pytest.mark.parametrize('seed', range(5))
def test_misses_and_jitter_change_no_id(tracker: MultiObjectTracker, seed: int) -> None:
    lucky = np.random.default_rng(100 + seed).random((200, 2)) > 0.2

    def scene(t: float) -> Objects:
        seen = lucky[round(t * 30)]
        return [(50 + 40 * t, 100, PERSON) if seen[0] else None,
                (500 - 90 * t, 300, CAR) if seen[1] else None]

    result = follow(tracker, scene, at(30), jitter=1.5, seed=seed)
    assert len(ids_of(result, 0)) == len(ids_of(result, 1)) == 1


@pytest.mark.parametrize('seed', range(5))
def test_dropped_frames_and_uneven_stamps_change_no_id(
    tracker: MultiObjectTracker, seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    times = [t + rng.uniform(0, 0.01) for i, t in enumerate(at(30))
             if i < 10 or rng.random() > 0.5]
    result = follow(tracker, lambda t: [(50 + 150 * t, 100, PERSON)], times, jitter=0.5)
    assert len(ids_of(result, 0)) == 1 and all(ids[0] for ids in result[10:])


def test_a_class_is_never_matched_with_another(tracker: MultiObjectTracker) -> None:
    def scene(t: float) -> Objects:
        return [(100, 100, PERSON if t < 2 else CAR)]

    result = follow(tracker, scene, at(10))
    before, after = ids_of(result[:20], 0), ids_of(result[20:], 0)
    assert len(before) == len(after) == 1 and before != after


def test_a_person_in_front_of_a_car_has_a_separate_id(tracker: MultiObjectTracker) -> None:
    result = follow(tracker, lambda t: [(100, 100, PERSON), (100, 100, CAR)], at(10), jitter=0.5)
    assert len(ids_of(result, 0)) == len(ids_of(result, 1)) == 1
    assert ids_of(result, 0) != ids_of(result, 1)


def test_new_objects_get_new_ids(tracker: MultiObjectTracker) -> None:
    def scene(t: float) -> Objects:
        return [(50 + 100 * i, 100, PERSON) if t >= i else None for i in range(4)]

    result = follow(tracker, scene, at(10, 6.0))
    assert len(set.union(*(ids_of(result, i) for i in range(4)))) == 4
    assert all(len(ids_of(result, i)) == 1 for i in range(4))


def test_an_object_that_returns_after_max_age_has_a_new_id(tracker: MultiObjectTracker) -> None:
    def scene(t: float) -> Objects:
        return [None if 2 <= t < 3.5 else (100, 100, PERSON)]

    result = follow(tracker, scene, at(10, 6.0))
    assert len(ids_of(result, 0)) == 2


def test_a_pause_longer_than_max_age_ends_all_tracks(tracker: MultiObjectTracker) -> None:
    times = at(10, 2.0) + [5 + t for t in at(10, 2.0)]
    result = follow(tracker, lambda t: [(100, 100, PERSON)], times)
    assert len(ids_of(result, 0)) == 2 and result[20][0] == result[21][0] == ''


@pytest.mark.parametrize('step', [0.035, 0.2, 0.9])
def test_a_small_step_back_in_time_changes_no_id(tracker: MultiObjectTracker, step: float) -> None:
    real = iter(at(30))

    def scene(stamp: float) -> Objects:
        return [(50 + 60 * next(real), 100, PERSON), (400, 100, CAR)]

    result = follow(tracker, scene, [t - step if t >= 2 else t for t in at(30)], jitter=0.5)
    assert len(ids_of(result, 0)) == len(ids_of(result, 1)) == 1
    assert all(all(ids) for ids in result[2:])


@pytest.mark.parametrize('rate', [10, 30])
def test_frames_out_of_order_change_no_id(tracker: MultiObjectTracker, rate: int) -> None:
    times = at(rate)
    for i in range(10, len(times) - 1, 5):
        times[i], times[i + 1] = times[i + 1], times[i]
    result = follow(tracker, lambda t: [(50 + 60 * t, 100, PERSON)], times, jitter=0.5)
    assert len(ids_of(result, 0)) == 1 and all(ids[0] for ids in result[2:])


def test_a_step_back_by_more_than_max_age_ends_all_tracks(
    tracker: MultiObjectTracker,
) -> None:
    result = follow(tracker, lambda t: [(100, 100, PERSON)], [*at(10), *at(10, 2.9)[17:]])
    assert len(ids_of(result, 0)) == 2 and result[40][0] == result[41][0] == ''


def test_a_camera_slower_than_max_age_has_ids(tracker: MultiObjectTracker) -> None:
    result = follow(tracker, lambda t: [(50 + 2 * t, 100, CAR)], at(0.8, 10))
    assert len(ids_of(result, 0)) == 1 and result[-1][0]


def test_no_id_is_used_twice_when_a_bag_loops(tracker: MultiObjectTracker) -> None:
    def scene(t: float) -> Objects:
        return [(50 + 30 * t, 100, PERSON), (300, 100, CAR)]

    seen: list[set[str]] = []
    for _ in range(3):
        result = follow(tracker, scene, at(10))
        assert result[0] == ['', '']
        seen.append(ids_of(result, 0) | ids_of(result, 1))
    assert all(len(ids) == 2 for ids in seen) and len(set.union(*seen)) == 6


def test_two_cameras_share_no_id(tracker: MultiObjectTracker) -> None:
    first = follow(tracker, lambda t: [(100, 100, PERSON)], at(10))
    second = follow(MultiObjectTracker(), lambda t: [(100, 100, PERSON)], at(10))
    assert ids_of(first, 0).isdisjoint(ids_of(second, 0))


@pytest.mark.parametrize('frames', [1, 2])
@pytest.mark.parametrize('gap', [0.0, 0.3])
def test_a_false_alarm_has_no_id(tracker: MultiObjectTracker, frames: int, gap: float) -> None:
    times = [t if t < 1.0 else t + gap for t in at(10, 2.0)]  # frames dropped before it
    alarm = times[10:10 + frames]
    result = follow(tracker, lambda t: [(100, 100, PERSON) if t in alarm else None], times)
    assert sum(ids[0] is not None for ids in result) == frames
    assert ids_of(result, 0) == set()


def test_frames_without_objects(tracker: MultiObjectTracker) -> None:
    assert follow(tracker, lambda t: [], at(10)) == [[]] * 40


def test_boxes_match_the_track_that_they_overlap_most() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [50, 50, 60, 60], [0, 0, 10, 10]], float)
    first, second, far, other = (Track(ConstantVelocity(box), label) for box, label in (
        (boxes[0] + 1, PERSON), (boxes[1], PERSON), (boxes[2] + 5, PERSON), (boxes[3], CAR)))
    labels = np.array([PERSON, PERSON, PERSON, CAR])
    pairs = match(boxes, labels, [first, second, far, other])
    assert {(row, id(track)) for row, track in pairs} == {
        (0, id(first)), (1, id(second)), (3, id(other))}
    assert match(boxes[:0], labels[:0], [first]) == match(boxes, labels, []) == []


def test_overlap_of_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], float)
    np.testing.assert_allclose(
        iou(boxes, boxes[:2]), [[1, 1 / 3], [1 / 3, 1], [0, 0], [0, 0]])


@pytest.mark.parametrize('closed_s', [0.3, 0.9, 2.0])
def test_tracks_coast_while_the_shutter_is_closed(
    tracker: MultiObjectTracker, closed_s: float,
) -> None:
    """The object moves on behind the shutter and keeps its id; what was frozen is not learnt."""
    def seen(stamp: float) -> Detections:
        x = 100 + 60 * stamp
        return Detections(np.array([[x, 80, x + 30, 160]], np.float32),
                          np.ones(1, np.float32), np.zeros(1, np.int64))

    before = [tracker.update(seen(n / 20), n / 20)[0] for n in range(40)][-1]
    assert before
    frames = round(closed_s * 20)
    for number in range(40, 40 + frames):
        tracker.coast(number / 20)
    assert tracker.update(seen((40 + frames) / 20), (40 + frames) / 20) == [before]
