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

"""Training in two processes over gloo, started by the recipe and by torchrun."""

from collections.abc import Callable
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from cgdet_core.detection.predict import open_detector
from cgdet_core.runtime.imaging.frames import read_thermal
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 3


@pytest.fixture(scope='module')
def recipe(
    tmp_path_factory: pytest.TempPathFactory, recipe_values: dict, pairs: Path, rgb_teacher: Path,
    trained: Path,
) -> Path:
    """
    Return a recipe with RCS and CMG in which every batch of four has one pair.

    So the second of two ranks never sees RGB. The seven frames for validation do not divide
    evenly between them; their truth is what the model to start from finds in them, so that a tiny
    model has an average precision to speak of.
    """
    folder = tmp_path_factory.mktemp('distributed')
    val = folder / 'val.json'
    detector, truth = open_detector(trained / 'last.ckpt'), []
    content = json.loads(pairs.read_text())
    for image in (images := content['images'][:7]):
        image['file_name'] = str(pairs.parent / image['file_name'])
        found = detector.detect(read_thermal(image['file_name']), 0.001)
        for i in (0, 4, 9):
            x1, y1, x2, y2 = found.boxes[i].tolist()
            truth.append({'id': len(truth) + 1, 'image_id': image['id'], 'iscrowd': 0,
                          'category_id': int(found.labels[i]) + 1,
                          'bbox': [x1, y1, x2 - x1, y2 - y1]})
    val.write_text(json.dumps({**content, 'images': images, 'annotations': truth}))
    path = folder / 'recipe.yaml'
    path.write_text(yaml.safe_dump({
        **recipe_values, 'augment': {'mosaic': 0.0},
        'data': {'train': str(pairs), 'val': str(val), 'synthetic': 4, 'pair_share': 0.25},
        'optim': {'epochs': EPOCHS, 'batch_size': 2, 'warmup_epochs': 1, 'lr': 0.0001,
                  'init': str(trained / 'last.ckpt')},
        'rcs': {'queue': 2, 'warmup_epochs': 0},
        'cmg': {'over': 'both', 'warmup_epochs': 0, 'teacher': {
            'path': str(rgb_teacher), 'cache': str(folder / 'features')}},
        'run': {**recipe_values['run'], 'val_every': EPOCHS, 'output': str(folder)}}))
    return path


def run(*arguments: object) -> subprocess.CompletedProcess:
    result = subprocess.run([sys.executable, '-m', *map(str, arguments)], cwd=ROOT,
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope='module')
def by_recipe(recipe: Path) -> tuple[Path, str]:
    """Return the folder and output of a run whose recipe requests two processes."""
    result = run('cgdet_core', 'train', recipe, 'run.devices=2', 'name=recipe')
    return recipe.parent / 'recipe', result.stdout


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / 'last.ckpt', weights_only=True)


def test_two_processes_share_the_batches_and_write_once(by_recipe: tuple[Path, str]) -> None:
    folder, output = by_recipe
    # 12 + 4 frames in batches of 2 * 2; unshared it would be twice as many steps.
    assert weights(folder)['global_step'] == EPOCHS * 4
    assert {p.name for p in folder.iterdir()} == {
        'last.ckpt', 'best.ckpt', 'logs', 'recipe.yaml', 'run.json', 'results.csv'}
    assert len(list((folder / 'logs').glob('events.*'))) == 1
    for words in ('The best checkpoint is', 'boxes: person', 'epoch 2/3:', 'The best AP50 is'):
        assert output.count(words) == 1, words
    assert 'x 2 processes' in output


def test_the_validation_metric_is_that_of_all_frames(
    by_recipe: tuple[Path, str], recipe: Path, tmp_path: Path,
    run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    """Compare what the two processes logged with one that evaluates the checkpoint."""
    folder, _ = by_recipe
    log = EventAccumulator(str(folder / 'logs'))
    log.Reload()
    logged = log.Scalars('val/AP50')[-1].value
    result = run_cgdet('evaluate', folder / 'last.ckpt', '--data',
                       recipe.parent / 'val.json', '--json', tmp_path / 'r.json')
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['images'] == 7 and report['AP50'] > 0, 'nothing to compare'
    assert logged == pytest.approx(report['AP50'], rel=1e-3)


def test_torchrun_trains_the_same_weights(by_recipe: tuple[Path, str], recipe: Path) -> None:
    """Start two processes by torchrun, although the recipe requests one."""
    result = run('torch.distributed.run', '--nproc-per-node', 2, '-m', 'cgdet_core', 'train',
                 recipe, 'name=torchrun')
    assert result.stdout.count('The best checkpoint is') == 1
    one, two = weights(by_recipe[0]), weights(recipe.parent / 'torchrun')
    for part in ('state_dict', 'current_model_state'):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), name
