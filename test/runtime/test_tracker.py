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

"""One target is followed, hidden, lost and found again; bad starts are refused."""

from dataclasses import replace
import json
from pathlib import Path
from time import process_time
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import card_path, file_sha256, load_card
from cgdet_core.runtime.tracking.card import TrackingCard
from cgdet_core.runtime.tracking.model import Seen, TrackingModel
from cgdet_core.runtime.tracking.motion import Trail
from cgdet_core.runtime.tracking.presence import Presence
from cgdet_core.runtime.tracking.search import LostSearch
from cgdet_core.runtime.tracking.target import State, Target
from cgdet_core.runtime.tracking.tracker import JUMPED, LOST_S, Tracker
import numpy as np
import pytest
from toy_tracker import box_around, draw, write_toy_tracker

RATE = 20.0


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> TrackingModel:
    return TrackingModel.load(write_toy_tracker(tmp_path_factory.mktemp('toy') / 'toy.onnx'),
                              threads=1, backend='onnxruntime')


def place(number: int) -> tuple[float, float]:
    """Return the target's center in a frame: 50 pixels a second to the right."""
    return 60 + 2.5 * number, 110


def error(target: Target, center: tuple[float, float]) -> float:
    return float(np.linalg.norm((target.box[:2] + target.box[2:]) / 2 - center))


def test_a_target_is_followed(model: TrackingModel) -> None:
    tracker = Tracker(model)
    first = tracker.start(draw(place(0)), box_around(place(0)), 5.0)
    assert first.state is State.TRACKED and first.score == 1 and first.box.dtype == np.float32
    assert first.box.tolist() == box_around(place(0))
    for number in range(1, 40):
        target = tracker.follow(draw(place(number)), 5 + number / RATE)
        assert target.state is State.TRACKED, number
        assert error(target, place(number)) < 8 and 0.5 <= target.score <= 1


def test_raw_counts_and_kelvin_are_followed_as_8_bit_frames(model: TrackingModel) -> None:
    boxes = []
    for convert in (lambda f: f, lambda f: f.astype(np.uint16) * 100 + 20000,
                    lambda f: f.astype(np.float32) + 200):
        tracker = Tracker(model)
        tracker.start(convert(draw(place(0))), box_around(place(0)), 0.0)
        boxes.append(tracker.follow(convert(draw(place(2))), 0.1).box)
    assert np.abs(np.array(boxes) - boxes[0]).max() < 2


