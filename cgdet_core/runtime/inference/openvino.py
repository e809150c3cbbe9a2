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

"""OpenVINO: on the CPU, or on the processor's Intel GPU if asked for."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import ctypes
from importlib import metadata
from importlib.util import find_spec
import io
import logging
from pathlib import Path
import sys
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import ModelCard, TensorSpec
from cgdet_core.runtime.inference.int8 import read_for_cpu
from cgdet_core.runtime.inference.session import (
    check_tensors,
    cpu_threads,
    FileTensors,
    OPEN_BATCH,
)
from cgdet_core.runtime.tensorrt.cache import EngineCache, log_progress, obtain, Progress, Rejected
from cgdet_core.runtime.tensorrt.engine_file import EngineKey
import numpy as np
from numpy.typing import NDArray

# The device and the precision of each backend. Without a precision OpenVINO chooses: on a CPU
# with instructions for bfloat16 that, else FP32; on a GPU FP16. What is quantized stays INT8.
VARIANTS = {'openvino': ('CPU', ''), 'openvino_fp32': ('CPU', 'f32'), 'openvino_gpu': ('GPU', '')}
LAYERS = ('convolution', 'fullyconnected', 'matmul')  # those whose precision is reported
TELEMETRY = 'openvino_telemetry'
_log = logging.getLogger(__name__)


class OpenVinoSession:
    """
    Run an ONNX file with low latency: one stream, one call at a time.

    name: one of VARIANTS. What OpenVINO compiles for a CPU is cached like an engine. UserError
    states what is missing, or what is wrong with the file.
    """

    def __init__(self, model: str | Path, card: ModelCard, name: str = 'openvino',
                 threads: int = 0, cache: EngineCache | None = None,
                 progress: Progress | None = None) -> None:
        model = Path(model)
        device, precision = VARIANTS[name]
        with own_signal_stack():
            self._compiled = self._load(
                model, card, device, precision, threads, cache or EngineCache(),
                progress or log_progress())
        self._device, self._precision = device, _precision(self._compiled, device)
        self._inputs = _tensors(self._compiled.inputs, card.inputs)
        self._outputs = _tensors(self._compiled.outputs, card.outputs)
        check_tensors(model, card, self._inputs, self._outputs)
        batches = [shape[0] for shape, _ in self._inputs.values()]
        self.max_batch = OPEN_BATCH if -1 in batches else batches[0]
        self._request = self._compiled.create_infer_request()
        self._bound: list[Any] = []  # a request refers to its tensors without owning them

    def _load(self, model: Path, card: ModelCard, device: str, precision: str, threads: int,
              cache: EngineCache, progress: Progress) -> Any:
        openvino = self._openvino = load_openvino()
        core = _core_for(openvino, device)
        settings: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY', 'NUM_STREAMS': '1'}
        if precision:
            settings['INFERENCE_PRECISION_HINT'] = precision
        if device == 'CPU':
            # Pinned threads of two detectors would share one core and leave another idle.
            settings |= {'INFERENCE_NUM_THREADS': cpu_threads(threads),
                         'ENABLE_CPU_PINNING': False}

        def compiled() -> Any:
            return _compile(openvino, core, model, device, settings)

        try:
            if device != 'CPU':
                raise Rejected('the key would have to name the driver')
            loaded, _ = obtain(
                cache, _key(openvino, core, card, precision), model,
                lambda: _export(compiled()),
                lambda payload: _restore(core, payload, device, settings),
                progress)
            return loaded
        except Rejected as why:  # OpenVINO 2025.0 cannot load what it exports of INT8 files
            _log.info('What OpenVINO compiles of %s is not cached: %s', model.name, why)
            return compiled()

    def run(self, inputs: Mapping[str, NDArray[Any]],
            out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        if out is None:
            rows = next((len(inputs[n]) for n, (shape, _) in self._inputs.items()
                         if shape[0] < 0), self.max_batch)
            out = {name: np.empty((rows if shape[0] < 0 else shape[0], *shape[1:]), dtype)
                   for name, (shape, dtype) in self._outputs.items()}
        tensor = self._openvino.Tensor
        # It refuses arrays that are not contiguous, and inputs that are not writable.
        sources = [tensor(np.require(inputs[name], requirements=('C', 'W')), shared_memory=True)
                   for name in self._inputs]
        targets = [tensor(out[name], shared_memory=True) for name in self._outputs]
        for index, source in enumerate(sources):
            self._request.set_input_tensor(index, source)
        for index, target in enumerate(targets):
            self._request.set_output_tensor(index, target)
        self._bound = sources + targets
        self._request.infer()
        return out

    def describe(self) -> str:
        version = self._openvino.__version__.partition('-')[0]
        return f'OpenVINO {version} {self._device}, {self._precision}'

    def close(self) -> None:
        with own_signal_stack():
            for name in ('_request', '_compiled', '_bound'):
                self.__dict__.pop(name, None)


class _Stack(ctypes.Structure):
    """C's stack_t."""

    _fields_ = (('address', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t))


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """
    Keep the alternate signal stack of this thread.

    OpenVINO's CPU plugin replaces it and frees its own when the last network is closed, in
    whatever thread that is. The next signal with a handler of Python would then end the process.
    """
    sigaltstack = getattr(ctypes.CDLL(None), 'sigaltstack', lambda new, old: 0)
    before = _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)


