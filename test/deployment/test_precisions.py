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

"""FP16 and INT8 files: types, detections, and execution in ONNX Runtime."""

from collections.abc import Callable
import json
from pathlib import Path
import re

from cgdet_core.data.coco import load_coco
from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.deployment.calibration import _leave_out, Judge, load_frames, open_session
from cgdet_core.deployment.export import export
from cgdet_core.deployment.precisions import (
    activations,
    layers,
    maybe_negative,
    to_half,
    to_int8,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.detection.postprocess import iou
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.inference.int8 import (
    read_for_cpu,
    SIGNED,
    SIGNED_ZERO_POINT,
    UNSIGNED,
    ZERO_POINT,
)
from cgdet_core.runtime.inference.onnxruntime import SLOWER
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.tracker import Tracker
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime
import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope='module')
def int8_model(
    tmp_path_factory: pytest.TempPathFactory, trained: Path, scenes: Path,
    run_cgdet: Callable,
) -> Path:
    path = tmp_path_factory.mktemp('int8') / 'tiny.onnx'
    result = run_cgdet('export', trained / 'last.ckpt', '--output', path, '--precision', 'int8',
                       '--calibration', scenes)
    assert result.returncode == 0, result.stderr
    assert '12 frames of' in result.stdout
    return path


def types(path: Path) -> dict[str, int]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type
             for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


def changed(one: Path, other: Path, scenes: Path) -> float:
    detector = Detector.load(one)
    judge = Judge(onnx.load(one), detector, load_frames(scenes, 12))
    return judge.difference(onnx.load(other))


def test_fp16_has_half_layers_and_decodes_in_full(
    tmp_path: Path, onnx_model: Path, scenes: Path,
) -> None:
    path = tmp_path / 'half.onnx'
    card = export(onnx_model, path, 'fp16')
    kinds = types(path)
    assert {kinds[name] for name in ('images', 'boxes', 'scores')} == {FLOAT}
    for node in onnx.load(path).graph.node:
        inside = {kinds[name] for name in (*node.input, *node.output) if name}
        if node.op_type in ('Conv', 'Relu', 'Add', 'MaxPool') and HALF in inside:
            assert inside == {HALF}
        if node.op_type in ('TopK', 'Softmax', 'ReduceSum', 'Sigmoid', 'Sub', 'Mul'):
            assert HALF not in inside
        if node.op_type == 'Conv':
            assert inside == {HALF}
    assert path.stat().st_size < 0.8 * onnx_model.stat().st_size
    assert card.precision == 'fp16' and not card.accuracy
    assert 0 < changed(onnx_model, path, scenes) < 0.005
    Detector.load(path)


@pytest.mark.parametrize('name', ['thermal_tracker', 'rgbt_tracker'])
def test_a_tracker_in_fp16_sees_the_same(tmp_path: Path, name: str) -> None:
    model, path = ROOT / 'models' / f'{name}.onnx', tmp_path / 'half.onnx'
    card = export(model, path, 'fp16')
    assert card.precision == 'fp16' and path.stat().st_size < 0.55 * model.stat().st_size
    kinds = types(path)
    assert {kinds[name] for name in (*card.inputs, *card.outputs)} == {FLOAT}
    for node in onnx.load(path).graph.node:
        if node.op_type in ('Conv', 'Relu', 'LayerNormalization'):
            assert {kinds[name] for name in (*node.input, *node.output) if name} == {HALF}
    scene = Scene.traffic(900_000)
    frames = [scene.frame(5 + number / 10) for number in range(5)]
    box = max(frames[0].boxes, key=lambda box: float((box[2:] - box[:2]).prod()))
    exact, found = (Tracker(TrackingModel.load(file, 1, 'onnxruntime')) for file in (model, path))
    for frame in frames:
        counts = to_counts(frame.kelvin)
        for tracker in (exact, found) if frame is frames[0] else ():
            tracker.start(counts, box, frame.stamp)
        one, other = (tracker.follow(counts, frame.stamp) for tracker in (exact, found))
        assert iou(one.box[None], other.box[None])[0, 0] > 0.95 and one.state == other.state


