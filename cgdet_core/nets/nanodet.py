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

"""The trunk and neck of NanoDet-Plus-m, trained on COCO, as the start of a thermal network."""

from pathlib import Path
from typing import TYPE_CHECKING

from cgdet_core.errors import UserError
from cgdet_core.nets.blocks import normalized, set_folded
from cgdet_core.nets.ghost_neck import GhostPathAggregation
from cgdet_core.nets.shufflenet_trunk import ChannelOrder, ShuffleNetTrunk
from cgdet_core.nets.trunk import fold_input, Norm, Origin
import torch
from torch import nn, Tensor

if TYPE_CHECKING:
    from cgdet_core.nets.pyramid import FeaturePyramid

ORIGIN = Origin('NanoDet-Plus-m', 'github.com/RangiLyu/nanodet, nanodet-plus-m_416',
                'Apache-2.0', 'COCO 2017, after ImageNet-1k')
# Of B, G, R in [0, 1].
NORM = Norm((103.53 / 255, 116.28 / 255, 123.675 / 255),
            (1 / 255 / 0.017429, 1 / 255 / 0.017507, 1 / 255 / 0.017125))


def load_nanodet(network: 'FeaturePyramid', path: Path) -> None:
    """
    Load trunk and neck from NanoDet-Plus-m's ONNX file, found by their order.

    The network has the trunk `shufflenet_v2`, the neck `ghost` and 96 channels. The file's
    normalization layers are folded into its convolutions: ours become the identity, with the
    file's biases, and the trunk has its own order of channels. UserError for another network or
    file.
    """
    ours = _in_order(network)
    found = _convolutions(path)
    wanted = [tuple(conv.weight.shape) for conv, _ in ours]
    wanted[0] = (wanted[0][0], 3, *wanted[0][2:])
    trunk = network.backbone
    if (not isinstance(trunk, ShuffleNetTrunk)
            or [tuple(w.shape) for w, _ in found[:len(ours)]] != wanted):
        raise UserError(f'{path} does not fit the network. It must be NanoDet-Plus-m (1.0x), and '
                        'the model of the recipe {trunk: shufflenet_v2, neck: ghost, '
                        'neck_channels: 96}.')
    first, shift = fold_input(found[0][0], NORM, ours[0][0].in_channels)
    found[0] = first.flip(1), found[0][1] + shift  # ours are R, G, B
    orders, levels = trunk.orders()
    assert isinstance(network.neck, GhostPathAggregation)
    for lateral, read in zip(network.neck.lateral, levels):
        conv = next(m for m in lateral.modules() if isinstance(m, nn.Conv2d))
        orders[conv] = ChannelOrder(list(range(conv.out_channels)), read)
    for (conv, norm), (weight, bias) in zip(ours, found):
        if order := orders.get(conv):
            weight, bias = weight[order.written][:, order.read], bias[order.written]
        set_folded(conv, norm, weight, bias)


def _in_order(network: 'FeaturePyramid') -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return convolutions and their normalization in the order in which they run."""
    norms = {n.conv: n.norm for part in (network.backbone, network.neck) for n in normalized(part)}
    called: list[nn.Conv2d] = []
    hooks = [conv.register_forward_hook(lambda conv, *_: called.append(conv)) for conv in norms]
    training = network.training
    with torch.no_grad():
        network.eval().pyramid(torch.zeros(1, network.config.in_channels, 64, 64))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return [(conv, norms[conv]) for conv in called]


def _convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of an ONNX file's convolutions in the order of its graph."""
    import onnx
    from onnx import numpy_helper
    if not path.is_file():
        raise UserError(f'The starting weights {path} do not exist.')
    try:
        graph = onnx.load(path).graph
    except Exception:  # protobuf's own error, which is not public
        raise UserError(f'{path} is not an ONNX file.') from None
    values = {i.name: i for i in graph.initializer}
    cast = {n.output[0]: n.input[0] for n in graph.node if n.op_type == 'Cast'}
    found = []
    for node in graph.node:
        if node.op_type == 'Conv' and len(node.input) == 3:
            weight, bias = (values.get(cast.get(i, i)) for i in node.input[1:])
            if weight is not None and bias is not None:
                found.append((torch.tensor(numpy_helper.to_array(weight)).float(),
                              torch.tensor(numpy_helper.to_array(bias)).float()))
    return found
