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

"""Layout: map a teacher's features to the cells of the samples."""

import math
from pathlib import Path

from cgdet_core.distillation.views import paint, View
from cgdet_core.nets.pyramid import STRIDES
from cgdet_core.runtime.imaging.geometry import Letterbox
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class Layout:
    """
    Map a teacher's pixels and features to the cells of a sample.

    Sizes are (width, height). `pad` is the gray level of the letterbox's padding; `offset` is the
    position within its cell, from 0 to 1, that a feature represents.
    """

    def __init__(self, input_size: tuple[int, int], pad: int, channels: tuple[int, ...],
                 offset: float = 0.5) -> None:
        self.input_size = input_size
        self.pad = pad
        self.offset = offset
        width, height = input_size
        self.shapes = [(c, height // s, width // s) for c, s in zip(channels, STRIDES)]

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a picture within the teacher's input."""
        return Letterbox(size, self.input_size).fitted

    def covered(self, view: View, features: list[Tensor]) -> list[Tensor]:
        """Return the part of features P3, P4, P5 (C, h, w) that a whole picture covers."""
        region = 0, 0, *self.fitted(view.size)
        return [level[:, :max(1, len(_cells(region, 1, s))), :max(1, len(_cells(region, 0, s)))]
                for level, s in zip(features, STRIDES)]

    def show(self, views: list[View], size: tuple[int, int]) -> Tensor | None:
        """Return the teacher's input for a sample (a Reader), or None if it shows no picture."""
        return self.pixels(views, size) if views else None

    def pixels(self, views: list[View], size: tuple[int, int]) -> Tensor:
        """
        Paint the views of a sample of `size` into the teacher's input.

        Returns (3, H, W) uint8, RGB, the sample letterboxed, `pad` where it shows no picture; the
        edges of pictures are accurate to half a pixel.
        """
        fitted = self.fitted(size)
        factor = fitted[0] / size[0], fitted[1] / size[1]
        canvas = np.full((self.input_size[1], self.input_size[0], 3), self.pad, np.uint8)
        for view in views:
            paint(view.moved(factor, (0, 0), fitted), canvas)
        return torch.from_numpy(canvas).permute(2, 0, 1).contiguous()

    def empty(self, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """Return features (C, H/stride, W/stride) and masks (1, ...) of a sample without RGB."""
        cells = [(size[1] // s, size[0] // s) for s in STRIDES]
        widths = [shape[0] for shape in self.shapes]
        features = [torch.zeros(w, *c, dtype=torch.half) for w, c in zip(widths, cells)]
        return features, [torch.zeros(1, *c, dtype=torch.half) for c in cells]

    def lay_out(self, view: View, features: list[Tensor], laid: list[Tensor],
                masks: list[Tensor]) -> None:
        """
        Map the features of a view's picture to the cells of the sample that shows it, bilinearly.

        features: P3, P4, P5 (C, h, w) of the picture. laid (C, H/stride, W/stride) and masks (1,
        H/stride, W/stride) of the sample are written where the view is, masks with 1.
        """
        fitted = self.fitted(view.size)
        for level, onto, mask, stride in zip(features, laid, masks, STRIDES):
            columns, rows = (_cells(view.region, axis, stride) for axis in (0, 1))
            if columns and rows:
                seen = self._look(view, level[None].float(), columns, rows, stride, fitted)[0]
                at = ..., slice(rows.start, rows.stop), slice(columns.start, columns.stop)
                onto[at], mask[at] = seen.to(onto.dtype), 1

    def lay_out_samples(self, shown: list[tuple[int, list[View]]], features: list[Tensor],
                        count: int, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """
        Map the teacher's features of painted samples to the samples' cells, bilinearly.

        shown: V pairs (number of the sample, its views), numbers below `count`; features: P3, P4,
        P5 (V, C, h, w), finite, of what `pixels` returned. Returns, per level, features (count, C,
        H/stride, W/stride) of samples of `size` = (W, H), 0 outside of views, and masks (count, 1,
        H/stride, W/stride), 1 inside.
        """
        whole = View.whole(Path(), size)
        fitted = self.fitted(size)
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

    def _look(self, view: View, features: Tensor, columns: range, rows: range, stride: int,
              fitted: tuple[int, int]) -> Tensor:
        """Return the features (N, C, h, w) of a view's picture, sampled at cells of the sample."""
        places = []  # in the features, from -1 to 1
        for axis, cells in enumerate((columns, rows)):
            at = (torch.arange(cells.start, cells.stop) + 0.5) * stride
            share = (at - view.offset[axis]) / view.scale[axis]  # of the picture
            place = share * fitted[axis] / stride - self.offset + 0.5  # in the teacher's cells
            places.append(2 * place / (self.input_size[axis] // stride) - 1)
        grid = torch.stack(torch.meshgrid(*places, indexing='xy'), -1).to(features.device)
        return functional.grid_sample(
            features, grid.expand(len(features), -1, -1, -1), padding_mode='border',
            align_corners=False)


def _cells(region: tuple[float, float, float, float], axis: int, stride: int) -> range:
    """Return the columns (axis 0) or rows (1) of cells whose center is in a region."""
    return range(*(math.ceil(v / stride - 0.5) for v in (region[axis], region[axis + 2])))
