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

from collections.abc import Collection, Iterable, Mapping

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.int8 import ZERO_POINT
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
LEVELS = 127  # of int8, of each sign; symmetric, as TensorRT demands
# Their result is a choice of their input's values, as a Concat's is: one scale for both spares
# a rescaling.
SAME_SCALE = ('Concat', 'Split', 'MaxPool', 'Resize')
QUANTIZED = ('Conv', 'Add', *SAME_SCALE)
# What never makes a negative value of values that are not; ONNX Runtime's form relies on it.
NEVER_NEGATIVE = ('Relu', 'Add', *SAME_SCALE)
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


def _read_instead(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]


def to_half(model: ModelProto) -> ModelProto:
    """
    Convert an exported FP32 graph; weights, biases and features become FP16.

    Every tensor has one type, as strongly typed TensorRT networks and ONNX Runtime require, with
    casts after `images` and where decoding (top-k, softmax over bins, centers, sigmoid) begins.
    """
    half = ModelProto.FromString(model.SerializeToString())
    graph = half.graph
    network = network_nodes(graph)
    # The scales of a Resize are always FP32.
    weights = {name for node in network if node.op_type == 'Conv' for name in node.input[1:]}
    for tensor in graph.initializer:
        if tensor.name in weights:
            values = np.clip(numpy_helper.to_array(tensor), -LIMIT, LIMIT)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    entry = graph.input[0].name
    _read_instead(network, {entry: f'{entry}_fp16'})
    inside = {node.output[0] for node in network}
    decoding = [node for node in graph.node if node.output[0] not in inside]
    nodes = [_cast(entry, f'{entry}_fp16', TensorProto.FLOAT16)]
    for node in graph.node:
        nodes.append(node)
        for name in node.output if node.output[0] in inside else ():
            if any(name in reader.input for reader in decoding):
                _read_instead(decoding, {name: f'{name}_fp32'})
                nodes.append(_cast(name, f'{name}_fp32', TensorProto.FLOAT))
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]  # readers infer the types again
    graph.node.extend(copies)
    return half


def _cast(name: str, result: str, kind: int) -> NodeProto:
    return helper.make_node('Cast', [name], [result], f'{result}_cast', to=kind)


def to_int8(
    model: ModelProto, limits: Mapping[str, float], left_out: Collection[str] = (),
) -> ModelProto:
    """
    Round the layers of an exported FP32 graph by QuantizeLinear and DequantizeLinear pairs.

    limits: the largest magnitude of each tensor in `activations`; left_out: names of weights
    whose convolutions stay FP32. Activations have one scale per tensor, weights one per output
    channel, all zero points are 0; biases stay FP32.
    """
    network = network_nodes(model.graph)
    ranges = {name: TensorData(lowest=np.float32(-limit), highest=np.float32(limit))
              for name, limit in _shared(model, limits).items()}
    quantizer = QDQQuantizer(
        shape_inference.infer_shapes(model), per_channel=True, reduce_range=False,
        weight_qType=QuantType.QInt8, activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in network if node.op_type in QUANTIZED
                           and (node.op_type != 'Conv' or node.input[1] not in left_out)],
        nodes_to_exclude=[], op_types_to_quantize=QUANTIZED, extra_options=OPTIONS)
    for node in network:
        if node.op_type == 'Relu':  # also before a layer left out: the one above stays int8
            quantizer.quantize_activation_tensor(node.output[0])
    quantized = quantizer.quantize_model()
    quantizer.model.topological_sort()
    graph = quantized.graph
    # All activations have one zero point, whose type the runtime changes.
    zeros = [t for t in graph.initializer if t.data_type == TensorProto.INT8 and not t.dims]
    _read_instead(graph.node, {t.name: ZERO_POINT for t in zeros})
    for tensor in zeros:
        graph.initializer.remove(tensor)
    graph.initializer.append(helper.make_tensor(
        ZERO_POINT, TensorProto.INT8, [], b'\0', raw=True))
    return quantized


def layers(model: ModelProto) -> list[str]:
    """Name the weights of all convolutions, each once: what can be left out."""
    return list(dict.fromkeys(n.input[1] for n in model.graph.node if n.op_type == 'Conv'))


def activations(model: ModelProto) -> list[str]:
    """Name the tensors whose range is needed; UserError if one of them may be negative."""
    network = network_nodes(model.graph)
    entries = [i.name for i in model.graph.input]
    made = {name: node.op_type for node in network for name in node.output}
    read = {name for node in network for name in node.input}
    found = {node.input[0] for node in network if node.op_type == 'Conv'} | {
        name for node in network if node.op_type == 'Add' for name in node.input if name in made
    } | {
        name for name, kind in made.items() if kind in NEVER_NEGATIVE and name in read}
    wrong = [name for name in found if name in made and made[name] not in NEVER_NEGATIVE]
    if wrong:
        raise UserError(f'{wrong[0]} may be negative, and int8 needs activations that end in a '
                        'Relu: train the trunk csp with the neck pan, or export fp16.')
    return [name for name in (*entries, *made) if name in found]


def _shared(model: ModelProto, limits: Mapping[str, float]) -> dict[str, float]:
    """Return for tensors that share a scale the largest limit among them."""
    shared = {name: limits[name] for name in activations(model)}
    groups = [[name for name in (*node.input, *node.output) if name in shared]
              for node in network_nodes(model.graph) if node.op_type in SAME_SCALE]
    for group in groups * len(groups):  # a limit passes at least one node each time
        shared |= dict.fromkeys(group, max(shared[name] for name in group))
    return shared
