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

"""The samples of an epoch, their order and their ranks."""

from collections.abc import Iterator

from cgdet_core.errors import UserError
from cgdet_core.training.ranks import rank_and_ranks
import torch
from torch import Tensor
from torch.utils.data import Sampler

Key = tuple[int, int, int]  # epoch, place in the epoch, index of the frame


class EpochSampler(Sampler[Key]):
    """
    Shuffle the indices of an epoch and yield (epoch, place in it, index).

    The order depends only on seed and epoch, so a resumed run sees the samples of an
    uninterrupted one. `repeats` (one factor per index) shows rare classes more often. With
    `kinds` (a flag per index) and `share` every batch has that share of flagged frames; the kind
    with too few frames is repeated. `names` are those of the recipe key and of both kinds, for
    UserError. `batch` is the size of one rank's batches; those of all ranks together are the
    batches of a single process.
    """

    def __init__(self, length: int, seed: int, batch: int, repeats: Tensor | None = None,
                 kinds: Tensor | None = None, share: float | None = None,
                 names: tuple[str, str, str] = (
                     'data.pair_share', 'with RGB', 'without RGB')) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0
        self.repeats = torch.ones(length) if repeats is None else repeats
        self.kinds = torch.zeros(length, dtype=torch.bool) if kinds is None else kinds
        self.batch = batch
        self.share = share
        key, flagged, others = names
        if share is not None:
            if 0 < share * batch < 0.5:
                raise UserError(f'{key}={share} is less than half a frame of a batch of {batch}; '
                                'raise it or optim.batch_size.')
            if share < 1 and round(share * batch) == batch:
                raise UserError(f'{key}={share} leaves no frame {others} in a batch of {batch}; '
                                'lower it or raise optim.batch_size.')
            for part, flags, kind in ((share, self.kinds, flagged),
                                      (1 - share, ~self.kinds, others)):
                if part > 0 and not bool(flags.any()):
                    raise UserError(f'{key}={share} needs training frames {kind}, but there are '
                                    'none.')

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // (self.batch * rank_and_ranks()[1]) * self.batch

    def __iter__(self) -> Iterator[Key]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        everything = torch.arange(self.length)
        rank, ranks = rank_and_ranks()
        whole = self.batch * ranks
        batches = self.length // whole
        if self.share is None:
            order = self._draw(everything, batches * whole, generator).reshape(batches, whole)
        else:
            flagged = round(self.share * whole)
            parts = [(self.kinds, flagged), (~self.kinds, whole - flagged)]
            order = torch.cat([
                self._draw(everything[kind], batches * n, generator).reshape(batches, n)
                for kind, n in parts if n], 1)
        places = torch.arange(batches * whole).reshape(batches, whole)
        mine = torch.stack([places, order], -1)[:, rank::ranks].flatten(0, 1)
        return iter([(self.epoch, place, index) for place, index in mine.tolist()])

    def _draw(self, indices: Tensor, count: int, generator: torch.Generator) -> Tensor:
        weights = self.repeats[indices]
        if not bool((weights == 1).all()):
            return indices[torch.multinomial(weights, count, True, generator=generator)]
        rounds = -(-count // len(indices))
        order = [torch.randperm(len(indices), generator=generator) for _ in range(rounds)]
        return indices[torch.cat(order)[:count]]


def repeat_factors(label_sets: list[set[int]], threshold: float) -> Tensor:
    """
    Weight images by their rarest class (LVIS, arXiv 1908.03195, appendix B).

    r(c) = max(1, sqrt(threshold / f(c))), f(c) the share of images with class c.
    """
    classes = set().union(*label_sets)
    share = {c: sum(c in s for s in label_sets) / len(label_sets) for c in classes}
    factor = {c: max(1.0, (threshold / share[c]) ** 0.5) for c in classes}
    return torch.tensor([max((factor[c] for c in s), default=1.0) for s in label_sets])
