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

"""`cgdet track` as a user runs it."""

from collections.abc import Callable
from importlib.util import find_spec
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from time import sleep

from cgdet_core.cli import app
import cv2
from drawn import write_frames, write_sequence
import numpy as np
import pytest
from toy_tracker import draw, write_toy_tracker
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / 'models' / 'thermal_int8.onnx'
Run = Callable[..., subprocess.CompletedProcess]
CENTERS = [(60.0 + 5 * i, 120.0) for i in range(12)]  # of the toy tracker's target


def refusal(*arguments: object) -> str:
    """Return the sentence that a command is refused with, before it prints anything."""
    result = CliRunner().invoke(app, ['track', *map(str, arguments)])
    assert result.exit_code == 1 and isinstance(result.exception, ValueError), result.output
    return str(result.exception)


@pytest.fixture()
def walk(tmp_path: Path) -> Path:
    return write_sequence(tmp_path / 'walk')


def test_a_bad_sequence_is_named_and_the_rest_is_done(
    run_cgdet: Run, tmp_path: Path, walk: Path,
) -> None:
    bad = write_sequence(tmp_path / 'bad')
    (bad / 'gt_thermal.csv').write_text('file,x,y,w,h\n999.png,1,2,3,4\n')
    (write_sequence(tmp_path / 'torn') / 'thermal' / '000000.png').write_bytes(b'')
    report = tmp_path / 'report.json'
    done = run_cgdet('track', 'evaluate', '--baseline', 'static', walk, tmp_path / 'none',
                     tmp_path / 'torn', bad, '--json', report, '--video', tmp_path / 'videos')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    for sentence in ('none does not exist.', '000000.png', 'names 999.png, which is not among',
                     '3 sequences or folders could not be measured.'):
        assert sentence in done.stderr
    values = json.loads(report.read_text())
    assert list(values['sequences']) == ['walk']
    assert set(values['failed']) == {str(tmp_path / 'none'), 'torn', 'bad'}
    for key in ('success_auc', 'precision_20px', 'normalized_precision'):
        assert values[key] == values['mean'][key] == values['sequences']['walk'][key]
    assert values['precision_20px'] == 7 / 8 and values['mean']['frames'] == 8
    assert values['baseline'] == 'static' and values['model'] is None
    assert values['machine']['packages'] and not values['interrupted']
    assert '0.875' in done.stdout and 'walk' in done.stdout
    assert cv2.VideoCapture(str(tmp_path / 'videos' / 'walk.mp4')).isOpened()


def test_what_is_left_out_is_said(run_cgdet: Run, tmp_path: Path, walk: Path) -> None:
    whole = tmp_path / 'set'
    shutil.copytree(walk, whole / 'a')
    shutil.copytree(walk / 'thermal', whole / 'b' / 'thermal')
    broken = sorted((whole / 'a' / 'thermal').iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:60])
    report = tmp_path / 'r.json'
    ask = 'track', 'evaluate', '--baseline', 'static', whole, '--json', report
    done = run_cgdet(*ask)
    assert done.returncode == 1 and 'b is not measured: it has no truth' in done.stderr
    assert broken.name in done.stderr and '1 image could not be read' in done.stderr
    found = json.loads(report.read_text())
    assert list(found['sequences']) == ['a'] and len(found['unreadable']) == 1
    twice = run_cgdet(*ask, '--plot', report)
    assert twice.returncode == 1 and 'Traceback' not in twice.stderr
    same = tmp_path / 'same.png'
    twice = run_cgdet('track', 'evaluate', '--baseline', 'static', walk, '--json', same,
                      '--plot', same)
    assert twice.returncode == 1 and 'would be written twice' in twice.stderr
    assert not same.exists()


def test_frames_in_color_are_said(run_cgdet: Run, tmp_path: Path, walk: Path) -> None:
    for path in (walk / 'thermal').iterdir():
        cv2.imwrite(str(path), cv2.applyColorMap(cv2.imread(str(path)), cv2.COLORMAP_JET))
    done = run_cgdet('track', 'evaluate', '--baseline', 'static', walk)
    assert done.returncode == 0 and '000000.png is in color: a photo, or' in done.stdout
    toy = write_toy_tracker(tmp_path / 'toy.onnx')
    done = run_cgdet('track', 'run', toy, walk / 'thermal', '--box', '10,30,20,20', '--output',
                     tmp_path / 'out')
    assert done.returncode == 0 and '000000.png is in color: a photo, or' in done.stdout


def test_a_plot(run_cgdet: Run, tmp_path: Path, walk: Path) -> None:
    pytest.importorskip('matplotlib', reason='training is not installed')
    done = run_cgdet('track', 'evaluate', '--baseline', 'static', walk, '--plot',
                     tmp_path / 'plot.png')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


