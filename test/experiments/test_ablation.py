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

"""An ablation end to end: its files, resuming, and refusing to mix runs."""

from collections.abc import Callable
import fcntl
import json
from pathlib import Path
import shutil
import signal
import subprocess
import time

from cgdet_core.errors import UserError
from cgdet_core.experiments.ablation import report, run_ablation, write_tables
from cgdet_core.experiments.grid import Ablation, load_ablation
import cv2
from forked import PROGRAM
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ('pr_curves', 'claims', 'confusion', 'embedding', 'triptychs', 'failures')


def grid_file(folder: Path, recipe_values: dict, epochs: int = 1) -> Path:
    """Write a grid of two variants and two seeds."""
    (folder / 'tiny.yaml').write_text(yaml.safe_dump(
        {**recipe_values, 'optim': {**recipe_values['optim'], 'epochs': epochs}}))
    path = folder / 'grid.yaml'
    path.write_text('base: tiny.yaml\nseeds: [0, 1]\n'
                    'variants:\n  plain: {rcs: null}\n  rcs: {rcs.weight: 0.5}\n')
    return path


@pytest.fixture(scope='module')
def ablated(
    tmp_path_factory: pytest.TempPathFactory, recipe_values: dict,
    run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> Path:
    """Return the folder of a grid that the command line has run; the grid file is next to it."""
    folder = tmp_path_factory.mktemp('ablation')
    result = run_cgdet('ablate', grid_file(folder, recipe_values), '--output', folder / 'out')
    assert result.returncode == 0, result.stderr
    return folder / 'out'


@pytest.fixture
def copied(ablated: Path, tmp_path: Path) -> Callable[..., Ablation]:
    """Return a copy of the finished grid, read with overrides."""
    shutil.copytree(ablated, tmp_path / 'out')
    return lambda *overrides: load_ablation(
        ablated.parent / 'grid.yaml', tmp_path / 'out', list(overrides))


def test_a_run_leaves_what_tables_need(ablated: Path) -> None:
    for name, weight in (('plain_0', None), ('plain_1', None), ('rcs_0', 0.5), ('rcs_1', 0.5)):
        recipe = yaml.safe_load((ablated / name / 'recipe.yaml').read_text())
        assert (recipe['rcs'] or {}).get('weight') == weight
        result = json.loads((ablated / name / 'result.json').read_text())
        assert f'{result["variant"]}_{result["seed"]}' == name
        assert result['checkpoint'] == 'last.ckpt' and result['epochs'] == 1
        assert result['images'] == 12 and result['train_seconds'] > 0 and result['commit']
        assert result['machine']['torch'] and 0 <= result['AP50'] <= 1
        assert len(result['curves']['car']) == 101
        assert np.shape(result['confusion']['matrix']) == (4, 4)
        assert result['duplicates']['before_nms']['objects'] > 10
        assert -1 <= result['separability']['silhouette'] <= 1
        with np.load(ablated / name / 'arrays.npz') as arrays:
            assert arrays['features'].shape == (len(arrays['feature_labels']), 16)


def test_the_tables(ablated: Path) -> None:
    text = (ablated / 'table.md').read_text()
    assert '4 of 4 runs' in text and '| plain | 2 |' in text and 'Difference to plain' in text
    table = json.loads((ablated / 'table.json').read_text())
    rcs = table['variants']['rcs']
    assert rcs['seeds'] == [0, 1] and set(rcs['metrics']['AP50']['values']) == {'0', '1'}
    difference = rcs['metrics']['silhouette']['difference']
    assert difference['low'] <= difference['mean'] <= difference['high'] and difference['n'] == 2
    assert len(table['runs']) == 4 and len({r['recipe'] for r in table['runs']}) == 4


@pytest.mark.parametrize('name', FIGURES)
def test_the_figures_show_something(ablated: Path, name: str) -> None:
    picture = cv2.imread(str(ablated / f'{name}.png'))
    assert min(picture.shape[:2]) > 200
    assert picture.std() > 10 and len(np.unique(picture)) > 50


def test_finished_runs_are_left_alone(copied: Callable[..., Ablation], tmp_path: Path) -> None:
    out = tmp_path / 'out'
    before = {p: p.stat().st_mtime_ns for p in out.glob('*_*/*')}
    run_ablation(copied())
    assert before == {p: p.stat().st_mtime_ns for p in out.glob('*_*/*')}


def test_a_trained_run_is_only_measured(copied: Callable[..., Ablation], tmp_path: Path) -> None:
    folder = tmp_path / 'out' / 'rcs_1'
    expected = json.loads((folder / 'result.json').read_text())
    (folder / 'result.json').unlink()
    before = (folder / 'last.ckpt').stat().st_mtime_ns
    run_ablation(copied())
    assert (folder / 'last.ckpt').stat().st_mtime_ns == before
    assert json.loads((folder / 'result.json').read_text()) == expected


def test_reports_of_an_unfinished_grid(copied: Callable[..., Ablation], tmp_path: Path) -> None:
    out = tmp_path / 'out'
    for name in ('rcs_0', 'plain_1', 'rcs_1'):
        (out / name / 'result.json').unlink()
    for name in FIGURES:
        (out / f'{name}.png').unlink()
    paths = report(copied())
    assert '1 of 4 runs' in (out / 'table.md').read_text()
    # There is no pair to compare yet.
    assert {p.name for p in paths} == {'table.md', 'table.json', 'pr_curves.png', 'claims.png'}
    assert all(p.is_file() for p in paths)
    (out / 'plain_0' / 'result.json').unlink()
    with pytest.raises(UserError, match='No run in .* is finished'):
        report(copied())


def test_another_recipe_is_refused(copied: Callable[..., Ablation]) -> None:
    copied('run.workers=1')
    with pytest.raises(UserError, match=r'plain_0 was trained with another recipe \(optim\.lr'):
        copied('optim.lr=0.5')


def test_processes_share_a_grid(copied: Callable[..., Ablation], tmp_path: Path) -> None:
    result = tmp_path / 'out' / 'rcs_0' / 'result.json'
    result.unlink()
    with open(tmp_path / 'out' / 'rcs_0' / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_ablation(copied()) == 1
        assert not result.exists()
    assert run_ablation(copied()) == 0
    assert result.exists()


def test_results_of_an_earlier_version_are_measured_again(
    copied: Callable[..., Ablation], tmp_path: Path,
) -> None:
    path = tmp_path / 'out' / 'plain_0' / 'result.json'
    expected = json.loads(path.read_text())
    path.write_text(json.dumps({**expected, 'version': 0, 'AP': 0.9}))
    assert len(write_tables(copied())) == 3
    run_ablation(copied())
    assert json.loads(path.read_text()) == expected


def test_a_damaged_result_is_named(copied: Callable[..., Ablation], tmp_path: Path) -> None:
    (tmp_path / 'out' / 'plain_0' / 'result.json').write_text('{')
    with pytest.raises(UserError, match='plain_0/result.json is not a readable JSON'):
        report(copied())


def test_torchrun_is_refused(
    copied: Callable[..., Ablation], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    with pytest.raises(UserError, match='without torchrun'):
        run_ablation(copied())


def test_a_failing_training_is_named(tmp_path: Path, recipe_values: dict) -> None:
    grid = load_ablation(grid_file(tmp_path, recipe_values), tmp_path, ['optim.batch_size=99'])
    with pytest.raises(UserError, match='The training of plain_0 failed'):
        run_ablation(grid)


@pytest.mark.parametrize('change, words', [
    ('cmg.teacher.path: none.ckpt', 'teacher none.ckpt'),
    ('imitation.teacher: [thermal, none.onnx]', 'teacher none.onnx'),
    ('unlabeled: {frames: none.json, sources: [student], burn_in_epochs: 0}', 'frames none.json'),
    ('optim.init: none.ckpt', 'starting weights none.ckpt'),
    ('data.train: none.json', 'frames none.json')])
def test_a_missing_file_is_named_before_anything_is_trained(
    tmp_path: Path, recipe_values: dict, change: str, words: str,
) -> None:
    path = grid_file(tmp_path, recipe_values)
    path.write_text(f'base: tiny.yaml\nvariants: {{plain: {{}}, taught: {{{change}}}}}\n')
    with pytest.raises(UserError, match=f'variant taught requires the {words}'):
        run_ablation(load_ablation(path, tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()


def test_an_interrupted_grid_continues(
    tmp_path: Path, recipe_values: dict, run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    path = grid_file(tmp_path, recipe_values, 6)
    path.write_text('base: tiny.yaml\nseeds: [3]\nvariants: {plain: {}}\n')
    command = ['ablate', str(path), '--output', str(tmp_path / 'out')]
    grid = subprocess.Popen([*PROGRAM, *command], cwd=ROOT, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)
    folder = tmp_path / 'out' / 'plain_3'
    end = time.monotonic() + 120
    while not (folder / 'last.ckpt').is_file() and time.monotonic() < end:
        time.sleep(0.02)
    grid.send_signal(signal.SIGINT)
    _, errors = grid.communicate(timeout=60)
    assert grid.returncode == 130
    assert 'continues from here' in errors and 'Traceback' not in errors
    assert not (folder / 'result.json').exists(), 'interrupted too late'
    first = float((folder / 'train_seconds.txt').read_text())
    again = run_cgdet(*command)
    assert again.returncode == 0, again.stderr
    result = json.loads((folder / 'result.json').read_text())
    assert result['epochs'] == 6 and result['train_seconds'] > first
    assert len(list((folder / 'logs').glob('events.*'))) == 2  # trained in two sessions
    assert (tmp_path / 'out' / 'table.md').is_file()
