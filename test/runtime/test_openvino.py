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
"""OpenVINO: what it reports and refuses, its cached networks, and when auto chooses it."""

from concurrent.futures import ThreadPoolExecutor
import ctypes
from dataclasses import replace
import json
from pathlib import Path
import re
import signal
import subprocess
import sys

from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, load_card, ModelCard, Normalization, Session
from cgdet_core.runtime.inference import comparison
from cgdet_core.runtime.inference.card import card_path, file_sha256, save_card, TensorSpec
from cgdet_core.runtime.inference.choice import open_session
from cgdet_core.runtime.inference.comparison import comparison_key, ONNXRUNTIME, OPENVINO
from cgdet_core.runtime.inference.int8 import SIGNED, ZERO_POINT
from cgdet_core.runtime.inference.openvino import load_openvino, openvino_version, VARIANTS
from cgdet_core.runtime.tensorrt.building import FLAVORS
from cgdet_core.runtime.tensorrt.cache import EngineCache
from cgdet_core.runtime.tensorrt.engine_file import read_engine
import numpy as np
import pytest
from toy_model import write_toy

MODELS = Path(__file__).resolve().parents[2] / 'models'
needs_openvino = pytest.mark.skipif(not openvino_version(), reason='OpenVINO is not installed')
THREADS = 1


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / 'cache')


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / 'toy.onnx')


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have auto measure, unlike in other tests."""
    monkeypatch.delenv('CGDET_CPU_BACKEND')


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have auto choose between the sessions of the CPU, also on a machine with a GPU."""
    for flavor in FLAVORS:
        monkeypatch.setitem(sys.modules, flavor, None)


def open_in(cache: EngineCache, model: Path, name: str, threads: int = THREADS) -> Session:
    return open_session(model, load_card(model, DetectionCard), name, threads, cache)


def scores(session: Session) -> np.ndarray:
    images = np.random.default_rng(0).random((1, 1, 64, 64), np.float32)
    return session.run({'images': images})['scores']


def write_pair(path: Path, content: bytes, like: Path) -> Path:
    """Write a file with a card that matches its hash."""
    path.write_bytes(content)
    save_card(replace(load_card(like, DetectionCard), onnx_sha256=file_sha256(path)), path)
    return path


@pytest.mark.parametrize('name', VARIANTS)
def test_a_missing_openvino_is_one_sentence(
    cache: EngineCache, toy: Path, monkeypatch: pytest.MonkeyPatch, name: str,
) -> None:
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(UserError, match='^The openvino module is missing; install it with "pip '
                                        'install openvino".$'):
        open_in(cache, toy, name)


@pytest.mark.usefixtures('no_gpu')
def test_auto_without_openvino_uses_onnx_runtime_and_measures_nothing(
    cache: EngineCache, toy: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level('INFO')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    assert open_in(cache, toy, 'auto').describe().startswith('ONNX Runtime')
    assert 'OpenVINO is not installed' in caplog.messages[-1]
    assert not cache.folder.exists()


@needs_openvino
def test_telemetry_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / 'openvino_telemetry.py').write_text('raise SystemExit("imported")\n')
    code = ('from cgdet_core.runtime.inference.openvino import load_openvino, TELEMETRY; '
            'load_openvino(); import sys; assert "openvino" in sys.modules; '
            'assert TELEMETRY not in sys.modules; sys.path.insert(0, sys.argv[1]); '
            'import openvino_telemetry')
    environment = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); '
    for start in ('', environment):
        done = subprocess.run([sys.executable, '-c', start + code, str(tmp_path)],
                              capture_output=True, text=True)
        assert done.stderr.strip() == 'imported', 'only the last statement imports it'


@needs_openvino
def test_a_missing_device_is_one_sentence(cache: EngineCache, toy: Path) -> None:
    if any(d.startswith('GPU') for d in load_openvino().Core().available_devices):
        assert 'GPU' in open_in(cache, toy, 'openvino_gpu').describe()
        pytest.skip('this machine has an Intel GPU')
    with pytest.raises(UserError, match=r'^OpenVINO finds no GPU that it supports; install .* or '
                                        r'use the backend openvino\.$'):
        open_in(cache, toy, 'openvino_gpu')


@needs_openvino
def test_a_file_that_openvino_cannot_read_is_one_sentence(
    cache: EngineCache, toy: Path, tmp_path: Path,
) -> None:
    model = write_pair(tmp_path / 'other.onnx', with_unsupported(toy), toy)
    with pytest.raises(UserError) as error:
        open_in(cache, model, 'openvino')
    words = f'{model} is not an ONNX file that OpenVINO can load: '
    assert str(error.value).startswith(words) and len(str(error.value)) > len(words)
    assert '\n' not in str(error.value) and '/src/' not in str(error.value)
    assert str(error.value).endswith('operations: Det-18')
    assert not cache.files()


