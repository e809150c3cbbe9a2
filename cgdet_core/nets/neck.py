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

"""Neck: mix the trunk's levels into a pyramid of equal width."""

from cgdet_core.nets.blocks import ConvBlock, CSPBlock
import torch
from torch import nn, Tensor

STRIDES = (8, 16, 32)  # of P3, P4, P5


class PathAggregation(nn.Module):
    """
    Top-down then bottom-up feature pyramid (FPN, arXiv 1612.03144; PANet, arXiv 1803.01534).

    Input C3, C4, C5; output P3, P4, P5 at the same strides, all of `channels` width, which
    lets one head serve all levels and makes guidance adapters (CMG) alike.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvBlock(c, channels, 1) for c in in_channels)
        self.top_down = nn.ModuleList(
            CSPBlock(2 * channels, channels, 1, shortcut=False) for _ in in_channels[1:])
        self.down = nn.ModuleList(
            ConvBlock(channels, channels, 3, 2) for _ in in_channels[1:])
        self.bottom_up = nn.ModuleList(
            CSPBlock(2 * channels, channels, 1, shortcut=False) for _ in in_channels[1:])
        self.upsample = nn.Upsample(scale_factor=2, mode='nearest')

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.lateral, features)]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = self.top_down[i](torch.cat([levels[i], self.upsample(levels[i + 1])], 1))
        for i in range(len(levels) - 1):
            levels[i + 1] = self.bottom_up[i](
                torch.cat([levels[i + 1], self.down[i](levels[i])], 1))
        return levels
