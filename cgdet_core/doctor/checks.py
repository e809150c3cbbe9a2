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

"""All checks of `cgdet doctor`, those that need ROS in a process of their own."""

from collections.abc import Iterator
import importlib.util
import json
from pathlib import Path
import subprocess
import tempfile

from cgdet_core.doctor import Check, machine
from cgdet_core.processes import program


def checks(model: Path | None, seconds: float) -> Iterator[Check]:
    """
    Check versions, GPU, model and, where ROS is there, transport and graph.

    model: the shipped one by default, which ROS finds. seconds: to send and listen for.
    """
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
    shipped = ['--model'] if sound and model is None else []
    yield from _ros_checks('--seconds', str(seconds), *shipped)


def _ros_checks(*options: str) -> Iterator[Check]:
    """Run the part that needs ROS as a program: cgdet_core never imports ROS."""
    with tempfile.TemporaryFile('w+', errors='replace') as errors:
        with program('cgdet_ros.doctor.checks', *options, stdout=subprocess.PIPE, stderr=errors,
                     text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith('{'):  # ROS itself may print lines
                    yield Check(**json.loads(line))
            status = process.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if status:
        yield Check('ROS 2', 'checks', 'FAIL', said[-1] if said else f'exit status {status}',
                    'see "python -m cgdet_ros.doctor.checks"')
