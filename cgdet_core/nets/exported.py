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

"""Weights of a network in an exported FP32 file, whose normalization layers are folded."""

from pathlib import Path

from cgdet_core.nets.blocks import normalized, set_folded
import torch
from torch import nn, Tensor

PREFIX = 'student.'  # of the names of the network's weights


def exported_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of an FP32 file of "cgdet export", by their names in the network."""
    import onnx
    from onnx import numpy_helper
    graph = onnx.load(path).graph
    weights = {i.name: torch.tensor(numpy_helper.to_array(i)) for i in graph.initializer}
    # The exporter transposes the weights of linear layers and gives them other names.
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == 'MatMul'}
    for node in graph.node:
        if node.op_type == 'Add' and node.input[0] in products:
            weight, layer = products[node.input[0]], node.input[1].removesuffix('.bias')
            if weight in weights and layer != node.input[1]:
                weights[f'{layer}.weight'] = weights[weight].T
    return {name.removeprefix(PREFIX): value for name, value in weights.items()
            if name.startswith(PREFIX)}


def set_exported(network: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """
    Load exported weights in place; return the names of those that the network does not have.

    KeyError or RuntimeError if the network has others.
    """
    weights = dict(weights)
    names = {module: name for name, module in network.named_modules()}
    folded: set[str] = set()
    for _, _, conv, _, norm in normalized(network):
        weight, bias = (weights.pop(f'{names[conv]}.{key}') for key in ('weight', 'bias'))
        set_folded(conv, norm, weight, bias)
        folded |= {names[conv], names[norm]}
    loaded = network.load_state_dict(weights, strict=False)
    missing = [name for name in loaded.missing_keys if name.rpartition('.')[0] not in folded]
    if missing:
        raise KeyError(*missing)
    return list(loaded.unexpected_keys)
