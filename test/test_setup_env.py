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


"""The set-up of .venv: its two levels, and what it shows while it runs."""

from collections.abc import Iterator
import importlib.util
from pathlib import Path
import re
import sys
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LARGE = ('torch', 'nvidia', 'lightning', 'tensorrt', 'openvino', 'ray')


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return dev/setup_env.py with a .venv of its own, in which nothing is installed."""
    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'dev' / 'setup_env.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'VENV', tmp_path)
    monkeypatch.setattr(module, 'LOG', tmp_path / 'setup.log')
    monkeypatch.setattr(module, 'sourced_distribution', lambda: None)
    yield module


def test_the_demo_needs_a_part_of_the_environment_and_setup_adds_the_rest(
    setup: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def run(*options: str) -> list[str]:
        done.clear()
        monkeypatch.setattr(sys, 'argv', ['setup_env.py', *options])
        assert setup.main() == 0
        return list(done)

    monkeypatch.setattr(setup, 'set_up', lambda level, distribution: done.append(level))
    assert run('--runtime') == ['runtime'] and run('--runtime') == []
    assert run() == ['setup'] and run() == [] and run('--runtime') == []
    (setup.VENV / 'runtime.stamp').unlink()
    assert run() == ['runtime']


def test_a_level_is_set_up_again_if_what_it_is_made_of_changes(
    setup: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    locks = tmp_path / 'locks'
    locks.mkdir()
    for path in (ROOT / 'dev' / 'locks').glob('*.txt'):
        (locks / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(setup, 'LOCKS', locks)
    monkeypatch.setattr(setup, '_hash', lambda files, root, *values: tuple(
        path.read_bytes() for path in files))
    before = {level: setup.stamp(level, None) for level in ('runtime', 'setup')}
    (locks / 'setup-ros.txt').write_text('torch==1')
    assert setup.stamp('runtime', None) == before['runtime']
    assert setup.stamp('setup', None) != before['setup']
    (locks / 'runtime-ros.txt').write_text('av==1')
    assert setup.stamp('runtime', None) != before['runtime']


def test_the_part_for_the_demo_names_no_large_package() -> None:
    for name in ('runtime-ros', 'runtime-distribution'):
        text = (ROOT / 'dev' / 'locks' / f'{name}.txt').read_text()
        names = re.findall(r'^([A-Za-z][\w-]*)', text, re.MULTILINE)
        assert names and not [n for n in names if n.lower().startswith(LARGE)]


def test_downloads_are_shown_and_everything_is_logged(
    setup: Any, capsys: pytest.CaptureFixture[str],
) -> None:
    with setup.step('installing'):
        setup.run(['printf', 'Resolved 3 packages\nDownloading big (9 MiB)\nlast'], 'It failed')
    shown = capsys.readouterr().out
    assert shown.startswith('  installing ...\n    Downloading big (9 MiB)\n  installing: ')
    assert setup.LOG.read_text().endswith('Resolved 3 packages\nDownloading big (9 MiB)\nlast\n')
    with pytest.raises(setup.SetupError, match='It failed'):
        setup.run(['false'], 'It failed')
    with pytest.raises(setup.SetupError, match='It failed: .*nosuch'):
        setup.run(['nosuch'], 'It failed')


def test_a_terminal_shows_the_newest_line_within_its_width(
    setup: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    monkeypatch.setenv('COLUMNS', '60')
    setup.run(['printf', 'Building %s\n', 'x' * 100], 'It failed')
    parts = capsys.readouterr().out.split('\r\x1b[K')
    assert any('Building xxx' in part for part in parts) and max(map(len, parts)) < 60
