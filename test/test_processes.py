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

"""Child processes: calls in a new process, and programs that end with their block."""

import os
import signal
import subprocess
import sys
import time

from cgdet_core.errors import UserError
from cgdet_core.processes import FreshProcess, program
import pytest

WAITS = ('import signal, sys, time\n'
         'signal.signal(signal.SIGINT, {})\n'
         'print("ready", flush=True)\n'
         'time.sleep(600)\n')


def refuse(sentence: str) -> None:
    raise UserError(sentence, 'output')


def fail() -> None:
    raise OSError('unexpected')


def test_calls_are_answered_by_one_fresh_process() -> None:
    with FreshProcess('tests') as process:
        first, second = process.call(os.getpid), process.call(os.getpid)
        assert first == second == process.process.pid != os.getpid()
        assert process.call(signal.getsignal, signal.SIGINT) == signal.SIG_IGN
        with pytest.raises(UserError, match='not so') as caught:
            process.call(refuse, 'not so')
        assert caught.value.fields == ('output',)
        assert process.call(os.getpid) == first
    assert process.process.exitcode == 0
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_any_other_error_ends_it(capfd: pytest.CaptureFixture) -> None:
    with FreshProcess('tests') as process:
        with pytest.raises(UserError, match=r'that tests has ended \(exit status 1\)'):
            process.call(fail)
    assert 'OSError: unexpected' in capfd.readouterr().err


def test_an_error_ends_it_in_the_middle_of_a_call() -> None:
    with pytest.raises(KeyboardInterrupt), FreshProcess('sleeps') as process:
        process.call(os.getpid)
        process._pipe.send((time.sleep, (600,)))
        raise KeyboardInterrupt
    assert process.process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(('handler', 'status'), [
    ('lambda *_: sys.exit(7)', 7), ('signal.SIG_IGN', -signal.SIGKILL)])
def test_a_program_ends_with_its_block(tmp_path: object, handler: str, status: int) -> None:
    module = f'{tmp_path}/waits.py'
    with open(module, 'w') as file:
        file.write(WAITS.format(handler))
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    with program('waits', patience_s=60.0 if status > 0 else 0.5, stdout=subprocess.PIPE,
                 env=environment, text=True) as process:
        assert process.args == [sys.executable, '-m', 'waits']
        assert process.stdout is not None and process.stdout.readline() == 'ready\n'
    assert process.returncode == status
