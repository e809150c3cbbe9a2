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

"""The target's motion over real time, so that dropped frames and any rate are the same to it."""

from cgdet_core.runtime.tracking.camera import CameraMotion
import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]
# In units of the target's size, so that the values hold near and far.
NOISE = 0.05  # standard deviation of a found center
FIRST_SPEED = 1.0  # per second: standard deviation of the initial speed
ACCELERATION = 4.0  # squared, per s^3: spectral density of the acceleration
DAMPING_S = 0.8  # time in which the speed of an unseen target falls to 1/e
# Of a trail.
PATH_S = 1.0  # boxes that are older say nothing of the speed
APART_S = 0.25  # between two boxes that tell a speed
RATE_NOISE = 0.02  # per second, of how fast the size changes; more if the sizes scatter
FURTHER = 0.55, 1.8  # how much nearer and further than before a target is expected at most


class Motion:
    """
    A Kalman filter of the target's center, whose speed fades while it is not seen.

    center: (2,) x, y in pixels; speed: (2,) pixels per second. Both coordinates share one
    covariance, as they are always observed together.
    """

    def __init__(self, center: Point, size: float) -> None:
        """size: root of the area of the target's box, pixels."""
        self.center = center.astype(np.float64)
        self.speed = np.zeros(2)
        self._pp, self._pv, self._vv = (NOISE * size) ** 2, 0.0, (FIRST_SPEED * size) ** 2

    def predict(self, seconds: float, size: float) -> None:
        """Predict the center after some seconds; size: of the target, pixels."""
        fade = float(np.exp(-seconds / DAMPING_S))
        ahead = DAMPING_S * (1 - fade)
        self.center = self.center + ahead * self.speed
        self.speed = fade * self.speed
        density = ACCELERATION * size ** 2
        self._pp += ahead * (2 * self._pv + ahead * self._vv) + density * seconds ** 3 / 3
        self._pv = fade * (self._pv + ahead * self._vv) + density * seconds ** 2 / 2
        self._vv = fade ** 2 * self._vv + density * seconds

    def update(self, center: Point, size: float, trust: float = 1.0) -> None:
        """Correct the prediction with a found center (2,); trust: 0 to 1."""
        noise = (NOISE * size / max(trust, 1e-3)) ** 2
        along, faster = np.array((self._pp, self._pv)) / (self._pp + noise)
        error = center - self.center
        self.center = self.center + along * error
        self.speed = self.speed + faster * error
        self._vv -= faster * self._pv
        self._pv *= 1 - along
        self._pp *= 1 - along

    def move(self, camera: CameraMotion) -> None:
        """Follow a camera that moved."""
        self.center, self.speed = camera.point(self.center), camera.direction(self.speed)

    def stop(self) -> None:
        """Forget the speed, as after a jump in time."""
        self.speed = np.zeros(2)


class Trail:
    """Boxes of a target in the last second, and where it is expected from them."""

    def __init__(self, stamp: float, box: Point) -> None:
        """Start with a box (4,) x1, y1, x2, y2 at a stamp in seconds."""
        self._stamps, self._boxes = [stamp], [box]
        self._fit: tuple[Point, Point, Point, float, float] | None = None

    def add(self, stamp: float, box: Point) -> None:
        """Add a box; only those of the second before it stay, and of a stamp the last."""
        kept = [i for i, s in enumerate(self._stamps) if 0 < stamp - s <= PATH_S]
        self._stamps = [*(self._stamps[i] for i in kept), stamp]
        self._boxes = [*(self._boxes[i] for i in kept), box]
        self._fit = None

    def move(self, camera: CameraMotion) -> None:
        """Follow a camera that moved."""
        self._boxes = [*camera.box(np.stack(self._boxes))]
        self._fit = None

    def shift(self, seconds: float) -> None:
        """Follow a clock that was set."""
        self._stamps = [s + seconds for s in self._stamps]
        self._fit = None

    def ahead(self, stamp: float) -> tuple[Point, Point]:
        """
        Return where the target is expected at a later stamp, and its size (2,).

        The places (2, 2) are one where it is if it goes on, and one if it slows down.
        """
        center, speed, size, middle, rate = self._fit = self._fit or self._fitted()
        ahead, last = stamp - middle, self._stamps[-1] - middle
        slow = last + DAMPING_S * (1 - float(np.exp(-(ahead - last) / DAMPING_S)))
        return (center + speed * np.array([[ahead], [slow]]),
                size / np.clip(1 + rate * ahead, *FURTHER))

    def _fitted(self) -> tuple[Point, Point, Point, float, float]:
        """
        Return center (2,), speed (2,), size (2,) at the median stamp, that stamp, and a rate.

        Speeds are the median of those between any two boxes, so that a few that are wrong do not
        count. The rate is that of the reciprocal of the size, in its own units per second: it
        stays the same while the speed of an approaching object does. What may be noise of it does
        not count.
        """
        stamps, boxes = np.array(self._stamps), np.stack(self._boxes)
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
        size, middle = np.median(sizes, 0), float(np.median(stamps))
        one, other = np.triu_indices(len(stamps), 1)
        kept = stamps[other] - stamps[one] >= APART_S
        if not kept.any():
            return centers[-1], np.zeros(2), size, float(stamps[-1]), 0.0
        one, other = one[kept], other[kept]
        passed = stamps[other] - stamps[one]
        speed = np.median((centers[other] - centers[one]) / passed[:, None], 0)
        center = np.median(centers - speed * (stamps - middle)[:, None], 0)
        far = 1 / np.sqrt(sizes.prod(1))
        far /= np.median(far)
        rate = float(np.median((far[other] - far[one]) / passed))
        noise = RATE_NOISE + float(np.abs(far - 1 - rate * (stamps - middle)).mean())
        return center, speed, size, middle, rate * rate ** 2 / (rate ** 2 + noise ** 2)
