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

"""Crop and letterbox: fit a frame into the model's input and map boxes back."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Crop:
    """Cut pixels off the edges of a received image, for example a camera's telemetry rows."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        if min(self.top, self.bottom, self.left, self.right) < 0:
            raise ValueError(f'a crop cannot be negative: {self}')

    def apply(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the remaining image (H, W, ...) as a view; ValueError if nothing remains."""
        height, width = image.shape[:2]
        rest = image[self.top:max(0, height - self.bottom), self.left:max(0, width - self.right)]
        if rest.size == 0:
            raise ValueError(
                f'a crop of {self.top} pixels at the top, {self.bottom} at the bottom, '
                f'{self.left} at the left and {self.right} at the right leaves nothing of the '
                f'image of {width}x{height} pixels')
        return rest

    def to_received(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes (K, 4) from pixels of the cropped to pixels of the received image."""
        return boxes + np.array((self.left, self.top) * 2, np.float32)


@dataclass(frozen=True)
class Letterbox:
    """
    Place a source frame top-left in the input, scaled to fit, aspect ratio kept.

    The rest of the input is 0, the coldest value. With top-left placement, mapping back is a
    single division. Sizes are (width, height) in pixels.
    """

    source: tuple[int, int]
    target: tuple[int, int]

    @property
    def scale(self) -> float:
        """Return input pixels per source pixel."""
        return min(self.target[0] / self.source[0], self.target[1] / self.source[1])

    @property
    def fitted(self) -> tuple[int, int]:
        """Return the size (width, height) of the scaled frame inside the input."""
        return (max(1, min(self.target[0], round(self.source[0] * self.scale))),
                max(1, min(self.target[1], round(self.source[1] * self.scale))))

    def window(self, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pad `out` (H, W) = target and return the view of it for the scaled frame."""
        width, height = self.fitted
        out[height:] = 0
        out[:height, width:] = 0
        return out[:height, :width]

    def apply(self, frame: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the frame (h, w) into `out` (H, W) = target, including the padding."""
        resize(frame, self.window(out))

    def to_source(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes (K, 4) from input to source pixels, clipped to the source frame."""
        width, height = self.fitted
        factor = np.array([self.source[0] / width, self.source[1] / height] * 2, np.float32)
        limit = np.array(self.source * 2, np.float32)
        return np.clip(boxes * factor, 0, limit)


def resize(image: NDArray[Any], out: NDArray[Any]) -> None:
    """Resize (h, w) into `out` (H, W), by averaging to shrink and linearly to enlarge."""
    if image.shape == out.shape:
        out[...] = image
        return
    shrinks = image.shape[0] > out.shape[0] or image.shape[1] > out.shape[1]
    result = cv2.resize(image, (out.shape[1], out.shape[0]), dst=out,
                        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if result is not out:
        out[...] = result
