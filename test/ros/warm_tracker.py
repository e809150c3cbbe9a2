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

"""A small ONNX tracker with a card, which follows what is warm, and loses it when it is gone."""

from pathlib import Path

from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.inference.card import file_sha256, save_card
import numpy as np
import pytest

SIZE = 192  # of the search region
TARGET = 57.0  # input pixels, root of the area of a centered target's box
WARM, FACTOR = 0.45, 6.0  # where quality begins, and its slope


def write_tracker(path: Path, fails: bool = False) -> Path:
    """
    Write a tracker whose boxes have a fixed size, and whose quality is the warmth around a cell.

    fails: inference fails for regions of a mean above 0.85.
    """
    pytest.importorskip('onnx', reason='training is not installed')
    from cgdet_core.runtime.tracking.card import tracking_card
    from cgdet_core.runtime.tracking.filter import FilterSettings
    from onnx import checker, helper, numpy_helper, save, TensorProto

    def value(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape])

    node, fine = helper.make_node, SIZE // 8
    centers = (np.arange(fine, dtype=np.float32) + 0.5) * 8
    x, y = np.meshgrid(centers, centers)
    half = TARGET / 2
    boxes = np.stack([x - half, y - half, x + half, y + half])[None].astype(np.float32)
    start = SIZE // 32 - 4
    constants = {
        'grid': boxes, 'zero': np.float32(0), 'one': np.float32(1), 'warm': np.float32(WARM),
        'factor': np.float32(FACTOR), 'small': np.float32(1e-6), 'axes': np.array([1, 2, 3]),
        'length': np.float32((2 * 16) ** 0.5), 'starts': np.array([start, start]),
        'ends': np.array([start + 8, start + 8]), 'plane': np.array([2, 3]),
        'high': np.float32(0.85), 'five': np.int64(5), 'vector': np.zeros(1, np.float32)}
    nodes = [
        node('AveragePool', ['search'], ['coarse'], kernel_shape=[16, 16], strides=[16, 16]),
        node('Sub', ['one', 'coarse'], ['cold']),
        node('Concat', ['coarse', 'cold'], ['both'], axis=1),
        node('Mul', ['both', 'both'], ['squares']),
        node('ReduceMean', ['squares', 'axes'], ['mean'], keepdims=1),
        node('Sqrt', ['mean'], ['root']), node('Mul', ['root', 'length'], ['norm']),
        node('Div', ['both', 'norm'], ['features']),
        node('AveragePool', ['search'], ['around'], kernel_shape=[56, 56], strides=[8, 8],
             pads=[24, 24, 24, 24], count_include_pad=1),
        node('Sub', ['around', 'warm'], ['above']), node('Mul', ['above', 'factor'], ['steep']),
        node('Clip', ['steep', 'zero', 'one'], ['quality']),
        node('Slice', ['coarse', 'starts', 'ends', 'plane'], ['template_features']),
        node('ReduceMean', ['template'], ['all'], keepdims=0),
        node('Mul', ['all', 'zero'], ['nothing'])]
    extra = 'nothing'
    if fails:
        nodes += [node('ReduceMean', ['search'], ['top'], keepdims=0),
                  node('Greater', ['top', 'high'], ['bright']),
                  node('Cast', ['bright'], ['number'], to=TensorProto.INT64),
                  node('Mul', ['number', 'five'], ['index']),
                  node('Gather', ['vector', 'index'], ['failing']),
                  node('Add', ['nothing', 'failing'], ['extra'])]
        extra = 'extra'
    nodes += [node('Add', ['grid', extra], ['boxes'])]
    graph = helper.make_graph(
        nodes, 'toy', [value('search', 1, SIZE, SIZE), value('template', 2, 8, 8)],
        [value('features', 2, SIZE // 16, SIZE // 16), value('boxes', 4, fine, fine),
         value('quality', 1, fine, fine), value('template_features', 1, 8, 8)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    settings = FilterSettings(
        initial=1.0, step=1.0, regularization=0.05, spacing=0.5,
        label=tuple(float(np.exp(-(0.5 * i) ** 2 / 2)) for i in range(10)),
        mask=tuple(min(1.0, 0.25 * i) for i in range(10))[::-1], weight=(1.0,) * 10)
    save_card(tracking_card(
        path.stem, SIZE, 2, 1, Normalization('none'), factor=SIZE / TARGET, filter=settings,
        onnx_sha256=file_sha256(path)), path)
    return path
