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

"""The training module of an RGB-T tracker."""

from typing import Any

from cgdet_core.distillation.coupling import random_patches
from cgdet_core.errors import UserError
from cgdet_core.nets.pyramid import TRUNKS
from cgdet_core.nets.trunk import gray_as_color
from cgdet_core.runtime.tracking.card import STRIDE
from cgdet_core.runtime.tracking.decoding import best_places
from cgdet_core.runtime.tracking.rgbt import rgbt_card, RgbtCard
from cgdet_core.tracking.frames import gather, Objects
from cgdet_core.tracking.network import center, ShortTrunk
from cgdet_core.tracking.overlap import auc_and_precision, overlap_and_error
from cgdet_core.tracking.rgbt.config import RgbtRecipe
from cgdet_core.tracking.rgbt.losses import content_loss, style_loss, track_loss, TrackLoss
from cgdet_core.tracking.rgbt.network import (
    CHANNELS,
    DeployedRgbt,
    Found,
    RGB,
    RgbtNet,
    THERMAL,
)
from cgdet_core.tracking.samples import train_loader, validation_loader
from cgdet_core.tracking.starting import start
from cgdet_core.tracking.training import (
    training_record,
    validation_objects,
    warn_of_shared_frames,
)
from cgdet_core.training.module import Losses, TaskModule, with_size
from cgdet_core.training.ranks import gather_entries, rank_and_ranks
import numpy as np
import torch
from torch import nn, Tensor
from torch.utils.data import DataLoader


