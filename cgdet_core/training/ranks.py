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

"""Communication of ranks, so that several processes train as a single one would."""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import distributed, Tensor
from torch.nn import functional

T = TypeVar('T')


def rank_and_ranks() -> tuple[int, int]:
    """Return this process's rank and the number of ranks, which are known once training starts."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _ranks() -> int:
    return rank_and_ranks()[1]


def mean_over_ranks(value: Tensor, minimum: float) -> Tensor:
    """
    Average a normalizer (a scalar without gradient) over the ranks; its sum is at least `minimum`.

    Each rank divides its sum by this; the mean of gradients that DDP forms is then the gradient
    of the whole batch's sum over the whole batch's normalizer. Every rank must call it.
    """
    if _ranks() == 1:
        return value.clamp(min=minimum)
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total.clamp(min=minimum) / _ranks()


def gather_rows(rows: Tensor) -> Tensor:
    """
    Concatenate (R, D) of all ranks, R may differ; gradients flow back to every rank.

    If each rank computes the same loss of the gathered rows, DDP's mean of gradients equals the
    gradient in a single process.
    """
    if _ranks() == 1:
        return rows
    count = torch.tensor(len(rows), device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(_ranks())]
    distributed.all_gather(counts, count)
    longest = int(max(counts))
    padding = [0, 0] * (rows.ndim - 1) + [0, longest - len(rows)]
    parts = _Gather.apply(functional.pad(rows, padding))
    return torch.cat([part[:int(n)] for part, n in zip(parts, counts)])


class _Gather(torch.autograd.Function):
    """Stack tensors of equal shapes of all ranks; the gradient is the sum of all ranks'."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(_ranks())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]


def gather_entries(part: dict[int, T]) -> dict[int, T]:
    """Join the entries of all ranks, in the order of their keys; a key belongs to one rank."""
    parts = [part] * _ranks()
    if _ranks() > 1:
        distributed.all_gather_object(parts, part)
    joined = {key: value for entries in parts for key, value in entries.items()}
    return {key: joined[key] for key in sorted(joined)}


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of rank zero."""
    if _ranks() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, 0)
