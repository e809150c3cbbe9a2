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

"""Small ONNX files with cards: boxes that depend on the frame, slow inference, failures."""

from pathlib import Path

from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.inference.card import BATCH, file_sha256, save_card
import numpy as np
import pytest

SIZE = 64  # of the input; frames are not scaled
BOXES = np.array([[2, 2, 20, 20], [22, 2, 40, 20], [2, 22, 20, 40], [22, 22, 40, 40]], np.float32)
SCORES = np.array([[.9, .1, .1], [.1, .7, .1], [.1, .1, .5], [.1, .1, .3]], np.float32)
MANY = 1e6
SHIFT = 20.0  # pixels by which the boxes of a white frame are moved right and down


def write_model(
    path: Path, batch: int | str = 1, fails: bool = False, hangs: bool = False,
    classes: tuple[str, ...] = ('person', 'bicycle', 'car'), ballast: int = 0,
    nan_above: float | None = None,
) -> Path:
    """
    Write a model of 64x64 pixels whose boxes move by SHIFT times the frame's mean.

    fails: inference fails for frames of a mean above 0.9. hangs: inference does not end for
    them: it adds MANY numbers MANY times. ballast: bytes of weights.
    nan_above: the boxes are NaN for frames of a mean above this.
    """
    pytest.importorskip('onnx', reason='training is not installed')
    from onnx import checker, helper, numpy_helper, save, TensorProto

    def value(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    constants = {
        'axes': np.array([1, 2, 3]), 'shape': np.array([-1, 1, 1]), 'base': BOXES[None],
        'shift': np.float32(SHIFT), 'zero': np.float32(0), 'known': SCORES[None],
        'limit': np.float32(0.9), 'five': np.int64(5), 'vector': np.zeros(1, np.float32),
        'many': np.float32(MANY), 'one': np.float32(1), 'first': np.array([0])}
    node = helper.make_node
    nodes = [
        node('ReduceMean', ['images', 'axes'], ['mean'], keepdims=0),
        node('Reshape', ['mean', 'shape'], ['means']), node('Mul', ['means', 'shift'], ['moved']),
        node('ReduceMean', ['images'], ['top'], keepdims=0)]
    extra = 'zero'
    if nan_above is not None:
        constants['bound'] = np.float32(nan_above)
        nodes += [node('Sub', ['bound', 'top'], ['left']), node('Sqrt', ['left'], ['root']),
                  node('Mul', ['root', 'zero'], ['extra'])]
        extra = 'extra'
    if fails or hangs:
        nodes += [node('Greater', ['top', 'limit'], ['bright'])]
    if fails:
        nodes += [node('Cast', ['bright'], ['number'], to=TensorProto.INT64),
                  node('Mul', ['number', 'five'], ['index']),
                  node('Gather', ['vector', 'index'], ['extra'])]
        extra = 'extra'
    elif hangs:
        nodes += [node('Cast', ['bright'], ['when'], to=TensorProto.FLOAT),
                  node('Mul', ['when', 'many'], ['more']), node('Add', ['more', 'one'], ['steps']),
                  node('Cast', ['steps'], ['length'], to=TensorProto.INT64),
                  node('Unsqueeze', ['length', 'first'], ['lengths']),
                  node('ConstantOfShape', ['lengths'], ['line']),
                  node('Scan', ['vector', 'line'], ['extra'], num_scan_inputs=1,
                       body=_scanned('line'))]
        extra = 'extra'
    looked_up = 'means'
    if ballast:  # indexed at run time, else ONNX Runtime would fold it
        constants['ballast'] = np.arange(ballast // 4, dtype=np.float32)
        nodes += [node('Cast', ['means'], ['where'], to=TensorProto.INT64),
                  node('Gather', ['ballast', 'where'], ['weights'])]
        looked_up = 'weights'
    nodes += [node('Add', ['moved', extra], ['all']), node('Add', ['base', 'all'], ['boxes']),
              node('Mul', [looked_up, 'zero'], ['nothing']),
              node('Add', ['known', 'nothing'], ['scores'])]
    graph = helper.make_graph(
        nodes, 'toy', [value('images', 1, SIZE, SIZE)],
        [value('boxes', 4, 4), value('scores', 4, 3)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    save_card(detection_card(path.stem, classes, (SIZE, SIZE), Normalization('none'), top_k=4,
                             batch=batch if isinstance(batch, int) else BATCH,
                             onnx_sha256=file_sha256(path)), path)
    return path


def _scanned(line: str = '') -> object:
    """Return the body of a Scan that adds a number; or all of `line`, for each number."""
    from onnx import helper, TensorProto

    def info(name: str, *shape: int) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    part = 'outer' if line else 'inner'
    names = f'{part}_sum', f'{part}_item', f'{part}_next'
    last = helper.make_node('Scan', [names[0], line], [names[2]], num_scan_inputs=1,
                            body=_scanned()) if line else (
        helper.make_node('Add', names[:2], names[2:]))
    return helper.make_graph([last], part, [info(names[0], 1), info(names[1])],
                             [info(names[2], 1)])


def gray(level: float) -> np.ndarray:
    """Return an 8-bit frame of one brightness, 0 to 1."""
    return np.full((SIZE, SIZE), round(level * 255), np.uint8)
