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

"""A tiny tracker is trained, resumed, exported, and follows in PyTorch as in ONNX Runtime."""

from dataclasses import replace
import json
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.deployment.calibration import CalibrationFrames
from cgdet_core.deployment.export import export
from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import card_path, load_card, ModelCard
from cgdet_core.runtime.tracking.card import TrackingCard
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_core.tasks import load_recipe, train
from cgdet_core.tracking.filter import FilterOptimizer
from cgdet_core.tracking.network import DeployedTracker, load_tracker, TrackerNet
from cgdet_core.tracking.starting import origin_of, start
from cgdet_core.training.checkpoints import read_checkpoint
from cgdet_core.training.folder import read_results
import numpy as np
import onnx
import pytest
import tiny_recipe
import torch

MODEL = {'channels': [8, 8, 16, 16], 'depths': [1, 1, 1, 1], 'neck_channels': 16,
         'feature_channels': 8, 'tower_channels': 16, 'tower_depth': 1}


def write_recipe(folder: Path, pairs: Path) -> Path:
    return tiny_recipe.write_recipe(folder, pairs, 'tracking', MODEL, swap={'share': 0.5})


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory, pairs: Path, program: Any) -> Path:
    folder = tmp_path_factory.mktemp('run')
    done = program('track', 'train', write_recipe(folder, pairs))
    assert done.returncode == 0, done.stderr
    assert 'Next: cgdet export ' in done.stdout
    return folder / 'runs/tiny/best.ckpt'


@pytest.fixture(scope='module')
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelCard]:
    """Return the exported tracker, and the card that was returned."""
    path = tmp_path_factory.mktemp('exported') / 'tiny.onnx'
    return path, export(trained, path)


def test_losses_and_validation_are_logged(trained: Path) -> None:
    rows = read_results(trained.parent, 2)
    assert [row['epoch'] for row in rows] == [1, 2]
    for name in ('init', 'iterations', 'final', 'box', 'giou', 'quality', 'loss'):
        assert np.isfinite(rows[-1][f'train/{name}'])
    assert 0 <= rows[-1]['val/AUC'] <= 1 and 0 <= rows[-1]['val/precision'] <= 1


def test_an_exported_tracker_is_the_trained_one(
    trained: Path, exported: tuple[Path, ModelCard],
) -> None:
    path, written = exported
    assert path.stat().st_size < 1e6
    card = load_card(path, TrackingCard)
    assert card == written and card.input_size == 128 and card.training['recipe']['swap']
    network, held = load_tracker(trained)
    assert card.filter == held.filter != TrackingCard.from_dict(
        read_checkpoint(trained)['cgdet']['card']).filter, 'the filter is the learned one'
    model = TrackingModel.load(path, threads=1, backend='onnxruntime')
    torch.manual_seed(0)
    region, template = torch.rand(1, 1, 128, 128), torch.rand(1, 17, 8, 8)
    expected = DeployedTracker(network)(region, template)
    found = model.see(region[0, 0].numpy(), template[0].numpy())
    for one, two in zip(found, expected):
        assert np.abs(one - two.numpy().reshape(one.shape)).max() < 1e-3
    tracker = Tracker(model)
    frame = np.random.default_rng(0).integers(0, 255, (100, 120)).astype(np.uint8)
    tracker.start(frame, (40, 40, 60, 70), 0.0)
    assert np.isfinite(tracker.follow(frame, 0.1).box).all()


def test_the_trunk_of_a_run_begins_another_and_is_frozen_first(
        trained: Path, tmp_path: Path, pairs: Path) -> None:
    path = write_recipe(tmp_path, pairs)
    changes = [f'optim.init={trained}', 'optim.frozen_norms=true', 'frozen_epochs=1',
               'optim.epochs=1']
    frozen = load_tracker(train(load_recipe(path, changes), progress=False))[0].state_dict()
    before = load_tracker(trained)[0].state_dict()
    for name, value in before.items():
        same = torch.equal(value, frozen[name])
        assert same or not name.startswith('backbone.'), name
    assert not torch.equal(before['fuse.conv.weight'], frozen['fuse.conv.weight'])
    changes[2:] = ['frozen_epochs=0', 'name=free', 'optim.epochs=1']
    free = load_tracker(train(load_recipe(path, changes), progress=False))[0].state_dict()
    moved = [name for name in before if name.startswith('backbone.') and name.endswith(
        'conv.weight') and not torch.equal(before[name], free[name])]
    assert moved


