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

"""The alignment estimate finds known shifts and reports when it cannot."""

from collections.abc import Iterator
from typing import Any

from cgdet_core.data.pairs.alignment import estimate_alignment, measure_shift
import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

Pair = tuple[NDArray[Any], NDArray[np.uint8]]


def scene(seed: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Draw outlines of random shapes."""
    rng = np.random.default_rng(seed)
    picture = np.full(size[::-1], 0.5, np.float32)
    for _ in range(25):
        a, b = rng.uniform(0, 1, (2, 2)) * size
        cv2.rectangle(picture, a.astype(int).tolist(), b.astype(int).tolist(),
                      float(rng.uniform(0, 1)), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1)


def pairs(
    count: int, shift: tuple[float, float], size: tuple[int, int], other: bool = False,
) -> Iterator[Pair]:
    """Return 16-bit thermal and inverted RGB of another size, content `shift` right and down."""
    for i in range(count):
        rng = np.random.default_rng(1000 + i)
        moved = cv2.warpAffine(
            scene(i + 500 * other, size), np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]), size,
            borderMode=cv2.BORDER_REPLICATE)
        # Warm objects are dark in RGB: only the edges agree.
        gray = 255 * (1 - moved) + rng.normal(0, 4, moved.shape)
        color = cv2.merge([np.clip(gray, 0, 255).astype(np.uint8)] * 3)
        thermal = 8000 + 400 * scene(i, size) + rng.normal(0, 4, moved.shape)
        yield thermal.astype(np.uint16), cv2.resize(color, (size[0] * 2, size[1] * 2))


@pytest.mark.parametrize('size', [(320, 256), (640, 512)])
@pytest.mark.parametrize('shift', [(0, 0), (7, -4), (-12, 9)])
def test_known_shifts_are_found(shift: tuple[int, int], size: tuple[int, int]) -> None:
    report = estimate_alignment(pairs(10, shift, size))
    assert report['believed'] and report['pairs_believed'] >= 8
    assert (report['dx'], report['dy']) == pytest.approx(shift, abs=0.5)
    assert report['scatter'] < 1


def test_scatter_is_reported() -> None:
    mixed = [p for dx in (-6, 0, 6) for p in pairs(5, (dx, 0), (320, 256))]
    report = estimate_alignment(mixed)
    assert report['dx'] == pytest.approx(0, abs=0.5) and 4 < report['scatter'] < 8


def test_unrelated_images_are_not_believed() -> None:
    report = estimate_alignment(pairs(20, (0, 0), (320, 256), other=True))
    assert not report['believed'] and 'dx' not in report
    assert report['pairs'] == 20


def test_nothing_to_measure() -> None:
    assert estimate_alignment([]) == {'pairs': 0, 'pairs_believed': 0, 'believed': False}
    flat = np.full((48, 64), 9, np.uint8), np.full((48, 64, 3), 9, np.uint8)
    assert not estimate_alignment([flat] * 5)['believed']
    assert len(measure_shift(*flat)) == 4
