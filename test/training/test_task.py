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

"""Training is independent of tasks: a toy task, fitting a line, trains and resumes."""

import json
import math
from pathlib import Path
from typing import Any, Literal

from cgdet_core.errors import UserError
from cgdet_core.runtime import Normalization
from cgdet_core.runtime.inference.card import ModelCard, TensorSpec
from cgdet_core.training import precision
from cgdet_core.training.checkpoints import KEY, read_checkpoint
from cgdet_core.training.folder import read_results
from cgdet_core.training.module import Losses, TaskModule
from cgdet_core.training.recipe import check_values, Recipe, Strict
from cgdet_core.training.run import train
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
from torch import nn, Tensor
from torch.utils.data import DataLoader, TensorDataset


class LineModel(Strict):
    """The sizes of the toy's network."""

    bias: bool = True


class LineRecipe(Recipe):
    """The recipe of a line."""

    task: Literal['line'] = 'line'
    model: LineModel = LineModel()
    slope: float


class LineTraining(TaskModule):
    """Fit y = slope * x."""

    monitor = 'val/closeness'
    recipe: LineRecipe

    def __init__(self, recipe: LineRecipe) -> None:
        super().__init__(recipe)
        self.line = nn.Linear(1, 1, recipe.model.bias)
        tensor = TensorSpec(('batch', 1), 'float32', 'N, one number')
        self.card = ModelCard(
            task='line', name=recipe.name, inputs={'x': tensor}, outputs={'y': tensor},
            normalization=Normalization('none'), training={'recipe': recipe.record()})
        self._errors: list[Tensor] = []

    def train_dataloader(self) -> DataLoader[Any]:
        x = torch.linspace(-1, 1, 16)[:, None]
        return DataLoader(TensorDataset(x, self.recipe.slope * x), 4)

    val_dataloader = train_dataloader

    def losses(self, batch: Any) -> Losses:
        y = self.line(batch[0])
        terms = {'fit': (y - batch[1]).square().mean(), 'small': 1e-4 * y.square().mean()}
        return Losses(terms, {'bias': self.line.bias.sum()}, [y], len(y))

    def validate(self, batch: Any) -> None:
        self._errors.append((self.line(batch[0]) - batch[1]).abs())

    def validation_metrics(self) -> dict[str, float]:
        error = float(torch.cat(self._errors).mean())
        self._errors = []
        return {'val/closeness': 1 - error, 'val/error': error}

    def load_start(self) -> None:
        assert self.recipe.optim.init is not None
        self.load_state_dict(read_checkpoint(self.recipe.optim.init)['state_dict'])


def recipe(folder: Path, **values: Any) -> LineRecipe:
    return check_values(LineRecipe, {
        'name': 'line', 'slope': 3.0,
        'run': {'output': str(folder), 'val_every': 1, 'workers': 0, 'report': False},
        'optim': {'epochs': 30, 'batch_size': 4, 'lr': 0.2, 'weight_decay': 0.0,
                  'ema_decay': 0.9}, **values}, 'test')


def test_a_second_task_trains(tmp_path: Path) -> None:
    best = train(recipe(tmp_path), LineTraining, progress=False)
    found = read_checkpoint(best)
    assert float(found['state_dict']['line.weight']) == pytest.approx(3.0, abs=0.1)
    assert found[KEY]['card']['task'] == 'line' and found[KEY]['model'] == {'bias': True}
    assert sorted(p.name for p in (tmp_path / 'line').iterdir()) == [
        'best.ckpt', 'last.ckpt', 'logs', 'recipe.yaml', 'results.csv', 'run.json']


def test_a_second_task_resumes_only_with_the_original_recipe(tmp_path: Path) -> None:
    train(recipe(tmp_path), LineTraining, progress=False)
    last = read_checkpoint(tmp_path / 'line' / 'last.ckpt')
    train(recipe(tmp_path), LineTraining, resume=True, progress=False)
    again = read_checkpoint(tmp_path / 'line' / 'last.ckpt')
    assert torch.equal(last['state_dict']['line.weight'], again['state_dict']['line.weight'])
    with pytest.raises(UserError, match='slope changed'):
        train(recipe(tmp_path, slope=2.0), LineTraining, resume=True, progress=False)


