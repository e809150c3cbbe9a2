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

"""Detection loss: against plain formulas in float64, gradients, and empty images."""

import math

from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.head import cell_centers
from cgdet_core.detection.loss import (
    detection_loss,
    distribution_focal_loss,
    varifocal_loss,
    within,
)
from cgdet_core.detection.student import Student
import pytest
import torch

TINY = StudentConfig(channels=(8, 8, 16, 16), depths=(1, 1, 1, 1), neck_channels=16,
                     head_channels=16, bins=8)


def test_varifocal_equals_its_formula() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64)
    targets = torch.rand(6, 3, dtype=torch.float64) * (torch.rand(6, 3) > 0.5)
    expected = 0.0
    for x, q in zip(logits.flatten().tolist(), targets.flatten().tolist()):
        p = 1 / (1 + math.exp(-x))
        if q > 0:
            expected += -q * (q * math.log(p) + (1 - q) * math.log(1 - p))
        else:
            expected += -0.75 * p ** 2 * math.log(1 - p)
    assert float(varifocal_loss(logits, targets)) == pytest.approx(expected, rel=1e-10)


def test_distribution_focal_equals_its_formula() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 4, 8, dtype=torch.float64)
    distances = torch.rand(5, 4, dtype=torch.float64) * 6.9
    expected = torch.zeros(5, dtype=torch.float64)
    for i in range(5):
        for side in range(4):
            y = float(distances[i, side])
            low = int(y)
            p = torch.softmax(logits[i, side], 0)
            expected[i] -= ((low + 1 - y) * p[low].log() + (y - low) * p[low + 1].log()) / 4
    torch.testing.assert_close(distribution_focal_loss(logits, distances), expected)


def test_distribution_focal_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    distances = torch.tensor([[0.3, 1.2, 4.9, 9.0]] * 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, distances), logits)


def outputs(student: Student, count: int):
    torch.manual_seed(1)
    return student(torch.rand(count, 1, 64, 96))


def test_images_without_objects_have_a_finite_loss_and_gradient() -> None:
    student = Student(3, TINY)
    empty = {'boxes': torch.zeros(0, 4), 'labels': torch.zeros(0, dtype=torch.long)}
    terms = detection_loss(*outputs(student, 2), [empty, empty], (64, 96))
    assert terms['box'].item() == 0 and terms['dfl'].item() == 0
    assert math.isfinite(float(terms['det'].detach())) and float(terms['cls']) > 0
    terms['det'].backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_the_loss_of_a_batch_does_not_depend_on_its_order() -> None:
    student = Student(3, TINY).eval()
    logits, distributions = outputs(student, 2)
    targets = [{'boxes': torch.tensor([[10.0, 10, 40, 50]]), 'labels': torch.tensor([1])},
               {'boxes': torch.tensor([[50.0, 5, 90, 30], [0, 0, 9, 9]]),
                'labels': torch.tensor([0, 2])}]
    one = detection_loss(logits, distributions, targets, (64, 96))
    two = detection_loss(logits.flip(0), distributions.flip(0), targets[::-1], (64, 96))
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def test_a_student_can_learn_one_frame_by_heart() -> None:
    torch.manual_seed(0)
    student = Student(2, TINY).train()
    image = torch.zeros(1, 1, 64, 96)
    image[:, :, 16:48, 20:36] = 1
    image[:, :, 30:50, 60:90] = 0.5
    targets = [{'boxes': torch.tensor([[20.0, 16, 36, 48], [60, 30, 90, 50]]),
                'labels': torch.tensor([0, 1])}]
    optimizer = torch.optim.AdamW(student.parameters(), 5e-3)
    losses = []
    for _ in range(120):
        terms = detection_loss(*student(image), targets, (64, 96))
        optimizer.zero_grad()
        terms['det'].backward()
        optimizer.step()
        losses.append(float(terms['det'].detach()))
    assert losses[-1] < 0.35 * losses[0]


def test_cells_of_ignored_regions_are_neither_object_nor_background() -> None:
    student = Student(3, TINY).eval()
    logits, distributions = outputs(student, 1)
    logits = logits.detach().requires_grad_()
    target = {'boxes': torch.tensor([[10.0, 10, 40, 50]]), 'labels': torch.tensor([1])}
    plain, = torch.autograd.grad(
        detection_loss(logits, distributions, [target], (64, 96))['cls'], logits)
    region = torch.tensor([[30.0, 0, 96, 64]])
    ignoring, = torch.autograd.grad(detection_loss(
        logits, distributions, [{**target, 'ignored': region}], (64, 96))['cls'], logits)
    centers, _ = cell_centers(64, 96, logits.device)
    inside = centers[:, 0] >= 30
    assert torch.equal(plain[0, ~inside], ignoring[0, ~inside])
    assert (plain[0, inside] != 0).all()
    # What is left there are the positive cells of the object, in its own class.
    left = ignoring[0, inside] != 0
    assert 0 < int(left.sum()) < 20 and not left[:, [0, 2]].any()
    assert torch.equal(plain[0, inside][left], ignoring[0, inside][left])


def test_an_ignored_region_has_a_cell_at_every_level() -> None:
    centers, strides = cell_centers(64, 96, torch.device('cpu'))
    for region in ([17.0, 17, 18, 18], [31.0, 0, 33, 5], [0.0, 0, 1, 1], [95.0, 63, 96, 64]):
        found, = within(torch.tensor([region]), centers, strides)
        for stride in (8, 16, 32):
            assert 1 <= int((found & (strides[:, 0] == stride)).sum()) <= 4, (region, stride)
    # One larger than a cell covers the cells whose center it contains.
    found, = within(torch.tensor([[30.0, 0, 96, 64]]), centers, strides)
    assert torch.equal(found, centers[:, 0] >= 30)
    assert within(torch.zeros(0, 4), centers, strides).shape == (0, len(centers))
