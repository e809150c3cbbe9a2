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

"""The command line in processes that are forked from one that has imported its modules."""

from collections.abc import Callable
import multiprocessing
import os
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, '-m', 'cgdet_core']
# What takes long; a module that is not installed is left out.
PRELOADED = ['cgdet_core.cli', 'cgdet_core.tasks', 'cgdet_core.detection.training',
             'cgdet_core.tracking.training', 'cgdet_core.detection.evaluation',
             'cgdet_core.deployment.export', 'cgdet_core.data.bags.io', 'matplotlib.pyplot',
             'tensorboard.backend.event_processing.event_accumulator']


def run_here(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    """Run the command line in this process, which writes to two files in a folder."""
    multiprocessing.set_start_method(None, force=True)  # loading workers are those of the program
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    for number, name in enumerate(('stdout', 'stderr'), 1):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ['cgdet', *arguments]
    from cgdet_core.__main__ import main
    from cgdet_core.cli.common import console
    console.__init__(markup=False)  # for this environment and these files
    main()


def forks(folder: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs the command line and returns as subprocess.run does."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOADED)

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        words = [str(argument) for argument in arguments]
        process = context.Process(target=run_here, args=(words, env or dict(os.environ), folder))
        process.start()
        try:
            process.join(600)
        finally:
            process.kill()
            process.join()
        return subprocess.CompletedProcess(
            words, process.exitcode, *((folder / n).read_text() for n in ('stdout', 'stderr')))

    return run
