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

"""Build engines from ONNX files, in the same way for TensorRT and TensorRT-RTX."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
import importlib
import logging
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, TYPE_CHECKING, TypeVar

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import ModelCard
from cgdet_core.runtime.tensorrt.cache import Progress
from cgdet_core.runtime.tensorrt.engine_file import EngineKey, PROFILE_BATCHES

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST_VERSION = 10  # of TensorRT; TensorRT-RTX has its own numbers
FLAVORS = {'tensorrt': 'TensorRT', 'tensorrt_rtx': 'TensorRT-RTX'}
_log = logging.getLogger(__name__)
Result = TypeVar('Result')


class Unavailable(UserError):
    """A flavor that cannot run here: `why` is a clause, the message adds what to do."""

    def __init__(self, why: str, advice: str) -> None:
        super().__init__(f'{why}; {advice}.')
        self.why = why


@dataclass(frozen=True)
class TensorRT:
    """A loaded flavor; name is its module's, which is untyped as RTX has no type stubs."""

    name: str
    version: str
    module: Any

    @property
    def title(self) -> str:
        """Return the name and version."""
        return f'{FLAVORS[self.name]} {self.version}'

    def targets(self) -> tuple[str, ...]:
        """Return the compute capabilities TensorRT-RTX builds for, such as "sm86"."""
        names = self.module.ComputeCapability.__members__
        return tuple(n.lower() for n in names if n.startswith('SM'))


def load_tensorrt(flavor: str) -> TensorRT:
    """Import a flavor; Unavailable states how to install it."""
    try:
        module: Any = importlib.import_module(flavor)
        if not hasattr(module, 'Builder'):  # type stubs also provide a module of this name
            raise ImportError(f'{flavor} is empty')
    except (ImportError, OSError) as error:
        why = f' ({error})' if isinstance(error, OSError) else ''
        raise Unavailable(
            f'{FLAVORS[flavor]} is not installed{why}', 'it comes with ' + (
                '"pip install tensorrt-rtx"' if flavor == 'tensorrt_rtx'
                else 'JetPack, or "pip install tensorrt"')) from None
    version = str(module.__version__)
    if flavor == 'tensorrt' and int(version.split('.')[0]) < OLDEST_VERSION:
        raise Unavailable(f'TensorRT {version} is too old',
                          f'version {OLDEST_VERSION} or later is needed')
    return TensorRT(flavor, version, module)


def engine_key(tensorrt: TensorRT, card: ModelCard, targets: tuple[str, ...],
               gpu: str) -> EngineKey:
    """Return the key of a model's engine; without gpu if any GPU of the targets can run it."""
    return EngineKey(
        card.onnx_sha256, tensorrt.name, tensorrt.version, targets,
        '' if tensorrt.name == 'tensorrt_rtx' else gpu, card.precision,
        {name: spec.shape for name, spec in card.inputs.items()})


def build_engine(tensorrt: TensorRT, model: Path, targets: tuple[str, ...],
                 progress: Progress) -> bytes:
    """
    Build an engine; precisions are those of the file (strongly typed), FP32 without TF32.

    targets: of TensorRT-RTX, which needs no GPU to build; TensorRT builds for the GPU in use.
    Ctrl-C stops the build at the builder's next step. UserError states why TensorRT refused.
    """
    cancelled = Event()
    start = monotonic()

    def report() -> None:
        progress(f'Building the {FLAVORS[tensorrt.name]} engine of {model.name}',
                 monotonic() - start)

    # In a separate thread, so that this one handles Ctrl-C and progress while C++ works.
    return _in_thread(lambda: _build(tensorrt, model, targets, cancelled), cancelled, report)


