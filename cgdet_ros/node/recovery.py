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

"""When inference that keeps failing makes the node reload its model."""

from threading import Lock
from time import monotonic

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class Recovery:
    """
    Count failing inferences and say when to reload; safe to use from any thread.

    The waits are 1, 2, 4 ... 60 s; one good inference ends them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._wait = FIRST_WAIT_S
        self._due: float | None = None
        self.failures = 0  # in a row
        self.restarts = 0
        self.error = ''  # of the latest failure

    def inferred(self) -> None:
        """Record a good inference."""
        with self._lock:
            self.failures, self._wait, self._due = 0, FIRST_WAIT_S, None

    def failed(self, error: str, limit: int) -> None:
        """Record a failing inference; `limit` of them in a row ask for a reload, 0: never."""
        with self._lock:
            self.failures += 1
            self.error = error
            if limit and self.failures >= limit:
                self._schedule()

    def begin(self) -> bool:
        """Return whether a reload is due, and count it if so."""
        with self._lock:
            if self._due is None or monotonic() < self._due:
                return False
            self._due = None
            self.failures = 0
            self.restarts += 1
            return True

    def again(self, error: str) -> None:
        """Record that a reload failed: there will be another."""
        with self._lock:
            self.error = error
            self._schedule()

    def reloaded(self) -> None:
        """Record a reload: what failed while the old model was freed asks for no other."""
        with self._lock:
            self.failures, self._due = 0, None

    def give_up(self) -> None:
        """Reload no more, as after a transition that was requested."""
        self.inferred()

    def seconds_left(self) -> float | None:
        """Return the seconds until the next reload, None if none is due."""
        with self._lock:
            return None if self._due is None else max(0.0, self._due - monotonic())

    def _schedule(self) -> None:
        if self._due is None:
            self._due = monotonic() + self._wait
            self._wait = min(2 * self._wait, LONGEST_WAIT_S)
