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

"""Samples: what is cut where, which objects of two frames are the same, and what both show."""

from dataclasses import replace
import json
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import ImageRecord, load_coco
from cgdet_core.data.synthetic import write_coco
from cgdet_core.errors import UserError
from cgdet_core.tasks import load_recipe
from cgdet_core.tracking.config import CropConfig, SwapConfig
from cgdet_core.tracking.crops import Crop, cut, distract, jitter, mirror, occlude
from cgdet_core.tracking.frames import (
    collect,
    Frame,
    FrameCache,
    mutual,
    neighbors,
    scenes,
    swapped,
    tracks,
)
from cgdet_core.tracking.recipe import SequenceConfig, TrackingRecipe
from cgdet_core.tracking.samples import collate, patch, TrackingSamples
from cgdet_core.tracking.starting import start
from cgdet_core.tracking.training import validation_objects, warn_of_shared_frames
import numpy as np
import pytest
import torch
import yaml


def recipe(tmp_path: Path, train: Path, *overrides: str) -> TrackingRecipe:
    path = tmp_path / 'tracker.yaml'
    path.write_text(yaml.safe_dump({
        'task': 'tracking', 'name': 'tiny', 'input_size': 128,
        'data': {'train': [str(train)], 'val': [str(train)], 'objects': 8, 'val_objects': 6,
                 'smallest': 6, 'sequences': {'scenes': 0}},
        'crops': {'size': 128}, 'optim': {'epochs': 1, 'batch_size': 4},
        'run': {'output': str(tmp_path / 'runs'), 'workers': 0}}))
    found = load_recipe(path, list(overrides))
    assert isinstance(found, TrackingRecipe)
    return found


def bright(box: tuple[int, int, int, int], size: tuple[int, int] = (160, 200)) -> np.ndarray:
    frame = np.zeros(size, np.uint8)
    frame[box[1]:box[3], box[0]:box[2]] = 255
    return frame


def extent(image: np.ndarray) -> list[float]:
    """Return the box of what is bright."""
    rows, columns = np.flatnonzero((image > 0.5).any(1)), np.flatnonzero((image > 0.5).any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize('seed', range(3))
def test_a_stretched_crop_keeps_its_center(seed: int) -> None:
    box = (60, 50, 90, 80)
    crop = cut(bright(box), np.array(box, float), 4, 128, np.random.default_rng(seed), stretch=0.8)
    centers = np.arange(128) + 0.5
    for axis, place in ((0, crop.box[::2].mean()), (1, crop.box[1::2].mean())):
        light = crop.image.sum(axis)
        assert light @ centers / light.sum() == pytest.approx(place, abs=0.05)


@pytest.mark.parametrize('seed', range(5))
def test_the_box_moves_with_its_crop(seed: int) -> None:
    box = (60, 50, 90, 110)
    found = cut(bright(box), np.array(box, float), 4.0, 160, np.random.default_rng(seed), 0.5,
                0.3, 0.1)
    assert extent(found.image) == pytest.approx(found.box.tolist(), abs=1.5)
    turned = mirror(found)
    assert extent(turned.image) == pytest.approx(turned.box.tolist(), abs=1.5)


def test_an_occluder_hides_a_part_and_a_distractor_is_beside() -> None:
    box = (60, 50, 90, 110)
    crop = cut(bright(box), np.array(box, float), 4.0, 160, np.random.default_rng(0))
    hidden = occlude(crop, np.zeros((100, 100), np.uint8), np.random.default_rng(1))
    share = hidden.image.sum() / crop.image.sum()
    assert 0.3 < share < 0.95 and (hidden.box == crop.box).all()
    two = distract(Crop(np.zeros_like(crop.image), crop.box), np.full((20, 10), 255, np.uint8),
                   np.random.default_rng(2))
    x1, y1, x2, y2 = crop.box.astype(int)
    assert two.image.sum() > 100 and two.image[y1:y2, x1:x2].mean() < 0.3


def test_jitter_stays_in_range() -> None:
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    for seed in range(8):
        found = jitter(image, CropConfig(), np.random.default_rng(seed))
        assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    assert np.abs(found - image).mean() > 0.01


def frame(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] = ()) -> Frame:
    return Frame(np.array(boxes, np.float32).reshape(-1, 4),
                 np.array(labels or [0] * len(boxes), np.int64))


