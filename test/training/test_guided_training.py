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

"""Training with RCS and CMG: logs, exact resumption, and that the deployed model has neither."""

from collections.abc import Callable
import json
from pathlib import Path
import shutil
import signal
import subprocess
import time
from typing import Any

from cgdet_core.data.synthetic import write_coco
from cgdet_core.deployment.export import export
from cgdet_core.detection.predict import open_detector
from cgdet_core.detection.student import load_student
from cgdet_core.detection.training import DetectionTraining
from cgdet_core.distillation import guide
from cgdet_core.distillation.config import ContrastiveConfig, TeacherConfig
from cgdet_core.distillation.teachers import open_teacher
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.detection.card import IMAGES
from cgdet_core.tasks import load_recipe, parse_recipe, train
from forked import PROGRAM
import onnx
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess]
STEPS_PER_EPOCH, EPOCHS, RCS_STOPS = 8, 7, 5


@pytest.fixture(scope='module')
def values(recipe_values: dict, pairs: Path, rgb_teacher: Path) -> dict[str, Any]:
    """Return a recipe with everything: RCS with a queue, CMG, semi-paired batches."""
    return {
        **recipe_values, 'name': 'guided',
        'data': {'train': str(pairs), 'val': str(pairs), 'synthetic': 4, 'pair_share': 0.5},
        'optim': {'epochs': EPOCHS, 'batch_size': 2, 'warmup_epochs': 1},
        'rcs': {'queue': 4, 'stop_epoch': RCS_STOPS},
        'cmg': {'over': 'both', 'teacher': {'path': str(rgb_teacher)}}}


def command(folder: Path, values: dict, *more: str) -> list[str]:
    """Write the recipe to run inside of `folder`, cache included."""
    cmg = values.get('cmg') and {**values['cmg'], 'teacher': {
        **values['cmg']['teacher'], 'cache': str(folder / 'features')}}
    folder.mkdir(exist_ok=True)
    (folder / 'recipe.yaml').write_text(yaml.safe_dump(
        {**values, 'cmg': cmg, 'run': {**values['run'], 'val_every': EPOCHS,
                                       'output': str(folder)}}))
    return ['train', str(folder / 'recipe.yaml'), *more]


@pytest.fixture(scope='module')
def guided(tmp_path_factory: pytest.TempPathFactory, values: dict, run_cgdet: Run) -> Path:
    """Return the folder of a guided run, with a loading worker and an empty cache at the start."""
    folder = tmp_path_factory.mktemp('guided')
    result = run_cgdet(*command(folder, values, 'run.workers=1'))
    assert result.returncode == 0, result.stderr
    return folder / 'guided'


def test_every_term_and_its_gradient_is_logged(guided: Path) -> None:
    log = EventAccumulator(str(guided / 'logs'))
    log.Reload()
    tags = log.Tags()['scalars']
    terms = {tag: {e.step: e.value for e in log.Scalars(tag)} for tag in tags}
    for name in ('det', 'cls', 'box', 'dfl', 'rcs', 'cmg', 'loss'):
        assert set(terms[f'train/{name}']) == {9, 19, 29, 39, 49}, name
    for step, loss in terms['train/loss'].items():
        assert loss == pytest.approx(
            sum(terms[f'train/{n}'][step] for n in ('det', 'rcs', 'cmg')), rel=1e-4)
        assert (terms['train/rcs'][step] > 0) == (step < RCS_STOPS * STEPS_PER_EPOCH)
        assert terms['train/cmg'][step] > 0
    assert terms['gradient/det'][49] > 0 and terms['gradient/cmg'][49] > 0
    assert terms['gradient/rcs'][49] == 0, 'RCS has stopped'


@pytest.mark.parametrize(('epoch', 'expected'), [
    (0, 0), (0.5, 0.05), (2, 0.2), (2.9, 0.2), (3, 0), (9, 0)])
def test_lambda_warms_up_and_stops(epoch: float, expected: float) -> None:
    config = ContrastiveConfig(weight=0.2, warmup_epochs=2, stop_epoch=3)
    assert config.weight_at(epoch) == pytest.approx(expected)
    assert ContrastiveConfig(weight=0.2, warmup_epochs=0).weight_at(epoch) == 0.2


