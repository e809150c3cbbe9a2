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

"""Objectives: against loops in float64, masks, invariances, and gradients."""

from functools import partial
import inspect
import math
from typing import Any

from cgdet_core.distillation.config import name_and_parameters, PARAMETERS
from cgdet_core.distillation.objectives import (
    BATCH,
    cwd,
    frequency,
    IMAGE,
    mse,
    Objective,
    objective_of,
    OBJECTIVES,
    pearson,
    pearson_style,
    standardizes,
    style,
)
import numpy as np
import pytest
import torch
from torch import Tensor

EACH = pytest.mark.parametrize('objective', OBJECTIVES.values(), ids=OBJECTIVES)


def features(seed: int = 0, size: tuple[int, ...] = (3, 2, 6, 7)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2))


def half_masked() -> Tensor:
    """Return a mask: none of the first image, left and a hole of the second, all of the third."""
    mask = torch.ones(3, 1, 6, 7, dtype=torch.float64)
    mask[1, :, :, :3] = mask[1, :, 2, 5] = mask[2] = 0
    return mask


def channels(student: Tensor, teacher: Tensor, mask: Tensor, n: int):
    """Return each channel of image n as two arrays of its guided cells."""
    guided = mask[n, 0].numpy() > 0
    return [(student[n, c].numpy()[guided], teacher[n, c].numpy()[guided])
            for c in range(student.shape[1])]


def plain_mse(s, t) -> float:
    return float(((s - t) ** 2).mean())


def plain_pearson(s, t) -> float:
    spread = math.sqrt(s.var() + 1e-5) * math.sqrt(t.var() + 1e-5)
    return 1 - float(((s - s.mean()) * (t - t.mean())).mean()) / spread


def plain_cwd(s, t) -> float:
    p, q = (np.exp((x - x.mean()) / math.sqrt(x.var() + 1e-5)) for x in (t, s))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def plain_style(s, t) -> float:
    std = [math.sqrt(x.var() + 1e-5) for x in (s, t)]
    return float((s.mean() - t.mean()) ** 2 + (std[0] - std[1]) ** 2)


def plain_pearson_style(s, t) -> float:
    return 2 * plain_pearson(s, t) + 0.1 * plain_style(s, t)


@pytest.mark.parametrize(('objective', 'plain'), [
    (mse, plain_mse), (pearson, plain_pearson), (cwd, plain_cwd), (style, plain_style),
    (pearson_style, plain_pearson_style)])
def test_equals_the_reference_over_the_guided_cells(objective: Objective, plain) -> None:
    student, teacher = features()
    mask = half_masked()
    found = objective(student, teacher, mask)
    assert found.shape == (3,) and found.dtype == torch.float64 and found[2] == 0
    for n in range(2):
        expected = [plain(s, t) for s, t in channels(student, teacher, mask, n)]
        assert float(found[n]) == pytest.approx(sum(expected) / len(expected), rel=1e-10)


def test_frequency_equals_the_reference_over_the_guided_cells() -> None:
    student, teacher = features()
    mask = half_masked()
    found = frequency(student, teacher, mask)
    assert found[2] == 0
    for n in range(2):
        guided = mask[n, 0] > 0
        low, high = [], []
        for c in range(2):
            for y in range(6):
                for x in range(7):
                    if not guided[y, x]:
                        continue
                    window = (slice(max(0, y - 2), y + 3), slice(max(0, x - 2), x + 3))
                    inside = guided[window]
                    s, t = (float(f[n, c][window][inside].mean()) for f in (student, teacher))
                    low.append((s - t) ** 2)
                    high.append(float(student[n, c, y, x] - s - teacher[n, c, y, x] + t) ** 2)
        expected = sum(low) / len(low) + 0.1 * math.log(1 + sum(high) / len(high))
        assert float(found[n]) == pytest.approx(expected, rel=1e-10)


