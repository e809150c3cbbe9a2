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
from cgdet_core.tracking.crops import Crop, cut, distract, jitter, Levels, mirror, occlude
from cgdet_core.tracking.frames import FrameCache, Objects
from cgdet_core.tracking.recipe import TargetRecipe
from cgdet_core.training.ranks import rank_and_ranks
from cgdet_core.training.sampler import EpochSampler, Key
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

Sample = dict[str, Any]
FLAT = 20.0  # levels, of 256: standard deviation of a patch that shows nothing


@dataclass(eq=False)
class TrackingSamples(Dataset[Sample]):
    """
    Samples drawn by (epoch, place, index), of which index says nothing.

    A sample has `crops` (T + 1, 1, S, S), or with RGB (T + 1, 4, S, S), of which the last is
    searched, their `boxes` (T + 1, 4) in pixels, `mask` (CELLS, CELLS) of the first template, and
    `rgb` (T + 1,), whether it is RGB.
    """

    objects: Objects
    recipe: TargetRecipe
    cache: FrameCache

    def __len__(self) -> int:
        return self.recipe.data.objects

    def __getitem__(self, key: Key) -> Sample:
        epoch, place, _ = key
        rng = np.random.default_rng((self.recipe.seed, epoch, place))
        if rng.random() < self.recipe.data.patches:
            number = int(rng.integers(len(self.objects.frames)))
            box = patch(self.cache.get(number), rng)
            return self._cut(rng, (number, number), (box, box), None, self.recipe.crops)
        return self.draw(rng, self._row(rng), self.recipe.crops)

    def _row(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a row of the objects, each as likely, and either of its frames first."""
        share, data = self.recipe.pairs_share, self.recipe.data
        rows = self.objects.stills
        if share and rng.random() < share:
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
        one, first, other, second = row.tolist()
        boxes = [self.objects.frames[n].boxes[o].astype(np.float64)
                 for n, o in ((one, first), (other, second))]
        return self._cut(rng, (one, other), (boxes[0], boxes[1]), second, config)

    def _cut(self, rng: np.random.Generator, numbers: tuple[int, int],
             boxes: tuple[NDArray[np.float64], NDArray[np.float64]], place: int | None,
             config: CropConfig) -> Sample:
        """
        Return a sample of boxes in two frames, of which the second is searched.

        place: of the second box in its frame; None: it is of no object.
        """
        side = config.factor * config.size / self.recipe.input_size
        flipped = rng.random() < config.flip
        crops: list[Crop] = []
        for last in (*[False] * config.templates, True):
            shift, scale, stretch = (
                (config.shift, config.scale, config.stretch) if last else
                (config.template_shift * bool(crops), config.template_scale, 0.0))
            crop = cut(self.cache.get(numbers[last]), boxes[last], side, config.size, rng, shift,
                       scale, stretch)
            if last:
                crop = self._disturb(rng, crop, numbers[1], place, config)
            crop = mirror(crop) if flipped else crop
            crops.append(Crop(self._jitter(rng, crop.image, numbers, config), crop.box))
        rgb = [self.objects.frames[n].rgb for n in numbers]
        images = np.stack([np.atleast_3d(c.image).transpose(2, 0, 1) for c in crops])
        return {
            'crops': torch.from_numpy(images),
            'boxes': torch.from_numpy(np.stack([c.box for c in crops]).astype(np.float32)),
            'mask': torch.from_numpy(coverage(crops[0].box, config.size, CELLS, STRIDE)),
            'rgb': torch.tensor(rgb[:1] * config.templates + rgb[1:])}

    def _jitter(self, rng: np.random.Generator, image: NDArray[np.float32],
                numbers: tuple[int, int], config: CropConfig) -> NDArray[np.float32]:
        """Return a changed crop; its RGB is changed by itself, and 0 if a frame has none."""
        if image.ndim == 2:
            return jitter(image, config, rng)
        thermal, rgb = jitter(image[..., 0], config, rng), jitter(image[..., 1:], config, rng)
        shown = all(self.objects.frames[n].paired for n in numbers)
        return np.concatenate([thermal[..., None], rgb * np.float32(shown)], 2)

    def _disturb(self, rng: np.random.Generator, crop: Crop, number: int,
                 place: int | None, config: CropConfig) -> Crop:
        """Return a searched crop with what may hide its object or look like it."""
        if rng.random() < config.distract:
            frame = self.objects.frames[number]
            alike = np.zeros(0, np.int64)
            if place is not None:
                alike = np.flatnonzero(frame.labels == frame.labels[place])
                alike = alike[alike != place]
            if not len(alike):  # of another frame, whatever it is
                number, place = self.objects.stills[rng.integers(len(self.objects.stills)), :2]
            else:
                place = int(rng.choice(alike))
            box = self.objects.frames[number].boxes[place].astype(np.float64)
            grown = 0.1 * np.array([*(box[:2] - box[2:]), *(box[2:] - box[:2])])
            image = self.cache.get(int(number))
            x1, y1, x2, y2 = np.clip(box + grown, 0, [*image.shape[1::-1]] * 2).astype(int)
            if x2 - x1 > 3 and y2 - y1 > 3:
                crop = distract(crop, image[y1:y2, x1:x2], rng)
        if rng.random() < config.occlude:
            frame_count = len(self.objects.frames)
            crop = occlude(crop, self.cache.get(int(rng.integers(frame_count))), rng)
        return crop


def patch(image: Levels, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random box (4,) in a frame, if possible one that shows something."""
    thermal = image if image.ndim == 2 else image[..., 0]
    height, width = thermal.shape
    for _ in range(8):
        root = min(np.exp(rng.uniform(np.log(20), np.log(160))), 0.4 * min(height, width))
        stretch = np.exp(rng.uniform(-0.5, 0.5))
        w, h = root * stretch, root / stretch
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        if thermal[int(y):int(y + h), int(x):int(x + w)].std() > FLAT:
            break
    return np.array([x, y, x + w, y + h])


def collate(samples: list[Sample]) -> dict[str, Tensor]:
    """Stack samples into a batch."""
    return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}


def train_loader(recipe: TargetRecipe, objects: Objects, both: bool = False) -> DataLoader[Any]:
    """Return the training batches; both: of thermal and RGB."""
    workers = recipe.run.workers
    cache = FrameCache(objects.frames, recipe.normalization,
                       recipe.data.cache_gib * 2 ** 30 / max(1, workers), both)
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


def validation_loader(recipe: TargetRecipe, objects: Objects, both: bool = False,
                      ) -> DataLoader[Any]:
    """Return this rank's share of the validation batches; both: of thermal and RGB."""
    cache = FrameCache(objects.frames, recipe.normalization, 0, both)
    samples = ValidationSamples(TrackingSamples(objects, recipe, cache), objects.moved)
    rank, ranks = rank_and_ranks()
    mine = Subset(samples, list(range(rank, len(samples), ranks)))
    return DataLoader(mine, recipe.optim.batch_size, collate_fn=collate,
                      num_workers=recipe.run.workers)
