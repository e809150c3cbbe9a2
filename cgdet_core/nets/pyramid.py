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

"""Feature pyramid: the trunk and neck, with which the networks of all tasks begin."""

from collections.abc import Callable
from functools import partial

from cgdet_core.nets.blocks import ConvBlock, CSPBlock
from cgdet_core.nets.config import PyramidConfig
from cgdet_core.nets.csp_trunk import CSPTrunk
from cgdet_core.nets.efficientnet_trunk import EfficientNetTrunk
from cgdet_core.nets.ghost_neck import GhostPathAggregation
from cgdet_core.nets.shufflenet_trunk import ShuffleNetTrunk
from cgdet_core.nets.torchvision_trunk import PARTS, TorchvisionTrunk
from cgdet_core.nets.trunk import Trunk
import torch
from torch import nn, Tensor

STRIDES = (8, 16, 32)  # of P3, P4, P5


def _of_torchvision(name: str, config: PyramidConfig) -> Trunk:
    return TorchvisionTrunk(config.in_channels, name)


# By the name in a recipe's model.trunk; a new one is a file, a line here and its name in `config`.
# `csp` is ours and takes its sizes from the recipe; the others have those of pretrained weights.
TRUNKS: dict[str, Callable[[PyramidConfig], Trunk]] = {
    'csp': lambda c: CSPTrunk(c.in_channels, c.channels, c.depths),
    'efficientnet_lite0': lambda c: EfficientNetTrunk(c.in_channels),
    'shufflenet_v2': lambda c: ShuffleNetTrunk(c.in_channels),
    **{name: partial(_of_torchvision, name) for name in PARTS},
}


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
        self.down = nn.ModuleList(ConvBlock(channels, channels, 3, 2) for _ in in_channels[1:])
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


NECKS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    'pan': PathAggregation, 'ghost': GhostPathAggregation}


class FeaturePyramid(nn.Module):
    """Trunk and neck, named `backbone` and `neck` in checkpoints; images are in [0, 1]."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = TRUNKS[config.trunk](config)
        self.neck = NECKS[config.neck](self.backbone.widths, config.neck_channels)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Map (N, in_channels, H, W) to P3, P4, P5, (N, neck_channels, H/stride, W/stride)."""
        return self.neck(self.backbone(images))
