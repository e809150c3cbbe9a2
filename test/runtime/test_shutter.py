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

"""The frames of a closed shutter, on drawn sequences with corrections and jumps of the level."""

from collections.abc import Iterator

from cgdet_core.data.scenes.sensor import Sensor
from cgdet_core.data.synthetic import record, sequence
from cgdet_core.runtime.imaging.shutter import FROZEN_S, MAX_FLAT_S, ShutterDetector
import numpy as np
import pytest

SIZE = 160, 128
RATE = 20.0
SECONDS = 13.0  # the first correction comes within 4 to 12 s


@pytest.fixture(scope='module', params=[1, 2])
def drive(request: pytest.FixtureRequest) -> list[tuple[float, np.ndarray, np.ndarray, bool]]:
    """Return stamps, counts, 8-bit frames and whether the shutter is closed."""
    sensor = Sensor(request.param, SIZE)
    frames = record(sequence(request.param, SECONDS, RATE, SIZE), request.param, SIZE)
    return [(f.stamp, counts, gray, sensor.closed(f.stamp)) for f, counts, gray in frames]


def watch(frames: Iterator[tuple[float, np.ndarray]]) -> list[str]:
    detector = ShutterDetector()
    return [detector.update(frame, stamp) for stamp, frame in frames]


@pytest.mark.parametrize('depth', [16, 8])
def test_every_frame_of_a_freezing_camera_is_recognized(drive: list, depth: int) -> None:
    truth = ['frozen' if closed else '' for *_, closed in drive]
    assert 5 < truth.count('frozen') < 12
    assert watch((t, counts if depth == 16 else gray) for t, counts, gray, _ in drive) == truth


def test_the_shutter_is_recognized_in_counts_whose_level_jumps(drive: list) -> None:
    rng = np.random.default_rng(0)

    def seen() -> Iterator[tuple[float, np.ndarray]]:
        level = 0
        for stamp, counts, _, closed in drive:
            if closed:  # the shutter itself, with the sensor's noise, at another temperature
                level = 900
                shown = 8200 + rng.normal(0, 3, counts.shape)
            else:
                shown = counts.astype(np.float64) + level
            yield stamp, np.clip(shown, 0, 16383).astype(np.uint16)

    assert watch(seen()) == ['flat' if closed else '' for *_, closed in drive]


def test_a_camera_that_repeats_each_frame_is_open(drive: list) -> None:
    repeated = ((3 * number + part) / 27 for number in range(len(drive)) for part in range(3))
    frames = [frame for _, frame, _, closed in drive if not closed for _ in range(3)]
    assert not any(watch(zip(repeated, frames)))


def test_a_slow_camera_that_freezes_is_closed_after_a_while(drive: list) -> None:
    """The first of the repeated frames may be repeats as usual."""
    frames = [drive[0][1]] * 12
    stamps = [number / RATE for number in range(12)]
    found = watch(zip(stamps, frames))
    assert found == ['' if stamp < FROZEN_S else 'frozen' for stamp in stamps]


def test_a_camera_that_starts_again_with_other_images_is_open(drive: list) -> None:
    counts = [(stamp, counts) for stamp, counts, _, closed in drive if not closed]
    gray = [(stamp + SECONDS, gray) for stamp, _, gray, closed in drive if not closed]
    kelvin = [(stamp + 2 * SECONDS, (shown / 100).astype(np.float32)) for stamp, shown in counts]
    smaller = [(stamp + 3 * SECONDS, shown[::2, ::2] / 8) for stamp, shown in kelvin]
    assert not any(watch([*counts, *gray, *kelvin, *smaller]))


def test_a_flat_scene_is_no_shutter(drive: list) -> None:
    """A camera turned to a wall, slowly or at once, is not closed for longer than a shutter is."""
    counts = drive[0][1].astype(np.float64)
    rng = np.random.default_rng(0)

    def scene(contrast: float) -> np.ndarray:
        shown = counts.mean() + contrast * (counts - counts.mean())
        return np.rint(shown + rng.normal(0, 2, counts.shape)).astype(np.uint16)

    slowly = [scene(c) for c in np.geomspace(1, 0.02, 40)] + [scene(0.02) for _ in range(80)]
    assert not any(watch((n / RATE, f) for n, f in enumerate(slowly)))
    at_once = [scene(1) for _ in range(40)] + [scene(0.02) for _ in range(160)]
    found = watch((n / RATE, f) for n, f in enumerate(at_once))
    assert found[40] == 'flat' and not any(found[41 + round(MAX_FLAT_S * RATE):])


def test_frames_of_one_level_are_neither_frozen_nor_flat() -> None:
    assert not any(watch((n / RATE, np.full((8, 8), 40, np.uint8)) for n in range(100)))
