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

"""Dead pixels of a float frame are filled from their neighbors, up to a share."""

from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
import numpy as np
import pytest

DEAD = (np.nan, np.inf, -np.inf)


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    return np.add.outer(np.arange(height), np.arange(width)).astype(np.float32) + 290


@pytest.mark.parametrize('value', DEAD)
@pytest.mark.parametrize('place', [(0, 0), (0, 30), (39, 59), (20, 0), (20, 30)])
def test_one_dead_pixel_is_the_mean_of_its_neighbors(
    value: float, place: tuple[int, int],
) -> None:
    frame = ramp()
    frame[place] = value
    before = frame.copy()
    filled, count = fill_dead_pixels(frame)
    row, column = place
    around = frame[max(row - 1, 0):row + 2, max(column - 1, 0):column + 2]
    assert count == 1
    assert filled[place] == pytest.approx(around[np.isfinite(around)].mean())
    alive = np.isfinite(frame)
    np.testing.assert_array_equal(filled[alive], frame[alive])
    np.testing.assert_array_equal(frame, before)  # the message is not changed


def test_clusters_rows_and_columns_are_filled_within_the_range_of_the_frame() -> None:
    frame = ramp()
    frame[5:12, 7:15] = np.nan
    frame[30] = np.inf
    frame[:, 50] = -np.inf
    filled, count = fill_dead_pixels(frame, 0.2)
    alive = np.isfinite(frame)
    assert count == frame.size - alive.sum() and np.isfinite(filled).all()
    assert frame[alive].min() <= filled.min() and filled.max() <= frame[alive].max()
    np.testing.assert_allclose(filled, ramp(), atol=8)
    np.testing.assert_array_equal(filled[alive], frame[alive])


def test_a_strided_view_is_filled() -> None:
    frame = ramp()[::2, 1::3]
    frame[3, 3] = np.nan
    filled, count = fill_dead_pixels(frame)
    assert count == 1 and np.isfinite(filled).all() and filled.shape == frame.shape


@pytest.mark.parametrize(('dead', 'share'), [(25, 0.01), (1, 0.0), (2400, 1.0)])
def test_more_dead_pixels_than_the_share_are_refused(dead: int, share: float) -> None:
    frame = ramp()
    frame.ravel()[:dead] = np.nan
    with pytest.raises(ValueError, match=f'{dead} of 2400 pixels are NaN or infinite'):
        fill_dead_pixels(frame, share)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16, np.float32])
def test_a_frame_without_dead_pixels_is_not_copied(kind: type) -> None:
    frame = ramp().astype(kind)
    filled, count = fill_dead_pixels(frame, 0.0)
    assert filled is frame and count == 0
