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

"""`cgdet` with missing or broken Python modules, as on a robot without pip packages."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[2]


def cgdet(missing: str = '', path: Path = ROOT) -> subprocess.CompletedProcess:
    """Run `cgdet doctor` without a module, and with a folder first in the module path."""
    code = f'import sys; sys.modules[{missing!r}] = None\n' if missing else ''
    code += ('import runpy, sys; sys.argv = ["cgdet", "doctor"]; '
             'runpy.run_module("cgdet_core", run_name="__main__")')
    before = [str(path), str(ROOT), os.environ.get('PYTHONPATH', '')]
    return subprocess.run([sys.executable, '-c', code], capture_output=True,
                          text=True, env={**os.environ, 'PYTHONPATH': os.pathsep.join(before)})


@pytest.mark.parametrize('module', ['typer', 'rich'])
def test_a_missing_module_is_one_sentence(module: str) -> None:
    result = cgdet(missing=module)
    assert result.returncode == 1 and result.stdout == ''
    assert result.stderr == (f'cgdet: The module {module} is missing; install what cgdet needs '
                             'with "pip install rich typer rosbags".\n')


def test_an_opencv_for_another_numpy_is_explained(tmp_path: Path) -> None:
    (tmp_path / 'cv2.py').write_text('raise ImportError("numpy.core.multiarray failed")')
    result = cgdet(path=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert result.stderr.startswith('cgdet: OpenCV: ImportError: numpy.core.multiarray failed; ')
    assert 'numpy<2' in result.stderr


def test_a_missing_module_of_ours_stays_a_traceback() -> None:
    result = cgdet(missing='cgdet_core.cli.bags')
    assert result.returncode == 1 and 'ModuleNotFoundError' in result.stderr
