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

"""Child processes: functions called in a new process, or a module run as a program."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
import multiprocessing
from multiprocessing.connection import Connection
import signal
import subprocess
import sys
from typing import Any, TypeVar

from cgdet_core.errors import UserError

PATIENCE_S = 10.0  # for a process that has nothing left to do
Result = TypeVar('Result')


class FreshProcess:
    """
    A new process that calls functions one after the other.

    It ignores Ctrl-C; this process ends it. A `with` block ends it on exit, and kills it during
    a call if there was an error. what: what the process did, for errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        # Ctrl-C reaches every process of the terminal.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the new process
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a module's function there; UserError: raised by it, or if the process has ended."""
        with suppress(OSError):  # the process has ended; its last answer is still in the pipe
            self._pipe.send((function, arguments))
        try:
            good, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(PATIENCE_S)
            raise UserError(f'The process that {self._what} has ended '
                            f'(exit status {self.process.exitcode}).') from None
        if not good:
            raise value
        return value  # type: ignore[no-any-return]

    def __enter__(self) -> 'FreshProcess':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.process.kill()
        self._pipe.close()
        self.process.join(PATIENCE_S)
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection) -> None:
    """Call the requested functions until the pipe is closed; other errors end the process."""
    while True:
        try:
            function, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = True, function(*arguments)
        except UserError as error:  # a subclass may not be picklable
            answer = False, UserError(str(error), *error.fields)
        with suppress(OSError):  # if the caller has ended
            pipe.send(answer)


@contextmanager
def program(
    module: str, *arguments: object, patience_s: float | None = 0.0, **options: Any,
) -> Iterator[subprocess.Popen[Any]]:
    """
    Run a module as a program, with the options of Popen; on exit it receives SIGINT.

    It is killed if it still runs after `patience_s` (None: no limit), or after a second Ctrl-C.
    """
    process = subprocess.Popen([sys.executable, '-m', module, *map(str, arguments)], **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
        finally:
            process.kill()
            process.wait()
