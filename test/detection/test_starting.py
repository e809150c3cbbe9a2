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

"""Starting weights: of a checkpoint or an exported model, also with other classes."""

from dataclasses import replace
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.deployment.export import export
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.starting import origin_of, start
from cgdet_core.detection.student import DeployedStudent, load_student, Student
from cgdet_core.errors import UserError
from cgdet_core.nets.blocks import restore_norms
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.files import model_file
from cgdet_core.runtime.inference.card import load_card, save_card
from cgdet_core.runtime.inference.onnxruntime import OnnxRuntimeSession
from cgdet_core.tasks import load_recipe, parse_recipe
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(recipe_values: dict) -> Any:
    """Return a function that builds the recipe of the tiny student with other starting weights."""
    def build(init: object, **values: Any) -> Any:
        optim = {**recipe_values['optim'], 'init': str(init)}
        recipe = parse_recipe({**recipe_values, **values, 'optim': optim}, 'test')
        assert isinstance(recipe, DetectionRecipe)
        return recipe.resolved()
    return build


def started(recipe: Any) -> Student:
    torch.manual_seed(5)
    student = Student(len(recipe.classes), recipe.model)
    start(student, recipe)
    return student.eval()


@torch.no_grad()
def test_a_student_starts_as_the_run_or_its_exported_file(
    trained: Path, onnx_model: Path, recipe: Any,
) -> None:
    expected, _ = load_student(trained / 'last.ckpt')
    images = torch.rand(2, 1, 128, 160)
    for path in (trained / 'last.ckpt', onnx_model):
        student = started(recipe(path))
        for one, two in zip(expected(images), student(images)):
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
        assert origin_of(recipe(path), student.backbone)['recipe']['name'] == 'tiny'
    restore_norms([student], student, images)
    for one, two in zip(expected(images), student.eval()(images)):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    # Nothing of the file's folded layers is left: in training they normalize.
    assert all(float(n.running_var.mean()) != pytest.approx(1 - n.eps, abs=1e-6)
               for n in student.modules() if isinstance(n, torch.nn.BatchNorm2d))


@pytest.mark.parametrize('file', ['checkpoint', 'onnx'])
@pytest.mark.parametrize('classes', [['dog', 'car', 'person'], ['person', 'dog'], ['dog']])
def test_classes_are_found_by_name(
    trained: Path, onnx_model: Path, recipe: Any, caplog: pytest.LogCaptureFixture, file: str,
    classes: list[str],
) -> None:
    caplog.set_level('INFO')
    path = onnx_model if file == 'onnx' else trained / 'last.ckpt'
    expected, card = load_student(trained / 'last.ckpt')
    student = started(recipe(path, classes=classes))
    found = student.head.cls_out
    torch.manual_seed(5)
    fresh = Student(len(classes), expected.config).head.cls_out
    for row, label in enumerate(classes):
        other, place = ((expected.head.cls_out, card.classes.index(label)) if label != 'dog'
                        else (fresh, row))
        torch.testing.assert_close(found.weight[row], other.weight[place])
        torch.testing.assert_close(found.bias[row], other.bias[place])
    # All other layers are those of the weights.
    image = torch.rand(1, 1, 128, 160)
    for one, two in zip(expected.pyramid(image), student.pyramid(image)):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    kept = [c for c in classes if c != 'dog']
    words = f'the class output keeps {", ".join(kept)}, ' if kept else ''
    assert f'the weights of tiny: {words}learns from the start dog, leaves out ' in caplog.text


def test_what_does_not_fit_is_refused(
    trained: Path, onnx_model: Path, recipe: Any, recipe_values: dict, tmp_path: Path,
) -> None:
    half = tmp_path / 'half.onnx'
    export(onnx_model, half, 'fp16')
    with pytest.raises(UserError, match='is in fp16; name the FP32 file'):
        started(recipe(half))
    wide = {**recipe_values['model'], 'neck_channels': 32}
    for path in (trained / 'last.ckpt', onnx_model):
        with pytest.raises(UserError, match=(
                "has other layer sizes than the recipe, .*; its model is 'model={.*"
                'neck_channels: 16')):
            started(recipe(path, model=wide))
        with pytest.raises(UserError, match="normalized by .*'plateau'.* set normalization"):
            started(recipe(path, normalization={'kind': 'window'}))
    with pytest.raises(UserError, match='does not exist'):
        started(recipe(tmp_path / 'nothing.ckpt'))


@torch.no_grad()
def test_the_shipped_model_is_fine_tuned_from_its_own_outputs() -> None:
    recipe = load_recipe(ROOT / 'config' / 'train' / 'fine_tune.yaml',
                         ['classes=[person, bicycle, car]'])
    path = model_file(recipe.optim.init)
    assert path.samefile(ROOT / 'models' / 'thermal_small.onnx')
    card = load_card(path, DetectionCard)
    image = torch.rand(1, 1, 512, 640)
    boxes, scores = DeployedStudent(started(recipe), card.input_size)(image)
    with_onnx = OnnxRuntimeSession(path, card).run({'images': image.numpy()})
    np.testing.assert_allclose(with_onnx['scores'], scores.numpy(), atol=1e-4)
    sure = with_onnx['scores'][0].max(1) > with_onnx['scores'][0].max(1).min() + 1e-3
    np.testing.assert_allclose(with_onnx['boxes'][0, sure], boxes[0, sure].numpy(), atol=0.05)


def test_a_file_whose_card_is_of_another_model_is_refused(
    onnx_model: Path, recipe: Any, tmp_path: Path,
) -> None:
    path = tmp_path / 'other.onnx'
    shutil.copy(onnx_model, path)
    save_card(replace(load_card(onnx_model, DetectionCard), onnx_sha256='0' * 64), path)
    with pytest.raises(UserError, match='other.onnx'):
        started(recipe(path))