class RgbtTraining(TaskModule):
    """
    Train an RGB-T tracker and a teacher of each modality (CKD); see `RgbtLossConfig`.

    RGB of a sample is 0 where it is not known, which is also how it is dropped.
    """

    monitor = 'val/AUC'
    recipe: RgbtRecipe
    card: RgbtCard

    def __init__(self, recipe: RgbtRecipe) -> None:
        super().__init__(recipe)
        self.objects = with_pairs(gather(recipe, rgb=True))
        self.val_objects = validation_objects(recipe, paired=True)
        warn_of_shared_frames(recipe, self.val_objects, self.objects)
        for key, objects in (('train', self.objects), ('val', self.val_objects)):
            if not any(frame.paired and len(frame.boxes) for frame in objects.frames):
                raise UserError(f'data.{key} has no boxes in frames with an RGB image '
                                '(rgb_file_name); add some.')
        self.student = RgbtNet(recipe.model)
        taught = (THERMAL, RGB) if recipe.loss.teachers else ()
        self.teachers = nn.ModuleDict({name: RgbtNet(recipe.model, (name,)) for name in taught})
        self.card = make_card(recipe, self.student, recipe.data.license or self.objects.license)
        if recipe.optim.frozen_norms:
            self.frozen = [m for trunk in self._trunks() for m in trunk.modules()
                           if isinstance(m, nn.BatchNorm2d)]
        self._found: dict[int, tuple[float, ...]] = {}

    def _taught_by(self) -> dict[str, RgbtNet]:
        """Return the teachers by their modality."""
        return {name: teacher for name, teacher in self.teachers.items()
                if isinstance(teacher, RgbtNet)}

    def _trunks(self) -> list[nn.Module]:
        """Return the trunks of the student and its teachers."""
        networks = [self.student, *self._taught_by().values()]
        return [trunk for network in networks for trunk in network.backbone.values()]

    def load_start(self) -> None:
        thermal, rgb = (self.student.trunk(name) for name in (THERMAL, RGB))
        whole = start(self.student, thermal, self.recipe)
        if not whole and self.recipe.optim.init == 'imagenet':
            config = self.recipe.model.model_copy(update={'in_channels': CHANNELS[RGB]})
            trunk = TRUNKS[config.trunk](config)
            trunk.load_pretrained()
            rgb.load_state_dict(ShortTrunk(trunk).state_dict())
        elif not whole:
            rgb.load_state_dict(gray_as_color(thermal.state_dict(), rgb.state_dict()))
        for name, teacher in self._taught_by().items():
            if whole:
                teacher.begin_as(self.student)
            else:
                teacher.trunk(name).load_state_dict(self.student.trunk(name).state_dict())

    def describe(self) -> dict[str, str]:
        found = self.objects
        return {'objects': f'{len(found.stills)} in {len(found.frames)} frames, '
                           f'{len(found.moved)} pairs in sequences, {len(found.swapped)} with RGB',
                'validation': f'{len(self.val_objects.moved)} objects'}

    def train_dataloader(self) -> DataLoader[Any]:
        return train_loader(self.recipe, self.objects, both=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return validation_loader(self.recipe, self.val_objects, both=True)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        for trunk in self._trunks():
            trunk.requires_grad_(self.current_epoch >= self.recipe.frozen_epochs)

    def on_fit_start(self) -> None:
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def losses(self, batch: dict[str, Tensor]) -> Losses:
        crops, mask, truth = batch['crops'], batch['mask'][:, None], batch['boxes'][:, -1]
        config, generator = self.recipe.loss, self.step_generator()
        rgb_shown = shown_in(crops)
        kept = torch.rand(len(crops), generator=generator).to(crops) >= config.dropout
        shown = rgb_shown * kept
        cells = crops.shape[-1] // STRIDE
        visible = random_patches(len(crops), (cells, cells), 1, config.mask_ratio,
                                 generator).to(crops)
        found, features = find(self.student, crops, mask, shown, visible,
                               self.epoch() >= config.elimination_after)
        parts = self._track(found, truth)
        terms = {'track': self._weighed(parts)}
        if config.style:
            terms['style'] = config.style * style_loss(found.encoded.levels, shown)
        if self.teachers:
            taught = {name: find(teacher, crops, mask, eliminate=False)[0]
                      for name, teacher in self._taught_by().items()}
            terms['teachers'] = config.teachers * (
                self._weighed(self._track(taught[THERMAL], truth))
                + self._weighed(self._track(taught[RGB], truth, rgb_shown)))
            if config.content:
                terms['content'] = config.content * content_loss(
                    found.encoded, [taught[name].encoded for name in self.student.modalities],
                    shown)
        details = {name: part.detach() for name, part in parts._asdict().items()}
        return Losses(terms, details, features, len(crops))

    def _track(self, found: Found, truth: Tensor, weights: Tensor | None = None) -> TrackLoss:
        with torch.autocast(self.device.type, enabled=False):
            return track_loss(found.score, found.boxes, truth, self.recipe.loss.sigma, weights)

    def _weighed(self, parts: TrackLoss) -> Tensor:
        """Return L_track of its parts."""
        config = self.recipe.loss
        return config.giou * parts.giou + config.l1 * parts.l1 + config.focal * parts.focal

    @torch.no_grad()
    def validate(self, batch: dict[str, Tensor]) -> None:
        rank, ranks = rank_and_ranks()
        crops, mask, truth = batch['crops'], batch['mask'][:, None], batch['boxes'][:, -1]
        found = []
        with torch.autocast(self.device.type, enabled=False):
            known = shown_in(crops) * (self.recipe.loss.dropout < 1)
            for shown in (known, torch.zeros_like(crops[:, 0, 0, 0, 0])):
                one, _ = find(self.student, crops, mask, shown)
                found.append(places(one, truth))
        for values in zip(*found):
            index = len(self._found) * ranks + rank
            self._found[index] = tuple(v for pair in values for v in pair)

    def validation_metrics(self) -> dict[str, float]:
        found = np.array([*gather_entries(self._found).values()])
        self._found = {}
        (auc, precision), (alone, precise) = map(auc_and_precision, np.hsplit(found, 2))
        return {'val/AUC': auc, 'val/AUC_thermal': alone,
                'val/precision': precision, 'val/precision_thermal': precise}


def shown_in(crops: Tensor) -> Tensor:
    """Return (N,), 1 where all crops (N, T, 4, S, S) of a sample show RGB, otherwise 0."""
    return (crops[:, :, 1:].amax((2, 3, 4)) > 0).all(1).to(crops)


def find(network: RgbtNet, crops: Tensor, mask: Tensor, shown: Tensor | None = None,
         visible: Tensor | None = None, eliminate: bool = True) -> tuple[Found, list[Tensor]]:
    """
    Return what a network finds in the last of the crops (N, 2, 4, S, S), by the first as template.

    Also the features (N * 2, C, h, w) of its modalities; for others see `RgbtNet.forward`.
    """
    flat = crops.flatten(0, 1)
    images = {THERMAL: flat[:, :1], RGB: flat[:, 1:]}
    features = [network.features(name, images[name].contiguous(
        memory_format=torch.channels_last)) for name in network.modalities]
    pairs = [f.unflatten(0, crops.shape[:2]) for f in features]
    found = network([center(p[:, 0]) for p in pairs], [p[:, 1] for p in pairs],
                    mask.to(crops), shown, visible, eliminate)
    return found, features


def places(found: Found, truth: Tensor) -> list[tuple[float, float]]:
    """Return overlap and error of the best place in each region with the truth (N, 4)."""
    arrays = (found.score.sigmoid()[:, 0], found.boxes, truth)
    return [overlap_and_error(best_places(score, boxes, np.ones_like(score),
                                          stride=STRIDE)[0].box, box)
            for score, boxes, box in zip(*(a.float().cpu().numpy() for a in arrays))]


def with_pairs(objects: Objects) -> Objects:
    """Add the rows that show RGB in both frames."""
    rows = np.concatenate([objects.stills, objects.moved])
    paired = np.array([frame.paired for frame in objects.frames])
    objects.swapped = rows[paired[rows[:, 0]] & paired[rows[:, 2]]]
    return objects


def make_card(recipe: RgbtRecipe, network: RgbtNet, license: str) -> RgbtCard:
    """Return the card of a run."""
    card = rgbt_card(recipe.name, recipe.input_size, recipe.model.width, recipe.normalization,
                     factor=recipe.crops.factor, training=training_record(recipe, license))
    return with_size(card, DeployedRgbt(network))
