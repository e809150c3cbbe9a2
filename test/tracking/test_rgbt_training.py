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

"""A tiny RGB-T tracker is trained, exported, and follows with and without RGB."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

from cgdet_core.deployment.export import export
from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.region import Region
from cgdet_core.runtime.tracking.rgbt import appearance, RgbtCard, RgbtModel
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_core.tasks import load_recipe, train
from cgdet_core.tracking.rgbt.network import DeployedRgbt, load_rgbt
from cgdet_core.tracking.rgbt.training import find, RgbtTraining, shown_in
from cgdet_core.training.checkpoints import read_checkpoint
from cgdet_core.training.folder import read_results
from drawn import boxes as drawn_boxes
from drawn import frames as drawn_frames
from drawn import write_frames, write_sequence
import numpy as np
import onnx
import pytest
import tiny_recipe
import torch
from two_cameras import PERIOD, RGB, START, write_two_cameras
import yaml

MODEL = {'channels': [8, 8, 16, 16], 'depths': [1, 1, 1, 1], 'width': 16, 'blocks': 2, 'heads': 2,
         'head_channels': 8, 'eliminate': [0, 1]}


def write_recipe(folder: Path, pairs: Path) -> Path:
    return tiny_recipe.write_recipe(folder, pairs, 'rgbt_tracking', MODEL,
                                    loss={'elimination_after': 1})


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    return train(load_recipe(write_recipe(tmp_path_factory.mktemp('run'), pairs)), progress=False)


@pytest.fixture(scope='module')
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('exported') / 'tiny.onnx'
    export(trained, path)
    return path


@pytest.fixture(scope='module')
def model(exported: Path) -> RgbtModel:
    found = TrackingModel.load(exported, threads=1, backend='onnxruntime')
    assert isinstance(found, RgbtModel)
    return found


def test_losses_and_validation_are_logged(trained: Path) -> None:
    rows = read_results(trained.parent, 2)
    for name in ('track', 'style', 'content', 'teachers', 'giou', 'l1', 'focal', 'loss'):
        assert np.isfinite(rows[-1][f'train/{name}']) and rows[-1][f'train/{name}'] > 0
    for name in ('AUC', 'AUC_thermal', 'precision', 'precision_thermal'):
        assert 0 <= rows[-1][f'val/{name}'] <= 1


def test_teachers_are_not_exported(trained: Path, exported: Path) -> None:
    names = read_checkpoint(trained)['state_dict']
    assert any(name.startswith('teachers.rgb.') for name in names)
    network, _ = load_rgbt(trained)
    card = load_card(exported, RgbtCard)
    assert card.parameters < sum(p.numel() for p in network.parameters()) * 1.05
    assert exported.stat().st_size < 1e6


@pytest.mark.parametrize('with_rgb', [True, False])
def test_onnx_runtime_finds_what_pytorch_finds(trained: Path, model: RgbtModel,
                                               with_rgb: bool) -> None:
    network, _ = load_rgbt(trained)
    torch.manual_seed(0)
    search, template = torch.rand(1, 1, 128, 128), torch.randn(1, 16, 8, 8)
    rgb = torch.rand(1, 3, 128, 128) * with_rgb
    values = [search, rgb, template, torch.randn(1, 16, 8, 8), torch.rand(1, 1, 8, 8)]
    expected = DeployedRgbt(network)(*values)
    found = model.session.run(dict(zip(model.card.inputs, (v.numpy() for v in values))))
    for name, value in zip(model.card.outputs, expected):
        assert np.abs(found[name] - value.numpy()).max() < 1e-4, name


def frames(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 255, (100, 120)).astype(np.uint8),
            rng.integers(0, 255, (100, 120, 3)).astype(np.uint8))


def test_rgb_is_used_if_it_shows_the_same_pixels(model: RgbtModel) -> None:
    thermal, rgb = frames()
    assert model.normalized(thermal, rgb).rgb is rgb
    for useless in (None, rgb[:50], np.zeros_like(rgb), rgb[..., 0], rgb.astype(np.float32)):
        assert model.normalized(thermal, useless).rgb is None


def test_a_target_is_followed_with_rgb_and_in_thermal_alone(model: RgbtModel) -> None:
    thermal, rgb = frames()
    box = np.array((40, 40, 60, 70), np.float64)
    unsure = dict.fromkeys(model.card.calibration, 0.0) | {'offset': -20.0}  # nothing is learned
    model = RgbtModel(replace(model.card, calibration=unsure), model.session)
    looks = {}
    for name, (at_start, later) in {'both': (rgb, rgb), 'neither': (None, None),
                                    'start': (rgb, None), 'later': (None, rgb),
                                    'black': (rgb, 0 * rgb)}.items():
        tracker = Tracker(model)
        tracker.start(thermal, box, 0.0, rgb=at_start)
        assert np.isfinite(tracker.follow(thermal, 0.1, rgb=later).box).all()
        looks[name] = tracker.look(model.normalized(thermal, later), box).seen.scores
    assert np.abs(looks['both'] - looks['neither']).max() > 1e-7
    for name in ('start', 'later', 'black'):
        assert np.abs(looks[name] - looks['neither']).max() < 1e-6, name


def test_a_source_is_followed_with_its_rgb_images(
    exported: Path, tmp_path: Path, run_cgdet: Callable[..., Any],
) -> None:
    folder = write_sequence(tmp_path / 'walk', 4)
    names = write_frames(folder / 'rgb', 4)
    boxes = '{:g},{:g},{:g},{:g}'.format(*drawn_boxes(1)[0])
    ask = 'track', 'run', exported, folder / 'thermal', '--box', boxes
    one = run_cgdet(*ask, '--rgb', folder / 'rgb', '--output', tmp_path / 'one')
    two = run_cgdet(*ask, '--output', tmp_path / 'two')
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    tables = [(tmp_path / name / 'track.csv').read_text() for name in ('one', 'two')]
    assert tables[0] != tables[1] and [len(t.splitlines()) for t in tables] == [5, 5]
    for name in names[1:]:
        (folder / 'rgb' / name).unlink()
    (folder / 'rgb' / names[0]).rename(folder / 'rgb' / 'other.png')
    bad = run_cgdet(*ask, '--rgb', folder / 'rgb', '--output', tmp_path / 'bad')
    assert bad.returncode == 1 and '1 image for 4 frames, and none has the name' in bad.stderr
    report = run_cgdet('track', 'evaluate', exported, folder)
    assert report.returncode == 0 and (
        'none has the name of a frame; there must be one for each frame, or of its name. The '
        'target is followed in thermal alone.' in report.stderr), 'RGB is not left out silently'
    (folder / 'rgb' / 'other.png').rename(folder / 'rgb' / names[0])
    again = run_cgdet(*ask, '--rgb', folder / 'rgb', '--output', tmp_path / 'again')
    assert again.returncode == 0, again.stderr


def test_a_bag_is_followed_with_its_rgb_topic(
    exported: Path, tmp_path: Path, run_cgdet: Callable[..., Any],
) -> None:
    thermal = {START + n * PERIOD: frame for n, frame in enumerate(drawn_frames(5))}
    rgb = {stamp + PERIOD // 10: np.stack([frame] * 3, 2) for stamp, frame in thermal.items()}
    late, dark = list(rgb)[2:4]
    rgb[late + PERIOD // 2] = rgb.pop(late)  # 60 ms
    rgb[dark] = 0 * rgb[dark]
    rgb[list(rgb)[0]] = rgb[list(rgb)[0]][:50]
    write_two_cameras(tmp_path / 'drive', thermal, rgb)
    ask = ('bag', 'track', tmp_path / 'drive', '--model', exported,
           '--box', '{:g},{:g},{:g},{:g}'.format(*drawn_boxes(1)[0]))
    done = run_cgdet(*ask, '--rgb-topic', RGB, '--output', tmp_path / 'out.json')
    assert done.returncode == 0, done.stderr
    words = ' '.join(done.stdout.split())
    assert 'RGB in 2 images' in words
    for why in ('none in 1, as /rgb/image_raw has none within 50 ms', 'are black',
                'have 128x50 pixels, the thermal ones 128x96'):
        assert why in words
    report = json.loads((tmp_path / 'out.json').read_text())
    assert (report['rgb_topic'], report['with_rgb'], len(report['frames'])) == (RGB, 2, 5)
    wide = run_cgdet(*ask, '--rgb-topic', RGB, '--max-gap-ms', 70)
    assert 'RGB in 3 images' in wide.stdout, wide.stderr
    for options, why in ((('--rgb-topic', '/none'), 'has no images on /none'),
                         (('--rgb-topic', RGB, '--topic', RGB), 'cannot be both'),
                         ((), 'several image topics')):
        bad = run_cgdet(*ask, *options)
        assert bad.returncode == 1 and why in bad.stderr, bad.stderr


def test_the_first_certain_frame_with_rgb_gives_its_template(model: RgbtModel) -> None:
    thermal, rgb = frames()
    box = np.array((40, 40, 60, 70), np.float64)
    both = model.sight(model.normalized(thermal, rgb), box)
    sight = model.sight(model.normalized(thermal), box)
    region = Region.around(box, model.card.factor, 128)
    with_rgb = model.normalized(thermal, rgb)
    found, seen = sight.look(with_rgb, region, 0.2)
    before = both.look(with_rgb, region, 0.2)[1].scores
    assert np.abs(seen.scores - before).max() > 1e-7
    placed = type(found)(region.to_input(box), 1.0, 1.0, 1.0)  # it did not move
    sight.learn(placed, seen, True, True)  # something else looks like it
    assert np.abs(sight.look(with_rgb, region, 0.2)[1].scores - before).max() > 1e-7
    sight.learn(placed, seen, False, True)
    assert np.abs(sight.look(with_rgb, region, 0.2)[1].scores - before).max() < 1e-5


def test_likeness_is_that_of_the_target() -> None:
    features = np.zeros((2, 8, 8), np.float32)
    features[0, 2:4, 2:4] = 1
    features[1, 5:7, 5:7] = 1
    one, other = (appearance(features, np.array(box, np.float64) * 16)
                  for box in ((2, 2, 4, 4), (5, 5, 7, 7)))
    assert one @ one == pytest.approx(1) and one @ other < 0
    assert not appearance(features, np.array((-50, -50, -10, -10), np.float64)).any()


def test_rgb_that_a_frame_lacks_is_zero_and_dropout_hides_it(tmp_path: Path, pairs: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path, pairs), ['loss.dropout=1', 'data.objects=24'])
    module = RgbtTraining(recipe)
    dataset = module.train_dataloader().dataset
    samples = [dataset[0, n, 0] for n in range(24)]
    crops = torch.stack([s['crops'] for s in samples])
    assert crops.shape == (24, 2, 4, 128, 128)
    shown = shown_in(crops)
    assert 0 < shown.sum() < 24
    assert not crops[shown == 0][:, :, 1:].any() and crops[:, :, 0].any()
    assert len(module.objects.swapped) and all(
        module.objects.frames[n].paired for n in module.objects.swapped[:, 0])


def test_ablations_are_overrides(tmp_path: Path, pairs: Path) -> None:
    path = write_recipe(tmp_path, pairs)
    module = RgbtTraining(load_recipe(path, [
        'loss.style=0', 'loss.content=0', 'loss.teachers=0', 'loss.dropout=1',
        'loss.mask_ratio=0', 'model.eliminate=[]']))
    assert not len(module.teachers) and not module.student.encoder.eliminate
    with pytest.raises(UserError, match='content needs teachers'):
        load_recipe(path, ['loss.teachers=0'])
    with pytest.raises(UserError, match='eliminate must name blocks from 0 to 1'):
        load_recipe(path, ['model.eliminate=[2]'])
    with pytest.raises(UserError, match='width must be a multiple of heads'):
        load_recipe(path, ['model.heads=3'])
    with pytest.raises(UserError, match='one template'):
        load_recipe(path, ['crops.templates=2'])


def test_data_without_rgb(tmp_path: Path, pairs: Path) -> None:
    values = json.loads(pairs.read_text())
    for image in values['images']:
        image.pop('rgb_file_name', None)
        image['file_name'] = str(pairs.parent / image['file_name'])
    bare = tmp_path / 'bare.json'
    bare.write_text(json.dumps(values))
    path = write_recipe(tmp_path, pairs)
    with pytest.raises(UserError, match='data.train has no boxes in frames with an RGB image'):
        RgbtTraining(load_recipe(path, [f'data.train=[{bare}]']))
    with pytest.raises(UserError, match='data.val has no boxes in frames with an RGB image'):
        RgbtTraining(load_recipe(path, [f'data.val=[{bare}]']))


def test_a_tracker_begins_another(trained: Path, tmp_path: Path, pairs: Path) -> None:
    path = write_recipe(tmp_path, pairs)
    module = RgbtTraining(load_recipe(path, [f'optim.init={trained}']))
    module.load_start()
    before = load_rgbt(trained)[0].state_dict()
    assert all(torch.equal(value, before[name])
               for name, value in module.student.state_dict().items())
    with pytest.raises(UserError, match='has other layer sizes than the recipe'):
        RgbtTraining(load_recipe(path, ['optim.init=thermal'])).load_start()


def test_an_exported_tracker_begins_another(
    trained: Path, exported: Path, tmp_path: Path, pairs: Path,
) -> None:
    path = write_recipe(tmp_path, pairs)
    module = RgbtTraining(load_recipe(path, [f'optim.init={exported}', 'optim.frozen_norms=true']))
    module.load_start()
    crops, mask = torch.rand(1, 2, 4, 128, 128), torch.ones(1, 1, 8, 8)
    wanted = find(load_rgbt(trained)[0], crops, mask)[0]
    found = find(module.student.eval(), crops, mask)[0]
    for name in ('score', 'boxes'):
        torch.testing.assert_close(
            getattr(found, name), getattr(wanted, name), atol=1e-4, rtol=1e-4)
    # What a teacher knows of its modality is the student's.
    regions = crops[:, 0, 1:]
    features = [network.eval().features('rgb', regions) for network in (
        module.student, module._taught_by()['rgb'])]
    torch.testing.assert_close(features[0], features[1])

    model = onnx.load(exported)
    assert not any(node.metadata_props for node in model.graph.node), 'paths of this machine'
    kept = [i for i in model.graph.initializer if not i.name.endswith('of_search')]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, exported.with_name('older.onnx'))
    exported.with_name('older.json').write_text(exported.with_suffix('.json').read_text())
    with pytest.raises(UserError, match='older.onnx has other layer sizes than the recipe'):
        RgbtTraining(load_recipe(
            path, [f'optim.init={exported.with_name("older.onnx")}'])).load_start()


def test_a_detectors_trunk_begins_both(tmp_path: Path, pairs: Path) -> None:
    path = write_recipe(tmp_path, pairs)
    values = yaml.safe_load(path.read_text())
    del values['model']['channels'], values['model']['depths']
    path.write_text(yaml.safe_dump(values))
    module = RgbtTraining(load_recipe(path, ['optim.init=thermal', 'optim.frozen_norms=true']))
    module.load_start()
    gray = torch.rand(1, 1, 64, 64)
    networks = module.student, module.teachers['rgb']
    thermal = module.student.backbone['thermal'].eval()(gray)[1]
    for network in networks:
        assert torch.allclose(network.backbone['rgb'].eval()(gray.expand(1, 3, 64, 64))[1],
                              thermal, atol=1e-4)


@pytest.mark.parametrize(('change', 'sentence'), [
    (lambda v: v['inputs'].pop('rgb'), 'an RGB-T tracker has the inputs search, rgb, template'),
    (lambda v: v['inputs']['rgb'].update(shape=[1, 1, 128, 128]), 'rgb must be'),
    (lambda v: v.update(factor=0.5), 'factor must be a number above 1'),
    (lambda v: v.update(filter={}), "unknown entry 'filter'"),
    (lambda v: v.update(task='tracking'), "the entry 'filter' is missing")])
def test_cards_that_cannot_be_used(exported: Path, tmp_path: Path, change: object,
                                   sentence: str) -> None:
    values = json.loads(exported.with_suffix('.json').read_text())
    change(values)
    (tmp_path / 'tiny.onnx').write_bytes(exported.read_bytes())
    (tmp_path / 'tiny.json').write_text(json.dumps(values))
    with pytest.raises(UserError, match=sentence):
        TrackingModel.load(tmp_path / 'tiny.onnx')
