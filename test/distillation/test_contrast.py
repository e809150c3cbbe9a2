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

"""RCS: against a plain reference in float64, gradients, queue, and batches that lack positives."""

import math

from cgdet_core.distillation.config import ContrastiveConfig
from cgdet_core.distillation.contrast import RoiContrast, supervised_contrastive_loss
from cgdet_core.distillation.rois import pool_rois
import pytest
import torch
from torch import Tensor
from torch.nn import functional


def reference(z, labels, temperature, balance=False, others=(), other_labels=()) -> float:
    """Return the loss by loops over Python numbers."""
    z = [[float(v) for v in row] for row in z]
    bank = z + [[float(v) for v in row] for row in others]
    kinds = [int(v) for v in (*labels, *other_labels)]
    losses: dict[int, list[float]] = {}
    for i, row in enumerate(z):
        likeness = {a: math.exp(sum(p * q for p, q in zip(row, bank[a])) / temperature)
                    for a in range(len(bank)) if a != i}
        positives = [p for p in likeness if kinds[p] == kinds[i]]
        if positives:
            total = sum(likeness.values())
            losses.setdefault(kinds[i], []).append(
                -sum(math.log(likeness[p] / total) for p in positives) / len(positives))
    if not losses:
        return 0.0
    if balance:
        return sum(sum(v) / len(v) for v in losses.values()) / len(losses)
    every = [v for group in losses.values() for v in group]
    return sum(every) / len(every)


