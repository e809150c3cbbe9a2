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

"""Checks of modules that work, are missing or are broken."""

import sys

from cgdet_core.doctor import machine
from cgdet_core.runtime.inference.openvino import openvino_version
import pytest


def test_what_is_installed_here_is_fine() -> None:
    checks = {c.name: c for c in machine.versions()}
    assert checks['Python'].found == '.'.join(map(str, sys.version_info[:3]))
    assert {c.level for c in checks.values()} == {'OK'}
    assert 'with numpy' in checks['OpenCV'].found and 'CPU' in checks['ONNX Runtime'].found


@pytest.mark.parametrize(('code', 'words'), [
    ('import no_such_module', "No module named 'no_such_module'"),
    ('import os; os.abort()', 'exit status -6'),
    ('import sys; sys.stderr.write("pages\\n"); raise ImportError("built for numpy 1")',
     'ImportError: built for numpy 1')])
def test_a_broken_module_is_a_failure_with_its_last_words(code: str, words: str) -> None:
    check = machine.module('it', code, 'do this')
    assert (check.level, check.found, check.advice) == ('FAIL', check.found, 'do this')
    assert words in check.found


def test_openvino_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    if openvino_version():
        assert openvino_version().rpartition('.')[0] in machine.openvino().found
        checks = {c.name: c for c in machine.accelerators()}
        if 'ONNX Runtime' in checks['backend auto'].found:  # else TensorRT runs here
            assert checks['backend auto'].found == 'uses the faster of ONNX Runtime and OpenVINO'
        monkeypatch.setattr(machine, 'OPENVINO', 'raise ImportError("libtbb.so.12")')
        assert (machine.openvino().level, machine.openvino().found) == (
            'WARN', 'ImportError: libtbb.so.12')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    assert (machine.openvino().level, machine.openvino().found) == (
        'OK', 'not installed, and optional')


def test_a_missing_tensorrt_is_a_warning_only_beside_a_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for driver, level in (('', 'OK'), ('NVIDIA 570', 'WARN')):
        monkeypatch.setattr(machine, 'nvidia_driver', lambda driver=driver: driver)
        checks = {c.name: c for c in machine.accelerators()}
        if 'ONNX Runtime' not in checks['backend auto'].found:
            pytest.skip('TensorRT runs here')
        assert checks['TensorRT'].level == checks['TensorRT-RTX'].level == level
        assert bool(checks['TensorRT'].advice) == bool(driver)