def test_mutually_nearest_boxes_of_a_class_are_the_same_object() -> None:
    one = frame((0, 0, 20, 40), (100, 0, 120, 40), (200, 0, 220, 40))
    other = frame((104, 2, 124, 42), (3, 0, 23, 40), (12, 0, 32, 40))
    assert mutual(one, other, 0.7) == [(0, 1), (1, 0)]  # the third is too far
    assert mutual(one, frame((0, 0, 20, 40), labels=(1,)), 0.7) == []
    assert mutual(one, frame((0, 0, 60, 120)), 0.7) == [], 'of another size'
    assert mutual(one, frame(), 0.7) == []


def test_neighbors_are_next_to_each_other_in_a_folder() -> None:
    names = 'a/walk_2.png', 'a/walk_10.png', 'a/walk_1.png', 'b/walk_11.png', 'a/walk_9.png'
    frames = [replace(frame((0, 0, 20, 40)), record=ImageRecord(
        n, Path(name), 64, 64, file_name=name)) for n, name in enumerate(names)]
    rows = neighbors(frames, SequenceConfig(neighbors=1), 0)
    assert rows[:, [0, 2]].tolist() == [[2, 0], [0, 4], [4, 1]], 'not 1, 10, 2'


def test_tracks_of_synthetic_scenes_are_pairs() -> None:
    drawn = scenes(SequenceConfig(scenes=2, scene_frames=3, seconds=0.2), seed=1)
    rows = tracks(drawn, 10)
    assert len(drawn) == 6 and len(rows)
    for a, first, b, second in rows.tolist():
        assert drawn[a - 10].labels[first] == drawn[b - 10].labels[second] and a < b
        assert (a - 10) // 3 == (b - 10) // 3, 'of the same scene'


def test_pairs_show_the_same_in_thermal_and_rgb(tmp_path: Path, pairs: Path) -> None:
    config = SwapConfig(pairs=pairs, labeled=False, sources=('center', 'random'),
                        random_regions=2, random_side=40)
    frames: list[Frame] = []
    rows = swapped(frames, load_coco(pairs).images, config, 0, False)
    assert len(frames) == 6 * 2 * 2 and len(rows) == 6 * 3
    for a, first, b, second in rows.tolist():
        assert (frames[a].rgb, frames[b].rgb) == (False, True) and first == second
        assert (frames[a].boxes[first] == frames[b].boxes[second]).all()
    made = collect(recipe(tmp_path, pairs, 'swap.share=0.5'))
    assert len(made.swapped) and any(f.rgb for f in made.frames)
    with pytest.raises(UserError, match='swap has no pairs'):
        collect(recipe(tmp_path, write_coco(tmp_path / 'thermal', 2, 7, 2, (160, 128)),
                       'swap.share=0.5'))


def test_samples_depend_only_on_seed_epoch_and_place(tmp_path: Path, pairs: Path) -> None:
    values = recipe(tmp_path, pairs, 'swap.share=0.5')
    made = collect(values)
    samples = TrackingSamples(made, values, FrameCache(made.frames, values.normalization, 1e8))
    again = TrackingSamples(made, values, FrameCache(made.frames, values.normalization, 0))
    batch = collate([samples[0, n, 0] for n in range(12)])
    assert batch['crops'].shape == (12, 2, 1, 128, 128) and batch['mask'].shape == (12, 8, 8)
    assert torch.equal(batch['crops'], collate([again[0, n, 5] for n in range(12)])['crops'])
    assert not torch.equal(batch['crops'], collate([again[1, n, 0] for n in range(12)])['crops'])
    mixed = batch['rgb'][:, 0] != batch['rgb'][:, 1]
    assert mixed.any() and not mixed.all(), 'some samples are swapped'
    centers = (batch['boxes'][:, 0, :2] + batch['boxes'][:, 0, 2:]) / 2
    assert (centers - 64).abs().max() < 3, 'the first template is centered'


