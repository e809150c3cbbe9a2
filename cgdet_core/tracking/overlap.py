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

"""Overlap and distance of two boxes."""

import numpy as np
from numpy.typing import NDArray


def overlap_and_error(box: NDArray[np.floating],
                      truth: NDArray[np.floating]) -> tuple[float, float]:
    """Return the IoU of two boxes (4,), and the distance of centers in roots of the truth."""
    low, high = np.maximum(box[:2], truth[:2]), np.minimum(box[2:], truth[2:])
    common = float(np.clip(high - low, 0, None).prod())
    areas = [float(np.clip(b[2:] - b[:2], 0, None).prod()) for b in (box, truth)]
    move = float(np.linalg.norm((box[:2] + box[2:] - truth[:2] - truth[2:]) / 2))
    return common / max(sum(areas) - common, 1e-9), move / max(areas[1], 1e-9) ** 0.5


def auc_and_precision(found: NDArray[np.float64]) -> tuple[float, float]:
    """Return the area under the success curve of rows (N, 2), and the share of small errors."""
    return (float((found[:, :1] > np.arange(0, 1.01, 0.05)).mean()),
            float((found[:, 1] < 0.2).mean()))