def test_killed_anywhere_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, guided: Path, values: dict, run_cgdet: Run,
) -> None:
    """Kill inside an epoch, so that the cache holds features from after the checkpoint."""
    run = subprocess.Popen([*PROGRAM, *command(tmp_path, values)], cwd=ROOT,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / 'guided' / 'last.ckpt'
    end = time.monotonic() + 120
    while not last.is_file() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert torch.load(last, weights_only=True)['epoch'] < EPOCHS - 1, 'killed too late'
    with pytest.raises(UserError, match=r'another recipe: rcs\.weight changed'):
        train(load_recipe(tmp_path / 'recipe.yaml', ['rcs.weight=0.3']), True, progress=False)
    result = run_cgdet(*command(tmp_path, values, '--resume', 'data.cache_gib=0.0001'))
    assert result.returncode == 0, result.stderr
    expected = torch.load(guided / 'last.ckpt', weights_only=True)
    found = torch.load(last, weights_only=True)
    assert expected['current_model_state']['rcs.filled'].sum() > 4
    for part in ('state_dict', 'current_model_state'):
        assert expected[part].keys() == found[part].keys()
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), name


def test_a_resumed_run_keeps_the_scales_of_its_teacher(
    tmp_path: Path, values: dict, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a cache, and although the scales of the training set are others by then."""
    command(tmp_path, {**values, 'rcs': None, 'optim': {'epochs': 2, 'batch_size': 4}})
    more = ['cmg.objective=mse', 'cmg.teacher.cache=null']

    def trained(name: str, resume: bool = False) -> dict[str, Any]:
        recipe = load_recipe(tmp_path / 'recipe.yaml', [*more, f'name={name}'])
        train(recipe, resume, progress=False)
        return torch.load(tmp_path / name / 'last.ckpt', weights_only=True)

    whole = trained('whole')
    assert [scale.shape for scale in whole['teacher_scales']] == [(2, 16)] * 3
    assert all((scale[1] > 0).all() for scale in whole['teacher_scales'])

    def interrupt(module: DetectionTraining) -> None:
        if module.current_epoch == 1:
            raise UserError('interrupted')

    with monkeypatch.context() as patch:
        patch.setattr(DetectionTraining, 'on_train_epoch_start', interrupt)
        with pytest.raises(UserError, match='interrupted'):
            trained('parts')
    monkeypatch.setattr(guide, 'PICTURES', 1)
    parts = trained('parts', True)
    for part in ('state_dict', 'current_model_state'):
        assert all(torch.equal(v, parts[part][k]) for k, v in whole[part].items())
    for one, two in zip(whole['teacher_scales'], parts['teacher_scales']):
        assert torch.equal(one, two)


def test_objectives_that_standardize_measure_no_scales(guided: Path) -> None:
    assert 'teacher_scales' not in torch.load(guided / 'last.ckpt', weights_only=True)


def test_another_teacher_of_the_same_name_is_refused(
    tmp_path: Path, guided: Path, values: dict,
) -> None:
    shutil.copytree(guided, tmp_path / 'guided')
    other = tmp_path / Path(values['cmg']['teacher']['path']).name
    content = torch.load(values['cmg']['teacher']['path'], weights_only=True)
    first = next(iter(content['state_dict'].values()))
    first += 1
    torch.save(content, other)
    command(tmp_path, values)
    with pytest.raises(UserError, match=r'content of cmg\.teacher changed'):
        train(load_recipe(tmp_path / 'recipe.yaml', [f'cmg.teacher.path={other}']), True,
              progress=False)


def test_nothing_of_training_remains_in_the_deployed_model(
    tmp_path: Path, guided: Path, onnx_model: Path,
) -> None:
    """Compare the graph with and without RCS and CMG: nodes, constants and parameter count."""
    weights = torch.load(guided / 'last.ckpt', weights_only=True)['state_dict']
    assert {name.split('.')[0] for name in weights} == {'student', 'rcs', 'cmg'}
    card = export(guided / 'last.ckpt', tmp_path / 'guided.onnx')
    plain = json.loads(onnx_model.with_suffix('.json').read_text())
    assert card.parameters == plain['parameters'] and card.gflops == plain['gflops']

    def graph(path: Path) -> tuple[list[Any], list[Any]]:
        found = onnx.load(path).graph
        return ([(n.op_type, list(n.input), list(n.output)) for n in found.node],
                [(i.name, list(i.dims), i.data_type) for i in found.initializer])

    assert graph(tmp_path / 'guided.onnx') == graph(onnx_model)


@pytest.fixture(scope='module')
def color_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a COCO file of RGB images, as used to train a teacher."""
    path = write_coco(tmp_path_factory.mktemp('color'), 8, 5, 4, (160, 128), rgb=1)
    content = json.loads(path.read_text())
    for image in content['images']:
        image['file_name'] = image.pop('rgb_file_name')
    rgb = path.with_name('rgb.json')
    rgb.write_text(json.dumps(content))
    return rgb


def test_an_rgb_teacher_is_trained_evaluated_and_never_deployed(
    tmp_path: Path, recipe_values: dict, color_set: Path, pairs: Path, onnx_model: Path,
    run_cgdet: Run,
) -> None:
    values = {**recipe_values, 'model': {**recipe_values['model'], 'in_channels': 3},
              'data': {'train': str(pairs), 'val': str(color_set)},
              'optim': {'epochs': 1, 'batch_size': 4}}
    result = run_cgdet(*command(tmp_path, values, 'run.report=true'))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'tiny' / 'val_samples.png').is_file()
    checkpoint = tmp_path / 'tiny' / 'last.ckpt'
    result = run_cgdet('evaluate', checkpoint, '--data', color_set, '--json', tmp_path / 'r.json')
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'r.json').read_text())['images'] == 8
    result = run_cgdet('evaluate', checkpoint, '--data', pairs, '--json', tmp_path / 'r.json')
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'r.json').read_text())['images'] == 6, 'frames with RGB'
    assert open_teacher(TeacherConfig(path=checkpoint)).channels == (16, 16, 16)
    assert open_detector(checkpoint).card.channels == load_student(checkpoint)[1].channels == 3
    with pytest.raises(UserError, match='takes RGB'):
        export(checkpoint, tmp_path / 'teacher.onnx')
    # Nor is a model with an RGB card accepted as a thermal model.
    shutil.copy(onnx_model, tmp_path / 'm.onnx')
    card = json.loads(onnx_model.with_suffix('.json').read_text())
    images = card['inputs']['images']
    images |= {'shape': [1, 3, *images['shape'][2:]], 'layout': IMAGES[3]}
    (tmp_path / 'm.json').write_text(json.dumps(card))
    with pytest.raises(UserError, match='is an RGB model; choose a thermal model'):
        Detector.load(tmp_path / 'm.onnx')


