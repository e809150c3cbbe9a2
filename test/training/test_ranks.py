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

"""Losses of two processes, each with half of a batch, equal those of one process."""

from pathlib import Path
from typing import Any

from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.loss import detection_loss
from cgdet_core.detection.student import Student
from cgdet_core.distillation.config import ContrastiveConfig, GuidanceConfig, TeacherConfig
from cgdet_core.distillation.contrast import RoiContrast
from cgdet_core.distillation.guidance import Guidance
from cgdet_core.distillation.guide import TeacherPyramid
from cgdet_core.training.ranks import broadcast_from_first, gather_entries, gather_rows
from cgdet_core.training.sampler import EpochSampler
import pytest
import torch
from torch import distributed, multiprocessing, nn, Tensor

TINY = StudentConfig(channels=(8, 8, 16, 16), depths=(1, 1, 1, 1), neck_channels=16,
                     head_channels=16, bins=8)
SIZE = (64, 96)


def target(*boxes_and_label: tuple[int, int, int, int, int]) -> dict[str, Tensor]:
    rows = torch.tensor(boxes_and_label, dtype=torch.float32).reshape(-1, 5)
    return {'boxes': rows[:, :4], 'labels': rows[:, 4].long()}


FULL = [target((10, 10, 40, 50, 1), (60, 20, 80, 30, 2)), target(),
        target((5, 5, 60, 60, 1), (50, 5, 90, 30, 0), (0, 0, 9, 9, 2)), target((2, 2, 70, 60, 2))]
# One rank has neither objects nor RGB: it must still take part in everything.
LONELY = [FULL[0], FULL[2], target(), target()]
BATCHES = {'both guided': (FULL, [1, 0, 1, 1]), 'one rank empty': (LONELY, [1, 1, 0, 0]),
           'nothing at all': ([target()] * 4, [0, 0, 0, 0])}

KINDS = [('pyramid', 'frequency'), ('both', 'frequency'), ('roi', 'pearson'), ('both', 'cwd')]


