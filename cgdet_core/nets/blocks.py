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

"""Convolution blocks shared by trunk, neck and heads."""

from itertools import pairwise

import torch
from torch import nn, Tensor


class ConvBlock(nn.Module):
    """
    Convolve, batch-normalize and rectify.

    ReLU, not SiLU: it fuses into the convolution in ONNX Runtime and TensorRT and quantizes
    without a lookup.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.03)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with an optional identity shortcut (He et al., 2016)."""

    def __init__(self, channels: int, shortcut: bool = True) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels)
        self.conv2 = ConvBlock(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPBlock(nn.Module):
    """
    Split, transform one half step by step, concatenate every step, and mix.

    Cross-stage partial connections (CSPNet, arXiv 1911.11929) with the aggregation of all
    intermediate features (ELAN, arXiv 2211.04800): short gradient paths for few parameters.
    """

    def __init__(self, c_in: int, c_out: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        hidden = c_out // 2
        self.split = ConvBlock(c_in, 2 * hidden, 1)
        self.blocks = nn.ModuleList(Bottleneck(hidden, shortcut) for _ in range(depth))
        self.merge = ConvBlock((2 + depth) * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.merge(torch.cat(parts, 1))


class SpatialPyramidPooling(nn.Module):
    """Max-pool 5, 9 and 13 cells (arXiv 1406.4729) by chained 5x5 pools, which cost less."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvBlock(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.merge = ConvBlock(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.merge(torch.cat(parts, 1))


def fold_norms(network: nn.Module) -> None:
    """
    Fold every batch normalization into the convolution before it (in place, evaluation only).

    In each of our modules, a normalization that follows a convolution normalizes its output.
    """
    for module in network.modules():
        for (name, conv), (after, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval()))
                setattr(module, after, nn.Identity())
