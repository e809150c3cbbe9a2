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

"""Training samples: repeatable, boxes follow the image, batches have the requested frames."""

import json
from pathlib import Path

from cgdet_core.data.coco import load_coco
from cgdet_core.data.synthetic import Scene, write_coco
from cgdet_core.detection.augmentation import flip, jitter_contrast, mosaic, random_window
from cgdet_core.detection.config import AugmentConfig
from cgdet_core.detection.loading import AugmentedFrames, collate
from cgdet_core.detection.samples import CocoFrames, IGNORED, make_sample, Sample, SyntheticFrames
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.training.sampler import EpochSampler, repeat_factors
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

CLASSES = ('person', 'bicycle', 'car')


def marked() -> Sample:
    """Return a frame with one bright rectangle and its box."""
    thermal = np.zeros((96, 128), np.float32)
    thermal[30:60, 40:90] = 1
    return make_sample(thermal, np.array([[40, 30, 90, 60]], np.float32), np.array([1]))


def spot(image: torch.Tensor) -> list[int]:
    ys, xs = torch.nonzero(image > 0.5, as_tuple=True)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


@pytest.mark.parametrize('seed', range(12))
def test_boxes_follow_the_image(seed: int) -> None:
    torch.manual_seed(seed)
    moved = random_window(marked(), (128, 96), (0.6, 1.6), (128, 96), 0.1)
    if seed % 2:
        moved = flip(moved)
    assert moved['image'].shape == (1, 96, 128)
    if len(moved['boxes']):
        np.testing.assert_allclose(spot(moved['image'][0]), moved['boxes'][0], atol=1.5)


def test_objects_cut_below_the_minimum_visible_share_are_ignored() -> None:
    torch.manual_seed(0)
    kept = ignored = gone = 0
    for _ in range(60):
        moved = random_window(marked(), (40, 30), (1.0, 1.0), (128, 96), 0.5)
        share = float((moved['image'] > 0.5).sum()) / (50 * 30)
        if not len(moved['boxes']):
            gone += 1
            assert share == 0
            continue
        np.testing.assert_allclose(spot(moved['image'][0]), moved['boxes'][0], atol=1.5)
        if moved['labels'].tolist() == [1]:
            kept += 1
            assert share > 0.5 - 0.05
        else:
            ignored += 1
            assert moved['labels'].tolist() == [IGNORED] and share <= 0.5 + 0.05
    assert kept and ignored and gone


def test_an_object_that_becomes_too_small_is_ignored() -> None:
    frame = make_sample(np.zeros((96, 128), np.float32),
                        np.array([[40, 30, 43, 50]], np.float32), np.array([1]))
    torch.manual_seed(0)
    small = random_window(frame, (128, 96), (0.5, 0.5), (128, 96), 0.5)
    assert small['labels'].tolist() == [IGNORED]


def test_mosaic_places_every_box_on_its_rectangle() -> None:
    torch.manual_seed(1)
    for _ in range(10):
        sample = mosaic([marked() for _ in range(4)], (128, 96), (0.4, 0.8), 0.1)
        assert sample['views'] == [] and sample['image'].shape == (1, 96, 128)
        objects = sample['boxes'][sample['labels'] != IGNORED]
        for x1, y1, x2, y2 in objects.round().int().tolist():
            inside = sample['image'][0, y1 + 1:y2 - 1, x1 + 1:x2 - 1]
            assert inside.numel() == 0 or inside.mean() > 0.85


def test_contrast_jitter_stays_in_range_and_leaves_the_original() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 40, 50)
    before = image.clone()
    for _ in range(20):
        result = jitter_contrast(image, AugmentConfig(blur=0.5))
        assert result.shape == image.shape and 0 <= result.min() and result.max() <= 1
    assert torch.equal(image, before)


def frames() -> AugmentedFrames:
    source = SyntheticFrames(6, Normalization(), CLASSES, 1)
    return AugmentedFrames([source], (160, 128), AugmentConfig(close_mosaic_epochs=1), 5, 3)


def test_scenes_serve_other_classes() -> None:
    ours, some, none = (SyntheticFrames(6, Normalization(), classes, 1)
                        for classes in (CLASSES, ('dog', 'person'), ('dog',)))
    for i in range(6):
        people = ours[i]['boxes'][ours[i]['labels'] == 0]
        assert torch.equal(some[i]['boxes'], people) and (some[i]['labels'] == 1).all()
        assert len(none[i]['boxes']) == 0 and torch.equal(none[i]['image'], ours[i]['image'])


