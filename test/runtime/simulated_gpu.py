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

"""A GPU made of main memory: CUDA's and TensorRT's calls, the network run by ONNX Runtime."""

from collections.abc import Callable
import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any
from weakref import ref, WeakSet

import numpy as np
import onnxruntime


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900


class Cudart:
    """CUDA's runtime API: counts allocations, fails where a test requests it."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, target: tuple[int, int] = (8, 7)) -> None:
        self.target = target
        self.memory: dict[int, Any] = {}
        self.alive: list[str] = []
        self.failing: dict[str, cudaError_t] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.launches = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith('cuda') and name in super().__getattribute__('failing'):
            error = super().__getattribute__('failing')[name]
            return lambda *_: (error, None)
        return super().__getattribute__(name)

    def do(self, work: Callable[[], None]) -> tuple[int]:
        if self.captured is not None:
            self.captured.append(work)
        else:
            work()
        return (cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, error: cudaError_t) -> tuple[int, bytes]:
        return 0, b'out of memory' if error == 2 else b'not permitted'

    def cudaDriverGetVersion(self) -> tuple[int, int]:
        return 0, 13000

    def cudaGetDeviceCount(self) -> tuple[int, int]:
        return 0, 1

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:
        return 0, SimpleNamespace(name=b'Orin\0\0', major=self.target[0], minor=self.target[1])

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        block = (ctypes.c_byte * size)()
        self.memory[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[int, int]:
        return self.cudaMalloc(size)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.memory[address]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> Any:
        assert size <= len(self.memory[to]) and size <= len(self.memory[source])
        return self.do(lambda: ctypes.memmove(to, source, size) and None)

    def cudaStreamCreate(self) -> tuple[int, int]:
        self.alive.append('stream')
        return 0, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        self.alive.remove('stream')
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        self.captured = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        graph, self.captured = self.captured, None
        self.alive.append('captured')
        return 0, graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:
        self.alive.append('graph')
        return 0, graph

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:
        self.alive.remove('captured')
        return (0,)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[int]:
        self.launches += 1
        for work in graph:
            work()
        return (0,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[int]:
        self.alive.remove('graph')
        return (0,)


class Context:
    """Run the network on the addresses that were set."""

    def __init__(self, cudart: Cudart, session: onnxruntime.InferenceSession) -> None:
        self.cudart, self.session = cudart, session
        self.addresses: dict[str, int] = {}
        self.shapes = {i.name: tuple(i.shape) for i in session.get_inputs()}
        self.changes = 0
        self.good = True
        cudart.alive.append('context')

    def __del__(self) -> None:
        self.cudart.alive.remove('context')

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.cudart.memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        self.changes += 1
        return shape[0] <= 16

    def execute_async_v3(self, stream: int) -> bool:
        shapes, changes, this = dict(self.shapes), self.changes, ref(self)

        def run() -> None:
            context = this()  # as on a GPU, a graph does not keep it
            assert context is not None, 'the context went before its graph'
            assert changes == context.changes, 'the context changed under its graph'
            names = [o.name for o in context.session.get_outputs()]
            outputs = context.session.run(names, {
                name: context.array(name, shape, np.float32) for name, shape in shapes.items()})
            for name, value in zip(names, outputs):
                context.array(name, value.shape, value.dtype)[:] = value

        self.cudart.do(run)
        return self.good

    def array(self, name: str, shape: Any, dtype: Any) -> Any:
        address = self.addresses[name]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = (ctypes.c_byte * size).from_address(address)
        assert ctypes.sizeof(block) <= len(self.cudart.memory[address])
        return np.ctypeslib.as_array(block).view(dtype).reshape(shape)


class Engine:
    """An "engine" is the ONNX file itself."""

    data_type: Any = 'float'  # of all tensors but those of integers
    modes: Any = SimpleNamespace(INPUT='input', OUTPUT='output')
    max_contexts = 100  # for which there is memory

    def __init__(self, cudart: Cudart, payload: bytes) -> None:
        self.session = onnxruntime.InferenceSession(payload, providers=['CPUExecutionProvider'])
        self.tensors = {t.name: [d if isinstance(d, int) else -1 for d in t.shape]
                        for t in self.session.get_inputs() + self.session.get_outputs()}
        self.inputs = [t.name for t in self.session.get_inputs()]
        self.integers = [t.name for t in self.session.get_outputs() if 'int64' in t.type]
        self.num_io_tensors = len(self.tensors)
        self.cudart, self.contexts = cudart, WeakSet[Context]()
        self.config = RuntimeConfig()

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return 'int64' if name in self.integers else self.data_type

    def get_tensor_mode(self, name: str) -> Any:
        return self.modes.INPUT if name in self.inputs else self.modes.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(n, *self.tensors[name][1:]) for n in (1, 4, 16)]

    def create_runtime_config(self) -> 'RuntimeConfig':
        return self.config

    def create_execution_context(
        self, config: 'RuntimeConfig | None' = None,
    ) -> Context | None:
        if len(self.contexts) >= self.max_contexts:
            return None
        context = Context(self.cudart, self.session)
        self.contexts.add(context)
        return context


class RuntimeConfig:
    """TensorRT-RTX's, with its cache of kernels, which rejects all but its own."""

    cuda_graph_strategy: Any = None

    def __init__(self) -> None:
        self.loaded: list[bytes] = []

    def create_runtime_cache(self) -> 'RuntimeConfig':
        return self

    def set_runtime_cache(self, cache: 'RuntimeConfig') -> bool:
        return True

    def deserialize(self, blob: bytes) -> bool:
        self.loaded.append(blob)
        return blob == b'kernels'

    def serialize(self) -> bytes:
        return b'kernels'


class ILogger:
    """Stand in for TensorRT's."""

    Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)


def module(cudart: Cudart, engines: list[Engine]) -> Any:
    """Return a stand-in for the modules tensorrt and tensorrt_rtx; it lists the engines loaded."""
    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, payload: bytes) -> Engine | None:
            if payload.startswith(b'bad'):
                self.logger.log(1, 'magic tag does not match')
                return None
            engines.append(Engine(cudart, payload))
            return engines[-1]

    members = {name: name for name in ('CURRENT', 'SM86', 'SM87')}
    return SimpleNamespace(
        Builder=object, Runtime=Runtime, ILogger=ILogger, __version__='10.3.0',
        DataType=SimpleNamespace(FLOAT='float', INT64='int64'), TensorIOMode=Engine.modes,
        ComputeCapability=SimpleNamespace(__members__=members),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE='whole'))