@pytest.mark.parametrize(('override', 'sentence'), [
    ('model.in_channels=3', 'in_channels'), ('frozen_epochs=2', 'frozen_epochs keep'),
    ('crops.size=160', 'crops.size must not be above'),
    ('optim.batch_size=9', 'do not fill one batch'),
    ('swap={pairs: a.json}', 'needs swap.teacher'),
    ('swap={labeled: false}', 'swap has no pairs'),
    ('optim={init: thermal, frozen_stages: 1}', 'set frozen_epochs'),
    ('data.smalest=3', 'did you mean')])
def test_a_recipe_that_cannot_be_trained(tmp_path: Path, pairs: Path, override: str,
                                         sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        recipe(tmp_path, pairs, override)


def test_rgb_images_have_no_temperatures(tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match='swap shows RGB images, which have no temperatures'):
        recipe(tmp_path, pairs, 'swap={}', 'normalization.kind=window')


def test_starting_weights_of_another_normalization_are_refused(
    tmp_path: Path, pairs: Path,
) -> None:
    own = recipe(tmp_path, pairs, 'optim.init=thermal_small', 'normalization.kind=percentile')
    network: Any = None
    with pytest.raises(UserError, match='thermal_small.onnx sees frames normalized by .*plateau'):
        start(network, network, own)


def test_patches_show_something() -> None:
    image = np.zeros((120, 160), np.uint8)
    image[:, 80:] = np.random.default_rng(0).integers(0, 255, (120, 80))
    for seed in range(10):
        x1, y1, x2, y2 = patch(image, np.random.default_rng(seed))
        assert 0 <= x1 < x2 <= 160 and 0 <= y1 < y2 <= 120 and x2 > 80


def test_data_without_large_boxes(tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match='has no box of at least 500 pixels'):
        collect(recipe(tmp_path, pairs, 'data.smallest=500'))


def test_the_files_of_a_tracker_are_checked_before_the_first_step(
    tmp_path: Path, pairs: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    """They are checked as those of a detector."""
    values = json.loads(pairs.read_text())
    for image in values['images']:
        for key in ('file_name', 'rgb_file_name'):
            if image.get(key):
                image[key] = str(pairs.parent / image[key])
    values['info'] = {'polarity': 'black_hot', 'license': 'ours'}
    values['annotations'][0]['score'] = 0.9
    path = tmp_path / 'own.json'
    path.write_text(json.dumps(values))
    swap = f'swap={{pairs: {path}, sources: [center]}}'
    own = recipe(tmp_path, path, swap, f'data.val=[{path}]')
    made = collect(own)
    assert 'own.json: 1 box was made by a model' in caplog.text
    assert made.license == 'ours; pairs: ours'
    warn_of_shared_frames(own, validation_objects(own), made)
    assert f'12 of the 12 frames of {path} are also in the training data' in caplog.text
    with pytest.raises(UserError, match='polarity of .* is black_hot, but tiny is normalized by'):
        collect(recipe(tmp_path, path, 'normalization.kind=window'))
    image = next(image for image in values['images'] if image.get('rgb_file_name'))
    image['rgb_file_name'] = 'none.png'
    path.write_text(json.dumps(values))
    for config in (swap, 'swap={}'):
        with pytest.raises(UserError, match='1 of the RGB images listed in .*own.json are miss'):
            collect(recipe(tmp_path, path if config != swap else pairs, config))
