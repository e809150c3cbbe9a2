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

"""
The command line: `cgdet train | evaluate | detect | export | verify | build-engine | ...`.

Heavy modules are imported inside the commands, so that `cgdet --help` is fast and a robot
without torch can run `cgdet detect`, `verify`, `benchmark` and `bag`.
"""

from io import TextIOWrapper
import logging
import platform
import sys
from typing import Annotated

from cgdet_core.cli import measure, models, pairs, scores, train, yolo
from cgdet_core.cli.bags import bag_app
from cgdet_core.cli.collect import bag_to_dataset, data_collect
from cgdet_core.cli.common import (
    app,
    complain,
    help_of,
    KeepsInputs,
    say,
    sentence_of,
    show_log,
    TRAINING_MODULES,
)
from cgdet_core.cli.data import data_app
from cgdet_core.cli.detect import detect
from cgdet_core.cli.report import report
from cgdet_core.cli.track import track_app
from cgdet_core.cli.track_evaluate import track_evaluate
from cgdet_core.errors import UserError
from cgdet_core.machine import installed
import typer

# What decides results, by the names of the distributions; onnxruntime has one for each processor.
VERSIONS = ('numpy', 'onnxruntime', 'onnxruntime-gpu', 'openvino', 'opencv-python-headless',
            'opencv-python', 'tensorrt', 'tensorrt-rtx', 'torch', 'torchvision', 'lightning')

for command in (train.train, train.distill, models.ablate, scores.evaluate, report,
                scores.fit_scores, detect, models.export, models.build_engine, measure.verify,
                measure.benchmark, measure.doctor):
    app.command()(command)
data_app.command('collect')(data_collect)
bag_app.command('to-dataset')(bag_to_dataset)
data_app.command('register')(pairs.data_register)
data_app.command('to-yolo')(yolo.data_to_yolo)
track_app.command('evaluate')(track_evaluate)
app.add_typer(bag_app, name='bag')
app.add_typer(data_app, name='data')
app.add_typer(models.engines_app, name='engines')
app.add_typer(track_app, name='track')
for program in (app, bag_app, data_app, models.engines_app, track_app):
    for entry in program.registered_commands:
        entry.cls, entry.help = KeepsInputs, help_of(entry.callback)


def show_versions(asked: bool) -> None:
    """Print the versions of this package, Python and installed modules, without importing them."""
    if not asked:
        return
    from cgdet_core import __version__  # read when asked for

    say(f'cgdet {__version__}')
    say(f'Python {platform.python_version()}')
    for name, number in installed(VERSIONS).items():
        say(f'{name} {number}')
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option(
        '--version', callback=show_versions, is_eager=True,
        help='Show versions of cgdet and of the installed modules, and exit.')] = False,
    verbose: Annotated[bool, typer.Option(
        '--verbose', help='Show which backend is used and why; before the command.')] = False,
) -> None:
    """Train, evaluate and deploy small thermal object detectors."""
    if verbose:
        logging.getLogger('cgdet_core.runtime').setLevel(logging.INFO)


def main() -> None:
    """Run the command line; invalid input is reported in one sentence with exit status 1."""
    show_log()
    for stream in (sys.stdin, sys.stdout):  # names of files may be no text
        if isinstance(stream, TextIOWrapper) and stream.errors in ('strict', 'surrogateescape'):
            stream.reconfigure(errors='surrogateescape' if stream is sys.stdin
                               else 'backslashreplace')
    try:
        app(standalone_mode=True)
    except UserError as error:
        complain(sentence_of(error))
    except OSError as error:
        complain(f'{error.strerror or error}: {error.filename}.' if error.filename else str(error))
    except MemoryError:
        complain('The memory of this machine is full; close other programs or choose smaller '
                 'inputs.')
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] not in TRAINING_MODULES:
            raise
        complain(f'The module {error.name} is missing; install what training needs with '
                 '"pip install .[train]".')
    else:
        return
    sys.exit(1)
