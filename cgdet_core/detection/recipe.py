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

"""The recipe of a detector."""

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

from cgdet_core.data.coco import classes_with_boxes, CocoSet, load_coco
from cgdet_core.data.coco_checks import folded
from cgdet_core.data.formats.native import CLASSES
from cgdet_core.detection.config import (
    AugmentConfig,
    ImitationConfig,
    StudentConfig,
    UnlabeledConfig,
)
from cgdet_core.distillation.config import ContrastiveConfig, CoupledConfig, GuidanceConfig
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.training.recipe import Recipe, Strict
from pydantic import Field, field_validator, model_validator


class DataConfig(Strict):
    """The frames of a run; paths are relative to the working directory."""

    # COCO file of the training frames; none if unlabeled.share is 1
    train: Path | None = None
    val: Path  # COCO file of the validation frames, which choose the best checkpoint
    images: Path | None = None  # folder of the file names in both, by default theirs
    license: str | None = None  # of the training data, for the card; null: what its file states
    # Objects in the training data that are none of `classes`: neither object nor background, or
    # background.
    other_classes: Literal['ignore', 'background'] = 'ignore'
    max_frames: int | None = Field(None, ge=1)  # train on so many, evenly spaced; null: all
    rgb: bool = True  # false: train as if no frame had an RGB image
    synthetic: int = Field(0, ge=0)  # synthetic scenes, new ones in every epoch
    repeat_threshold: float = Field(0.0, ge=0, le=1)  # LVIS repeat factor sampling; 0 = off
    pair_share: float | None = Field(None, ge=0, le=1)  # of frames with RGB in a batch; null: any
    cache_gib: float = Field(4.0, ge=0)  # memory for raw frames, over all workers of a process