def test_constants_that_fp16_does_not_know_stay_above_0(onnx_model: Path) -> None:
    model = onnx.load(onnx_model)
    name = layers(model)[0]
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[:2] = -1e-12, 0
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    weights = next(t for t in to_half(model).graph.initializer if t.name == name)
    found = numpy_helper.to_array(weights).ravel()
    assert found.dtype == np.float16 and -1e-7 < found[0] < 0 and found[1] == 0


def test_weights_beyond_half_precision_stay_finite(onnx_model: Path) -> None:
    model = onnx.load(onnx_model)
    name = layers(model)[0]
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(1e6 * numpy_helper.to_array(tensor), name))
    weights = next(t for t in to_half(model).graph.initializer if t.name == name)
    assert np.isfinite(numpy_helper.to_array(weights)).all()


def test_int8_is_symmetric_with_pairs_before_every_convolution(int8_model: Path) -> None:
    graph = onnx.load(int8_model).graph
    kinds = types(int8_model)
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    left_out = json.loads(
        int8_model.with_suffix('.json').read_text())['training']['calibration']['left_out']
    quantized = 0
    for node in graph.node:
        if node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            assert values[node.input[2]].dtype == np.int8 and not values[node.input[2]].any()
            assert (values[node.input[1]] > 0).all()
        if node.op_type == 'Conv' and node.input[1] not in left_out:
            entry, weight = made[node.input[0]], made[node.input[1]]
            assert entry.op_type == weight.op_type == 'DequantizeLinear'
            assert values[weight.input[0]].dtype == np.int8
            assert values[weight.input[1]].shape == values[node.input[2]].shape  # per channel
            assert kinds[node.input[2]] == FLOAT
            quantized += 1
        if node.op_type == 'Concat' and made[node.input[0]].op_type == 'DequantizeLinear':
            scales = {float(values[made[name].input[1]]) for name in node.input}
            assert len(scales) == 1
    assert quantized > 30
    assert {kinds[name] for name in ('images', 'boxes', 'scores')} == {FLOAT}


def test_the_card_records_the_calibration(int8_model: Path, trained: Path) -> None:
    card = json.loads(int8_model.with_suffix('.json').read_text())
    record = card['training']['calibration']
    assert card['precision'] == 'int8' and record['frames'] == 12
    assert record['difference_by_method'][record['method']] == min(
        record['difference_by_method'].values())
    assert record['difference'] <= record['difference_by_method'][record['method']]
    assert card['training']['recipe']['name'] == 'tiny' and not card['accuracy']


def test_int8_detects_what_fp32_detects(
    int8_model: Path, onnx_model: Path, scenes: Path,
) -> None:
    assert 0 < changed(onnx_model, int8_model, scenes) < 0.3


def test_onnx_runtime_runs_int8_files_with_integers(int8_model: Path, tmp_path: Path) -> None:
    content = int8_model.read_bytes()
    assert content.count(SIGNED) == 1
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / 'optimized.onnx')
    onnxruntime.InferenceSession(
        content.replace(SIGNED, UNSIGNED), options, providers=['CPUExecutionProvider'])
    kinds = [n.op_type for n in onnx.load(tmp_path / 'optimized.onnx').graph.node]
    outputs = 6  # a class and a box convolution per level give FP32
    convolutions = sum(n.op_type == 'Conv' for n in onnx.load(int8_model).graph.node)
    assert kinds.count('QLinearConv') >= 0.9 * (convolutions - outputs)
    assert kinds.count('Relu') == 0


def test_the_unsigned_form_of_onnx_runtime_is_equal(int8_model: Path, scenes: Path) -> None:
    detector = Detector.load(int8_model)
    signed = open_session(onnx.load(int8_model), [])
    for record in load_coco(scenes).images[:4]:
        detector.detect(read_thermal(record.path))
        _, scores = signed.run(None, {'images': detector.input})
        # Beyond the calibrated range int8 saturates and uint8 does not.
        np.testing.assert_allclose(scores.max(2), detector.scores.max(2), atol=0.02)


