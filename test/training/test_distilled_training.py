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

"""Training on frames without labels: logs, exact resumption, several processes, refusals."""

from collections.abc import Callable
import json
from pathlib import Path
import signal
import subprocess
import time
from typing import Any

from cgdet_core.data.synthetic import write_coco
from cgdet_core.detection.predict import open_detector
from cgdet_core.detection.unlabeled import load_unlabeled
from cgdet_core.errors import UserError
from cgdet_core.tasks import parse_recipe, train
from cgdet_core.training.folder import read_results
import cv2
from forked import PROGRAM
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess]
EPOCHS = 4  # the first is the burn-in


@pytest.fixture(scope='module')
def unlabeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the COCO file of eight frames without boxes, all with an RGB image."""
    path = write_coco(tmp_path_factory.mktemp('drive'), 8, 40, 3, (160, 128), rgb=1)
    path.write_text(json.dumps({**json.loads(path.read_text()), 'annotations': [],
                                'info': {'license': 'theirs'}}))
    return path


@pytest.fixture(scope='module')
def finder(tmp_path_factory: pytest.TempPathFactory, rgb_teacher: Path) -> Path:
    """Return an RGB teacher that finds objects everywhere, with scores about 0.5."""
    data = torch.load(rgb_teacher, weights_only=True)
    data['state_dict']['student.head.cls_out.bias'].zero_()
    torch.save(data, path := tmp_path_factory.mktemp('finder') / 'finder.ckpt')
    return path


@pytest.fixture(scope='module')
def values(
    recipe_values: dict, unlabeled: Path, rgb_teacher: Path, finder: Path,
) -> dict[str, Any]:
    """Return a recipe with all kinds of guidance on frames without labels."""
    return {
        **recipe_values, 'name': 'distilled', 'classes': ['person', 'bicycle', 'car'],
        'optim': {'epochs': EPOCHS, 'batch_size': 4, 'warmup_epochs': 1},
        'cmg': {'over': 'both', 'teacher': {'path': str(rgb_teacher)}},
        'unlabeled': {'frames': str(unlabeled), 'burn_in_epochs': 1, 'warmup_epochs': 1,
                      'sources': ['student', 'rgb', 'thermal', 'black_hot'],
                      'teacher': {'path': str(finder)}}}


def command(folder: Path, values: dict, *more: str) -> list[str]:
    """Write the recipe to run inside of `folder`, cache included."""
    for section in ('cmg', 'unlabeled'):
        values = {**values, section: {**values[section], 'teacher': {
            **values[section]['teacher'], 'cache': str(folder / 'features')}}}
    folder.mkdir(exist_ok=True)
    (folder / 'recipe.yaml').write_text(yaml.safe_dump(
        {**values, 'run': {**values['run'], 'val_every': EPOCHS, 'output': str(folder)}}))
    return ['distill', str(folder / 'recipe.yaml'), *more]


@pytest.fixture(scope='module')
def distilled(tmp_path_factory: pytest.TempPathFactory, values: dict, run_cgdet: Run) -> Path:
    """Return the folder of a run, with a loading worker."""
    folder = tmp_path_factory.mktemp('distilled')
    result = run_cgdet(*command(folder, values, 'run.workers=1'))
    assert result.returncode == 0, result.stderr
    assert '8 (8 with RGB)' in result.stdout, 'the table before the first step'
    return folder / 'distilled'


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


def test_pseudo_labels_begin_after_the_burn_in(distilled: Path) -> None:
    log = EventAccumulator(str(distilled / 'logs'))
    log.Reload()
    pseudo = [e.value for e in log.Scalars('train/pseudo')]
    steps = [e.step for e in log.Scalars('train/pseudo')]
    assert steps == [9, 19] and 0 < pseudo[0] < pseudo[1]
    rows = read_results(distilled, EPOCHS)
    assert rows[0]['train/pseudo'] == 0 < rows[1]['train/pseudo']
    assert all(e.value > 0 for e in log.Scalars('train/cmg'))
    training = open_detector(distilled / 'best.ckpt').card.training
    assert training['data'] == [
        'annotations.json', 'annotations.json', '4 synthetic scenes per epoch']
    assert training['license'].endswith('; unlabeled frames: theirs')


def test_killed_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, distilled: Path, values: dict, run_cgdet: Run,
) -> None:
    run = subprocess.Popen([*PROGRAM, *command(tmp_path, values)], cwd=ROOT,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last, end = tmp_path / 'distilled' / 'last.ckpt', time.monotonic() + 240
    while not last.is_file() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    result = run_cgdet(*command(tmp_path, values, '--resume'))
    assert result.returncode == 0, result.stderr
    expected = weights(distilled / 'last.ckpt')
    for name, value in weights(last).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_two_processes_train_as_one(tmp_path: Path, values: dict, program: Run) -> None:
    """With the batches of both together, except that each normalizes its own half."""
    halves = {**values, 'optim': {**values['optim'], 'batch_size': 2}}
    result = program(*command(tmp_path, halves, 'run.devices=2'))
    assert result.returncode == 0, result.stdout + result.stderr
    log = EventAccumulator(str(tmp_path / 'distilled' / 'logs'))
    log.Reload()
    assert max(e.value for e in log.Scalars('train/pseudo')) > 0


def test_without_any_label(tmp_path: Path, values: dict, run_cgdet: Run) -> None:
    alone = {**values, 'name': 'alone', 'data': {'train': None, 'val': values['data']['val']}}
    alone['unlabeled'] = {**values['unlabeled'], 'share': 1, 'burn_in_epochs': 0}
    result = run_cgdet(*command(tmp_path, alone))
    assert result.returncode == 0, result.stderr
    assert open_detector(tmp_path / 'alone' / 'best.ckpt').card.training['data'] == [
        'annotations.json']


def test_an_exported_model_learns_alone(tmp_path: Path, values: dict, onnx_model: Path) -> None:
    alone = {**values, 'name': 'alone', 'data': {'train': None, 'val': values['data']['val']},
             'cmg': None, 'optim': {**values['optim'], 'epochs': 1, 'init': str(onnx_model)},
             'run': {**values['run'], 'output': str(tmp_path), 'report': True}}
    alone['unlabeled'] = {'frames': values['unlabeled']['frames'], 'share': 1,
                          'sources': ['student'], 'burn_in_epochs': 0, 'warmup_epochs': 0,
                          'object_score': 0.005, 'ignore_score': 0.004}
    assert train(parse_recipe(alone, 'test'), progress=False).is_file()
    alone['unlabeled']['object_score'] = 0.999
    assert 'No object was found in' in refused({**alone, 'name': 'nothing'}, tmp_path)


def test_a_student_from_nothing_learns_features_alone(tmp_path: Path, values: dict) -> None:
    alone = {**values, 'name': 'features', 'data': {'train': None, 'val': values['data']['val']},
             'optim': {**values['optim'], 'epochs': 6, 'lr': 0.01},
             'cmg': {**values['cmg'], 'over': 'pyramid', 'objective': 'mse', 'warmup_epochs': 0},
             'run': {**values['run'], 'output': str(tmp_path)}}
    alone['unlabeled'] = {'frames': values['unlabeled']['frames'], 'share': 1, 'weight': 0,
                          'sources': ['student'], 'burn_in_epochs': 0}
    best = train(parse_recipe(alone, 'test'), progress=False)
    rows = read_results(best.parent, 6)
    assert all(row['train/det'] == row['train/pseudo'] == 0 for row in rows)
    assert rows[5]['train/loss'] < 0.99 * rows[0]['train/loss']
    start = {**values, 'name': 'start', 'cmg': None, 'unlabeled': None,
             'optim': {**values['optim'], 'epochs': 1, 'init': str(best)},
             'run': {**values['run'], 'output': str(tmp_path)}}
    assert train(parse_recipe(start, 'test'), progress=False).is_file()


def refused(values: dict, folder: Path) -> str:
    recipe = parse_recipe({**values, 'run': {**values['run'], 'output': str(folder)}}, 'test')
    with pytest.raises(UserError) as error:
        train(recipe, progress=False)
    return str(error.value)


def test_frames_that_cannot_teach_are_refused(
    tmp_path: Path, values: dict, unlabeled: Path, scenes: Path, trained: Path,
) -> None:
    def changed(**section: Any) -> dict:
        return {**values, 'cmg': None, 'unlabeled': {**values['unlabeled'], **section}}

    assert 'lists no RGB images' in refused(changed(frames=str(scenes)), tmp_path)
    assert 'trained on thermal frames' in refused(
        changed(teacher={'path': str(trained / 'last.ckpt'), 'cache': None}), tmp_path)
    content = json.loads(unlabeled.read_text())
    content['images'][3]['rgb_file_name'] = 'rgb/gone.png'
    other = unlabeled.with_name('other.json')
    other.write_text(json.dumps(content))
    assert '1 of the RGB images' in refused(changed(frames=str(other)), tmp_path)


def test_pairs_that_do_not_fit_are_reported(
    tmp_path: Path, values: dict, caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_coco(tmp_path / 'night', 8, 40, 3, (160, 128), rgb=1)
    for picture in (tmp_path / 'night' / 'rgb').iterdir():
        cv2.imwrite(str(picture), np.zeros((128, 160, 3), np.uint8))
    recipe = parse_recipe({**values, 'unlabeled': {
        **values['unlabeled'], 'frames': str(path)}}, 'test')
    load_unlabeled(recipe)
    assert 'black or nearly uniform in 8 of 8 pairs' in caplog.text


def test_a_recipe_without_such_frames_is_for_train(
    tmp_path: Path, recipe_values: dict, run_cgdet: Run,
) -> None:
    (tmp_path / 'r.yaml').write_text(yaml.safe_dump(recipe_values))
    result = run_cgdet('distill', tmp_path / 'r.yaml')
    assert result.returncode == 1 and 'has no section unlabeled' in result.stderr
