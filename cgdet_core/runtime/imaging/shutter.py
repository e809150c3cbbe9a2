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
Recognize the frames of a closed shutter.

An uncooled camera closes its shutter for 0.3 to 2 s every few minutes, to measure its fixed
pattern (flat-field correction, FFC, NUC). Meanwhile it repeats the last frame, or shows the
shutter, which is flat; afterwards the level of all pixels may have changed.
"""

from collections import deque
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

FROZEN_S = 0.2  # a repeated frame; cameras of 9 Hz may send each frame three times at 27 Hz
NEVER_REPEATS = 30  # different frames in a row, after which the first repeated one is frozen
USUAL = 15  # latest frames of an open shutter, whose median contrast is the usual one
FLAT, FULL = 0.25, 0.5  # of the usual contrast: a shutter, and the scene before it
MAX_FLAT_S = 3.0  # no shutter is closed longer: the scene itself is flat


class ShutterDetector:
    """
    Decide for each frame of a camera whether the shutter was closed; one instance per camera.

    Frozen: the frame equals the one before it, at once if the camera does not repeat frames, else
    for at least FROZEN_S. Flat: the contrast fell within one frame to less than a quarter of the
    usual one; a camera that turns to a wall loses it more slowly. The level does not matter.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._before: NDArray[Any] | None = None
        self._same_since = 0.0  # time of the first of equal frames
        self._different = 0  # frames in a row
        self._contrasts: deque[float] = deque(maxlen=USUAL)  # of an open shutter
        self._flat_since: float | None = None
        self._frozen = False

    def update(self, frame: NDArray[Any], seconds: float) -> str:
        """Return '' for an open shutter, or 'frozen' or 'flat'; seconds: the frame's time."""
        before = self._before
        if before is not None and (before.dtype, before.shape) != (frame.dtype, frame.shape):
            self._reset()  # another camera, or another form of its images
        contrast = _contrast(frame)
        if self._is_frozen(frame, seconds) and contrast > 0:
            return 'frozen'
        if self._is_flat(contrast, seconds):
            return 'flat'
        self._contrasts.append(contrast)
        return ''

    def _is_frozen(self, frame: NDArray[Any], seconds: float) -> bool:
        before, self._before = self._before, frame
        if before is None or not np.array_equal(before, frame):
            self._same_since = seconds
            self._different = 1 if self._frozen else self._different + 1
            self._frozen = False
            return False
        repeats = self._different >= NEVER_REPEATS
        self._frozen = self._frozen or repeats or seconds - self._same_since >= FROZEN_S
        if not self._frozen:
            self._different = 0
        return self._frozen

    def _is_flat(self, contrast: float, seconds: float) -> bool:
        if not self._contrasts:
            return False
        usual = median(self._contrasts)
        if contrast >= FLAT * usual or usual == 0:
            self._flat_since = None
            return False
        if self._flat_since is None:
            if self._contrasts[-1] < FULL * usual:
                return False
            self._flat_since = seconds
        if seconds - self._flat_since < MAX_FLAT_S:
            return True
        self._contrasts.clear()
        self._flat_since = None
        return False


def _contrast(frame: NDArray[Any]) -> float:
    """Return the range between the 2nd and the 98th percentile of a part of the pixels."""
    low, high = np.percentile(frame[::8, ::4], (2, 98))
    return float(high - low)
