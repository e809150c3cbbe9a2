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

"""The training module of a tracker."""

from typing import Any

from cgdet_core.data.coco import warn_of_shared
from cgdet_core.data.show import evenly
from cgdet_core.errors import UserError
from cgdet_core.machine import commit
from cgdet_core.runtime.tracking.card import STRIDE, tracking_card, TrackingCard
from cgdet_core.runtime.tracking.decoding import best_places, refine
from cgdet_core.tracking.filter import correlate, pad
from cgdet_core.tracking.frames import (
    collect,
    in_sequences,
    Objects,
    read_sets,
    still_rows,
)
from cgdet_core.tracking.losses import box_loss, score_labels, score_loss
from cgdet_core.tracking.network import DeployedTracker, TrackerNet
from cgdet_core.tracking.overlap import auc_and_precision, overlap_and_error
from cgdet_core.tracking.recipe import TargetRecipe, TrackingRecipe
from cgdet_core.tracking.samples import train_loader, validation_loader
from cgdet_core.tracking.starting import origin_of, start
from cgdet_core.training.module import Losses, TaskModule, with_size
from cgdet_core.training.ranks import gather_entries, rank_and_ranks
import numpy as np
import torch
from torch import nn, Tensor
from torch.utils.data import DataLoader

STEPS = 10  # of the filter's optimizer in validation, as at a start on the robot


