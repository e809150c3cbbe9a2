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

# Fields of ONNX's messages that lead to nodes, by the message that they are in (onnx.proto).
GRAPHS = {'model': {7: 'graph', 25: 'function'}, 'graph': {1: 'node'},
          'function': {7: 'node', 11: 'attribute'}, 'node': {5: 'attribute'},
          'attribute': {6: 'graph', 11: 'graph'}}
OP_TYPE = 4  # of a node
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
DEPTH = 100  # of messages in each other


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


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields of bytes in a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        tag &= 0xffffffff  # as protobuf reads it
        wire = tag & 7
        if wire == VARINT:
            _, at = _varint(message, at)
        elif wire == BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError
            yield tag >> 3, message[at:at + size]
            at += size
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise ValueError


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
