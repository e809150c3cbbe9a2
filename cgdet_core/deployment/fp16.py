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

"""FP16 conversion: the network in half precision; decoding, input and outputs in FP32."""

from cgdet_core.deployment.graph import consumers, network_nodes, read_instead, replace_nodes
import numpy as np
from onnx import helper, ModelProto, NodeProto, numpy_helper, TensorProto

LIMIT = float(np.finfo(np.float16).max)


def to_half(model: ModelProto) -> ModelProto:
    """
    Convert an exported FP32 graph; weights, biases and features become FP16.

    Every tensor has one type, as strongly typed TensorRT networks and ONNX Runtime require, with
    casts after `images` and where decoding (top-k, softmax over bins, centers, sigmoid) begins.
    """
    half = ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    network = network_nodes(graph)
    # The scales of a Resize are always FP32.
    weights = {name for node in network if node.op_type == 'Conv' for name in node.input[1:]}
    for tensor in graph.initializer:
        if tensor.name in weights:
            values = np.clip(numpy_helper.to_array(tensor), -LIMIT, LIMIT)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    entry = graph.input[0].name
    read_instead(network, entry, f'{entry}_fp16')
    inside = {node.output[0] for node in network}
    readers = consumers(graph)
    nodes = [_cast(entry, f'{entry}_fp16', TensorProto.FLOAT16)]
    for node in graph.node:
        nodes.append(node)
        for name in node.output if node.output[0] in inside else ():
            outside = [n for n in readers[name] if n.output[0] not in inside]
            if outside:
                read_instead(outside, name, f'{name}_fp32')
                nodes.append(_cast(name, f'{name}_fp32', TensorProto.FLOAT))
    replace_nodes(graph, nodes)
    return half


def _cast(name: str, result: str, kind: int) -> NodeProto:
    return helper.make_node('Cast', [name], [result], f'{result}_cast', to=kind)
