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

"""Helpers for exported graphs that the precision conversions share."""

from collections import defaultdict

from onnx import GraphProto, NodeProto


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


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each tensor."""
    found: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            found[name].append(node)
    return found


def read_instead(nodes: list[NodeProto], old: str, new: str) -> None:
    """Replace an input tensor of nodes by another."""
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new


def replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Set a graph's nodes and remove its tensor types, which readers infer again."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]
