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

"""`cgdet doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cgdet_core.cli.common import console, Json, say, write_report
from cgdet_core.doctor import Check
from rich.text import Text
import typer

STYLES = {'OK': 'green', 'WARN': 'yellow', 'FAIL': 'bold red'}


def doctor(
    model: Annotated[Path | None, typer.Argument(
        help='ONNX file to check; the shipped model by default.')] = None,
    seconds: Annotated[float, typer.Option(
        min=0.5, max=60.0, help='Seconds to send test images, and to listen.')] = 2.0,
    json_path: Json = None,
) -> None:
    """
    Check versions, GPU, model, transport and the ROS graph, and advise what to do.

    Run it in the shell that starts the camera driver, as it tests that environment. The exit
    status is 1 if a check fails.
    """
    from cgdet_core.doctor.machine import checks

    made: list[Check] = []
    for check in checks(model, seconds):
        _show(check, made)
        made.append(check)
    counts = {level: sum(c.level == level for c in made) for level in STYLES}
    say(f'{counts["OK"]} fine, {counts["WARN"]} warnings, {counts["FAIL"]} failures')
    write_report({'checks': [asdict(c) for c in made], **counts}, json_path)
    if counts['FAIL']:
        raise typer.Exit(1)


def _show(check: Check, before: list[Check]) -> None:
    if not before or before[-1].section != check.section:
        console.print(Text(check.section, style='bold'))
    line = Text.assemble('  ', (f'{check.level:<5}', STYLES[check.level]), f'{check.name}: ',
                         check.found)
    console.print(line, soft_wrap=True)
    if check.advice:
        console.print(Text(f'       -> {check.advice}'), soft_wrap=True)
