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

"""Settings of student, augmentation and imitation; without torch, so that recipes load at once."""

from pathlib import Path
from typing import ClassVar

from cgdet_core.nets.config import PyramidConfig, Width
from cgdet_core.training.recipe import ScheduledLoss, Strict
from pydantic import Field


class StudentConfig(PyramidConfig):
    """The sizes of the student; the defaults are those of the shipped model."""

    added: ClassVar[tuple[str, ...]] = (*PyramidConfig.added, 'head_depth')

    head_channels: Width = 64  # of the towers
    head_depth: int = Field(2, ge=1)  # convolutions of a tower
    bins: int = Field(16, ge=2)  # of the distribution of a distance, in cells


class AugmentConfig(Strict):
    """The settings of augmentation; probabilities in [0, 1]."""

    mosaic: float = Field(0.8, ge=0, le=1)  # probability of a sample of four frames
    close_mosaic_epochs: int = Field(10, ge=0)  # the last epochs see single frames only
    scale: tuple[float, float] = (0.6, 1.6)  # relative to the frame fitted into the input
    flip: float = Field(0.5, ge=0, le=1)  # probability of mirroring left and right
    contrast: float = Field(0.8, ge=0, le=1)  # probability of the thermal jitter below
    gain: float = Field(0.3, ge=0)  # contrast factor in [1 - gain, 1 + gain]
    offset: float = Field(0.12, ge=0)  # brightness shift, fraction of the range
    gamma: float = Field(0.35, ge=0)  # exponent in [exp(-gamma), exp(gamma)]
    noise: float = Field(0.02, ge=0)  # largest standard deviation of added noise
    blur: float = Field(0.15, ge=0, le=1)  # probability of a slight blur (lens, motion)
    min_visible: float = Field(0.25, ge=0, le=1)  # objects cut below this share are ignored


class ImitationConfig(ScheduledLoss):
    """The settings of the imitation of a larger thermal detector's outputs."""

    teacher: Path  # checkpoint or FP32 ONNX file, of the same classes, normalization and bins
    of_box: float = Field(1.0, ge=0)  # weight of the box distributions relative to the scores
    temperature: float = Field(2.0, gt=0)  # T, softens the box distributions
