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

ZERO_POINT = 'activation_zero_point'  # shared by all activations in an INT8 file
# Type and name of that constant as encoded in ONNX files: int8 (3), for TensorRT, or uint8 (2).
_NAME = bytes([0x42, len(ZERO_POINT)]) + ZERO_POINT.encode()
SIGNED, UNSIGNED = b'\x10\x03' + _NAME, b'\x10\x02' + _NAME


def read_for_cpu(model: str | Path) -> bytes:
    """
    Return an ONNX file, with its quantized activations as uint8.

    No activation is negative, so their values are the same. With int8 activations ONNX Runtime
    leaves most convolutions in FP32. OpenVINO scales them up to the range of uint8, and on CPUs
    without VNNI, sums of two products then overflow 16 bits.
    """
    return Path(model).read_bytes().replace(SIGNED, UNSIGNED, 1)
