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

"""The class scores of one cell an object, which need no suppression."""

from pathlib import Path
from typing import Any

from cgdet_core.deployment.average import average
from cgdet_core.deployment.export import export
from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.loss import detection_loss
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.starting import load_trained
from cgdet_core.detection.student import DeployedStudent, load_student, Student
from cgdet_core.detection.training import DetectionTraining
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.tasks import parse_recipe, train
import numpy as np
import pytest
import torch

SIZES: dict[str, Any] = {
    'channels': (8, 8, 16, 16), 'depths': (1, 1, 1, 1), 'neck_channels': 16, 'head_channels': 16,
    'bins': 8}
PLAIN, DUAL = StudentConfig(**SIZES), StudentConfig(**SIZES, one_to_one=True)


def test_the_second_tower_changes_nothing_else() -> None:
    torch.manual_seed(0)
    plain = Student(3, PLAIN)
    torch.manual_seed(0)
    dual = Student(3, DUAL)
    images = torch.rand(2, 1, 64, 96)
    outputs, one = dual.head.both(dual.pyramid(images))
    for ours, theirs in zip(outputs, plain(images)):
        assert torch.equal(ours, theirs)
    one.sum().backward()
    learning = {name for name, p in dual.named_parameters() if p.grad is not None}
    assert learning and all(name.startswith('head.one_') for name in learning)


def test_the_deployed_form_has_the_scores_of_the_second_tower_at_no_cost() -> None:
    dual, images = Student(3, DUAL).eval(), torch.rand(1, 1, 64, 96)
    torch.nn.init.normal_(dual.head.one_out.weight)
    deployed = DeployedStudent(dual, (96, 64), top_k=20)
    _, scores = deployed(images)
    with torch.no_grad():
        _, one = dual.head.both(dual.pyramid(images))
    best = one.amax(2).sigmoid().sort(descending=True).values[:, :20]
    torch.testing.assert_close(scores.amax(2), best)
    assert [*deployed.state_dict()] == [
        *DeployedStudent(Student(3, PLAIN), (96, 64), top_k=20).state_dict()]


def test_one_box_of_each_object_is_left_without_suppression() -> None:
    torch.manual_seed(0)
    student = Student(2, DUAL)
    image = torch.rand(1, 1, 64, 96) * 0.1
    boxes = torch.tensor([[10.0, 8, 40, 50], [60, 20, 85, 60]])
    for box in boxes.int().tolist():
        image[0, 0, box[1]:box[3], box[0]:box[2]] += 0.8
    targets = [{'boxes': boxes, 'labels': torch.tensor([0, 1])}]
    optimizer = torch.optim.AdamW(student.parameters(), 0.01)
    for _ in range(150):
        outputs, one = student.head.both(student.pyramid(image))
        loss = (detection_loss(*outputs, targets, (64, 96))['det']
                + detection_loss(one, outputs[1].detach(), targets, (64, 96), top_k=1)['cls'])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, one = student.head.both(student.pyramid(image))
    best = one[0].sigmoid().sort(0, descending=True).values
    assert (best[0] > 0.9).all() and (best[1:] < 0.2).all()


@pytest.fixture(scope='module')
def recipe(recipe_values: dict, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that builds the recipe of a tiny student with both towers, or one."""
    folder = tmp_path_factory.mktemp('one')

    def build(init: Path | None = None, one_to_one: bool = True, **more: Any) -> DetectionRecipe:
        values = {
            **recipe_values, 'name': 'dual', **more,
            'model': {**recipe_values['model'], 'one_to_one': one_to_one},
            'optim': {**recipe_values['optim'], 'init': init and str(init)},
            'run': {**recipe_values['run'], 'output': str(folder)}}
        made = parse_recipe(values, 'test')
        assert isinstance(made, DetectionRecipe)
        return made.resolved()
    return build


@pytest.fixture(scope='module')
def dual(recipe: Any) -> Path:
    """Return the checkpoint of a run with both towers."""
    made = recipe()
    train(made, progress=False)
    return Path(made.folder / 'last.ckpt')


@pytest.fixture(scope='module')
def exported(dual: Path) -> Path:
    export(dual, output := dual.parent / 'dual.onnx')
    return output


def test_a_run_and_its_export(dual: Path, exported: Path, recipe: Any) -> None:
    assert 'train/one' in (dual.parent / 'results.csv').read_text().splitlines()[0]
    student, card = load_student(dual)
    assert card.iou_threshold == 1.0 and card.voting_iou is None and student.head.dual
    images = torch.rand(1, 1, 128, 160)
    found = Detector.load(exported).session.run({'images': images.numpy()})
    boxes, scores = DeployedStudent(student, card.input_size)(images)
    np.testing.assert_allclose(found['scores'], scores, atol=1e-4)
    for ours, theirs in zip(found['boxes'][0].T, boxes[0].numpy().T):  # scores may be equal
        np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-2)
    # An exported file holds the second tower only, which would teach the first one.
    with pytest.raises(UserError, match='dual.onnx has only the scores of one cell of each'):
        load_trained(exported)
    begun = started(recipe(exported))
    logits, one = begun.head.both(begun.pyramid(images))
    torch.testing.assert_close(logits[0], one)
    torch.testing.assert_close(one, student.head.both(student.pyramid(images))[1], atol=1e-4,
                               rtol=1e-4)


def started(made: DetectionRecipe) -> Student:
    """Return the student of a run that begins, in evaluation."""
    training = DetectionTraining(made)
    training.load_start()
    return training.student.eval()


@pytest.mark.parametrize('file', ['checkpoint', 'onnx'])
def test_the_second_tower_begins_as_the_first(
    file: str, trained: Path, onnx_model: Path, recipe: Any,
) -> None:
    student = started(recipe(trained / 'last.ckpt' if file == 'checkpoint' else onnx_model))
    expected, _ = load_student(trained / 'last.ckpt')
    images = torch.rand(4, 1, 128, 160)
    with torch.no_grad():
        wanted = expected(images)[0]
        for logits in (student(images)[0], student.head.both(student.pyramid(images))[1]):
            torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
        student.train()  # its normalization layers are restored like the others
        (first, _), second = student.head.both(student.pyramid(images))
    torch.testing.assert_close(first, second)


def test_a_student_without_it_begins_as_the_first_tower(dual: Path, recipe: Any) -> None:
    plain, (other, _) = started(recipe(dual, one_to_one=False)), load_student(dual)
    images = torch.rand(2, 1, 128, 160)
    for ours, theirs in zip(plain(images), other(images)):
        torch.testing.assert_close(ours, theirs)
    both = started(recipe(dual))
    torch.testing.assert_close(both.head.both(both.pyramid(images))[1],
                               other.head.both(other.pyramid(images))[1])


def test_files_that_score_in_other_ways_are_not_averaged(
    exported: Path, onnx_model: Path, tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=r'in other ways \(model.one_to_one\)'):
        average(exported, onnx_model, tmp_path / 'mean.onnx')


def test_it_learns_from_labels_only(recipe: Any, scenes: Path) -> None:
    with pytest.raises(UserError, match='model.one_to_one learns from labels only'):
        recipe(unlabeled={'frames': str(scenes), 'sources': ['student'], 'burn_in_epochs': 0})
