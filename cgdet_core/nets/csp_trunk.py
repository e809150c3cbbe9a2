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

"""The CSP trunk: features of a thermal or RGB image at strides 8, 16 and 32."""

from cgdet_core.nets.blocks import ConvBlock, CSPBlock, SpatialPyramidPooling
from cgdet_core.nets.trunk import Trunk
from torch import nn, Tensor


class CSPTrunk(Trunk):
    """
    Plain convolution stem and four CSP stages.

    Input (N, in_channels, H, W) in [0, 1], H and W multiples of 32; output C3, C4, C5 of
    shapes (N, channels[1], H/8, W/8), (N, channels[2], H/16, W/16), (N, channels[3], H/32, W/32).
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...],
                 depths: tuple[int, ...]) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.widths = (channels[1], channels[2], channels[3])
        self.stem = ConvBlock(in_channels, channels[0] // 2, 3, 2)
        widths = (channels[0] // 2, *channels)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvBlock(c_in, c_out, 3, 2), CSPBlock(c_out, c_out, depth))
            for c_in, c_out, depth in zip(widths, channels, depths))
        self.context = SpatialPyramidPooling(channels[-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        _, c3, c4, last = self.outputs(x)
        return [c3, c4, self.context(last)]
