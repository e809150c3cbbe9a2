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

"""The recipe of an RGB-T tracker; without torch, so that recipes load."""

from typing import Literal

from cgdet_core.nets.config import PyramidConfig
from cgdet_core.tracking.recipe import TargetRecipe
from cgdet_core.training.recipe import Strict
from pydantic import Field, model_validator


class RgbtConfig(PyramidConfig):
    """The sizes of an RGB-T tracker's network, whose trunks end at stride 16; no neck."""

    width: int = Field(160, ge=8, multiple_of=4)  # of the tokens
    blocks: int = Field(5, ge=1)  # of the transformer
    heads: int = Field(5, ge=1)  # of its attention
    head_channels: int = Field(96, ge=2, multiple_of=2)  # of the center head
    # Blocks, from 0, after which the worst search tokens are dropped from both modalities.
    eliminate: tuple[int, ...] = (1, 3)
    keep: float = Field(0.7, gt=0, lt=1)  # share of search tokens that stay, each time

    @model_validator(mode='after')
    def _fits(self) -> 'RgbtConfig':
        if self.width % self.heads:
            raise ValueError('width must be a multiple of heads')
        if any(not 0 <= block < self.blocks for block in self.eliminate):
            raise ValueError(f'eliminate must name blocks from 0 to {self.blocks - 1}')
        return self


class RgbtLossConfig(Strict):
    """
    CKD: L_track(fused) + style L_SD + content L_CD + teachers (L_track(RGB) + L_track(thermal)).

    L_track = giou L_GIoU + l1 L_1 + focal L_focal. The teachers are trained along unless
    `teachers` is 0, and are no part of the exported network.
    """

    giou: float = Field(2.0, ge=0)  # of L_track: generalized IoU of the box
    l1: float = Field(5.0, ge=0)  # distance of its sides, in widths of the region
    focal: float = Field(1.0, ge=0)  # score of the cells
    style: float = Field(0.01, ge=0)  # both students' mean and deviation of each channel
    content: float = Field(0.1, ge=0)  # students follow teachers' standardized features
    teachers: float = Field(1.0, ge=0)  # of the teachers' own L_track
    mask_ratio: float = Field(0.25, ge=0, lt=1)  # share of search tokens hidden from both students
    dropout: float = Field(0.2, ge=0, le=1)  # of RGB, in samples that show it; 1: thermal alone
    sigma: float = Field(0.8, gt=0)  # of the Gaussian labels, cells at stride 16
    elimination_after: float = Field(1.0, ge=0)  # epochs before which no token is dropped


class RgbtRecipe(TargetRecipe):
    """The recipe of an RGB-T tracker of one target, which also follows in thermal alone (CKD)."""

    task: Literal['rgbt_tracking']  # following one target in RGB and thermal
    model: RgbtConfig = RgbtConfig()  # sizes of the network
    loss: RgbtLossConfig = RgbtLossConfig()  # weights of the losses, and what they hide
    pairs: float = Field(0.7, ge=0, le=1)  # share of samples that show RGB

    @property
    def pairs_share(self) -> float:
        return self.pairs

    @model_validator(mode='after')
    def _one_template(self) -> 'RgbtRecipe':
        if self.crops.templates != 1:
            raise ValueError('an RGB-T tracker has one template; set crops.templates to 1')
        if self.loss.content and not self.loss.teachers:
            raise ValueError('content needs teachers that are trained; set loss.teachers above 0, '
                             'or loss.content to 0')
        return self
