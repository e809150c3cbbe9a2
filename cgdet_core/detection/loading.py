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

"""From frames to training batches, the same for the same seed whatever the workers."""

from collections.abc import Iterator
from typing import Any

from cgdet_core.detection.augmentation import (
    AugmentConfig,
    flip,
    jitter_contrast,
    mosaic,
    random_window,
    uniform,
)
from cgdet_core.detection.samples import FrameSource, IGNORED, Sample
from cgdet_core.distillation.guide import batch_teacher, Reader
from cgdet_core.errors import UserError
from cgdet_core.training.ranks import rank_and_ranks
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

Key = tuple[int, int, int]  # epoch, place in the epoch, index of the frame


class EpochSampler(Sampler[Key]):
    """
    Shuffle the indices of an epoch and hand out (epoch, place in it, index).

    The order depends on seed and epoch alone, so a resumed run sees what an uninterrupted one
    sees. `repeats` (one factor per index) shows rare classes more often. With `paired` (a flag
    per index) and `pair_share` every batch holds that share of paired frames; the kind that is
    too few is repeated. Of several ranks each takes its part of every batch: `batch` is one
    rank's, and the batches of all ranks together are those of a single process.
    """

    def __init__(
        self, length: int, seed: int, batch: int, repeats: Tensor | None = None,
        paired: Tensor | None = None, pair_share: float | None = None,
    ) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0
        self.repeats = torch.ones(length) if repeats is None else repeats
        self.paired = torch.zeros(length, dtype=torch.bool) if paired is None else paired
        self.batch = batch
        self.pair_share = pair_share
        if pair_share is not None:
            if 0 < pair_share * batch < 0.5:
                raise UserError(f'data.pair_share={pair_share} is less than half a frame of a '
                                f'batch of {batch}; raise it or optim.batch_size.')
            for share, flags, kind in ((pair_share, self.paired, 'with'),
                                       (1 - pair_share, ~self.paired, 'without')):
                if share > 0 and not bool(flags.any()):
                    raise UserError(f'data.pair_share={pair_share} needs training frames {kind} '
                                    'RGB, but there are none.')

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // (self.batch * rank_and_ranks()[1]) * self.batch

    def __iter__(self) -> Iterator[Key]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        everything = torch.arange(self.length)
        rank, ranks = rank_and_ranks()
        whole = self.batch * ranks
        batches = self.length // whole
        if self.pair_share is None:
            order = self._draw(everything, batches * whole, generator).reshape(batches, whole)
        else:
            pairs = round(self.pair_share * whole)
            parts = [(self.paired, pairs), (~self.paired, whole - pairs)]
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
    Weigh images by their rarest class (LVIS, arXiv 1908.03195, appendix B).

    r(c) = max(1, sqrt(threshold / f(c))), f(c) the share of images with class c.
    """
    classes = set().union(*label_sets)
    share = {c: sum(c in s for s in label_sets) / len(label_sets) for c in classes}
    factor = {c: max(1.0, (threshold / share[c]) ** 0.5) for c in classes}
    return torch.tensor([max((factor[c] for c in s), default=1.0) for s in label_sets])


class AugmentedFrames(Dataset[Sample]):
    """
    Training samples of `size` = (width, height), drawn by (epoch, place, index).

    paired: a flag per index; a mosaic then joins frames of one kind, so that the share of pairs
    in a batch stays what the sampler chose. teacher is asked before epoch `teacher_until`.
    """

    def __init__(
        self, sources: list[FrameSource], size: tuple[int, int], config: AugmentConfig,
        seed: int, epochs: int, paired: Tensor | None = None,
        teacher: Reader | None = None, teacher_until: int | None = None,
    ) -> None:
        self.sources = sources
        self.size = size
        self.config = config
        self.seed = seed
        self.last_mosaic_epoch = epochs - config.close_mosaic_epochs
        self.paired = paired
        self.teacher = teacher
        self.teacher_until = epochs if teacher_until is None else teacher_until

    def __len__(self) -> int:
        return sum(len(s) for s in self.sources)

    def frame(self, index: int) -> Sample:
        """Return the plain sample number `index` over all sources."""
        for source in self.sources:
            if index < len(source):
                return source[index]
            index -= len(source)
        raise IndexError(index)

    def __getitem__(self, key: Key) -> Sample:
        epoch, place, index = key
        # Own generator state per sample: workers, resume and order change nothing.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1009 + epoch) * 1_000_003 + place)
            return self._draw(epoch, index)

    def _draw(self, epoch: int, index: int) -> Sample:
        c = self.config
        sample = self.frame(index)
        if epoch < self.last_mosaic_epoch and uniform(0, 1) < c.mosaic:
            others = self._partners(index)
            tiles = [sample, *(self.frame(i) for i in others)]
            order = torch.randperm(4).tolist()
            sample = mosaic([tiles[i] for i in order], self.size, c.scale, c.min_visible)
        else:
            sample = random_window(sample, self.size, c.scale, self.size, c.min_visible)
        if uniform(0, 1) < c.flip:
            sample = flip(sample)
        if uniform(0, 1) < c.contrast:
            sample['image'] = jitter_contrast(sample['image'].as_subclass(Tensor), c)
        if self.teacher is not None and epoch < self.teacher_until:
            sample['teacher'] = self.teacher(sample['views'], self.size)
        return sample

    def _partners(self, index: int) -> list[int]:
        if self.paired is None:
            return torch.randint(len(self), (3,)).tolist()
        alike = (self.paired == self.paired[index]).nonzero()[:, 0]
        return alike[torch.randint(len(alike), (3,))].tolist()


def collate(samples: list[Sample]) -> dict[str, Any]:
    """
    Stack samples into a batch.

    images (N, C, H, W); targets: N dicts of boxes (M, 4), labels (M,) and ignored (I, 4), regions
    that are neither object nor background; and what `batch_teacher` gives.
    """
    targets = []
    for sample in samples:
        boxes, real = sample['boxes'].as_subclass(Tensor), sample['labels'] != IGNORED
        targets.append({'boxes': boxes[real], 'labels': sample['labels'][real],
                        'ignored': boxes[~real]})
    return {
        'images': torch.stack([s['image'].as_subclass(Tensor) for s in samples]),
        'targets': targets,
        **batch_teacher(samples),
    }