def test_a_run_of_another_network_is_not_resumed(tmp_path: Path) -> None:
    train(recipe(tmp_path), LineTraining, progress=False)
    last = tmp_path / 'line' / 'last.ckpt'
    data = read_checkpoint(last)
    weights = data['state_dict']
    for other in ({'old.weight': weights['line.weight'], 'line.bias': weights['line.bias']},
                  {**weights, 'line.weight': torch.zeros(2, 1)}, {}):
        torch.save({**data, 'state_dict': other}, last)
        before = {path: path.stat().st_mtime_ns for path in last.parent.rglob('*')}
        with pytest.raises(UserError, match=r'last.ckpt does not fit this version: its network '
                                            r'has other layers \(line\.\w+\); use'):
            train(recipe(tmp_path), LineTraining, resume=True, progress=False)
        assert {path: path.stat().st_mtime_ns for path in last.parent.rglob('*')} == before


def rates(folder: Path) -> list[float]:
    """Return the learning rate at the end of each epoch."""
    return [row['lr'] for row in read_results(folder / 'line', 99)]


def test_a_run_is_extended_but_not_shortened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    def run(epochs: int, resume: bool = True) -> Path:
        optim = {'epochs': epochs, 'batch_size': 4, 'lr': 0.01}
        return train(recipe(tmp_path, optim=optim), LineTraining, resume)

    run(4, resume=False)
    assert len(rates(tmp_path)) == 4 and rates(tmp_path)[3] == pytest.approx(0.0002)
    run(4)
    assert 'All 4 epochs of this run are finished' in capsys.readouterr().out
    best = run(8)
    assert 'Extended from 4 to 8 epochs: from epoch 5 on' in capsys.readouterr().out
    after = rates(tmp_path)
    assert len(after) == 8 and after[4] > after[3], 'the schedule of 8 epochs'
    assert after[7] == pytest.approx(0.0002) and read_checkpoint(best)['epoch'] == 7
    with pytest.raises(UserError, match='optim.epochs changed'):
        run(6)


class Worse(LineTraining):
    """Each validation after the second one is worse."""

    def validation_metrics(self) -> dict[str, float]:
        super().validation_metrics()
        return {'val/closeness': 1 / (2 + abs(self.current_epoch - 1))}


@pytest.mark.parametrize(('patience', 'epochs'), [(1, 3), (3, 5), (None, 9)])
def test_a_run_that_no_longer_improves_stops(
    tmp_path: Path, patience: int | None, epochs: int,
) -> None:
    run = {'output': str(tmp_path), 'val_every': 1, 'workers': 0, 'report': False,
           'patience': patience}
    optim = {'epochs': 9, 'batch_size': 4, 'lr': 0.01}
    best = train(recipe(tmp_path, run=run, optim=optim), Worse, progress=False)
    assert len(rates(tmp_path)) == epochs
    assert read_checkpoint(best)['epoch'] == 1, 'of the second epoch, counted from 0'


def test_a_resumed_run_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(resume: bool) -> str:
        train(recipe(tmp_path), LineTraining, resume, progress=False)
        return str(json.loads((tmp_path / 'line' / 'run.json').read_text())['precision'])

    monkeypatch.setattr(precision, 'features', lambda: {'avx512_bf16'})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert run(False) == 'bf16-mixed'
    last = tmp_path / 'line' / 'last.ckpt'
    checkpoint = torch.load(last)
    monkeypatch.setattr(precision, 'features', lambda: set())
    assert run(True) == 'bf16-mixed', 'on a CPU without bfloat16'
    assert torch.load(last)['epoch'] == checkpoint['epoch']


