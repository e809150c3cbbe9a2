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

"""The engine cache: built once, rebuilt if in doubt, and failures are only warnings."""

from collections.abc import Callable
from dataclasses import replace
import logging
import os
from pathlib import Path
import subprocess
import sys
import time

from cgdet_core.errors import UserError
from cgdet_core.runtime import files
from cgdet_core.runtime.tensorrt import cache as engines
from cgdet_core.runtime.tensorrt.cache import EngineCache, LOCK, log_progress, obtain, Rejected
from cgdet_core.runtime.tensorrt.engine_file import EngineKey, read_engine, write_engine
import pytest

KEY = EngineKey('ab' * 32, 'tensorrt', '10.3.0', ('sm87',), 'Orin', 'fp16',
                {'images': (1, 1, 512, 640)})


class Robot:
    """A model, its cache, and a builder that counts."""

    def __init__(self, folder: Path) -> None:
        (folder / 'models').mkdir()
        self.model = folder / 'models' / 'thermal.onnx'
        self.cache = EngineCache(folder / 'cache')
        self.built = 0

    def build(self) -> bytes:
        self.built += 1
        return b'engine %d' % self.built

    def start(
        self, key: EngineKey = KEY, accept: Callable[[bytes], bytes] = bytes,
    ) -> tuple[bytes, Path | None]:
        return obtain(self.cache, key, self.model, self.build, accept, log_progress())


@pytest.fixture
def robot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Robot:
    caplog.set_level(logging.INFO, 'cgdet_core.runtime')
    return Robot(tmp_path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_it_is_built_once(robot: Robot) -> None:
    engine, path = robot.start()
    assert path is not None and robot.start() == (engine, path) and robot.built == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('change', [
    {'version': '10.7.0'}, {'gpu': 'Thor', 'targets': ('sm110',)}, {'onnx_sha256': 'cd' * 32}])
def test_a_foreign_engine_is_not_touched_and_another_is_built(robot: Robot, change: dict) -> None:
    _, first = robot.start()
    _, second = robot.start(replace(KEY, **change))
    assert robot.built == 2 and first != second
    assert robot.start()[1] == first and robot.built == 2


@pytest.mark.parametrize('damage', [
    lambda p: p.write_bytes(p.read_bytes()[:-50]), lambda p: p.write_bytes(b''),
    lambda p: p.write_bytes(p.read_bytes()[:-1] + b'x'), lambda p: p.chmod(0o666)])
def test_a_damaged_file_is_silently_replaced(
    robot: Robot, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object],
) -> None:
    _, path = robot.start()
    assert path is not None
    damage(path)
    assert robot.start() == (b'engine 2', path)
    assert not warnings(caplog) and f'{path} is not used' in caplog.text
    assert read_engine(path).payload == b'engine 2'


def test_an_engine_that_tensorrt_rejects_is_built_again(
    robot: Robot, caplog: pytest.LogCaptureFixture,
) -> None:
    robot.start()

    def accept(payload: bytes) -> bytes:
        if payload == b'engine 1':
            raise Rejected('magic tag does not match')
        return payload

    assert robot.start(accept=accept)[0] == b'engine 2'
    assert 'magic tag' in caplog.text and not warnings(caplog)
    assert robot.start()[0] == b'engine 2' and len(robot.cache.files()) == 1


def test_a_new_engine_that_is_rejected_is_not_kept(robot: Robot) -> None:
    def accept(payload: bytes) -> bytes:
        raise Rejected('out of memory')

    with pytest.raises(Rejected):
        robot.start(accept=accept)
    assert not robot.cache.files()
    good = robot.start()
    with pytest.raises(Rejected):
        robot.start(accept=accept)
    assert robot.start() == good  # it was not the engine's fault


def test_an_engine_next_to_the_model_is_found_and_never_removed(robot: Robot) -> None:
    beside = robot.model.with_name('for_the_robot.engine')
    write_engine(beside, KEY, 'thermal', b'ahead of time')
    assert robot.start() == (b'ahead of time', beside) and robot.built == 0

    def accept(payload: bytes) -> bytes:
        if payload.startswith(b'ahead'):
            raise Rejected('no')
        return payload

    assert robot.start(accept=accept)[0] == b'engine 1' and beside.is_file()


