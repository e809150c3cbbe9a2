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

"""How the camera moved between two frames, so that a target is expected where that moved it."""

from dataclasses import dataclass

from cgdet_core.runtime.imaging.geometry import Letterbox
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH = 160  # pixels of an overview, at most
POINTS, FEWEST = 80, 8  # that are followed, and without which nothing is known
QUALITY, APART = 0.01, 5  # of a corner, relative to the best, and pixels between two
WINDOW, LEVELS = (11, 11), 2  # of the optical flow
AGREE = 0.7  # overview pixels: points that are nearer to a motion agree with it
SHARE = 0.3  # of the points must agree
ZOOM, TURN = 1.2, 0.2  # a larger change between two frames is a mistake; rad
BETTER = 0.98  # of the difference of two frames may be left by their motion


@dataclass(frozen=True, eq=False)
class Overview:
    """A small picture of a frame, (h, w) uint8; scale: pixels of the frame for one of it, (2,)."""

    image: NDArray[np.uint8]
    scale: NDArray[np.float64]

    @staticmethod
    def of(frame: NDArray[np.float32]) -> 'Overview':
        """Return the overview of a normalized frame (H, W)."""
        height, width = frame.shape
        size = Letterbox((width, height), (WIDTH, height)).fitted
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        return Overview(np.rint(255 * small).astype(np.uint8), np.array((width, height)) / size)


@dataclass(frozen=True, eq=False)
class CameraMotion:
    """A similarity that maps pixels of a frame to those of a later one: matrix (2, 3)."""

    matrix: NDArray[np.float64]

    @property
    def zoom(self) -> float:
        """Return how much larger what it shows is now."""
        return float(np.hypot(*self.matrix[:, 0]))

    def point(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points (..., 2) of the background are now."""
        return np.asarray(point @ self.matrix[:, :2].T + self.matrix[:, 2])

    def direction(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a vector (2,) of the earlier frame is in the later one."""
        return self.matrix[:, :2] @ vector

    def box(self, box: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where boxes (..., 4) are now, and in which size."""
        first, last = box[..., :2], box[..., 2:]
        center, half = self.point((first + last) / 2), self.zoom * (last - first) / 2
        return np.concatenate([center - half, center + half], -1)


def camera_motion(before: Overview, after: Overview) -> CameraMotion | None:
    """
    Return how the camera moved between two frames of one size, or None if that is not seen.

    The motion that most corners agree with; they are followed by Lucas and Kanade's optical flow.
    It must explain a part of the difference of the frames: that of a camera which stands is noise.
    """
    if before.image.shape != after.image.shape:
        return None
    points = cv2.goodFeaturesToTrack(before.image, POINTS, QUALITY, APART)
    if points is None or len(points) < FEWEST:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before.image, after.image, points, points.copy(), winSize=WINDOW, maxLevel=LEVELS)
    kept = found[:, 0] == 1
    if kept.sum() < FEWEST:
        return None
    places, goals = (p[kept, 0] * before.scale + (before.scale - 1) / 2 for p in (points, moved))
    matrix, agree = cv2.estimateAffinePartial2D(
        places, goals, method=cv2.RANSAC,
        ransacReprojThreshold=AGREE * float(before.scale.mean()))
    if matrix is None or agree.sum() < max(FEWEST, SHARE * len(points)):
        return None
    motion, turn = CameraMotion(matrix), float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    if not 1 / ZOOM < motion.zoom < ZOOM or abs(turn) > TURN:
        return None
    own = np.column_stack([matrix[:, :2], matrix[:, 2] / before.scale])
    warped = cv2.warpAffine(before.image, own, before.image.shape[::-1],
                            borderMode=cv2.BORDER_REPLICATE)
    left, whole = (cv2.norm(image, after.image, cv2.NORM_L1) for image in (warped, before.image))
    return motion if left < BETTER * whole else None
