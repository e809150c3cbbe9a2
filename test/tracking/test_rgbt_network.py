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

"""The RGB-T network and CKD's equations, by values computed by hand."""

from math import log, sqrt

from cgdet_core.tracking.network import center
from cgdet_core.tracking.rgbt.config import RgbtConfig
from cgdet_core.tracking.rgbt.losses import (
    center_labels,
    content_loss,
    focal_loss,
    style_loss,
    track_loss,
)
from cgdet_core.tracking.rgbt.network import DeployedRgbt, positions, RGB, RgbtNet
from cgdet_core.tracking.rgbt.transformer import (
    Block,
    Encoded,
    Encoder,
    kept_tokens,
    middle_attention,
    ModalNorm,
    pick,
)
import pytest
import torch
from torch import nn, Tensor

SMALL = {'channels': (8, 8, 16, 16), 'depths': (1, 1, 1, 1), 'width': 16, 'blocks': 2, 'heads': 2,
         'head_channels': 8, 'eliminate': (0, 1), 'keep': 0.7}


def network(**values: object) -> RgbtNet:
    torch.manual_seed(0)
    made = RgbtNet(RgbtConfig.model_validate({**SMALL, **values})).eval()
    with torch.no_grad():  # a head that has learned something
        made.head.out.weight.normal_(std=0.3)
        made.missing.normal_()
    return made


def inputs(count: int = 2, size: int = 128) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.rand(count, 1, size, size), torch.rand(count, 3, size, size),
            torch.randn(count, 16, 8, 8), torch.randn(count, 16, 8, 8),
            torch.rand(count, 1, 8, 8)]


def test_each_modality_has_its_own_normalization() -> None:
    norm = ModalNorm(2, 4)
    with torch.no_grad():
        norm.weight[1], norm.bias[1] = 3, 5
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(2, 1, 1, 4)
    found = norm(x)
    plain = (x[0] - 2.5) / sqrt(1.25 + 1e-5)
    assert torch.allclose(found[0], plain, atol=1e-5)
    assert torch.allclose(found[1], 3 * plain + 5, atol=1e-5)


def test_modalities_share_weights_and_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    block = Block(2, 8, 2).eval()
    x = torch.randn(2, 3, 70, 8)
    found, _ = block(x)
    same, _ = block(x[[1, 0]])  # norms are equal at first
    assert torch.allclose(found[0], same[1], atol=1e-6)
    other = x.clone()
    other[1] += 1
    assert torch.equal(block(other)[0][0], found[0])


def test_the_middle_of_the_template_looks_at_the_search() -> None:
    query, key = torch.zeros(1, 1, 66, 4), torch.zeros(1, 1, 66, 4)
    query[0, 0, [27, 28, 35, 36]] = torch.tensor([2.0, 0, 0, 0])  # rows and columns 3 and 4
    key[0, 0, 65, 0] = log(3.0)  # times 2 / sqrt(4)
    found = middle_attention(query, key)
    assert found[0].tolist() == pytest.approx([1 / 68, 3 / 68], abs=1e-6)


def test_the_best_tokens_of_either_modality_stay_in_both() -> None:
    looks = torch.tensor([[[0.1, 0.2, 0.3, 0.4]], [[0.9, 0.0, 0.0, 0.1]]])
    present = torch.ones(2, 1)
    assert sorted(kept_tokens(looks, present, 0.5)[0].tolist()) == [0, 3]
    present[1] = 0  # without RGB
    assert sorted(kept_tokens(looks, present, 0.5)[0].tolist()) == [2, 3]
    assert kept_tokens(looks, present, 0.7).shape == (1, 3), 'rounded up'


