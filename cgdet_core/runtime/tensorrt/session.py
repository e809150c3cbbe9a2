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

"""TensorRT and TensorRT-RTX: a network compiled for this machine's GPU."""

from collections.abc import Mapping
from dataclasses import replace
import logging
from pathlib import Path
from typing import Any, TYPE_CHECKING

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import DTYPES, ModelCard
from cgdet_core.runtime.inference.session import check_tensors, FileTensors
from cgdet_core.runtime.tensorrt import building
from cgdet_core.runtime.tensorrt.building import build_engine, FLAVORS, TensorRT, Unavailable
from cgdet_core.runtime.tensorrt.cache import EngineCache, log_progress, obtain, Progress, Rejected
from cgdet_core.runtime.tensorrt.cuda import Buffer, Cuda, CudaError, Gpu
from cgdet_core.runtime.tensorrt.engine_file import EngineKey
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = 75  # TensorRT 10 runs on compute capability 7.5 and later
SIZES = 4  # batch sizes with a context and graph; each context has the largest batch's memory
_log = logging.getLogger(__name__)


def check_device(flavor: str) -> tuple[TensorRT, Cuda, Gpu]:
    """Return the library, CUDA and GPU of a flavor; Unavailable states what is missing."""
    tensorrt = building.load_tensorrt(flavor)
    try:
        cuda = Cuda()
        gpu = cuda.gpu()
    except CudaError as error:
        raise Unavailable(f'{FLAVORS[flavor]} finds no GPU ({error})',
                          'it needs an NVIDIA GPU, its driver, and the Python module '
                          'cuda-bindings of a CUDA version that the driver supports') from None
    if flavor == 'tensorrt_rtx':
        good, known = gpu.target in tensorrt.targets(), ', '.join(tensorrt.targets())
    else:
        good, known = int(gpu.target[2:]) >= OLDEST, f'sm{OLDEST} and later'
    if not good:
        raise Unavailable(f'{tensorrt.title} does not run on {gpu.name} ({gpu.target})',
                          f'it runs on {known}')
    return tensorrt, cuda, gpu


class _Size:
    """An execution context set to one batch size, and its CUDA graph once it is captured."""

    def __init__(self, context: 'trt.IExecutionContext') -> None:
        self.context = context
        self.graph: Any = None


