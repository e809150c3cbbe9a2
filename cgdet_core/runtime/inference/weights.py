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

"""Find weights that are not finite in an ONNX file, without the package onnx."""

from collections.abc import Iterator

import numpy as np

# Numbers of fields in ONNX's protobuf messages.
GRAPH, INITIALIZER = 7, 5  # of ModelProto and GraphProto
TYPE, FLOATS, NAME, RAW = 2, 4, 8, 9  # of TensorProto
DTYPES = {1: np.float32, 10: np.float16, 11: np.float64}  # by the number of the type


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
        return ''
    return ''


def _is_good(tensor: dict[int, memoryview]) -> bool:
    number = int.from_bytes(tensor.get(TYPE, b''), 'little')
    data = tensor.get(RAW) or tensor.get(FLOATS)
    if number not in DTYPES or not data:
        return True
    values = np.frombuffer(data, DTYPES[number])
    return bool(np.isfinite(values).all() if len(values) > 1 else not np.isnan(values).any())


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each field of a protobuf message; IndexError if it is cut."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        start, size = at, {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 == 2:
            size, start = _varint(message, at)
        elif key & 7 == 0:
            size = _varint(message, at)[1] - at
        yield key >> 3, message[start:start + size]
        at = start + size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and the place after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
