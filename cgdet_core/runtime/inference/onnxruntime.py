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

"""ONNX Runtime, the default session: on the CPU and, if installed, CUDA."""

from collections.abc import Mapping
import os
from pathlib import Path
import re
from typing import Any, TYPE_CHECKING

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import ModelCard
from cgdet_core.runtime.inference.int8 import read_for_cpu
from cgdet_core.runtime.inference.session import (
    check_tensors,
    cpu_threads,
    FileTensors,
    OPEN_BATCH,
)
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

# In what ONNX Runtime says of files that a later one reads.
NEWER = re.compile(r'Unsupported model IR version|[Oo]pset \d+ is under development|'
                   r'official support for domain')
SPIN_VARIABLE = 'CGDET_SPIN_US'
SPIN_US = 20
MAXIMUM_SPIN_US = 1_000_000
# Moves the rounding of a MaxPool's result before it, where it takes seven times as long.
SLOWER = 'QDQPropagationTransformer'
DTYPES = {'float': 'float32', 'double': 'float64'}  # the other names are numpy's


class OnnxRuntimeSession:
    """Run an ONNX file; the file and the card must agree on names, shapes and types."""

    def __init__(self, model: str | Path, card: ModelCard, threads: int = 0) -> None:
        self._session = open_onnx(read_for_cpu(model), str(model), threads)
        self._inputs = _tensors(self._session.get_inputs())
        self._outputs = _tensors(self._session.get_outputs())
        check_tensors(Path(model), card, self._inputs, self._outputs)
        batches = [shape[0] for shape, _ in self._inputs.values()]
        self.max_batch = OPEN_BATCH if -1 in batches else batches[0]
        self._binding = self._session.io_binding()

    def run(self, inputs: Mapping[str, NDArray[Any]],
            out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        if out is None:
            return dict(zip(self._outputs, self._session.run([*self._outputs], dict(inputs))))
        binding = self._binding
        for name in self._inputs:
            binding.bind_cpu_input(name, inputs[name])
        for name in self._outputs:
            array = out[name]
            if not array.flags.c_contiguous:  # it is written to by its address
                raise ValueError(f'the array for {name} must be C-contiguous')
            binding.bind_output(name, 'cpu', 0, array.dtype, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)
        return out

    def describe(self) -> str:
        return describe_session(self._session)

    def close(self) -> None:
        # ONNX Runtime frees a session with the last reference to it.
        self.__dict__.pop('_binding', None)
        self.__dict__.pop('_session', None)


def _tensors(arguments: 'list[NodeArg]') -> FileTensors:
    """Return shapes, -1 where open, and types by name."""
    return {a.name: (tuple(n if isinstance(n, int) else -1 for n in a.shape), dtype_of(a))
            for a in arguments}


def dtype_of(argument: 'NodeArg') -> str:
    """Return numpy's name of the type of an input or output."""
    name = argument.type.removeprefix('tensor(').removesuffix(')')
    return DTYPES.get(name, name)


def load_onnxruntime() -> Any:
    """Import ONNX Runtime, without telemetry; UserError states how to install it."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError('The onnxruntime module is missing; '
                        'install it with "pip install onnxruntime".') from None
    onnxruntime.disable_telemetry_events()  # a robot must not send any
    return onnxruntime


def open_onnx(content: str | bytes, name: str, threads: int = 0) -> 'InferenceSession':
    """Open an ONNX file, path or bytes, on CUDA or else the CPU; name: for UserError."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads(threads)
    options.add_session_config_entry('session.intra_op.spin_duration_us', _spin_us())
    # Releases before that setting (1.23, the last for Python 3.10) spin during a run, but not
    # between runs, where it doubles the CPU time at 10 Hz.
    options.add_session_config_entry('session.force_spinning_stop', '1')
    options.log_severity_level = 3
    providers = [p for p in ('CUDAExecutionProvider', 'CPUExecutionProvider')
                 if p in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(
            content, options, providers=providers, disabled_optimizers=[SLOWER])
    except Exception as error:  # onnxruntime's own exception types share no base class
        text = str(error).splitlines()[0]
        if NEWER.search(text):
            raise UserError(
                f'{name} was written in a newer version of ONNX than ONNX Runtime '
                f'{onnxruntime.__version__} reads; update it with "pip install -U onnxruntime", '
                'or export the model with older versions of torch and onnx.') from None
        raise UserError(f'{name} is not an ONNX file that ONNX Runtime can load: '
                        f'{text}') from None


def _spin_us() -> str:
    """
    Return how long a waiting thread of ONNX Runtime keeps its core before it sleeps.

    Threads that spin without a limit, as is its default, take the cores from other programs and so
    from the other threads of the same frame: docs/benchmarks.md, "A busy machine".
    """
    value = os.environ.get(SPIN_VARIABLE, str(SPIN_US))
    if not (value.isascii() and value.isdigit() and int(value) <= MAXIMUM_SPIN_US):
        raise UserError(f'{SPIN_VARIABLE} must be an integer from 0 to {MAXIMUM_SPIN_US}, in '
                        f'microseconds, not {value!r}.')
    return value


def describe_session(session: 'InferenceSession') -> str:
    """Return ONNX Runtime's version and a session's execution provider."""
    import onnxruntime

    provider = session.get_providers()[0].removesuffix('ExecutionProvider')
    return f'ONNX Runtime {onnxruntime.__version__} {provider}'