def test_the_temperature_divides_teacher_and_student() -> None:
    student, teacher = features()
    everything = torch.ones(3, 1, 6, 7, dtype=torch.float64)
    found = cwd(student, teacher, everything, 2.0)
    for n in range(3):
        expected = []
        for s, t in channels(student, teacher, everything, n):
            p, q = (np.exp((x - x.mean()) / math.sqrt(x.var() + 1e-5) / 2) for x in (t, s))
            p, q = p / p.sum(), q / q.sum()
            expected.append(4 * float((p * np.log(p / q)).sum()))
        assert float(found[n]) == pytest.approx(sum(expected) / 2, rel=1e-10)


@pytest.mark.parametrize(('value', 'same'), [
    ('cwd', cwd), ({'name': 'cwd'}, cwd),
    ({'name': 'cwd', 'temperature': 2}, partial(cwd, temperature=2.0)),
    ({'name': 'pearson_style', 'of_style': 0.01, 'of_pearson': 0.2},
     partial(pearson_style, of_style=0.01, of_pearson=0.2)),
    ('style_content', pearson_style),
    ({'name': 'style_content', 'of_style': 0.01}, partial(pearson_style, of_style=0.01)),
    ({'name': 'frequency', 'radius': 1}, partial(frequency, radius=1))],
    # Not the text of a function, which has its address: parallel workers must agree on names.
    ids=lambda value: None if callable(value) else str(value))
def test_a_recipe_sets_parameters(value: str | dict, same: Objective) -> None:
    student, teacher = features()
    assert torch.equal(objective_of(value)(student, teacher, half_masked()),
                       same(student, teacher, half_masked()))


@pytest.mark.parametrize(('value', 'words'), [
    ('cosine', 'must be one of mse, pearson'), ({'temperature': 2}, 'must be one of mse'),
    (None, 'must be one of'), (['cwd'], 'must be one of'),
    ({'name': 'cwd', 'temprature': 2}, "cwd has no parameter 'temprature', did you mean temp"),
    ({'name': 'pearson_style', 'high': 2}, 'did you mean of_style or of_pearson'),
    ({'name': 'style_content', 'content': 2}, "pearson_style has no parameter 'content'"),
    ({'name': 'mse', 'temperature': 2}, "mse has no parameter 'temperature'$"),
    ({'name': 'cwd', 'temperature': 0}, 'temperature of cwd: .*greater than 0'),
    ({'name': 'cwd', 'temperature': math.nan}, 'temperature of cwd: .*finite'),
    ({'name': 'cwd', 'temperature': 'hot'}, 'temperature of cwd: must be a number'),
    ({'name': 'cwd', 'student': 1}, "no parameter 'student'"),
    ({'name': 'cwd', 'over': [0]}, "no parameter 'over'"),
    ({'name': 'frequency', 'radius': 1.5}, 'radius of frequency: must be a whole')], ids=str)
