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

"""The student: its size, its shapes, and that fusing changes nothing."""

from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.head import cell_centers, decode_boxes
from cgdet_core.detection.student import DeployedStudent, Student
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

TINY = StudentConfig(channels=(8, 8, 16, 16), depths=(1, 1, 1, 1), neck_channels=16,
                     head_channels=16, bins=8)


def shaken(student: Student) -> Student:
    """Set the statistics of normalization layers to other than the initial values."""
    torch.manual_seed(3)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    nn.init.normal_(student.head.box_out.weight, std=0.1)
    return student.eval()


def test_the_shipped_size_keeps_its_limits() -> None:
    student = Student(3)
    assert sum(p.numel() for p in student.parameters()) <= 3.15e6
    with FlopCounterMode(display=False) as counter:
        DeployedStudent(student, (640, 512))(torch.zeros(1, 1, 512, 640))
    assert counter.get_total_flops() <= 7.5e9


def test_shapes() -> None:
    student = Student(3, TINY)
    pyramid = student.pyramid(torch.zeros(2, 1, 64, 96))
    assert [tuple(p.shape) for p in pyramid] == [(2, 16, 8, 12), (2, 16, 4, 6), (2, 16, 2, 3)]
    logits, distributions = student(torch.zeros(2, 1, 64, 96))
    cells = 8 * 12 + 4 * 6 + 2 * 3
    assert logits.shape == (2, cells, 3) and distributions.shape == (2, cells, 4, 8)
    centers, strides = cell_centers(64, 96, torch.device('cpu'))
    assert centers.shape == (cells, 2) and strides.shape == (cells, 1)
    assert centers[0].tolist() == [4, 4] and centers[12].tolist() == [4, 12]
    assert centers[-1].tolist() == [80, 48]


def test_decoding_a_certain_distribution() -> None:
    distributions = torch.full((1, 1, 4, 8), -1e4)
    for side, distance in enumerate((1, 2, 3, 4)):
        distributions[0, 0, side, distance] = 1e4
    boxes = decode_boxes(distributions, torch.tensor([[100.0, 60.0]]), torch.tensor([[8.0]]))
    assert boxes.tolist() == [[[92, 44, 124, 92]]]


def test_the_deployed_form_returns_the_best_cells_of_the_training_form() -> None:
    student = shaken(Student(3, TINY))
    images = torch.rand(2, 1, 64, 96)
    boxes, scores = DeployedStudent(student, (96, 64), top_k=20)(images)
    with torch.no_grad():
        logits, distributions = student(images)
    centers, strides = cell_centers(64, 96, torch.device('cpu'))
    all_boxes = decode_boxes(distributions, centers, strides)
    for n in range(2):
        best = logits[n].amax(1).sigmoid().sort(descending=True).values[:20]
        torch.testing.assert_close(scores[n].amax(1), best, atol=1e-5, rtol=1e-4)
        # By place, not by rank: folding may swap cells whose scores differ in the last digits.
        distance, cell = (boxes[n][:, None] - all_boxes[n][None]).abs().amax(-1).min(1)
        assert distance.max() < 1e-3 and len(cell.unique()) == 20
        torch.testing.assert_close(scores[n], logits[n, cell].sigmoid(), atol=1e-5, rtol=1e-4)


def test_deployment_folds_the_normalization_and_does_not_change_the_student() -> None:
    student = shaken(Student(3, TINY))
    before = {k: v.clone() for k, v in student.state_dict().items()}
    deployed = DeployedStudent(student, (96, 64))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in deployed.modules())
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_an_input_that_does_not_fit_the_strides_is_refused() -> None:
    with pytest.raises(ValueError, match='multiple of 32'):
        DeployedStudent(Student(3, TINY), (100, 64))
