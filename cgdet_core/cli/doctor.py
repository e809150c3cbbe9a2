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

from collections.abc import Iterator
from dataclasses import asdict
import importlib.util
import json
from pathlib import Path
import subprocess
import sys
import tempfile
from typing import Annotated

from cgdet_core.cli.common import console, Json, write_report
from cgdet_core.doctor import Check
from rich.text import Text
import typer

STYLES = {'OK': 'green', 'WARN': 'yellow', 'FAIL': 'bold red'}


def doctor(
    model: Annotated[Path | None, typer.Argument(
        help='ONNX file to check; the shipped model by default.')] = None,
    seconds: Annotated[float, typer.Option(
        min=0.5, max=60.0, help='How long to send test images, and to listen.')] = 2.0,
    json_path: Json = None,
) -> None:
    """
    Check versions, GPU, model, transport and the ROS graph, and say what to do.

    Run it in the shell that starts the camera driver: it tests that environment. Exit status 1
    if anything fails.
    """
    checks: list[Check] = []
    for check in _checks(model, seconds):
        _show(check, checks)
        checks.append(check)
    counts = {level: sum(c.level == level for c in checks) for level in STYLES}
    console.print(f'{counts["OK"]} fine, {counts["WARN"]} warnings, {counts["FAIL"]} failures',
                  highlight=False)
    write_report({'checks': [asdict(c) for c in checks], **counts}, json_path)
    if counts['FAIL']:
        raise typer.Exit(1)


def _checks(model: Path | None, seconds: float) -> Iterator[Check]:
    from cgdet_core.doctor import machine

    sound = True
    for check in machine.versions():
        sound &= check.level != 'FAIL'
        yield check
    if sound:
        yield from machine.accelerators()
        if model is not None:
            from cgdet_core.doctor.model import model_checks

            yield from model_checks(model)
    else:
        yield Check('model', 'inference', 'FAIL', 'not tried without the modules above')
    if importlib.util.find_spec('rclpy') is None:
        if sound and model is None:
            yield Check('model', 'shipped model', 'WARN', 'not checked: ROS knows where it is',
                        'name it: cgdet doctor models/thermal.onnx')
        yield Check('ROS 2', 'rclpy', 'WARN', 'not found: transport and graph were not checked',
                    'source a distribution, or .venv/bin/ros_env.sh')
        return
    options = ['--seconds', str(seconds)] + (['--model'] if sound and model is None else [])
    yield from _ros_checks(options)


def _ros_checks(options: list[str]) -> Iterator[Check]:
    """Run the part that needs ROS as a program: cgdet_core never imports ROS."""
    with tempfile.TemporaryFile('w+', errors='replace') as errors:
        process = subprocess.Popen([sys.executable, '-m', 'cgdet_ros.doctor.checks', *options],
                                   stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith('{'):  # ROS itself may print lines
                    yield Check(**json.loads(line))
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if status:
        yield Check('ROS 2', 'checks', 'FAIL', said[-1] if said else f'exit status {status}',
                    'see "python -m cgdet_ros.doctor.checks"')


def _show(check: Check, before: list[Check]) -> None:
    if not before or before[-1].section != check.section:
        console.print(Text(check.section, style='bold'))
    line = Text.assemble('  ', (f'{check.level:<5}', STYLES[check.level]), f'{check.name}: ',
                         check.found)
    console.print(line, soft_wrap=True)
    if check.advice:
        console.print(Text(f'       -> {check.advice}'), soft_wrap=True)
