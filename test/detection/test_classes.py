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

"""The classes of a run: those of the data or of the recipe, and the boxes that it cannot use."""

from collections.abc import Callable
import json
from pathlib import Path
import re
import subprocess
from typing import Any

from cgdet_core.data.coco import NO_CLASS
from cgdet_core.detection.evaluation import detect_all
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.samples import CocoFrames, IGNORED
from cgdet_core.detection.training import DetectionTraining
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.tasks import parse_recipe
from cgdet_core.training.checkpoints import KEY
import pytest
import torch

Edit = Callable[[dict[str, Any]], None]
ROAD = ('person', 'bicycle', 'car')


@pytest.fixture
def recipe(recipe_values: dict, scenes: Path, tmp_path: Path) -> Callable[..., DetectionRecipe]:
    """Return a function that edits the training and validation sets and builds the recipe."""
    def build(train: Edit, val: Edit = lambda data: None, **values: Any) -> DetectionRecipe:
        files = {}
        for name, edit in (('train', train), ('val', val)):
            data = json.loads(scenes.read_text())
            edit(data)
            files[name] = tmp_path / f'{name}.json'
            files[name].write_text(json.dumps(data))
        data = {**recipe_values['data'], 'synthetic': 0, 'images': str(scenes.parent),
                **{k: str(v) for k, v in files.items()}, **values.pop('data', {})}
        recipe = parse_recipe({**recipe_values, **values, 'data': data}, 'test')
        assert isinstance(recipe, DetectionRecipe)
        return recipe
    return build


def without(name: str) -> Edit:
    """Return an edit that removes the boxes of a class."""
    def edit(data: dict[str, Any]) -> None:
        gone = {c['id'] for c in data['categories'] if c['name'] == name}
        data['annotations'] = [a for a in data['annotations'] if a['category_id'] not in gone]
    return edit


def renamed(data: dict[str, Any]) -> None:
    """Turn the bicycles into dogs."""
    for category in data['categories']:
        category['name'] = {'bicycle': 'dog'}.get(category['name'], category['name'])


def capital(data: dict[str, Any]) -> None:
    data['categories'][0]['name'] = 'Person'


def nothing(data: dict[str, Any]) -> None:
    data['annotations'] = []


def crowded(data: dict[str, Any]) -> None:
    """Turn the boxes of cars into ignore regions."""
    for annotation in data['annotations']:
        annotation['iscrowd'] = int(annotation['category_id'] == data['categories'][-1]['id'])


