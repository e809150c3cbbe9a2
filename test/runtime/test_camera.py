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

"""The camera's motion is seen in the background, and a target is expected where it moves it."""

from pathlib import Path

from cgdet_core.runtime.tracking.camera import camera_motion, Overview
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.target import State
from cgdet_core.runtime.tracking.tracker import Tracker
import cv2
import numpy as np
from numpy.typing import NDArray
import pytest
from toy_tracker import box_around, draw, write_toy_tracker

SIZE = 640, 480


def ground(seed: int = 0, size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    """Return a normalized frame of a background that has corners."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.random(size[::-1], np.float32), (0, 0), 8)
    return np.asarray(cv2.normalize(image, None, 0, 1, cv2.NORM_MINMAX), np.float32)


@pytest.mark.parametrize(('shift', 'zoom', 'turn'), [
    ((31.0, -14.0), 1.0, 0.0), ((3.0, 2.0), 1.04, 1.5), ((0.8, 0.4), 1.0, 0.0)])
def test_the_motion_of_the_background_is_found(shift: tuple[float, float], zoom: float,
                                               turn: float) -> None:
    matrix = cv2.getRotationMatrix2D((320, 240), turn, zoom)
    matrix[:, 2] += shift
    before = ground()
    after = cv2.warpAffine(before, matrix, SIZE, borderMode=cv2.BORDER_REFLECT)
    found = camera_motion(Overview.of(before), Overview.of(np.asarray(after)))
    assert found is not None
    box = np.array([200.0, 100.0, 260.0, 220.0])
    moved = found.box(box)
    assert moved[:2] + moved[2:] == pytest.approx(2 * (matrix[:, :2] @ (230, 160) + matrix[:, 2]),
                                                  abs=3)
    assert moved[2:] - moved[:2] == pytest.approx(zoom * (box[2:] - box[:2]), rel=0.02)
    assert found.box(np.stack([0 * box, box]))[1] == pytest.approx(moved), 'several at once'


def test_an_object_that_moves_is_no_camera_that_moves() -> None:
    frames = [ground(), ground()]
    for n, frame in enumerate(frames):
        frame[100:200, 100 + 20 * n:250 + 20 * n] = ground(1)[:100, :150]
    assert camera_motion(*map(Overview.of, frames)) is None


def test_noise_is_no_camera_that_moves() -> None:
    rng = np.random.default_rng(2)
    frames = [np.clip(ground() + rng.normal(0, 0.03, SIZE[::-1]), 0, 1) for _ in range(2)]
    assert camera_motion(*(Overview.of(f.astype(np.float32)) for f in frames)) is None


@pytest.mark.parametrize('other', [ground(5), np.full(SIZE[::-1], 0.5, np.float32),
                                   ground(0, (320, 240)), np.zeros((3, 5), np.float32)])
def test_nothing_is_known_of_frames_that_share_nothing(other: NDArray[np.float32]) -> None:
    assert camera_motion(Overview.of(ground()), Overview.of(other)) is None
    assert camera_motion(Overview.of(other), Overview.of(ground())) is None


def test_a_hidden_target_is_expected_where_the_camera_moves_it(tmp_path: Path) -> None:
    model = TrackingModel.load(write_toy_tracker(tmp_path / 'toy.onnx'), threads=1,
                               backend='onnxruntime')
    wide = draw((500, 110), size=(900, 240)), draw((500, 110), True, size=(900, 240))

    def seen(number: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """Return the frame of a camera that stands, then pans for two seconds, and its target."""
        left = 200 + 6 * min(max(0, number - 20), 40)
        return wide[20 <= number < 60][:, left:left + 320].copy(), (500.0 - left, 110.0)

    tracker = Tracker(model)
    frame, center = seen(0)
    tracker.start(frame, box_around(center), 0.0)
    for number in range(1, 64):
        frame, center = seen(number)
        target = tracker.follow(frame, number / 20)
        if number == 59:
            assert target.state is State.LOST
    away = float(np.linalg.norm((target.box[:2] + target.box[2:]) / 2 - center))
    assert target.state is State.TRACKED and away < 8
