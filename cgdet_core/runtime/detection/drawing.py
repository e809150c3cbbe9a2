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

"""Draw detections with captions and class colors."""

from collections.abc import Sequence
from typing import Any

from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.drawing import Color, COLORS, draw, draw_legend, Picture
import numpy as np
from numpy.typing import NDArray


def draw_detections(frame: NDArray[Any], detections: Detections, card: DetectionCard,
                    truth: NDArray[np.float32] | None = None, ids: Sequence[str] = ()) -> Picture:
    """
    Return an image (H, W, 3) BGR of a frame with its detections.

    truth (M, 4): annotated boxes, dashed in black and white, named in a legend. ids: track ids.
    """
    picture = draw(frame, card.normalization, detections.boxes,
                   captions(detections, card.classes, ids), colors(detections), truth)
    if truth is not None:
        draw_legend(picture, card.classes, truth=True)
    return picture


def captions(detections: Detections, classes: tuple[str, ...],
             ids: Sequence[str] = ()) -> list[str]:
    """Return each detection's class and score, and `#` with its track id if it has one."""
    return [f'{classes[label]} {score:.2f}' + (f' #{track}' if track else '')
            for label, score, track in zip(
                detections.labels, detections.scores, ids or [''] * len(detections))]


def colors(detections: Detections) -> list[Color]:
    """Return the BGR color of each detection's class."""
    return [COLORS[label % len(COLORS)] for label in detections.labels]