def test_eliminated_tokens_are_the_same_and_places_are_restored() -> None:
    torch.manual_seed(0)
    encoder = Encoder(2, 8, 3, 2, (0, 1), 0.5).eval()
    template, search = torch.randn(2, 2, 64, 8), torch.randn(2, 2, 16, 8)
    found = encoder(template, search, torch.ones(2, 2))
    assert [level.shape[2] for level in found.levels] == [80, 72, 68]
    assert [place.shape for place in found.places] == [(2, 16), (2, 8), (2, 4)]
    for sample in range(2):
        kept = set(found.places[2][sample].tolist())
        assert kept < set(found.places[1][sample].tolist())
        for modality in range(2):
            rows = found.search[modality, sample].abs().sum(1) > 0
            assert set(rows.nonzero()[:, 0].tolist()) == kept
    last = encoder.norm(found.levels[2])[:, :, 64:]
    assert torch.equal(pick(found.search, found.places[2]), last)
    whole = encoder(template, search, torch.ones(2, 2), eliminate=False)
    assert [level.shape[2] for level in whole.levels] == [80] * 3
    assert (whole.search.abs().sum(3) > 0).all()


def test_positions_are_those_of_the_center() -> None:
    like = torch.zeros(1, 16)
    small, large = (positions(like, n, n).unflatten(0, (n, n)) for n in (8, 12))
    assert torch.allclose(small, large[2:10, 2:10]) and not torch.equal(small[0, 0], small[0, 1])
    assert center(torch.arange(144.0).reshape(1, 1, 12, 12))[0, 0, 0, 0] == 2 * 12 + 2


def test_both_students_have_the_same_cells_hidden() -> None:
    made = network(eliminate=())
    seen: list[Tensor] = []
    made.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    features = [torch.randn(2, 16, 8, 8) for _ in range(2)]
    visible = torch.ones(2, 1, 8, 8)
    visible[:, :, 2, 3] = 0
    for mask in (None, visible):
        made([features[0], features[1]], features, torch.zeros(2, 1, 8, 8), None, mask)
    same = (seen[0] == seen[1]).all(3)
    assert not same[:, :, 2 * 8 + 3].any() and same.sum() == 2 * 2 * 63
    bare = positions(features[0].flatten(2).transpose(1, 2), 8, 8)[19] + made.of_search
    assert torch.allclose(seen[1][:, :, 19], bare.expand(2, 2, 16)), 'no template is hidden'


def test_style_is_the_squared_difference_of_mean_and_deviation() -> None:
    thermal = torch.tensor([[1.0], [3.0]]).expand(1, 1, 2, 1)  # mean 2, deviation 1
    rgb = torch.tensor([[2.0], [8.0]]).expand(1, 1, 2, 1)  # mean 5, deviation 3
    level = torch.cat([thermal, rgb])
    one = torch.ones(1)
    assert style_loss([level], one) == pytest.approx(9 + 4, rel=1e-4)
    assert style_loss([level, level], one) == pytest.approx(26, rel=1e-4), 'summed over blocks'
    assert style_loss([level], 0 * one) == 0
    both = torch.cat([level, torch.zeros(2, 1, 2, 1)], 1)
    assert style_loss([both], torch.tensor([1.0, 0])) == pytest.approx(13, rel=1e-4)
    level.requires_grad_()
    style_loss([level], one).backward()
    assert (level.grad.abs() > 0).all(), 'gradient to both'


def test_content_is_the_squared_difference_of_standardized_tokens() -> None:
    torch.manual_seed(0)
    places = torch.tensor([[2, 0]])
    level = torch.randn(2, 1, 66, 3, requires_grad=True)  # of which two search tokens are kept
    teachers = [Encoded(torch.zeros(()), [torch.randn(1, 1, 68, 3, requires_grad=True)], [places])
                for _ in range(2)]
    found = content_loss(Encoded(torch.zeros(()), [level], [places]), teachers, torch.ones(1))
    expected = 0.0
    for number, teacher in enumerate(teachers):
        own = torch.cat([teacher.levels[0][0, 0, :64], teacher.levels[0][0, 0, [66, 64]]])
        standard = [(x - x.mean(0)) / x.std(0, correction=0) for x in (level[number, 0], own)]
        expected += float((standard[0] - standard[1]).detach().square().mean())
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3)
    found.backward()
    assert level.grad is not None and (level.grad.abs().sum(3) > 0).any(2).all()
    assert all(teacher.levels[0].grad is None for teacher in teachers), 'teachers are not moved'


