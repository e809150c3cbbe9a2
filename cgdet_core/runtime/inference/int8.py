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

"""How CPUs read INT8 files, which are written for TensorRT: activations as uint8."""

from pathlib import Path

# Zero points of the activations in an INT8 file, all 0: of those that are never negative, and of
# those that may be.
ZERO_POINT, SIGNED_ZERO_POINT = 'activation_zero_point', 'signed_activation_zero_point'


def _constant(name: str, kind: int, value: int) -> bytes:
    """Return a constant as it is encoded in ONNX files; kind: int8 (3) or uint8 (2)."""
    return bytes([0x10, kind, 0x42, len(name)]) + name.encode() + bytes([0x4a, 1, value])


SIGNED, UNSIGNED = _constant(ZERO_POINT, 3, 0), _constant(ZERO_POINT, 2, 0)
CHANGES = {SIGNED: UNSIGNED,
           _constant(SIGNED_ZERO_POINT, 3, 0): _constant(SIGNED_ZERO_POINT, 2, 128)}


def read_for_cpu(model: str | Path) -> bytes:
    """
    Return an ONNX file, with its quantized activations as uint8.

    Their values are the same: those that may be negative have the zero point 128, and are
    multiplied with smaller weights. With int8 activations ONNX Runtime leaves most convolutions in
    FP32. OpenVINO scales them up to the range of uint8, and on CPUs without VNNI, sums of two
    products then overflow 16 bits.
    """
    content = Path(model).read_bytes()
    for written, read in CHANGES.items():
        content = content.replace(written, read, 1)
    return content
