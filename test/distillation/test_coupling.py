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

"""Coupled students: both losses against loops, patches, pictures of RGB, matched gradients."""

from pathlib import Path

from cgdet_core.distillation import coupling
from cgdet_core.distillation.coupling import (
    batch_rgb,
    cells_of,
    Coupling,
    GradientMatch,
    hide,
    own_statistics,
    paint_rgb,
    random_patches,
)
from cgdet_core.distillation.guide import TeacherPyramid
from cgdet_core.distillation.views import View
from cgdet_core.nets.blocks import ConvBlock
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

SIZE = (96, 64)  # width, height
SHAPES = [(8, 12), (4, 6), (2, 3)]


def pyramid(seed: int, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, channels, *shape, generator=generator) for shape in SHAPES]


def masks(columns: int = 6) -> list[Tensor]:
    """Return masks of a sample that shows RGB everywhere, and of one that does at the left."""
    shown = torch.ones(2, 1, 64, 96)
    shown[1, :, :, columns * 8:] = 0
    return cells_of(shown)


def by_hand(thermal: list[Tensor], rgb: list[Tensor], teachers: list[list[Tensor]],
            ) -> tuple[float, float]:
    """Return L_SD and L_CD, without adapters, by loops over images, levels and channels."""
    of_style, of_content, shares = [], [], []
    for n in range(2):
        one = two = 0.0
        for level, mask in enumerate(masks()):
            seen = mask[n, 0].numpy() > 0
            t, r, *of_teachers = (features[level][n].double().numpy()[:, seen]
                                  for features in (thermal, rgb, *teachers))
            one += np.mean((r.mean(1) - t.mean(1)) ** 2 + (r.std(1) - t.std(1)) ** 2)
            for student, teacher in zip((t, r), of_teachers):
                normal = [(x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
                          for x in (student, teacher)]
                two += np.mean((normal[0] - normal[1]) ** 2)
        of_style.append(one)
        of_content.append(two)
        shares.append(masks()[0][n].mean().item())
    return tuple(float(np.average(values, weights=shares)) for values in (of_style, of_content))


def coupled(adapted: bool = False) -> Coupling:
    """Return the losses, without adapters unless adapted."""
    found = Coupling(3, (3, 3, 3), (5, 5, 5) if adapted else None)
    if not adapted:
        for adapter in found.adapt_rgb:
            torch.nn.init.dirac_(adapter.weight)
            torch.nn.init.zeros_(adapter.bias)
    return found


def test_both_losses_are_those_of_the_paper() -> None:
    thermal, rgb, of_thermal, of_rgb = (pyramid(seed) for seed in range(4))
    found = coupled()(thermal, rgb, masks(), of_thermal, TeacherPyramid(of_rgb, masks()))
    expected = by_hand(thermal, rgb, [of_thermal, of_rgb])
    assert [found[name].item() for name in ('style', 'content')] == pytest.approx(
        expected, rel=1e-3)


@pytest.mark.parametrize('name', ['style', 'content'])
def test_the_gradient_reaches_both_students_and_no_teacher(name: str) -> None:
    levels = [[x.requires_grad_() for x in pyramid(seed)] for seed in range(4)]
    with torch.no_grad():
        frozen = [[x * 1 for x in part] for part in levels[2:]]
    loss = coupled()(levels[0], levels[1], masks(), frozen[0], TeacherPyramid(frozen[1], masks()))
    loss[name].backward()
    for level, mask in enumerate(masks()):
        for student in levels[:2]:
            gradient = student[level].grad
            assert gradient[0].abs().min() > 0
            assert (gradient * (1 - mask)).abs().max() == 0, 'where no RGB is shown'
    assert all(x.grad is None for part in levels[2:] for x in part)


def test_style_has_no_places_and_content_no_scale() -> None:
    thermal, rgb, of_thermal = (pyramid(seed) for seed in range(3))
    everywhere = masks(12)

    def losses(thermal: list[Tensor], rgb: list[Tensor]) -> dict[str, Tensor]:
        return coupled()(thermal, rgb, everywhere, of_thermal, None)

    one = losses(thermal, rgb)
    moved = losses(thermal, [x.roll(1, 3) for x in rgb])
    torch.testing.assert_close(moved['style'], one['style'])
    other = losses([5 * x + 3 for x in thermal], rgb)
    torch.testing.assert_close(other['content'], one['content'], rtol=1e-3, atol=0)
    assert other['style'] > 2 * one['style']


def test_without_pairs_there_is_a_loss_of_zero_that_can_be_differentiated() -> None:
    """A rank without RGB computes what the others do."""
    thermal = [x.requires_grad_() for x in pyramid(0)]
    none = [x[[]] for x in thermal]
    teacher = TeacherPyramid([x[[]] for x in pyramid(1)], [m[[]] for m in masks()])
    found = coupled(True)(none, none, [m[[]] for m in masks()], None, teacher)
    assert found['style'] == found['content'] == 0
    (found['style'] + found['content']).backward()
    assert all((x.grad == 0).all() for x in thermal)


def test_a_teacher_of_another_width_has_adapters() -> None:
    losses = coupled(True)
    assert [a.weight.shape[:2] for a in losses.adapt_thermal] == [(5, 3)] * 3
    of_rgb = TeacherPyramid(pyramid(3), masks())
    assert losses(pyramid(0), pyramid(1), masks(), pyramid(2, 5), of_rgb)['content'] > 0


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Return a picture whose red grows to the right and green downwards."""
    y, x = np.mgrid[0:64, 0:96]
    rgb = np.stack([x, y, np.full_like(x, 200)], -1).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'rgb.png'), rgb[..., ::-1])
    return tmp_path / 'rgb.png'


def test_rgb_is_painted_where_the_sample_shows_it(picture: Path) -> None:
    whole = View.whole(picture, SIZE)
    left = whole.moved((1, 1), (10, -20), (40, 64))
    right = whole.mirrored(96).moved((0.5, 0.5), (0, 0), (50, 30)).placed(44, 3)
    thermal = whole._replace(thermal=True)
    painted = paint_rgb([left, thermal, right], SIZE)
    assert painted is not None
    pixels = (painted.pixels * 255).round()
    assert pixels[:, 30, 20].tolist() == [10, 50, 200], 'moved by 10, -20'
    assert pixels[0, 10, 50] > pixels[0, 10, 80], 'mirrored'
    expected = torch.zeros(64, 96)
    expected[0:44, 10:40] = 1
    expected[3:33, 44:92] = 1
    assert torch.equal(painted.shown[0], expected)
    assert torch.equal(pixels[2] > 0, expected > 0)
    bare = torch.zeros(64, 96)
    for x1, y1, x2, y2 in painted.bare.int().tolist():
        bare[y1:y2, x1:x2] += 1
    assert torch.equal(bare, 1 - expected), 'each pixel is shown or in one region'
    assert len(paint_rgb([whole], SIZE).bare) == 0
    assert paint_rgb([thermal], SIZE) is None and paint_rgb([], SIZE) is None
    outside = whole.moved((1, 1), (200, 0), SIZE)
    assert paint_rgb([outside], SIZE) is None


def test_a_batch_names_the_samples_that_show_rgb(picture: Path) -> None:
    painted = paint_rgb([View(picture, SIZE, SIZE, (0, 0), (0, 0, 48, 64))], SIZE)
    assert batch_rgb([{}, {}]) == {}
    batch = batch_rgb([{}, {'rgb': painted}, {'rgb': painted}])
    assert batch['rgb_rows'] == [1, 2] and batch['rgb'].shape == (2, 3, 64, 96)
    assert [m.mean().item() for m in cells_of(batch['rgb_shown'])] == [0.5, 0.5, pytest.approx(
        1 / 3)], 'the center of the second column of P5 is at the edge'


def test_random_patches_hide_their_share_and_differ() -> None:
    def draw(seed: int) -> Tensor:
        return random_patches(3, SIZE, 16, 0.25, torch.Generator().manual_seed(seed))

    visible = draw(1)
    assert visible.shape == (3, 1, 64, 96)
    blocks = visible.unfold(2, 16, 16).unfold(3, 16, 16)
    assert torch.equal(blocks.amin((4, 5)), blocks.amax((4, 5))), 'whole patches'
    assert torch.equal(visible.mean((1, 2, 3)), torch.full((3,), 0.75))
    assert not torch.equal(visible[0], visible[1])
    assert torch.equal(visible, draw(1)) and not torch.equal(visible, draw(2))
    assert random_patches(1, SIZE, 40, 0.5, torch.Generator()).shape == (1, 1, 64, 96)
    images = torch.rand(3, 2, 64, 96)
    hidden = hide(images, visible)
    seen = (visible > 0).expand_as(images)
    assert torch.equal(hidden[seen], images[seen])
    assert hidden[0, 1][~seen[0, 1]].unique().item() == pytest.approx(images[0, 1].mean().item())


def test_a_network_with_its_own_statistics_takes_none_from_what_it_sees() -> None:
    block = ConvBlock(2, 4)
    block(torch.randn(3, 2, 8, 8))
    before = {name: value.clone() for name, value in block.named_buffers()}
    seen = (torch.randn(3, 2, 8, 8) + 7).requires_grad_()
    with own_statistics(block):
        found = block(seen)
        alone = block(seen[:1])
    assert block.norm.training
    assert all(torch.equal(value, before[name]) for name, value in block.named_buffers())
    torch.testing.assert_close(found[:1], alone)
    found.sum().backward()
    assert seen.grad.abs().max() > 0 and block.conv.weight.grad.abs().max() > 0


def test_matched_gradients_begin_as_their_share_of_the_detection_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coupling, 'STEPS', 3)
    weights = {'style': 0.01, 'swap': 0.1}
    match, plain = GradientMatch(weights, True), GradientMatch(weights, False)
    shared = [torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)]
    for _ in range(3):
        assert not match.done and match.factor('swap') == 0 and not match.lines()
        terms = {'style': 50 * shared[1].sum(), 'swap': shared[0].sum() * 0.2}
        match.measure((4 * shared[0]).sum(), terms, shared)
    assert match.done
    of_det = (2 * 4 ** 2) ** 0.5
    of_style = 50 * 3 ** 0.5
    assert match.factor('style') * of_style == pytest.approx(0.01 * of_det)
    assert match.factor('swap') == pytest.approx(0.1 * 4 / 0.2)
    assert plain.factor('style') == 0.01
    assert len(match.lines()) == 2
    assert 'coupled.swap: gradient 0.283 of weight 1, L_det 5.66; weight 0.1' in match.lines()[1]
    resumed = GradientMatch(weights, True)
    resumed.state = match.state
    assert resumed.factor('style') == match.factor('style')


def test_steps_without_pairs_or_labels_are_not_measured() -> None:
    match = GradientMatch({'style': 1.0}, True)
    shared = [torch.ones(2, requires_grad=True)]
    match.measure(shared[0].sum(), {'style': torch.zeros(())}, shared)
    match.measure(torch.zeros(()), {'style': shared[0].sum()}, shared)
    assert match.state[0] == 0
