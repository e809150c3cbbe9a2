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

"""The smallest model with a card: 4 boxes from averages of its picture."""

from pathlib import Path

from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.inference.card import file_sha256, ModelCard, save_card
import pytest


def write_toy(path: Path, batch: int | str = 1) -> Path:
    """Write ONNX and card: images (N, 1, 64, 64), boxes (N, 4, 4), scores (N, 4, 3)."""
    pytest.importorskip('onnx', reason='training is not installed')
    from onnx import checker, helper, save, TensorProto

    def value(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    def constant(name: str, values: list[int]) -> object:
        return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)

    nodes = [
        helper.make_node('AveragePool', ['images'], ['cells'], kernel_shape=[16, 16],
                         strides=[16, 16]),
        helper.make_node('Reshape', ['cells', 'shape'], ['rows']),
        helper.make_node('Exp', ['rows'], ['boxes']),
        helper.make_node('Slice', ['rows', 'start', 'end', 'axis'], ['three']),
        helper.make_node('Sigmoid', ['three'], ['scores'])]
    graph = helper.make_graph(
        nodes, 'toy', [value('images', 1, 64, 64)],
        [value('boxes', 4, 4), value('scores', 4, 3)],
        [constant('shape', [-1, 4, 4]), constant('start', [0]), constant('end', [3]),
         constant('axis', [2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    save_card(ModelCard('toy', ('person', 'bicycle', 'car'), (64, 64), Normalization(),
                        onnx_sha256=file_sha256(path)), path)
    return path
