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

"""NVIDIA's CUDA bindings with every error code checked; no torch, no custom kernels."""

import ctypes
from dataclasses import dataclass
from typing import Any

from cgdet_core.errors import UserError
import numpy as np
from numpy.typing import NDArray


class CudaError(UserError):
    """A failed CUDA call; the message states which one and why."""


@dataclass(frozen=True)
class Gpu:
    """The GPU in use; target is its compute capability, such as "sm87"."""

    name: str
    target: str


class Cuda:
    """Call CUDA's runtime API by name; CudaError if the module or a call fails."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise CudaError("NVIDIA's Python module cuda-bindings is missing "
                            f'({error})') from None
        self.api = runtime

    def call(self, name: str, *arguments: object) -> Any:
        """Call a function; return its result, if it has one."""
        error, *results = getattr(self.api, name)(*arguments)
        if error != self.api.cudaError_t.cudaSuccess:
            _, text = self.api.cudaGetErrorString(error)
            raise CudaError(f'{name}: {text.decode()} ({error.name})')
        return results[0] if results else None

    def gpu(self) -> Gpu:
        """Return the first visible GPU; CudaError if there is none."""
        if self.call('cudaDriverGetVersion') == 0:
            raise CudaError('no NVIDIA driver is loaded')
        if self.call('cudaGetDeviceCount') < 1:
            raise CudaError('no GPU is visible')
        properties = self.call('cudaGetDeviceProperties', 0)
        name = properties.name
        name = name.decode() if isinstance(name, bytes) else str(name)
        return Gpu(name.rstrip('\0'), f'sm{properties.major}{properties.minor}')


class Buffer:
    """A tensor in GPU memory with its pinned counterpart in main memory, as a numpy array."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: str = 'float32') -> None:
        self._cuda = cuda
        self.device = self._pinned = 0
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.row_bytes = size // shape[0]
        self.device = int(cuda.call('cudaMalloc', size))
        try:
            self._pinned = int(cuda.call('cudaHostAlloc', size, 0))
        except CudaError:
            self.free()
            raise
        memory = (ctypes.c_byte * size).from_address(self._pinned)
        self.host: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        self.host.fill(0)

    def upload(self, rows: int, stream: object) -> None:
        """Queue the copy of the first rows to the GPU."""
        kind = self._cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda.call('cudaMemcpyAsync', self.device, self._pinned, rows * self.row_bytes,
                        kind, stream)

    def download(self, rows: int, stream: object) -> None:
        """Queue the copy of the first rows from the GPU."""
        kind = self._cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda.call('cudaMemcpyAsync', self._pinned, self.device, rows * self.row_bytes,
                        kind, stream)

    def free(self) -> None:
        """Free the memory; the array must not be used afterwards."""
        device, pinned, self.device, self._pinned = self.device, self._pinned, 0, 0
        if device:
            self._cuda.api.cudaFree(device)
        if pinned:
            self._cuda.api.cudaFreeHost(pinned)
