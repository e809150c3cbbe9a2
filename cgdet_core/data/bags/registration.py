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

"""Registration of RGB images to the thermal frame: by a homography, or by calibration and TF."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.runtime.bounded_yaml import load_yaml
import cv2
import numpy as np
from numpy.typing import NDArray
import yaml

FISHEYE = ('equidistant', 'fisheye')
POLYNOMIAL = ('plumb_bob', 'rational_polynomial')
COEFFICIENTS = (4, 5, 8, 12, 14), (4,)  # numbers of them that OpenCV knows, of fisheye last
STEPS = 40  # iterations from a pixel to its ray
OUTSIDE = -3e4  # a pixel outside every image; the maximum of OpenCV is 32767
BEYOND = 1.1  # of the half diagonal of RGB; distortion polynomials fold back farther out
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Registration:
    """The RGB pixel (H, W, 2), x and y, of each thermal pixel, and a description of the method."""

    rgb_pixels: NDArray[np.float32]
    description: str

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return BGR (H, W, 3) as seen by the thermal camera, black outside the RGB image."""
        pixels = self.rgb_pixels
        lengths = picture.shape[1::-1]
        steps = [_step(pixels[..., i], lengths[i]) for i in (0, 1)]
        if max(steps) > 1.5:  # average areas first, as fine detail would turn into noise
            size = tuple(max(1, round(n / max(step, 1.0))) for n, step in zip(lengths, steps))
            scale = np.array(size) / lengths
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            pixels = ((pixels + 0.5) * scale - 0.5).astype(np.float32)
        return cv2.remap(picture, pixels, None, cv2.INTER_LINEAR)


@dataclass(frozen=True)
class CalibratedCamera:
    """
    A calibrated camera: matrix (3, 3), distortion and its model, image size and TF frame.

    rotation (3, 3): from the TF frame to that of the images, which rectification rotates.
    """

    matrix: Floats
    distortion: Floats
    model: str
    size: tuple[int, int]
    frame_id: str
    rotation: Floats = field(default_factory=lambda: np.eye(3))

    def to_rays(self, pixels: Floats) -> Floats:
        """Return the rays (N, 3), z = 1, of pixels (N, 2) in the TF frame."""
        rays = np.ones((len(pixels), 3))
        if self.model in FISHEYE:
            points = np.ascontiguousarray(pixels)[:, None]
            rays[:, :2] = cv2.fisheye.undistortPoints(points, self.matrix, self.distortion)[:, 0]
        else:
            # OpenCV's own iteration is named differently across releases, or stops at five steps.
            focal, middle = self.matrix[[0, 1], [0, 1]], self.matrix[:2, 2]
            rays[:, :2] = (pixels - middle) / focal
            for _ in range(STEPS):
                rays[:, :2] += (pixels - self._to_pixels(rays)) / focal
        rays = rays @ self.rotation
        return rays / rays[:, 2:]

    def to_pixels(self, points: Floats) -> Floats:
        """Return the pixels (N, 2) of points (N, 3) of the TF frame, in front of the camera."""
        return self._to_pixels(points @ self.rotation.T)

    def _to_pixels(self, points: Floats) -> Floats:
        project = cv2.fisheye.projectPoints if self.model in FISHEYE else cv2.projectPoints
        pixels, _ = project(
            points[:, None], np.zeros(3), np.zeros(3), self.matrix, self.distortion)
        return pixels.reshape(-1, 2)


class Pose(NamedTuple):
    """A transform between TF frames: p' = rotation p + translation, in meters."""

    rotation: Floats
    translation: Floats


def read_homography(
    path: Path, thermal_size: tuple[int, int] | None = None,
    rgb_size: tuple[int, int] | None = None,
) -> Floats:
    """
    Read the homography (3, 3) from RGB pixels to thermal pixels from YAML or JSON.

    The file has three rows of three numbers, at the top level or under "homography". UserError if
    it states another "thermal_size" or "rgb_size", width and height, than these.
    """
    if not path.is_file():
        raise UserError(f'The homography file {path} does not exist.')
    try:
        content = load_yaml(path.read_bytes())
        stated = content if isinstance(content, dict) else {}
        if isinstance(content, dict):
            content = content['homography']
        matrix = np.array(content, np.float64)
        good = matrix.shape == (3, 3) and np.isfinite(matrix).all()
        if not good or np.linalg.matrix_rank(matrix) < 3:
            raise ValueError
    except (ValueError, TypeError, KeyError, yaml.YAMLError):
        raise UserError(f'{path} is not a homography: it must have three rows of three numbers '
                        'that can be inverted, at the top level or under "homography".') from None
    for name, size in (('thermal_size', thermal_size), ('rgb_size', rgb_size)):
        if size is not None and stated.get(name, [*size]) != [*size]:
            raise UserError(f'{path} is for another {name} ({stated[name]}) than '
                            f'{size[0]}x{size[1]}; register images of this size.', 'homography')
    return matrix


def by_homography(matrix: Floats, thermal_size: tuple[int, int]) -> Registration:
    """Register by a homography from RGB pixels to thermal pixels; size is (width, height)."""
    points = np.hstack([_grid(thermal_size), np.ones((thermal_size[0] * thermal_size[1], 1))])
    there = points @ np.linalg.inv(matrix).T
    # Beyond the horizon, as seen from the center, the image would appear again, mirrored.
    middle = np.array([thermal_size[0] / 2, thermal_size[1] / 2, 1]) @ np.linalg.inv(matrix)[2]
    seen = there[:, 2] * middle > 0
    return _registration(seen, there[seen, :2] / there[seen, 2:], thermal_size, 'homography')


