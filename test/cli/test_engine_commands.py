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

"""`cgdet build-engine` and `cgdet engines`, with the real TensorRT-RTX builder."""

from collections.abc import Callable
import fcntl
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

import pytest

Run = Callable[..., subprocess.CompletedProcess]
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / 'models' / 'thermal.onnx'
pytest.importorskip('tensorrt_rtx', reason='TensorRT-RTX is not installed here')
TWO = ('--target', 'sm86', '--target', 'sm89')


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('CGDET_ENGINE_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-m', 'cgdet_core', *map(str, arguments)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until_building(cache: Path) -> None:
    for _ in range(12000):  # two minutes
        time.sleep(0.01)
        try:
            with (cache / 'build.lock').open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            return
    raise AssertionError('no build was started')


def test_build_list_and_clean(
    run_cgdet: Run, program: Run, cache: Path, tmp_path: Path,
) -> None:
    output = tmp_path / 'robot' / 'thermal.engine'
    built = run_cgdet('build-engine', MODEL, *TWO, '--output', output)
    assert built.returncode == 0, built.stderr
    assert 'was built in' in built.stdout and 'sm86+sm89, fp32' in built.stdout
    assert output.is_file() and len(list(cache.glob('*.engine'))) == 1
    again = run_cgdet('build-engine', MODEL, '--target', 'sm89', '--no-verify')
    assert again.returncode == 0 and 'was built' not in again.stdout
    if shutil.which('nvidia-smi') is None:
        assert 'Not verified, as' in built.stdout and 'erified' not in again.stdout
    (cache / f'broken-{0:016x}.engine').write_bytes(b'CGDETENG')
    listed = program('engines', 'list', env={**os.environ, 'COLUMNS': '150'})
    assert listed.returncode == 0, listed.stderr
    assert 'tensorrt_rtx 1.' in listed.stdout and 'sm86 sm89' in listed.stdout
    assert 'broken-0' in listed.stdout and 'truncated' in listed.stdout
    assert 'Files: 2' in listed.stdout
    for arguments, removed, left in ((('other',), 1, 1), (('thermal',), 1, 0), (('--all',), 0, 0)):
        cleaned = program('engines', 'clean', *arguments)
        assert f'Files removed: {removed}, ' in cleaned.stdout, cleaned.stdout
        assert f'left: {left}, ' in cleaned.stdout


def test_engines_of_other_tools_are_not_removed(run_cgdet: Run, cache: Path) -> None:
    cache.mkdir(mode=0o700)
    other = cache / 'model.engine'
    other.write_bytes(b'of another tool')
    assert 'Files removed: 0, ' in run_cgdet('engines', 'clean', '--all').stdout
    unknown = run_cgdet('engines', 'clean', 'nobody')
    assert unknown.returncode == 1 and 'no engine of nobody' in unknown.stderr
    assert other.read_bytes() == b'of another tool'


def test_names_are_shown_unchanged(run_cgdet: Run, cache: Path) -> None:
    cache.mkdir()
    (cache / 'm[v2]-0123456789abcdef.engine').write_bytes(b'')
    listed = run_cgdet('engines', 'list', env={**os.environ, 'COLUMNS': '150'})
    assert 'm[v2]-0123456789abcdef.engine' in listed.stdout


def test_without_targets_it_builds_for_all_but_turing(run_cgdet: Run, tmp_path: Path) -> None:
    result = run_cgdet('build-engine', MODEL, '--backend', 'tensorrt_rtx')
    assert result.returncode == 0, result.stderr
    if shutil.which('nvidia-smi') is None:
        assert 'sm80+sm86+sm89+sm120' in result.stdout and 'sm75' not in result.stdout


def test_the_file_next_to_the_model_is_used(run_cgdet: Run, cache: Path, tmp_path: Path) -> None:
    for path in (MODEL, MODEL.with_suffix('.json')):
        shutil.copy(path, tmp_path)
    model = tmp_path / MODEL.name
    beside = tmp_path / 'ahead.engine'
    assert run_cgdet('build-engine', model, *TWO, '--output', beside).returncode == 0
    shutil.rmtree(cache)
    result = run_cgdet('build-engine', model, *TWO)
    assert result.returncode == 0 and str(beside) in result.stdout
    assert 'was built' not in result.stdout
    assert not cache.exists()


def test_two_processes_build_once(cache: Path) -> None:
    processes = [start('build-engine', MODEL, *TWO) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs
    assert sum('was built in' in out for out, _ in outputs) == 1
    assert sorted(p.name.split('-')[0] for p in cache.iterdir()) == ['build.lock', 'thermal']


def test_ctrl_c_leaves_only_the_lock(cache: Path) -> None:
    process = start('build-engine', MODEL, *TWO)
    wait_until_building(cache)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 130, (out, error)
    assert error == 'cgdet: interrupted; no engine was written.\n'
    assert [p.name for p in cache.iterdir()] == ['build.lock']


def test_a_killed_builder_blocks_no_other(run_cgdet: Run, cache: Path) -> None:
    process = start('build-engine', MODEL, *TWO)
    wait_until_building(cache)
    process.kill()
    process.communicate()
    assert run_cgdet('build-engine', MODEL, *TWO).returncode == 0
    assert len(list(cache.glob('*.engine'))) == 1


@pytest.mark.parametrize(('arguments', 'words'), [
    (('no.onnx',), 'no.onnx does not exist'),
    ((MODEL, '--target', 'sm90'), "does not support the target 'sm90'; choose from"),
    ((MODEL, '--backend', 'onnxruntime'), 'auto, tensorrt or tensorrt_rtx'),
    ((MODEL, '--backend', 'tensorrt', '--target', 'sm86'),
     'targets require the backend tensorrt_rtx (--target, --backend)'),
    ((MODEL, '--output', 'engine.bin'), '--output must end in .engine'),
])
def test_invalid_input_is_one_sentence(
    run_cgdet: Run, cache: Path, arguments: tuple[object, ...], words: str,
) -> None:
    result = run_cgdet('build-engine', *arguments)
    assert result.returncode == 1 and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(cache.glob('*.engine'))


def test_without_a_cache_an_output_is_required(
    run_cgdet: Run, cache: Path, tmp_path: Path,
) -> None:
    cache.write_text('not a folder')
    result = run_cgdet('build-engine', MODEL, *TWO)
    assert result.returncode == 1 and '--output' in result.stderr
    assert 'engines stay in memory' in result.stderr
    output = tmp_path / 'a.engine'
    assert run_cgdet('build-engine', MODEL, *TWO, '--output', output).returncode == 0
    assert output.is_file()