def test_a_wrong_objective_or_parameter_is_named(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        name_and_parameters(value)


def test_a_recipe_knows_all_objectives_with_their_parameters() -> None:
    assert list(PARAMETERS) == list(OBJECTIVES)
    for name, objective in OBJECTIVES.items():
        found = {p.name: p.default for p in inspect.signature(objective).parameters.values()
                 if p.default != p.empty and p.kind != p.KEYWORD_ONLY}
        assert found == {key: default for key, (_, default) in PARAMETERS[name].items()}, name


@EACH
def test_what_is_masked_has_no_influence(objective: Objective) -> None:
    student, teacher = features()
    mask = half_masked()
    hidden = (mask == 0).expand_as(student)
    one = objective(student, teacher, mask)
    two = objective(student.masked_fill(hidden, 55), teacher.masked_fill(hidden, -7), mask)
    torch.testing.assert_close(one, two)


@EACH
def test_an_image_without_guidance_gives_zero_and_finite_gradients(objective: Objective) -> None:
    student, teacher = (x.float().requires_grad_() for x in features())
    loss = objective(student, teacher.detach() * 0, torch.zeros(3, 1, 6, 7))
    assert torch.equal(loss, torch.zeros(3))
    loss.sum().backward()
    assert torch.equal(student.grad, torch.zeros_like(student))


@EACH
def test_features_without_any_structure_give_finite_gradients(objective: Objective) -> None:
    student = torch.zeros(1, 2, 4, 5, requires_grad=True)
    objective(student, torch.zeros(1, 2, 4, 5), torch.ones(1, 1, 4, 5)).sum().backward()
    assert torch.isfinite(student.grad).all()


@EACH
def test_identical_features_give_zero(objective: Objective) -> None:
    student, _ = features()
    assert objective(student, student, half_masked()).abs().max() < 1e-4


@EACH
def test_gradient(objective: Objective) -> None:
    student, teacher = features(1, (3, 2, 6, 7))
    mask = half_masked()
    assert torch.autograd.gradcheck(
        lambda x: objective(x, teacher, mask), student.requires_grad_())


@EACH
def test_scale_and_level_of_a_teachers_channel_count_only_if_an_objective_says_so(
    objective: Objective,
) -> None:
    student, teacher = features()
    factor = torch.tensor([0.2, 30.0], dtype=torch.float64)[:, None, None]
    level = torch.tensor([-4.0, 100], dtype=torch.float64)[:, None, None]
    one = objective(student, teacher, half_masked())
    two = objective(student, teacher * factor + level, half_masked())
    if objective in (pearson, cwd):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    else:
        assert (two[:2] > 2 * one[:2]).all()
    assert standardizes(objective.__name__) == (objective in (pearson, cwd))


def test_style_ignores_positions_but_pearson_does_not() -> None:
    student, teacher = features()
    everything = torch.ones(3, 1, 6, 7, dtype=torch.float64)
    moved = teacher.roll((2, 3), (2, 3))
    torch.testing.assert_close(*(style(student, t, everything) for t in (teacher, moved)))
    of_places = [pearson_style(student, t, everything, 0.0, 1.0) for t in (teacher, moved)]
    assert ((of_places[0] - of_places[1]).abs() > 0.01).all()


def test_the_difference_of_standardized_features_is_twice_that_of_pearson() -> None:
    """This is what style_content, the earlier name of pearson_style, computed."""
    student, teacher = features()
    mask = half_masked()[:2]
    parts = []
    for x in (student[:2], teacher[:2]):
        mean = (x * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True)
        variance = ((x - mean).square() * mask).sum((2, 3), keepdim=True) / mask.sum(
            (2, 3), keepdim=True)
        parts.append((x - mean) / variance.sqrt())
    content = mse(*parts, mask)
    expected = content + 0.1 * style(student[:2], teacher[:2], mask)
    torch.testing.assert_close(
        pearson_style(student[:2], teacher[:2], mask), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize('name', ['pearson', 'cwd', 'pearson_style'])
def test_over_a_batch_an_image_of_little_contrast_counts_little(name: str) -> None:
    student, teacher = features()
    everything = torch.ones(3, 1, 6, 7, dtype=torch.float64)
    factor = torch.tensor([0.01, 1, 1], dtype=torch.float64)[:, None, None, None]
    alone, together = (
        objective_of(name, over)(student * factor, teacher * factor, everything)
        - objective_of(name, over)(student * factor, student * factor, everything)
        for over in (IMAGE, BATCH))
    assert together[0].abs() < 0.1 * alone[0].abs()
    assert (together[1:].abs() > 0.5 * alone[1:].abs()).all()


def test_pearson_distinguishes_agreement_from_contradiction() -> None:
    student, _ = features()
    everything = torch.ones(3, 1, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(
        pearson(student, -student, everything), torch.full((3,), 2.0, dtype=torch.float64),
        atol=1e-4, rtol=0)
