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

"""Training batches from frames, the same for the same seed with any number of workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cgdet_core.data.coco import CocoSet
from cgdet_core.detection import augmentation
from cgdet_core.detection.augmentation import uniform
from cgdet_core.detection.config import AugmentConfig
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.samples import CocoFrames, IGNORED, Sample, SyntheticFrames
from cgdet_core.distillation.coupling import batch_rgb, paint_rgb
from cgdet_core.distillation.guide import batch_teacher, Guide, Reader
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import prepare
from cgdet_core.training.ranks import rank_and_ranks
from cgdet_core.training.sampler import EpochSampler, Key, repeat_factors
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset


@dataclass(eq=False)
class AugmentedFrames(Dataset[Sample]):
    """
    Training samples of `size` = (width, height), drawn by (epoch, place, index).

    kinds: a flag per index; a mosaic then joins frames of one kind, so that the share of each in
    a batch stays as the sampler chose it. teacher is called before epoch `teacher_until`.
    unlabeled: frames from this index on have no labels; their samples also have `weak`, the image
    before its contrast is jittered. Before epoch `rgb_until` they have `rgb`, what `paint_rgb`
    returns. donors: frames with objects of the classes (labels) `pasted`.
    """

    sources: Sequence[Dataset[Sample]]
    size: tuple[int, int]
    config: AugmentConfig
    seed: int
    epochs: int
    kinds: Tensor | None = None
    teacher: Reader | None = None
    teacher_until: int | None = None  # by default to the end
    unlabeled: int | None = None
    rgb_until: int = 0
    donors: Sequence[int] = ()
    pasted: Sequence[int] = ()

    def __post_init__(self) -> None:
        self._frames: ConcatDataset[Sample] = ConcatDataset(self.sources)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, key: Key) -> Sample:
        epoch, place, index = key
        # Own generator state per sample: workers, resume and order change nothing.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1009 + epoch) * 1_000_003 + place)
            return self._draw(epoch, index)

    def _draw(self, epoch: int, index: int) -> Sample:
        c = self.config
        for source in self.sources:
            if isinstance(source, SyntheticFrames):
                source.set_epoch(epoch)
        sample = self._frame(index)
        if epoch < self.epochs - c.close_mosaic_epochs and uniform(0, 1) < c.mosaic:
            tiles = [sample, *(self._frame(i) for i in self._partners(index))]
            tiles = [tiles[i] for i in torch.randperm(4).tolist()]
            sample = augmentation.mosaic(tiles, self.size, c.scale, c.min_visible)
        else:
            sample = augmentation.random_window(
                sample, self.size, c.scale, self.size, c.min_visible)
        if uniform(0, 1) < c.flip:
            sample = augmentation.flip(sample)
        if self.unlabeled is not None and index >= self.unlabeled:
            sample['weak'] = sample['image'].as_subclass(Tensor)
        if uniform(0, 1) < c.contrast:
            sample['image'] = augmentation.jitter_contrast(sample['image'].as_subclass(Tensor), c)
        if epoch < self.rgb_until and (rgb := paint_rgb(sample['views'], self.size)) is not None:
            if uniform(0, 1) < c.contrast:
                rgb = rgb._replace(pixels=augmentation.jitter_contrast(rgb.pixels, c))
            sample['rgb'] = rgb
        until = self.epochs if self.teacher_until is None else self.teacher_until
        if self.teacher is not None and epoch < until:
            sample['teacher'] = self.teacher(sample['views'], self.size)
        return sample

    def _frame(self, index: int) -> Sample:
        """Return a frame, maybe with an object of another frame in it."""
        sample = self._frames[index]
        if not self.donors or (self.unlabeled is not None and index >= self.unlabeled):
            return sample
        if uniform(0, 1) >= self.config.paste:
            return sample
        donor = self.donors[int(torch.randint(len(self.donors), ()))]
        return augmentation.paste(sample, self._frames[donor], torch.tensor(self.pasted))

    def _partners(self, index: int) -> list[int]:
        if self.kinds is None:
            return torch.randint(len(self), (3,)).tolist()
        alike = (self.kinds == self.kinds[index]).nonzero()[:, 0]
        return alike[torch.randint(len(alike), (3,))].tolist()


def collate(samples: list[Sample]) -> dict[str, Any]:
    """
    Stack samples into a batch.

    images (N, C, H, W); targets: N dicts of boxes (M, 4), labels (M,) and ignored (I, 4),
    regions that are neither object nor background; and the entries of `batch_teacher` and
    `batch_rgb`. If there are samples without labels: unlabeled (N,), weak (U, C, H, W), their
    images before the jitter, and in their targets scores (M,).
    """
    targets = []
    for sample in samples:
        boxes, real = sample['boxes'].as_subclass(Tensor), sample['labels'] != IGNORED
        targets.append({'boxes': boxes[real], 'labels': sample['labels'][real],
                        'ignored': boxes[~real]})
        if 'weak' in sample:
            targets[-1]['scores'] = sample['scores'][real]
    images = torch.stack([s['image'].as_subclass(Tensor) for s in samples])
    batch = {'images': images, 'targets': targets, **batch_teacher(samples),
             **batch_rgb(samples)}
    if weak := [s['weak'] for s in samples if 'weak' in s]:
        batch |= {'unlabeled': torch.tensor(['weak' in s for s in samples]),
                  'weak': torch.stack(weak)}
    return batch


def epoch_sampler(recipe: DetectionRecipe, coco: CocoSet, unlabeled: int = 0) -> EpochSampler:
    """
    Return the order of the training frames; UserError if it cannot have the share of pairs.

    unlabeled: the number of frames without labels, which come last and have a share of their own.
    """
    synthetic, repeats = recipe.data.synthetic, None
    if recipe.unlabeled is not None:
        labeled = len(coco.images) + synthetic
        kinds = torch.arange(labeled + unlabeled) >= labeled
        return EpochSampler(len(kinds), recipe.seed, recipe.optim.batch_size, None, kinds,
                            recipe.unlabeled.share,
                            ('unlabeled.share', 'without labels', 'with labels'))
    paired = torch.tensor([r.rgb_path is not None for r in coco.images] + [False] * synthetic)
    if recipe.data.repeat_threshold:
        labels = [set(r.labels[r.crowd == 0].tolist()) for r in coco.images]
        repeats = torch.cat([repeat_factors(labels, recipe.data.repeat_threshold),
                             torch.ones(synthetic)])
    return EpochSampler(len(paired), recipe.seed, recipe.optim.batch_size, repeats, paired,
                        recipe.data.pair_share)


def train_loader(
    recipe: DetectionRecipe, coco: CocoSet, guide: Guide | None = None,
    unlabeled: CocoSet | None = None,
) -> DataLoader[Any]:
    """Return the training batches; unlabeled: further frames, with the boxes a teacher found."""
    synthetic, more = recipe.data.synthetic, len(unlabeled.images) if unlabeled else 0
    labeled = len(coco.images) + synthetic
    cache = recipe.data.cache_gib * 2 ** 30 / max(1, recipe.run.workers) / (labeled + more)
    (width, height), scale = recipe.input_size, recipe.augment.scale[1]
    largest = (round(width * scale), round(height * scale))

    def read(frames: CocoSet) -> CocoFrames:
        return CocoFrames(
            frames, recipe.normalization, recipe.model.in_channels, largest,
            cache * len(frames.images), 'skip' if guide is None else guide.unpaired)

    sources: list[Dataset[Sample]] = [read(coco)]
    if synthetic:
        sources.append(SyntheticFrames(
            synthetic, recipe.normalization, recipe.classes, recipe.seed, cache * synthetic))
    if unlabeled is not None:
        sources.append(read(unlabeled))
    sampler = epoch_sampler(recipe, coco, more)
    pasted = [recipe.classes.index(name)
              for name in recipe.augment.paste_classes or recipe.classes]
    donors = [index for index, record in enumerate(coco.images) if recipe.augment.paste
              and np.isin(record.labels[record.crowd == 0], pasted).any()]
    frames = AugmentedFrames(
        sources, recipe.input_size, recipe.augment, recipe.seed, recipe.optim.epochs,
        sampler.kinds if sampler.share is not None else None,
        guide.reader if guide else None,
        recipe.cmg.stop_epoch if recipe.cmg and not recipe.coupled else None,
        None if unlabeled is None else labeled,
        (recipe.coupled.stop_epoch or recipe.optim.epochs) if recipe.coupled and guide else 0,
        donors, pasted)
    return DataLoader(
        frames, recipe.optim.batch_size, sampler=sampler, collate_fn=collate,
        num_workers=recipe.run.workers, drop_last=True,
        persistent_workers=recipe.run.workers > 0, pin_memory=torch.cuda.is_available())


class PreparedBatch(NamedTuple):
    """Network inputs (N, C, H, W), the frames' indices in the set and their original sizes."""

    images: Tensor
    indices: list[int]
    sizes: list[tuple[int, int]]  # width, height


