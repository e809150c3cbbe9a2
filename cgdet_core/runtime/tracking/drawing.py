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

"""Draw targets in the colors of their states."""

from collections.abc import Sequence
from typing import Any

from cgdet_core.runtime.imaging.drawing import Color, draw, draw_boxes, Picture
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.tracking.target import State, Target
import numpy as np
from numpy.typing import NDArray

GROWN = 4  # pixels, of a target around its detection
# BGR; distinguishable with color blindness, as imaging.drawing.COLORS.
COLORS: dict[State, Color] = {
    State.TRACKED: (115, 158, 0), State.UNCERTAIN: (66, 228, 240), State.LOST: (0, 94, 213)}


def draw_targets(frame: NDArray[Any], targets: Sequence[Target], normalization: Normalization,
                 ids: Sequence[str] = (), truth: NDArray[np.float32] | None = None) -> Picture:
    """Return a frame (H, W) as an image with targets, and truth (M, 4), dashed."""
    boxes = np.array([target.box for target in targets], np.float32).reshape(-1, 4)
    texts = [_caption(name, target)
             for target, name in zip(targets, ids or [''] * len(targets))]
    return draw(frame, normalization, boxes, texts,
                [COLORS[target.state] for target in targets], truth)


def draw_target(picture: Picture, target: Target) -> None:
    """Draw a target around what is already drawn in a picture, such as its detection."""
    around = target.box + np.array((-GROWN, -GROWN, GROWN, GROWN), np.float32)
    draw_boxes(picture, around[None], [_caption('target', target)],
               [COLORS[target.state]])


def _caption(name: str, target: Target) -> str:
    return f'{name} {target.state.value} {target.score:.2f}'.lstrip()
