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

Heavy modules are imported inside the commands: `cgdet --help` answers at once, and a robot
without torch can still run `cgdet detect`, `verify`, `benchmark` and `bag`.
"""

import sys
from typing import NoReturn

from cgdet_core.cli.bags import bag_app
from cgdet_core.cli.common import show_log
from cgdet_core.cli.data import data_app
from cgdet_core.cli.doctor import doctor
from cgdet_core.cli.engines import engines_app
from cgdet_core.cli.measure import benchmark, verify
from cgdet_core.cli.models import app
from cgdet_core.errors import UserError
from rich.console import Console

app.command()(verify)
app.command()(benchmark)
app.command()(doctor)
app.add_typer(bag_app, name='bag')
app.add_typer(data_app, name='data')
app.add_typer(engines_app, name='engines')


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit status 1."""
    show_log()
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f'{error.strerror or error}: {error.filename}.' if error.filename else str(error))


def _fail(sentence: str) -> NoReturn:
    Console(stderr=True).print(f'cgdet: {sentence}', style='red', highlight=False, markup=False,
                               soft_wrap=True)
    sys.exit(1)
