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

"""FP16 and INT8 forms of exported FP32 graphs; decoding, input and outputs stay in FP32."""

from collections.abc import Collection, Mapping

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.int8 import SIGNED_ZERO_POINT, ZERO_POINT
import numpy as np
from onnx import (
    GraphProto,
    helper,
    ModelProto,
    NodeProto,
    numpy_helper,
    shape_inference,
    TensorProto,
)
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

LIMIT = float(np.finfo(np.float16).max)
TINY = float(np.finfo(np.float16).smallest_subnormal)
LEVELS = 127  # of int8, of each sign; symmetric, as TensorRT demands
# Their result is a choice of their input's values, as a Concat's is: one scale for both spares
# a rescaling.
SAME_SCALE = ('Concat', 'Split', 'MaxPool', 'Resize', 'Reshape', 'Transpose')
QUANTIZED = ('Conv', 'Add', 'LeakyRelu', *SAME_SCALE)
KNOWN = ('Relu', *QUANTIZED)
FOLLOWING = ('Relu', 'LeakyRelu', 'MaxPool')  # in FP32 behind a layer in FP32
# Of weights that are multiplied with activations that may be negative: a CPU without VNNI adds two
# products of uint8 and int8 in 16 bits, and those activations use all of uint8.
HALF_LEVELS = 63
OPTIONS = {
    'ActivationSymmetric': True, 'WeightSymmetric': True,
    'QuantizeBias': False,  # TensorRT takes no int32 biases
    # Between a convolution and its Relu there is nothing to round, nor behind the network.
    'OpTypesToExcludeOutputQuantization': ['Conv']}


def network_nodes(graph: GraphProto) -> list[NodeProto]:
    """Return the convolutions and all nodes before them, in order: all but the decoding."""
    made_by = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = [node for node in graph.node if node.op_type == 'Conv']
    while waiting:
        node = waiting.pop()
        if node.output[0] not in found:
            found.add(node.output[0])
            waiting += [made_by[name] for name in node.input if name in made_by]
    return [node for node in graph.node if node.output[0] in found]


