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

"""Sessions are independent of tasks: named tensors in and out, as in the card."""

from dataclasses import replace
from pathlib import Path

from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, Detector, load_card, ModelCard
from cgdet_core.runtime.inference import choice
from cgdet_core.runtime.inference.choice import open_session, shipped_model
from cgdet_core.runtime.inference.onnxruntime import OnnxRuntimeSession, open_onnx
from cgdet_core.runtime.inference.openvino import openvino_version
from cgdet_core.runtime.inference.session import Session
from cgdet_core.runtime.tensorrt.building import Unavailable
import numpy as np
import onnxruntime
import pytest
from toy_model import write_toy, write_tracker

BACKENDS = ('onnxruntime', 'openvino')


def inputs(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    return {'target': rng.random((1, 1, 8, 8), np.float32),
            'search': rng.random((count, 1, 16, 16), np.float32)}


def expected(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the tracker of `write_tracker` finds, by numpy."""
    search = arrays['search']
    cells = search.reshape(len(search), 1, 4, 4, 4, 4).mean((3, 5))
    similarity = cells * arrays['target'].mean()
    flat = similarity.reshape(len(search), 16)
    return {'similarity': similarity, 'score': flat.max(1, keepdims=True),
            'place': flat.argmax(1, keepdims=True)}


def open_tracker(model: Path, backend: str, **changes: object) -> Session:
    if backend == 'openvino' and not openvino_version():
        pytest.skip('OpenVINO is not installed')
    return open_session(model, replace(load_card(model, ModelCard), **changes), backend, 1)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('batch', [1, 'batch'])
def test_a_network_of_another_task_runs(
    tmp_path: Path, batch: int | str, backend: str,
) -> None:
    model = write_tracker(tmp_path / 'tracker.onnx', batch)
    session = open_tracker(model, backend)
    assert session.max_batch == (64 if batch == 'batch' else 1)
    for count in (1, 2, 3) if batch == 'batch' else (1, 1):
        wanted = expected(inputs(count))
        found = session.run(inputs(count))
        assert found.keys() == wanted.keys() and found['place'].dtype == np.int64
        out = {name: np.zeros_like(array) for name, array in found.items()}
        assert session.run(inputs(count), out) is out
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6)
            np.testing.assert_array_equal(out[name], found[name])
    session.close()


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('wrong', ['type', 'shape', 'strides'])
def test_arrays_that_cannot_be_filled_are_refused(
    tmp_path: Path, wrong: str, backend: str,
) -> None:
    session = open_tracker(write_tracker(tmp_path / 'tracker.onnx'), backend)
    out = session.run(inputs(1))
    out['similarity'] = {
        'type': np.zeros((1, 1, 4, 4), np.int64), 'shape': np.zeros((1, 1, 4, 2), np.float32),
        'strides': np.zeros((1, 1, 4, 8), np.float32)[..., ::2]}[wrong]
    with pytest.raises(Exception, match='similarity|[Ss]hape|[Tt]ype|precision|contiguous'):
        session.run(inputs(1), out)
    assert not out['similarity'].any()


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('batch', [1, 'batch'])
def test_results_remain_after_later_runs(tmp_path: Path, batch: int | str, backend: str) -> None:
    session = open_tracker(write_tracker(tmp_path / 'tracker.onnx', batch), backend)
    first = inputs(1)
    second = {name: 1 - array for name, array in first.items()}
    for array in (*first.values(), *second.values()):
        array.flags.writeable = False
    own = session.run(first)
    given = session.run(first, {name: np.zeros_like(array) for name, array in own.items()})
    wanted = expected(first)
    for later in (second, second):
        session.run(later)
        session.run(later, {name: np.zeros_like(array) for name, array in own.items()})
    session.close()
    for name in wanted:
        np.testing.assert_allclose(own[name], wanted[name], rtol=1e-6)
        np.testing.assert_array_equal(given[name], own[name])


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('change', 'words'), [
    ({'shape': (1, 1, 16, 8)}, r'card has search \(1, 1, 16, 8\) float32, the file has search '
                               r'\(1, 1, 16, 16\) float32; rerun'),
    ({'shape': ('batch', 1, 16, 16)}, r'card has search \(batch, 1, 16, 16\)'),
    ({'dtype': 'float16'}, r'card has search \(1, 1, 16, 16\) float16, the file')])
def test_a_file_that_does_not_fit_its_card(
    tmp_path: Path, change: dict, words: str, backend: str,
) -> None:
    model = write_tracker(tmp_path / 'tracker.onnx')
    card = load_card(model, ModelCard)
    search = replace(card.inputs['search'], **change)
    with pytest.raises(UserError, match=f'does not fit its card.*{words}'):
        open_tracker(model, backend, inputs={**card.inputs, 'search': search})


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('side', ['inputs', 'outputs'])
def test_names_that_file_and_card_do_not_share(
    tmp_path: Path, side: str, backend: str,
) -> None:
    model = write_tracker(tmp_path / 'tracker.onnx')
    card = load_card(model, ModelCard)
    (name, spec), *rest = getattr(card, side).items()
    with pytest.raises(UserError, match=f'the card has nothing more, the file has {name}'):
        open_tracker(model, backend, **{side: dict(rest)})
    with pytest.raises(UserError, match=r'has other .*, the file has nothing more; rerun "cgdet'):
        specs = {**getattr(card, side), 'other': spec}
        open_tracker(model, backend, **{side: specs})


def test_a_file_may_accept_more_than_its_card(tmp_path: Path) -> None:
    model = write_toy(tmp_path / 'toy.onnx', 'n')
    card = load_card(model, DetectionCard).with_batch(1)
    assert OnnxRuntimeSession(model, card).max_batch == 64


def test_a_card_of_another_task_is_an_error(tmp_path: Path) -> None:
    model = write_tracker(tmp_path / 'tracker.onnx')
    with pytest.raises(UserError, match='is a tracking model, not a detection model'):
        Detector.load(model)


@pytest.mark.parametrize('newer', ['ir_version', 'opset'])
def test_a_file_of_a_newer_onnx_is_refused_with_what_to_do(tmp_path: Path, newer: str) -> None:
    onnx = pytest.importorskip('onnx', reason='training is not installed')
    model = onnx.load(write_toy(tmp_path / 'toy.onnx'))
    if newer == 'opset':
        model.opset_import[0].version = 99
    else:
        model.ir_version = 99
    with pytest.raises(UserError, match='newer version of ONNX.*pip install -U onnxruntime'):
        open_onnx(model.SerializeToString(), 'toy.onnx')


@pytest.mark.parametrize(('backend', 'providers', 'name'), [
    ('auto', ['CPUExecutionProvider'], 'thermal_int8.onnx'),
    ('openvino', ['CPUExecutionProvider'], 'thermal_int8.onnx'),
    ('auto', ['CUDAExecutionProvider', 'CPUExecutionProvider'], 'thermal_small.onnx'),
    ('openvino', ['CUDAExecutionProvider', 'CPUExecutionProvider'], 'thermal_int8.onnx'),
    ('openvino_gpu', ['CPUExecutionProvider'], 'thermal_small.onnx')])
def test_the_shipped_model_for_a_camera_depends_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, backend: str, providers: list[str], name: str,
) -> None:
    def unavailable(flavor: str) -> None:
        raise Unavailable('no GPU', 'buy one')

    monkeypatch.setattr(choice, 'check_device', unavailable)
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: providers)
    assert shipped_model(backend).name == name


def test_a_gpu_of_tensorrt_gets_the_fp32_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_rtx(flavor: str) -> None:
        if flavor != 'tensorrt_rtx':
            raise Unavailable('another GPU', 'use the other')

    monkeypatch.setattr(choice, 'check_device', only_rtx)
    assert shipped_model().name == shipped_model('tensorrt_rtx').name == 'thermal_small.onnx'
    assert shipped_model('onnxruntime').name == 'thermal_int8.onnx'


@pytest.mark.parametrize(('value', 'used'), [(None, '20'), ('0', '0'), ('1000000', '1000000')])
def test_threads_wait_as_long_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, used: str,
) -> None:
    if value is not None:
        monkeypatch.setenv('CGDET_SPIN_US', value)
    session = open_onnx(str(write_toy(tmp_path / 'toy.onnx')), 'toy')
    options = session.get_session_options()
    assert options.get_session_config_entry('session.intra_op.spin_duration_us') == used


@pytest.mark.parametrize('value', ['', 'long', '-1', '1e3', '1000001'])
def test_a_wrong_time_to_wait_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str,
) -> None:
    monkeypatch.setenv('CGDET_SPIN_US', value)
    with pytest.raises(UserError, match='CGDET_SPIN_US must be an integer from 0 to 1000000'):
        open_onnx(str(write_toy(tmp_path / 'toy.onnx')), 'toy')