def test_a_hidden_target_is_uncertain_then_lost_and_found_again(model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    states = []
    for number in range(1, 90):
        hidden = 20 <= number < 60
        target = tracker.follow(draw(place(number), hidden), number / RATE)
        states.append(target.state)
    assert set(states[:19]) == {State.TRACKED}
    assert states[19] is State.UNCERTAIN
    assert states[19 + int(LOST_S * RATE) + 1:59] == [State.LOST] * (40 - int(LOST_S * RATE) - 1)
    found = states[59:].index(State.TRACKED)
    assert found <= RATE, 'within a second'
    assert set(states[59 + found:]) == {State.TRACKED} and error(target, place(number)) < 8


def test_a_target_that_is_not_recognized_is_tracked_until_its_box_shows_something_else(
    tmp_path: Path,
) -> None:
    doubtful = {'offset': -3.0, 'score': 0.0, 'quality': 0.0, 'match': 0.0}
    tracker = Tracker(TrackingModel.load(write_toy_tracker(
        tmp_path / 'toy.onnx', calibration=doubtful), threads=1, backend='onnxruntime'))
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    states = [tracker.follow(draw(place(n), n >= 40), n / RATE).state for n in range(1, 60)]
    assert set(states[:39]) == {State.TRACKED} and states[-1] is State.LOST


@pytest.mark.parametrize('scale', [0.85, 1.15])
def test_a_head_that_draws_wrong_sizes_is_corrected(
    model: TrackingModel, monkeypatch: pytest.MonkeyPatch, scale: float,
) -> None:
    """The region is as large as the last box asks for, so that the error would grow."""
    see = model.see

    def scaled(*args: Any) -> Seen:
        seen = see(*args)
        centers = (seen.boxes[:2] + seen.boxes[2:]) / 2
        half = scale * (seen.boxes[2:] - seen.boxes[:2]) / 2
        return seen._replace(boxes=np.concatenate([centers - half, centers + half]))

    monkeypatch.setattr(model, 'see', scaled)
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    for number in range(1, 16):
        target = tracker.follow(draw(place(number)), number / RATE)
    assert target.state is State.TRACKED
    assert np.abs(np.log((target.box[2:] - target.box[:2]) / 40)).max() < 0.25, 'not 0.66'


def test_a_neighbor_is_not_taken_for_a_target_that_was_just_hidden(
    model: TrackingModel, monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, neighbor = (60, 110), (60, 155)
    tracker = Tracker(model)
    tracker.start(np.maximum(draw(target), draw(neighbor)), box_around(target), 0.0)
    for number in range(1, 20):
        tracker.follow(np.maximum(draw(target), draw(neighbor)), number / RATE)
    look = tracker.look
    monkeypatch.setattr(tracker, 'look', lambda *args, **kwargs: replace(
        look(*args, **kwargs), box=np.array(box_around(neighbor)), probability=0.9))
    for number in range(20, 24):
        found = tracker.follow(draw(neighbor), number / RATE)
        assert found.state is not State.TRACKED and error(found, target) < 8


def test_what_has_another_size_is_hardly_the_lost_target(model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    box = np.array(box_around(place(0)))
    further = []
    for number in range(1, 30):
        look = tracker.look(model.prepare(draw(place(0)), None, number / RATE), box)
        larger = replace(look, box=look.box + [-20, -20, 20, 20])
        further.append(tracker._unlikely(larger) - tracker._unlikely(look))
        tracker.follow(draw(place(0), True), number / RATE)
    assert abs(further[0]) < 1e-9 and further[-1] > JUMPED


def test_two_good_frames_do_not_find_a_lost_target(model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    for number in range(1, 30):
        target = tracker.follow(draw(place(0), number < 28), number / RATE)
    assert target.state is State.LOST
    assert tracker.follow(draw(place(0), True), 30 / RATE).state is State.LOST


def test_detections_of_the_class_find_a_lost_target_far_away(model: TrackingModel) -> None:
    far = 280.0, 200.0
    calls = []

    def detect(frame: np.ndarray) -> list[tuple[list[float], float, int]]:
        calls.append(frame.shape)
        return [(box_around((60, 40)), 0.9, 1), (box_around(far), 0.8, 0),
                ([0, 0, 300, 200], 0.9, 0)]

    tracker = Tracker(model, detect)
    tracker.start(draw((60, 60)), box_around((60, 60)), 0.0, label=0)
    seen_from = int(12 * RATE)  # it cannot be so far away earlier
    for number in range(1, seen_from):
        target = tracker.follow(draw((0, 0), True), number / RATE)
    assert target.state is State.LOST and 0 < len(calls) <= 12 * 4
    states = [tracker.follow(draw(far), number / RATE)
              for number in range(seen_from, seen_from + 15)]
    assert states[-1].state is State.TRACKED and error(states[-1], far) < 8


def test_the_score_is_that_of_the_returned_box(model: TrackingModel) -> None:
    far = 160.0, 120.0
    tracker = Tracker(model, lambda frame: [(box_around(far), 0.9, 0)])
    tracker.start(draw((60, 60)), box_around((60, 60)), 0.0)
    tracker.follow(draw((60, 60)), 0.05)
    scores = []
    for number in range(2, 11):  # something like it, too far away to be it
        target = tracker.follow(draw(far), number / RATE)
        assert target.state is State.UNCERTAIN and error(target, (60, 60)) < 20
        scores.append(target.score)
    assert scores[0] < 0.9 and max(scores[1:]) < 0.5


def test_a_frozen_frame_says_nothing(model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    for number in range(1, 20):
        target = tracker.follow(draw(place(number)), number / RATE)
    for number in range(20, 40):  # as a camera that shows its shutter
        frozen = tracker.follow(np.full((240, 320), 90, np.uint8), number / RATE, frozen=True)
        assert frozen.state is State.UNCERTAIN and frozen.score < target.score
    assert frozen.box[0] > target.box[0] + 20, 'it keeps moving'
    assert tracker.follow(draw(place(34)), 2.0).state is State.TRACKED


def test_the_motion_is_over_time_not_frames(model: TrackingModel) -> None:
    for step in (1, 2):
        tracker = Tracker(model)
        tracker.start(draw(place(0)), box_around(place(0)), 0.0)
        for number in range(step, 21, step):
            tracker.follow(draw(place(number)), number / RATE)
        predicted = tracker.follow(draw((0, 0), True), 24 / RATE)
        assert predicted.state is State.UNCERTAIN and error(predicted, place(24)) < 8


def test_time_that_goes_back_is_no_time(model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 100.0)
    tracker.follow(draw(place(1)), 100.05)
    target = tracker.follow(draw(place(2)), 3.0)
    assert target.state is State.TRACKED and error(target, place(2)) < 8


@pytest.mark.parametrize(('box', 'sentence'), [
    ([10, 10, 10, 40], 'smaller than'), ([50, 50, 40, 60], 'smaller than'),
    ([400, 10, 440, 50], 'outside of the frame of 320x240'),
    ([-50, 10, -10, 50], 'outside'), ([np.nan, 0, 10, 10], 'four finite numbers'),
    ([0, 0, np.inf, 10], 'four finite numbers'), ([1, 2, 3], 'four finite numbers'),
    ([-400, 0, 400, 100], 'more than 2 times as large as the frame'),
    ([-1e9, -1e9, 1e9, 1e9], 'more than 2 times'), ('box', 'four finite numbers')])
def test_a_box_that_cannot_be_followed(model: TrackingModel, box: object, sentence: str) -> None:
    tracker = Tracker(model)
    with pytest.raises(ValueError, match=sentence):
        tracker.start(draw(place(0)), box, 0.0)
    with pytest.raises(ValueError, match='no target was chosen'):
        tracker.follow(draw(place(0)), 0.1)


def test_a_frame_of_another_shape_is_refused_and_nothing_is_lost(model: TrackingModel) -> None:
    tracker = Tracker(model)
    with pytest.raises(ValueError, match='two-dimensional'):
        tracker.start(np.zeros((240, 320, 3), np.uint8), box_around(place(0)), 0.0)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    with pytest.raises(ValueError, match='NaN'):
        tracker.follow(np.full((240, 320), np.nan, np.float32), 0.05)
    assert tracker.follow(draw(place(2)), 0.1).state is State.TRACKED


def test_a_frame_of_another_size_is_refused_and_nothing_is_lost(model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    with pytest.raises(ValueError, match='has 640x480 pixels, .* in one of 320x240; start again'):
        tracker.follow(draw(place(1), size=(640, 480)), 0.05)
    assert tracker.follow(draw(place(2)), 0.1).state is State.TRACKED


@pytest.mark.parametrize('constant', ['scale', 'fixed', 'good'])  # features, boxes, quality
def test_a_network_that_returns_no_numbers_is_refused(tmp_path: Path, constant: str) -> None:
    path = write_toy_tracker(tmp_path / 'toy.onnx')
    import onnx
    network = onnx.load(path)
    found = next(value for value in network.graph.initializer if value.name == constant)
    found.CopyFrom(onnx.numpy_helper.from_array(
        np.full_like(onnx.numpy_helper.to_array(found), 3e38), constant))  # finite
    for node in network.graph.node:
        if node.op_type == 'Identity' and node.input[0] == constant:
            node.op_type = 'Mul'
            node.input.append(constant)
    onnx.save(network, path)
    card = json.loads(card_path(path).read_text())
    card_path(path).write_text(json.dumps(card | {'onnx_sha256': file_sha256(path)}))
    with pytest.raises(UserError, match='toy.onnx cannot be used: .* not numbers'):
        TrackingModel.load(path, threads=1, backend='onnxruntime')


def test_the_scan_of_a_frame_visits_every_place_once() -> None:
    search = LostSearch(None, None)
    frame, box = np.zeros((48, 64), np.uint8), np.array([30.0, 20, 34, 24])
    count = len(range(-4, 5)) * len(range(-3, 4))  # steps of 7.2 pixels
    for _ in range(2):
        places = [tuple(place) for _ in range((count - 1) // 2)
                  for place in search.places(frame, 0.0, box, 16.0, 3)[1:]]
        assert len(set(places)) == len(places) == count - 1
        assert not any(np.allclose(place, box) for place in places)


def test_a_target_at_the_border(model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw((10, 110)), box_around((10, 110)), 0.0)
    target = tracker.follow(draw((14, 110)), 0.05)
    assert target.state is State.TRACKED and error(target, (14, 110)) < 10


@pytest.mark.parametrize(('key', 'value', 'sentence'), [
    ('factor', 0.5, 'factor must be'), ('calibration', {'offset': 1}, 'calibration must be'),
    ('tracked_threshold', 1.5, 'tracked_threshold must be'),
    ('lost_threshold', 0.9, 'must not be above'), ('filter', {'step': 1}, 'filter must have'),
    ('filter', {**json.loads('{"initial": 1, "step": 1, "regularization": 1, "spacing": 0}'),
                'label': [1], 'mask': [1], 'weight': [1]}, 'spacing must be positive')])
def test_a_card_that_cannot_be_used(tmp_path: Path, key: str, value: object,
                                    sentence: str) -> None:
    path = write_toy_tracker(tmp_path / 'toy.onnx')
    card = json.loads(card_path(path).read_text())
    card_path(path).write_text(json.dumps(card | {key: value}))
    with pytest.raises(UserError, match=sentence):
        load_card(path, TrackingCard)


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_toy_tracker(tmp_path / 'toy.onnx')
    card = load_card(path, TrackingCard)
    assert TrackingCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    with pytest.raises(ValueError, match='boxes must be'):
        replace(card, outputs={**card.outputs, 'boxes': card.outputs['quality']})


def test_a_detector_is_no_tracker(tmp_path: Path) -> None:
    from toy_model import write_toy
    with pytest.raises(UserError, match='is a detection model, not a tracking model'):
        TrackingModel.load(write_toy(tmp_path / 'toy.onnx'))


def test_an_approaching_target_is_expected_where_it_goes() -> None:
    def box(stamp: float) -> np.ndarray:  # the size of an approaching object goes with 1 / z
        center, half = 160 + 60 * (stamp - 10), 30 / (3 - (stamp - 10))
        return np.array([center - half, 100 - half, center + half, 100 + half])

    trail = Trail(10.0, box(10))
    for stamp in np.arange(10.1, 11.01, 0.1):
        trail.add(stamp, box(stamp))
    places, size = trail.ahead(11.5)
    assert places[0] == pytest.approx([250, 100], abs=1)
    assert 220 < places[1][0] < 250, 'if it slows down'
    assert size == pytest.approx([40, 40], abs=3)


def test_one_wrong_box_does_not_change_the_speed() -> None:
    trail = Trail(-0.1, np.array([-10.0, 0, 10, 20]))
    for number in range(11):
        x = 10.0 * number + 80 * (number == 10)
        trail.add(number / 10, np.array([x, 0, x + 20, 20]))
    assert trail.ahead(2.0)[0][0] == pytest.approx([210, 10], abs=3)


def test_what_was_seen_once_stays() -> None:
    trail = Trail(1.0, np.array([10.0, 20, 30, 60]))
    places, size = trail.ahead(9.0)
    assert places.tolist() == [[20, 40]] * 2 and size.tolist() == [20, 40]


@pytest.mark.parametrize('rate', [10.0, 60.0])
def test_a_target_that_is_hidden_is_absent_in_the_same_time_at_any_rate(rate: float) -> None:
    presence, frames = Presence(), 0
    while presence.logit > 0:
        presence.add(-2.0, 1 / rate)
        frames += 1
    assert 0.1 <= frames / rate <= 0.25
    for _ in range(round(rate)):
        presence.add(2.0, 1 / rate)
    assert presence.probability > 0.9


@pytest.mark.parametrize('before', [-3.0, 3.0])
def test_a_long_time_without_images_leaves_what_is_usual(before: float) -> None:
    presence = Presence()
    presence.logit = before
    presence.add(0.0, 600.0)
    assert presence.probability == pytest.approx(0.8)
    presence.logit = before
    presence.add(0.0, 0.01)
    assert presence.logit == pytest.approx(before, abs=0.1)


def test_a_stamp_that_stands_still_adds_nothing_to_a_trail() -> None:
    trail = Trail(1.0, np.array([0.0, 0, 20, 20]))
    for _ in range(50):
        trail.add(1.0, np.array([10.0, 0, 30, 20]))
    assert trail.ahead(2.0)[0].tolist() == [[20, 10]] * 2 and len(trail._stamps) == 1


def test_a_target_that_is_gone_is_lost_also_if_the_clock_stands_still(
        model: TrackingModel) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    for _ in range(200):
        target = tracker.follow(draw(place(0), True), 0.0)
    assert target.state is not State.TRACKED and target.score < 0.5


@pytest.mark.parametrize('back', [0.9, 30.0])
def test_a_clock_that_is_set_back_does_not_change_where_a_target_is_expected(
        model: TrackingModel, back: float) -> None:
    tracker = Tracker(model)
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    for number in range(1, 30):
        tracker.follow(draw(place(number)), number / RATE)
    for number in range(30, 36):
        tracker.follow(draw(place(number)), number / RATE - back)
    for number in range(36, 56):
        tracker.follow(draw(place(number), True), number / RATE - back)
    assert tracker.follow(draw(place(56), True), 56 / RATE - back).state is State.LOST
    states = [tracker.follow(draw(place(n)), n / RATE - back).state for n in range(57, 77)]
    assert states[-1] is State.TRACKED


def test_a_target_that_left_the_frame_is_found_where_it_comes_back(model: TrackingModel) -> None:
    def where(number: int) -> tuple[float, float]:  # to the right, and back after 1.5 s outside
        x = 200 + 6 * number
        return (x, 110) if x < 410 else (max(0, 820 - x), 110)

    tracker = Tracker(model)
    tracker.start(draw(where(0)), box_around(where(0)), 0.0)
    states = [tracker.follow(draw(where(n)), n / RATE).state for n in range(1, 80)]
    inside = next(n for n in range(40, 80) if where(n)[0] < 300)
    assert State.LOST in states
    assert State.TRACKED in states[inside - 1:inside + int(RATE)]


def test_a_low_threshold_for_tracking(tmp_path: Path) -> None:
    path = write_toy_tracker(tmp_path / 'low.onnx', tracked_threshold=0.2, lost_threshold=0.1)
    tracker = Tracker(TrackingModel.load(path, threads=1, backend='onnxruntime'))
    tracker.start(draw(place(0)), box_around(place(0)), 0.0)
    states = [tracker.follow(draw(place(n), n % 9 > 3), n / RATE).state for n in range(1, 80)]
    assert {State.TRACKED, State.UNCERTAIN} <= set(states)


def test_the_scan_goes_as_far_as_the_target_can_have_come() -> None:
    search = LostSearch(None, None)
    search.start()
    frame, box = np.zeros((240, 320), np.uint8), np.array([140.0, 100, 180, 140])
    near = [((b[:2] + b[2:]) / 2 - (160, 120)).tolist()
            for b in search.places(frame, 0.0, box, 100.0, 100, 60.0)]
    assert len(near) > 5 and max(abs(v) for place in near for v in place) <= 64


def test_the_scan_for_a_small_target_is_fast() -> None:
    search = LostSearch(None, None)
    frame, box = np.zeros((1024, 1280), np.uint8), np.array([600.0, 500, 604, 504])
    begun = process_time()
    found = [tuple(b) for n in range(20) for b in search.places(frame, n / RATE, box, 18.0, 3, 90)]
    assert process_time() - begun < 0.3, '0.9 s if all of the frame is sorted'
    assert len(set(found)) == 1 + 2 * 20, 'the prediction, and other places each time'


def test_a_box_of_the_smallest_size_may_be_rounded(model: TrackingModel) -> None:
    for x in (33.3, 100.1):
        rounded = np.array([x, 30.1, x + 3, 33.1], np.float32)
        assert Tracker(model).start(draw(place(0)), rounded, 0.0).state is State.TRACKED


def test_a_target_that_never_looks_like_itself_is_asked_for_less() -> None:
    presence = Presence()
    assert presence.evidence(-0.5) < 0
    for _ in range(30):
        presence.learn(-0.5, 0.1)
    assert presence.evidence(-0.5) > 0 > presence.evidence(-1.5)


def test_targets_share_a_prepared_frame_and_a_reused_buffer_is_another(
        model: TrackingModel) -> None:
    frame = draw(place(0))
    first = model.prepare(frame, None, 1.0).copy()
    frame[:] = draw(place(9))
    assert (model.prepare(frame, None, 1.0) == first).all(), 'the frame of another target'
    assert not (model.prepare(frame, None, 1.1) == first).all(), 'the same buffer, later'
