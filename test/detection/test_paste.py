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

"""Objects of other frames in a frame: where, with which labels, and when not."""

from pathlib import Path

from cgdet_core.detection.augmentation import paste
from cgdet_core.detection.loading import AugmentedFrames, train_loader
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.samples import IGNORED, make_sample, Sample
from cgdet_core.errors import UserError
from cgdet_core.tasks import parse_recipe
import numpy as np
import pytest
import torch
from torch import Tensor

BICYCLE = torch.tensor([1])


def frame(boxes: list[list[float]], labels: list[int], ground: float = 0.3,
          size: tuple[int, int] = (200, 160)) -> Sample:
    """Return a frame, (width, height), of one brightness with objects 0.4 brighter than it."""
    thermal = np.full(size[::-1], ground, np.float32)
    for x1, y1, x2, y2 in boxes:
        thermal[int(y1):int(y2), max(0, int(x1)):int(x2)] = ground + 0.4
    return make_sample(thermal, np.array(boxes, np.float32).reshape(-1, 4),
                       np.array(labels, np.int64))


@pytest.mark.parametrize('seed', range(20))
def test_a_pasted_object_is_where_its_box_is_as_bright_as_in_its_frame(seed: int) -> None:
    torch.manual_seed(seed)
    target = frame([[10, 10, 40, 60]], [2])
    before = target['image'].clone()
    pasted = paste(target, frame([[100, 80, 130, 120]], [1], 0.5), BICYCLE)
    assert torch.equal(target['image'], before)
    assert pasted['labels'].tolist() == [2, 1] and pasted['scores'].tolist() == [1, 1]
    assert torch.equal(pasted['boxes'][0], target['boxes'][0])
    x1, y1, x2, y2 = pasted['boxes'][1].round().int().tolist()
    assert 0.65 < (x2 - x1) / 30 < 1.35 and 0.65 < (y2 - y1) / 40 < 1.35
    assert 120 - 0.06 * 160 - 8 < y2 < 120 + 0.06 * 160 + 8  # as high as it stood
    # Its own contrast on the ground of this frame, and the rest of the frame as it was.
    assert float(pasted['image'][0, y1 + 3:y2 - 3, x1 + 3:x2 - 3].mean()) == pytest.approx(
        0.7, abs=0.06)
    outside = torch.ones(160, 200, dtype=torch.bool)
    outside[max(0, y1 - 9):y2 + 9, max(0, x1 - 9):x2 + 9] = False
    assert torch.equal(pasted['image'][0][outside], before[0][outside])


def test_what_overlaps_comes_along_and_what_is_cut_is_ignored() -> None:
    rider, bicycle, passer = [100, 60, 120, 105], [95, 90, 130, 120], [133, 70, 190, 130]
    labels = set()
    for seed in range(10):
        torch.manual_seed(seed)
        pasted = paste(frame([], []), frame([rider, bicycle, passer], [0, 1, 2]), BICYCLE)
        labels.add(tuple(pasted['labels'].tolist()))
        assert len(pasted['boxes']) == len(pasted['labels']) == len(pasted['scores'])
    assert (0, 1, IGNORED) in labels and not any(2 in found for found in labels)


def test_nothing_covers_an_object_or_takes_half_of_the_frame() -> None:
    torch.manual_seed(0)
    donor = frame([[100, 80, 130, 120]], [1])
    full = frame([[0, 60, 100, 160], [100, 60, 200, 160]], [2, 2])
    assert paste(full, donor, BICYCLE) is full
    empty = frame([], [])
    assert paste(empty, frame([[10, 10, 150, 150]], [1]), BICYCLE) is empty
    assert paste(empty, frame([[10, 10, 12, 11]], [1], size=(4000, 3200)), BICYCLE) is empty
    assert paste(empty, frame([[100, 80, 130, 120]], [2]), BICYCLE) is empty
    assert paste(empty, frame([], []), BICYCLE) is empty
    crowd = frame([[100, 80, 130, 120]], [IGNORED])
    assert paste(empty, crowd, BICYCLE) is empty
    near = frame([[0, 0, 200, 160]], [2])  # which a bicycle would cover by less than a tenth
    assert paste(near, donor, BICYCLE) is near
    ignored = frame([[0, 0, 200, 160]], [IGNORED])
    assert paste(ignored, donor, BICYCLE) is ignored


def test_an_ignored_region_does_not_keep_objects_from_being_pasted() -> None:
    torch.manual_seed(0)
    donor = frame([[0, 0, 200, 160], [100, 80, 130, 120]], [IGNORED, 1])
    assert paste(frame([], []), donor, BICYCLE)['labels'].tolist().count(1) == 1


def test_objects_at_the_border_of_other_frames_stay_inside() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        pasted = paste(frame([], []), frame([[-30, 120, 40, 160]], [1], size=(300, 160)), BICYCLE)
        boxes = pasted['boxes'].as_subclass(Tensor)
        assert len(boxes) == 1 and pasted['image'].shape == (1, 160, 200)
        assert pasted['labels'].tolist() == [1]
        assert boxes.min() >= 0 and boxes[:, 2].max() <= 200 and boxes[:, 3].max() <= 160


def build(values: dict, **augment: object) -> DetectionRecipe:
    recipe = parse_recipe({**values, 'augment': {**values['augment'], **augment}}, 'test')
    assert isinstance(recipe, DetectionRecipe)
    return recipe.resolved()


def objects(recipe: DetectionRecipe) -> tuple[int, int]:
    """Return how many people and bicycles an epoch shows, of frames as they are."""
    counts = np.zeros(3, int)
    for batch in train_loader(recipe, recipe.labeled()):
        for target in batch['targets']:
            counts += np.bincount(target['labels'].numpy(), minlength=3)
    return int(counts[0]), int(counts[1])


def test_a_run_sees_more_of_the_named_class(recipe_values: dict) -> None:
    plain = {'mosaic': 0, 'scale': [1, 1]}
    people, bicycles = objects(build(recipe_values, **plain))
    more = objects(build(recipe_values, **plain, paste=1.0, paste_classes=['bicycle']))
    assert more[1] > bicycles and more[1] - bicycles > more[0] - people


def test_frames_without_labels_are_as_they_are(recipe_values: dict) -> None:
    recipe = build(recipe_values, paste=1.0)
    frames = train_loader(recipe, recipe.labeled()).dataset
    assert isinstance(frames, AugmentedFrames) and frames.donors
    torch.manual_seed(0)
    frames.unlabeled = len(frames) - 4
    for index in range(len(frames)):
        same = torch.equal(frames._frame(index)['image'], frames._frames[index]['image'])
        assert same or index < frames.unlabeled


@pytest.mark.parametrize(('change', 'message'), [
    ({'cmg': {'teacher': {'kind': 'onnx', 'path': 'a.onnx', 'tensors': ['a', 'b', 'c']}}},
     'where RGB images do not have them'),
    ({'augment': {'paste': 0.5, 'paste_classes': ['bicycle', 'dog']},
      'classes': ['person', 'bicycle', 'car']},
     'names dog, but the classes are person, bicycle, car'),
])
def test_what_cannot_be_pasted_is_refused(
    recipe_values: dict, change: dict, message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        parse_recipe({**recipe_values, 'augment': {'paste': 0.5}, **change}, 'test')


def test_classes_of_the_data_are_checked_too(recipe_values: dict, scenes: Path) -> None:
    with pytest.raises(UserError, match='annotations.json: augment.paste_classes names dog, but'):
        build(recipe_values, paste=0.5, paste_classes=['dog'])