def embeddings(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(
        torch.randn(count, 6, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize('balance', [False, True])
@pytest.mark.parametrize('labels', [
    [0, 0, 1, 1, 1, 2], [0, 1, 2, 2], [0, 1, 2], [1, 1, 1], [2], []], ids=str)
@pytest.mark.parametrize('earlier', [[], [0, 2, 2]], ids=str)
def test_equals_the_reference(labels: list[int], earlier: list[int], balance: bool) -> None:
    z, others = embeddings(len(labels), 1), embeddings(len(earlier), 2)
    kinds, other_kinds = torch.tensor(labels).long(), torch.tensor(earlier).long()
    found = supervised_contrastive_loss(z, kinds, 0.2, balance, others, other_kinds)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(
        reference(z, kinds, 0.2, balance, others, other_kinds), rel=1e-12, abs=1e-12)


def test_a_low_temperature_does_not_overflow() -> None:
    z = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    loss = supervised_contrastive_loss(z, torch.tensor([0, 1, 0, 1]), 0.005)
    # Each is closest to the wrong one: 2 / 0.005 apart.
    assert float(loss) == pytest.approx(400, rel=1e-5)


@pytest.mark.parametrize('balance', [False, True])
def test_gradient(balance: bool) -> None:
    z = embeddings(7, 3).requires_grad_()
    labels, other_labels = torch.tensor([0, 0, 1, 2, 2, 2, 0]), torch.tensor([1, 2])
    others = embeddings(2, 4)
    assert torch.autograd.gradcheck(
        lambda x: supervised_contrastive_loss(x, labels, 0.3, balance, others, other_labels), z)


def test_balancing_stops_a_common_class_from_drowning_a_rare_one() -> None:
    """Of 20 cars that agree and 2 bicycles that do not, the mean over classes is the worse."""
    z = torch.zeros(22, 2)
    z[:20, 0], z[20, 1], z[21, 1] = 1.0, 1.0, -1.0
    labels = torch.tensor([2] * 20 + [1] * 2)
    plain = supervised_contrastive_loss(z, labels, 0.5)
    balanced = supervised_contrastive_loss(z, labels, 0.5, True)
    bicycles = reference(z, labels, 0.5) * 22 - 20 * reference(z[:20], labels[:20], 0.5)
    assert bicycles > 0 and balanced > plain + 0.5


def pyramid(count: int, channels: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, channels, 128 // s, 160 // s, generator=generator)
            .requires_grad_() for s in (8, 16, 32)]


def target(*boxes_and_label: tuple[int, int, int, int, int]) -> dict[str, Tensor]:
    rows = torch.tensor(boxes_and_label, dtype=torch.float32).reshape(-1, 5)
    return {'boxes': rows[:, :4], 'labels': rows[:, 4].long()}


def contrast(**values) -> RoiContrast:
    torch.manual_seed(0)
    return RoiContrast(4, 3, ContrastiveConfig(embedding=5, **values))


TARGETS = [target((10, 10, 40, 60, 0), (60, 20, 100, 50, 2)), target(),
           target((0, 0, 150, 120, 2), (5, 5, 12, 30, 1))]


def test_regions_reach_the_loss_in_the_order_of_their_labels() -> None:
    rcs = contrast(copies=2, jitter=0.0, balance=False)
    levels = pyramid(3)
    loss = rcs(levels, TARGETS, torch.Generator())
    # Without jitter a copy is its box: embed each object alone, and compare with the reference.
    rows, labels = [], []
    for n, t in enumerate(TARGETS):
        own = [level[n:n + 1] for level in levels]
        for box, label in zip(t['boxes'], t['labels']):
            z = rcs.embed(pool_rois(own, box[None], torch.tensor([0]), 3))
            assert float(z.detach().norm()) == pytest.approx(1, rel=1e-5)
            rows += [z[0].tolist()] * 3
            labels += [int(label)] * 3
    assert loss.item() == pytest.approx(reference(rows, labels, 0.1), rel=1e-4)


def test_every_level_with_objects_and_the_projection_get_gradients() -> None:
    rcs, levels = contrast(), pyramid(3)
    rcs(levels, TARGETS, torch.Generator().manual_seed(0)).backward()
    assert levels[0].grad.abs().sum() > 0 and levels[2].grad.abs().sum() > 0
    assert not levels[0].grad[1].any(), 'the image without objects'
    assert levels[1].grad is None or not levels[1].grad.any(), 'no object is of its size'
    assert all(p.grad.abs().sum() > 0 for p in rcs.parameters())


def test_a_copy_makes_a_lone_object_an_anchor() -> None:
    lone = [target((10, 10, 40, 60, 0)), target((60, 20, 100, 50, 2))]
    assert contrast(copies=0)(pyramid(2), lone, torch.Generator()).item() == 0
    assert contrast(copies=1)(pyramid(2), lone, torch.Generator().manual_seed(1)).item() > 0


def test_a_batch_without_objects_has_zero_loss_and_a_backward() -> None:
    rcs, levels = contrast(queue=4), pyramid(2)
    loss = rcs(levels, [target(), target()], torch.Generator())
    assert loss.item() == 0
    loss.backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in rcs.parameters())
    assert not rcs.filled.any()


def test_copies_depend_only_on_the_generator() -> None:
    rcs = contrast(copies=2)

    def loss(seed: int) -> float:
        return float(rcs(pyramid(3), TARGETS, torch.Generator().manual_seed(seed)).detach())

    assert loss(1) == loss(1) != loss(2)


def test_the_queue_keeps_the_latest_of_each_class() -> None:
    rcs = contrast(queue=3)
    marks = torch.arange(1.0, 12)[:, None].expand(-1, 5)
    rcs._remember(marks[:2], torch.tensor([0, 2]))
    others, labels = rcs._earlier()
    assert labels.tolist() == [0, 2] and others[:, 0].tolist() == [1, 2]
    rcs._remember(marks[2:4], torch.tensor([0, 0]))
    rcs._remember(marks[4:6], torch.tensor([0, 2]))  # class 0 wraps around: 1 is forgotten
    others, labels = rcs._earlier()
    assert labels.tolist() == [0, 0, 0, 2, 2]
    assert sorted(others[:3, 0].tolist()) == [3, 4, 5] and others[3:, 0].tolist() == [2, 6]
    rcs._remember(marks[6:11], torch.zeros(5, dtype=torch.long))  # more than there is room for
    assert sorted(rcs._earlier()[0][:3, 0].tolist()) == [9, 10, 11]
    assert rcs.filled.tolist() == [7, 0, 2]


def test_the_queue_gives_a_lone_object_positives_in_training_only() -> None:
    rcs = contrast(copies=0, queue=2)
    lone = [target((10, 10, 40, 60, 1))]
    assert rcs.eval()(pyramid(1), lone, torch.Generator()).item() == 0
    assert not rcs.filled.any(), 'nothing is remembered outside of training'
    assert rcs.train()(pyramid(1), lone, torch.Generator()).item() == 0
    assert rcs.filled.tolist() == [0, 1, 0]
    other = [target((60, 20, 100, 50, 1)), target((0, 0, 30, 30, 0))]
    levels = pyramid(2, seed=5)
    loss = rcs(levels, other, torch.Generator())
    # Two contrasts for the one anchor: its positive of the earlier batch, and the other class.
    assert loss.item() > 0 and rcs.filled.tolist() == [1, 2, 0]
    loss.backward()
    assert levels[0].grad.abs().sum() > 0
    assert not rcs.queue.requires_grad


def test_the_queue_is_saved_with_the_weights() -> None:
    one, two = contrast(queue=2), contrast(queue=2)
    one(pyramid(3), TARGETS, torch.Generator())
    two.load_state_dict(one.state_dict())
    assert torch.equal(two.queue, one.queue) and torch.equal(two.filled, one.filled)
    assert one.filled.tolist() == [2, 2, 2]