class Interrupted(LineTraining):
    """A run that ends after its second epoch, when last.ckpt is written."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 2:
            raise UserError('interrupted')


def validations(folder: Path) -> list[int]:
    """Return the steps at which a run of 4 steps per epoch was validated."""
    log = EventAccumulator(str(folder / 'line' / 'logs'))
    log.Reload()
    return [event.step for event in log.Scalars('val/closeness')]


@pytest.mark.parametrize(('every', 'epochs'), [(2, (2, 3)), (1, (1, 2, 3)), (9, (3,))])
def test_the_last_epoch_is_always_validated(
    tmp_path: Path, every: int, epochs: tuple[int, ...],
) -> None:
    run = {'output': str(tmp_path), 'val_every': every, 'workers': 0, 'report': False}
    # The rate is low, so that every epoch comes closer to the line.
    optim = {'epochs': 3, 'batch_size': 4, 'lr': 0.01}
    best = train(recipe(tmp_path, run=run, optim=optim), LineTraining, progress=False)
    assert validations(tmp_path) == [4 * epoch - 1 for epoch in epochs]
    assert read_checkpoint(best)['epoch'] == 2, 'the best weights are those of the last epoch'


def test_a_resumed_run_validates_its_last_epoch(tmp_path: Path) -> None:
    run = {'output': str(tmp_path), 'val_every': 2, 'workers': 0, 'report': False}
    optim = {'epochs': 3, 'batch_size': 4, 'lr': 0.01}
    with pytest.raises(UserError, match='interrupted'):
        train(recipe(tmp_path, run=run, optim=optim), Interrupted, progress=False)
    best = train(recipe(tmp_path, run=run, optim=optim), LineTraining, resume=True,
                 progress=False)
    assert validations(tmp_path)[-1] == 11 and read_checkpoint(best)['epoch'] == 2


class Diverging(LineTraining):
    """A run whose loss or weights are no longer finite in the third step of an epoch."""

    epoch_of_fault, part, value = 1, 'loss', math.nan

    def losses(self, batch: Any) -> Losses:
        found = super().losses(batch)
        if self.current_epoch == self.epoch_of_fault and self.global_step % 4 == 2:
            if self.part == 'loss':
                return found._replace(terms={'fit': found.terms['fit'] + self.value})
            with torch.no_grad():
                self.line.weight.fill_(self.value)
        return found


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('part', ['loss', 'weights'])
def test_a_run_that_diverges_stops_before_it_is_validated(
    tmp_path: Path, part: str, value: float,
) -> None:
    kind = type('Kind', (Diverging,), {'part': part, 'value': value})
    with pytest.raises(UserError, match=r'became NaN or infinite by step \d+, in epoch 2, .*lower '
                                        r'optim.lr \(it is 0.2\)'):
        train(recipe(tmp_path), kind, progress=False)
    assert len(rates(tmp_path)) == 1
    for name in ('best.ckpt', 'last.ckpt'):
        assert read_checkpoint(tmp_path / 'line' / name)['epoch'] == 0, 'before it diverged'


def test_a_run_that_diverges_at_once_leaves_no_checkpoint(tmp_path: Path) -> None:
    kind = type('Kind', (Diverging,), {'epoch_of_fault': 0})
    with pytest.raises(UserError, match='in epoch 1, and the training was stopped'):
        train(recipe(tmp_path), kind, progress=False)
    assert not list(tmp_path.rglob('*.ckpt'))


def test_a_second_task_starts_from_weights(tmp_path: Path) -> None:
    best = train(recipe(tmp_path), LineTraining, progress=False)
    optim = {'epochs': 1, 'batch_size': 4, 'lr': 1e-9, 'init': str(best)}
    last = train(recipe(tmp_path, name='next', optim=optim), LineTraining, progress=False)
    weight = read_checkpoint(last)['state_dict']['line.weight']
    assert float(weight) == pytest.approx(3.0, abs=0.1)


def test_its_wrong_keys_are_named() -> None:
    with pytest.raises(UserError, match="unknown key 'slop', did you mean 'slope'"):
        check_values(LineRecipe, {'name': 'line', 'slope': 1.0, 'slop': 2.0}, 'test')