def by_calibration(
    thermal: CalibratedCamera, rgb: CalibratedCamera, pose: Pose, plane_m: float | None = None,
) -> Registration:
    """
    Register by both cameras' calibrations and the pose of the thermal frame in the RGB frame.

    Depth is unknown: the scene is assumed at infinity (only the rotation counts), or on a plane
    parallel to the thermal image at plane_m meters.
    """
    rays = thermal.to_rays(_grid(thermal.size))
    points = rays @ pose.rotation.T
    words = 'calibration and rotation, scene at infinity'
    if plane_m is not None:
        points = points * plane_m + pose.translation
        words = f'calibration and TF, scene on a plane at {plane_m:g} m'
    corners = rgb.to_rays(np.array([(0, 0), (rgb.size[0], 0), (0, rgb.size[1]), rgb.size], float))
    reach = np.linalg.norm(corners[:, :2], axis=1).max() * BEYOND
    seen = (points[:, 2] > 0) & (np.linalg.norm(points[:, :2], axis=1) < reach * points[:, 2])
    pixels = rgb.to_pixels(np.ascontiguousarray(points[seen])) if seen.any() else np.zeros((0, 2))
    return _registration(seen, pixels, thermal.size, words)


def camera_of(info: Any, topic: str, rectified: bool) -> CalibratedCamera:
    """Return the camera of a CameraInfo; rectified: its images have no distortion."""
    model = info.distortion_model or 'plumb_bob'
    matrix = np.array(info.k, np.float64).reshape(3, 3)
    distortion, rotation = np.array(info.d, np.float64), np.eye(3)
    if rectified:
        projection = np.array(info.p, np.float64).reshape(3, 4)
        if projection[:, 3].any():
            raise UserError(f'{topic} is of the second camera of a stereo pair (the last column '
                            'of its P is not 0), whose rectified images cannot be registered; '
                            'use the raw ones, or register by a homography.', 'homography')
        matrix, distortion, model = projection[:, :3], np.zeros(0), 'plumb_bob'
        if np.any(info.r):  # empty with some drivers
            rotation = np.array(info.r, np.float64).reshape(3, 3)
    if not matrix[0, 0] > 0:
        raise UserError(f'The camera of {topic} is not calibrated (its focal length is 0); '
                        'calibrate it, or register by a homography.', 'homography')
    if model not in FISHEYE + POLYNOMIAL:
        raise UserError(f'The distortion model {model!r} of {topic} is not one of '
                        f'{", ".join(POLYNOMIAL + FISHEYE)}; register by a homography.',
                        'homography')
    if not distortion.size:
        distortion = np.zeros(4 if model in FISHEYE else 5)
    if distortion.size not in COEFFICIENTS[model in FISHEYE] or not np.isfinite(distortion).all():
        raise UserError(f'The {distortion.size} distortion coefficients of {topic} are not those '
                        f'of {model!r}; calibrate it, or register by a homography.', 'homography')
    return CalibratedCamera(matrix, distortion, model, (int(info.width), int(info.height)),
                  info.header.frame_id, rotation)


def pose_between(transforms: list[Any], source: str, target: str) -> Pose:
    """Return the pose between two frames from static transforms; UserError if not connected."""
    steps: dict[str, list[tuple[str, Pose]]] = {}
    for transform in transforms:
        parent, child = transform.header.frame_id, transform.child_frame_id
        pose = _pose(transform.transform)
        steps.setdefault(child, []).append((parent, pose))
        back = Pose(pose.rotation.T, -pose.rotation.T @ pose.translation)
        steps.setdefault(parent, []).append((child, back))
    reached = {source: Pose(np.eye(3), np.zeros(3))}
    waiting = [source]
    while waiting and target not in reached:
        frame = waiting.pop(0)
        for other, step in steps.get(frame, []):
            if other not in reached:
                here = reached[frame]
                reached[other] = Pose(step.rotation @ here.rotation,
                                      step.rotation @ here.translation + step.translation)
                waiting.append(other)
    if target not in reached:
        raise UserError(f'/tf_static does not connect {source!r} with {target!r}; its frames are '
                        f'{", ".join(sorted(steps)) or "none"}. Register by a homography.',
                        'homography')
    return reached[target]


def _pose(transform: Any) -> Pose:
    q, t = transform.rotation, transform.translation
    values = np.array([q.x, q.y, q.z, q.w])
    x, y, z, w = values / max(1e-12, float(np.linalg.norm(values)))
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])
    return Pose(rotation, np.array([t.x, t.y, t.z]))


def _grid(size: tuple[int, int]) -> Floats:
    x, y = np.meshgrid(np.arange(size[0], dtype=float), np.arange(size[1], dtype=float))
    return np.stack([x.ravel(), y.ravel()], 1)


def _step(values: NDArray[np.float32], length: int) -> float:
    """Return the median change of a coordinate of a map (H, W) from pixel to pixel."""
    steps = np.hypot(np.diff(values, axis=1)[:-1], np.diff(values, axis=0)[:, :-1])
    inside = steps[(steps > 0) & (steps < length)]
    return float(np.median(inside)) if inside.size else 1.0


def _registration(
    seen: NDArray[np.bool_], pixels: Floats, size: tuple[int, int], description: str,
) -> Registration:
    """Return the registration by the RGB pixels of those thermal pixels that are seen."""
    found = np.full((len(seen), 2), OUTSIDE, np.float32)
    found[seen] = np.clip(pixels, OUTSIDE, -OUTSIDE)
    return Registration(found.reshape(size[1], size[0], 2), description)
