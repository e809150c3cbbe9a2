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

"""Regions of frames without labels, and the fusion of what several detectors find."""

from cgdet_core.distillation.regions import center_region, fuse, random_regions
import pytest
import torch

PERSON = [100.0, 50.0, 121.0, 110.0]  # 21 pixels wide
SHIFTED = [103.0, 50.0, 124.0, 110.0]  # as seen by a camera beside: IoU 0.75


@pytest.mark.parametrize(('iou', 'count'), [(0.5, 1), (0.8, 2)])
def test_a_small_object_is_one_at_our_overlap_and_two_at_that_of_cmd(
    iou: float, count: int,
) -> None:
    boxes, scores, labels = fuse(
        torch.tensor([PERSON, SHIFTED]), torch.tensor([0.6, 0.2]), torch.tensor([0, 0]), iou)
    assert len(boxes) == len(scores) == len(labels) == count
    if count == 1:
        assert boxes[0].tolist() == pytest.approx([100.75, 50, 121.75, 110])
        assert scores.tolist() == pytest.approx([0.6])  # not lower for the doubt of the other


def test_classes_are_not_fused_and_the_order_of_detectors_changes_nothing() -> None:
    boxes = torch.tensor([PERSON, SHIFTED, [0.0, 0, 10, 10], PERSON])
    scores, labels = torch.tensor([0.5, 0.9, 0.3, 0.4]), torch.tensor([0, 0, 0, 1])
    one = fuse(boxes, scores, labels, 0.5)
    assert one[2].tolist() == [0, 1, 0]
    torch.testing.assert_close(one[1], torch.tensor([0.9, 0.4, 0.3]))
    order = torch.tensor([3, 2, 1, 0])
    for a, b in zip(one, fuse(boxes[order], scores[order], labels[order], 0.5)):
        torch.testing.assert_close(a, b)


def test_nothing_found_is_fused_to_nothing() -> None:
    boxes, scores, labels = fuse(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), 0.5)
    assert boxes.shape == (0, 4) and len(scores) == len(labels) == 0


def test_regions_lie_in_the_sample_also_in_a_small_one() -> None:
    assert center_region((160, 128)).tolist() == [[40, 32, 120, 96]]
    generator = torch.Generator().manual_seed(1)
    for size in ((640, 512), (160, 64)):
        found = random_regions(size, 50, 100, generator)
        assert (found[:, :2] >= 0).all() and (found[:, 2:] <= torch.tensor(size)).all()
        sides = found[:, 2:] - found[:, :2]
        torch.testing.assert_close(sides.amax(1), torch.full((50,), 100.0))
        assert (sides > 0).all()
    assert len(random_regions((640, 512), 50, 100, generator).unique(dim=0)) == 50