def test_the_worst_layers_are_left_out_while_it_helps(onnx_model: Path) -> None:
    model = onnx.load(onnx_model)
    names = layers(model)
    gains = {names[3]: 0.3, names[5]: 0.15, names[7]: 0.05}

    class Listed:
        def difference(self, tried: onnx.ModelProto) -> float:
            kept = {t.name for t in tried.graph.initializer}
            return 1 - sum(gain for name, gain in gains.items() if name in kept)

    limits = dict.fromkeys(activations(model), 1.0)
    left_out, difference = _leave_out(model, limits, Listed(), 1.0)  # type: ignore[arg-type]
    assert left_out == [names[3], names[5]] and difference == pytest.approx(0.55)


def test_a_layer_left_out_keeps_its_weights(onnx_model: Path) -> None:
    model = onnx.load(onnx_model)
    limits = dict.fromkeys(activations(model), 1.0)
    graph = to_int8(model, limits, layers(model)).graph
    before, after = ({t.name: numpy_helper.to_array(t) for t in g.initializer}
                     for g in (model.graph, graph))
    for name in layers(model):
        assert after[name].dtype == np.float32 and np.array_equal(after[name], before[name])
    first = next(n for n in to_int8(model, limits, layers(model)[:1]).graph.node
                 if n.op_type == 'Conv')
    assert first.input[0] == 'images'


