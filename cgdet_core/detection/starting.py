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

"""Starting weights of a student: of a run, of an exported model, or trained by others."""

import logging
from pathlib import Path
from typing import Any

from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.student import load_student, Student
from cgdet_core.errors import UserError
from cgdet_core.nets.exported import exported_weights, set_exported
from cgdet_core.nets.nanodet import load_nanodet
from cgdet_core.nets.nanodet import ORIGIN as NANODET
from cgdet_core.nets.trunk import Trunk
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.files import model_file
from cgdet_core.runtime.inference.card import card_path, load_card
from cgdet_core.training.checkpoints import check_normalization, origin
from cgdet_core.training.recipe import check_values
from torch import nn, Tensor
import yaml

OUTPUTS = ('head.cls_out.', 'head.one_out.')  # of the classes
_log = logging.getLogger(__name__)


def start(student: Student, recipe: DetectionRecipe) -> list[nn.Module]:
    """
    Load the weights of `optim.init` in place; return the parts whose normalization was folded.

    UserError if they do not exist, do not fit the recipe's model, or are of a model that saw
    frames normalized otherwise. Classes are found by name; a new class has random weights.
    """
    assert recipe.optim.init is not None
    if recipe.optim.init == 'imagenet':
        student.backbone.load_pretrained()
        return []
    path = model_file(recipe.optim.init)
    if path.suffix.lower() != '.onnx':
        other, card = load_student(path)
        check_normalization(path, card.to_dict(), recipe.normalization)
        weights = other.state_dict()
        _take_classes(student, weights, card, recipe)
        try:
            student.load_state_dict(weights)
        except RuntimeError:
            raise _other_sizes(path, card) from None
        return []
    if not card_path(path).is_file():
        load_nanodet(student, path)
        return [student.backbone, student.neck]
    card = load_card(path, DetectionCard)
    check_normalization(path, card.to_dict(), recipe.normalization)
    weights = _exported(path, card)
    try:
        _take_classes(student, weights, card, recipe)
    except KeyError:
        raise _other_sizes(path, card) from None
    if not set_exported(student, weights):
        raise _other_sizes(path, card)
    return [student]


def origin_of(recipe: DetectionRecipe, trunk: Trunk) -> dict[str, Any] | None:
    """Return for the card where the starting weights come from."""
    if recipe.optim.init is None:
        return None
    if recipe.optim.init == 'imagenet':
        return trunk.origin and trunk.origin._asdict()
    path = model_file(recipe.optim.init)
    if path.suffix.lower() != '.onnx':
        return origin(load_student(path)[1].training)
    return origin(load_card(path, DetectionCard).training) if card_path(path).is_file() else (
        NANODET._asdict())


def _take_classes(student: Student, weights: dict[str, Tensor], card: DetectionCard,
                  recipe: DetectionRecipe) -> None:
    """Replace the weights of the class output by those of the recipe's classes, found by name."""
    kept, new, unused = ([c for c in one if (c in other) == common] for one, other, common in (
        (recipe.classes, card.classes, True), (recipe.classes, card.classes, False),
        (card.classes, recipe.classes, False)))
    parts = [f'{what} {", ".join(names)}' for what, names in (
        ('the class output keeps', kept), ('learns from the start', new),
        ('leaves out', unused)) if names]
    _log.info('Starting from the weights of %s: %s; other layers are kept.', card.name,
              ', '.join(parts))
    _fit_head(student, weights)
    for name in [name for name in weights if name.startswith(OUTPUTS)]:
        own = student.state_dict()[name].clone()
        for row, label in enumerate(recipe.classes):
            if label in card.classes and own[row].shape == weights[name].shape[1:]:
                own[row] = weights[name][card.classes.index(label)]
        weights[name] = own


def _fit_head(student: Student, weights: dict[str, Tensor]) -> None:
    """Leave out the second class tower, or begin it as the first, as the student needs."""
    first, second = 'head.cls_', 'head.one_'
    both = student.head.dual and not any(name.startswith(second) for name in weights)
    for name in list(weights):
        if name.startswith(second) and not student.head.dual:
            del weights[name]
        elif name.startswith(first) and both:
            weights[second + name.removeprefix(first)] = weights[name].clone()


def load_trained(path: Path) -> tuple[Student, DetectionCard]:
    """Return the student of a checkpoint or of an exported FP32 model, and its card."""
    if path.suffix.lower() != '.onnx':
        return load_student(path)
    card = load_card(path, DetectionCard)
    recipe = card.training.get('recipe')
    if not isinstance(recipe, dict):
        raise UserError(f'The card of {path} has no recipe; name the checkpoint instead.')
    model = check_values(StudentConfig, recipe.get('model', {}), f'The card of {path}, model')
    if model.one_to_one:
        raise UserError(f'{path} has only the scores of one cell of each object (model.one_to_one)'
                        '; name the checkpoint instead.')
    student = Student(len(card.classes), model)
    if not set_exported(student, _exported(path, card)):
        raise _other_sizes(path, card)
    return student.eval(), card


def _exported(path: Path, card: DetectionCard) -> dict[str, Tensor]:
    """Return the weights of an FP32 file of "cgdet export", by their names in the network."""
    if card.precision != 'fp32':
        raise UserError(f'{path} is in {card.precision}; name the FP32 file.')
    return exported_weights(path)


def _other_sizes(path: Path, card: DetectionCard) -> UserError:
    """Return the error of weights that do not fit, with the model that they fit."""
    wanted = ''
    if card.trained_model is not None:
        text = yaml.safe_dump(card.trained_model, default_flow_style=True, width=10_000).strip()
        wanted = f"; its model is 'model={text}'"
    return UserError(f'{path} has other layer sizes than the recipe, or was written by another '
                     f'version of cgdet{wanted}.')