def _build(tensorrt: TensorRT, model: Path, targets: tuple[str, ...], cancelled: Event) -> bytes:
    module = tensorrt.module
    logger = tensorrt_logger(tensorrt.name)
    logger.latest = ''
    builder: trt.Builder = module.Builder(logger)
    # The default since TensorRT 11, which has no such flag.
    flag = getattr(module.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser: trt.OnnxParser = module.OnnxParser(network, logger)
    parsed: Any = parser.parse(model.read_bytes())  # in the stubs, bool is a type of tensors
    if not parsed:
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise UserError(f'{tensorrt.title} cannot read {model}: '
                        f'{_one_line("; ".join(reasons)) or logger.latest}')
    config = builder.create_builder_config()
    config.clear_flag(module.BuilderFlag.TF32)
    config.progress_monitor = _monitor(module, cancelled)
    _set_batches(module, builder, network, config)
    if tensorrt.name == 'tensorrt_rtx':
        check_targets(tensorrt, targets)
        rtx_config: Any = config
        rtx_config.num_compute_capabilities = len(targets)
        for i, target in enumerate(targets):
            capability = module.ComputeCapability.__members__[target.upper()]
            if not rtx_config.set_compute_capability(capability, i):
                raise UserError(f'{tensorrt.title} rejects the target {target!r}.')
    engine: Any = builder.build_serialized_network(network, config)
    if cancelled.is_set():
        raise UserError('The build was stopped.')
    if engine is None:
        raise UserError(f'{tensorrt.title} cannot build {model}: '
                        f'{logger.latest or "no reason was reported"}')
    return bytes(engine)


def _set_batches(module: Any, builder: 'trt.Builder', network: 'trt.INetworkDefinition',
                 config: 'trt.IBuilderConfig') -> None:
    """Set the batch sizes that an engine must accept, for each input with an open one."""
    profile = builder.create_optimization_profile()
    entries: list[Any] = [network.get_input(i) for i in range(network.num_inputs)]
    entries = [entry for entry in entries if tuple(entry.shape)[:1] == (-1,)]
    for entry in entries:
        sizes = (module.Dims([n, *tuple(entry.shape)[1:]]) for n in PROFILE_BATCHES)
        profile.set_shape(entry.name, *sizes)
    if entries:
        config.add_optimization_profile(profile)


def check_targets(tensorrt: TensorRT, targets: tuple[str, ...]) -> None:
    """Raise UserError for a GPU that this TensorRT-RTX cannot build for."""
    known = tensorrt.targets()
    for target in targets:
        if target not in known:
            raise UserError(f'{tensorrt.title} does not support the target {target!r}; choose '
                            f'from {", ".join(known)}.')


def _monitor(module: Any, cancelled: Event) -> 'trt.IProgressMonitor':
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str, steps: int) -> None:
            pass

        def phase_finish(self, name: str) -> None:
            pass

        def step_complete(self, name: str, step: int) -> bool:
            return not cancelled.is_set()

    monitor: trt.IProgressMonitor = Monitor()
    return monitor


@cache
def tensorrt_logger(flavor: str) -> Any:
    """Return a flavor's logger, `latest` its latest error; TensorRT requires a single one."""
    module: Any = load_tensorrt(flavor).module

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.latest = ''

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                self.latest = _one_line(message)
                _log.debug('%s', message)

    return Logger()


def _one_line(text: str) -> str:
    return ' '.join(text.split())


def _in_thread(work: Callable[[], Result], cancelled: Event, report: Callable[[], None]) -> Result:
    """Run `work` in a thread and report once a second; an interruption cancels and joins it."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    # Not a daemon: an interruption inside start() leaves a thread that cannot be joined here.
    thread = Thread(target=run, name='engine builder')
    try:
        thread.start()
        while thread.is_alive():
            report()
            thread.join(1.0)
    except BaseException:
        cancelled.set()
        if thread.is_alive():
            thread.join()
        raise
    finally:
        # A joined thread may still be leaving the library, which logs at that moment: this would
        # abort the process if the interpreter had already exited.
        while thread.native_id and Path(f'/proc/self/task/{thread.native_id}').exists():
            sleep(0.001)
    return future.result()
