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

"""Views: where in a training sample a frame with an RGB picture lies, and what RGB shows there."""

import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.data.coco import ImageRecord
from cgdet_core.nets.neck import STRIDES
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal
from cgdet_core.runtime.imaging.geometry import Letterbox, resize
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.nn import functional

# What a thermal frame looks like to a teacher that knows photographs: a linear stretch.
AS_A_PICTURE = Normalization('percentile')


class View(NamedTuple):
    """
    Place a picture that a teacher can see, of RGB as a rule, in a sample.

    The point (u, v) of the picture, each in [0, 1], lies at (scale * (u, v) + offset) pixels of
    the sample, and only `region` (x1, y1, x2, y2) of the sample shows it. A negative scale is
    a mirrored picture.
    """

    picture: Path
    size: tuple[int, int]  # of the thermal frame's file, width and height
    scale: tuple[float, float]
    offset: tuple[float, float]
    region: tuple[float, float, float, float]
    thermal: bool = False  # the picture is the thermal frame itself

    @staticmethod
    def of(record: ImageRecord, thermal: bool) -> 'View | None':
        """Return the view that fills its frame: of RGB, else if wanted of the frame itself."""
        size = record.width, record.height
        if record.rgb_path is None and not thermal:
            return None
        return View(record.rgb_path or record.path, size, size, (0, 0), (0, 0, *size),
                    record.rgb_path is None)

    def moved(self, factor: tuple[float, float], shift: tuple[float, float],
              size: tuple[int, int]) -> 'View':
        """Follow a scaling and a shift of the sample, cut to `size` = (width, height)."""
        (sx, sy), (ox, oy) = self.scale, self.offset
        x1, y1, x2, y2 = self.region

        def at(x: float, axis: int) -> float:
            return min(max(x * factor[axis] + shift[axis], 0.0), float(size[axis]))

        return self._replace(
            scale=(sx * factor[0], sy * factor[1]),
            offset=(ox * factor[0] + shift[0], oy * factor[1] + shift[1]),
            region=(at(x1, 0), at(y1, 1), at(x2, 0), at(y2, 1)))

    def placed(self, left: int, top: int) -> 'View':
        """Follow the sample as it becomes a tile of a mosaic."""
        x1, y1, x2, y2 = self.region
        return self._replace(
            offset=(self.offset[0] + left, self.offset[1] + top),
            region=(x1 + left, y1 + top, x2 + left, y2 + top))

    def mirrored(self, width: int) -> 'View':
        """Follow the sample's mirroring left and right."""
        x1, y1, x2, y2 = self.region
        return self._replace(
            scale=(-self.scale[0], self.scale[1]),
            offset=(width - self.offset[0], self.offset[1]),
            region=(width - x2, y1, width - x1, y2))


