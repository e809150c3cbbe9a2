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

"""
The TensorRT session: its logic on a simulated GPU, its calls against the real CUDA bindings.

What a real GPU does is tested only where there is one (marker gpu).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
import sys
from types import SimpleNamespace
from typing import Any

from cgdet_core.deployment import engines
from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, load_card, ModelCard
from cgdet_core.runtime.inference.choice import open_session
from cgdet_core.runtime.inference.onnxruntime import OnnxRuntimeSession
from cgdet_core.runtime.tensorrt import building
from cgdet_core.runtime.tensorrt import session as tensorrt
from cgdet_core.runtime.tensorrt.building import tensorrt_logger
from cgdet_core.runtime.tensorrt.cache import EngineCache
from cgdet_core.runtime.tensorrt.cuda import Cuda, CudaError
from cgdet_core.runtime.tensorrt.session import SIZES, TensorRTSession
import numpy as np
import pytest
from simulated_gpu import Context, cudaError_t, Cudart, Engine, module
from toy_model import write_toy, write_tracker


class Machine:
    """A robot with a simulated GPU; a build returns the ONNX file's content."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.cudart, self.engines = Cudart(), list[Engine]()
        self.cache = EngineCache(folder / 'cache')
        self.built: list[bytes] = []
        self.payload: Callable[[Path], bytes] = Path.read_bytes
        simulated = module(self.cudart, self.engines)
        for flavor in ('tensorrt', 'tensorrt_rtx'):
            patch.setitem(sys.modules, flavor, simulated)
        patch.setitem(sys.modules, 'cuda', SimpleNamespace())
        patch.setitem(sys.modules, 'cuda.bindings', SimpleNamespace(runtime=self.cudart))
        patch.setitem(sys.modules, 'openvino', None)  # auto may prefer it on the CPU
        patch.delenv('CGDET_CPU_BACKEND')
        patch.setattr(tensorrt, 'build_engine', self.build)

    def build(self, flavor: Any, model: Path, targets: Any, progress: Any) -> bytes:
        self.built.append(self.payload(model))
        return self.built[-1]

    def open(
        self, model: Path, name: str = 'tensorrt', kind: type[ModelCard] = DetectionCard,
    ) -> Any:
        return open_session(model, load_card(model, kind), name, cache=self.cache)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    tensorrt_logger.cache_clear()
    yield Machine(monkeypatch, tmp_path)
    tensorrt_logger.cache_clear()


def reference_of(model: Path) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(model, load_card(model, DetectionCard))


