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

"""The cores that a container may use: those of the affinity mask, at most the CPU quota."""

import os
from pathlib import Path

from cgdet_core.runtime.inference.session import cpu_threads
from cgdet_core.runtime.processor import available_cores
import pytest

TWO, ONE = '0::{}\n', '4:memory:{0}\n3:cpu,cpuacct:{0}\n0::/\n'  # versions of control groups


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(16)))


@pytest.mark.parametrize(('text', 'cores'), [
    ('100000 100000', 1), ('250000 100000', 2), ('50000 100000', 1), ('max 100000', 16),
    ('3200000 100000', 16), ('', 16), ('max', 16), ('800000 100000\n', 8)])
def test_a_container_uses_at_most_its_quota(text: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / 'cpu.max').write_text(text)
    assert available_cores(TWO.format('/'), tmp_path) == cores


@pytest.mark.parametrize('group', ['/', '/pods/one', '/not/visible/here'])
@pytest.mark.parametrize('limited', ['', 'pods', 'pods/one'])
def test_the_quota_of_a_group_above_counts(group: str, limited: str, tmp_path: Path) -> None:
    (tmp_path / 'pods/one').mkdir(parents=True)
    (tmp_path / limited / 'cpu.max').write_text('400000 100000')
    inside = f'{group}/'.startswith(f'/{limited}/'.replace('//', '/'))
    assert available_cores(TWO.format(group), tmp_path) == (4 if inside else 16)


@pytest.mark.parametrize(('quota', 'cores'), [('300000', 3), ('-1', 16), ('1000', 1)])
@pytest.mark.parametrize('mount', ['cpu,cpuacct', 'cpu'])
def test_version_1_of_control_groups(quota: str, cores: int, mount: str, tmp_path: Path) -> None:
    folder = tmp_path / mount
    folder.mkdir()
    (folder / 'cpu.cfs_quota_us').write_text(f'{quota}\n')
    (folder / 'cpu.cfs_period_us').write_text('100000\n')
    assert available_cores(ONE.format('/docker/4711'), tmp_path) == cores


def test_without_control_groups_all_cores_of_the_mask_count(tmp_path: Path) -> None:
    assert available_cores('', tmp_path) == available_cores(TWO.format('/'), tmp_path) == 16


def test_sessions_use_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('cgdet_core.runtime.inference.session.available_cores', lambda: 3)
    assert (cpu_threads(0), cpu_threads(5)) == (3, 5)