def with_unsupported(toy: Path) -> bytes:
    """Return the toy, with an operation that ONNX Runtime has and OpenVINO does not."""
    import onnx

    model = onnx.load(toy)
    for node in model.graph.node:
        node.output[:] = ['sigmoid' if n == 'scores' else n for n in node.output]
    model.graph.node.extend([
        onnx.helper.make_node('Det', ['square'], ['determinant']),
        onnx.helper.make_node('Add', ['sigmoid', 'determinant'], ['scores'])])
    model.graph.initializer.append(onnx.numpy_helper.from_array(
        np.zeros((2, 2), np.float32), 'square'))
    return bytes(model.SerializeToString())


@needs_openvino
@pytest.mark.parametrize(('file', 'wanted'), [('thermal', 'f32'), ('thermal_int8', 'int8')])
def test_it_reports_the_precision_that_runs(file: str, wanted: str) -> None:
    model = MODELS / f'{file}.onnx'
    session = open_session(model, load_card(model, DetectionCard), 'openvino_fp32', THREADS)
    described = re.fullmatch(r'OpenVINO \d{4}\.\d+\.\d+ CPU, (.*)', session.describe())
    assert described and described[1].split(' and ')[0] == wanted
    assert 'f32' in described[1] and '16' not in described[1]


@needs_openvino
def test_the_largest_sums_of_an_int8_file_do_not_overflow(
    cache: EngineCache, tmp_path: Path,
) -> None:
    model = write_convolution(tmp_path / 'convolution.onnx')
    card = load_card(model, ModelCard)
    images = np.ones((1, 16, 8, 8), np.float32)
    for name in ('onnxruntime', 'openvino'):
        found = open_session(model, card, name, THREADS, cache).run({'images': images})
        np.testing.assert_allclose(found['sums'], 16 * 9, rtol=1e-5)


def write_convolution(path: Path) -> Path:
    """Write an INT8 file, as our quantizer does, that sums 3x3 cells of 16 channels."""
    from onnx import checker, helper, numpy_helper, save, TensorProto

    node = helper.make_node
    nodes = [node('Relu', ['images'], ['positive']),
             node('QuantizeLinear', ['positive', 'scale', ZERO_POINT], ['quantized']),
             node('DequantizeLinear', ['quantized', 'scale', ZERO_POINT], ['activations']),
             node('DequantizeLinear', ['ones', 'scales', 'zeros'], ['weights'], axis=0),
             node('Conv', ['activations', 'weights'], ['sums'])]
    constants = {'scale': np.float32(1 / 127), 'scales': np.full(16, 1 / 127, np.float32),
                 'zeros': np.zeros(16, np.int8), 'ones': np.full((16, 16, 3, 3), 127, np.int8)}
    shapes = {'images': (1, 16, 8, 8), 'sums': (1, 16, 6, 6)}
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])]
             for name in shapes]
    graph = helper.make_graph(nodes, 'convolution', *ports, [
        helper.make_tensor(ZERO_POINT, TensorProto.INT8, [], b'\0', raw=True),
        *(numpy_helper.from_array(value, name) for name, value in constants.items())])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    assert SIGNED in path.read_bytes()
    given, returned = ({name: TensorSpec(shapes[name], 'float32', 'NCHW')} for name in shapes)
    save_card(ModelCard(task='other', name='convolution', inputs=given, outputs=returned,
                        normalization=Normalization(), precision='int8',
                        onnx_sha256=file_sha256(path)), path)
    return path


