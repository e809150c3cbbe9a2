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

"""Stable ids for the objects of successive frames, by norfair."""

from collections import deque
from statistics import median
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime import Detections
import numpy as np
from numpy.typing import NDArray

MIN_HITS = 3  # frames before a track is believed
INTERVALS = 15  # between frames, whose median is the camera's
SLOWEST_S = 5.0  # a longer interval is a gap
FIRST_INTERVAL_S = 0.1  # until there is one
# Boxes are matched with a quarter of their size added on each side: small objects that move by
# their own width between frames still overlap.
MARGIN = 0.25
MAX_DISTANCE = 0.75  # 1 - IoU of such boxes
# Of the motion, in sizes of the object, so that they hold near and far.
CORNER_NOISE = 0.03  # standard deviation of a detected corner
FIRST_SPEED = 3.0  # per second: standard deviation of a speed not seen yet
ACCELERATION = 0.5  # squared, per s^3: spectral density of what changes the speed


class ConstantVelocity:
    """
    A Kalman filter of box corners that knows the time between frames, as norfair wants it.

    norfair's own count frames, so that a speed is wrong whenever one is missing. All corners
    share one covariance (position, both, velocity), as they are always seen together.
    """

    def __init__(self, clock: 'Clock', corners: NDArray[np.float64]) -> None:
        size = float(np.mean(corners[1] - corners[0]))
        self.x = np.zeros((2 * corners.size, 1))  # positions, velocities per second
        self.x[:corners.size, 0] = corners.ravel()
        self._positions, self._velocities = self.x[:corners.size], self.x[corners.size:]
        self._clock = clock
        self._noise = (CORNER_NOISE * size) ** 2
        self._density = ACCELERATION * size**2
        self._pp, self._pv, self._vv = self._noise, 0.0, (FIRST_SPEED * size) ** 2

    def predict(self) -> None:
        """Move on to the time of the frame."""
        dt, q = self._clock.passed, self._density
        self._positions += dt * self._velocities
        self._pp += dt * (2 * self._pv + dt * (self._vv + dt * q / 3))
        self._pv += dt * (self._vv + dt * q / 2)
        self._vv += dt * q

    def update(self, corners: NDArray[np.float64], noise: Any, matrix: Any) -> None:
        """Take in detected corners (4, 1)."""
        error = corners - self._positions
        along, speed = np.array((self._pp, self._pv)) / (self._pp + self._noise)
        self._positions += along * error
        self._velocities += speed * error
        self._vv -= speed * self._pv
        self._pv *= 1 - along
        self._pp *= 1 - along


class Clock:
    """Make filters of one tracker that share the time between its frames, `passed`."""

    passed = 0.0  # s

    def create_filter(self, corners: NDArray[np.float64]) -> ConstantVelocity:
        """Return the filter of a new track."""
        return ConstantVelocity(self, corners)


class Tracker:
    """
    Follow objects from frame to frame; not thread-safe, one per camera.

    A class is never matched with another. A track unseen for `max_age_s`, or for as long as it
    was seen if that was shorter, ends. Ids are never used twice in a process, by no camera.
    """

    def __init__(self, max_age_s: float = 1.0) -> None:
        try:
            import norfair
        except ImportError:
            raise UserError('Track ids need the norfair module; install it with "pip install '
                            '--no-deps norfair filterpy" and "pip install scipy rich".') from None
        self._norfair: Any = norfair
        self.max_age_s = max_age_s
        self.reset()

    def reset(self) -> None:
        """Forget all tracks."""
        self._clock = Clock()
        self._tracker = self._norfair.Tracker(
            'iou', MAX_DISTANCE, hit_counter_max=MIN_HITS, initialization_delay=MIN_HITS - 1,
            past_detections_length=0, filter_factory=self._clock)
        self._intervals: deque[float] = deque(maxlen=INTERVALS)
        self._last: float | None = None

    def update(self, detections: Detections, stamp_s: float) -> list[str]:
        """
        Return the id of each detection's track, '' for one that has none yet.

        stamp_s: the frame's time in seconds. Starts anew when it goes back, or on without a
        frame, by more than `max_age_s`; a smaller step back counts as no time.
        """
        self._advance(stamp_s)
        boxes = detections.boxes.astype(np.float64)
        margin = MARGIN * (boxes[:, 2:] - boxes[:, :2])
        boxes += np.hstack([-margin, margin])
        items = [self._norfair.Detection(box.reshape(2, 2), data=i, label=label)
                 for i, (box, label) in enumerate(zip(boxes, detections.labels.tolist()))]
        self._tracker.update(items)
        ids = [''] * len(items)
        for track in self._tracker.tracked_objects:
            index = track.last_detection.data
            if index is not None:  # seen in this frame
                track.last_detection.data = None
                ids[index] = str(track.global_id or '')
        return ids

    def _advance(self, stamp_s: float) -> None:
        """Note a frame's time; norfair counts a track's life in frames."""
        passed = 0.0 if self._last is None else stamp_s - self._last
        # Jitter and clocks that are set step back a little, a bag that starts again steps far.
        if -self.max_age_s <= passed < 0:
            passed = 0.0
        # A slow camera's frames may lie further apart than a track lives unseen.
        if not 0 <= passed <= max(self.max_age_s, MIN_HITS * self._interval()):
            self.reset()
        if 0 < passed <= SLOWEST_S:
            self._intervals.append(passed)
        self._clock.passed = 0.0 if self._last is None else passed
        self._last, interval = stamp_s, self._interval()
        frames = max(MIN_HITS, round(self.max_age_s / interval))
        self._tracker.hit_counter_max = frames
        for track in self._tracker.tracked_objects:
            track.hit_counter_max = frames

    def _interval(self) -> float:
        """Return the usual seconds between frames."""
        return median(self._intervals) if self._intervals else FIRST_INTERVAL_S
