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

"""What an ONNX file is made of, read without a library that would build or run it."""

from collections.abc import Iterator

from cgdet_core.errors import UserError
import numpy as np

# Fields of ONNX's messages that lead to nodes, by the message that they are in (onnx.proto).
GRAPHS = {'model': {7: 'graph', 25: 'function'}, 'graph': {1: 'node'},
          'function': {7: 'node', 11: 'attribute'}, 'node': {5: 'attribute'},
          'attribute': {6: 'graph', 11: 'graph'}}
OP_TYPE = 4  # of a node
VARINT, BYTES, SIZES = 0, 2, {1: 8, 5: 4}  # protobuf's wire types
DEPTH = 100  # of messages in each other
GRAPH, INITIALIZER = 7, 5  # of ModelProto and GraphProto
TYPE, FLOATS, NAME, RAW = 2, 4, 8, 9  # of TensorProto
DTYPES = {1: np.float32, 10: np.float16, 11: np.float64}  # by the number of the type


def check_terminates(content: bytes, name: str) -> None:
    """
    Raise UserError for an ONNX file with a Loop, the only operator that may never end.

    Networks of this package have none. A file does not show whether its loop ends, and not every
    backend can be interrupted. name: of the file. UserError also if it is damaged.
    """
    try:
        found = b'Loop' in operators(memoryview(content), 'model')
    except (ValueError, IndexError):
        raise UserError(f'{name} is not an ONNX file that a backend can load; copy it again or '
                        'rerun "cgdet export".') from None
    if found:
        raise UserError(f'{name} contains a Loop, which may never end; export the network without '
                        'loops.')


def operators(message: memoryview, kind: str, depth: int = 0) -> Iterator[bytes]:
    """Yield the operators of all nodes, also of nested graphs; ValueError if it is damaged."""
    if depth > DEPTH:
        raise ValueError
    for field, value in _fields(message):
        if inner := GRAPHS[kind].get(field):
            yield from operators(value, inner, depth + 1)
        elif kind == 'node' and field == OP_TYPE:
            yield bytes(value)


def not_finite(content: bytes) -> str:
    """
    Return the name of the first weights with NaN or infinite values, or nothing.

    Infinity as a single number is valid: it may be a limit. A damaged file has no finding here.
    """
    try:
        for number, graph in _fields(memoryview(content)):
            for kind, tensor in _fields(graph) if number == GRAPH else ():
                if kind == INITIALIZER:
                    parts = dict(_fields(tensor))
                    if not _is_good(parts):
                        return bytes(parts.get(NAME, b'')).decode(errors='replace') or 'a tensor'
    except (IndexError, ValueError, TypeError):
        pass
    return ''


def _is_good(tensor: dict[int, memoryview]) -> bool:
    number = int.from_bytes(tensor.get(TYPE, b''), 'little')
    data = tensor.get(RAW) or tensor.get(FLOATS)
    if number not in DTYPES or not data:
        return True
    values = np.frombuffer(data, DTYPES[number])
    return bool(np.isfinite(values).all() if len(values) > 1 else not np.isnan(values).any())


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields of a protobuf message; ValueError if damaged."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        tag &= 0xffffffff  # as protobuf reads it
        wire, start = tag & 7, at
        if wire == VARINT:
            _, at = _varint(message, at)
        elif wire == BYTES:
            size, start = _varint(message, at)
            at = start + size
        elif wire in SIZES:
            at += SIZES[wire]
        if at == start and wire != BYTES or at > len(message):
            raise ValueError
        yield tag >> 3, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return an integer of variable length and the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError
