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

"""Decoupled anchor-free head and the decoding of its box distributions."""

import copy
import math

from cgdet_core.nets.blocks import ConvBlock
from cgdet_core.nets.pyramid import STRIDES
import torch
from torch import nn, Tensor


class DecoupledHead(nn.Module):
    """
    Predict class logits and box distributions per cell.

    Separate towers for class and box (FCOS, arXiv 1904.01355; YOLOX, arXiv 2107.08430). The
    distance to each side is a distribution over `bins` integers in units of the level's
    stride (Generalized Focal Loss, arXiv 2006.04388). One set of weights serves all levels, as
    data sets are small. Levels differ in their statistics, so each has its own normalization and
    scale through a 1x1 convolution before the towers.

    Input P3, P4, P5 (N, C, H_l, W_l); output logits (N, A, num_classes) and distributions
    (N, A, 4, bins), A = cells of all levels, P3 first, row by row.

    one_to_one: a second class tower learns to score one cell of each object only, from features
    that it does not change (dual assignment, YOLOv10, arXiv 2405.14458). It replaces the other in
    the deployed form, whose boxes then need no suppression, at the same cost.
    """

    def __init__(
        self, num_classes: int, c_in: int, channels: int, bins: int, depth: int = 2,
        one_to_one: bool = False,
    ) -> None:
        super().__init__()
        self.bins = bins
        self.adapt = nn.ModuleList(ConvBlock(c_in, channels, 1) for _ in STRIDES)
        self.cls_tower = nn.Sequential(*(ConvBlock(channels, channels) for _ in range(depth)))
        self.box_tower = nn.Sequential(*(ConvBlock(channels, channels) for _ in range(depth)))
        self.cls_out = nn.Conv2d(channels, num_classes, 1)
        self.box_out = nn.Conv2d(channels, 4 * bins, 1)
        # Every class starts at a probability of 0.01, every distance at the middle bin.
        for layer, bias in ((self.cls_out, -math.log((1 - 0.01) / 0.01)), (self.box_out, 0.0)):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)
        nn.init.zeros_(self.box_out.weight)
        self.dual = one_to_one
        if one_to_one:
            self.one_tower = copy.deepcopy(self.cls_tower)
            self.one_out = copy.deepcopy(self.cls_out)

    def forward(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        return self._outputs(self._adapted(pyramid))

    def both(self, pyramid: list[Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return what `forward` returns, and the second tower's logits (N, A, num_classes)."""
        levels = self._adapted(pyramid)
        logits = [self.one_out(self.one_tower(x.detach())).flatten(2) for x in levels]
        return self._outputs(levels), torch.cat(logits, 2).transpose(1, 2)

    def _adapted(self, pyramid: list[Tensor]) -> list[Tensor]:
        return [adapt(level) for adapt, level in zip(self.adapt, pyramid)]

    def _outputs(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        logits = [self.cls_out(self.cls_tower(x)).flatten(2) for x in levels]
        distributions = [self.box_out(self.box_tower(x)).flatten(2) for x in levels]
        return (torch.cat(logits, 2).transpose(1, 2),
                torch.cat(distributions, 2).transpose(1, 2).unflatten(2, (4, self.bins)))

    def keep_one_to_one(self) -> None:
        """Replace the class tower by the second one, if there is one, in place."""
        if self.dual:
            self.cls_tower, self.cls_out, self.dual = self.one_tower, self.one_out, False
            del self.one_tower, self.one_out


def cell_centers(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return float32 centers (A, 2), x, y in input pixels, and strides (A, 1), P3 first."""
    centers, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(height // stride, device=device),
            torch.arange(width // stride, device=device), indexing='ij')
        centers.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((x.numel(), 1), float(stride), device=device))
    return torch.cat(centers), torch.cat(strides)


def decode_boxes(distributions: Tensor, centers: Tensor, strides: Tensor) -> Tensor:
    """
    Turn box distributions into corner boxes.

    distance = stride * sum_k k softmax(d)_k (GFL eq. 4); distributions (N, A, 4, bins) in the
    order left, top, right, bottom; returns (N, A, 4) x1, y1, x2, y2 in input pixels.
    """
    bins = distributions.shape[-1]
    project = torch.arange(bins, dtype=distributions.dtype, device=distributions.device)
    distances = (distributions.softmax(-1) * project).sum(-1) * strides
    left_top, right_bottom = distances.chunk(2, -1)
    return torch.cat([centers - left_top, centers + right_bottom], -1)