def test_a_bias_fits_whatever_its_weights() -> None:
    # ONNX Runtime makes biases int32 in units of input scale times weight scale.
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 1, 3, 3)).astype(np.float32)
    weights[1] *= 1e-9
    weights[2] = 0
    constants = {'w': weights, 'b': np.array([0.1, 1.5, 0.7], np.float32),
                 'w2': np.ones((1, 3, 1, 1), np.float32), 'b2': np.zeros(1, np.float32)}
    graph = helper.make_graph(
        [helper.make_node('Conv', ['images', 'w', 'b'], ['a'], 'first'),
         helper.make_node('Relu', ['a'], ['r'], 'relu'),
         helper.make_node('Conv', ['r', 'w2', 'b2'], ['y'], 'second')], 'dead channels',
        [helper.make_tensor_value_info('images', FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info('y', FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    content = to_int8(model, {'images': 1.0, 'r': 8.0}).SerializeToString()
    images = {'images': rng.random((1, 1, 8, 8), dtype=np.float32)}
    expected, found = (
        onnxruntime.InferenceSession(c, providers=['CPUExecutionProvider']).run(None, images)[0]
        for c in (model.SerializeToString(), content.replace(SIGNED, UNSIGNED)))
    np.testing.assert_allclose(found, expected, atol=0.2)


def test_what_may_be_negative_is_signed_for_tensorrt_and_has_a_zero_point_for_cpus(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    constants = {'w': rng.normal(size=(4, 1, 3, 3)), 'x': rng.normal(size=(4, 4, 1, 1)),
                 'y': rng.normal(size=(2, 12, 1, 1))}
    node = helper.make_node
    graph = helper.make_graph(
        [node('Conv', ['images', 'w'], ['a'], 'first'), node('LeakyRelu', ['a'], ['b'], 'leaky'),
         node('Relu', ['a'], ['r'], 'relu'), node('Conv', ['r', 'x'], ['d'], 'linear'),
         node('Conv', ['d', 'x'], ['e'], 'second'), node('Relu', ['e'], ['f'], 'positive'),
         node('Conv', ['f', 'x'], ['g'], 'third'), node('LeakyRelu', ['g'], ['h'], 'leaky 2'),
         node('Add', ['h', 'b'], ['i'], 'sum'),
         node('Concat', ['b', 'i', 'd'], ['j'], 'joined', axis=1),
         node('Conv', ['j', 'y'], ['k'], 'last')], 'leaky',
        [helper.make_tensor_value_info('images', FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info('k', FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    names = activations(model)
    assert {*names} == {'images', *'abdfghij', 'r'} - {'e'}
    assert maybe_negative(model) == {*'abdeghijk'}
    images = {'images': rng.random((1, 1, 8, 8), dtype=np.float32)}
    session = open_session(model, names)
    largest = dict(zip(names[1:], session.run(names[1:], images)))
    limits = {name: float(np.abs(largest.get(name, 1)).max()) for name in names}
    onnx.save(to_int8(model, limits), tmp_path / 'int8.onnx')
    written = onnx.load(tmp_path / 'int8.onnx')
    zeros = {t.name: t for t in written.graph.initializer if 'activation' in t.name}
    assert {*zeros} == {ZERO_POINT, SIGNED_ZERO_POINT}
    assert {t.data_type for t in zeros.values()} == {TensorProto.INT8}
    signed = {n.input[0] for n in written.graph.node
              if n.op_type == 'QuantizeLinear' and n.input[2] == SIGNED_ZERO_POINT}
    assert signed == {*'abdghij'}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'optimized.onnx')
    on_cpu = onnxruntime.InferenceSession(
        read_for_cpu(tmp_path / 'int8.onnx'), options, providers=['CPUExecutionProvider'])
    expected = open_session(written, []).run(None, images)[0]
    found = on_cpu.run(None, images)[0]
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    kinds = [n.op_type for n in onnx.load(tmp_path / 'optimized.onnx').graph.node]
    # A CPU without VNNI adds two products in 16 bits.
    weights = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    for name, largest in (('w', 127), ('x', 63), ('y', 63)):
        assert np.abs(weights[f'{name}_quantized']).max() == largest
    assert kinds.count('QLinearConv') >= 4 and 'QLinearLeakyRelu' in kinds


@pytest.mark.parametrize('kind', ['Relu', 'LeakyRelu'])
def test_what_follows_a_layer_left_out_is_rounded_once(tmp_path: Path, kind: str) -> None:
    node = helper.make_node
    graph = helper.make_graph(
        [node('Conv', ['images', 'w'], ['a'], 'first'), node(kind, ['a'], ['b'], 'active'),
         node('MaxPool', ['b'], ['c'], 'pool', kernel_shape=[2, 2], strides=[2, 2]),
         node('Conv', ['c', 'v'], ['d'], 'second')], 'stem',
        [helper.make_tensor_value_info('images', FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info('d', FLOAT, [1, 1, 4, 4])],
        [numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), name) for name in 'wv'])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    limits = dict.fromkeys(activations(model), 1.0)
    every = {'images', *('bc' if kind == 'Relu' else 'abc')}
    for left_out, expected in (([], every), (['w'], {'c'})):
        written = to_int8(model, limits, left_out)
        assert {n.input[0] for n in written.graph.node
                if n.op_type == 'QuantizeLinear'} == expected
    # A rounded maximum is the maximum of rounded values.
    images = {'images': np.random.default_rng(0).random((1, 1, 8, 8), dtype=np.float32)}
    [found] = open_session(written, []).run(None, images)
    pooled = images['images'].reshape(4, 2, 4, 2).max((1, 3)) * 127
    np.testing.assert_allclose(found[0, 0], np.rint(pooled) / 127, atol=1e-6)
    # ONNX Runtime would move the rounding before the maximum, where it is slow.
    onnx.save(written, tmp_path / 'int8.onnx')
    for switched_off, kinds in (([], 'QuantizeLinear'), ([SLOWER], '.*Conv|.*Relu|Reorder.*')):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / 'optimized.onnx')
        onnxruntime.InferenceSession(
            read_for_cpu(tmp_path / 'int8.onnx'), options, providers=['CPUExecutionProvider'],
            disabled_optimizers=switched_off)
        nodes = onnx.load(tmp_path / 'optimized.onnx').graph.node
        pooling = next(n for n in nodes if 'MaxPool' in n.op_type)
        before = next(n for n in nodes if pooling.input[0] in n.output)
        assert re.fullmatch(kinds, before.op_type), before.op_type


def test_nodes_that_int8_does_not_know_are_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node('Conv', ['images', 'w'], ['a']),
         helper.make_node('HardSwish', ['a'], ['b']), helper.make_node('Conv', ['b', 'w'], ['c'])],
        'hard swish', [helper.make_tensor_value_info('images', FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info('c', FLOAT, [1, 1, 8, 8])],
        [numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), 'w')])
    with pytest.raises(UserError, match='int8 knows no HardSwish'):
        to_int8(helper.make_model(graph), {})


def test_the_zero_point_is_found_by_its_name() -> None:
    for kind, prefix in ((TensorProto.INT8, SIGNED), (TensorProto.UINT8, UNSIGNED)):
        tensor = helper.make_tensor(ZERO_POINT, kind, [], b'\0', raw=True)
        assert tensor.SerializeToString() == prefix
