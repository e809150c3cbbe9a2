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

"""
INT8 conversion: explicit QuantizeLinear and DequantizeLinear pairs around the network's layers.

ONNX Runtime's own quantizer is not used: it writes int32 biases, which TensorRT refuses. One file
serves both: TensorRT requires int8 zero points of 0; as no activation is negative, the ONNX
Runtime session can read them as uint8, which is the fast form there.
"""

from collections.abc import Collection, Mapping

from cgdet_core.deployment.graph import network_nodes, read_instead, replace_nodes
from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.onnxruntime import ZERO_POINT
import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, helper, ModelProto, NodeProto, numpy_helper, TensorProto

LEVELS = 127  # of each sign; symmetric, as TensorRT requires
# They select or interpolate values of their input: one scale for input and output avoids a
# rescaling, as for Concat.
SAME_SCALE = ('Split', 'MaxPool', 'Resize')
JOINS = ('Add', 'Concat')
# Their results are not negative if their inputs are not; the uint8 form of ONNX Runtime needs it.
NEVER_NEGATIVE = (*SAME_SCALE, *JOINS, 'Relu')


def to_int8(
    model: ModelProto, limits: Mapping[str, float], left_out: Collection[str] = (),
) -> ModelProto:
    """
    Quantize the convolutions of an exported FP32 graph and the layers between them.

    limits: the largest magnitude of each tensor in `activations`; left_out: names of weights
    whose convolutions remain FP32. Activations have one scale per tensor, weights one per output
    channel, all zero points are 0. Biases remain FP32, as TensorRT does not accept int32.
    """
    quantized = ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    shared = _shared(graph, limits)
    scales = {name: np.float32(shared[name] / LEVELS) for name in _chosen(graph, left_out)}
    convolutions = _convolutions(graph, left_out)
    constants = [helper.make_tensor(ZERO_POINT, TensorProto.INT8, [], b'\0', raw=True)]
    original = list(graph.node)
    nodes: list[NodeProto] = []
    for weight, users in convolutions.items():
        tensors, node = _weight(graph, weight, users, min(scales[n.input[0]] for n in users))
        constants += tensors
        nodes.append(node)
        read_instead(users, weight, node.output[0])
    for name, scale in scales.items():
        constants.append(numpy_helper.from_array(np.array(scale), f'{name}_scale'))
        read_instead(original, name, f'{name}_dequantized')
    for entry in graph.input:
        nodes += _pair(entry.name) if entry.name in scales else []
    for node in original:
        nodes.append(node)
        for name in node.output:
            nodes += _pair(name) if name in scales else []
    kept = [t for t in graph.initializer if t.name not in convolutions]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *constants])
    replace_nodes(graph, nodes)
    return quantized


def layers(model: ModelProto) -> list[str]:
    """Return the names of all convolution weights, each once: the candidates for `left_out`."""
    return list(_convolutions(model.graph, ()))


def activations(model: ModelProto) -> list[str]:
    """Return the names of the tensors whose range is needed."""
    return _chosen(model.graph, ())


def _convolutions(graph: GraphProto, left_out: Collection[str]) -> dict[str, list[NodeProto]]:
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        if node.op_type == 'Conv' and node.input[1] not in left_out:
            found.setdefault(node.input[1], []).append(node)
    return found


def _chosen(graph: GraphProto, left_out: Collection[str]) -> list[str]:
    """Return the tensors that quantized layers read or write, except the network's outputs."""
    network = network_nodes(graph)
    read = {name for node in network for name in node.input}
    found: set[str] = set()
    for node in network:
        if node.op_type == 'Conv' and node.input[1] not in left_out:
            found.add(node.input[0])
        elif node.op_type == 'Relu' or node.op_type in SAME_SCALE:
            found |= set(node.output)
        elif node.op_type in JOINS:
            found |= {*node.input, *node.output}
    entries = [i.name for i in graph.input]
    made = {name: node.op_type for node in network for name in node.output}
    wrong = [n for n in found if n not in entries and made[n] not in NEVER_NEGATIVE]
    if wrong:
        raise UserError(f'{wrong[0]} may be negative, and int8 requires activations that end in a '
                        'Relu: use a checkpoint of "cgdet train" or its FP32 file.')
    return [n for n in (*entries, *made) if n in found and n in read]


def _shared(graph: GraphProto, limits: Mapping[str, float]) -> dict[str, float]:
    """Return the limit of each tensor, the largest one for tensors that share a scale."""
    group = {name: name for name in limits}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for node in network_nodes(graph):
        if node.op_type in SAME_SCALE:
            for name in node.output:
                group[root(name)] = root(node.input[0])
        elif node.op_type == 'Concat':
            for name in node.input:
                group[root(name)] = root(node.output[0])
    largest: dict[str, float] = {}
    for name, limit in limits.items():
        largest[root(name)] = max(limit, largest.get(root(name), 0.0))
    return {name: largest[root(name)] for name in limits}


def _pair(name: str) -> list[NodeProto]:
    scale, middle, result = f'{name}_scale', f'{name}_quantized', f'{name}_dequantized'
    return [helper.make_node('QuantizeLinear', [name, scale, ZERO_POINT], [middle], middle),
            helper.make_node('DequantizeLinear', [middle, scale, ZERO_POINT], [result], result)]


def _weight(
    graph: GraphProto, name: str, users: list[NodeProto], input_scale: np.float32,
) -> tuple[list[TensorProto], NodeProto]:
    arrays = {t.name: t for t in graph.initializer}
    values = numpy_helper.to_array(arrays[name])
    largest = np.abs(values).reshape(len(values), -1).max(1)
    # ONNX Runtime converts the bias to int32 in units of input scale times weight scale.
    bias = np.abs(numpy_helper.to_array(arrays[users[0].input[2]]))
    scale = np.maximum(largest / LEVELS, bias / (input_scale * 2 ** 30))
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    tensors: dict[str, NDArray[np.generic]] = {
        f'{name}_quantized': np.clip(
            np.rint(values / scale[:, None, None, None]), -LEVELS, LEVELS).astype(np.int8),
        f'{name}_scale': scale, f'{name}_zero': np.zeros(len(scale), np.int8)}
    node = helper.make_node('DequantizeLinear', list(tensors), [f'{name}_dequantized'],
                            f'{name}_dequantized', axis=0)
    return [numpy_helper.from_array(array, key) for key, array in tensors.items()], node