def to_half(model: ModelProto) -> ModelProto:
    """
    Convert an exported FP32 graph; weights, biases and features become FP16.

    Every tensor has one type, as strongly typed TensorRT networks and ONNX Runtime require, with
    casts after the inputs, before outputs, and where decoding (top-k, softmax over bins, centers,
    sigmoid) begins.
    """
    half = ModelProto.FromString(model.SerializeToString())
    graph = half.graph
    first = {node.output[0] for node in network_nodes(graph)}
    network = [node for node in graph.node if node.output[0] in first]
    decoding = [node for node in graph.node if node.output[0] not in first]
    known = shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type
             for v in (*known.value_info, *known.output, *known.input)}
    inside = {name for node in network for name in node.output
              if kinds.get(name, TensorProto.FLOAT) == TensorProto.FLOAT}
    entries = {v.name: f'{v.name}_fp16' for v in graph.input
               if kinds[v.name] == TensorProto.FLOAT}
    ends = {v.name: f'{v.name}_fp16' for v in graph.output if v.name in inside}
    names = _halve_constants(graph, network, decoding) | entries | ends
    shown = inside - {*ends}
    for node in network:
        floats = _floats(node)
        node.input[:] = [names[n] if n in names and n in floats else n for n in node.input]
        node.output[:] = [ends.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if node.op_type == 'Cast' and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for node in decoding:
        node.input[:] = [f'{n}_fp32' if n in shown else n for n in node.input]
    read = {name for node in decoding for name in node.input}
    casts = {cast: name for name, cast in ends.items()} | {
        name: f'{name}_fp32' for name in inside if f'{name}_fp32' in read}
    nodes = [_cast(name, cast, TensorProto.FLOAT16) for name, cast in entries.items()]
    for node in graph.node:
        nodes.append(NodeProto.FromString(node.SerializeToString()))
        nodes += [_cast(n, casts[n], TensorProto.FLOAT) for n in node.output if n in casts]
    del graph.node[:], graph.value_info[:]  # readers infer the types again
    graph.node.extend(nodes)
    return half


def _halve_constants(graph: GraphProto, network: Collection[NodeProto],
                     decoding: Collection[NodeProto]) -> dict[str, str]:
    """Turn what the network reads of constants into FP16; return the new names, by the old."""
    read = {name for node in network for name in _floats(node)}
    others = {name for node in decoding for name in node.input} | {
        name for node in network for name in node.input if name not in _floats(node)}
    names = {}
    for tensor in [t for t in graph.initializer
                   if t.name in read and t.data_type == TensorProto.FLOAT]:
        values = numpy_helper.to_array(tensor)
        # What divides may be small, but not 0.
        values = np.sign(values) * np.clip(np.abs(values), TINY * (values != 0), LIMIT)
        names[tensor.name] = f'{tensor.name}_fp16' if tensor.name in others else tensor.name
        if tensor.name not in others:
            graph.initializer.remove(tensor)
        graph.initializer.append(
            numpy_helper.from_array(values.astype(np.float16), names[tensor.name]))
    return names


def _floats(node: NodeProto) -> list[str]:
    """Return the inputs of a node that may be FP16; the scales of a Resize are always FP32."""
    return list(node.input[:1] if node.op_type == 'Resize' else node.input)


def _cast(name: str, result: str, kind: int) -> NodeProto:
    return helper.make_node('Cast', [name], [result], f'{result}_cast', to=kind)


def to_int8(
    model: ModelProto, limits: Mapping[str, float], left_out: Collection[str] = (),
) -> ModelProto:
    """
    Round the layers of an exported FP32 graph by QuantizeLinear and DequantizeLinear pairs.

    limits: the largest magnitude of each tensor in `activations`; left_out: names of weights
    whose convolutions stay FP32, with activations and pooling behind them. Activations have one
    scale per tensor, weights one per output channel, all zero points are 0; biases stay FP32.
    """
    network = network_nodes(model.graph)
    exact: set[str] = set()  # computed in FP32
    for node in network:  # in order
        if (node.input[1] in left_out if node.op_type == 'Conv' else
                node.op_type in FOLLOWING and node.input[0] in exact):
            exact.update(node.output)
    rounded = [name for name in activations(model) if name not in exact or any(
        node.op_type not in FOLLOWING for node in network if name in node.input)]
    ranges = {name: TensorData(lowest=np.float32(-limit), highest=np.float32(limit))
              for name, limit in _shared(model, limits).items()}
    quantizer = QDQQuantizer(
        shape_inference.infer_shapes(model), per_channel=True, reduce_range=False,
        weight_qType=QuantType.QInt8, activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[
            node.name for node in network if node.op_type in QUANTIZED
            and (node.op_type != 'Conv' or node.input[1] not in left_out)
            and (node.op_type not in FOLLOWING or node.input[0] not in exact)],
        nodes_to_exclude=[], op_types_to_quantize=QUANTIZED, extra_options=OPTIONS)
    entries = {i.name for i in model.graph.input}
    for name in rounded:  # also before a layer left out: the one above stays int8
        if name not in entries:
            quantizer.quantize_activation_tensor(name)
    negative = maybe_negative(model)
    quantized = quantizer.quantize_model()
    quantizer.model.topological_sort()
    _share_zero_points(quantized.graph, negative)
    _halve_weights(quantized.graph, model.graph, {
        node.input[1] for node in network
        if node.op_type == 'Conv' and node.input[0] in negative})
    return quantized


def _halve_weights(graph: GraphProto, original: GraphProto, names: Collection[str]) -> None:
    """Round these weights to at most HALF_LEVELS of each sign."""
    weights = {t.name: numpy_helper.to_array(t) for t in original.initializer if t.name in names}
    tensors = {t.name: t for t in graph.initializer}
    for name, values in weights.items():
        rounded, scale = tensors.get(f'{name}_quantized'), tensors.get(f'{name}_scale')
        if rounded is None or scale is None:  # a layer that is left out
            continue
        steps = numpy_helper.to_array(scale) * np.float32(LEVELS / HALF_LEVELS)
        shape = (-1, *(1,) * (values.ndim - 1))
        found = np.clip(np.rint(values / steps.reshape(shape)), -HALF_LEVELS, HALF_LEVELS)
        rounded.CopyFrom(numpy_helper.from_array(found.astype(np.int8), rounded.name))
        scale.CopyFrom(numpy_helper.from_array(steps, scale.name))


def _share_zero_points(graph: GraphProto, negative: Collection[str]) -> None:
    """Set the zero points of activations to two constants, which the runtime changes."""
    zeros = [t for t in graph.initializer if t.data_type == TensorProto.INT8 and not t.dims]
    names = {t.name for t in zeros}
    made = {n.output[0]: n.input[0] for n in graph.node if n.op_type == 'QuantizeLinear'}
    used = set()
    for node in graph.node:
        if node.op_type in ('QuantizeLinear', 'DequantizeLinear') and node.input[2] in names:
            source = made.get(node.input[0], node.input[0])
            node.input[2] = SIGNED_ZERO_POINT if source in negative else ZERO_POINT
            used.add(node.input[2])
    for tensor in zeros:
        graph.initializer.remove(tensor)
    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.INT8, [], b'\0', raw=True) for name in sorted(used))