def test_scenes_differ_by_epoch_and_seed_and_nothing_else() -> None:
    def scene(epoch: int, index: int, seed: int = 1) -> Sample:
        scenes = SyntheticFrames(6, Normalization(), CLASSES, seed)
        scenes.set_epoch(epoch)
        return scenes[index]

    seen = [scene(0, 0), scene(1, 0), scene(0, 1), scene(0, 0, 2)]
    for a in range(4):
        for b in range(a):
            assert not torch.equal(seen[a]['image'], seen[b]['image'])
    again = SyntheticFrames(6, Normalization(), CLASSES, 1)
    for epoch, index, expected in ((1, 0, seen[1]), (0, 1, seen[2]), (0, 0, seen[0])):
        again.set_epoch(epoch)
        for _ in range(2):
            assert torch.equal(again[index]['image'], expected['image'])
            assert torch.equal(again[index]['boxes'], expected['boxes'])
            again[index]['boxes'].zero_(), again[index]['image'].zero_()


def test_an_epoch_draws_a_scene_once_while_the_memory_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []
    render = Scene.render
    monkeypatch.setattr(
        Scene, 'render', lambda scene: (drawn.append(scene.seed), render(scene))[1])
    one_frame = 640 * 512 * 2
    for cache_bytes, draws in ((1e9, 6), (2.5 * one_frame, 2 + 4 * 3), (0, 6 * 3)):
        scenes = SyntheticFrames(6, Normalization(), CLASSES, 1, cache_bytes)
        for epoch in range(2):
            drawn.clear()
            scenes.set_epoch(epoch)
            for index in list(range(6)) * 3:
                scenes[index]
            assert len(drawn) == draws and len(set(drawn)) == 6


def test_training_samples_show_the_scenes_of_their_epoch() -> None:
    plain = AugmentConfig(mosaic=0, flip=0, contrast=0, scale=(1, 1))
    augmented = AugmentedFrames(
        [SyntheticFrames(2, Normalization(), CLASSES, 1)], (640, 512), plain, 5, 3)
    scenes = SyntheticFrames(2, Normalization(), CLASSES, 1)
    for epoch in (0, 2, 1):
        scenes.set_epoch(epoch)
        assert torch.equal(augmented[(epoch, 0, 1)]['image'], scenes[1]['image'])


def test_samples_depend_only_on_seed_and_key() -> None:
    one, two = frames(), frames()
    two[(0, 0, 0)], torch.rand(3)
    for key in ((0, 7, 1), (2, 8, 4)):
        a, b = one[key], two[key]
        assert torch.equal(a['image'], b['image']) and torch.equal(a['boxes'], b['boxes'])
    assert not torch.equal(one[(0, 1, 1)]['image'], one[(1, 1, 1)]['image'])


def test_workers_change_nothing_and_sampling_does_not_touch_the_generator() -> None:
    torch.manual_seed(9)
    state = torch.get_rng_state()
    frames()[(0, 0, 0)]
    assert torch.equal(state, torch.get_rng_state())

    def images(workers: int) -> torch.Tensor:
        loader = DataLoader(frames(), 3, sampler=EpochSampler(6, 0, 3), collate_fn=collate,
                            num_workers=workers)
        return torch.cat([b['images'] for b in loader])

    assert torch.equal(images(0), images(2))


def test_the_sampler_shuffles_by_epoch() -> None:
    sampler = EpochSampler(20, 3, 4)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(i for _, _, i in first) == list(range(20))
    assert [i for _, _, i in first] != [i for _, _, i in second] and second[0][0] == 1
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_frames_that_fill_no_batch_wait_for_another_epoch() -> None:
    sampler = EpochSampler(11, 3, 4)
    seen = set()
    for epoch in range(9):
        sampler.set_epoch(epoch)
        indices = [i for _, _, i in sampler]
        assert len(indices) == len(sampler) == 8 == len(set(indices))
        seen |= set(indices)
    assert seen == set(range(11))