def load_openvino() -> Any:
    """Import OpenVINO without its telemetry; UserError states how to install it."""
    # If that package is installed, every import is reported over the network.
    blocked = TELEMETRY not in sys.modules
    if blocked:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        why = 'is missing' if find_spec('openvino') is None else f'cannot be imported ({error})'
        raise UserError(f'The openvino module {why}; install it with "pip install openvino".'
                        ) from None
    finally:
        if blocked:
            del sys.modules[TELEMETRY]
    return openvino


def openvino_version() -> str:
    """Return OpenVINO's version, mostly without importing it; empty if it is not installed."""
    if find_spec('openvino') is None:
        return ''
    try:
        return metadata.version('openvino')
    except metadata.PackageNotFoundError:  # installed by other means than pip
        return str(load_openvino().__version__)


def _core_for(openvino: Any, device: str) -> Any:
    core = openvino.Core()
    if device not in {found.partition('.')[0] for found in core.available_devices}:
        advice = ('install the OpenCL driver of an Intel GPU ("apt install intel-opencl-icd") or '
                  'use the backend openvino' if device == 'GPU' else 'use the backend onnxruntime')
        raise UserError(f'OpenVINO finds no {device} that it supports; {advice}.')
    return core


def _key(openvino: Any, core: Any, card: ModelCard, precision: str) -> EngineKey:
    """Return the key of what is compiled for the CPU."""
    return EngineKey(
        card.onnx_sha256, 'openvino', openvino.__version__,
        tuple(core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')),
        core.get_property('CPU', 'FULL_DEVICE_NAME'), card.precision,
        {name: spec.shape for name, spec in card.inputs.items()},
        kind=f'{precision} engine'.strip())


def _compile(
    openvino: Any, core: Any, model: Path, device: str, settings: dict[str, Any],
) -> Any:
    try:
        # Core.read_model would also try the readers of other formats, which print errors.
        reader = openvino.frontend.FrontEndManager().load_by_framework('onnx')
        network = reader.convert(reader.load(io.BytesIO(read_for_cpu(model))))
        return core.compile_model(network, device, settings)
    except Exception as error:  # OpenVINO's errors are RuntimeErrors, other ones may come through
        raise UserError(f'{model} is not an ONNX file that OpenVINO can load: '
                        f'{_words(error)}') from None


def _export(compiled: Any) -> bytes:
    stream = io.BytesIO()
    compiled.export_model(stream)
    return stream.getvalue()


def _restore(core: Any, payload: bytes, device: str, settings: dict[str, Any]) -> Any:
    try:
        return core.import_model(io.BytesIO(payload), device, settings)
    except Exception as error:
        raise Rejected(_words(error)) from None


def _words(error: Exception) -> str:
    """Return the line that states the reason, without places in the source and advice."""
    lines = [line.lstrip('- ') for line in str(error).splitlines()
             if line.strip() and not line.startswith(('Exception from', 'Check ', 'To facil'))]
    return lines[-1] if lines else type(error).__name__


def _tensors(ports: Any, specs: Mapping[str, TensorSpec]) -> FileTensors:
    """Return shapes, -1 where open, and types in the order of the ports, by the card's names."""
    found: FileTensors = {}
    for port in ports:
        names = port.get_names()
        name = next((n for n in specs if n in names), min(names, default=''))
        found[name] = (tuple(-1 if n.is_dynamic else n.get_length() for n in port.partial_shape),
                       np.dtype(port.element_type.to_dtype()).name)
    return found


def _precision(compiled: Any, device: str) -> str:
    """Return the precisions that the layers of a compiled network run in, such as "f32"."""
    found = set()
    # Other devices may describe their layers otherwise.
    for operation in compiled.get_runtime_model().get_ops() if device == 'CPU' else ():
        facts = operation.get_rt_info()
        kind, precision = (
            str(getattr(fact, 'value', fact))
            for fact in (facts['layerType'], facts['runtimePrecision']))
        if kind.lower() in LAYERS:
            found.add('int8' if precision in ('i8', 'u8') else precision)
    hint = compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()
    return ' and '.join(sorted(found, reverse=True)) or hint