def test_the_nearest_detection_of_the_shipped_model(run_cgdet: Run, walk: Path) -> None:
    done = run_cgdet('track', 'evaluate', '--baseline', 'detector', '--detector', MODEL, walk)
    assert done.returncode == 0 and 'mean' in done.stdout, done.stderr


def test_a_benchmark_names_its_own_precision(run_cgdet: Run, tmp_path: Path) -> None:
    write_frames(tmp_path / 'walk' / 'i', 4)
    for name in 'iv':
        (tmp_path / 'walk' / f'groundTruth_{name}.txt').write_text('10 30 30 50\n' * 4)
    done = run_cgdet('track', 'evaluate', '--baseline', 'static', '--benchmark', 'gtot', tmp_path)
    assert done.returncode == 0 and 'precision 5 px' in done.stdout and 'GTOT' in done.stdout


def test_nothing_is_written_if_nothing_was_measured(
    run_cgdet: Run, tmp_path: Path, walk: Path,
) -> None:
    (walk / 'thermal' / '000000.png').write_bytes(b'damaged')
    report = tmp_path / 'report.json'
    done = run_cgdet('track', 'evaluate', '--baseline', 'static', walk, '--json', report)
    assert done.returncode == 1 and not report.exists()
    assert '000000.png is not an image' in done.stderr
    assert 'no sequence could be followed; nothing was measured.' in done.stderr


def test_outputs_never_replace_inputs_or_videos(tmp_path: Path, walk: Path) -> None:
    static = ('evaluate', '--baseline', 'static', walk)
    image = walk / 'thermal' / '000000.png'
    before = image.read_bytes()
    if find_spec('matplotlib'):
        assert 'is an input and would be replaced' in refusal(*static, '--plot', image)
    assert 'exists and is not a report' in refusal(*static, '--json', walk / 'gt_thermal.csv')
    assert image.read_bytes() == before
    among = 'would be one of the frames in its folder'
    assert among in refusal(*static, '--video', image.parent)
    assert among in refusal('run', MODEL, image.parent, '--box', '10,10,20,20', '--output',
                            image.parent)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'walk.mp4').write_text('mine')
    assert 'already exists' in refusal(*static, '--video', tmp_path / 'out')
    assert (tmp_path / 'out' / 'walk.mp4').read_text() == 'mine'


def test_what_is_refused_before_any_work(tmp_path: Path, walk: Path) -> None:
    assert "no benchmark 'vot'; choose from plain, lsotb-tir" in refusal(
        'evaluate', '--baseline', 'static', '--benchmark', 'vot', walk)
    assert "no baseline 'best'; choose from static" in refusal(
        'evaluate', '--baseline', 'best', walk)
    assert 'is a model, and a baseline is measured instead' in refusal(
        'evaluate', '--baseline', 'static', MODEL, walk)
    assert 'The baseline static does not use a detector' in refusal(
        'evaluate', '--baseline', 'static', '--detector', MODEL, walk)
    assert f'{walk} is a folder, not a model' in refusal('evaluate', walk)
    assert 'Name the folders of sequences after the model' in refusal('evaluate', MODEL)
    assert '--plot requires ' in refusal(
        'evaluate', '--baseline', 'static', walk, '--plot', tmp_path / 'plot.txt')
    assert 'is not the folder of a sequence' in CliRunner().invoke(
        app, ['track', 'evaluate', '--baseline', 'static', str(tmp_path / 'walk' / 'thermal')],
    ).output


def test_a_recipe_of_another_task(tmp_path: Path, recipe_values: dict) -> None:
    pytest.importorskip('pydantic', reason='training is not installed')
    path = tmp_path / 'recipe.yaml'
    path.write_text(json.dumps(recipe_values, default=str))
    assert 'is of the task detection, not tracking; use "cgdet train"' in refusal('train', path)


def test_a_box_and_a_source_are_checked_before_the_model(tmp_path: Path, walk: Path) -> None:
    frames, out = walk / 'thermal', tmp_path / 'out'
    assert 'A box is X,Y,W,H in pixels' in refusal(
        'run', MODEL, frames, '--box', '1,2', '--output', out)
    assert 'has no area' in refusal('run', MODEL, frames, '--box', '1,2,0,0', '--output', out)
    assert 'does not exist' in refusal(
        'run', MODEL, tmp_path / 'none.mp4', '--box', '1,2,3,4', '--output', out)
    (tmp_path / 'clip.mp4').write_text('mine')
    assert 'already exists' in refusal(
        'run', MODEL, frames, '--box', '1,2,3,4', '--output', tmp_path / 'clip.mp4')
    (walk / 'visual').mkdir()
    assert f'has thermal frames and RGB, thermal and visual; name {frames}.' in refusal(
        'run', MODEL, walk, '--box', '1,2,3,4', '--output', out)
    assert not out.exists()


