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

"""The times of images with stamps, without, and with some that stand still."""

from cgdet_core.runtime.imaging.clock import ImageClock
import pytest


def times(*images: tuple[float, float]) -> list[float]:
    """Return the times of images with these stamps and receptions, all in seconds."""
    clock = ImageClock()
    return [clock.at(round(s * 1e9), round(r * 1e9)) / 1e9 for s, r in images]


@pytest.mark.parametrize(('images', 'expected'), [
    # Stamps that move count, whenever their images are received, also if they go back.
    ([(100, 5), (100.1, 5.3), (100.05, 5.4), (3, 5.5), (900, 5.6)], [100, 100.1, 100.05, 3, 900]),
    ([(0, 5), (0, 5.1), (0, 5.4)], [5, 5.1, 5.4]),
    ([(100, 5), (100, 5.1), (100, 5.4)], [100, 100.1, 100.4]),
    # A missing stamp is no jump, nor are the stamps before or after it.
    ([(100, 5), (100.1, 5.1), (0, 5.2), (100.3, 5.3), (100.4, 5.5)],
     [100, 100.1, 100.2, 100.3, 100.4]),
    ([(0, 5), (0, 5.1), (100, 5.2), (100.2, 5.3)], [5, 5.1, 5.2, 5.4]),
    ([(100, 5), (100, 15), (100.1, 15.1), (100.3, 15.2), (100.3, 15.3)],
     [100, 110, 110.1, 110.3, 110.4]),
    # But a stamp that is earlier is one.
    ([(100, 5), (109, 14), (0, 14.1), (100, 14.2)], [100, 109, 109.1, 100.1]),
    ([(100, 5), (100, 15), (99.95, 15.1), (99, 15.2)], [100, 110, 109.95, 109])])
def test_times_are_those_of_stamps_that_move(
    images: list[tuple[float, float]], expected: list[float],
) -> None:
    assert times(*images) == pytest.approx(expected, abs=1e-8)


def test_stamps_that_move_are_exact() -> None:
    assert [ImageClock().at(stamp, 7) for stamp in (1_700_000_000_123_456_789, 0)] == [
        1_700_000_000_123_456_789, 7]
