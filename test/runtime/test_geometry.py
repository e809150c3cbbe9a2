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

"""Crop and letterbox, forward and back."""

from cgdet_core.runtime.imaging.geometry import Crop, Letterbox
from hypothesis import given, strategies
import numpy as np
import pytest


@given(width=strategies.integers(1, 3000), height=strategies.integers(1, 3000))
def test_any_size_fits_and_the_whole_frame_is_mapped_back(width: int, height: int) -> None:
    box = Letterbox((width, height), (640, 512))
    fitted = box.fitted
    assert 1 <= fitted[0] <= 640 and 1 <= fitted[1] <= 512
    whole = np.array([[0, 0, *fitted]], np.float32)
    np.testing.assert_allclose(box.to_source(whole), [[0, 0, width, height]], rtol=1e-5)


def test_boxes_are_clipped_to_the_source() -> None:
    box = Letterbox((320, 240), (640, 512))
    found = box.to_source(np.array([[-10, -10, 900, 900]], np.float32))
    assert found.tolist() == [[0, 0, 320, 240]]


@pytest.mark.parametrize('size', [(640, 512), (640, 480), (320, 240), (1280, 720), (33, 700)])
def test_a_bright_spot_is_where_its_box_is(size: tuple[int, int]) -> None:
    width, height = size
    frame = np.zeros((height, width), np.float32)
    x1, y1, x2, y2 = width // 4, height // 4, width // 2, height // 2
    frame[y1:y2, x1:x2] = 1
    box = Letterbox(size, (640, 512))
    out = np.full((512, 640), 7, np.float32)
    box.apply(frame, out)
    ys, xs = np.nonzero(out > 0.5)
    spot = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    tolerance = 1 + 0.51 / box.scale
    np.testing.assert_allclose(box.to_source(spot), [[x1, y1, x2, y2]], atol=tolerance)
    assert (out[box.fitted[1]:] == 0).all() and (out[:, box.fitted[0]:] == 0).all()


def test_a_crop_is_a_view_and_boxes_are_mapped_back() -> None:
    frame = np.zeros((60, 80), np.uint16)
    frame[12:20, 33:50] = 1
    crop = Crop(top=2, bottom=4, left=3, right=1)
    rest = crop.apply(frame)
    assert rest.shape == (54, 76) and np.shares_memory(rest, frame)
    ys, xs = np.nonzero(rest)
    box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    assert crop.to_received(box).tolist() == [[33, 12, 50, 20]]
    assert crop.to_received(box).dtype == np.float32
    assert crop.to_received(np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert Crop().apply(frame[..., None]).shape == (60, 80, 1)


@pytest.mark.parametrize('crop', [
    Crop(top=60), Crop(bottom=60), Crop(30, 30), Crop(left=50, right=40), Crop(right=500)])
def test_a_crop_that_leaves_nothing_is_refused(crop: Crop) -> None:
    with pytest.raises(ValueError, match='leaves nothing of the image of 80x60'):
        crop.apply(np.zeros((60, 80), np.uint8))


def test_a_negative_crop_is_refused() -> None:
    with pytest.raises(ValueError, match='negative'):
        Crop(left=-1)
