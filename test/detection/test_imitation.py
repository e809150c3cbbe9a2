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

"""Imitation of a thermal teacher's outputs: its formula, its effect, and unfit teachers."""

import copy
import json
import math
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.detection.imitation import Imitation, imitation_loss, mirror
from cgdet_core.detection.starting import load_trained
from cgdet_core.detection.training import DetectionTraining
from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import file_sha256
from cgdet_core.tasks import load_recipe, parse_recipe
from cgdet_core.training.checkpoints import origin
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TEMPERATURE = 2.0


def test_equals_its_formula() -> None:
    torch.manual_seed(0)
    logits, taught = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    sides, taught_sides = torch.randn(2, 5, 4, 6), torch.randn(2, 5, 4, 6)
    scores = boxes = weights = 0.0
    for n in range(2):
        for a in range(5):
            targets = [1 / (1 + math.exp(-x)) for x in taught[n, a].tolist()]
            for x, t in zip(logits[n, a].tolist(), targets):
                p = 1 / (1 + math.exp(-x))
                scores -= (t - p) ** 2 * (t * math.log(p) + (1 - t) * math.log(1 - p))
            weights += max(targets)
            for side in range(4):
                p, q = ((d[n, a, side].double() / TEMPERATURE).softmax(0)
                        for d in (taught_sides, sides))
                boxes += max(targets) * TEMPERATURE ** 2 * float((p * (p / q).log()).sum()) / 4
    found = imitation_loss(logits, sides, (taught, taught_sides), 0.7, TEMPERATURE)
    assert float(found) == pytest.approx((scores + 0.7 * boxes) / weights, rel=1e-5)