def test_without_rgb_the_teacher_sees_thermal_frames_only(values: dict) -> None:
    """The control of what RGB itself adds; without it, half of these frames have RGB."""
    data = {**values['data'], 'pair_share': None}
    cmg = {**values['cmg'], 'unpaired': 'thermal'}

    def seen(rgb: bool) -> list[bool]:
        module = DetectionTraining(parse_recipe(
            {**values, 'data': {**data, 'rgb': rgb}, 'cmg': cmg}, 'test'))
        views = [View.of(record, 'thermal') for record in module.train_set.images]
        return [view is not None and view.thermal for view in views]

    assert seen(True) == [False, True] * 6 and seen(False) == [True] * 12
    with pytest.raises(UserError, match='set cmg.unpaired to thermal'):
        parse_recipe({**values, 'data': {**data, 'rgb': False}}, 'test')


def test_data_that_do_not_fit_the_recipe_are_explained(
    tmp_path: Path, values: dict, scenes: Path, color_set: Path,
) -> None:
    lacking = write_coco(tmp_path / 'lacking', 4, 1, 4, (160, 128), rgb=1)
    (lacking.parent / 'rgb' / 'scene_00002.png').unlink()
    data, run = values['data'], {**values['run'], 'output': str(tmp_path)}
    rgb_model = {**values['model'], 'in_channels': 3}
    for changes, words in (
            ({'data': {**data, 'train': str(scenes), 'pair_share': None}}, 'lists no RGB images'),
            ({'data': {**data, 'train': str(lacking)}}, '1 of the RGB images .*scene_00002.png'),
            ({'data': {**data, 'train': str(scenes)}, 'cmg': None}, 'with RGB, but there are'),
            ({'model': rgb_model, 'cmg': None, 'data': {
                'train': str(color_set), 'val': str(color_set), 'synthetic': 4}}, 'are thermal'),
            ({'model': rgb_model, 'cmg': None, 'data': {
                'train': str(scenes), 'val': str(scenes)}}, 'thermal set without RGB'),
            ({'run': {**run, 'devices': 9}}, 'one batch of 18 over 9 processes')):
        with pytest.raises(UserError, match=words):
            train(parse_recipe({**values, 'run': run, **changes}, 'test'), progress=False)
        assert not list(tmp_path.glob('guided/*.ckpt'))