class DetectionRecipe(Recipe):
    """The recipe of a detector; L_total = L_det + lambda_rcs L_rcs + lambda_cms L_cms (CGDet)."""

    renamed: ClassVar[dict[str, str]] = {'data.licence': 'data.license'}
    weightless: ClassVar[tuple[str, ...]] = (
        'data.cache_gib', 'data.license', 'coupled.keep_rgb', 'unlabeled.teacher.cache')
    # The folder of the teacher's features changes no weight, but using one does.
    presence: ClassVar[tuple[str, ...]] = ('cmg.teacher.cache',)

    task: Literal['detection'] = 'detection'  # detecting objects
    classes: tuple[str, ...] = ()  # names, as in the COCO files; empty: those of the training data
    input_size: tuple[int, int] = (640, 512)  # width, height
    normalization: Normalization = Normalization()  # of raw frames
    model: StudentConfig = StudentConfig()  # sizes of the student
    data: DataConfig  # frames
    augment: AugmentConfig = AugmentConfig()  # augmentation
    rcs: ContrastiveConfig | None = None  # RoI-level supervised contrastive loss; null: off
    cmg: GuidanceConfig | None = None  # cross-modal guidance by an RGB teacher; null: off
    coupled: CoupledConfig | None = None  # RGB student trained together with the thermal one
    imitation: ImitationConfig | None = None  # of other thermal detectors; null: off
    unlabeled: UnlabeledConfig | None = None  # frames without labels; null: none

    @field_validator('classes', mode='before')
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator('classes')
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(str.strip, value)):
            raise ValueError('must be names; one is empty')
        if len(set(value)) < len(value):
            twice = next(name for name in value if value.count(name) > 1)
            raise ValueError(f'must be different names; {twice!r} is there twice')
        return value

    @field_validator('augment')
    @classmethod
    def _scales(cls, value: AugmentConfig) -> AugmentConfig:
        low, high = value.scale
        if not 0 < low <= high < math.inf:
            raise ValueError('scale must be two positive numbers, the smaller one first')
        return value

    @field_validator('input_size')
    @classmethod
    def _multiple_of_32(cls, value: tuple[int, int]) -> tuple[int, int]:
        if any(s <= 0 or s % 32 for s in value):
            raise ValueError('must be two multiples of 32, width then height')
        return value

    @model_validator(mode='after')
    def _fits_together(self) -> 'DetectionRecipe':
        if self.rcs is not None and len(self.classes) == 1:
            raise ValueError('rcs separates classes and needs at least two; set rcs to null')
        for name, teacher in (('cmg', self.cmg), ('imitation', self.imitation)):
            if teacher is not None and self.model.in_channels != 1:
                raise ValueError(f'{name} teaches a thermal student; set model.in_channels to 1')
        if self.augment.paste and (self.cmg or self.coupled or self.model.in_channels != 1):
            raise ValueError('augment.paste puts objects into thermal frames where RGB images do '
                             'not have them; set it to 0, or remove cmg and coupled')
        self._check_pasted(self.classes or self.augment.paste_classes)
        if self.model.one_to_one and (self.unlabeled or self.coupled):
            raise ValueError('model.one_to_one learns from labels only; train without it first, '
                             'then from the result without unlabeled and coupled')
        self._check_unlabeled()
        if self.coupled is not None and self.cmg is None:
            raise ValueError('coupled needs the RGB teacher cmg.teacher; set it (cmg.weight may '
                             'be 0)')
        if self.coupled and self.imitation and (
                self.imitation.mirrored or len(self.imitation.teachers) > 1):
            raise ValueError('coupled takes its thermal features from one teacher; name one in '
                             'imitation.teacher, without imitation.mirrored')
        if self.coupled is not None and not self.data.rgb:
            raise ValueError('coupled sees nothing without data.rgb; remove one of them')
        if self.cmg is not None and not self.data.rgb and self.cmg.unpaired == 'skip':
            raise ValueError('cmg sees nothing without data.rgb; set cmg.unpaired to thermal or '
                             'black_hot')
        for name, term in (('rcs', self.rcs), ('cmg', self.cmg), ('coupled', self.coupled),
                           ('imitation', self.imitation), ('unlabeled', self.unlabeled)):
            if term and term.stop_epoch is not None and term.warmup_epochs >= term.stop_epoch:
                raise ValueError(f'{name} stops before its warm-up ends; lower '
                                 f'{name}.warmup_epochs or raise {name}.stop_epoch')
        return self

    def _check_pasted(self, classes: tuple[str, ...]) -> None:
        """Raise ValueError if a class to paste is none of the classes."""
        if unknown := [name for name in self.augment.paste_classes if name not in classes]:
            raise ValueError(f'augment.paste_classes names {", ".join(unknown)}, but the classes '
                             f'are {", ".join(classes)}')

    def _check_unlabeled(self) -> None:
        """Raise ValueError if labeled and unlabeled frames do not fit together."""
        unlabeled, data = self.unlabeled, self.data
        alone = unlabeled is not None and unlabeled.share == 1
        if data.train is None and not alone:
            raise ValueError('data.train is missing; add it to the file or to the command '
                             '(data.train=...)')
        if unlabeled is None:
            return
        if alone and (data.train is not None or data.synthetic):
            raise ValueError('unlabeled.share is 1, so that no batch has labels; lower it, or '
                             'remove data.train and data.synthetic')
        if alone and not self.classes:
            raise ValueError('classes is missing; without labels it must name them')
        if alone and not any(term and term.weight
                             for term in (unlabeled, self.cmg, self.imitation)):
            raise ValueError('without labels nothing teaches; set unlabeled.weight, cmg or '
                             'imitation')
        if (alone and unlabeled.weight and unlabeled.sources == ('student',)
                and self.optim.init is None):
            raise ValueError('without labels a student from nothing finds nothing; set '
                             'optim.init, or unlabeled.teacher and unlabeled.sources')
        if alone and unlabeled.burn_in_epochs:
            raise ValueError('unlabeled.burn_in_epochs are epochs of labels only; set them to 0, '
                             'as unlabeled.share is 1')
        if unlabeled.stop_epoch is not None and unlabeled.burn_in_epochs >= unlabeled.stop_epoch:
            raise ValueError('unlabeled stops before its burn-in ends; lower '
                             'unlabeled.burn_in_epochs or raise unlabeled.stop_epoch')
        if unlabeled.burn_in_epochs >= self.optim.epochs:
            raise ValueError('no epoch would see unlabeled frames; lower '
                             'unlabeled.burn_in_epochs or raise optim.epochs')
        if unlabeled.share * self.optim.batch_size < 1:
            raise ValueError(f'unlabeled.share={unlabeled.share:g} is less than a frame of a '
                             f'batch of {self.optim.batch_size}; raise it or optim.batch_size')
        if self.model.in_channels != 1:
            raise ValueError('unlabeled frames teach a thermal student; set model.in_channels '
                             'to 1')
        for key, value in (('pair_share', data.pair_share),
                           ('repeat_threshold', data.repeat_threshold or None)):
            if value is not None:
                raise ValueError(f'data.{key} orders labeled frames only; remove it, or unlabeled')

    def resolved(self) -> 'DetectionRecipe':
        """Return the recipe with the classes of its training data, unless it names its own."""
        if self.classes or self.data.train is None:
            return self
        classes = classes_with_boxes(self.data.train)
        if not classes:
            raise UserError(f'{self.data.train} has no boxes; label objects before training.')
        for name in classes:
            if name not in CLASSES and folded(name) in CLASSES:  # another class to our weights
                raise UserError(
                    f'{self.data.train} has the category {name!r}, which the weights of this '
                    f'package know as {folded(name)}; rename it in both files, or keep it with '
                    f'classes: [{", ".join(classes)}].')
        if self.rcs is not None and len(classes) == 1:
            raise UserError(f'{self.data.train} has one class, {classes[0]}, and rcs needs at '
                            'least two; set rcs to null.')
        try:
            self._check_pasted(classes)
        except ValueError as error:
            raise UserError(f'{self.data.train}: {error}.') from None
        return self.model_copy(update={'classes': classes})

    def labeled(self) -> CocoSet:
        """Return the labeled training frames, none if all are unlabeled."""
        if self.data.train is not None:
            return self.frames(self.data.train, training=True)
        assert self.unlabeled is not None
        return CocoSet(self.unlabeled.frames, [], self.classes)

    def frames(self, path: Path, training: bool = False) -> CocoSet:
        """
        Read the frames of `data.train` or `data.val` for the model's channels.

        training: objects of other classes become ignore regions, if `data.other_classes` says so.
        """
        coco = load_coco(path, self.data.images, self.resolved().classes, self.model.in_channels,
                         training and self.data.other_classes == 'ignore')
        coco.check_signal(self.normalization.kind, self.name)
        return coco
