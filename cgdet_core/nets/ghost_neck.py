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

"""The neck of NanoDet-Plus: top-down and bottom-up paths of ghost blocks."""

from cgdet_core.nets.blocks import conv_norm_act
import torch
from torch import nn, Tensor
from torch.nn import functional


class Ghost(nn.Module):
    """Compute half of the channels by a 1x1 convolution, half from those (arXiv 1911.11907)."""

    def __init__(self, c_in: int, c_out: int, act: bool) -> None:
        super().__init__()
        half = c_out // 2
        self.primary = nn.Sequential(*conv_norm_act(c_in, half, act=act))
        self.cheap = nn.Sequential(*conv_norm_act(half, half, 3, groups=half, act=act))

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


class GhostBottleneck(nn.Module):
    """Two ghost modules beside a depthwise shortcut."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.ghosts = nn.Sequential(Ghost(c_in, c_out, True), Ghost(c_out, c_out, False))
        self.shortcut = nn.Sequential(*conv_norm_act(c_in, c_in, 5, groups=c_in, act=False),
                                      *conv_norm_act(c_in, c_out, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.ghosts(x) + self.shortcut(x)


class GhostPathAggregation(nn.Module):
    """
    Feature pyramid of ghost blocks (NanoDet-Plus's Ghost-PAN, Apache-2.0; written by us).

    Input C3, C4, C5; output P3, P4, P5 of `channels` width at the same strides.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(*conv_norm_act(c, channels)) for c in in_channels)
        self.top_down = nn.ModuleList(
            GhostBottleneck(2 * channels, channels) for _ in in_channels[1:])
        self.down = nn.ModuleList(
            nn.Sequential(*conv_norm_act(channels, channels, 5, 2, channels),
                          *conv_norm_act(channels, channels)) for _ in in_channels[1:])
        self.bottom_up = nn.ModuleList(
            GhostBottleneck(2 * channels, channels) for _ in in_channels[1:])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.lateral, features)]
        for i in reversed(range(len(levels) - 1)):
            upper = functional.interpolate(
                levels[i + 1], scale_factor=2.0, mode='bilinear', align_corners=False)
            levels[i] = self.top_down[i](torch.cat([upper, levels[i]], 1))
        for i in range(len(levels) - 1):
            levels[i + 1] = self.bottom_up[i](
                torch.cat([self.down[i](levels[i]), levels[i + 1]], 1))
        return levels
