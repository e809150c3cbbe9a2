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

"""What a tracker knows of its target."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class State(str, Enum):
    """
    Whether the target is seen.

    TRACKED: it was found in the frame. UNCERTAIN: it may have been, or the frame says nothing, as
    during a shutter event. LOST: it was probably absent, is searched for in more of the frame, and
    was not found again for certain.
    """

    TRACKED = 'tracked'
    UNCERTAIN = 'uncertain'
    LOST = 'lost'


@dataclass(frozen=True)
class Target:
    """
    The target in a frame.

    box: (4,) x1, y1, x2, y2 in pixels of the frame, which it may leave; the prediction if the
    state is not TRACKED. score: the probability that the box is on the target, 0 to 1.
    """

    box: NDArray[np.float32]
    score: float
    state: State
