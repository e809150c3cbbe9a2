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

"""What a trunk is, and how weights that were trained on RGB begin one that sees thermal."""

from collections.abc import Sequence
from typing import NamedTuple

from cgdet_core.errors import UserError
import torch
from torch import nn, Tensor


class Origin(NamedTuple):
    """Where starting weights come from, for the model card and NOTICE."""

    name: str
    source: str
    license: str
    data: str  # that they were trained on


class Trunk(nn.Module):
    """
    Compute C3, C4, C5 of an image; every trunk derives from this.

    Input (N, in_channels, H, W) in [0, 1], H and W multiples of 32; output C3, C4, C5 of shapes
    (N, widths[0], H/8, W/8), (N, widths[1], H/16, W/16), (N, widths[2], H/32, W/32).
    """

    in_channels: int
    widths: tuple[int, int, int]
    stem: nn.Module
    stages: nn.ModuleList
    origin: Origin | None = None  # of the weights that load_pretrained loads

    def outputs(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the stages, from which `forward` chooses."""
        found = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def load_pretrained(self) -> None:
        """Load weights that others trained; UserError if there are none or they are missing."""
        raise UserError(f'The trunk {type(self).__name__} has no pretrained weights; '
                        'train it from the start (optim.init: null) or choose another trunk.')


class Norm(NamedTuple):
    """How RGB images in [0, 1] were normalized: (x - mean) / std for each channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Norm((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def fold_input(weight: Tensor, norm: Norm, in_channels: int) -> tuple[Tensor, Tensor]:
    """
    Return weight and bias of a first convolution that reads images in [0, 1] themselves.

    weight: (C_out, 3, k, k), of images that `norm` normalized. With in_channels 1 a gray image
    stands for three equal channels, and their weights are added up. Equal everywhere but at
    the border, where padding is black instead of the mean color.
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in norm)
    weight = weight.float() / std
    bias = -(weight * mean).sum((1, 2, 3))
    return (weight.sum(1, keepdim=True) if in_channels == 1 else weight), bias


def gray_as_color(gray: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """
    Return weights of a network of RGB images that sees them in gray, as the one of `gray` does.

    own: the weights of the network of RGB images. A gray picture has the same value in each of
    the first convolution's three channels.
    """
    return {name: value if value.shape == own[name].shape else value.expand_as(own[name]) / 3
            for name, value in gray.items()}


def load_matching(module: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Load weights by name; UserError if one is missing or has another shape."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f'The weights of {origin} are those of another trunk: {reason}') from None


def adopt(trunk: Trunk, pretrained: Trunk, norm: Norm) -> None:
    """Copy the weights of a trunk of images that `norm` normalized; it begins with a BatchNorm."""
    values = pretrained.state_dict()
    first = next(name for name, value in values.items() if value.ndim == 4)
    mean = next(name for name in values if name.endswith('running_mean'))
    values[first], bias = fold_input(values[first], norm, trunk.in_channels)
    values[mean] = values[mean] - bias
    trunk.load_state_dict(values)


def freeze(trunk: Trunk, stages: int, norms_of: Sequence[nn.Module]) -> list[nn.Module]:
    """
    Freeze the stem and so many stages of a trunk; return what is to run in evaluation.

    norms_of: parts whose normalization layers also keep their statistics; their weights and
    biases are trained.
    """
    frozen: list[nn.Module] = []
    if stages > len(trunk.stages):
        raise UserError(f'The trunk has {len(trunk.stages)} stages; lower optim.frozen_stages.')
    if stages:
        frozen = [trunk.stem, *trunk.stages[:stages]]
        for part in frozen:
            part.requires_grad_(False)
    return frozen + [m for part in norms_of for m in part.modules()
                     if isinstance(m, nn.BatchNorm2d)]
