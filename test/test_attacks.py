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

"""dev/robustness.py, dev/locks and the containers: what they promise, on a few examples."""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEV = ROOT / 'dev'
DOCKERFILES = sorted((ROOT / 'docker').glob('Dockerfile*'))
LOCKS = sorted((DEV / 'locks').glob('*.txt'))


def test_a_few_messages_and_pictures_and_kills_of_the_quick_writers() -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    done = subprocess.run(
        [sys.executable, DEV / 'robustness.py', '--messages', '60', '--pictures', '40', '--kills',
         '2', '--writers', 'engine cache', 'data convert', 'detect'], capture_output=True,
        text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ('messages', 'pictures', 'engine cache', 'data convert', 'detect'):
        assert name in done.stdout


@pytest.mark.parametrize('path', LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_the_hashes_of_every_package_and_names_no_server(path: Path) -> None:
    text = path.read_text()
    entries = re.split(r'\n(?=[a-z0-9])', text)[1:]
    assert entries and all('==' in e and '--hash=sha256:' in e for e in entries)
    assert '://' not in text


def pins(name: str) -> set[str]:
    """Return name==version of a file of requirements."""
    found = re.findall(r'^([A-Za-z0-9_.-]+)(?:\[[a-z]*\])?==([^\s;]+)', (DEV / name).read_text(),
                       re.MULTILINE)
    return {f'{package.lower().replace("_", "-")}=={version}' for package, version in found}


@pytest.mark.parametrize(('lock', 'files'), [
    ('runtime-ros', ['runtime', 'ros']), ('setup-ros', ['runtime', '', 'ros']),
    ('runtime-distribution', ['runtime', 'distribution']),
    ('setup-distribution', ['runtime', '', 'distribution']), ('no-deps', ['no-deps'])])
def test_a_lock_is_that_of_the_requirements(lock: str, files: list[str]) -> None:
    """Otherwise run dev/lock.py."""
    wanted = set().union(*(pins(f'requirements{"-" * bool(f)}{f}.txt') for f in files))
    assert wanted and not wanted - pins(f'locks/{lock}.txt')


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_a_container_is_not_root_and_checks_what_it_downloads(path: Path) -> None:
    text = re.sub(r'\\\n', ' ', path.read_text())
    users = re.findall(r'^USER (\S+)$', text, re.MULTILINE)
    assert users and users[-1] not in ('root', '0')
    steps = re.findall(r'^RUN .*$', text, re.MULTILINE)
    for step in steps:
        assert 'pip install' not in step or '--require-hashes' in step
        assert not re.search(r'curl -|wget ', step) or 'sha256sum --strict --check' in step
    assert any('--require-hashes' in step for step in steps)


def test_the_licenses_of_all_locked_packages_are_listed() -> None:
    """Otherwise run dev/licenses.py."""
    page = (ROOT / 'docs' / 'licenses.md').read_text()
    listed = set(re.findall(r'^\| ([a-z0-9._-]+) \|', page, re.MULTILINE))
    for line in re.findall(r'^Only on other machines or Pythons: (.*)\.$', page, re.MULTILINE):
        listed |= set(line.split(', '))
    text = '\n'.join((DEV / 'locks' / f'{name}.txt').read_text()
                     for name in ('runtime-ros', 'setup-ros', 'no-deps'))
    locked = set(re.findall(r'^([a-z0-9][a-z0-9._-]*)==', text, re.MULTILINE))
    assert locked and not locked - listed
