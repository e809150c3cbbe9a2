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

"""`cgdet doctor` on a machine without ROS."""

from pathlib import Path
import sys

from cgdet_core.cli import app
import pytest
from typer.testing import CliRunner

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'thermal_small.onnx'


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Run the command with the parameters and without rclpy; return its output."""
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    result = CliRunner().invoke(app, ['doctor', *map(str, request.param)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize('output', [()], indirect=True)
def test_what_was_not_checked_is_a_warning(output: str) -> None:
    assert 'WARN rclpy: not found' in output
    assert 'transport\n' not in output


@pytest.mark.parametrize('output', [(), (SHIPPED,)], indirect=True)
def test_a_model_is_checked_without_ros(output: str) -> None:
    assert 'WARN rclpy: not found' in output and 'OK   inference: ' in output
    assert str(SHIPPED) in output.replace('\n', '')
