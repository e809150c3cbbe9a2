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

"""Registration of RGB to the thermal frame, with known geometry."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cgdet_core.data.bags.registration import (
    by_calibration,
    by_homography,
    CalibratedCamera,
    camera_of,
    Pose,
    read_homography,
)
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest
from two_cameras import center

K_THERMAL = np.array([(130.0, 0, 80), (0, 130, 64), (0, 0, 1)])
K_RGB = np.array([(300.0, 0, 160), (0, 300, 120), (0, 0, 1)])
TILT = cv2.Rodrigues(np.array([0.03, -0.05, 0.02]))[0]  # of the thermal frame in the RGB frame
MOVE = np.array([0.3, -0.05, 0.02])  # meters


def camera(matrix: np.ndarray, size: tuple[int, int], distortion: list[float] | None = None,
           model: str = 'plumb_bob') -> CalibratedCamera:
    return CalibratedCamera(matrix, np.array(distortion or [0.0] * 5), model, size, 'frame')


def spot(size: tuple[int, int], place: np.ndarray, radius: float = 4) -> np.ndarray:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    mask = np.hypot(x - place[0], y - place[1]) <= radius
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize('scale', [1.0, 4.0])
def test_a_homography_maps_an_object_to_its_pixel(scale: float) -> None:
    matrix = np.array([(0.45, 0.02, 6), (-0.03, 0.5, 4), (1e-5, 2e-5, 1)]) @ np.diag(
        [1 / scale, 1 / scale, 1])
    place = np.array([200.0, 130]) * scale
    there = matrix @ [*place, 1]
    picture = spot((round(320 * scale), round(240 * scale)), place, 12 * scale)
    seen = by_homography(matrix, (160, 128)).apply(picture)
    assert seen.shape == (128, 160, 3)
    assert np.abs(center(seen[..., 0] > 127) - there[:2] / there[2]).max() < 0.6


@pytest.mark.parametrize(('distortion', 'model'), [
    ([0.0] * 5, 'plumb_bob'), ([-0.25, 0.06, 1e-3, -1e-3, 0.0], 'plumb_bob'),
    ([0.1, -0.05, 0, 0, 0.02, 0.05, 0.01, 0.0], 'rational_polynomial'),
    ([0.03, -0.01, 0.002, -0.001], 'equidistant')])
@pytest.mark.parametrize('plane', [None, 6.0])
def test_calibration_maps_an_object_to_its_pixel(
    distortion: list[float], model: str, plane: float | None,
) -> None:
    """The thermal camera is also distorted, and its frame is unchanged."""
    thermal = camera(K_THERMAL, (160, 128), [-0.2, 0.05, 0, 0, 0])
    rgb = camera(K_RGB, (320, 240), distortion, model)
    distance = plane or 1e6
    point = np.array([[-0.1, 0.06, 1.0]]) * distance  # in the thermal camera's frame
    here = thermal.to_pixels(point)[0]
    there = rgb.to_pixels(point @ TILT.T + MOVE)[0]
    seen = by_calibration(thermal, rgb, Pose(TILT, MOVE), plane).apply(
        spot(rgb.size, there, 10))
    assert np.abs(center(seen[..., 0] > 127) - here).max() < 0.7
    # Infinity is an approximation: near points are elsewhere.
    if plane:
        far = by_calibration(thermal, rgb, Pose(TILT, MOVE)).apply(spot(rgb.size, there, 10))
        assert np.abs(center(far[..., 0] > 127) - here).max() > 3


def test_rays_and_pixels_are_inverse() -> None:
    for model, distortion in (('plumb_bob', [-0.3, 0.1, 1e-3, 1e-3, 0.0]),
                              ('equidistant', [0.05, 0.01, 0.0, 0.0])):
        found = camera(K_RGB, (320, 240), distortion, model)
        pixels = np.array([(0.0, 0), (319, 239), (160, 120), (20, 200)])
        assert np.abs(found.to_pixels(found.to_rays(pixels)) - pixels).max() < 0.01


def test_pixels_outside_rgb_are_black() -> None:
    """Distortion polynomials would fold far pixels back into the image."""
    wide = camera(np.array([(60.0, 0, 80), (0, 60, 64), (0, 0, 1)]), (160, 128))
    rgb = camera(K_RGB, (320, 240), [-0.3, 0.05, 0, 0, 0])
    seen = by_calibration(wide, rgb, Pose(np.eye(3), np.zeros(3))).apply(
        np.full((240, 320, 3), 200, np.uint8))
    assert seen[64, 80].min() == 200 and not seen[:10].any() and not seen[:, :20].any()


def test_pixels_beyond_the_horizon_are_black() -> None:
    """Right of x = 100, the plane would show points behind the RGB camera."""
    back = np.array([(-1.0, 0, 120), (0, -1, 100), (-0.01, 0, 1)])
    seen = by_homography(np.linalg.inv(back), (160, 128)).apply(
        np.full((240, 320, 3), 200, np.uint8))
    assert seen[64, 80].min() == 200 and not seen[:, 101:].any()


def test_fine_detail_is_averaged_for_any_rotation_of_the_cameras() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 512, 3), np.uint8)
    turned = np.array([(0, 0.25, 0), (-0.25, 0, 127), (0, 0, 1)])
    seen = by_homography(turned, (160, 128)).apply(noise)
    assert seen[8:-8, 8:-8].std() < 30 < noise.std()


def info(r: np.ndarray, shift: float = 0) -> Any:
    """Return a CameraInfo whose raw images are distorted."""
    p = np.array([(120.0, 0, 82, shift), (0, 120, 60, 0), (0, 0, 1, 0)])
    return SimpleNamespace(
        distortion_model='plumb_bob', k=K_THERMAL.ravel(), d=[-0.3, 0.1, 0, 0, 0], r=r.ravel(),
        p=p.ravel(), width=160, height=128, header=SimpleNamespace(frame_id='optical'))


def test_rectified_images_are_rotated() -> None:
    points = np.array([(0.1, -0.2, 2.0), (-0.3, 0.1, 3.0)])
    found = camera_of(info(TILT), '/t', rectified=True)
    there = points @ TILT.T @ np.array([(120.0, 0, 82), (0, 120, 60), (0, 0, 1)]).T
    pixels = found.to_pixels(points)
    assert pixels == pytest.approx(there[:, :2] / there[:, 2:])
    assert found.to_rays(pixels) == pytest.approx(points / points[:, 2:])
    # Raw images are not rotated, nor are those of a driver that leaves R empty.
    raw = camera_of(info(TILT), '/t', rectified=False)
    assert raw.rotation.tolist() == np.eye(3).tolist() and raw.distortion[0] == -0.3
    empty = camera_of(info(np.zeros((3, 3))), '/t', rectified=True)
    assert empty.rotation.tolist() == np.eye(3).tolist()
    with pytest.raises(UserError, match='second camera of a stereo pair'):
        camera_of(info(TILT, shift=-12.0), '/t', rectified=True)


@pytest.mark.parametrize(('text', 'good'), [
    ('[[1, 0, 5], [0, 1, 2], [0, 0, 1]]', True),
    ('homography:\n- [1, 0, 5]\n- [0, 1, 2]\n- [0, 0, 1]\n', True),
    ('{"homography": [[1, 0, 5], [0, 1, 2], [0, 0, 1]]}', True),
    ('[[1, 0], [0, 1]]', False), ('[[1, 0, 5], [2, 0, 10], [0, 0, 1]]', False),
    ('matrix: 3', False), ('[[1, 0, x], [0, 1, 2], [0, 0, 1]]', False), ('{', False)])
def test_homography_files(tmp_path: Path, text: str, good: bool) -> None:
    path = tmp_path / 'h.yaml'
    path.write_text(text)
    if good:
        assert read_homography(path).tolist() == [[1, 0, 5], [0, 1, 2], [0, 0, 1]]
    else:
        with pytest.raises(UserError, match='three rows of three numbers'):
            read_homography(path)