class TrackingTraining(TaskModule):
    """
    Train a tracker by L = box L_bb + final L_final + init L_init + iter / n sum L_iter (CMD).

    Crops of both modalities pass the same network, each modality by itself: normalization layers
    that are trained see one at a time, and keep the statistics of thermal crops.
    """

    monitor = 'val/AUC'
    recipe: TrackingRecipe
    card: TrackingCard

    def __init__(self, recipe: TrackingRecipe) -> None:
        super().__init__(recipe)
        self.objects = collect(recipe)
        self.val_objects = validation_objects(recipe)
        warn_of_shared_frames(recipe, self.val_objects, self.objects)
        self.student = TrackerNet(recipe.model)
        self.card = make_card(recipe, self.student, recipe.data.license or self.objects.license)
        if recipe.optim.frozen_norms:
            self.frozen = [m for m in self.student.backbone.modules()
                           if isinstance(m, nn.BatchNorm2d)]
        self._found: dict[int, tuple[float, float]] = {}

    def load_start(self) -> None:
        start(self.student, self.student.backbone, self.recipe)

    def describe(self) -> dict[str, str]:
        found = self.objects
        return {'objects': f'{len(found.stills)} in {len(found.frames)} frames, '
                           f'{len(found.moved)} pairs in sequences, '
                           f'{len(found.swapped)} in thermal and RGB',
                'validation': f'{len(self.val_objects.stills)} objects'}

    def train_dataloader(self) -> DataLoader[Any]:
        return train_loader(self.recipe, self.objects)

    def val_dataloader(self) -> DataLoader[Any]:
        return validation_loader(self.recipe, self.val_objects)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.student.backbone.requires_grad_(self.current_epoch >= self.recipe.frozen_epochs)

    def on_fit_start(self) -> None:
        self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def losses(self, batch: dict[str, Tensor]) -> Losses:
        crops, rgb = batch['crops'], batch['rgb']
        fused, features = self._features(crops, rgb)
        weights, size = self.recipe.loss, features.shape[-1]
        with torch.autocast(self.device.type, enabled=False):
            features, boxes = features.float(), batch['boxes'].float()
            centers = (boxes[..., :2] + boxes[..., 2:]) / (2 * STRIDE)
            filters = self.student.optimizer(features[:, :-1], centers[:, :-1], weights.steps)
            searched = pad(features[:, -1:])
            labels = score_labels(centers[:, -1], size + 1, weights.sigma)
            found = [score_loss(correlate(searched, f)[:, 0], labels, weights.threshold)
                     for f in filters]
        terms = {'init': weights.init * found[0], 'final': weights.final * found[-1]}
        if len(found) > 2:
            terms['iterations'] = weights.iterations * torch.stack(found[1:-1]).mean()
        template = self._template(fused[:, 0], batch['mask'])
        predicted, quality = self._boxes(fused[:, -1], template, rgb[:, -1])
        bb, details = box_loss(predicted, quality, boxes[:, -1])
        terms['box'] = weights.box * bb
        return Losses(terms, details, [fused, features], len(crops))

    def _features(self, crops: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Return fused and filter features (B, T, C, H, W), computed by modality."""
        flat = crops.flatten(0, 1).to(memory_format=torch.channels_last)
        found = _by_modality(self.student, self.student.features, rgb.flatten(), flat)
        fused, features = (f.unflatten(0, crops.shape[:2]) for f in found)
        return fused, features

    def _template(self, fused: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([self.student.template(fused), mask[:, None].to(fused.dtype)], 1)

    def _boxes(self, fused: Tensor, template: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        boxes, quality = _by_modality(self.student.head, self.student.boxes, rgb, fused, template)
        return boxes, quality

    @torch.no_grad()
    def validate(self, batch: dict[str, Tensor]) -> None:
        rank, ranks = rank_and_ranks()
        with torch.autocast(self.device.type, enabled=False):
            fused, features = self._features(batch['crops'], torch.zeros_like(batch['rgb']))
            centers = (batch['boxes'][..., :2] + batch['boxes'][..., 2:]) / (2 * STRIDE)
            last = self.student.optimizer(features[:, :-1], centers[:, :-1], STEPS)[-1]
            scores = correlate(pad(features[:, -1:]), last)[:, 0]
            boxes, quality = self.student.boxes(
                fused[:, -1], self._template(fused[:, 0], batch['mask']))
        arrays = (scores, boxes, quality.sigmoid()[:, 0], batch['boxes'][:, -1])
        for score, box, good, truth in zip(*(a.float().cpu().numpy() for a in arrays)):
            place = best_places(refine(score), box, good)[0].box
            index = len(self._found) * ranks + rank
            self._found[index] = overlap_and_error(place, truth)

    def validation_metrics(self) -> dict[str, float]:
        found = np.array([*gather_entries(self._found).values()])
        self._found = {}
        return dict(zip(('val/AUC', 'val/precision'), auc_and_precision(found)))


def _by_modality(norms_of: nn.Module, run: Any, rgb: Tensor,
                 *inputs: Tensor) -> tuple[Tensor, ...]:
    """
    Return what `run` returns for rows of inputs, thermal and RGB rows by themselves.

    The normalization layers of `norms_of` keep the running statistics of thermal rows.
    """
    if not bool(rgb.any()):
        return tuple(run(*inputs))
    parts: list[tuple[Tensor, tuple[Tensor, ...]]] = []
    for flag in (False, True):
        rows = (rgb == flag).nonzero()[:, 0]
        if not len(rows):
            continue
        norms = [m for m in norms_of.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
        kept = [(m, m.momentum) for m in norms] if flag else []
        for norm, _ in kept:
            norm.momentum = 0.0  # batch statistics, of which nothing is kept
        parts.append((rows, tuple(run(*(x[rows] for x in inputs)))))
        for norm, momentum in kept:
            norm.momentum = momentum
    order = torch.cat([rows for rows, _ in parts]).argsort()
    return tuple(torch.cat(column)[order] for column in zip(*(found for _, found in parts)))


def validation_objects(recipe: TargetRecipe, paired: bool = False) -> Objects:
    """
    Return the frames and rows of validation, half of them in sequences where there are any.

    paired: only of frames with RGB.
    """
    frames, moved = in_sequences(
        read_sets(recipe.data.val, recipe.normalization, recipe.name, paired),
        recipe.data.smallest, recipe.data.sequences, paired)
    stills = still_rows(frames)
    if not len(stills) and not paired:
        raise UserError(f'{", ".join(map(str, recipe.data.val))} has no box of at least '
                        f'{recipe.data.smallest:g} pixels (data.smallest).')
    half = recipe.data.val_objects // 2 if len(moved) else 0
    chosen = [*evenly(moved.tolist(), half),
              *evenly(stills.tolist(), recipe.data.val_objects - half)]
    return Objects(frames, stills, np.array(chosen, np.int64).reshape(-1, 4),
                   np.zeros((0, 4), np.int64))


def warn_of_shared_frames(recipe: TargetRecipe, val: Objects, training: Objects) -> None:
    """Log how many validation frames are also trained on."""
    seen, taught = ([frame.record for frame in objects.frames if frame.record is not None]
                    for objects in (val, training))
    warn_of_shared(', '.join(map(str, recipe.data.val)), seen, taught)


def make_card(recipe: TrackingRecipe, network: TrackerNet, license: str) -> TrackingCard:
    """Return the card of a run."""
    size, config = recipe.input_size, recipe.model
    card = tracking_card(
        recipe.name, size, config.feature_channels, config.neck_channels, recipe.normalization,
        factor=recipe.crops.factor, filter=network.optimizer.settings(),
        training=training_record(recipe, license))
    return with_size(card, DeployedTracker(network))


def training_record(recipe: TargetRecipe, license: str) -> dict[str, Any]:
    """Return for a card what a recipe trains on, and how."""
    init = origin_of(recipe)
    if init is not None and (theirs := init.get('license', 'unknown')) != license:
        license = f'{license}; starting weights: {theirs}'
    return {'recipe': recipe.record(), 'seed': recipe.seed, 'init': init,
            'data': [path.name for path in recipe.data.train],
            'license': license, 'commit': commit() or 'unknown'}