@dataclass(eq=False)
class PreparedFrames(Dataset[tuple[int, Tensor, tuple[int, int]]]):
    """Frames of a set, read and prepared in loading workers in the same way as on the robot."""

    coco: CocoSet
    card: DetectionCard

    def __len__(self) -> int:
        return len(self.coco.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor, tuple[int, int]]:
        record = self.coco.images[index]
        width, height = self.card.input_size
        image = np.zeros((self.card.channels, height, width), np.float32)
        try:
            box = prepare(record.read(self.card.channels, self.card.polarity), self.card, image)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f'{record.path}: {error}.') from None
        return index, torch.from_numpy(image), box.source


def collate_prepared(samples: list[tuple[int, Tensor, tuple[int, int]]]) -> PreparedBatch:
    indices, images, sizes = zip(*samples)
    return PreparedBatch(torch.stack(images), list(indices), list(sizes))


def val_loader(recipe: DetectionRecipe, coco: CocoSet, card: DetectionCard) -> DataLoader[Any]:
    """Return this rank's share of the validation frames, in batches."""
    rank, ranks = rank_and_ranks()
    # Every rank validates at least one frame: with fewer frames than ranks some are repeated.
    mine = Subset(PreparedFrames(coco, card), [
        i % len(coco.images) for i in range(rank, max(len(coco.images), ranks), ranks)])
    return DataLoader(mine, recipe.optim.batch_size, collate_fn=collate_prepared,
                      num_workers=recipe.run.workers)