def test_a_failed_build_leaves_only_the_lock(
    robot: Robot, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(robot, 'build', interrupted)
    with pytest.raises(KeyboardInterrupt):
        robot.start()
    assert [p.name for p in robot.cache.folder.iterdir()] == [LOCK]


def test_a_full_disk_is_a_warning(
    robot: Robot, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.open

    def full(path: Path, flags: int, mode: int = 0o777) -> int:
        real(path, flags, mode)
        return real('/dev/full', os.O_WRONLY)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, 'open', lambda path, flags, *mode, **folder: (
            full if flags & os.O_EXCL else real)(path, flags, *mode, **folder))
        assert robot.start() == (b'engine 1', None)
    assert len(warnings(caplog)) == 1 and 'No space left' in caplog.text
    assert [p.name for p in robot.cache.folder.iterdir()] == [LOCK]


@pytest.mark.parametrize('trouble', ['others may write', 'a file', 'read-only'])
def test_a_folder_that_cannot_be_used_is_a_warning(
    robot: Robot, caplog: pytest.LogCaptureFixture, trouble: str,
) -> None:
    folder = robot.cache.folder
    if trouble == 'a file':
        folder.write_text('')
    else:
        folder.mkdir()
        folder.chmod(0o777 if trouble == 'others may write' else 0o500)
    if trouble == 'read-only' and os.access(folder, os.W_OK):
        robot.cache.folder = Path('/proc/cgdet')  # root may write everywhere else
    assert robot.start() == (b'engine 1', None)
    assert len(warnings(caplog)) == 1 and 'stay in memory' in caplog.text
    assert robot.start() == (b'engine 2', None)


def test_an_engine_planted_in_a_folder_of_others_is_not_loaded(robot: Robot) -> None:
    _, path = robot.start()
    robot.cache.folder.chmod(0o777)
    assert robot.start() == (b'engine 2', None)


def test_the_least_recently_used_is_removed_first_and_never_the_latest(robot: Robot) -> None:
    keys = [replace(KEY, version=str(i)) for i in range(4)]
    paths = [robot.start(key)[1] for key in keys[:3]]
    for age, path in zip((300, 200, 100), paths):
        assert path is not None
        os.utime(path, (time.time() - age,) * 2)
    robot.start(keys[0])  # used just now
    assert paths[2] is not None
    robot.cache.limit = 3 * paths[2].stat().st_size + 10
    _, latest = robot.start(keys[3])
    assert set(robot.cache.files()) == {paths[0], paths[2], latest}
    robot.cache.limit = 1
    _, latest = robot.start(replace(KEY, version='9'))
    assert robot.cache.files() == [latest]


HOLDER = """
import sys, time
from cgdet_core.runtime.tensorrt.cache import EngineCache
with EngineCache(sys.argv[1]).lock(lambda what, seconds: None) as locked:
    print(locked, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(folder: Path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, '-c', HOLDER, folder, str(seconds)],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == 'True\n'
    return process


def test_a_process_waits_for_another_and_reports_it(robot: Robot) -> None:
    told: list[tuple[str, float]] = []
    process = hold(robot.cache.folder, 3)
    obtain(robot.cache, KEY, robot.model, robot.build, bytes, lambda *what: told.append(what))
    assert process.wait() == 0 and robot.built == 1
    assert 'another process' in told[0][0] and told[-1][1] >= 1


def test_a_killed_process_leaves_no_lock_behind(robot: Robot) -> None:
    process = hold(robot.cache.folder, 60)
    process.kill()
    process.wait()
    told: list[tuple[str, float]] = []
    obtain(robot.cache, KEY, robot.model, robot.build, bytes, lambda *what: told.append(what))
    assert robot.built == 1 and not told


def test_progress_warns_at_the_start_and_then_at_intervals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell = log_progress(10)
    for second in range(25):
        tell('Building', second)
    tell('Waiting', 25)
    assert warnings(caplog) == [
        'Building: 0 s so far', 'Building: 10 s so far', 'Building: 20 s so far',
        'Waiting: 25 s so far']


def test_the_folder_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv('CGDET_ENGINE_CACHE', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert engines.default_folder() == tmp_path / 'cgdet_ros' / 'engines'
    monkeypatch.setenv('CGDET_ENGINE_CACHE', str(tmp_path / 'here'))
    assert EngineCache().folder == tmp_path / 'here'
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('CGDET_ENGINE_CACHE', '~/here')  # of a service, without a shell
    assert EngineCache().folder == tmp_path / 'here'


def test_a_user_without_a_home_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    monkeypatch.setattr(engines.Path, 'home', no_home)
    with pytest.raises(UserError, match='CGDET_ENGINE_CACHE'):
        engines.default_folder()
