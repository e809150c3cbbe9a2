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

"""A tracker without training: features are statistics of pixels, boxes have the first size."""

from pathlib import Path
from typing import Any

from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.inference.card import file_sha256, save_card
from cgdet_core.runtime.tracking.card import tracking_card
from cgdet_core.runtime.tracking.filter import FilterSettings
import cv2
import numpy as np
from numpy.typing import NDArray
import pytest

SIZE, FACTOR = 128, 3.0
TARGET = SIZE / FACTOR  # input pixels


def settings() -> FilterSettings:
    """Return a filter that learns a label of one cell."""
    distance = np.arange(13) / 2
    label = np.exp(-0.5 * (distance / 0.8) ** 2)
    mask = 1 / (1 + np.exp(4 * (distance - 1.5)))
    return FilterSettings(1.0, 1.0, 0.05, 0.5, *(tuple(v.tolist()) for v in (
        label, mask, np.ones(13))))


def write_toy_tracker(path: Path, **values: Any) -> Path:
    """Write ONNX and card of a tracker of bright and dark targets; values: entries of the card."""
    pytest.importorskip('onnx', reason='training is not installed')
    from onnx import checker, helper, numpy_helper, save, TensorProto

    def tensor(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def constant(name: str, array: Any, kind: type = np.float32) -> object:
        return numpy_helper.from_array(np.asarray(array, kind), name)

    cells = 16
    centers = 8 * (np.arange(cells) + 0.5)
    x, y = np.meshgrid(centers, centers)
    boxes = np.stack([x, y, x, y])[None] + TARGET / 2 * np.array([-1, -1, 1, 1])[:, None, None]
    node = helper.make_node
    pool = {'kernel_shape': [16, 16], 'strides': [16, 16]}
    nodes = [
        node('Mul', ['search', 'search'], ['square']), node('Neg', ['search'], ['dark']),
        node('AveragePool', ['search'], ['template_features'], **pool),
        node('AveragePool', ['square'], ['power'], **pool),
        node('MaxPool', ['search'], ['high'], **pool), node('MaxPool', ['dark'], ['low'], **pool),
        node('Concat', ['template_features', 'power', 'high', 'low'], ['raw'], axis=1),
        node('ReduceMean', ['raw', 'space'], ['mean'], keepdims=1),
        node('Sub', ['raw', 'mean'], ['centered']), node('Mul', ['centered'] * 2, ['squares']),
        node('ReduceMean', ['squares', 'all'], ['energy'], keepdims=1),
        node('Add', ['energy', 'little'], ['positive']), node('Sqrt', ['positive'], ['length']),
        node('Div', ['centered', 'length'], ['unit']),
        node('Mul', ['unit', 'scale'], ['features']),
        node('Identity', ['fixed'], ['boxes']), node('Identity', ['good'], ['quality'])]
    graph = helper.make_graph(
        nodes, 'toy', [tensor('search', 1, 1, SIZE, SIZE), tensor('template', 1, 2, 8, 8)],
        [tensor('features', 1, 4, 8, 8), tensor('boxes', 1, 4, 16, 16),
         tensor('quality', 1, 1, 16, 16), tensor('template_features', 1, 1, 8, 8)],
        [constant('space', [2, 3], np.int64), constant('all', [1, 2, 3], np.int64),
         constant('little', 1e-4), constant('scale', 1 / 8), constant('fixed', boxes),
         constant('good', np.full((1, 1, 16, 16), 0.9))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    card = {'calibration': {'offset': -6.2, 'score': 12.0, 'quality': 0.0, 'match': 0.0}, **values}
    save_card(tracking_card('toy', SIZE, 4, 1, Normalization(), factor=FACTOR, filter=settings(),
                            onnx_sha256=file_sha256(path), **card), path)
    return path


def draw(center: tuple[float, float], hidden: bool = False, size: tuple[int, int] = (320, 240),
         others: tuple[tuple[float, float], ...] = ()) -> NDArray[np.uint8]:
    """Return a frame with a striped target of 40x40 pixels; others: places of plain ones."""
    rng = np.random.default_rng(3)
    frame = cv2.GaussianBlur(rng.integers(40, 110, size[::-1]).astype(np.uint8), (0, 0), 6)
    for x, y in others:
        cv2.rectangle(frame, (round(x) - 20, round(y) - 20), (round(x) + 19, round(y) + 19), 150,
                      -1)
    if not hidden:
        left, top = round(center[0]) - 20, round(center[1]) - 20
        cv2.rectangle(frame, (left, top), (left + 39, top + 39), 235, -1)
        for row in range(top + 4, top + 36, 12):
            cv2.rectangle(frame, (left + 4, row), (left + 35, row + 5), 10, -1)
    return frame


def box_around(center: tuple[float, float]) -> list[float]:
    """Return the box of the drawn target."""
    return [center[0] - 20, center[1] - 20, center[0] + 20, center[1] + 20]
