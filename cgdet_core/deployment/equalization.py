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

"""Cross-layer equalization of exported graphs, before they are quantized."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cgdet_core.deployment.precisions import network_nodes
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

Array = NDArray[np.float32]
FLOOR = 1e-3  # of the largest channel; channels below, also those that are always 0, count as this


class Span(NamedTuple):
    """Convolutions that share weights, and those that read their channels, after an activation."""

    writers: list[NodeProto]
    readers: list[NodeProto]


def equalize(model: ModelProto, magnitudes: Mapping[str, Array]) -> ModelProto:
    """
    Scale the channels between convolutions, so that each uses the range of its tensor.

    A quantized tensor has one scale, and its channels of small values few steps. Each channel is
    divided by a factor, and the weights that read it are multiplied with it. As ReLU and LeakyReLU
    are positively homogeneous, the network stays the same (Nagel et al., Data-Free Quantization
    Through Weight Equalization and Bias Correction, 2019, section 4.1). The paper balances the
    weights of two layers. Ours have a scale for each output channel, so that the values between
    them are balanced with the weights that read them: by sqrt(a / w), or by a before depthwise
    convolutions, with the largest magnitudes a of the channel and w of its weights.

    magnitudes: the largest magnitude (C,) over real frames of each tensor of `between`.
    """
    model = ModelProto.FromString(model.SerializeToString())
    tensors = {t.name: t for t in model.graph.initializer}
    values = {name: numpy_helper.to_array(t) for name, t in tensors.items()}
    for writers, readers in _spans(model):
        factors = a = _floored([magnitudes[node.output[0]] for node in writers])
        if dense := {node.input[1] for node in readers if _groups(node) == 1}:
            factors = np.sqrt(a / _floored([np.abs(values[n]).max((0, 2, 3)) for n in dense]))
        for name in {name for node in writers for name in node.input[1:]}:
            values[name] = values[name] / factors.reshape(-1, *(1,) * (values[name].ndim - 1))
        for name, shape in {(r.input[1], (1, -1, 1, 1) if _groups(r) == 1 else (-1, 1, 1, 1))
                            for r in readers}:
            values[name] = values[name] * factors.reshape(shape)
    for name, tensor in tensors.items():
        tensor.CopyFrom(numpy_helper.from_array(values[name], name))
    return model


def between(model: ModelProto) -> list[str]:
    """Name the results of the convolutions whose channels are scaled, before an activation."""
    return [node.output[0] for span in _spans(model) for node in span.writers]


def _spans(model: ModelProto) -> list[Span]:
    """
    Return what can be scaled, in the network's order.

    Only dense and depthwise convolutions may read a channel, and nothing else the constants that
    are changed.
    """
    graph = model.graph
    outputs = {o.name for o in graph.output}
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    reading = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            reading[name].append(node)
    sharing = defaultdict(list)
    for node in network_nodes(graph):
        if node.op_type == 'Conv':
            sharing[node.input[1]].append(node)
    found = []
    for writers in sharing.values():
        results = []
        for node in writers:
            after = reading[node.output[0]]
            active = len(after) == 1 and after[0].op_type in ('Relu', 'LeakyRelu')
            results.append((after[0] if active else node).output[0])
        readers = [r for name in results for r in reading[name]]
        constants = {name for node in writers for name in node.input[1:]}
        weights = {r.input[1] for r in readers if r.op_type == 'Conv'}
        if (all(reading[name] for name in results) and outputs.isdisjoint(results)
                and all(r.op_type == 'Conv' and r.input[0] in results for r in readers)
                and shapes.keys() >= constants | weights
                and all(_groups(r) in (1, shapes[r.input[1]][0]) for r in readers)
                and all(node in writers for name in constants for node in reading[name])
                and all(node in readers for name in weights for node in reading[name])):
            found.append(Span(writers, readers))
    return found


def _groups(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == 'group'), 1)


def _floored(magnitudes: Sequence[Array]) -> Array:
    largest = np.max(magnitudes, 0)
    return np.maximum(largest, FLOOR * (largest.max() or 1))
