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

"""Training samples: an object in template crops and in a searched crop."""

from dataclasses import dataclass
from typing import Any

from cgdet_core.runtime.tracking.card import CELLS, STRIDE
from cgdet_core.runtime.tracking.region import coverage
from cgdet_core.tracking.config import CropConfig
from cgdet_core.tracking.crops import Crop, cut, distract, jitter, mirror, occlude
from cgdet_core.tracking.frames import FrameCache as FrameCache
from cgdet_core.tracking.frames import Objects
from cgdet_core.tracking.recipe import TrackingRecipe
from cgdet_core.training.sampler import EpochSampler, Key
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Sample = dict[str, Any]


@dataclass(eq=False)
class TrackingSamples(Dataset[Sample]):
    """
    Samples drawn by (epoch, place, index), of which index says nothing.

    A sample has `crops` (T + 1, 1, S, S) of which the last is searched, their `boxes` (T + 1, 4)
    in pixels, `mask` (CELLS, CELLS) of the first template, `rgb` (T + 1,), and `extents`, whether
    the box is that of an object.
    """

    objects: Objects
    recipe: TrackingRecipe
    cache: FrameCache

    def __len__(self) -> int:
        return self.recipe.data.objects

    def __getitem__(self, key: Key) -> Sample:
        epoch, place, _ = key
        rng = np.random.default_rng((self.recipe.seed, epoch, place))
        return self.draw(rng, self._row(rng), self.recipe.crops)

    def _row(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a row of the objects; every frame is as likely, not every object."""
        swap, data = self.recipe.swap, self.recipe.data
        rows = self.objects.stills
        if swap is not None and rng.random() < swap.share:
            rows = self.objects.swapped
        elif len(self.objects.moved) and rng.random() >= data.stills:
            rows = self.objects.moved
        frames = rows[rng.integers(len(rows)), 0]
        mine = rows[rows[:, 0] == frames]
        row = mine[rng.integers(len(mine))]
        return row if rng.random() < 0.5 else np.roll(row, 2)  # and back

    def draw(self, rng: np.random.Generator, row: NDArray[np.int64], config: CropConfig,
             ) -> Sample:
        """Return the sample of a row (frame, object, frame, object)."""
        source, frames = row.tolist(), self.objects.frames
        side = config.factor * config.size / self.recipe.input_size
        flipped = rng.random() < config.flip
        crops = []
        for last in (*[False] * config.templates, True):
            number, place = source[2:] if last else source[:2]
            shift, scale, stretch = (
                (config.shift, config.scale, config.stretch) if last else
                (config.template_shift * bool(crops), config.template_scale, 0.0))
            crop = cut(self.cache.get(number), frames[number].boxes[place].astype(np.float64),
                       side, config.size, rng, shift, scale, stretch)
            if last:
                crop = self._disturb(rng, crop, number, place, config)
            crop = mirror(crop) if flipped else crop
            crops.append(Crop(jitter(crop.image, config, rng), crop.box))
        first = frames[source[0]], frames[source[2]]
        return {
            'crops': torch.from_numpy(np.stack([c.image for c in crops])[:, None]),
            'boxes': torch.from_numpy(np.stack([c.box for c in crops]).astype(np.float32)),
            'mask': torch.from_numpy(coverage(crops[0].box, config.size, CELLS, STRIDE)),
            'rgb': torch.tensor([first[0].rgb] * config.templates + [first[1].rgb]),
            'extents': torch.tensor(first[0].extents)}

    def _disturb(self, rng: np.random.Generator, crop: Crop, number: int, place: int,
                 config: CropConfig) -> Crop:
        """Return a searched crop with what may hide its object or look like it."""
        if rng.random() < config.distract:
            frame = self.objects.frames[number]
            alike = np.flatnonzero(frame.labels == frame.labels[place])
            alike = alike[alike != place]
            if not len(alike):  # of another frame, whatever it is
                number, place = self.objects.stills[rng.integers(len(self.objects.stills)), :2]
            else:
                place = int(rng.choice(alike))
            box = self.objects.frames[number].boxes[place].astype(np.float64)
            grown = 0.1 * np.array([*(box[:2] - box[2:]), *(box[2:] - box[:2])])
            image = self.cache.get(int(number))
            x1, y1, x2, y2 = np.clip(box + grown, 0, [*image.shape[::-1]] * 2).astype(int)
            if x2 - x1 > 3 and y2 - y1 > 3:
                crop = distract(crop, image[y1:y2, x1:x2], rng)
        if rng.random() < config.occlude:
            frame_count = len(self.objects.frames)
            crop = occlude(crop, self.cache.get(int(rng.integers(frame_count))), rng)
        return crop


def collate(samples: list[Sample]) -> dict[str, Tensor]:
    """Stack samples into a batch."""
    return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}


def train_loader(recipe: TrackingRecipe, objects: Objects) -> DataLoader[Any]:
    """Return the training batches."""
    workers = recipe.run.workers
    cache = FrameCache(objects.frames, recipe.normalization,
                       recipe.data.cache_gib * 2 ** 30 / max(1, workers))
    sampler = EpochSampler(recipe.data.objects, recipe.seed, recipe.optim.batch_size)
    return DataLoader(
        TrackingSamples(objects, recipe, cache), recipe.optim.batch_size, sampler=sampler,
        collate_fn=collate, num_workers=workers, drop_last=True, persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available())


@dataclass(eq=False)
class ValidationSamples(Dataset[Sample]):
    """Samples of validation objects, the same in each epoch: shifted and scaled, not disturbed."""

    samples: TrackingSamples
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((12, index))
        config = self.samples.recipe.crops.model_copy(update={
            'size': self.samples.recipe.input_size, 'templates': 1, 'flip': 0.0, 'blur': 0.0,
            'occlude': 0.0})
        return self.samples.draw(rng, self.rows[index], config)
