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
from typing import Annotated, Any, Literal

from cgdet_core.nets.blocks import ConvBlock, CSPBlock
from cgdet_core.nets.csp_trunk import CSPTrunk
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer
import torch
from torch import nn, Tensor

STRIDES = (8, 16, 32)  # of P3, P4, P5
Width = Annotated[int, Field(ge=2, multiple_of=2)]

# By the name in a recipe's model.trunk. A trunk is built from in_channels, channels and depths and
# returns C3, C4, C5 of the widths channels[1:]; a new one is a file and a line here.
TRUNKS: dict[str, Callable[[int, tuple[int, ...], tuple[int, ...]], nn.Module]] = {'csp': CSPTrunk}


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


class PyramidConfig(BaseModel):
    """The sizes of trunk and neck."""

    model_config = ConfigDict(extra='forbid', frozen=True)
    in_channels: Literal[1, 3] = 1  # 3: RGB images, for a teacher
    trunk: str = 'csp'
    channels: tuple[Width, Width, Width, Width] = (32, 64, 128, 256)
    depths: tuple[int, int, int, int] = (1, 2, 2, 2)
    neck_channels: Width = 96

    @field_validator('trunk')
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in TRUNKS:
            raise ValueError(f'must be one of {", ".join(TRUNKS)}')
        return value

    @model_serializer(mode='wrap')
    def _as_before_trunks(self, serialize: Callable[[Any], Any]) -> dict[str, Any]:
        """Omit the default trunk: runs and hashes from before there were others lack the key."""
        return {k: v for k, v in serialize(self).items() if (k, v) != ('trunk', 'csp')}


class FeaturePyramid(nn.Module):
    """Trunk and neck, named `backbone` and `neck` in checkpoints; images are in [0, 1]."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = TRUNKS[config.trunk](config.in_channels, config.channels, config.depths)
        self.neck = PathAggregation(config.channels[1:], config.neck_channels)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Map (N, in_channels, H, W) to P3, P4, P5, (N, neck_channels, H/stride, W/stride)."""
        return self.neck(self.backbone(images))
