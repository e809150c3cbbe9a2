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

"""
Track ids: the same id for the same detected object in successive frames.

This belongs to detection. Following one chosen target is a task of its own, `runtime.tracking`.
"""

from collections import deque
from dataclasses import dataclass
from itertools import count
from statistics import median

from cgdet_core.runtime.detection.postprocess import Detections, iou
import numpy as np
from numpy.typing import NDArray

MIN_HITS = 3  # frames before a track is confirmed
INTERVALS = 15  # latest ones between frames; their median is the camera's
SLOWEST_S = 5.0  # a longer interval is a gap
FIRST_INTERVAL_S = 0.1  # until one is measured
# Boxes are matched with a quarter of their size added on each side: small objects that move by
# their own width between frames still overlap.
MARGIN = 0.25
MIN_IOU = 0.25  # of the enlarged boxes
# Motion in units of the object's size, so that the values hold near and far.
CORNER_NOISE = 0.03  # standard deviation of a detected corner
FIRST_SPEED = 3.0  # per second: standard deviation of the initial speed
ACCELERATION = 0.5  # squared, per s^3: spectral density of the acceleration


class ConstantVelocity:
    """
    A constant-velocity Kalman filter of a box (4,), x1, y1, x2, y2.

    It uses the time between frames: a filter that counts frames doubles the speed at a dropped
    frame. All corners share one covariance (position, both, velocity), as they are always
    observed together.
    """

    def __init__(self, box: NDArray[np.float64]) -> None:
        size = float(np.mean(box[2:] - box[:2]))
        self.box = box.copy()
        self._velocity = np.zeros(4)  # per second
        self._noise = (CORNER_NOISE * size) ** 2
        self._density = ACCELERATION * size**2
        self._pp, self._pv, self._vv = self._noise, 0.0, (FIRST_SPEED * size) ** 2

    def predict(self, seconds: float) -> None:
        """Predict the box after some seconds."""
        dt, q = seconds, self._density
        self.box += dt * self._velocity
        self._pp += dt * (2 * self._pv + dt * (self._vv + dt * q / 3))
        self._pv += dt * (self._vv + dt * q / 2)
        self._vv += dt * q

    def update(self, box: NDArray[np.float64]) -> None:
        """Correct the prediction with a detected box (4,)."""
        error = box - self.box
        along, speed = np.array((self._pp, self._pv)) / (self._pp + self._noise)
        self.box += along * error
        self._velocity += speed * error
        self._vv -= speed * self._pv
        self._pv *= 1 - along
        self._pp *= 1 - along


@dataclass
class Track:
    """An object in successive frames."""

    motion: ConstantVelocity
    label: int
    life: int = 1  # frames it may still be missed in; grows while it is detected
    id: str = ''  # empty until the track is confirmed


class MultiObjectTracker:
    """
    Track objects from frame to frame; not thread-safe, one instance per camera.

    Detections only match tracks of their own class. A track ends if it is not detected for
    `max_age_s`, or for as long as it was detected if that is shorter. Ids are unique in a
    process, across all cameras.
    """

    _ids = count(1)

    def __init__(self, max_age_s: float = 1.0) -> None:
        self.max_age_s = max_age_s
        self.reset()

    def reset(self) -> None:
        """Remove all tracks."""
        self._tracks: list[Track] = []
        self._intervals: deque[float] = deque(maxlen=INTERVALS)
        self._last: float | None = None

    def update(self, detections: Detections, stamp_s: float) -> list[str]:
        """
        Return the track id of each detection, '' if its track is not confirmed yet.

        stamp_s: the frame's time in seconds. All tracks end if it jumps back or ahead by more
        than `max_age_s`; a smaller step back counts as no time.
        """
        passed = self._advance(stamp_s)
        longest = max(MIN_HITS, round(self.max_age_s / self._interval()))
        boxes = detections.boxes.astype(np.float64)
        margin = MARGIN * (boxes[:, 2:] - boxes[:, :2])
        boxes += np.hstack([-margin, margin])
        self._tracks = [track for track in self._tracks if track.life >= 0]
        for track in self._tracks:
            track.life -= 1
            track.motion.predict(passed)
        ids = [''] * len(boxes)
        new = np.arange(len(boxes))
        # Confirmed tracks are matched first.
        for tracks in ([t for t in self._tracks if t.id], [t for t in self._tracks if not t.id]):
            pairs = match(boxes[new], detections.labels[new], tracks)
            for row, track in pairs:
                track.motion.update(boxes[new[row]])
                track.life = min(track.life + 2, longest)
                if not track.id and track.life >= MIN_HITS:
                    track.id = str(next(self._ids))
                ids[new[row]] = track.id
            new = np.delete(new, [row for row, _ in pairs])
        self._tracks += [Track(ConstantVelocity(boxes[i]), int(detections.labels[i])) for i in new]
        return ids

    def coast(self, stamp_s: float) -> None:
        """Predict all tracks at a frame that shows nothing new; they do not age."""
        passed = self._advance(stamp_s)
        for track in self._tracks:
            track.motion.predict(passed)

    def _advance(self, stamp_s: float) -> float:
        """Return the seconds since the previous frame, 0 if tracking starts with this one."""
        passed = 0.0 if self._last is None else stamp_s - self._last
        # Jitter and clock corrections cause small steps back, a looping bag a large one.
        if -self.max_age_s <= passed < 0:
            passed = 0.0
        # The frames of a slow camera may be further apart than max_age_s.
        if not 0 <= passed <= max(self.max_age_s, MIN_HITS * self._interval()):
            self.reset()
        if 0 < passed <= SLOWEST_S:
            self._intervals.append(passed)
        self._last, last = stamp_s, self._last
        return 0.0 if last is None else passed

    def _interval(self) -> float:
        """Return the median seconds between frames."""
        return median(self._intervals) if self._intervals else FIRST_INTERVAL_S


def match(boxes: NDArray[np.float64], labels: NDArray[np.int64],
          tracks: list[Track]) -> list[tuple[int, Track]]:
    """
    Return pairs of a box's row and a track of its class, largest overlap first.

    boxes (N, 4) and labels (N,). Greedy: maximizing the total overlap would break up a good pair
    to form two poor ones.
    """
    predicted = np.array([track.motion.box for track in tracks]).reshape(-1, 4)
    overlap = iou(boxes, predicted)
    overlap[labels[:, None] != np.array([track.label for track in tracks], np.int64)] = 0.0
    pairs = []
    while overlap.size and overlap.max() > MIN_IOU:
        row, column = divmod(int(overlap.argmax()), len(tracks))
        pairs.append((row, tracks[column]))
        overlap[row] = overlap[:, column] = 0.0
    return pairs
