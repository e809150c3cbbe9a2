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

"""The recipe of a tracker."""

from pathlib import Path
from typing import ClassVar, Literal

from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.tracking.config import CropConfig, LossConfig, SwapConfig, TrackerConfig
from cgdet_core.training.recipe import Recipe, Strict
from pydantic import Field, model_validator


class SequenceConfig(Strict):
    """What a training sample may be cut from two frames of."""

    neighbors: int = Field(2, ge=0)  # frames in the order of a set's file names; 0: stills only
    distance: float = Field(0.7, gt=0)  # largest move of a box between them, in its size
    scenes: int = Field(24, ge=0)  # synthetic sequences with tracks, drawn before the first step
    scene_frames: int = Field(8, ge=2)  # of each
    seconds: float = Field(0.4, gt=0)  # between these frames


class TrackingDataConfig(Strict):
    """The frames of a run; paths are relative to the working directory."""

    # COCO files; the classes of boxes do not matter
    train: tuple[Path, ...] = Field(min_length=1)
    # COCO files of other frames, which choose the best checkpoint
    val: tuple[Path, ...] = Field(min_length=1)
    license: str | None = None  # of the training data, for the card; null: what its files state
    objects: int = Field(4000, ge=1)  # training samples of an epoch
    val_objects: int = Field(200, ge=1)  # validation samples, evenly spaced
    smallest: float = Field(10.0, gt=0)  # root of the area of boxes that are used, pixels
    stills: float = Field(0.5, ge=0, le=1)  # share of samples whose crops are of one frame
    patches: float = Field(0.15, ge=0, le=1)  # share of samples of any part of a frame
    sequences: SequenceConfig = SequenceConfig()  # what is cut from two frames
    cache_gib: float = Field(4.0, ge=0)  # memory for frames, over all workers


class TargetRecipe(Recipe):
    """What the recipes of all trackers of one target have."""

    weightless: ClassVar[tuple[str, ...]] = ('data.cache_gib', 'data.license')

    input_size: int = Field(256, ge=128, multiple_of=32)  # of the search region on the robot
    normalization: Normalization = Normalization()  # of raw frames
    data: TrackingDataConfig  # frames
    crops: CropConfig = CropConfig()  # how samples are cut and changed
    frozen_epochs: int = Field(0, ge=0)  # the trunk is trained after these

    @property
    def pairs_share(self) -> float:
        """Return the share of samples that are of pairs of thermal and RGB."""
        return 0.0

    @model_validator(mode='after')
    def _fits_together(self) -> 'TargetRecipe':
        if self.model.in_channels != 1:
            raise ValueError('a tracker sees thermal frames; set model.in_channels to 1')
        if self.frozen_epochs and self.optim.init is None:
            raise ValueError('frozen_epochs keep the trunk that init loads; set optim.init')
        if self.optim.frozen_stages:
            raise ValueError('a tracker freezes its whole trunk; set frozen_epochs instead of '
                             'optim.frozen_stages')
        if self.crops.size > self.input_size:
            raise ValueError('crops.size must not be above input_size')
        if self.data.objects < self.optim.batch_size:
            raise ValueError('data.objects do not fill one batch; lower optim.batch_size')
        return self


class TrackingRecipe(TargetRecipe):
    """The recipe of a tracker of one target, trained as CMD's; see `LossConfig` for its loss."""

    task: Literal['tracking']  # following one target
    model: TrackerConfig = TrackerConfig()  # sizes of the network
    loss: LossConfig = LossConfig()  # weights of the losses
    swap: SwapConfig | None = None  # samples across RGB and thermal (CMD); null: thermal alone

    @property
    def pairs_share(self) -> float:
        return 0.0 if self.swap is None else self.swap.share

    @model_validator(mode='after')
    def _has_pairs(self) -> 'TrackingRecipe':
        swap = self.swap
        if swap is not None and self.normalization.kind == 'window':
            raise ValueError('swap shows RGB images, which have no temperatures; set swap to '
                             'null, or normalization.kind to plateau or percentile')
        if swap is not None and not swap.labeled and swap.pairs is None:
            raise ValueError('swap has no pairs; set swap.pairs or swap.labeled')
        if swap is not None and swap.pairs and 'detected' in swap.sources and not swap.teacher:
            raise ValueError('the source detected needs swap.teacher; set it, or remove detected '
                             'from swap.sources')
        return self
