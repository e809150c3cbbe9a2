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

"""The benchmark measures each contestant in its own process; no time is asserted."""

from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from cgdet_core import machine
from cgdet_core.deployment import contestants
from cgdet_core.deployment.benchmark import benchmark, percentiles, Plan, plot, Seat
from cgdet_core.deployment.contestants import Contestant, ModelRunner
from cgdet_core.errors import UserError
from cgdet_core.processes import FreshProcess
from cgdet_core.runtime.inference.openvino import openvino_version
import cv2
import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess]
ROOT = Path(__file__).resolve().parents[2]


def test_command_line(
    run_cgdet: Run, onnx_model: Path, pooling_teacher: Callable[..., Path], tmp_path: Path,
) -> None:
    peer = pooling_teacher(tmp_path / 'pooling.onnx')
    result = run_cgdet(
        'benchmark', onnx_model, '--peer', peer, '--yardstick', '--batch', '1,2', '--frames', 5,
        '--rounds', 2, '--threads', 1, '--source', '320x200', '--json', tmp_path / 'b.json',
        '--plot', tmp_path / 'b.png', '--busy', '--rate', '20')
    assert result.returncode == 0, result.stderr
    assert 'tiny fp32 busy' in result.stdout
    assert 'batch 2 skipped' in result.stdout and 'images per second' in result.stdout
    report = json.loads((tmp_path / 'b.json').read_text())
    assert report['settings'] == {'frames': 6, 'rounds': 2, 'threads': 1, 'batches': [1, 2],
                                  'hertz': 20.0, 'duty': 0.75}
    assert {'cpu', 'cores', 'governor', 'mhz', 'mhz_after', 'load', 'busy', 'packages', 'date',
            'commit'} <= set(report['machine'])
    ours, other, plain = report['results']
    assert (ours['label'], ours['source'], ours['input']) == ('tiny fp32', [320, 200], [160, 128])
    assert set(ours['ms']) == {'pre', 'infer', 'post', 'total', 'cpu'}
    assert set(ours['ms']['total']) == {'p50', 'p95', 'p99', 'max'}
    assert ours['total_over_infer'] > 1 and ours['skipped_batches'] == [2]
    assert set(ours['batches']) == {'1'} and ours['memory_mb']['peak'] > 0
    # A peer has its own shape, or that of the first model if its file leaves it open.
    assert other['input'] == {'picture': [1, 3, 128, 160]} and set(other['batches']) == {'1', '2'}
    assert set(other['ms']) == {'infer', 'cpu'} and 'total_over_infer' not in other
    assert plain['ms_per_gflop'] > 0 and plain['peer']
    for result in report['results']:
        for found in result['paced'].values():
            assert 0 < found['ms']['p50'] <= found['ms']['max'] and 0 <= found['replaced'] < 6
    assert cv2.imread(str(tmp_path / 'b.png')) is not None
    plot({**report, 'results': [ours]}, tmp_path / 'one.png')
    assert (tmp_path / 'one.png').stat().st_size > 0


def test_frames_that_arrive_during_another_are_replaced(
    onnx_model: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = ModelRunner(Contestant(onnx_model, 'onnxruntime', 1))
    turns: list[int] = []
    now = [0.0]
    monkeypatch.setattr(contestants, 'perf_counter', lambda: now[0])
    monkeypatch.setattr(contestants, 'sleep', lambda s: now.__setitem__(0, now[0] + s))

    def turn(number: int) -> None:
        turns.append(number)
        now[0] += 0.25  # 2.5 periods

    runner._turn = turn
    times = runner.paced(6, 10.0)
    assert turns == [-3, 0, 2, 5]
    assert times['total'] == pytest.approx([0.25, 0.3, 0.25])
    now[0] = 0.0
    turns.clear()
    runner._turn = turns.append
    assert runner.paced(6, 10.0)['total'] == pytest.approx([0.0] * 6)
    assert turns == [-3, -2, -1, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(('arguments', 'words'), [
    (('no.onnx',), 'no.onnx does not exist'),
    (('MODEL', '--peer', 'no.onnx'), 'peer no.onnx does not exist'),
    (('MODEL', '--peer', 'README.md'), 'README.md is not an ONNX file'),
    (('MODEL', '--batch', '1,0'), 'must be at least 1'),
    (('MODEL', '--batch', '1,x'), "--batch requires integers, not 'x'"),
    (('MODEL', '--frames', '0'), 'must be at least 1'),
    (('MODEL', '--source', '640'), '--source requires'),
    (('MODEL', '--busy', '--rate', '0'), 'rate must be above 0'),
    (('MODEL', '--backend', 'magic'), "no backend 'magic'"),
    (('MODEL', '--plot', 'times.txt'), 'requires a .png, .svg or .pdf file, not times.txt'),
])
def test_invalid_input_is_one_sentence(
    run_cgdet: Run, onnx_model: Path, arguments: tuple[str, ...], words: str,
) -> None:
    result = run_cgdet('benchmark', *(str(onnx_model) if a == 'MODEL' else a for a in arguments))
    assert result.returncode == 1 and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(not openvino_version(), reason='OpenVINO is not installed')
def test_backends_are_compared(onnx_model: Path) -> None:
    plan = Plan([onnx_model], backends=('onnxruntime', 'openvino'), frames=2, rounds=1, threads=1)
    first, second = benchmark(plan)['results']
    assert first['backend'].startswith('ONNX Runtime') and second['backend'].startswith('OpenVINO')
    assert (first['label'], second['label']) == ('tiny fp32 onnxruntime', 'tiny fp32 openvino')


def test_a_process_that_dies_is_named(onnx_model: Path) -> None:
    with FreshProcess(f'measured {onnx_model}') as process:
        seat = Seat(Contestant(onnx_model, 'onnxruntime', 1), process)
        assert seat.ask('describe')['name'] == 'tiny'
        process.process.kill()
        with pytest.raises(UserError, match=r'tiny.onnx has ended \(exit status -9\)'):
            seat.ask('frames', 1)


def test_ctrl_c_is_quiet_in_every_process(onnx_model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, '-m', 'cgdet_core', 'benchmark', str(onnx_model), '--frames', '1000000'],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True)
    try:
        for _ in range(6000):  # one minute; the contestant loads after its start
            time.sleep(0.01)
            if any(spawned(process.pid)):
                break
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode and 'Traceback' not in errors
    finally:
        for path in spawned(process.pid):
            os.kill(int(path.parent.name), signal.SIGKILL)
        process.kill()


def spawned(session: int) -> Iterator[Path]:
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            if os.getsid(int(path.parent.name)) == session \
                    and b'spawn_main' in path.read_bytes():
                yield path
        except OSError:
            continue


def test_a_plan_needs_a_model() -> None:
    with pytest.raises(UserError, match='no model'):
        Plan([])


def test_percentiles_are_milliseconds() -> None:
    assert percentiles(np.arange(101) / 1e3) == {'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}


def test_peak_memory_is_forgotten_and_found() -> None:
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        pytest.skip('the system does not forget the peak')
    block = np.ones(25_000_000)
    high = machine.memory()['peak']
    del block
    machine.forget_peak()
    now = machine.memory()
    if high is None or now['peak'] is None or now['resident'] is None:
        pytest.skip('the system does not tell the memory of a process')
    assert now['resident'] <= now['peak'] + 1 and now['peak'] <= high - 100