def test_a_set_that_is_named_twice_is_refused(tmp_path: Path, pairs: Path) -> None:
    twice = [str(pairs), f'{pairs.parent}/./{pairs.name}']
    recipe = load_recipe(write_recipe(tmp_path, pairs), [f'data.train={twice}'])
    with pytest.raises(UserError, match='annotations.json is named twice; name each file once'):
        train(recipe, progress=False)


def test_an_exported_tracker_begins_another_whole(
    trained: Path, exported: tuple[Path, ModelCard], tmp_path: Path, pairs: Path,
) -> None:
    for path in (exported[0], card_path(exported[0])):
        shutil.copy(path, tmp_path / f'first{path.suffix}')
    recipe = load_recipe(write_recipe(tmp_path, pairs), [f'optim.init={tmp_path}/first.onnx'])
    network, (before, card) = TrackerNet(recipe.model), load_tracker(trained)
    assert start(network, network.backbone, recipe)
    torch.manual_seed(0)
    region, template = torch.rand(1, 1, 128, 128), torch.rand(1, 17, 8, 8)
    for one, other in zip(DeployedTracker(before)(region, template),
                          DeployedTracker(network)(region, template)):
        assert (one - other).abs().max() < 1e-4
    assert network.optimizer.settings().label == pytest.approx(card.filter.label)
    assert network.optimizer.settings().step == pytest.approx(card.filter.step)
    assert origin_of(recipe)['recipe']['name'] == 'tiny', 'for the card of the next'
    path = card_path(tmp_path / 'first.onnx')
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, 'filter': {**values['filter'], 'spacing': 0.25}}))
    with pytest.raises(UserError, match='first.onnx cannot be used: its filter has functions of'):
        start(network, network.backbone, recipe)
    other = recipe.model.model_copy(update={'tower_channels': 8})
    with pytest.raises(UserError, match='has other layer sizes'):
        start(TrackerNet(other), TrackerNet(other).backbone, recipe)
    model = onnx.load(tmp_path / 'first.onnx')
    kept = [i for i in model.graph.initializer if not i.name.endswith('head.place')]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, tmp_path / 'first.onnx')
    with pytest.raises(UserError, match='exported by an older version of cgdet'):
        start(network, network.backbone, recipe)


def test_a_mask_of_one_is_no_infinite_weight() -> None:
    optimizer = FilterOptimizer()
    settings = replace(optimizer.settings(), mask=(1.0,) * 12 + (0.0,))
    optimizer.load(settings)
    assert all(torch.isfinite(value).all() for value in optimizer.state_dict().values())
    assert optimizer.settings().mask == pytest.approx(settings.mask, abs=1e-5)


def test_a_tracker_is_not_exported_in_int8(trained: Path, tmp_path: Path) -> None:
    frames = CalibrationFrames('frames', [np.zeros((64, 64), np.uint8)])
    with pytest.raises(UserError, match='is a tracking model, .* in fp32 and fp16 only'):
        export(trained, tmp_path / 'tiny.onnx', 'int8', frames)
    assert not [*tmp_path.iterdir()]


def test_weights_of_another_trunk_are_refused(trained: Path, tmp_path: Path,
                                              pairs: Path) -> None:
    path = write_recipe(tmp_path, pairs)
    with pytest.raises(UserError, match='has other layer sizes than the recipe'):
        train(load_recipe(path, [f'optim.init={trained}', 'model.channels=[8,8,8,16]']),
              progress=False)
    with pytest.raises(UserError, match='has other layer sizes than the recipe'):
        train(load_recipe(path, ['optim.init=thermal']), progress=False)
    with pytest.raises(UserError, match='nothing.onnx do not exist'):
        train(load_recipe(path, ['optim.init=nothing.onnx']), progress=False)