@pytest.mark.parametrize(('share', 'wanted'), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_every_batch_holds_its_share_of_pairs(share: float, wanted: int) -> None:
    paired = torch.arange(40) < 5
    sampler = EpochSampler(40, 1, 8, kinds=paired, share=share)
    batches = torch.tensor([i for _, _, i in sampler]).reshape(-1, 8)
    assert len(batches) == 5
    assert (paired[batches].sum(1) == wanted).all()
    pairs = batches[paired[batches]].bincount(minlength=40)[:5]
    # The five pairs take turns: each is shown as often as the others.
    assert int(pairs.max() - pairs.min()) <= 1 and pairs.sum() == 5 * wanted


def test_without_a_share_pairs_are_sampled_as_they_occur() -> None:
    sampler = EpochSampler(40, 1, 8, kinds=torch.arange(40) < 5)
    assert sorted(i for _, _, i in sampler) == list(range(40))


@pytest.mark.parametrize(('paired', 'words'), [
    (False, 'with RGB, but there are none'), (True, 'without RGB, but there are none')])
def test_a_share_that_the_frames_do_not_allow_is_explained(paired: bool, words: str) -> None:
    with pytest.raises(UserError, match=words):
        EpochSampler(8, 0, 4, kinds=torch.full((8,), paired), share=0.5)


def test_repeats_show_rare_frames_more_often_and_keep_the_share() -> None:
    repeats = torch.ones(40)
    repeats[3], repeats[30] = 6, 6
    sampler = EpochSampler(40, 1, 8, repeats, torch.arange(40) < 10, 0.25)
    counts = torch.zeros(40)
    for epoch in range(60):
        sampler.set_epoch(epoch)
        indices = torch.tensor([i for _, _, i in sampler])
        assert ((indices.reshape(-1, 8) < 10).sum(1) == 2).all()
        counts += indices.bincount(minlength=40)
    assert counts[3] / counts[:3].mean() == pytest.approx(6, rel=0.3)
    assert counts[30] / counts[10:30].mean() == pytest.approx(6, rel=0.3)


def test_rare_classes_repeat() -> None:
    factors = repeat_factors([{0}, {0}, {0, 1}, set()], 0.5)
    assert factors.tolist() == pytest.approx([1, 1, 2 ** 0.5, 1])


def test_crowds_become_ignored_regions(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 1, 3, 1, (160, 128))
    data = json.loads(path.read_text())
    assert len(data['annotations']) > 1
    data['annotations'][0]['iscrowd'] = 1
    path.write_text(json.dumps(data))
    sample = CocoFrames(load_coco(path), Normalization())[0]
    target = collate([sample])['targets'][0]
    x, y, w, h = data['annotations'][0]['bbox']
    assert target['ignored'].tolist() == [[x, y, x + w, y + h]]
    assert len(target['boxes']) == len(target['labels']) == len(data['annotations']) - 1
    assert (target['labels'] >= 0).all()


def test_a_frame_shown_twice_in_an_epoch_is_varied_twice() -> None:
    assert not torch.equal(frames()[(0, 0, 1)]['image'], frames()[(0, 1, 1)]['image'])
    sampler = EpochSampler(8, 0, 4, kinds=torch.arange(8) < 1, share=0.5)
    assert len({place for _, place, _ in sampler}) == 8


def test_mosaics_join_frames_of_one_kind_where_a_share_is_kept() -> None:
    paired = torch.arange(6) % 2 == 0
    mixed = AugmentedFrames([SyntheticFrames(6, Normalization(), CLASSES, 1)], (160, 128),
                            AugmentConfig(), 5, 30, paired)
    for index in range(6):
        for _ in range(20):
            assert all(paired[i] == paired[index] for i in mixed._partners(index))


def test_a_share_too_small_for_a_batch_is_refused() -> None:
    with pytest.raises(UserError, match='less than half a frame of a batch of 4'):
        EpochSampler(8, 0, 4, kinds=torch.arange(8) < 4, share=0.1)


def test_an_ignored_region_is_kept_however_little_is_visible() -> None:
    whole = np.array([[0, 0, 128, 96], [0, 0, 128, 96]], np.float32)
    frame = make_sample(np.zeros((96, 128), np.float32), whole, np.array([IGNORED, 1]))
    torch.manual_seed(0)
    cut = random_window(frame, (40, 30), (2, 2), (128, 96), 0.5)
    assert cut['labels'].tolist() == [IGNORED, IGNORED]
    assert cut['boxes'].tolist() == [[0, 0, 40, 30]] * 2


def test_a_share_below_one_that_leaves_no_other_frame_is_refused() -> None:
    with pytest.raises(UserError, match=r'data.pair_share=0.9 leaves no frame without RGB'):
        EpochSampler(8, 0, 4, kinds=torch.arange(8) < 4, share=0.9)
