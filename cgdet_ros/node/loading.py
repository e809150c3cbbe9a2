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

"""A model on its way: what goes on, for how long, and a way to stop it."""

import ctypes
import gc
from threading import Event
from time import monotonic

from cgdet_core.runtime import Detector
from cgdet_core.runtime.tensorrt.cache import log_progress
from cgdet_ros.detection.parameters import ModelSettings
from cgdet_ros.resources import share_file


class Stopped(BaseException):
    """Loading was stopped; no Exception, as a backend that fails is replaced by the next."""


class Loading:
    """Load a model while others ask how far it is."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._log = log_progress()
        self._start = monotonic()
        self._stop = Event()
        self.state = 'loading'

    def run(self) -> Detector:
        """Load: UserError says what is wrong, Stopped that `stop` was called."""
        path = self._settings.model_path or share_file('models/thermal.onnx')
        detector = Detector.load(
            path, self._settings.threads, self._settings.backend, self._progress)
        if self._stop.is_set():
            raise Stopped('loading was stopped')
        return detector

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return monotonic() - self._start

    def stop(self) -> None:
        """Let `run` end at the next step of an engine build, or when the model is there."""
        self._stop.set()

    def _progress(self, what: str, seconds: float) -> None:
        if self._stop.is_set():
            raise Stopped('loading was stopped')
        self.state = 'building engine'  # or waiting for a process that does
        self._log(what, seconds)


def return_memory() -> None:
    """Return what a model held back to the system, once nothing refers to it any more."""
    gc.collect()  # tracebacks of what went wrong may hold sessions and engines
    # glibc keeps what was freed; other C libraries do not have this.
    if (trim := getattr(ctypes.CDLL(None), 'malloc_trim', None)) is not None:
        trim(0)
