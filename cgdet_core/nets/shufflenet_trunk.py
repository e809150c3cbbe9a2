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

"""ShuffleNetV2 1.0x (arXiv 1807.11164) as in NanoDet, computed without shuffling channels."""

from typing import NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.nets.blocks import conv_norm_act
from cgdet_core.nets.trunk import Trunk
import torch
from torch import nn, Tensor

STEM = 24  # channels
WIDTHS, UNITS = (116, 232, 464), (4, 8, 4)  # of the three stages


class ChannelOrder(NamedTuple):
    """The original's channels that a convolution writes and reads, in our order."""

    written: list[int]
    read: list[int]  # [0] of a depthwise convolution


class Stage(nn.Module):
    """
    A unit that halves the resolution, and others that pass half of their channels on.

    The original's units read the second half of their channels, join their result to the first,
    and shuffle both. So each channel waits, unchanged, for a unit that is known beforehand. Here,
    a result has its channels in the order of who reads them and is split once, and a unit's
    channels are joined from what waits for it: the same network, without transposing or copying
    what is passed on.
    """

    def __init__(self, c_in: int, width: int, units: int) -> None:
        super().__init__()
        half = width // 2
        self.shortcut = nn.Sequential(
            *conv_norm_act(c_in, c_in, 3, 2, c_in, act=False), *conv_norm_act(c_in, half))
        self.units = nn.ModuleList(nn.Sequential(
            *conv_norm_act(half if i else c_in, half),
            *conv_norm_act(half, half, 3, 1 if i else 2, half, act=False),
            *conv_norm_act(half, half)) for i in range(units))
        self.readers = _readers(half, units)
        # How many channels of a result, the shortcut's or a unit's, each of its readers reads.
        results = [[result for result, _ in read] for read in self.readers]
        self.sizes = [{reader: read.count(result) for reader, read in enumerate(results)
                       if result in read} for result in range(units + 1)]

    def forward(self, x: Tensor) -> Tensor:
        waiting: list[list[Tensor]] = [[] for _ in self.readers]
        parts = (self.shortcut, *self.units)
        for result, (part, sizes) in enumerate(zip(parts, self.sizes)):
            y = part(torch.cat(waiting[result - 2], 1) if result > 1 else x)
            for reader, read in zip(sizes, y.split([*sizes.values()], 1)):
                waiting[reader].append(read)
        return torch.cat(waiting[-1], 1)

    def orders(self, read: list[int]) -> tuple[dict[nn.Conv2d, ChannelOrder], list[int]]:
        """Return the order of each convolution and of the output; read: that of the input."""
        found = {}
        inputs = [read, read, *(_joined(reader) for reader in self.readers)]
        for result, part in enumerate((self.shortcut, *self.units)):
            written = [c for reader in self.readers for r, c in reader if r == result]
            first, *rest = (m for m in part.modules() if isinstance(m, nn.Conv2d))
            inner = inputs[result] if first.groups > 1 else list(range(first.out_channels))
            found[first] = ChannelOrder(inner, [0] if first.groups > 1 else inputs[result])
            for conv in rest[:-1]:
                found[conv] = ChannelOrder(inner, [0])
            found[rest[-1]] = ChannelOrder(written, inner)
        return found, inputs[-1]


def _readers(half: int, units: int) -> list[list[tuple[int, int]]]:
    """
    Return what each unit but the first, and at last the output, reads: results and channels.

    Result 0 is the shortcut's, i + 1 that of unit i; in the original's order of channels.
    """
    order = [(result, channel) for channel in range(half) for result in (0, 1)]
    found = []
    for unit in range(1, units):
        found.append(order[half:])
        order = [of for channel, kept in enumerate(order[:half])
                 for of in (kept, (unit + 1, channel))]
    return [*found, order]


def _joined(reader: list[tuple[int, int]]) -> list[int]:
    """Return the original's channels of a reader in our order, result by result."""
    return sorted(range(len(reader)), key=lambda i: reader[i][0])


class ShuffleNetTrunk(Trunk):
    """ShuffleNetV2 1.0x with LeakyReLU, which begins with NanoDet's weights (`nets.nanodet`)."""

    widths = WIDTHS

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stem = nn.Sequential(*conv_norm_act(in_channels, STEM, 3, 2),
                                  nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList(
            Stage(*sizes) for sizes in zip((STEM, *WIDTHS), WIDTHS, UNITS))

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.outputs(x)[-3:]

    def orders(self) -> tuple[dict[nn.Conv2d, ChannelOrder], list[list[int]]]:
        """Return the order of the convolutions of the stages, and of C3, C4 and C5."""
        found: dict[nn.Conv2d, ChannelOrder] = {}
        levels, order = [], list(range(STEM))
        for stage in self.stages:
            assert isinstance(stage, Stage)
            convolutions, order = stage.orders(order)
            found |= convolutions
            levels.append(order)
        return found, levels

    def load_pretrained(self) -> None:
        raise UserError('The trunk shufflenet_v2 begins with the weights of NanoDet-Plus-m (the '
                        'ONNX file of its authors as optim.init); for those of ImageNet choose '
                        'shufflenet_v2_x1_0.')
