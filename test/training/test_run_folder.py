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

"""What a run shows and leaves behind, and how a run is continued from that."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import pty
import re
import resource
import signal
import subprocess

from cgdet_core.cli.train import report_interruption
from cgdet_core.errors import UserError
from cgdet_core.runtime import processor
from cgdet_core.tasks import load_recipe, load_resumed, parse_recipe
from cgdet_core.training import precision
from cgdet_core.training.figures import draw_results
from cgdet_core.training.folder import read_results, RECIPE, write_results, write_start
import cv2
from forked import PROGRAM
import pytest
import torch
import typer
import yaml

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess]
PICTURES = {'train_samples.png', 'val_samples.png', 'confusion.png', 'pr_curve.png',
            'results.png'}


def write_recipe(folder: Path, values: dict) -> Path:
    path = folder / 'given.yaml'
    path.write_text(yaml.safe_dump({
        **values, 'run': {**values['run'], 'output': str(folder / 'runs')}}))
    return path


def train(*arguments: object) -> list[str]:
    return [*PROGRAM, 'train', *map(str, arguments)]


def test_a_run_leaves_its_recipe_results_and_pictures(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    assert names == {'best.ckpt', 'last.ckpt', 'logs', RECIPE, 'run.json', 'results.csv',
                     *PICTURES}
    for name in PICTURES:
        picture = cv2.imread(str(trained / name))
        assert picture is not None and picture.shape[1] >= 500 and picture.std() > 5, name
    rows = read_results(trained, 99)
    assert [row['epoch'] for row in rows] == [1, 2, 3]
    assert all(row['train/loss'] > 0 and 'val/AP50' in row for row in rows)
    assert rows[0]['seconds'] < rows[1]['seconds'] < rows[2]['seconds']
    facts = json.loads((trained / 'run.json').read_text())
    assert facts['versions']['torch'] == torch.__version__.partition('+')[0]
    assert facts['machine']['commit'] and facts['started']['recipe'].endswith('tiny.yaml')


def test_the_recipe_of_a_run_is_a_recipe(trained: Path) -> None:
    given = load_recipe(trained.parent.parent / 'tiny.yaml')
    ran = load_recipe(trained / RECIPE)
    assert set(ran.classes) == {'person', 'bicycle', 'car'}
    assert ran.model_copy(update={'classes': given.classes}) == given
    values = yaml.safe_load((trained / RECIPE).read_text())
    assert values['augment']['mosaic'] == 0.8, 'defaults are written too'


@pytest.fixture
def started(tmp_path: Path, recipe_values: dict) -> Path:
    """Return the recipe of a run that was started with overrides and left a checkpoint."""
    path = write_recipe(tmp_path, recipe_values)
    overrides = ['optim.lr=0.5', 'optim.epochs=9']
    recipe = load_recipe(path, overrides)
    write_start(recipe, {'started': {'recipe': str(path), 'overrides': overrides,
                                     'values': yaml.safe_load(path.read_text())}})
    (recipe.folder / 'last.ckpt').touch()
    return path


def edit(path: Path, section: str, key: str, value: object) -> None:
    values = yaml.safe_load(path.read_text())
    values[section][key] = value
    path.write_text(yaml.safe_dump(values))


def test_a_run_is_resumed_without_the_overrides_of_its_start(started: Path) -> None:
    folder = started.parent / 'runs' / 'tiny'
    for named in (started, folder, folder / RECIPE, folder / 'last.ckpt'):
        found = load_resumed(named)
        assert found == load_recipe(folder / RECIPE), named
        assert found.optim.lr == 0.5 and found.optim.epochs == 9


@pytest.mark.parametrize('facts', ['[]', '{"started": null}', '{"started": {"values": 3}}'])
def test_a_run_whose_record_is_odd_is_resumed_as_it_was(started: Path, facts: str) -> None:
    folder = started.parent / 'runs' / 'tiny'
    (folder / 'run.json').write_text(facts)
    assert load_resumed(started).record() == load_resumed(folder).record()


def test_what_was_edited_since_the_start_counts(started: Path) -> None:
    record = load_resumed(started).record()
    edit(started, 'data', 'license', 'ours alone')
    edit(started, 'run', 'workers', 1)
    found = load_resumed(started)
    assert found.data.license == 'ours alone' and found.run.workers == 1
    assert found.changes_since(record) == [], 'neither refuses the run'
    edit(started, 'optim', 'batch_size', 2)
    assert load_resumed(started).changes_since(record) == ['optim.batch_size']
    assert load_resumed(started, ['optim.weight_decay=0']).changes_since(record) == [
        'optim.batch_size', 'optim.weight_decay']


def test_a_moved_run_is_resumed_where_it_is(started: Path) -> None:
    elsewhere = started.parent / 'elsewhere'
    (started.parent / 'runs').rename(elsewhere)
    assert load_resumed(elsewhere / 'tiny').folder == elsewhere / 'tiny'
    assert load_resumed(started, [f'run.output={elsewhere}']).folder == elsewhere / 'tiny'
    (elsewhere / 'tiny').rename(elsewhere / 'other')
    with pytest.raises(UserError, match='a run named tiny; rename it'):
        load_resumed(elsewhere / 'other')


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='has no recipe.yaml'):
        load_resumed(tmp_path)


def test_results_keep_the_epochs_before_the_resumed_one(tmp_path: Path) -> None:
    write_results(tmp_path, [{'epoch': 1, 'lr': 0.1}, {'epoch': 2, 'lr': 0.2, 'val/AP50': 0.5},
                             {'epoch': 3, 'lr': 0.3}])
    assert read_results(tmp_path, 2) == [
        {'epoch': 1, 'lr': 0.1}, {'epoch': 2, 'lr': 0.2, 'val/AP50': 0.5}]
    (tmp_path / 'results.csv').write_text('epoch,lr\n1,a\n')
    assert read_results(tmp_path, 2) == []


@pytest.mark.parametrize(('epochs', 'words'), [
    ([], 'before the end of the first epoch; nothing was saved'),
    ([1], 'interrupted; continue with "cgdet train FOLDER --resume".'),
    ([1, 2], 'after the last epoch: the checkpoints are complete; "cgdet report FOLDER"'),
])
def test_an_interruption_says_what_there_is(
    tmp_path: Path, recipe_values: dict, capsys: pytest.CaptureFixture[str], epochs: list[int],
    words: str,
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, recipe_values), ['optim.epochs=2'])
    recipe.folder.mkdir(parents=True)
    if epochs:
        write_results(recipe.folder, [{'epoch': number} for number in epochs])
        (recipe.folder / 'last.ckpt').touch()
    with pytest.raises(typer.Exit) as ended:
        report_interruption(recipe, signal.SIGINT)
    assert ended.value.exit_code == 130
    assert words.replace('FOLDER', str(recipe.folder)) in capsys.readouterr().err


def test_sigterm_into_a_pipe_and_on_with_patience(
    tmp_path: Path, recipe_values: dict, run_cgdet: Run,
) -> None:
    """Epochs are lines as they end; SIGTERM keeps the run, which then stops early."""
    path = write_recipe(tmp_path, recipe_values)
    run = subprocess.Popen(train(path, 'optim.epochs=200'), cwd=ROOT, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    seen = []
    for line in run.stdout:
        seen.append(line)
        if line.startswith('epoch 2/200:'):
            break
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM
    folder = tmp_path / 'runs' / 'tiny'
    said = errors.splitlines()
    assert said[-1] == f'cgdet: interrupted; continue with "cgdet train {folder} --resume".'
    assert len(said) == 2 and 'also in the training data' in said[0]
    text = ''.join(seen)
    assert 'boxes: person' in text and re.search(r'epoch 1/200: .*loss .* AP50 .* left', text)

    result = run_cgdet('train', path, '--resume', 'run.patience=1', 'data.license=other')
    assert result.returncode == 0, result.stderr
    assert re.search(r'Stopped after epoch \d+: no better AP50 in 1 validations', result.stdout)
    rows = [row['epoch'] for row in read_results(folder, 999)]
    assert rows == list(range(1, len(rows) + 1)) and 3 <= len(rows) < 200
    assert load_recipe(folder / RECIPE).data.license == 'other'
    assert f'cgdet export {folder / "best.ckpt"} --output tiny.onnx' in result.stdout


def test_figures_of_a_run_have_its_epochs_also_if_few_were_validated() -> None:
    rows = [{'epoch': 1, 'train/loss': 2.0, 'lr': 1e-3},
            {'epoch': 2, 'train/loss': 1.0, 'lr': 1e-4, 'val/AP50': 0.5}]
    figure = draw_results(rows, 'val/AP50')
    assert [axes.get_xlim() for axes in figure.axes] == [(0.5, 2.5)] * 3


def test_a_narrow_terminal_shows_one_bar(tmp_path: Path, recipe_values: dict) -> None:
    path = write_recipe(tmp_path, {**recipe_values, 'name': 'narrow'})
    ours, theirs = pty.openpty()
    environment = {**os.environ, 'COLUMNS': '60', 'TERM': 'xterm'}
    with subprocess.Popen(train(path), cwd=ROOT, stdin=theirs, stdout=theirs,
                          stderr=subprocess.PIPE, env=environment) as run:
        os.close(theirs)
        shown = b''
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the program closed the terminal
                break
        assert run.wait() == 0
    os.close(ours)
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', shown.decode())
    bars = [part for part in re.split(r'[\r\n]+', text) if '━━' in part and 'epoch' in part]
    assert bars and all(len(bar) <= 60 for bar in bars)
    assert 'epoch 3/3' in text and 'epoch 0/' not in text
    assert all(len(line) <= 60 for line in text.splitlines() if line.startswith('│'))


def test_a_full_disk_is_a_sentence(tmp_path: Path, recipe_values: dict) -> None:
    limit = 100_000  # bytes; a checkpoint is larger
    result = subprocess.run(
        train(write_recipe(tmp_path, recipe_values)), cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert re.fullmatch(r'cgdet: File too large: .*(last|best)\.ckpt\.',
                        result.stderr.splitlines()[-1])


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, recipe_values: dict, run_cgdet: Run,
) -> None:
    path = write_recipe(tmp_path, recipe_values)
    result = run_cgdet('train', path, f'run.output={path}')
    assert result.returncode == 1 and 'is not a folder' in result.stderr
    assert result.stderr.count('\n') == 1


@pytest.mark.parametrize(('found', 'chosen'), [
    ({'avx2', 'avx512_bf16'}, 'bf16-mixed'), ({'amx_bf16'}, 'bf16-mixed'), ({'avx2'}, '32-true'),
    (set(), '32-true')], ids=['avx512', 'amx', 'avx2', 'nothing'])
def test_bfloat16_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, recipe_values: dict, found: set[str], chosen: str,
) -> None:
    monkeypatch.setattr(precision, 'features', lambda: found)
    run = {k: v for k, v in recipe_values['run'].items() if k != 'precision'}
    assert precision.resolve_precision(parse_recipe({**recipe_values, 'run': run}, '')) == chosen
    set_by_hand = parse_recipe({**recipe_values, 'run': {**run, 'precision': '16-mixed'}}, '')
    assert precision.resolve_precision(set_by_hand) == '16-mixed'


def test_the_processor_has_features() -> None:
    text = Path('/proc/cpuinfo').read_text()
    assert processor.features() and all(f in text for f in processor.features())
