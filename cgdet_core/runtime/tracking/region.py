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

"""The search region: a square of a frame, cut, scaled to the network's input, and mapped back."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_SIDE = 16.0  # pixels of the frame


@dataclass(frozen=True)
class Region:
    """
    A square of a frame, of which parts may lie outside.

    x, y: the left top corner; side: in pixels of the frame; size: of the network's input.
    """

    x: float
    y: float
    side: float
    size: int

    @staticmethod
    def around(box: NDArray[np.floating], factor: float, size: int) -> 'Region':
        """
        Return the region centered on a box (4,), x1, y1, x2, y2.

        factor: side of the region relative to the square root of the box's area, so that a
        centered target always fills the same part of the input.
        """
        width, height = float(box[2] - box[0]), float(box[3] - box[1])
        side = max(MIN_SIDE, factor * (width * height) ** 0.5)
        return Region(float(box[0] + box[2]) / 2 - side / 2, float(box[1] + box[3]) / 2 - side / 2,
                      side, size)

    @staticmethod
    def beside(box: NDArray[np.float64], view: tuple[float, float, float], factor: float,
               size: int) -> 'Region':
        """
        Return a region that does not show a box (4,) in its center, or not as large.

        view: how far it is moved, x and y in roots of the box's area, and how much larger it is.
        """
        x, y, scale = view
        move = np.array((x, y) * 2) * float(np.sqrt((box[2:] - box[:2]).prod()))
        return Region.around(box + move, factor * scale, size)

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """
        Return the region of an image (H, W) as (size, size); outside, its border is repeated.

        The image may have up to four channels, (H, W, C).

        Regions larger than the input are averaged over whole pixels first, so that nothing is
        skipped.
        """
        height, width = image.shape[:2]
        scale = self.side / self.size
        left, top = (int(np.clip(v, 0, n - 1)) for v, n in ((self.x - 1, width),
                                                            (self.y - 1, height)))
        right, bottom = (int(np.clip(np.ceil(v + self.side) + 1, low + 1, n)) for v, low, n in (
            (self.x, left, width), (self.y, top, height)))
        part = image[top:bottom, left:right]
        # Of a region far larger than the image, no more than the image is averaged.
        step = int(min(max(1, scale), max(part.shape[:2])))
        if step > 1:
            columns, rows = (-(-n // step) for n in (right - left, bottom - top))
            part = cv2.copyMakeBorder(
                part, 0, rows * step - part.shape[0], 0, columns * step - part.shape[1],
                cv2.BORDER_REPLICATE)
            part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
        # Pixel u of the input is at (u + 0.5) scale - 0.5 in the region.
        a = scale / step
        shift = [(v - low + 0.5 * scale) / step - 0.5 for v, low in ((self.x, left),
                                                                     (self.y, top))]
        matrix = np.array([(a, 0, shift[0]), (0, a, shift[1])])
        return np.asarray(cv2.warpAffine(
            part, matrix, (self.size, self.size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE))

    def to_frame(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map boxes (..., 4) from pixels of the input to pixels of the frame."""
        return boxes * (self.side / self.size) + np.array((self.x, self.y) * 2)

    def to_input(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map boxes (..., 4) from pixels of the frame to pixels of the input."""
        return (boxes - np.array((self.x, self.y) * 2)) * (self.size / self.side)


def coverage(box: NDArray[np.floating], size: int, cells: int, stride: int) -> NDArray[np.float32]:
    """
    Return the share of each of the central cells (cells, cells) that a box covers.

    box: (4,) in pixels of an input of `size`; stride: pixels of a cell.
    """
    edges = (size - cells * stride) / 2 + stride * np.arange(cells + 1)
    columns, rows = (np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
                     / stride for low, high in ((box[0], box[2]), (box[1], box[3])))
    return (rows[:, None] * columns).astype(np.float32)
