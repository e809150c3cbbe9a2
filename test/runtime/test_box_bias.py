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

"""What the box head errs on a target is measured in the first frame."""

from typing import Any

from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.tracking.box_bias import BoxBias
from cgdet_core.runtime.tracking.decoding import Found
from cgdet_core.runtime.tracking.region import Region
from cgdet_core.runtime.tracking.rgbt import rgbt_card
import numpy as np
from numpy.typing import NDArray
import pytest

BOX = np.array([60.0, 40, 100, 120])
FRAME = np.zeros((240, 320), np.float32)
CARD = rgbt_card('head', 256, 8, Normalization(), factor=4.0)


class Head:
    """Draws a target in the frame as large as it says, and beside it by shares of that size."""

    def __init__(self, larger: tuple[float, float], beside: tuple[float, float]) -> None:
        self.larger, self.beside = np.array(larger), np.array(beside)

    def drawn(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        size = (box[2:] - box[:2]) * self.larger
        middle = center(box) + self.beside * size
        return np.concatenate([middle - size / 2, middle + size / 2])

    def look(self, image: Any, region: Region, spread: float | None) -> tuple[Found, Any]:
        return Found(region.to_input(self.drawn(BOX)), 1.0, 1.0, 1.0), None

    def learn(self, found: Found, seen: Any, rival: bool, improve: bool) -> None:
        """Learn nothing."""


def center(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return (box[:2] + box[2:]) / 2


@pytest.mark.parametrize('larger, beside', [
    ((0.85, 0.85), (0.0, 0.0)), ((1.2, 1.1), (0.05, -0.1)), ((0.9, 1.0), (-0.1, 0.04))])
def test_most_of_the_error_in_size_is_corrected_and_half_of_that_of_the_center(
        larger: tuple[float, float], beside: tuple[float, float]) -> None:
    """At any size, as the target grows."""
    head = Head(larger, beside)
    bias = BoxBias(head, FRAME, BOX, CARD)
    for box in (BOX, 2 * BOX + 7):
        drawn, size = head.drawn(box), box[2:] - box[:2]
        found = bias.corrected(drawn)
        before, after = (np.abs(b[2:] - b[:2] - size).max() for b in (drawn, found))
        assert after < 0.25 * before
        assert center(found) - center(box) == pytest.approx(0.5 * (center(drawn) - center(box)))


def test_nothing_is_corrected_if_the_head_looks_at_something_else() -> None:
    head = Head((1.3, 1.3), (0.8, 0.0))
    assert (BoxBias(head, FRAME, BOX, CARD).corrected(BOX) == BOX).all()


def test_a_head_that_is_far_off_is_corrected_within_limits() -> None:
    """A box that a user drew far too large is not followed at ten times the size."""
    found = BoxBias(Head((0.1, 0.1), (0.0, 0.0)), FRAME, BOX, CARD).corrected(BOX)
    assert ((found[2:] - found[:2]) < 1.3 * (BOX[2:] - BOX[:2])).all()
