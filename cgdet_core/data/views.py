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
from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.runtime.card import write_atomically
from cgdet_core.runtime.frames import read_rgb
from cgdet_core.runtime.geometry import Letterbox, resize
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class View(NamedTuple):
    """
    Place an RGB picture in a sample.

    The point (u, v) of the picture, each in [0, 1], lies at (scale * (u, v) + offset) pixels of
    the sample, and only `region` (x1, y1, x2, y2) of the sample shows it. A negative scale is
    a mirrored picture.
    """

    rgb: Path
    size: tuple[int, int]  # of the thermal frame, width and height
    scale: tuple[float, float]
    offset: tuple[float, float]
    region: tuple[float, float, float, float]

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
    Read what a teacher needs of a picture: its features from the cache, or else its pixels.

    The cache is a folder with a float16 file per picture, which the operating system keeps in
    memory; nothing is read twice from the disk, whatever the number of workers.
    """

    def __init__(
        self, input_size: tuple[int, int], pad: int, channels: tuple[int, ...],
        cache: Path | None,
    ) -> None:
        self.input_size = input_size
        self.pad = pad
        self.cache = cache
        width, height = input_size
        self._shapes = [(c, height // s, width // s) for c, s in zip(channels, (8, 16, 32))]

    def read(self, view: View) -> dict[str, Any]:
        """
        Give what is there of a view's picture.

        Either {'features': [P3, P4, P5]} of (C, h, w) float16, or {'pixels': (3, H, W) uint8};
        and 'share', the part of the input's width and height that the picture fills.
        """
        width, height = Letterbox(view.size, self.input_size).fitted
        share = width / self.input_size[0], height / self.input_size[1]
        if self.cache is not None and (path := self._path(view)).is_file():
            flat = np.fromfile(path, np.float16)
            sizes = [int(np.prod(s)) for s in self._shapes]
            if len(flat) == sum(sizes):
                parts = np.split(flat, np.cumsum(sizes)[:-1])
                return {'share': share, 'features': [
                    torch.from_numpy(p.reshape(s)) for p, s in zip(parts, self._shapes)]}
        canvas = np.full((self.input_size[1], self.input_size[0], 3), self.pad, np.uint8)
        # Registered means: of the thermal frame's shape, whatever its own number of pixels.
        resize(read_rgb(view.rgb), canvas[:height, :width])
        return {'share': share, 'pixels': torch.from_numpy(canvas).permute(2, 0, 1).contiguous()}

    def write(self, view: View, features: list[Tensor]) -> None:
        """Keep the features (C, h, w) of a view's picture, where there is a cache."""
        if self.cache is not None:
            flat = torch.cat([x.detach().cpu().half().flatten() for x in features])
            write_atomically(self._path(view), flat.numpy().tobytes())

    def _path(self, view: View) -> Path:
        assert self.cache is not None
        state = view.rgb.stat()
        name = f'{view.rgb.resolve()} {state.st_size} {state.st_mtime_ns} {view.size}'
        return self.cache / f'{hashlib.sha256(name.encode()).hexdigest()[:24]}.f16'


def batch_views(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Stack the views of a batch: {} without any.

    views (V, 11): index of the sample, scale, offset, region, and the picture's share of
    the teacher's input; inputs: V results of TeacherInput.read; sources: V views, to write to.
    """
    pairs = [(n, view, content) for n, sample in enumerate(samples)
             for view, content in zip(sample['views'], sample.get('teacher', ()))]
    if not pairs:
        return {}
    return {
        'views': torch.tensor([(n, *view.scale, *view.offset, *view.region, *content['share'])
                               for n, view, content in pairs]),
        'inputs': [{k: v for k, v in content.items() if k != 'share'} for _, _, content in pairs],
        'sources': [view for _, view, _ in pairs]}


def lay_out(
    features: Tensor, views: Tensor, count: int, size: tuple[int, int], stride: int,
) -> tuple[Tensor, Tensor]:
    """
    Lay a teacher's features onto the cells of the samples that show its pictures.

    features (V, C, h, w) of one level; views as `batch_views` stacks them; count: samples of the
    batch; size (height, width) of the samples in pixels. Returns features (count, C, H/stride,
    W/stride), bilinear, and the mask (count, 1, H/stride, W/stride), 1 where they are real.
    """
    height, width = size[0] // stride, size[1] // stride
    index = views[:, 0].long()
    scale, offset, region, share = (
        views[:, 1:3], views[:, 3:5], views[:, 5:9], views[:, 9:11])
    x = (torch.arange(width, device=views.device) + 0.5) * stride
    y = (torch.arange(height, device=views.device) + 0.5) * stride
    u = (x[None] - offset[:, :1]) / scale[:, :1]  # (V, width), in the picture
    v = (y[None] - offset[:, 1:]) / scale[:, 1:]
    inside_x = (x >= region[:, :1]) & (x < region[:, 2:3]) & (u >= 0) & (u <= 1)
    inside_y = (y >= region[:, 1:2]) & (y < region[:, 3:]) & (v >= 0) & (v <= 1)
    mask = (inside_y[:, None, :, None] & inside_x[:, None, None]).to(features.dtype)
    grid = torch.stack([
        (2 * u * share[:, :1] - 1)[:, None].expand(-1, height, -1),
        (2 * v * share[:, 1:] - 1)[:, :, None].expand(-1, -1, width)], -1)
    seen = functional.grid_sample(
        features, grid.to(features.dtype), padding_mode='border', align_corners=False) * mask
    laid = features.new_zeros(count, features.shape[1], height, width).index_add(0, index, seen)
    return laid, mask.new_zeros(count, 1, height, width).index_add(0, index, mask)
