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

"""The smallest models with cards: 4 boxes from averages of a picture, and a tracker."""

from pathlib import Path

from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.inference.card import BATCH, file_sha256, ModelCard, save_card, TensorSpec
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
    save_card(detection_card('toy', ('person', 'bicycle', 'car'), (64, 64), Normalization(),
                             top_k=4, batch=batch if isinstance(batch, int) else BATCH,
                             onnx_sha256=file_sha256(path)), path)
    return path


def write_tracker(path: Path, batch: int | str = 1, targets: int | str = 1) -> Path:
    """
    Write ONNX and card of a model that is not a detector.

    Inputs target (`targets`, 1, 8, 8) and search (N, 1, 16, 16); outputs similarity (N, 1, 4, 4),
    the target's mean times those of the search's cells, score (N, 1), its maximum, and place
    (N, 1) int64, the index of that.
    """
    pytest.importorskip('onnx', reason='training is not installed')
    from onnx import checker, helper, save, TensorProto

    inputs = {'target': (targets, 1, 8, 8), 'search': (batch, 1, 16, 16)}
    outputs = {'similarity': (batch, 1, 4, 4), 'score': (batch, 1), 'place': (batch, 1)}
    node = helper.make_node
    nodes = [
        node('GlobalAveragePool', ['target'], ['mean']),
        node('AveragePool', ['search'], ['cells'], kernel_shape=[4, 4], strides=[4, 4]),
        node('Mul', ['cells', 'mean'], ['similarity']),
        node('Reshape', ['similarity', 'shape'], ['flat']),
        node('ReduceMax', ['flat', 'axes'], ['score'], keepdims=1),
        node('ArgMax', ['flat'], ['place'], axis=1, keepdims=1)]

    def values(shapes: dict[str, tuple[int | str, ...]]) -> list[object]:
        return [helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == 'place' else TensorProto.FLOAT, shape)
            for name, shape in shapes.items()]

    graph = helper.make_graph(nodes, 'tracker', values(inputs), values(outputs), [
        helper.make_tensor('shape', TensorProto.INT64, [2], [-1, 16]),
        helper.make_tensor('axes', TensorProto.INT64, [1], [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)

    def specs(shapes: dict[str, tuple[int | str, ...]]) -> dict[str, TensorSpec]:
        return {name: TensorSpec(shape, 'int64' if name == 'place' else 'float32', 'N first')
                for name, shape in shapes.items()}

    save_card(ModelCard(task='tracking', name='tracker', inputs=specs(inputs),
                        outputs=specs(outputs), normalization=Normalization(),
                        onnx_sha256=file_sha256(path)), path)
    return path