def test_is_smallest_at_the_teachers_outputs() -> None:
    torch.manual_seed(0)
    taught = torch.randn(1, 20, 2), torch.randn(1, 20, 4, 8)
    outputs = [torch.zeros_like(t, requires_grad=True) for t in taught]
    optimizer = torch.optim.Adam(outputs, 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        imitation_loss(outputs[0], outputs[1], taught).backward()
        optimizer.step()
    torch.testing.assert_close(outputs[0].sigmoid(), taught[0].sigmoid(), atol=0.1, rtol=0)
    torch.testing.assert_close(outputs[1].softmax(-1), taught[1].softmax(-1), atol=0.02, rtol=0)


def test_a_run_learns_from_its_teacher(recipe_values: dict, trained: Path) -> None:
    values = {**recipe_values, 'imitation': {'teacher': str(trained / 'last.ckpt')}}
    module = DetectionTraining(parse_recipe(values, 'test'))
    assert module.imitation is not None
    [teacher] = module.imitation.students
    before = copy.deepcopy(teacher.state_dict())
    images = torch.rand(2, 1, 128, 160)
    optimizer = torch.optim.Adam(module.parameters(), 0.002)
    losses = []
    for _ in range(12):
        loss = module.imitation.loss(module.imitation.outputs(images), *module.student(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not teacher.training
    assert not any('imitation' in name for name in module.state_dict())
    taught = module.card.training['imitation']
    assert taught['sha256'] == file_sha256(trained / 'last.ckpt')
    assert taught['data'] == ['annotations.json', '4 synthetic scenes per epoch']


def test_an_exported_teacher_teaches_the_same(
    trained: Path, onnx_model: Path, tmp_path: Path,
) -> None:
    images = torch.rand(1, 1, 128, 160)
    expected = load_trained(trained / 'last.ckpt')[0](images)
    student, card = load_trained(onnx_model)
    assert not student.training and card.classes == ('person', 'bicycle', 'car')
    for mine, other in zip(student(images), expected):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-3)
    without = shutil.copy(onnx_model, tmp_path / 'a.onnx')
    card = json.loads(onnx_model.with_suffix('.json').read_text())
    (tmp_path / 'a.json').write_text(json.dumps(card | {'training': {}}))
    with pytest.raises(UserError, match='has no recipe; name the checkpoint'):
        load_trained(without)


@pytest.mark.parametrize(('change', 'message'), [
    ({'classes': ['person', 'car']}, 'has classes'),
    ({'normalization': {'kind': 'percentile'}}, 'has normalization'),
    ({'bins': 12}, 'has model.bins 8, the recipe 12')])
def test_an_unfit_teacher_is_named(
    recipe_values: dict, trained: Path, change: dict, message: str,
) -> None:
    values = {**recipe_values, 'imitation': {'teacher': str(trained / 'last.ckpt')}, **change}
    if 'bins' in change:
        values['model'] = {**recipe_values['model'], 'bins': values.pop('bins')}
    with pytest.raises(UserError, match=message):
        DetectionTraining(parse_recipe(values, 'test'))


def test_an_rgb_teacher_is_refused(recipe_values: dict, rgb_teacher: Path) -> None:
    values = {**recipe_values, 'imitation': {'teacher': str(rgb_teacher)}}
    with pytest.raises(UserError, match='has model.in_channels 3, the recipe 1'):
        DetectionTraining(parse_recipe(values, 'test'))


def test_the_shipped_model_teaches_itself_a_new_camera() -> None:
    recipe = load_recipe(ROOT / 'config/train/new_camera.yaml')
    imitation = Imitation(recipe.imitation, recipe)
    [origin], [student] = imitation.origins, imitation.students
    assert origin['sha256'] == file_sha256(ROOT / 'models/thermal.onnx')
    assert not any(p.requires_grad for p in student.parameters())


def test_mirrored_outputs_are_those_of_the_mirrored_image(trained: Path) -> None:
    torch.manual_seed(0)
    student, images = load_trained(trained / 'last.ckpt')[0], torch.rand(1, 1, 128, 160)
    logits, distributions = student(images)
    # The same outputs of another place: each cell's in the cell on the other side of its row.
    mirrored = mirror((logits, distributions), (128, 160))
    again = mirror(mirrored, (128, 160))
    assert torch.equal(again[0], logits) and torch.equal(again[1], distributions)
    first = 0
    for stride in (8, 16, 32):
        height, width = 128 // stride, 160 // stride
        cells = torch.arange(first, first + height * width).view(height, width)
        for row, column in ((0, 0), (height - 1, 1)):
            here, there = cells[row, column], cells[row, width - 1 - column]
            assert torch.equal(mirrored[0][0, here], logits[0, there])
            left, top, right, bottom = mirrored[1][0, here]
            for side, other in ((left, 2), (top, 1), (right, 0), (bottom, 3)):
                assert torch.equal(side, distributions[0, there, other])
        first += height * width


def test_several_teachers_teach_their_mean(recipe_values: dict, trained: Path) -> None:
    files = [str(trained / 'last.ckpt'), str(trained / 'best.ckpt')]
    values = {**recipe_values, 'imitation': {'teacher': files, 'mirrored': True}}
    module = DetectionTraining(parse_recipe(values, 'test'))
    assert module.imitation is not None
    with torch.no_grad():  # otherwise they may be the same
        module.imitation.students[1].head.cls_out.bias += 0.7
    images = torch.rand(2, 1, 128, 160)
    scores, distances = [], []
    for student in module.imitation.students:
        for logits, distributions in (
                student(images), mirror(student(images.flip(3)), (128, 160))):
            scores.append(logits.sigmoid())
            distances.append(distributions.softmax(-1))
    taught = module.imitation.outputs(images)
    torch.testing.assert_close(taught[0].sigmoid(), sum(scores) / 4, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(taught[1].softmax(-1), sum(distances) / 4, atol=1e-5, rtol=1e-4)
    origins = module.card.training['imitation']
    assert [o['sha256'] for o in origins] == [file_sha256(Path(f)) for f in files]


def test_cards_tell_of_each_run_before_but_do_not_double() -> None:
    """The weights of each run began with those before, which also taught it."""
    training: dict[str, Any] = {'recipe': {'name': 'run 0', 'words': 'x' * 1000}, 'license': 'MIT',
                                'data': ['a.json'], 'commit': 'abc', 'init': None}
    for number in range(1, 9):
        taught = {'sha256': 'b', **training}  # as cards had it once
        training = training | {'recipe': training['recipe'] | {'name': f'run {number}'},
                               'init': origin(training), 'imitation': [taught, taught]}
    training = origin(training)
    assert len(json.dumps(training)) < 15_000
    record: Any = training
    for number in range(8, 0, -1):
        assert record['recipe']['name'] == f'run {number}'
        assert record['imitation'][0] == {
            'sha256': 'b', 'name': f'run {number - 1}', 'data': ['a.json'], 'license': 'MIT',
            'commit': 'abc'}
        record = record['init']
    assert record['init'] is None


def test_coupled_students_take_one_teacher(recipe_values: dict) -> None:
    values = {**recipe_values, 'coupled': {}, 'cmg': {'teacher': {'path': 'rgb.ckpt'}}}
    for imitation in ({'teacher': ['a', 'b']}, {'teacher': 'a', 'mirrored': True}):
        with pytest.raises(UserError, match='coupled takes its thermal features from one teacher'):
            parse_recipe({**values, 'imitation': imitation}, 'test')


def test_no_teacher_at_all_is_refused(recipe_values: dict) -> None:
    with pytest.raises(UserError, match='teacher must name a file, or several'):
        parse_recipe({**recipe_values, 'imitation': {'teacher': []}}, 'test')
