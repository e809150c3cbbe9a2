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

"""Views: where a picture is in a training sample, and which part of it the sample shows."""

from pathlib import Path
from typing import NamedTuple

from cgdet_core.data.coco import ImageRecord
from cgdet_core.distillation.config import Unpaired
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal
from cgdet_core.runtime.imaging.geometry import resize
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
from cgdet_core.runtime.imaging.signal import CARD, POLARITIES, seen
import numpy as np
from numpy.typing import NDArray

# Thermal frames are shown to a teacher, which was trained on photographs, with a linear stretch.
AS_A_PICTURE = Normalization('percentile')


class View(NamedTuple):
    """
    Where a picture that the teacher can see, usually RGB, is in a sample.

    The point (u, v) of the picture, each in [0, 1], is at (scale * (u, v) + offset) pixels of
    the sample, and only `region` (x1, y1, x2, y2) of the sample shows it. A negative scale means
    a mirrored picture.
    """

    picture: Path
    size: tuple[int, int]  # of the thermal frame's file, width and height
    scale: tuple[float, float]
    offset: tuple[float, float]
    region: tuple[float, float, float, float]
    thermal: bool = False  # the picture is the thermal frame itself
    polarity: str = ''  # of that frame, see `signal.seen`
    black_hot: bool = False  # the frame is shown with this polarity, otherwise white hot

    @staticmethod
    def whole(picture: Path, size: tuple[int, int]) -> 'View':
        """Return the view of a picture over a whole frame of `size` = (width, height)."""
        return View(picture, size, size, (0, 0), (0, 0, *size))

    @staticmethod
    def of(record: ImageRecord, unpaired: Unpaired) -> 'View | None':
        """Return the view of a whole frame: of its RGB, or what there is instead of it."""
        size = record.width, record.height
        if record.rgb_path is not None:
            return View.whole(record.rgb_path, size)
        return None if unpaired == 'skip' else View.whole(record.path, size)._replace(
            thermal=True, polarity=record.polarity, black_hot=unpaired == 'black_hot')

    def moved(self, factor: tuple[float, float], shift: tuple[float, float],
              size: tuple[int, int]) -> 'View':
        """Return the view in the scaled and shifted sample, cut to `size` = (width, height)."""
        (sx, sy), (ox, oy) = self.scale, self.offset
        x1, y1, x2, y2 = self.region

        def at(x: float, axis: int) -> float:
            return min(max(x * factor[axis] + shift[axis], 0.0), float(size[axis]))

        return self._replace(
            scale=(sx * factor[0], sy * factor[1]),
            offset=(ox * factor[0] + shift[0], oy * factor[1] + shift[1]),
            region=(at(x1, 0), at(y1, 1), at(x2, 0), at(y2, 1)))

    def placed(self, left: int, top: int) -> 'View':
        """Return the view in a mosaic of which the sample is a tile."""
        x1, y1, x2, y2 = self.region
        return self._replace(
            offset=(self.offset[0] + left, self.offset[1] + top),
            region=(x1 + left, y1 + top, x2 + left, y2 + top))

    def mirrored(self, width: int) -> 'View':
        """Return the view in the sample mirrored left to right."""
        x1, y1, x2, y2 = self.region
        return self._replace(
            scale=(-self.scale[0], self.scale[1]),
            offset=(width - self.offset[0], self.offset[1]),
            region=(width - x2, y1, width - x1, y2))


def paint(view: View, canvas: NDArray[np.uint8]) -> None:
    """Draw a view's picture onto the sample (H, W, 3) that shows it, edges at whole pixels."""
    ends = [sorted((round(o), round(o + s))) for o, s in zip(view.offset, view.scale)]
    (left, right), (top, bottom) = ends
    x1, y1, x2, y2 = (round(v) for v in view.region)
    x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if x1 >= x2 or y1 >= y2:
        return
    # A registered picture covers the thermal frame exactly, whatever its number of pixels.
    if view.thermal:
        frame = normalize(seen(read_thermal(view.picture), CARD, view.polarity, POLARITIES[0]),
                          AS_A_PICTURE)
        picture = np.rint((1 - frame if view.black_hot else frame) * 255).astype(np.uint8)
    else:
        picture = read_rgb(view.picture)
    sized = np.empty((bottom - top, right - left, *picture.shape[2:]), np.uint8)
    resize(picture, sized)
    sized = sized.reshape(*sized.shape[:2], -1)[:, ::-1 if view.scale[0] < 0 else 1]
    canvas[y1:y2, x1:x2] = sized[y1 - top:y2 - top, x1 - left:x2 - left]
