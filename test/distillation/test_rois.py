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

"""Regions: levels by size, pooling as from a single level, and copies of boxes."""

from cgdet_core.distillation.rois import boxes_of, jitter_boxes, levels_of, pool_level, pool_rois
import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

BOXES = torch.tensor([[0.0, 0, 20, 30], [10, 10, 90, 100], [0, 0, 160, 120], [30, 40, 34, 44],
                      [-5, 100, 60, 140]])
IMAGES = torch.tensor([0, 1, 1, 0, 1])


def pyramid() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 128 // s, 160 // s, generator=generator) for s in (8, 16, 32)]


@pytest.mark.parametrize(('width', 'height', 'level'), [
    (63.9, 63.9, 0), (64, 64, 1), (32, 128, 1), (31.9, 128, 0), (127.9, 127.9, 1), (128, 128, 2),
    (64, 256, 2), (2000, 2000, 2), (1, 1, 0), (0, 10, 0), (0, 0, 0)])
def test_levels_change_at_64_and_128_pixels(width: float, height: float, level: int) -> None:
    assert levels_of(torch.tensor([[7.0, 9, 7 + width, 9 + height]])).tolist() == [level]


def test_boxes_are_assigned_to_their_images() -> None:
    boxes, images = boxes_of([{'boxes': BOXES[:2]}, {'boxes': BOXES[:0]}, {'boxes': BOXES[2:]}])
    assert torch.equal(boxes, BOXES) and images.tolist() == [0, 0, 2, 2, 2]


def test_each_box_is_pooled_only_from_its_level() -> None:
    levels = pyramid()
    found = pool_rois(levels, BOXES, IMAGES, 3)
    assert levels_of(BOXES).tolist() == [0, 1, 2, 0, 0] and found.shape == (5, 3, 3, 3)
    for i, level in enumerate([0, 1, 2, 0, 0]):
        rois = torch.cat([IMAGES[i:i + 1, None].float(), BOXES[i:i + 1]], 1)
        alone = roi_align(levels[level], rois, 3, 1 / (8, 16, 32)[level], 2, aligned=True)
        torch.testing.assert_close(found[i], alone[0])


def test_pooling_averages_what_lies_under_the_box() -> None:
    """A ramp over x in pixels: a region's value is the x at the middle of its cells."""
    ramp = ((torch.arange(20) + 0.5) * 8).expand(1, 1, 16, 20)
    found = pool_level(ramp, torch.tensor([[20.0, 20, 80, 80]]), torch.tensor([0]), 0, 3)
    torch.testing.assert_close(found[0, 0, 1], torch.tensor([30.0, 50, 70]))


def test_no_boxes_no_regions_but_a_gradient() -> None:
    levels = [level.requires_grad_() for level in pyramid()]
    found = pool_rois(levels, BOXES[:0], IMAGES[:0], 3)
    assert found.shape == (0, 3, 3, 3)
    found.sum().backward()
    assert all(not level.grad.any() for level in levels)


@pytest.mark.parametrize('amount', [0.0, 0.15, 0.9])
def test_copies_stay_near_their_box(amount: float) -> None:
    boxes = BOXES.repeat(40, 1)
    found = jitter_boxes(boxes, 3, amount, torch.Generator().manual_seed(0)).reshape(-1, 4, 4)
    assert torch.equal(found[:, 0], boxes), 'the object comes first'
    size = (boxes[:, 2:] - boxes[:, :2])[:, None]
    middle = (boxes[:, :2] + boxes[:, 2:])[:, None] / 2
    moved = ((found[:, 1:, :2] + found[:, 1:, 2:]) / 2 - middle).abs() / size
    scaled = ((found[:, 1:, 2:] - found[:, 1:, :2]) / size - 1).abs()
    assert moved.max() <= amount + 1e-4 and scaled.max() <= amount + 1e-4
    if amount:
        assert moved.max() > 0.9 * amount and scaled.max() > 0.9 * amount
        assert (found[:, 1:, 2:] > found[:, 1:, :2]).all()


def test_copies_depend_only_on_the_generator() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, two = (jitter_boxes(BOXES, 2, 0.2, torch.Generator().manual_seed(8)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(jitter_boxes(BOXES, 0, 0.2, torch.Generator()), BOXES)
