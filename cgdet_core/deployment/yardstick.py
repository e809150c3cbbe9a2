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

"""A stack of plain 3x3 convolutions: what a machine's milliseconds per GFLOP can be."""

from pathlib import Path

from cgdet_core.errors import UserError
import numpy as np

LAYERS, CHANNELS, SIZE = 4, 64, (128, 160)
GFLOPS = 2e-9 * LAYERS * CHANNELS ** 2 * 9 * SIZE[0] * SIZE[1]


def write_yardstick(path: Path) -> Path:
    """Write an ONNX of 3x3 convolutions with ReLU, 64 channels at 160x128, of GFLOPS."""
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ModuleNotFoundError:
        raise UserError('The yardstick needs the module onnx; install it with '
                        '"pip install onnx".') from None
    rng = np.random.default_rng(0)
    shape = [1, CHANNELS, *SIZE]
    nodes, weights, name = [], [], 'x0'
    for i in range(LAYERS):
        kernel = rng.normal(0, 0.04, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f'w{i}'))
        nodes.append(helper.make_node('Conv', [name, f'w{i}'], [f'c{i}'], pads=[1, 1, 1, 1]))
        name = f'x{i + 1}'
        nodes.append(helper.make_node('Relu', [f'c{i}'], [name]))
    graph = helper.make_graph(
        nodes, 'plain', [helper.make_tensor_value_info('x0', onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)],
                                ir_version=9), path)
    return path