def test_ctrl_c_leaves_what_was_done(tmp_path: Path, walk: Path) -> None:
    long = tmp_path / 'z' / 'thermal'
    shutil.copytree(walk / 'thermal', long)
    for i in range(8, 3000):
        (long / f'{i:06d}.png').hardlink_to(long / '000000.png')
    (long.parent / 'groundtruth.txt').write_text('10,30,20,20\n' * 3000)
    report = tmp_path / 'report.json'
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    process = subprocess.Popen(
        [sys.executable, '-m', 'cgdet_core', 'track', 'evaluate', '--baseline', 'mil', str(walk),
         str(long.parent), '--json', str(report), '--video', str(tmp_path / 'videos')],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': path})
    try:
        while not (tmp_path / 'videos' / 'walk.mp4').exists():  # it is complete at its end
            assert process.poll() is None, process.communicate()
            sleep(0.05)
        sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and 'interrupted; 1 sequence done.' in errors
    values = json.loads(report.read_text())
    assert values['interrupted'] and list(values['sequences']) == ['walk']
    assert np.isfinite(values['success_auc']) and 'mean' in output


@pytest.fixture(scope='module')
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_tracker(tmp_path_factory.mktemp('tracker') / 'toy.onnx')


@pytest.fixture()
def striped(tmp_path: Path) -> Path:
    """Return a sequence with the target that the toy tracker follows."""
    folder = tmp_path / 'striped'
    (folder / 'thermal').mkdir(parents=True)
    for i, center in enumerate(CENTERS):
        cv2.imwrite(str(folder / 'thermal' / f'{i:03d}.png'), draw(center))
    (folder / 'groundtruth.txt').write_text(
        ''.join(f'{x - 20},{y - 20},40,40\n' for x, y in CENTERS))
    return folder


def test_a_tracker_is_measured(
    run_cgdet: Run, tracker: Path, striped: Path, tmp_path: Path,
) -> None:
    report = tmp_path / 'report.json'
    done = run_cgdet('track', 'evaluate', tracker, striped, '--json', report,
                     '--detector', MODEL)
    assert done.returncode == 0, done.stderr
    values = json.loads(report.read_text())
    assert values['success_auc'] > 0.7 and values['precision_20px'] == 1
    assert values['model'] == str(tracker) and len(values['onnx_sha256']) == 64
    assert values['sequences']['striped']['fps'] > 0
    again = run_cgdet('track', 'evaluate', '--baseline', 'static', striped, '--json', report)
    assert again.returncode == 0, again.stderr
    assert json.loads(report.read_text())['model'] is None, 'an earlier report is replaced'
    card = run_cgdet('track', 'evaluate', tracker, striped, '--json', tracker.with_suffix('.json'))
    assert card.returncode == 1 and 'exists and is not a report' in card.stderr


def test_a_target_is_followed_in_a_source_of_ones_own(
    run_cgdet: Run, program: Run, tracker: Path, striped: Path, tmp_path: Path,
) -> None:
    out = tmp_path / 'out'
    x, y = CENTERS[2]
    done = program('track', 'run', tracker, striped / 'thermal', '--frame', 2,
                   '--box', f'{x - 20},{y - 20},40,40', '--output', out)
    assert done.returncode == 0 and '10 frames: 10 tracked' in done.stdout, done.stderr
    [table] = out.glob('*.csv')
    head, *rows = table.read_text().splitlines()
    name, left, top, *_, state = rows[-1].split(',')
    assert (len(rows), name, state) == (10, '011.png', 'tracked')
    assert abs(float(left) - CENTERS[-1][0] + 20) < 4 and abs(float(top) - 100) < 4
    [video] = out.glob('*.mp4')
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 10
    far = run_cgdet('track', 'run', tracker, striped / 'thermal', '--box', '900,900,9,9',
                    '--output', tmp_path / 'no.mp4')
    assert far.returncode == 1 and not (tmp_path / 'no.mp4').exists()
    assert '000.png: the box 900, 900, 909, 909 (x1, y1, x2, y2) is outside of' in far.stderr
    blind = run_cgdet('track', 'run', tracker, striped / 'thermal', '--box', '9,9,9,9',
                      '--rgb', striped / 'thermal', '--output', tmp_path / 'no.mp4')
    assert blind.returncode == 1 and 'follows in thermal images only' in blind.stderr


def test_models_of_another_task(run_cgdet: Run, striped: Path, tracker: Path) -> None:
    done = run_cgdet('track', 'evaluate', MODEL, striped)
    assert done.returncode == 1
    assert done.stderr == f'cgdet: {MODEL} is a detection model, not a tracking model.\n'
    done = run_cgdet('detect', striped / 'thermal', '--model', tracker)
    assert done.returncode == 1
    assert done.stderr == f'cgdet: {tracker} is a tracking model, not a detection model.\n'
