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

"""Dead pixels of float frames: NaN or infinite, filled from their neighbors."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_SHARE = 0.01  # of a frame's pixels, unless a caller has its own


def fill_dead_pixels(
    frame: NDArray[Any], max_share: float = MAX_SHARE,
) -> tuple[NDArray[Any], int]:
    """
    Return a frame (H, W) without NaN and infinite pixels, and how many there were.

    Each is the mean of its finite neighbors; clusters are filled from their border inwards. A
    frame without dead pixels, and one of integers, is returned as it is, others are copied.
    ValueError if more than max_share of the pixels are dead.
    """
    if frame.dtype != np.float32 or frame.ndim != 2:
        return frame, 0
    alive = np.isfinite(frame)
    count = frame.size - int(np.count_nonzero(alive))
    if not count:
        return frame, 0
    if count > max_share * frame.size or count == frame.size:
        raise ValueError(f'{count} of {frame.size} pixels are NaN or infinite, at most '
                         f'{100 * max_share:g} % are filled from their neighbors')
    filled = np.where(alive, frame, np.float32(0))
    known = alive.astype(np.float32)
    rows, columns = np.nonzero(~alive)
    # Only the part with dead pixels is filled, and the pixels next to it.
    part = (slice(max(rows.min() - 1, 0), rows.max() + 2),
            slice(max(columns.min() - 1, 0), columns.max() + 2))
    values, weights = filled[part], known[part]  # views
    while not weights.all():
        total, number = (cv2.boxFilter(a, cv2.CV_64F, (3, 3), normalize=False,
                                       borderType=cv2.BORDER_CONSTANT) for a in (values, weights))
        reached = (weights == 0) & (number > 0.5)
        values[reached] = (total[reached] / number[reached]).astype(np.float32)
        weights[reached] = 1
    return filled, count
