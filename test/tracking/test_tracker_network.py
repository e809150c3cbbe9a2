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

"""The network, its filter and its losses: equal to the robot's filter, and each modality alone."""

from cgdet_core.runtime.tracking.filter import TargetFilter
from cgdet_core.runtime.tracking.region import coverage
from cgdet_core.tracking.config import TrackerConfig
from cgdet_core.tracking.filter import correlate, FilterOptimizer, pad, transposed
from cgdet_core.tracking.losses import box_loss, score_labels, score_loss
from cgdet_core.tracking.network import DeployedTracker, TARGET, TrackerNet
from cgdet_core.tracking.training import _by_modality
import numpy as np
import pytest
import torch
from torch import nn

SMALL = {'channels': (8, 8, 16, 16), 'depths': (1, 1, 1, 1), 'neck_channels': 16,
         'feature_channels': 8, 'tower_channels': 16, 'tower_depth': 1}


def network(**values: object) -> TrackerNet:
    torch.manual_seed(0)
    return TrackerNet(TrackerConfig.model_validate({**SMALL, **values}))


def test_the_robots_filter_takes_the_same_steps() -> None:
    torch.manual_seed(1)
    optimizer = FilterOptimizer()
    with torch.no_grad():
        for parameter in optimizer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    samples = network(feature_channels=64).normalize(torch.randn(3, 64, 16, 16))
    centers = torch.tensor([[8.0, 8.0], [7.3, 9.1], [2.0, 15.5]])
    with torch.no_grad():
        filters = optimizer(samples[None], centers[None], 5)
    made = TargetFilter(optimizer.settings(), 64, 16)
    made.start(samples.numpy(), centers.double().numpy(), steps=0)
    for found in filters:
        assert np.abs(made.filter - found[0].numpy()).max() < 1e-5
        scores = correlate(pad(samples[None]), found)[0]
        assert np.abs(made.scores(samples[1].numpy()) - scores[1].numpy()).max() < 1e-5
        made.improve(1)


def test_the_correlation_is_a_convolution_and_its_transpose_the_gradient() -> None:
    torch.manual_seed(2)
    samples = torch.randn(2, 3, 4, 10, 10, dtype=torch.float64)
    filters = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    scores = correlate(pad(samples), filters)
    for b in range(2):
        expected = nn.functional.conv2d(samples[b], filters[b][None], padding=2)[:, 0]
        assert torch.allclose(scores[b], expected)
    maps = torch.randn_like(scores)
    gradient = torch.autograd.grad((maps * scores).sum(), filters)[0]
    assert torch.allclose(transposed(pad(samples), maps), gradient)


def test_steps_learn_step_regularization_label_mask_and_weight() -> None:
    optimizer = FilterOptimizer()
    samples = torch.randn(2, 1, 8, 16, 16) / 11
    filters = optimizer(samples, torch.full((2, 1, 2), 8.0), 2)
    filters[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in optimizer.parameters())


@pytest.mark.parametrize('trunk', ['csp', 'shufflenet_v2', 'resnet18', 'efficientnet_lite0'])
def test_trunks_end_at_stride_16(trunk: str) -> None:
    values = {k: v for k, v in SMALL.items() if k not in ('channels', 'depths') or trunk == 'csp'}
    torch.manual_seed(0)
    made = TrackerNet(TrackerConfig.model_validate({**values, 'trunk': trunk})).eval()
    fine, coarse = made.backbone(torch.zeros(1, 1, 128, 128))
    assert fine.shape[1:] == (made.backbone.widths[0], 16, 16)
    assert coarse.shape[1:] == (made.backbone.widths[1], 8, 8)


def test_the_first_boxes_have_the_size_of_a_centered_target() -> None:
    made = DeployedTracker(network().eval())
    features, boxes, quality, template = made(torch.rand(2, 1, 128, 128), torch.rand(2, 17, 8, 8))
    assert features.shape == (2, 8, 8, 8) and template.shape == (2, 16, 8, 8)
    assert boxes.shape == (2, 4, 16, 16) and quality.shape == (2, 1, 16, 16)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (centers[:, 0, 3, 5] - 44).abs().max() < 10
    assert ((boxes[:, 2:] - boxes[:, :2]).mean() - TARGET).abs() < 10
    assert (quality < 0.2).all()


def test_a_score_below_the_threshold_only_counts_above_zero() -> None:
    labels = score_labels(torch.tensor([[4.0, 3.0]]), 9, 1.0)
    assert labels[0, 3, 4] == 1 and labels[0, 3, 5] == pytest.approx(0.6065, abs=1e-3)
    assert score_loss(labels, labels, 0.05) == pytest.approx(float(
        labels[labels <= 0.05].square().sum() / labels.numel()))
    assert score_loss(torch.where(labels > 0.05, labels, -5.0), labels, 0.05) == 0
    assert score_loss(torch.where(labels > 0.05, labels, 1.0), labels, 0.05) > 0.5


def test_perfect_boxes_cost_only_what_their_quality_lacks() -> None:
    truth = torch.tensor([[40.0, 30.0, 80.0, 90.0]])
    boxes = truth[:, :, None, None].expand(1, 4, 16, 16)
    sure = torch.full((1, 1, 16, 16), -20.0)
    sure[0, 0, 5:10, 6:9] = 20.0
    best, parts = box_loss(boxes, sure, truth)
    assert parts['giou'] == pytest.approx(0, abs=1e-6) and parts['quality'] < 1
    assert box_loss(boxes, -sure, truth)[0] > best + 1
    assert box_loss(boxes + 20, sure, truth)[0] > best + 1


def test_the_statistics_are_those_of_thermal_rows() -> None:
    made = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, momentum=0.5)).train()
    x = torch.randn(4, 1, 8, 8)
    x[1::2] += 100  # RGB
    rgb = torch.tensor([False, True, False, True])
    found, = _by_modality(made, lambda v: (made(v),), rgb, x)
    norm = made[1]
    thermal = made[0](x[::2])
    assert norm.running_mean == pytest.approx(0.5 * thermal.mean((0, 2, 3)).detach(), abs=1e-5)
    for rows in (slice(0, None, 2), slice(1, None, 2)):  # each is normalized by its own
        assert found[rows].mean((0, 2, 3)).abs().max() < 1e-3
    assert norm.momentum == 0.5


def test_the_mask_tells_the_boxes_shape() -> None:
    made = network().eval()
    with torch.no_grad():
        made.head.shape.weight.normal_()
    fused = torch.rand(1, 16, 16, 16)
    boxes = []
    for box in ((40, 60, 88, 68), (60, 40, 68, 88)):
        mask = torch.from_numpy(coverage(np.array(box), 128, 8, 16))[None, None]
        boxes.append(made.boxes(fused, torch.cat([fused[:, :, 4:12, 4:12], mask], 1))[0])
    assert (boxes[0] - boxes[1]).abs().max() > 1e-3