@needs_openvino
def test_a_network_is_compiled_once(
    cache: EngineCache, toy: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level('INFO')
    first = scores(open_in(cache, toy, 'openvino'))
    assert len(cache.files()) == 1 and 'was built' in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(scores(open_in(cache, toy, 'openvino', 2)), first)
    assert not caplog.messages
    open_in(cache, toy, 'openvino_fp32')
    assert len(cache.files()) == 2, 'another precision is another network'


@needs_openvino
@pytest.mark.parametrize('damage', ['checksum', 'content', 'empty'])
def test_a_damaged_network_is_compiled_again(
    cache: EngineCache, toy: Path, damage: str,
) -> None:
    first = scores(open_in(cache, toy, 'openvino'))
    [path] = cache.files()
    if damage == 'content':  # with a correct checksum
        cache.keep(read_engine(path).key, toy, b'junk' * 100)
    else:
        path.write_bytes(path.read_bytes()[:-8] + bytes(8) if damage == 'checksum' else b'')
    np.testing.assert_array_equal(scores(open_in(cache, toy, 'openvino')), first)


def keep_times(cache: EngineCache, model: Path, payload: object, threads: int = THREADS) -> None:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with cache.lock(lambda what, seconds: None):
        cache.keep(comparison_key(load_card(model, DetectionCard), threads), model, content)


@needs_openvino
@pytest.mark.usefixtures('no_gpu')
@pytest.mark.parametrize(('times', 'used'), [
    ((0.034, 0.021), 'OpenVINO'), ((0.021, 0.034), 'ONNX Runtime'),
    ((0.034, 0.033), 'ONNX Runtime')])
def test_auto_uses_the_faster_one_and_states_both_times(
    cache: EngineCache, toy: Path, caplog: pytest.LogCaptureFixture,
    times: tuple[float, float], used: str,
) -> None:
    caplog.set_level('INFO')
    keep_times(cache, toy, dict(zip((ONNXRUNTIME, OPENVINO), times)))
    assert open_in(cache, toy, 'auto').describe().startswith(used)
    for name, seconds in zip(('onnxruntime', 'openvino_fp32'), times):
        assert re.search(rf'{name} (took )?{seconds * 1e3:.1f} ms', caplog.messages[-1])
    assert ('may be chance' in caplog.messages[-1]) == (times == (0.034, 0.033))


@needs_openvino
@pytest.mark.usefixtures('no_gpu')
@pytest.mark.parametrize('payload', [
    None, b'', b'{', b'[]', b'\xff', {}, {ONNXRUNTIME: 1.0}, {ONNXRUNTIME: 1.0, OPENVINO: None},
    {ONNXRUNTIME: 1.0, OPENVINO: -1.0}, {ONNXRUNTIME: float('nan'), OPENVINO: 1.0}, 'threads',
    'damaged'])
def test_auto_measures_if_there_are_no_usable_times(
    cache: EngineCache, toy: Path, payload: object,
) -> None:
    good = {ONNXRUNTIME: 1.0, OPENVINO: 5.0}
    if payload == 'damaged':
        keep_times(cache, toy, good)
        [path] = cache.files()
        path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    elif payload is not None:
        keep_times(cache, toy, good if payload == 'threads' else payload,
                   5 if payload == 'threads' else THREADS)
    session = open_in(cache, toy, 'auto')
    key = comparison_key(load_card(toy, DetectionCard), THREADS)
    times = comparison.recorded(cache, key, toy)
    assert times and times != good, 'measured, and cached'
    assert session.describe().startswith(
        'OpenVINO' if comparison.is_faster(times) else 'ONNX Runtime')
    before = [path.read_bytes() for path in cache.files()]
    assert open_in(cache, toy, 'auto').describe() == session.describe()
    assert [path.read_bytes() for path in cache.files()] == before


@needs_openvino
@pytest.mark.usefixtures('no_gpu')
def test_a_thread_keeps_its_signal_stack(toy: Path, cache: EngineCache) -> None:
    """Else a signal after the last network was closed in another thread ends the process."""
    class Stack(ctypes.Structure):
        _fields_ = (('address', ctypes.c_void_p), ('flags', ctypes.c_int),
                    ('size', ctypes.c_size_t))

    def stack() -> tuple[int | None, int, int]:
        now = Stack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now)) == 0
        return now.address, now.flags, now.size

    before = stack()
    session = open_in(cache, toy, 'openvino_fp32')
    assert stack() == before
    with ThreadPoolExecutor(1) as pool:
        pool.submit(session.close).result()
    assert stack() == before
    signal.signal(signal.SIGUSR1, lambda *_: None)  # Python handles signals on that stack
    signal.raise_signal(signal.SIGUSR1)


def test_auto_uses_the_backend_that_the_environment_names(
    cache: EngineCache, toy: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, title in (('openvino_fp32', 'OpenVINO'), ('onnxruntime', 'ONNX Runtime')):
        monkeypatch.setenv('CGDET_CPU_BACKEND', name)
        assert open_in(cache, toy, 'auto').describe().startswith(title)
    monkeypatch.setenv('CGDET_CPU_BACKEND', 'onyx')
    with pytest.raises(UserError, match="no backend 'onyx'"):
        open_in(cache, toy, 'auto')


def test_auto_continues_with_a_warning_if_openvino_fails(
    cache: EngineCache, toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    model = write_pair(tmp_path / 'other.onnx', with_unsupported(toy), toy)
    caplog.set_level('INFO')
    assert open_in(cache, model, 'auto').describe().startswith('ONNX Runtime')
    assert [r.levelname for r in caplog.records] == ['WARNING', 'INFO']
    assert re.search('OpenVINO is skipped: .*Det', caplog.messages[0])
    assert 'OpenVINO failed' in caplog.messages[1]


@needs_openvino
@pytest.mark.usefixtures('no_gpu')
def test_auto_reports_an_unreadable_file_once(
    cache: EngineCache, toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    model = write_pair(tmp_path / 'other.onnx', b'junk', toy)
    with pytest.raises(UserError, match='is not an ONNX file that a backend can load'):
        open_in(cache, model, 'auto')
    assert not caplog.messages


@needs_openvino
@pytest.mark.usefixtures('no_gpu')
def test_without_a_usable_cache_auto_measures_at_every_start(
    tmp_path: Path, toy: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / 'file').touch()
    cache = EngineCache(tmp_path / 'file' / 'cache')
    session = open_in(cache, toy, 'auto')
    assert session.describe().startswith(('OpenVINO', 'ONNX Runtime'))
    assert 'cannot be used' in caplog.text and 'skipped' not in caplog.text
    assert card_path(toy).is_file()
