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

"""Starting weights of a tracker: the trunk of a detector, or a whole tracker."""

from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.nets.exported import exported_weights, set_exported
from cgdet_core.nets.pyramid import TRUNKS
from cgdet_core.nets.trunk import Trunk
from cgdet_core.runtime.files import model_file, read_json
from cgdet_core.runtime.inference.card import card_path
from cgdet_core.runtime.tracking.filter import FilterSettings
from cgdet_core.tracking.network import ShortTrunk, TrackerNet
from cgdet_core.tracking.recipe import TargetRecipe
from cgdet_core.training.checkpoints import (
    check_normalization,
    KEY,
    origin,
    read_checkpoint,
    student_weights,
)
from torch import nn, Tensor

TRUNK = 'backbone.'  # prefix of the names of its weights


def start(network: nn.Module, backbone: ShortTrunk, recipe: TargetRecipe) -> bool:
    """
    Load the weights of `optim.init` in place: of a tracker all, of a detector the trunk's.

    backbone: the network's thermal trunk. Return whether all weights were loaded. UserError if
    they do not exist, are of another trunk, or of a model that saw frames normalized otherwise.
    """
    assert recipe.optim.init is not None
    if recipe.optim.init == 'imagenet':
        trunk = TRUNKS[recipe.model.trunk](recipe.model)
        trunk.load_pretrained()
        backbone.load_state_dict(ShortTrunk(trunk).state_dict())
        return False
    path = model_file(recipe.optim.init)
    if path.suffix.lower() != '.onnx':
        data = read_checkpoint(path)
        weights = student_weights(data)
        check_normalization(path, data[KEY]['card'], recipe.normalization)
        if data[KEY]['card'].get('task') == recipe.task:
            _load(network, weights, path)
            return True
        _load(backbone, _of_trunk(backbone, weights), path)
        return False
    card = _read_card(path)
    check_normalization(path, card, recipe.normalization)
    if card.get('task') == recipe.task:
        _set_tracker(network, path, card)
        return True
    if not set_exported(backbone, _of_trunk(backbone, exported_weights(path))):
        raise _another_trunk(path)
    return False


def _set_tracker(network: nn.Module, path: Path, card: dict[str, Any]) -> None:
    """Load all weights of an exported tracker; if it has a filter, its optimizer's of the card."""
    weights = exported_weights(path)
    if isinstance(network, TrackerNet):
        if 'head.place' not in weights:
            raise UserError(f'{path} was exported by an older version of cgdet, without all '
                            'weights; export it again.')
        weights |= {name: value for name, value in network.state_dict().items()
                    if name.startswith('optimizer.')}
    if not set_exported(network, weights):
        raise _another_trunk(path)
    if not isinstance(network, TrackerNet):
        return
    try:
        network.optimizer.load(FilterSettings.from_dict(card.get('filter')))
    except ValueError as error:
        raise UserError(f'The card of {path} cannot be used: {error}.') from None


def origin_of(recipe: TargetRecipe) -> dict[str, Any] | None:
    """Return for the card where the starting weights come from."""
    if recipe.optim.init is None:
        return None
    if recipe.optim.init == 'imagenet':
        trunk: Trunk = TRUNKS[recipe.model.trunk](recipe.model)
        return trunk.origin and trunk.origin._asdict()
    path = model_file(recipe.optim.init)
    if path.suffix.lower() != '.onnx':
        training = read_checkpoint(path)[KEY]['card'].get('training')
    else:
        training = _read_card(path).get('training')
    return origin(training) if isinstance(training, dict) else None


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f'The starting weights {path} do not exist.')
    if not card_path(path).is_file():
        raise UserError(f'The starting weights {path} have no card; name a file of "cgdet '
                        'export", or a checkpoint.')
    card = read_json(card_path(path))
    if not isinstance(card, dict) or card.get('precision') != 'fp32':
        raise UserError(f'{path} is not in FP32; name the FP32 file.')
    return card


def _of_trunk(trunk: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a trunk to stride 16 out of those of a whole network."""
    layers = {name for name, _ in trunk.named_modules()}
    return {name.removeprefix(TRUNK): value for name, value in weights.items()
            if name.startswith(TRUNK)
            and name.removeprefix(TRUNK).rpartition('.')[0] in layers}


def _load(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError:
        raise _another_trunk(path) from None


def _another_trunk(path: Path) -> UserError:
    return UserError(f'{path} has other layer sizes than the recipe, or was written by another '
                     'version of cgdet; set model to its model.')
