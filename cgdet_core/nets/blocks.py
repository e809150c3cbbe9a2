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

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

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


def conv_norm_act(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1,
                  act: bool = True) -> list[nn.Module]:
    """Return a convolution, its normalization and a LeakyReLU, as NanoDet has them."""
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out)]
    return [*layers, nn.LeakyReLU(0.1, inplace=True)] if act else layers


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


class Normalized(NamedTuple):
    """A convolution and the normalization of its output, by their names in their parent."""

    parent: nn.Module
    name: str
    conv: nn.Conv2d
    after: str
    norm: nn.BatchNorm2d


def normalized(network: nn.Module) -> list[Normalized]:
    """
    Return every convolution with the batch normalization of its output.

    In each of our modules, a normalization that follows a convolution normalizes its output.
    """
    return [Normalized(module, name, conv, after, norm) for module in network.modules()
            for (name, conv), (after, norm) in pairwise(list(module.named_children()))
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)]


def fold_norms(network: nn.Module) -> None:
    """Fold every batch normalization into its convolution (in place, evaluation only)."""
    for parent, name, conv, after, norm in normalized(network):
        setattr(parent, name, nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval()))
        setattr(parent, after, nn.Identity())


@torch.no_grad()
def set_folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, weight: Tensor, bias: Tensor) -> None:
    """Set the weights of a convolution with its normalization folded: ours only adds the bias."""
    conv.weight.copy_(weight)
    nn.init.ones_(norm.weight)
    norm.bias.copy_(bias)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)


@torch.no_grad()
def restore_norms(
    parts: Sequence[nn.Module], run: Callable[[Tensor], object], images: Tensor,
) -> None:
    """
    Let the normalization layers of `parts` normalize by what they see in `images`, and undo it.

    run: the network that the parts are of. Its outputs in evaluation stay, but in training the
    layers now normalize: folded weights of a deployed network can be trained like those of one
    that never was.
    """
    seen: dict[nn.BatchNorm2d, tuple[Tensor, Tensor]] = {}

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        seen[norm] = (inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3)))

    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [n.register_forward_pre_hook(measure) for n in norms]  # type: ignore[arg-type]
    for part in parts:
        part.eval()
    run(images)
    for part in parts:
        part.train()
    for hook in hooks:
        hook.remove()
    for norm, (mean, var) in seen.items():
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_((mean - norm.running_mean) * scale)
        norm.weight.copy_(scale * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