def outputs(session: Any, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(seed).random((count, 1, 64, 64), np.float32)
    boxes = np.full((count, 4, 4), -1, np.float32)
    scores = np.full((count, 4, 3), -1, np.float32)
    found = session.run({'images': images}, {'boxes': boxes, 'scores': scores})
    assert found['boxes'] is boxes and found['scores'] is scores
    return boxes, scores


@pytest.mark.parametrize('batch', [1, 2, 'n'])
@pytest.mark.parametrize('name', ['tensorrt', 'tensorrt_rtx'])
@pytest.mark.parametrize('capture', [True, False])
def test_it_returns_what_onnx_runtime_returns(
    machine: Machine, tmp_path: Path, batch: int | str, name: str, capture: bool,
) -> None:
    model = write_toy(tmp_path / 'toy.onnx', batch)
    if not capture:
        machine.cudart.failing['cudaGraphInstantiate'] = \
            cudaError_t.cudaErrorStreamCaptureUnsupported
    session, reference = machine.open(model, name), reference_of(model)
    assert session.max_batch == (16 if batch == 'n' else batch)
    for seed, count in enumerate((1, 3, 3, 1, 16) if batch == 'n' else (batch,) * 3):
        assert isinstance(count, int)
        for a, b in zip(outputs(session, count, seed), outputs(reference, count, seed)):
            np.testing.assert_array_equal(a, b)
    graphs = capture and name == 'tensorrt'
    assert (machine.cudart.launches > 0) == graphs
    assert ('with CUDA graph' in session.describe()) == (graphs or name == 'tensorrt_rtx')
    assert 'Orin (sm87)' in session.describe()


def test_everything_is_freed(machine: Machine, tmp_path: Path) -> None:
    session = machine.open(write_toy(tmp_path / 'toy.onnx'))
    assert machine.cudart.memory
    assert sorted(machine.cudart.alive) == ['context', 'graph', 'stream']
    session.close()
    session.close()
    assert not machine.cudart.memory and not machine.cudart.alive
    session = machine.open(write_toy(tmp_path / 'toy.onnx'))
    del session
    assert not machine.cudart.memory and not machine.cudart.alive


def run_batches(machine: Machine, model: Path, batches: Sequence[int], name: str) -> int:
    """Run batches, compare them with ONNX Runtime, and return how many were graphs."""
    session, reference = machine.open(model, name), reference_of(model)
    before = machine.cudart.launches
    for seed, count in enumerate(batches):
        for a, b in zip(outputs(session, count, seed), outputs(reference, count, seed)):
            np.testing.assert_array_equal(a, b)
    graphs = machine.cudart.launches - before
    contexts = machine.cudart.alive.count('context')
    assert contexts <= min(SIZES if graphs else 1, machine.engines[-1].max_contexts)
    session.close()
    assert not machine.cudart.memory and not machine.cudart.alive
    return graphs


@pytest.mark.parametrize('batches, graphs', [
    ([1, 2] * 10, 19), ([1, 2, 3, 4] * 5, 17), ([2] * 20, 19),
    # One more than there are contexts for: those in use keep their graphs.
    ([5, 4, 1, 2, 3, 1, 2, 3, 1, 2, 3], 7), ([1, 2, 3, 4, 5] * 4, 1)])
def test_cameras_out_of_phase_run_as_graphs(
    machine: Machine, tmp_path: Path, batches: list[int], graphs: int,
) -> None:
    model = write_toy(tmp_path / 'toy.onnx', 'n')
    assert run_batches(machine, model, batches, 'tensorrt') == graphs


@pytest.mark.parametrize('trouble', ['no capture', 'no memory', 'captures itself', 'fixed'])
def test_cameras_out_of_phase_where_not_every_size_can_have_a_graph(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str,
) -> None:
    if trouble == 'no capture':
        machine.cudart.failing['cudaGraphInstantiate'] = \
            cudaError_t.cudaErrorStreamCaptureUnsupported
    elif trouble == 'no memory':  # for a second context
        monkeypatch.setattr(Engine, 'max_contexts', 1)
    model = write_toy(tmp_path / 'toy.onnx', 2 if trouble == 'fixed' else 'n')
    batches = [2] * 20 if trouble == 'fixed' else [1, 1, 2, 2] * 5
    graphs = {'no memory': 11, 'fixed': 20}
    name = 'tensorrt_rtx' if trouble == 'captures itself' else 'tensorrt'
    assert run_batches(machine, model, batches, name) == graphs.get(trouble, 0)


def test_a_gpu_without_memory_for_any_context_is_an_error(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Engine, 'max_contexts', 0)
    with pytest.raises(UserError, match='cannot run .* returns no execution context'):
        machine.open(write_toy(tmp_path / 'toy.onnx'))
    assert not machine.cudart.memory and not machine.cudart.alive


@pytest.mark.parametrize('call', ['cudaMalloc', 'cudaHostAlloc', 'cudaStreamCreate',
                                  'cudaMemcpyAsync', 'cudaStreamSynchronize'])
def test_a_cuda_error_is_a_user_error_and_leaks_nothing(
    machine: Machine, tmp_path: Path, call: str,
) -> None:
    machine.cudart.failing[call] = cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(UserError, match=f'cannot run .*Orin: {call}: out of memory'):
        machine.open(write_toy(tmp_path / 'toy.onnx'))
    machine.cudart.failing.clear()
    assert not machine.cudart.memory and not machine.cudart.alive


def test_a_run_that_cannot_be_captured_leaks_no_graph(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Context, 'execute_async_v3', lambda self, stream: (
        self.cudart.captured is None))
    session = machine.open(write_toy(tmp_path / 'toy.onnx'))
    assert 'without CUDA graph' in session.describe()
    assert sorted(machine.cudart.alive) == ['context', 'stream']


def test_a_failing_run_is_a_cuda_error(machine: Machine, tmp_path: Path) -> None:
    session = machine.open(write_toy(tmp_path / 'toy.onnx'), 'tensorrt_rtx')
    context, = machine.engines[0].contexts
    context.good = False
    with pytest.raises(CudaError, match='could not run'):
        outputs(session, 1)


def test_the_engine_is_built_once_and_again_when_tensorrt_rejects_it(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level('INFO', 'cgdet_core.runtime')
    model = write_toy(tmp_path / 'toy.onnx')
    for _ in range(2):
        machine.open(model)
    assert len(machine.built) == 1
    path, = machine.cache.files()
    machine.cache.keep(building.engine_key(
        building.load_tensorrt('tensorrt'), load_card(model, DetectionCard), ('sm87',), 'Orin'),
        model, b'bad')
    assert machine.cache.files() == [path]
    machine.open(model)
    assert len(machine.built) == 2 and 'magic tag does not match' in caplog.text


def test_a_new_engine_that_tensorrt_rejects_is_an_error(
    machine: Machine, tmp_path: Path,
) -> None:
    machine.payload = lambda model: b'bad'
    with pytest.raises(UserError, match='cannot run .*magic tag'):
        machine.open(write_toy(tmp_path / 'toy.onnx'))


def test_an_engine_that_does_not_fit_the_card_is_an_error(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Engine, 'data_type', 'half')
    with pytest.raises(UserError, match='does not fit its card'):
        machine.open(write_toy(tmp_path / 'toy.onnx'))
    assert not machine.cudart.memory


@pytest.mark.parametrize('name', ['tensorrt', 'tensorrt_rtx'])
@pytest.mark.parametrize('batch', [1, 'batch'])
def test_it_runs_a_network_of_another_task(
    machine: Machine, tmp_path: Path, name: str, batch: int | str,
) -> None:
    model = write_tracker(tmp_path / 'tracker.onnx', batch)
    session = machine.open(model, name, ModelCard)
    reference = OnnxRuntimeSession(model, load_card(model, ModelCard))
    assert session.max_batch == (16 if batch == 'batch' else 1)
    rng = np.random.default_rng(0)
    for count in (1, 3, 3, 2) if batch == 'batch' else (1, 1, 1):
        inputs = {'target': rng.random((1, 1, 8, 8), np.float32),
                  'search': rng.random((count, 1, 16, 16), np.float32)}
        found, wanted = session.run(inputs), reference.run(inputs)
        filled = session.run(inputs, {k: np.zeros_like(v) for k, v in wanted.items()})
        assert found.keys() == wanted.keys() and found['place'].dtype == np.int64
        for key in wanted:
            np.testing.assert_array_equal(found[key], wanted[key])
            np.testing.assert_array_equal(filled[key], wanted[key])
    session.close()
    assert not machine.cudart.memory and not machine.cudart.alive


def test_inputs_of_different_batches_are_refused(machine: Machine, tmp_path: Path) -> None:
    model = write_tracker(tmp_path / 'tracker.onnx', 'batch', 'batch')
    session = machine.open(model, kind=ModelCard)
    inputs = {'target': np.ones((2, 1, 8, 8), np.float32),
              'search': np.ones((2, 1, 16, 16), np.float32)}
    np.testing.assert_array_equal(session.run(inputs)['score'], np.ones((2, 1)))
    with pytest.raises(ValueError, match=r'different batch sizes, \[1, 2\]'):
        session.run({**inputs, 'target': inputs['target'][:1]})


def test_rtx_kernels_are_stored_for_the_second_start(machine: Machine, tmp_path: Path) -> None:
    model = write_toy(tmp_path / 'toy.onnx')
    for _ in range(2):
        machine.open(model, 'tensorrt_rtx')
    assert len(machine.built) == 1 and len(machine.cache.files()) == 2
    assert [e.config.loaded for e in machine.engines] == [[], [b'kernels']]
    assert machine.engines[0].config.cuda_graph_strategy == 'whole'


def test_auto_chooses_the_first_that_runs_and_logs_why(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level('INFO', 'cgdet_core.runtime')
    model = write_toy(tmp_path / 'toy.onnx')
    assert machine.open(model, 'auto').describe().startswith('TensorRT 10.3.0')
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    assert machine.open(model, 'auto').describe().startswith('TensorRT-RTX 10.3.0')
    assert 'as TensorRT is not installed' in caplog.messages[-1]
    machine.cudart.target = (9, 0)
    assert machine.open(model, 'auto').describe().startswith('ONNX Runtime')
    assert 'TensorRT is not installed and TensorRT-RTX 10.3.0 does not run on Orin (sm90)' \
        in caplog.messages[-1]


def test_auto_continues_with_a_warning_if_a_build_fails(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    machine.payload = lambda model: b'bad'
    session = machine.open(write_toy(tmp_path / 'toy.onnx'), 'auto')
    assert session.describe().startswith('ONNX Runtime')
    assert [r.levelname for r in caplog.records] == ['WARNING', 'WARNING']


def test_auto_continues_if_the_library_raises_its_own_exception(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_runtime(logger: object) -> None:
        raise TypeError('factory function returned nullptr')

    monkeypatch.setattr(sys.modules['tensorrt'], 'Runtime', no_runtime)
    session = machine.open(write_toy(tmp_path / 'toy.onnx'), 'auto')
    assert session.describe().startswith('ONNX Runtime')
    assert 'TensorRT is skipped: factory function returned nullptr' in caplog.text


@pytest.mark.parametrize('beside', [True, False])
def test_an_engine_that_differs_is_only_removed_from_the_cache(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool,
) -> None:
    model = write_toy(tmp_path / 'toy.onnx')
    monkeypatch.setenv('CGDET_ENGINE_CACHE', str(machine.cache.folder))
    machine.open(model)
    engine, = machine.cache.files()
    if beside:
        engine = engine.rename(tmp_path / 'ahead.engine')
    monkeypatch.setattr(engines, 'verify', lambda *arguments: {
        'passed': False, 'failures': ['all is off'], 'model': 'toy', 'against': 'toy',
        'precision': 'fp32'})
    with pytest.raises(UserError, match='all is off') as error:
        engines.verify_engine(model, 'tensorrt', ('sm87',), engine)
    assert engine.exists() == beside == (f'Remove {engine}' in str(error.value))


def test_an_engine_for_other_gpus_is_not_reported_as_verified(
    machine: Machine, tmp_path: Path,
) -> None:
    model = write_toy(tmp_path / 'toy.onnx')
    with pytest.raises(engines.NotVerified, match=r'as it is not for the Orin \(sm87\)'):
        engines.verify_engine(model, 'tensorrt_rtx', ('sm86', 'sm89'), None)
    assert not machine.built


def test_auto_states_what_both_lack(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'cuda.bindings', None)
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', None)
    with pytest.raises(UserError, match='cuda-bindings is missing.* TensorRT-RTX is not inst'):
        engines.choose_device('auto', ())


def test_an_older_tensorrt_is_reported(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = write_toy(tmp_path / 'toy.onnx')
    monkeypatch.setattr(sys.modules['tensorrt'], '__version__', '8.6.1')
    with pytest.raises(UserError, match='TensorRT 8.6.1 is too old; version 10 or later'):
        machine.open(model)


def test_without_a_gpu_each_backend_states_what_to_do(tmp_path: Path) -> None:
    model = write_toy(tmp_path / 'toy.onnx')
    for name in ('tensorrt', 'tensorrt_rtx'):
        try:
            tensorrt.check_device(name)
        except UserError as error:
            assert 'is not installed; it comes with' in str(error) \
                or 'finds no GPU' in str(error) or 'does not run on' in str(error) \
                or 'too old' in str(error)
            with pytest.raises(UserError):
                open_session(model, load_card(model, DetectionCard), name)
    with pytest.raises(UserError, match='choose from auto, onnxruntime, .*tensorrt, tensorrt_rtx'):
        open_session(model, load_card(model, DetectionCard), 'tflite')


def test_the_real_cuda_bindings_have_every_call() -> None:
    pytest.importorskip('cuda.bindings', reason='cuda-bindings is not installed')
    cuda = Cuda()
    try:
        cuda.gpu()
    except CudaError as error:
        assert 'driver' in str(error) or 'no GPU' in str(error)
    else:
        pytest.skip('this machine has a GPU; null handles are not for it')
    api = cuda.api
    for name, *arguments in (
        ('cudaMalloc', 4), ('cudaHostAlloc', 4, 0), ('cudaStreamCreate',), ('cudaFree', 0),
        ('cudaMemcpyAsync', 0, 0, 4, api.cudaMemcpyKind.cudaMemcpyHostToDevice, 0),
        ('cudaStreamBeginCapture', 0,
         api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
        ('cudaStreamEndCapture', 0), ('cudaStreamSynchronize', 0), ('cudaGraphInstantiate', 0, 0),
        ('cudaGraphLaunch', 0, 0), ('cudaGraphDestroy', 0), ('cudaGraphExecDestroy', 0),
        ('cudaFreeHost', 0), ('cudaStreamDestroy', 0), ('cudaGetDeviceProperties', 0),
    ):
        with pytest.raises(CudaError, match=f'{name}: .*cudaError'):
            cuda.call(name, *arguments)


@pytest.mark.gpu
@pytest.mark.parametrize('name', ['tensorrt', 'tensorrt_rtx'])
def test_on_a_real_gpu(name: str, tmp_path: Path) -> None:
    try:
        tensorrt.check_device(name)
    except UserError as error:
        pytest.skip(str(error))
    model = write_toy(tmp_path / 'toy.onnx', 'n')
    cache, card = EngineCache(tmp_path / 'cache'), load_card(model, DetectionCard)
    reference = OnnxRuntimeSession(model, card)
    for _ in range(2):
        session = TensorRTSession(model, card, name, cache)
        for seed, count in enumerate((1, 3, 3, 1, 16)):
            for a, b in zip(outputs(session, count, seed), outputs(reference, count, seed)):
                np.testing.assert_allclose(a, b, atol=1e-4)
        session.close()
