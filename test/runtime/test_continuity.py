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

"""What a target's box shows is compared with what it showed."""

from cgdet_core.runtime.tracking.continuity import Continuity, correlation, patch
import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

BOX = np.array([60.0, 40, 100, 90])
Image = NDArray[np.float32]


def texture(seed: int) -> Image:
    """Return what an object may show, (120, 160)."""
    noise = np.random.default_rng(seed).normal(0, 1, (120, 160))
    found = cv2.GaussianBlur(noise, (0, 0), 4)
    return (0.5 + found / found.std() / 8).astype(np.float32)


def mixed(share: float) -> Image:
    """Return a look between two: a target that turns, for example."""
    return ((1 - share) * texture(1) + share * texture(2)).astype(np.float32)


def covered(share: float) -> Image:
    """Return the target with something before it, from the left."""
    frame, edge = texture(1).copy(), 60 + round(40 * share)
    frame[:, :edge] = texture(5)[:, :edge]
    return frame


@pytest.mark.parametrize('start', [0.0, 100.0])
def test_what_changes_slowly_is_held_though_it_ends_as_something_else(start: float) -> None:
    """It is also held if the clock was set back by 100 s."""
    seen = Continuity(mixed(0), BOX, start)
    held = [seen.follow(mixed(n / 30), BOX, n / 10, False) for n in range(1, 16)]
    assert min(held) == 1
    assert correlation(patch(mixed(0), BOX), patch(mixed(0.5), BOX, 1.4)) < 0.9
    other = [seen.follow(mixed(n / 30), BOX, n / 10, False) for n in range(16, 31)]
    assert other[-1] < 0.5, 'by then it shows nothing of what was recognized'


@pytest.mark.parametrize('rate', [10, 30, 100])
def test_what_is_covered_is_not_held_at_any_rate(rate: int) -> None:
    seen = Continuity(covered(0), BOX, 0.0)
    count = rate // 2  # covered within half a second
    held = [seen.follow(covered(n / count), BOX, n / rate, False) for n in range(1, count + 1)]
    assert held[-1] == 0
    assert seen.follow(covered(1), BOX, 1.0, False) == 0, 'and what covers it is not held either'
    assert seen.follow(covered(0), BOX, 1.1, False) == 1, 'it is there again'


def test_gain_and_offset_of_a_camera_are_no_change() -> None:
    seen = Continuity(texture(1), BOX, 0.0)
    assert seen.follow(0.3 + 0.4 * texture(1), BOX, 0.1, False) == 1


def test_a_box_that_is_a_little_wrong_shows_the_same() -> None:
    seen = Continuity(texture(1), BOX, 0.0)
    assert seen.follow(texture(1), BOX + (4, -3, 4, -3), 0.1, False) == 1
    assert seen.again(texture(1), BOX + (-3, 4, -3, 4)) == 1
    assert seen.again(texture(7), BOX) == 0


@pytest.mark.parametrize('box', [
    (-300, -300, -200, -200), (0, 0, 3, 3), (-50, -50, 400, 400), (60, 40, 60, 40)])
def test_any_box_may_be_compared(box: tuple[int, ...]) -> None:
    seen = Continuity(texture(1), np.array(box, np.float64), 0.0)
    assert 0 <= seen.follow(texture(1), np.array(box, np.float64), 0.1, False) <= 1
    flat = np.full((120, 160), 0.5, np.float32)
    assert Continuity(flat, BOX, 0.0).follow(flat, BOX, 0.1, False) == 0


def test_a_large_box_is_averaged() -> None:
    """Noise of single pixels does not count in a patch of few of them."""
    rng = np.random.default_rng(0)
    large = cv2.resize(texture(1), (640, 480), interpolation=cv2.INTER_CUBIC)
    one, other = (large + rng.normal(0, 0.15, large.shape).astype(np.float32) for _ in range(2))
    assert correlation(patch(one, 4 * BOX), patch(other, 4 * BOX, 1.4)) > 0.9
