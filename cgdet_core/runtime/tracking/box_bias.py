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

"""How the box head errs on a target, measured in the frame in which its box is known."""

from typing import Any

from cgdet_core.runtime.tracking.card import TargetCard
from cgdet_core.runtime.tracking.region import Region
from cgdet_core.runtime.tracking.sight import Sight
import numpy as np
from numpy.typing import NDArray

# Regions around the first box in which the head's box is compared with it: moves in roots of its
# area, and scale.
VIEWS = ((0.0, 0.0, 1.0), (0.2, 0.15, 1.0), (-0.2, 0.15, 1.0), (0.15, -0.2, 1.1),
         (-0.15, -0.2, 0.9))
OTHER = 0.5  # of a box's size: a center that is farther off is that of something else
# Of the error in x, y of the center and in the size, that are corrected. The rest of a center's
# error is due to how the first box was drawn, the rest of a size's to the pose.
SHARES = np.array([0.5, 0.5, 0.8, 0.8])
MAX_LOG_SCALE = 0.25  # largest correction of width and height; more is due to how a box was drawn

Box = NDArray[np.float64]


class BoxBias:
    """
    The systematic error of the head's boxes of one target: offset of the center and scale.

    The region is as large as the last box asks for, so that a head that draws a target a tenth
    too small soon draws it half as large. Nothing is corrected if most regions show something
    else.
    """

    def __init__(self, sight: Sight, image: Any, box: Box, card: TargetCard) -> None:
        """
        Compare the head's boxes with the target's, (4,) x1, y1, x2, y2 in pixels of the frame.

        image: the frame in which the box is known, as `model.normalized` returned it.
        """
        size = box[2:] - box[:2]
        errors = []
        for view in VIEWS:
            region = Region.beside(box, view, card.factor, card.input_size)
            found = region.to_frame(sight.look(image, region, None)[0].box)
            sides = np.maximum(found[2:] - found[:2], 1e-6)
            offset = (found[:2] + found[2:] - box[:2] - box[2:]) / 2 / sides
            if (np.abs(offset) < OTHER).all():
                errors.append(np.concatenate([offset, np.log(sides / size)]))
        known = len(errors) > len(VIEWS) // 2
        bias = SHARES * np.median(errors, 0) if known else np.zeros(4)
        self._offset = bias[:2]  # in widths and heights of the head's box
        self._scale = np.exp(np.clip(bias[2:], -MAX_LOG_SCALE, MAX_LOG_SCALE))

    def corrected(self, box: Box) -> Box:
        """Return a box (4,) of the head, in pixels of the frame, without its systematic error."""
        size = box[2:] - box[:2]
        center = (box[:2] + box[2:]) / 2 - self._offset * size
        half = size / self._scale / 2
        return np.concatenate([center - half, center + half])
