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

"""Settings of the tracker's network, losses and crops; without torch, so that recipes load."""

from pathlib import Path
from typing import Literal

from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.nets.config import PyramidConfig, Width
from cgdet_core.training.recipe import Strict
from pydantic import Field


class TrackerConfig(PyramidConfig):
    """The sizes of the tracker's network, whose trunk ends at stride 16; there is no neck."""

    neck_channels: Width = 96  # of the fused features, and of the template's
    feature_channels: Width = 64  # of those that the filter is correlated with
    tower_channels: Width = 64  # of the box head
    tower_depth: int = Field(3, ge=1)  # its convolutions


class LossConfig(Strict):
    """
    The weights of L = box L_bb + final L_final + init L_init + iter / n sum L_iter (CMD).

    CMD's L_bb compares densities over box proposals, with weight 0.01; ours is that of one box
    (generalized IoU, L1, quality), so its weight is another one, 1; it was not tuned.
    """

    box: float = Field(1.0, ge=0)  # of L_bb
    final: float = Field(100.0, ge=0)  # of the last filter's L_cls
    init: float = Field(100.0, ge=0)  # of the first filter's
    iterations: float = Field(400.0, ge=0)  # of the mean of those between
    steps: int = Field(3, ge=1)  # of the filter's optimizer in training
    sigma: float = Field(1.0, gt=0)  # of the Gaussian labels, cells at stride 16
    threshold: float = Field(0.05, ge=0)  # labels above it are regressed, others are a hinge


class CropConfig(Strict):
    """How crops are cut and changed; lengths relative to the root of the box's area."""

    factor: float = Field(4.5, gt=1)  # side of the search region
    size: int = Field(160, ge=128, multiple_of=32)  # of training crops, at the region's scale
    templates: int = Field(1, ge=1)  # crops that the filter is learned from
    shift: float = Field(1.0, ge=0)  # largest, of the searched target from the center
    scale: float = Field(0.3, ge=0)  # of the searched target in [exp(-scale), exp(scale)]
    stretch: float = Field(0.1, ge=0)  # of its aspect ratio, the same
    template_shift: float = Field(0.08, ge=0)  # of templates, whose target is nearly centered
    template_scale: float = Field(0.08, ge=0)  # of theirs
    flip: float = Field(0.5, ge=0, le=1)  # probability, of all crops of a sample
    gain: float = Field(0.3, ge=0)  # contrast factor in [1 - gain, 1 + gain]
    offset: float = Field(0.15, ge=0)  # brightness shift, fraction of the range
    gamma: float = Field(0.35, ge=0)  # exponent in [exp(-gamma), exp(gamma)]
    noise: float = Field(0.03, ge=0)  # largest standard deviation of added noise
    blur: float = Field(0.25, ge=0, le=1)  # probability
    occlude: float = Field(0.25, ge=0, le=1)  # probability of an occluder in a searched crop
    distract: float = Field(0.4, ge=0, le=1)  # probability of a pasted object of the same class


class SwapConfig(Strict):
    """
    CMD: the filter from the RGB crop is scored on the thermal crop, and back.

    sources: the fixed central region, random squares, and detections.
    """

    share: float = Field(0.25, gt=0, le=1)  # of the samples that are swapped pairs
    pairs: Path | None = None  # COCO file of pairs, whose boxes are not used
    # The labeled frames of data.train that have an RGB image are pairs too.
    labeled: bool = True
    # what is cut out of swap.pairs
    sources: tuple[Literal['center', 'random', 'detected'], ...] = ('center', 'random', 'detected')
    teacher: TeacherConfig | None = None  # RGB detector of `detected`, run on both modalities
    score: float = Field(0.3, gt=0, lt=1)  # of the detections that are cut
    fuse_iou: float = Field(0.8, gt=0, le=1)  # of detections that are one object
    random_regions: int = Field(5, ge=1)  # per pair
    random_side: int = Field(100, ge=16)  # of a random region, pixels
