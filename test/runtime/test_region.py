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

"""The search region is cut where its mapping says, at any place and scale."""

from cgdet_core.runtime.tracking.region import coverage, Region
import numpy as np
import pytest


def gradient() -> np.ndarray:
    """Return a frame whose value is 1000 x + y at the center of each pixel."""
    y, x = np.indices((200, 300), np.float32)
    return 1000 * x + y


@pytest.mark.parametrize('box', [
    (100, 50, 140, 110), (100.3, 50.6, 104.5, 58.1), (140.5, 80.2, 190.1, 130.7)])
def test_pixels_are_where_the_mapping_says(box: tuple[float, ...]) -> None:
    region = Region.around(np.array(box), 2.5, 128)
    cut = region.cut(gradient())
    assert cut.shape == (128, 128)
    for u, v in ((64, 64), (40, 90), (100, 30)):
        x, y, _, _ = region.to_frame(np.array([u, v, u, v]))  # the corner between four pixels
        mean = cut[v - 1:v + 1, u - 1:u + 1].mean()
        assert mean == pytest.approx(1000 * (x - 0.5) + y - 0.5, abs=80)


def test_boxes_map_to_the_input_and_back() -> None:
    box = np.array([100.3, 50.6, 140.5, 98.1])
    region = Region.around(box, 4.5, 256)
    placed = region.to_input(box)
    assert region.to_frame(placed) == pytest.approx(box)
    assert (placed[:2] + placed[2:]) / 2 == pytest.approx([128, 128])
    assert np.sqrt((placed[2:] - placed[:2]).prod()) == pytest.approx(256 / 4.5)
    assert region.to_frame(np.stack([placed, placed])).shape == (2, 4)


def test_outside_the_border_is_repeated() -> None:
    frame = np.zeros((100, 100), np.float32)
    frame[:, :10], frame[:, 90:] = 1, 2
    cut = Region(-50, -50, 200, 128).cut(frame)
    assert (cut[:, :32] == 1).all() and (cut[:, 98:] == 2).all()
    assert Region(500, 500, 64, 128).cut(frame) == pytest.approx(2)


def test_nothing_is_skipped_when_a_large_region_shrinks() -> None:
    frame = np.zeros((1200, 1200), np.float32)
    frame[::8, ::8] = 64.0  # a sixty-fourth of the pixels, the mean is 1
    cut = Region(0, 0, 1024, 128).cut(frame)
    assert cut.mean() == pytest.approx(1, abs=0.05) and cut.max() < 5


@pytest.mark.parametrize('side', [1e7, 1e12])
def test_a_region_far_larger_than_the_image_needs_no_memory(side: float) -> None:
    cut = Region(-side / 2, -side / 2, side, 128).cut(np.full((48, 64), 3, np.float32))
    assert cut.shape == (128, 128) and cut == pytest.approx(3)


def test_coverage_is_the_share_of_each_cell() -> None:
    mask = coverage(np.array([64 + 8, 64, 64 + 40, 64 + 16]), 256, 8, 16)
    assert mask.shape == (8, 8) and mask.sum() * 256 == pytest.approx(32 * 16)
    assert mask[0].tolist() == [0.5, 1, 0.5, 0, 0, 0, 0, 0] and not mask[1:].any()
    assert not coverage(np.array([0, 0, 10, 10]), 256, 8, 16).any()