class TeacherInput:
    """
    Read what a teacher needs: the features of whole pictures from a cache, or a sample's pixels.

    The cache is a folder with a float16 file per picture, which the operating system keeps in
    memory; None: there is none, and the teacher sees the samples. `offset` says where in its cell,
    from 0 to 1, the place lies that a feature stands for.
    """

    def __init__(
        self, input_size: tuple[int, int], pad: int, channels: tuple[int, ...],
        cache: Path | None, offset: float = 0.5,
    ) -> None:
        self.input_size = input_size
        self.pad = pad
        self.cache = cache
        self.offset = offset
        width, height = input_size
        self.shapes = [(c, height // s, width // s) for c, s in zip(channels, STRIDES)]

    def has(self, view: View) -> bool:
        """Say whether the features of a view's picture are in the cache, without reading them."""
        path = self._path(view)
        return path.is_file() and path.stat().st_size == 2 * sum(self._sizes())

    def cached(self, view: View) -> list[Tensor] | None:
        """Return the features P3, P4, P5 (C, h, w), float16, of a picture if they are there."""
        if not self.has(view):
            return None
        flat = np.fromfile(self._path(view), np.float16)
        parts = np.split(flat, np.cumsum(self._sizes())[:-1])
        return [torch.from_numpy(p.reshape(s)) for p, s in zip(parts, self.shapes)]

    def write(self, view: View, features: list[Tensor]) -> None:
        """Keep the features (C, h, w), float16, of a view's picture."""
        flat = torch.cat([x.cpu().flatten() for x in features])
        write_atomically(self._path(view), flat.numpy().tobytes())

    def pixels(self, views: list[View], size: tuple[int, int]) -> Tensor:
        """
        Read what the views show of a sample of `size` = (width, height) into the teacher's input.

        (3, H, W) uint8, RGB, the sample letterboxed, `pad` where it shows no picture; the edges
        of pictures are where they should be to half a pixel.
        """
        fitted = self._fitted(size)
        factor = fitted[0] / size[0], fitted[1] / size[1]
        canvas = np.full((self.input_size[1], self.input_size[0], 3), self.pad, np.uint8)
        for view in views:
            _paint(view.moved(factor, (0, 0), fitted), canvas)
        return torch.from_numpy(canvas).permute(2, 0, 1).contiguous()

    def empty(self, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """Return features (C, H/stride, W/stride) and masks (1, ...) of a sample without RGB."""
        cells = [(size[0] // s, size[1] // s) for s in STRIDES]
        return ([torch.zeros(shape[0], *c, dtype=torch.half)
                 for shape, c in zip(self.shapes, cells)],
                [torch.zeros(1, *c, dtype=torch.half) for c in cells])

    def lay_out(
        self, view: View, features: list[Tensor], laid: list[Tensor], masks: list[Tensor],
    ) -> None:
        """
        Lay the features of a view's picture onto the cells of the sample that shows it, bilinear.

        features: P3, P4, P5 (C, h, w) of the picture. laid (C, H/stride, W/stride) and masks (1,
        H/stride, W/stride) of the sample are written where the view is, masks with 1.
        """
        fitted = self._fitted(view.size)
        for level, onto, mask, stride in zip(features, laid, masks, STRIDES):
            columns, rows = (_cells(view.region, axis, stride) for axis in (0, 1))
            if columns and rows:
                seen = self._look(view, level[None].float(), columns, rows, stride, fitted)[0]
                at = (slice(None), slice(rows.start, rows.stop),
                      slice(columns.start, columns.stop))
                onto[at], mask[at] = seen.to(onto.dtype), 1

    def lay_out_samples(
        self, shown: list[tuple[int, list[View]]], features: list[Tensor], count: int,
        size: tuple[int, int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """
        Lay the features of what `pixels` gave of samples onto the samples' cells, bilinearly.

        shown: V pairs of a sample's number, below `count`, and its views; features: P3, P4, P5 (V,
        C, h, w), finite. Returns, per level, features (count, C, H/stride, W/stride) of samples of
        `size` = (W, H), 0 where no view is, and masks (count, 1, H/stride, W/stride), 1 where one
        is.
        """
        whole = View(Path(), size, size, (0, 0), (0, 0, *size))
        fitted = self._fitted(size)
        laid, masks = [], []
        for level, stride in zip(features, STRIDES):
            columns, rows = (_cells(whole.region, axis, stride) for axis in (0, 1))
            mask = torch.zeros(count, 1, len(rows), len(columns))
            for n, views in shown:
                for view in views:
                    x, y = (_cells(view.region, axis, stride) for axis in (0, 1))
                    mask[n, :, y.start:y.stop, x.start:x.stop] = 1
            masks.append(mask.to(level.device))
            onto = level.new_zeros(count, level.shape[1], len(rows), len(columns))
            onto[[n for n, _ in shown]] = self._look(whole, level, columns, rows, stride, fitted)
            laid.append(onto * masks[-1])
        return laid, masks

    def _look(
        self, view: View, features: Tensor, columns: range, rows: range, stride: int,
        fitted: tuple[int, int],
    ) -> Tensor:
        """Return what features (N, C, h, w) of a view's picture say of cells of the sample."""
        places = []  # -1 to 1, of the features
        for axis, cells in enumerate((columns, rows)):
            at = (torch.arange(cells.start, cells.stop) + 0.5) * stride
            share = (at - view.offset[axis]) / view.scale[axis]  # of the picture
            place = share * fitted[axis] / stride - self.offset + 0.5  # in teacher's cells
            places.append(2 * place / (self.input_size[axis] // stride) - 1)
        grid = torch.stack(torch.meshgrid(*places, indexing='xy'), -1).to(features.device)
        return functional.grid_sample(
            features, grid.expand(len(features), -1, -1, -1), padding_mode='border',
            align_corners=False)

    def _sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    def _fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        return Letterbox(size, self.input_size).fitted

    def _path(self, view: View) -> Path:
        assert self.cache is not None
        state, (width, height) = view.picture.stat(), self._fitted(view.size)
        name = f'{view.picture.resolve()} {state.st_size} {state.st_mtime_ns} {width}x{height}'
        if view.thermal:
            name += f' {AS_A_PICTURE.to_dict()}'
        return self.cache / f'{hashlib.sha256(name.encode()).hexdigest()[:24]}.f16'


def _cells(region: tuple[float, float, float, float], axis: int, stride: int) -> range:
    """Return the columns (axis 0) or rows (1) of cells whose center lies in a region."""
    return range(*(math.ceil(v / stride - 0.5) for v in (region[axis], region[axis + 2])))


def _paint(view: View, canvas: NDArray[np.uint8]) -> None:
    """Draw a view's picture onto the sample (H, W, 3) that shows it, edges to whole pixels."""
    ends = [sorted((round(o), round(o + s))) for o, s in zip(view.offset, view.scale)]
    (left, right), (top, bottom) = ends
    x1, y1, x2, y2 = (round(v) for v in view.region)
    x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    if x1 >= x2 or y1 >= y2:
        return
    # Registered means: of the thermal frame's shape, whatever its own number of pixels.
    if view.thermal:
        frame = normalize(read_thermal(view.picture), AS_A_PICTURE)
        picture = np.rint(frame * 255).astype(np.uint8)
    else:
        picture = read_rgb(view.picture)
    sized = np.empty((bottom - top, right - left, *picture.shape[2:]), np.uint8)
    resize(picture, sized)
    sized = sized.reshape(*sized.shape[:2], -1)[:, ::-1 if view.scale[0] < 0 else 1]
    canvas[y1:y2, x1:x2] = sized[y1 - top:y2 - top, x1 - left:x2 - left]


def batch_teacher(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Stack what the teacher shows of a batch: {} where it shows nothing.

    Either `teacher_features` and `teacher_masks`, per level (N, C, H/stride, W/stride) and (N, 1,
    H/stride, W/stride) float16; or, without a cache, `teacher_pixels` (V, 3, H, W) uint8 of the
    V samples that show something and `teacher_views`, V pairs of a sample's number and its views.
    """
    shown = [(n, s['views']) for n, s in enumerate(samples) if 'teacher' in s and s['views']]
    if not shown:
        return {}
    content = [s['teacher'] for s in samples]
    if isinstance(content[0], tuple):
        features, masks = ([torch.stack(level) for level in zip(*part)] for part in zip(*content))
        return {'teacher_features': features, 'teacher_masks': masks}
    return {'teacher_pixels': torch.stack([content[n] for n, _ in shown]), 'teacher_views': shown}
