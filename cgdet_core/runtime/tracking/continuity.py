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

"""Whether a target's box still shows what it showed before, whatever that is."""

from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE, AROUND = 32, 1.4  # of a patch, pixels; how much larger the box is in which it is sought
FINEST = 4  # samples for a pixel of a patch, at most, in each direction
SPAN_S = 0.1  # between patches that are kept, at least
FLAT = 0.001  # standard deviation of a patch that shows nothing
# Correlations up to which a box shows something else, and from which on the same.
CHANGED = 0.75, 0.9  # than a moment ago, or at another place
DRIFTED = 0.3, 0.5  # than when the target was last recognized, if it changed slowly
BACK = 0.65, 0.85  # the same, after a change

Image = NDArray[np.float32]
Box = NDArray[np.float64]


class Continuity:
    """
    What a target's box shows, from frame to frame (as in TLD, Kalal et al., 2012).

    A target that turns or moves its legs changes little from one frame to the next, also if its
    filter no longer recognizes it; one that is hidden changes at once. held: 0 to 1, how certainly
    the box has shown the same since the target was last recognized.
    """

    def __init__(self, frame: Image, box: Box, stamp: float) -> None:
        """Start with a box (4,) of a normalized frame (H, W) that shows the target."""
        self.held = 1.0
        self._stamp = stamp
        self._first = self._last = patch(frame, box)

    def follow(self, frame: Image, box: Box, stamp: float, recognized: bool) -> float:
        """Return `held` with the next frame's box (4,)."""
        if recognized:
            self.held, self._first = 1.0, patch(frame, box)
        else:
            near = patch(frame, box, AROUND)
            first = correlation(self._first, near)
            unchanged = min(self.held, _share(correlation(self._last, near), CHANGED),
                            _share(first, DRIFTED))
            self.held = max(unchanged, _share(first, BACK))
        if not 0 <= stamp - self._stamp < SPAN_S - 1e-6:
            self._last = self._first if recognized else patch(frame, box)
            self._stamp = stamp
        return self.held

    def again(self, frame: Image, box: Box) -> float:
        """Return from 0 to 1 how much a box looks as the target did when it was recognized."""
        return _share(correlation(self._first, patch(frame, box, AROUND)), CHANGED)


def patch(frame: Image, box: Box, around: float = 1.0) -> Image:
    """Return a box (4,) of a frame as (n, n), n = SIZE around; around: 1, or a larger box."""
    size = round(SIZE * around)
    step = around * (box[2:] - box[:2]) / size
    fine = min(FINEST, max(1, ceil(step.max())))
    step = step / fine
    x, y = (box[:2] + box[2:] - size * fine * step + step - 1) / 2
    found = cv2.warpAffine(
        frame, np.array([(step[0], 0, x), (0, step[1], y)]), (size * fine, size * fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(found, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def correlation(small: Image, large: Image) -> float:
    """Return the largest normalized correlation of a patch in a larger one; 0 if it is flat."""
    if small.std() < FLAT:
        return 0.0
    return float(cv2.matchTemplate(large, small, cv2.TM_CCOEFF_NORMED).max())


def _share(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return min(max((value - low) / (high - low), 0.0), 1.0)