def test_labels_and_focal_loss() -> None:
    labels = center_labels(torch.tensor([[30.0, 40.0, 50.0, 60.0]]), 8, 8, 1.0)
    assert labels[0, 3, 2] == 1 and labels[0, 3, 3] == pytest.approx(0.6065, abs=1e-4)
    score = torch.full((1, 8, 8), -40.0)
    score[0, 3, 2] = 0.0
    assert focal_loss(score, labels)[0] == pytest.approx(0.25 * log(2), rel=1e-4)
    score[0, 3, 3] = 0.0
    more = (1 - float(labels[0, 3, 3])) ** 4 * 0.25 * log(2)
    assert focal_loss(score, labels)[0] == pytest.approx(0.25 * log(2) + more, rel=1e-4)


def test_track_loss_of_a_moved_box() -> None:
    truth = torch.tensor([[40.0, 40.0, 80.0, 80.0], [0.0, 0.0, 9.0, 9.0]])
    boxes = (truth + torch.tensor([16.0, 0, 16, 0]))[:, :, None, None].expand(2, 4, 8, 8)
    score = torch.zeros(2, 1, 8, 8)
    found = track_loss(score, boxes, truth, 0.8, torch.tensor([1.0, 0.0]))
    overlap, union, hull = 24 * 40, 56 * 40, 56 * 40
    assert found.giou == pytest.approx(1 - overlap / union + (hull - union) / hull, rel=1e-5)
    assert found.l1 == pytest.approx((16 + 16) / 4 / 128, rel=1e-5)
    exact = track_loss(score, truth[:, :, None, None].expand(2, 4, 8, 8), truth, 0.8)
    assert exact.giou == pytest.approx(0, abs=1e-5) and exact.l1 == 0
    nothing = track_loss(score, boxes, truth, 0.8, torch.zeros(2))
    assert sum(nothing) == 0, 'no sample shows RGB'


def test_without_rgb_its_pixels_and_templates_say_nothing() -> None:
    made = DeployedRgbt(network())
    search, rgb, template, rgb_template, mask = inputs()
    fused = made(search, rgb, template, rgb_template, mask)
    alone = made(search, 0 * rgb, template, rgb_template, mask)
    assert (fused[0] - alone[0]).abs().max() > 1e-4
    other = made(search, rgb, template, 0 * rgb_template, mask)
    assert torch.allclose(alone[0], other[0]) and torch.allclose(alone[1], other[1])
    half = rgb.clone()
    half[1] = 0  # each sample by itself
    mixed = made(search, half, template, rgb_template, mask)
    assert torch.allclose(mixed[0][0], fused[0][0], atol=1e-6)
    assert torch.allclose(mixed[0][1], alone[0][1], atol=1e-6)


def test_the_deployed_form_is_the_network() -> None:
    made = network()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    search, rgb, template, rgb_template, mask = inputs()
    features = [made.features('thermal', search), made.features('rgb', rgb)]
    found = made([template, rgb_template], features, mask)
    score, boxes, *_ = DeployedRgbt(made)(search, rgb, template, rgb_template, mask)
    assert torch.allclose(score, found.score.sigmoid(), atol=1e-4)
    assert torch.allclose(boxes, found.boxes, atol=1e-2)


def test_scores_and_boxes_are_in_range() -> None:
    score, boxes, features, rgb_features = DeployedRgbt(network())(*inputs())
    assert score.shape == (2, 1, 8, 8) and boxes.shape == (2, 4, 8, 8)
    assert features.shape == rgb_features.shape == (2, 16, 8, 8)
    assert ((score > 0) & (score < 1)).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    column = (boxes[:, 0] + boxes[:, 2]) / 32 - torch.arange(8)
    assert ((column >= -1) & (column <= 2)).all()


def test_a_teacher_is_the_same_network_with_one_modality() -> None:
    student = network()
    teacher = RgbtNet(student.config, (RGB,))
    shapes = {name: value.shape for name, value in student.encoder.named_parameters()}
    for name, value in teacher.encoder.named_parameters():
        expected = shapes[name]
        assert value.shape == ((1, *expected[1:]) if 'norm' in name else expected)
    assert isinstance(teacher.backbone[RGB], nn.Module) and list(teacher.backbone) == [RGB]