def layers(model: ModelProto) -> list[str]:
    """Name the weights of all convolutions, each once: what can be left out."""
    return list(dict.fromkeys(n.input[1] for n in model.graph.node if n.op_type == 'Conv'))


def activations(model: ModelProto) -> list[str]:
    """
    Name the tensors that are rounded, whose range is needed.

    Those are all between the network's nodes, but for what a Relu follows at once. UserError for
    nodes that int8 does not know.
    """
    network = network_nodes(model.graph)
    unknown = sorted({node.op_type for node in network} - {*KNOWN})
    if unknown:
        raise UserError(f'int8 knows no {", ".join(unknown)}: train another trunk, or export '
                        'fp16.')
    entries = [i.name for i in model.graph.input]
    made = [name for node in network for name in node.output]
    read = {name for node in network if node.op_type != 'Relu' for name in node.input}
    return [name for name in (*entries, *made) if name in read]


def maybe_negative(model: ModelProto) -> set[str]:
    """Name the tensors that may be negative, with all that share a scale with one."""
    network = network_nodes(model.graph)
    made = {name for node in network for name in node.output}
    found: set[str] = set()
    for node in network:  # in order
        constant = node.op_type == 'Add' and not made.issuperset(node.input)
        if node.op_type in ('Conv', 'LeakyRelu') or constant or (
                node.op_type != 'Relu' and not found.isdisjoint(node.input)):
            found.update(node.output)
    for group in _groups(model, made):
        if not found.isdisjoint(group):
            found.update(group)
    return found


def _shared(model: ModelProto, limits: Mapping[str, float]) -> dict[str, float]:
    """Return for tensors that share a scale the largest limit among them."""
    shared = {name: limits[name] for name in activations(model)}
    for group in _groups(model, shared):
        shared |= dict.fromkeys(group, max(shared[name] for name in group))
    return shared


def _groups(model: ModelProto, names: Collection[str]) -> list[set[str]]:
    """Return the sets of these tensors that share a scale."""
    groups: list[set[str]] = []
    for node in network_nodes(model.graph):
        if node.op_type in SAME_SCALE:
            group = {name for name in (*node.input, *node.output) if name in names}
            for other in [g for g in groups if not g.isdisjoint(group)]:
                groups.remove(other)
                group |= other
            groups.append(group)
    return groups
