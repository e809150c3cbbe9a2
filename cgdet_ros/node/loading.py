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

"""Load a model, and reload it if inference keeps failing."""

from collections.abc import Callable
import ctypes
import gc
from threading import Event, Lock
from time import monotonic
from typing import Generic, TypeVar

from cgdet_core.runtime.imaging.signal import check_signal
from cgdet_core.runtime.inference.card import Card
from cgdet_core.runtime.tensorrt.cache import log_progress, Progress
from cgdet_ros.node.logs import time_text

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # before a model is reloaded
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


def fitting(card: Card, unit: str, polarity: str) -> Card:
    """Return the card of a model; UserError if the model does not fit what a camera shows."""
    check_signal(card.normalization.kind, unit, polarity, card.name)
    return card


def return_memory() -> None:
    """Return the memory of a model to the system, after the last reference to it."""
    gc.collect()  # tracebacks may refer to sessions and engines
    # glibc keeps freed memory; other C libraries do not have this function.
    if (trim := getattr(ctypes.CDLL(None), 'malloc_trim', None)) is not None:
        trim(0)


class Recovery:
    """
    Count failed inferences and schedule reloads, after 1, 2, 4 ... 60 s; thread-safe.

    Only errors of the session count, never bad images. One successful inference resets it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._wait = FIRST_WAIT_S
        self._due: float | None = None
        self.failures = 0  # in a row
        self.restarts = 0
        self.error = ''  # of the latest failure, empty after a successful inference
        self.error_time = ''  # of the latest failure

    def inferred(self) -> None:
        """Record a successful inference."""
        with self._lock:
            self.failures, self._wait, self._due, self.error = 0, FIRST_WAIT_S, None, ''

    def failed(self, error: str, limit: int) -> None:
        """Record a failed inference; `limit` of them in a row schedule a reload, 0: never."""
        with self._lock:
            self.failures += 1
            self.error, self.error_time = error, time_text()
            if limit and self.failures >= limit:
                self._schedule()

    def begin(self) -> bool:
        """Return whether a reload is due, and count it."""
        with self._lock:
            if self._due is None or monotonic() < self._due:
                return False
            self._due = None
            self.failures = 0
            self.restarts += 1
            return True

    def again(self, error: str) -> None:
        """Record a failed reload and schedule the next one."""
        with self._lock:
            self.error, self.error_time = error, time_text()
            self._schedule()

    def reloaded(self) -> None:
        """Record a reload; failures that occurred while the old model was freed do not count."""
        with self._lock:
            self.failures, self._due = 0, None

    def give_up(self) -> None:
        """Cancel scheduled reloads, for example after a requested transition."""
        with self._lock:
            self.failures, self._wait, self._due = 0, FIRST_WAIT_S, None

    def seconds_left(self) -> float | None:
        """Return the seconds until the next reload, None if none is scheduled."""
        with self._lock:
            return None if self._due is None else max(0.0, self._due - monotonic())

    def _schedule(self) -> None:
        if self._due is None:
            self._due = monotonic() + self._wait
            self._wait = min(2 * self._wait, LONGEST_WAIT_S)
