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

"""Load a model: report its progress, and stop it on request."""

from collections.abc import Callable
import ctypes
import gc
from threading import Event
from time import monotonic
from typing import Generic, TypeVar

from cgdet_core.runtime.tensorrt.cache import log_progress, Progress

Model = TypeVar('Model')


class Stopped(BaseException):
    """Loading was stopped. Not an Exception: `auto` would then try the next backend."""


class Loading(Generic[Model]):
    """Load a model while other threads read the progress; `load` is called with a Progress."""

    def __init__(self, load: Callable[[Progress], Model]) -> None:
        self._load = load
        self._log = log_progress()
        self._start = monotonic()
        self._stop = Event()
        self.state = 'loading'

    def run(self) -> Model:
        """Return the model; raise Stopped if `stop` was called, or what `load` raises."""
        model = self._load(self._progress)
        if self._stop.is_set():
            raise Stopped('loading was stopped')
        return model

    def elapsed(self) -> float:
        """Return the seconds since the start of loading."""
        return monotonic() - self._start

    def stop(self) -> None:
        """Stop `run` at the next step of an engine build, or when the model is loaded."""
        self._stop.set()

    def _progress(self, what: str, seconds: float) -> None:
        if self._stop.is_set():
            raise Stopped('loading was stopped')
        self.state = 'building engine'  # or waiting for another process that builds one
        self._log(what, seconds)


def return_memory() -> None:
    """Return the memory of a model to the system, after the last reference to it."""
    gc.collect()  # tracebacks may refer to sessions and engines
    # glibc keeps freed memory; other C libraries do not have this function.
    if (trim := getattr(ctypes.CDLL(None), 'malloc_trim', None)) is not None:
        trim(0)