def test_a_recipe_without_classes_takes_those_of_its_training_data(
    recipe: Callable, caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level('INFO')
    module = DetectionTraining(recipe(renamed, renamed))
    assert module.card.classes == module.recipe.classes == ('person', 'dog', 'car')
    assert module.card.training['recipe']['classes'] == ['person', 'dog', 'car']
    assert 'The classes are those of' in caplog.text and 'person, dog, car' in caplog.text
    found = recipe(crowded, classes=None).resolved()
    assert found.classes == ('person', 'bicycle') == found.resolved().classes
    assert 'person, bicycle; without boxes: car' in caplog.text
    assert recipe(renamed, classes=['car']).resolved().classes == ('car',)


@pytest.mark.parametrize(('train', 'val', 'values', 'words'), [
    (nothing, nothing, {}, 'train.json has no boxes; label objects before training'),
    (capital, capital, {}, r"the category 'Person', .* know as person; .* classes: \[Person, bi"),
    (nothing, nothing, {'classes': ROAD}, 'train.json has no boxes of person, bicycle, car'),
    (renamed, renamed, {'classes': ['person', 'bicycle']},
     r'has no box of bicycle; .* name those of the data: person \d+, car \d+, dog \d+'),
    (without('car'), nothing, {'classes': ROAD}, 'no box of car'),
    (renamed, nothing, {'classes': ['person', 'dog']}, 'val.json has no box of person, dog'),
    (without('person'), nothing, {'classes': ['person', 'car'], 'data': {'synthetic': 4}},
     'val.json has no box of person, car'),
    (lambda data: data.update(images=data['images'][:1]), lambda data: None, {},
     '1 training frame does not fill one batch of 4'),
    (lambda data: (without('person')(data), without('bicycle')(data)), lambda data: None,
     {'rcs': {}}, 'has one class, car, and rcs needs at least two'),
])
def test_data_that_cannot_be_learned_are_refused(
    recipe: Callable, train: Edit, val: Edit, values: dict, words: str,
) -> None:
    with pytest.raises(UserError, match=words):
        DetectionTraining(recipe(train, val, **values))


@pytest.mark.parametrize(('use', 'words'), [
    ('ignore', 'which are ignored in training .*: dog'), ('background', 'which are background')])
def test_objects_of_other_classes_are_ignored_unless_asked_otherwise(
    recipe: Callable, caplog: pytest.LogCaptureFixture, use: str, words: str,
) -> None:
    module = DetectionTraining(recipe(renamed, without('car'), classes=['person', 'car'],
                                      data={'other_classes': use}))
    assert re.search(words, caplog.text)
    assert 'val.json has boxes of other classes, which are not measured: bicycle' in caplog.text
    assert 'val.json has no box of car, so its AP is not measured' in caplog.text
    dogs = sum(int((r.labels == NO_CLASS).sum()) for r in module.train_set.images)
    assert dogs == (module.train_set.others['dog'] if use == 'ignore' else 0)
    frames = CocoFrames(module.train_set, module.recipe.normalization)
    regions = sum(int((frames[i]['labels'] == IGNORED).sum()) for i in range(len(frames)))
    assert regions == dogs
    # Of the measurement they are not part: a person found in a dog is a false detection.
    assert not any(r.crowd.any() for r in module.val_set.images)


def licensed(data: dict[str, Any]) -> None:
    data['licenses'] = [{'id': 1, 'name': 'CC BY 4.0'}]


def test_the_license_on_the_card_is_that_of_the_data_and_of_the_start(
    recipe: Callable, recipe_values: dict, trained: Path,
) -> None:
    def license_of(**values: Any) -> str:
        return DetectionTraining(recipe(licensed, **values)).card.training['license']

    assert license_of() == 'CC BY 4.0'
    assert license_of(data={'license': 'ours'}) == 'ours'
    optim = {**recipe_values['optim'], 'init': str(trained / 'last.ckpt')}
    assert license_of(optim=optim) == 'CC BY 4.0; starting weights: unknown'
    plain = DetectionTraining(recipe(lambda data: None, optim=optim)).card.training
    assert plain['license'] == 'unknown'


def test_a_license_is_on_the_card_once_however_many_runs_led_there(
    recipe: Callable, recipe_values: dict, trained: Path, tmp_path: Path,
) -> None:
    start = torch.load(trained / 'last.ckpt', weights_only=True)
    start[KEY]['card']['training']['license'] = (
        'theirs; starting weights: CC BY 4.0; thermal teacher: theirs')
    torch.save(start, tmp_path / 'start.ckpt')
    optim = {**recipe_values['optim'], 'init': str(tmp_path / 'start.ckpt')}
    module = DetectionTraining(recipe(
        licensed, optim=optim, classes=list(ROAD),
        imitation={'teacher': [str(tmp_path / 'start.ckpt'), str(trained / 'last.ckpt')]}))
    assert module.card.training['license'] == (
        'CC BY 4.0; starting weights: theirs; thermal teacher: unknown')


def test_a_measurement_without_truth_is_refused_at_once(
    recipe: Callable, detector: Detector,
) -> None:
    found = recipe(lambda data: None, nothing, classes=ROAD)
    with pytest.raises(UserError, match='val.json has no boxes of person, bicycle, car; a meas'):
        detect_all(detector, found.frames(found.data.val))


def test_folders_and_classes_are_explained(
    run_cgdet: Callable[..., subprocess.CompletedProcess], onnx_model: Path, scenes: Path,
    tmp_path: Path,
) -> None:
    for arguments in (('evaluate', onnx_model, '--data', scenes.parent),
                      ('train', 'config/train/fine_tune.yaml', f'data.train={scenes.parent}')):
        result = run_cgdet(*arguments)
        assert result.returncode == 1
        assert result.stderr.strip().endswith(f'such as {scenes}.')
        assert len(result.stderr.strip().splitlines()) == 1
