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
from typing import ClassVar, Literal

from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.nets.config import PyramidConfig, Width
from cgdet_core.training.recipe import former_name, ScheduledLoss, Strict
from pydantic import Field, field_validator, model_validator


class StudentConfig(PyramidConfig):
    """The sizes of the student; the defaults are those of `thermal`."""

    added: ClassVar[tuple[str, ...]] = (*PyramidConfig.added, 'head_depth', 'one_to_one')

    head_channels: Width = 64  # of the towers
    head_depth: int = Field(2, ge=1)  # convolutions of a tower
    bins: int = Field(16, ge=2)  # of the distribution of a distance, in cells
    one_to_one: bool = False  # deployed scores that need no non-maximum suppression


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
    paste: float = Field(0.0, ge=0, le=1)  # probability that a frame gets an object of another
    paste_classes: tuple[str, ...] = ()  # names of what is pasted; empty: all classes


class ImitationConfig(ScheduledLoss):
    """The settings of the imitation of the outputs of thermal detectors."""

    # Checkpoint, FP32 ONNX file or name of a model of this package, of the same classes,
    # normalization and bins. Of several the student learns the mean.
    teacher: Path | tuple[Path, ...]
    mirrored: bool = False  # the mean also with what they see in the mirrored sample
    of_box: float = Field(1.0, ge=0)  # weight of the box distributions relative to the scores
    temperature: float = Field(2.0, gt=0)  # T, softens the box distributions

    _former_name = field_validator('teacher', mode='before')(former_name)

    @property
    def teachers(self) -> tuple[Path, ...]:
        """Return the teachers, one or several."""
        return (self.teacher,) if isinstance(self.teacher, Path) else self.teacher

    @model_validator(mode='after')
    def _has_a_teacher(self) -> 'ImitationConfig':
        if not self.teachers:
            raise ValueError('teacher must name a file, or several')
        return self


class UnlabeledConfig(ScheduledLoss):
    """
    The settings of learning from frames without labels; `cgdet distill` trains with them.

    The averaged weights of the student (mean teacher, arXiv 1703.01780) and an RGB teacher find
    objects in these frames; they are the pseudo-labels. weight is u, that of their loss.
    """

    frames: Path  # COCO file; its boxes, if there are any, are not used
    share: float = Field(0.5, gt=0, le=1)  # of a batch; 1: no labels at all
    burn_in_epochs: float = Field(2.0, ge=0)  # labels only; then the warm-up of u begins
    teacher: TeacherConfig | None = None  # RGB detector; null: only the student finds objects
    # Who finds objects: the student in thermal frames; the teacher in RGB, in thermal frames, and
    # in thermal frames shown black hot, in which RGB detectors find more people.
    sources: tuple[Literal['student', 'rgb', 'thermal', 'black_hot'], ...] = ('student', 'rgb')
    names: dict[str, str] = {}  # the teacher's name of an object: the class; others keep theirs
    # What the teacher finds of these is neither object nor background.
    ignored: tuple[str, ...] = ('bus', 'truck', 'train', 'motorcycle')
    object_score: float = Field(0.5, gt=0, lt=1)  # from here on an object
    ignore_score: float = Field(0.2, gt=0, lt=1)  # from here on neither object nor background
    # What the teacher is sure of is a label like others, not one as certain as its score.
    hard: bool = True
    # Of what objects that the student alone finds teach of boxes; 0: only classes, as boxes that
    # it learns from itself drift.
    box_weight: float = Field(0.0, ge=0)
    fuse_iou: float = Field(0.5, gt=0, le=1)  # of boxes that are fused to one; CMD has 0.8
    # With cmg.over roi or both: the regions of these frames whose features are compared.
    regions: tuple[Literal['center', 'random', 'detected'], ...] = ('center', 'random', 'detected')
    random_regions: int = Field(5, ge=1)  # per sample
    random_side: int = Field(100, ge=8)  # of a random region, input pixels
    weak_guidance: bool = True  # cmg also guides the student on the samples without jitter

    @model_validator(mode='after')
    def _fits_together(self) -> 'UnlabeledConfig':
        if self.ignore_score > self.object_score:
            raise ValueError('ignore_score must not be above object_score')
        if not self.sources:
            raise ValueError('sources must name who finds objects: student, rgb, '
                             'thermal, black_hot')
        if self.teacher is None and set(self.sources) - {'student'}:
            raise ValueError('sources other than student need a teacher; set unlabeled.teacher, '
                             'or sources to [student]')
        if self.teacher is not None and self.teacher.kind == 'onnx' and not self.teacher.decoder:
            raise ValueError('the teacher finds objects only with a decoder; set teacher.decoder')
        return self

    def weight_at(self, epoch: float) -> float:
        """Return u: 0 during the burn-in, then a linear warm-up."""
        since = epoch - self.burn_in_epochs
        if since < 0 or (self.stop_epoch is not None and epoch >= self.stop_epoch):
            return 0.0
        return self.weight * (min(1.0, since / self.warmup_epochs) if self.warmup_epochs else 1)