def losses(case: str, part: slice, over: str, objective: str) -> dict[str, Any]:
    """Return losses and mean gradients of shared weights for a part of a fixed batch of four."""
    targets, guided = BATCHES[case]
    targets, guided = targets[part], guided[part]
    torch.manual_seed(0)
    # Evaluation mode: batch statistics are each rank's own by design.
    student = Student(3, TINY).eval()
    nn.init.normal_(student.head.box_out.weight, std=0.1)
    rcs = RoiContrast(16, 3, ContrastiveConfig(embedding=8, copies=0, queue=3))
    cmg = Guidance(16, (5, 5, 5), GuidanceConfig(
        teacher=TeacherConfig(path=Path('unused')), objective=objective, over=over))
    images, features, masks = torch.rand(4, 1, *SIZE)[part], [], []
    for s in (8, 16, 32):
        features.append(torch.randn(4, 5, SIZE[0] // s, SIZE[1] // s)[part])
        mask = torch.ones(4, 1, SIZE[0] // s, SIZE[1] // s)
        mask[0, :, :, :mask.shape[3] // 2] = 0  # only part of the first frame is under RGB
        masks.append(mask[part] * torch.tensor(guided)[:, None, None, None])
    # As in training: a rank without any RGB has no teacher pyramid.
    teacher = TeacherPyramid(features, masks) if any(guided) else None
    weights = {f'{k}.{name}': p for k, module in (
        ('student', student), ('rcs', rcs), ('cmg', cmg)) for name, p in module.named_parameters()}
    result: dict[str, Any] = {'gradients': {}}
    for step in range(2):  # in the second the queue is filled
        pyramid = student.pyramid(images)
        terms = {'det': detection_loss(*student.head(pyramid), targets, SIZE)['det'],
                 'rcs': rcs(pyramid, targets, torch.Generator()),
                 'cmg': cmg(pyramid, teacher, targets)}
        for name, term in terms.items():
            value = term.detach().clone()
            grads = [torch.zeros_like(p) for p in weights.values()]
            if term.requires_grad:
                found = torch.autograd.grad(
                    term, list(weights.values()), retain_graph=True, allow_unused=True)
                grads = [z if g is None else g for g, z in zip(found, grads)]
            if distributed.is_initialized():  # what DDP does
                for tensor in (value, *grads):
                    distributed.all_reduce(tensor)
                    tensor /= 2
            result[f'{name}{step}'] = value
            result['gradients'] |= {
                f'{name}{step} {k}': g for k, g in zip(weights, grads)}
    result['queue'] = torch.cat([rcs.queue.flatten(), rcs.filled.float()])
    return result


def helpers_in(rank: int) -> dict[str, Any]:
    rows = (torch.arange(6.0).reshape(3, 2) if rank else torch.full((1, 2), 9.0)).requires_grad_()
    joined = gather_rows(rows)
    (joined * torch.arange(8.0).reshape(4, 2) * (rank + 1)).sum().backward()
    labels = gather_rows(torch.arange(3) if rank else torch.zeros(0, dtype=torch.long))
    buffer = torch.full((3,), float(rank + 5))
    broadcast_from_first([buffer])
    return {'joined': joined.detach(), 'gradient': rows.grad, 'labels': labels,
            'nothing': gather_rows(torch.zeros(0, 2)), 'buffer': buffer,
            'entries': gather_entries({rank: 'a', 4 - rank: 'b'})}


def sampler(batch: int) -> EpochSampler:
    return EpochSampler(21, 5, batch, kinds=torch.arange(21) % 3 == 0, share=0.5)


SAMPLER = sampler(2)  # made before there is a process group, as the trainer makes it


def indices_of_two_epochs() -> list[list[int]]:
    result = []
    for epoch in range(2):
        SAMPLER.set_epoch(epoch)
        indices = [i for _, _, i in SAMPLER]
        assert len(indices) == len(SAMPLER)
        result.append(indices)
    return result


def in_rank(rank: int, folder: str) -> None:
    """Run one of two processes, which import this module before they connect."""
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{folder}/meet', rank=rank, world_size=2)
    half = slice(2 * rank, 2 * rank + 2)
    torch.save({
        'losses': {(case, *kind): losses(case, half, *kind) for case in BATCHES for kind in KINDS},
        'helpers': helpers_in(rank), 'indices': indices_of_two_epochs()}, f'{folder}/{rank}.pt')
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what two processes found."""
    folder = tmp_path_factory.mktemp('ranks')
    multiprocessing.spawn(in_rank, (str(folder),), 2)
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(('over', 'objective'), KINDS)
@pytest.mark.parametrize('case', BATCHES)
def test_losses_and_gradients_equal_those_of_one_process(
    ranks: list[dict[str, Any]], case: str, over: str, objective: str,
) -> None:
    one = losses(case, slice(0, 4), over, objective)
    # Where features are standardized the gradient of an adapter's bias is 0, up to rounding.
    rounding = 1e-7 if objective == 'frequency' else 1e-6
    for rank in ranks:
        two = rank['losses'][case, over, objective]
        for name in (f'{term}{step}' for step in (0, 1) for term in ('det', 'rcs', 'cmg')):
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6, msg=name)
        for name, expected in one['gradients'].items():
            scale = float(expected.abs().max())
            torch.testing.assert_close(
                two['gradients'][name], expected, rtol=1e-4, atol=1e-4 * scale + rounding)
        torch.testing.assert_close(two['queue'], one['queue'])
    if case != 'nothing at all':
        assert one['rcs0'] > 0 and one['cmg0'] > 0 and one['det0'] > 0
        assert one['rcs1'] != one['rcs0'], 'the queue changed nothing'


def test_rows_are_in_the_order_of_the_ranks_and_gradients_return(
    ranks: list[dict[str, Any]],
) -> None:
    for rank, found in enumerate(r['helpers'] for r in ranks):
        assert found['joined'].tolist() == [[9, 9], [0, 1], [2, 3], [4, 5]]
        # Each rank gets the sum of both ranks' gradients of its own rows: 1 + 2 times.
        weights = torch.arange(8.0).reshape(4, 2) * 3
        assert torch.equal(found['gradient'], weights[1:] if rank else weights[:1])
        assert found['labels'].tolist() == [0, 1, 2] and found['nothing'].shape == (0, 2)
        assert found['buffer'].tolist() == [5, 5, 5]
        assert list(found['entries'].items()) == [(0, 'a'), (1, 'a'), (3, 'b'), (4, 'b')]


def test_one_process_needs_no_group() -> None:
    rows = torch.rand(2, 3)
    assert gather_rows(rows) is rows and gather_entries({2: 'b', 1: 'a'}) == {1: 'a', 2: 'b'}


def test_the_ranks_batches_together_are_those_of_one_process(
    ranks: list[dict[str, Any]],
) -> None:
    one, two = (r['indices'] for r in ranks)
    whole = sampler(4)
    for epoch in range(2):
        whole.set_epoch(epoch)
        batches = torch.tensor([i for _, _, i in whole]).reshape(-1, 4)
        parts = [torch.tensor(r[epoch]).reshape(-1, 2) for r in (one, two)]
        assert all(len(part) == len(batches) == 5 for part in parts)
        assert torch.equal(torch.cat(parts, 1).sort(1).values, batches.sort(1).values)
        assert all((part % 3 == 0).sum(1).tolist() == [1] * 5 for part in parts)
    assert one[0] != one[1]
