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

"""The package as pip installs it, used from another folder and without ROS."""

import importlib.util
import os
from pathlib import Path
import shutil
import subprocess
import sys

import cgdet_core
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('cgdet_core', 'cgdet_ros', 'config', 'launch', 'models', 'resource', 'setup.py',
           'setup.cfg', 'package.xml', 'LICENSE', 'NOTICE')
LOAD = ('import cgdet_core as cg; detector = cg.load(backend="onnxruntime", threads=1); '
        'print(cg.__file__, cg.__version__, *detector.card.classes)')


def run(*command: object, **environment: str) -> str:
    """Run a command without ROS's prefixes in a folder of its own; return its output."""
    kept = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'AMENT_PREFIX_PATH')}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True,
                          cwd=environment.pop('cwd'), env={**kept, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package's wheel, built from a copy, as building writes into the sources."""
    for tool in ('pip', 'setuptools'):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f'{tool} is not installed')
    folder = tmp_path_factory.mktemp('wheel')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / 'source' / name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, folder / 'source' / name)
    run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation',
        '--wheel-dir', folder, folder / 'source', cwd=str(folder))
    return next(folder.glob('*.whl'))


@pytest.mark.parametrize('option', ['--prefix', '--target'])
def test_the_shipped_model_is_found_wherever_pip_installs(
    wheel: Path, tmp_path: Path, option: str,
) -> None:
    place, elsewhere = tmp_path / 'place', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    run(sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-compile', '--no-index',
        '--ignore-installed', option, place, wheel, cwd=str(elsewhere))
    package = next(p.parent for p in place.rglob('cgdet_core/__init__.py'))
    path, version, *classes = run(sys.executable, '-c', LOAD, cwd=str(elsewhere),
                                  PYTHONPATH=str(package.parent)).split()
    assert Path(path).is_relative_to(place) and version == cgdet_core.__version__
    assert classes == ['person', 'bicycle', 'car']
    found = run(sys.executable, '-c', 'from cgdet_core.runtime.files import share_file; '
                'print(share_file("models/thermal.onnx"))', cwd=str(elsewhere),
                PYTHONPATH=str(package.parent))
    assert Path(found.strip()).is_relative_to(place)