class TensorRTSession:
    """
    Run an ONNX file on the GPU; the engine is read from the cache, or built.

    Copies and network form one CUDA graph per batch size if it can be captured. TensorRT-RTX
    captures the network itself, for any batch size, and compiles kernels at the first run, which
    are stored next to the engine.
    """

    def __init__(self, model: str | Path, card: ModelCard, flavor: str,
                 cache: EngineCache | None = None, progress: Progress | None = None) -> None:
        self._sizes: dict[int, _Size] = {}  # by batch size; the latest used is last
        self._buffers: dict[str, Buffer] = {}
        self._stream: Any = None
        self._tensorrt, self._cuda, self._gpu = check_device(flavor)
        self._rtx = flavor == 'tensorrt_rtx'
        self._captures = not self._rtx
        self._precision = card.precision
        model, cache = Path(model), cache or EngineCache()
        progress = progress or log_progress()
        targets = (self._gpu.target,)
        key = building.engine_key(self._tensorrt, card, targets, self._gpu.name)
        self._logger = building.tensorrt_logger(flavor)
        self._runtime: trt.Runtime = self._tensorrt.module.Runtime(self._logger)
        try:
            self._stream = self._cuda.call('cudaStreamCreate')
            self._engine, _ = obtain(
                cache, key, model, lambda: build_engine(self._tensorrt, model, targets, progress),
                self._deserialize, progress)
            self._check(model, card)
            # A reference, as nothing documents that a context keeps their store alive.
            own = replace(key, kind='kernels', gpu=self._gpu.name)
            kernels = self._kernels = (
                _Kernels(self._tensorrt.module, cache, own, model) if self._rtx else None)
            # Of the largest batch; all batch sizes share them.
            for name, (shape, dtype) in (self._inputs | self._outputs).items():
                rows = self.max_batch if shape[0] < 0 else shape[0]
                self._buffers[name] = Buffer(self._cuda, (rows, *shape[1:]), dtype)
            for _ in range(2):  # the second run captures
                self._run(1)
            if kernels:
                kernels.keep()
        except (CudaError, Rejected) as error:
            self.close()
            raise UserError(f'{FLAVORS[flavor]} cannot run {model} on {self._gpu.name}: '
                            f'{error}') from None
        except BaseException:
            self.close()
            raise

    def _deserialize(self, payload: bytes) -> 'trt.ICudaEngine':
        self._logger.latest = ''
        engine = self._runtime.deserialize_cuda_engine(payload)
        if engine is None:
            raise Rejected(self._logger.latest or 'TensorRT cannot load it')
        return engine

    def _check(self, model: Path, card: ModelCard) -> None:
        """Check the engine against the card and read its tensors and maximum batch."""
        engine: Any = self._engine  # in the stubs, its shapes are no tuples
        mode = self._tensorrt.module.TensorIOMode
        found: dict[Any, FileTensors] = {mode.INPUT: {}, mode.OUTPUT: {}}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            found[engine.get_tensor_mode(name)][name] = (
                tuple(engine.get_tensor_shape(name)), self._dtype(name))
        self._inputs, self._outputs = found[mode.INPUT], found[mode.OUTPUT]
        check_tensors(model, card, self._inputs, self._outputs)
        self._open = {n for n, (shape, _) in (self._inputs | self._outputs).items()
                      if shape[0] < 0}
        # One profile sets the batch sizes of all open inputs.
        opened = [name for name in self._inputs if name in self._open]
        self.max_batch = (engine.get_tensor_profile_shape(opened[0], 0)[2][0] if opened
                          else next(iter(self._inputs.values()))[0][0])

    def _dtype(self, name: str) -> str:
        """Return numpy's name of the type of a tensor."""
        types, own = self._tensorrt.module.DataType, {'float32': 'FLOAT', 'float16': 'HALF'}
        given = self._engine.get_tensor_dtype(name)
        return next((d for d in DTYPES if given == getattr(types, own.get(d, d.upper()), None)),
                    str(given))

    def run(self, inputs: Mapping[str, NDArray[Any]],
            out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        counts = {len(inputs[name]) for name in self._inputs if name in self._open}
        if len(counts) > 1:
            raise ValueError(f'the inputs have different batch sizes, {sorted(counts)}')
        count = counts.pop() if counts else self.max_batch
        for name in self._inputs:
            np.copyto(self._buffers[name].host[:len(inputs[name])], inputs[name])
        self._run(count)
        found = {name: self._buffers[name].host[:self._rows(name, count)]
                 for name in self._outputs}
        if out is None:
            return {name: array.copy() for name, array in found.items()}
        for name, array in found.items():
            np.copyto(out[name], array[:len(out[name])])
        return out

    def _rows(self, name: str, count: int) -> int:
        return count if name in self._open else len(self._buffers[name].host)

    def _run(self, count: int) -> None:
        """Run the network on the pinned inputs; CudaError if the GPU fails."""
        if not self._open:
            count = self.max_batch
        if count not in self._sizes:
            size = self._open_size(count)
            # The first run of a shape allocates memory, which a capture must not.
            self._enqueue(size, count)
            self._cuda.call('cudaStreamSynchronize', self._stream)
            self._sizes[count] = size
            return
        size = self._sizes[count] = self._sizes.pop(count)
        if size.graph is None and self._captures:
            size.graph = self._capture(size, count)
            self._captures = size.graph is not None
        if size.graph is None:
            self._enqueue(size, count)
        else:
            self._cuda.call('cudaGraphLaunch', size.graph, self._stream)
        self._cuda.call('cudaStreamSynchronize', self._stream)

    def _open_size(self, count: int) -> _Size:
        """Set a context to a batch size: a new one, or that of the least recently used size."""
        # Cameras out of phase change the size at every batch, which invalidates a context's graph.
        # Without graphs of our own, one context is enough.
        room = len(self._sizes) < (SIZES if self._captures else 1)
        size = self._create_context() if room else None
        if size is None:
            if not self._sizes:
                raise CudaError(self._logger.latest or 'TensorRT returns no execution context')
            size = self._sizes.pop(next(iter(self._sizes)))
            self._drop_graph(size)
        for name, (shape, _) in self._inputs.items():
            if name in self._open and not size.context.set_input_shape(name, (count, *shape[1:])):
                raise CudaError(f'TensorRT refused a batch of {count}: {self._logger.latest}')
        return size

    def _create_context(self) -> _Size | None:
        """Return a context bound to the buffers, None if there is no memory for one."""
        self._logger.latest = ''
        context = (self._kernels.context(self._engine) if self._kernels
                   else self._engine.create_execution_context())
        if context is None:
            return None
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.device):
                raise CudaError(f'TensorRT refused the buffer of {name}: {self._logger.latest}')
        return _Size(context)

    def _drop_graph(self, size: _Size) -> None:
        graph, size.graph = size.graph, None
        if graph is not None:
            self._cuda.api.cudaGraphExecDestroy(graph)

    def _enqueue(self, size: _Size, count: int) -> None:
        for name in self._inputs:
            self._buffers[name].upload(self._rows(name, count), self._stream)
        if not size.context.execute_async_v3(int(self._stream)):
            raise CudaError(f'TensorRT could not run: {self._logger.latest}')
        for name in self._outputs:
            self._buffers[name].download(self._rows(name, count), self._stream)

    def _capture(self, size: _Size, count: int) -> Any:
        """Return the run of a batch as one CUDA graph, or None if it cannot be captured."""
        mode = self._cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            graph = None
            self._cuda.call('cudaStreamBeginCapture', self._stream, mode)
            try:
                try:
                    self._enqueue(size, count)
                finally:  # a stream left in capture mode is unusable
                    graph = self._cuda.call('cudaStreamEndCapture', self._stream)
                return self._cuda.call('cudaGraphInstantiate', graph, 0)
            finally:
                if graph is not None:
                    self._cuda.call('cudaGraphDestroy', graph)
        except CudaError as error:
            _log.info('Inference runs without a CUDA graph: %s', error)
            return None

    def describe(self) -> str:
        graph = 'with' if self._rtx or self._captures else 'without'
        return (f'{self._tensorrt.title} on {self._gpu.name} ({self._gpu.target}), '
                f'{self._precision}, {graph} CUDA graph')

    def close(self) -> None:
        for size in self._sizes.values():
            self._drop_graph(size)
        # Contexts are freed before the buffers they point to.
        self._sizes = {}
        for name in ('_engine', '_kernels'):
            self.__dict__.pop(name, None)
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers = {}
        if self._stream is not None:
            self._cuda.api.cudaStreamDestroy(self._stream)
            self._stream = None

    def __del__(self) -> None:
        if getattr(self, '_stream', None) is not None:
            self.close()


class _Kernels:
    """The kernels that TensorRT-RTX compiles at the first run, stored for later starts."""

    def __init__(self, module: Any, cache: EngineCache, key: EngineKey, model: Path) -> None:
        self._module, self._cache, self._key, self._model = module, cache, key, model
        self._known = b''

    def context(self, engine: Any) -> Any:
        """Return a context with the kernels of earlier starts."""
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._store = config.create_runtime_cache()
        for found in self._cache.matching(self._key, self._model):
            # TensorRT-RTX checks them against GPU and driver and rejects those that do not match.
            if self._store.deserialize(found.payload):
                self._known = found.payload
                self._cache.mark_used(found.path)
                break
            self._cache.remove(found.path)
        config.set_runtime_cache(self._store)
        return engine.create_execution_context(config)

    def keep(self) -> None:
        """Store the kernels if there are new ones."""
        kernels = bytes(self._store.serialize())
        if kernels != self._known:
            self._cache.keep(self._key, self._model, kernels)
