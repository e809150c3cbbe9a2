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

"""Pseudo-labels: what becomes an object, an ignore region or background."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import load_coco
from cgdet_core.detection.config import UnlabeledConfig
from cgdet_core.detection.head import cell_centers, decode_boxes
from cgdet_core.detection.loading import collate, train_loader
from cgdet_core.detection.loss import detection_loss
from cgdet_core.detection.training import check_data
from cgdet_core.detection.unlabeled import blank, labels_of, predict, pseudo_labels, regions
from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.distillation.predictions import COCO, Predictions
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
from cgdet_core.tasks import parse_recipe
import numpy as np
import pytest
import torch

CLASSES = ('person', 'bicycle', 'car')
SIZE = (160, 128)


def config(**values: Any) -> UnlabeledConfig:
    teacher = {'kind': 'torchvision', 'weights': None}
    return UnlabeledConfig.model_validate({'frames': 'x.json', 'teacher': teacher, **values})


def boxes(*rows: tuple[float, int, float]) -> dict[str, torch.Tensor]:
    """Return boxes of 20x20 pixels from (x, label, score)."""
    corners = [[x, 10.0, x + 20, 30] for x, _, _ in rows]
    return {'boxes': torch.tensor(corners).float().reshape(-1, 4),
            'labels': torch.tensor([label for _, label, _ in rows]).long(),
            'scores': torch.tensor([score for _, _, score in rows]),
            'ignored': torch.zeros(0, 4)}


def test_scores_decide_between_object_and_ignore_region() -> None:
    rgb, student = boxes((0, 0, 0.8), (50, 2, 0.3)), boxes((2, 0, 0.6), (100, 1, 0.7))
    [found] = pseudo_labels([rgb], [student], config())
    assert found['labels'].tolist() == [0, 1]
    assert found['scores'].isnan().tolist() == [True, False], 'that of RGB is certain'
    assert found['scores'][1] == pytest.approx(0.7)
    assert found['box_weights'].tolist() == [1, 0], 'and teaches where it ends'
    assert found['boxes'][0].tolist() == pytest.approx([2 * 0.6 / 1.4, 10, 20 + 2 * 0.6 / 1.4, 30])
    assert found['ignored'].tolist() == [[50, 10, 70, 30]]


def test_a_teacher_may_be_as_certain_as_its_scores() -> None:
    rgb, student = boxes((0, 0, 0.8), (50, 2, 0.3)), boxes((2, 1, 0.9), (52, 2, 0.6))
    [found] = pseudo_labels([rgb], [student], config(hard=False, box_weight=0.5))
    assert found['scores'].tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert found['box_weights'].tolist() == [0.5, 1, 0.5], 'it is not sure of the car'
    [found] = pseudo_labels([rgb], [student], config())
    assert found['scores'].isnan().tolist() == [False, True, False]


def test_what_only_thermal_shows_is_never_background() -> None:
    nothing, student = boxes(), boxes((0, 0, 0.9), (40, 0, 0.3))
    [found] = pseudo_labels([nothing], [student], config())
    assert len(found['boxes']) == 1 and len(found['ignored']) == 1
    [found] = pseudo_labels([nothing], [student], config(sources=['rgb']))
    assert len(found['boxes']) == 0 and len(found['ignored']) == 2, 'ignored, if not believed'


def test_busses_are_ignored_and_other_names_dropped_or_mapped() -> None:
    label_of = labels_of(COCO, config(names={'truck': 'car'}), CLASSES)
    assert label_of[COCO.index('car')] == label_of[COCO.index('truck')] == 2
    assert label_of[COCO.index('bus')] == -1
    assert COCO.index('dog') not in label_of
    with pytest.raises(UserError, match='leads to vehicel, which is none of the classes'):
        labels_of(COCO, config(names={'truck': 'vehicel'}), CLASSES)
    with pytest.raises(UserError, match='knows no lorry'):
        labels_of(COCO, config(names={'lorry': 'car'}), CLASSES)
    with pytest.raises(UserError, match='knows none of deer; map its names'):
        labels_of(COCO, config(), ('deer',))


def test_blank_samples_teach_nothing_and_the_others_the_same_as_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 420, 3, generator=generator).requires_grad_()
    bins = torch.randn(2, 420, 4, 8, generator=generator)
    targets = [boxes((20, 0, 1.0), (60, 2, 1.0)), boxes((30, 1, 1.0))]
    mixed = blank(targets, torch.tensor([False, True]), SIZE)
    loss = detection_loss(logits, bins, mixed, SIZE[::-1])['det']
    alone = detection_loss(logits[:1], bins[:1], targets[:1], SIZE[::-1])['det']
    torch.testing.assert_close(loss, alone)
    gradient, = torch.autograd.grad(loss, logits)
    assert gradient[0].abs().sum() > 0 and gradient[1].abs().sum() == 0


def test_the_score_of_a_pseudo_label_is_where_the_student_rests() -> None:
    """A label draws the score to the overlap, which is 1 with what the student itself found."""
    centers, strides = cell_centers(*SIZE[::-1], torch.device('cpu'))
    bins = torch.zeros(1, 420, 4, 8)
    own = decode_boxes(bins, centers, strides)[0]
    cell = int(((centers - torch.tensor([84.0, 60.0])).abs().sum(1) + 1e3 * (strides[:, 0] != 8))
               .argmin())
    found = {'boxes': own[cell][None], 'labels': torch.tensor([2]), 'ignored': torch.zeros(0, 4)}

    def slope(at: float, **more: torch.Tensor) -> float:
        logits = torch.full((1, 420, 3), -6.0)
        logits[0, cell, 2] = torch.logit(torch.tensor(at))
        logits.requires_grad_()
        loss = detection_loss(logits, bins, [{**found, **more}], SIZE[::-1])['cls']
        return float(torch.autograd.grad(loss, logits)[0][0, cell, 2])

    score = {'scores': torch.tensor([0.6])}
    assert abs(slope(0.6, **score)) < 1e-3
    assert slope(0.5, **score) < -1e-2 and slope(0.7, **score) > 1e-2
    assert slope(0.6) < -1e-2


def test_regions_are_those_of_cmd() -> None:
    generator = torch.Generator().manual_seed(0)
    [found] = regions([boxes((20, 0, 0.9))], config(random_side=50), SIZE, generator)
    assert len(found['boxes']) == 1 + 5 + 1
    [found] = regions([boxes((20, 0, 0.9))], config(regions=['detected']), SIZE, generator)
    assert found['boxes'].tolist() == [[20, 10, 40, 30]]


def test_the_boxes_of_a_teacher_move_with_the_frame_and_keep_their_scores(
    recipe_values: dict, scenes: Path,
) -> None:
    """A teacher that finds exactly the truth gives samples exactly the truth."""
    recipe = parse_recipe({
        **recipe_values, 'classes': list(CLASSES), 'augment': {'contrast': 1.0},
        'data': {**recipe_values['data'], 'synthetic': 0},
        'unlabeled': {'frames': str(scenes), 'sources': ['student']}}, 'test')
    labeled = load_coco(scenes)
    unlabeled = replace(labeled, images=[
        replace(r, scores=np.linspace(0.3, 0.9, len(r.labels), dtype=np.float32))
        for r in labeled.images])
    loader = train_loader(recipe, labeled, None, unlabeled)
    frames, count = loader.dataset, len(labeled.images)
    shown = 0
    for place, index in enumerate(range(count)):
        torch.manual_seed(0)
        sample = frames[0, place, count + index]
        assert len(sample['scores']) == len(sample['boxes']) == len(sample['labels'])
        assert not torch.equal(sample['weak'], sample['image'])
        batch = collate([frames[0, place, index], sample])
        assert batch['unlabeled'].tolist() == [False, True] and len(batch['weak']) == 1
        assert 'scores' not in batch['targets'][0]
        scores = batch['targets'][1]['scores']
        assert ((scores >= 0.3) & (scores <= 0.9)).all()
        shown += len(scores)
    assert shown > count
    flags = [index >= count for _, _, index in loader.sampler]
    batches = np.array(flags).reshape(-1, recipe.optim.batch_size)
    assert (batches.sum(1) == recipe.optim.batch_size // 2).all(), 'the share, in every batch'


class Witness:
    """A teacher that finds a car as wide as the number of pictures that it has seen."""

    seen: list[View] = []

    def __init__(self, config: TeacherConfig, more: Any) -> None:
        self.predictor = type('Predictor', (), {'classes': ('car',)})

    def of(self, views: list[View], device: Any, progress: bool) -> list[Predictions]:
        self.seen.extend(views)
        side = float(len(self.seen))
        return [Predictions(np.array([[0, 0, side, 9]], np.float32),
                            np.array([0.9], np.float32), np.array([0])) for _ in views]


def test_each_source_shows_the_teacher_its_own_picture(
    recipe_values: dict, pairs: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('cgdet_core.detection.unlabeled.TeacherPredictions', Witness)
    monkeypatch.setattr(Witness, 'seen', [])
    coco = load_coco(pairs)
    paired = sum(record.rgb_path is not None for record in coco.images)
    recipe = parse_recipe({
        **recipe_values, 'classes': list(CLASSES), 'unlabeled': {
            'frames': str(pairs), 'sources': ['black_hot', 'thermal', 'rgb', 'student'],
            'teacher': {'path': 'any'}}}, 'test')
    found = predict(coco, recipe, torch.device('cpu'), False)
    kinds = [(view.thermal, view.black_hot) for view in Witness.seen]
    assert kinds == ([(False, False)] * paired + [(True, False)] * len(coco.images)
                     + [(True, True)] * len(coco.images))
    for record in found.images:
        assert (record.labels == CLASSES.index('car')).all()
        assert len(record.boxes) == 2 + (record.rgb_path is not None), 'one of each picture'


def test_a_missing_rgb_image_is_one_of_the_set_that_lists_it(
    recipe_values: dict, scenes: Path, pairs: Path,
) -> None:
    recipe = parse_recipe({
        **recipe_values, 'classes': list(CLASSES),
        'cmg': {'teacher': {'kind': 'torchvision', 'weights': None}},
        'unlabeled': {'frames': str(pairs), 'sources': ['student']}}, 'test')
    coco = load_coco(pairs)
    gone = replace(coco, images=[replace(coco.images[0], rgb_path=Path('gone.png'))])
    with pytest.raises(UserError, match=f'1 of .* in {pairs} are missing, the first is gone.png'):
        check_data(recipe, load_coco(scenes), gone)


@pytest.mark.parametrize(('values', 'words'), [
    ({'unlabeled': {'frames': 'x', 'share': 0.1}}, 'less than a frame of a batch of 4'),
    ({'unlabeled': {'frames': 'x', 'share': 1.0}}, 'no batch has labels'),
    ({'unlabeled': {'frames': 'x', 'sources': ['rgb']}}, 'need a teacher'),
    ({'unlabeled': {'frames': 'x', 'burn_in_epochs': 4, 'stop_epoch': 3}}, 'before its burn-in'),
    ({'data': {'train': None, 'val': 'x'}, 'optim': {'init': 'shipped', 'batch_size': 4},
      'unlabeled': {'frames': 'x', 'share': 1}}, 'set them to 0'),
    ({'unlabeled': {'frames': 'x', 'sources': []}}, 'must name who finds objects'),
    ({'unlabeled': {'frames': 'x', 'ignore_score': 0.6}}, 'must not be above object_score'),
    ({'unlabeled': {'frames': 'x', 'teacher': {
        'kind': 'onnx', 'path': 'x', 'tensors': ['a', 'b', 'c']}}}, 'only with a decoder'),
    ({'data': {'train': None, 'val': 'x'}}, 'data.train is missing'),
    ({'data': {'train': None, 'val': 'x'}, 'unlabeled': {'frames': 'x', 'share': 1}},
     'a student from nothing finds nothing'),
    ({'data': {'train': None, 'val': 'x'}, 'unlabeled': {'frames': 'x', 'share': 1, 'weight': 0}},
     'without labels nothing teaches'),
    ({'data': {'train': None, 'val': 'x'}, 'unlabeled': {'frames': 'x', 'share': 1, 'weight': 0},
      'cmg': {'weight': 0, 'teacher': {'kind': 'torchvision'}}}, 'without labels nothing teaches'),
    ({'data': {'train': 'x', 'val': 'x', 'pair_share': 0.5}, 'unlabeled': {'frames': 'x'}},
     'data.pair_share orders labeled frames only')])
def test_recipes_that_cannot_be_are_refused(
    recipe_values: dict, values: dict, words: str,
) -> None:
    unlabeled = values.get('unlabeled', {})
    if 'sources' not in unlabeled and 'teacher' not in unlabeled and unlabeled:
        values = {**values, 'unlabeled': {**unlabeled, 'sources': ['student']}}
    with pytest.raises(UserError, match=words):
        parse_recipe({**recipe_values, 'classes': list(CLASSES), **values}, 'test')


@pytest.mark.parametrize('teaches', [
    {'cmg': {'teacher': {'kind': 'torchvision'}}}, {'imitation': {'teacher': 'any'}}])
def test_a_teacher_needs_no_pseudo_labels(recipe_values: dict, teaches: dict) -> None:
    recipe = parse_recipe({
        **recipe_values, 'classes': list(CLASSES), 'data': {'train': None, 'val': 'x'},
        'unlabeled': {'frames': 'x', 'share': 1, 'weight': 0, 'burn_in_epochs': 0,
                      'sources': ['student']}, **teaches}, 'test')
    assert recipe.unlabeled is not None and not recipe.unlabeled.weight
