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

"""Other programs that use the machine: what `cgdet benchmark --busy` runs beside a model."""

from collections.abc import Iterator
from contextlib import contextmanager, ExitStack, suppress
import os
import subprocess
import sys
from time import perf_counter, sleep

from cgdet_core.processes import program

DUTY = 0.75  # share of the time that each program computes
PERIOD = 0.02  # seconds: computes and sleeps once


@contextmanager
def busy_machine() -> Iterator[None]:
    """Run a program on each core of this process that computes DUTY of the time, until exit."""
    with ExitStack() as programs:
        running = [programs.enter_context(program(__name__, patience_s=1.0,
                                                  stdout=subprocess.PIPE))
                   for _ in os.sched_getaffinity(0)]
        for process in running:
            process.stdout.readline()  # type: ignore[union-attr]  # it has started to compute
        yield


def _compute() -> None:
    sys.stdout.write('computes\n')
    sys.stdout.flush()
    start = perf_counter()
    while True:
        while perf_counter() - start < DUTY * PERIOD:
            pass
        start += PERIOD
        sleep(max(0.0, start - perf_counter()))
        start = max(start, perf_counter() - PERIOD)  # what it had to wait is not made up for


if __name__ == '__main__':
    with suppress(KeyboardInterrupt):
        _compute()
