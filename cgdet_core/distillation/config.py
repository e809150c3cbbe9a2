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

"""The settings of RCS, CMG and teachers; without torch, so that a recipe is checked at once."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from cgdet_core.training.recipe import ScheduledLoss, Strict, what_is_wrong
from pydantic import (
    ConfigDict,
    create_model,
    Field,
    field_validator,
    model_validator,
    ValidationError,
)

Scale = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Unpaired = Literal['skip', 'thermal', 'black_hot']
# By the name of a function of `objectives`: the parameters that a recipe may set, with their type
# and default.
PARAMETERS: dict[str, dict[str, Any]] = {
    'mse': {}, 'pearson': {}, 'cwd': {'temperature': (Annotated[float, Field(gt=0)], 1.0)},
    'style': {}, 'pearson_style': {'of_style': (Weight, 0.1), 'of_pearson': (Weight, 2.0)},
    'frequency': {'high': (Weight, 0.1), 'radius': (Annotated[int, Field(ge=1)], 2)}}
RENAMED = {'style_content': 'pearson_style'}  # in recipes and checkpoints of earlier releases


class ContrastiveConfig(ScheduledLoss):
    """The settings of RCS. The paper states none of these numbers; they are ours."""

    weight: float = Field(0.2, ge=0)  # lambda_rcs
    temperature: float = Field(0.1, gt=0)  # tau
    embedding: int = Field(128, gt=0)  # width of z
    roi_size: int = Field(3, gt=0)  # cells of a pooled region's side
    copies: int = Field(1, ge=0)  # jittered copies of every box
    jitter: float = Field(0.15, ge=0, lt=1)  # their largest shift and scaling
    queue: int = Field(0, ge=0)  # embeddings of earlier batches kept per class
    balance: bool = True  # every class has the same weight, whatever its number of objects


class TeacherConfig(Strict):
    """
    The RGB teacher.

    kind `cgdet`: `path` is a checkpoint of a recipe with `model.in_channels: 3`, of any task.
    kind `torchvision`: `model` is a detector with a feature pyramid, `weights` its weights' name
    (null: random, for tests). kind `onnx`: `path` is any detector, `tensors` name its pyramid at
    strides 8, 16 and 32, and bgr, full_range, mean, std and pad describe the input it was trained
    on; with a decoder it also predicts objects of COCO's classes, as torchvision's do.

    With a cache a teacher runs once per picture; without one on every sample for features, and
    once per picture and run for predictions.
    """

    # our checkpoint, a torchvision detector, or an ONNX file
    kind: Literal['cgdet', 'torchvision', 'onnx'] = 'cgdet'
    path: Path | None = None  # checkpoint or ONNX file
    model: str = 'fasterrcnn_resnet50_fpn_v2'  # of torchvision, with a feature pyramid
    weights: str | None = 'DEFAULT'  # of torchvision; null: random
    # of an ONNX teacher: its pyramid at strides 8, 16, 32
    tensors: tuple[str, str, str] | None = None
    bgr: bool = False  # channel order of an ONNX teacher's input
    full_range: bool = False  # its input goes to 255 instead of 1
    mean: tuple[float, float, float] = (0, 0, 0)  # of that input, per channel in its order
    std: tuple[Scale, Scale, Scale] = (1, 1, 1)  # the input is (picture - mean) / std
    decoder: Literal['yolox', 'nanodet'] | None = None  # of its first output, for predictions
    pad: int = Field(0, ge=0, le=255)  # gray level of the letterbox's padding
    input_size: tuple[int, int] | None = None  # width, height; default: the teacher's
    cache: Path | None = Path('runs/features')  # folder of features; null: it runs on every sample

    @model_validator(mode='after')
    def _complete(self) -> 'TeacherConfig':
        if self.kind != 'torchvision' and self.path is None:
            raise ValueError(f'a teacher of kind {self.kind} needs its path')
        if self.kind == 'onnx' and self.tensors is None and self.decoder is None:
            raise ValueError('a teacher of kind onnx needs tensors, the names of its pyramid')
        of_onnx = 'tensors', 'bgr', 'full_range', 'mean', 'std', 'decoder', 'pad'
        for key in of_onnx if self.kind != 'onnx' else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f'{key} is for a teacher of kind onnx, not {self.kind}')
        if self.kind == 'torchvision' and self.path is not None:
            raise ValueError('path is not for a teacher of kind torchvision')
        if self.input_size and any(s <= 0 or s % 32 for s in self.input_size):
            raise ValueError('input_size must be two multiples of 32, width then height')
        return self


class GuidanceConfig(ScheduledLoss):
    """The settings of CMG. The paper states no weights, levels or objective; these are ours."""

    teacher: TeacherConfig  # the RGB teacher
    weight: float = Field(5.0, ge=0)  # lambda_cms
    objective: str | dict[str, Any] = 'pearson'  # a name, or {name: ..., parameter: value}
    over: Literal['pyramid', 'roi', 'both'] = 'pyramid'  # all cells, regions of objects, or both
    # Of a frame without RGB the teacher sees nothing, the thermal frame, or that black hot.
    unpaired: Unpaired = 'skip'
    roi_size: int = Field(3, gt=0)  # cells of a pooled region's side

    @field_validator('teacher')
    @classmethod
    def _has_features(cls, value: TeacherConfig) -> TeacherConfig:
        if value.kind == 'onnx' and value.tensors is None:
            raise ValueError('a teacher of kind onnx needs tensors, the names of its pyramid')
        return value

    @field_validator('objective', mode='before')
    @classmethod
    def _known(cls, value: Any) -> str | dict[str, Any]:
        name, parameters = name_and_parameters(value)
        return {'name': name, **parameters} if parameters else name


class CoupledConfig(ScheduledLoss):
    """
    The settings of an RGB student that is trained together with the thermal one (CKD).

    It has the sizes of `model`, starts as the thermal student looking at gray pictures, and
    learns from the same labels. weight is that of all three terms. It needs cmg.teacher, whose
    cmg.weight may be 0.
    """

    style: float = Field(0.01, ge=0)  # weight of L_SD
    content: float = Field(0.1, ge=0)  # weight of L_CD
    swap: float = Field(0.1, ge=0)  # of L_det of each head on the other's pyramid; CMD has none
    # true: a term begins after warmup_epochs, with a gradient of its weight times that of L_det
    match_gradients: bool = False
    mask_ratio: float = Field(0.25, ge=0, lt=1)  # of the patches of a pair, hidden from both
    patch: int = Field(32, ge=8)  # side of a patch, input pixels
    keep_rgb: bool = False  # at the end also write the RGB student, rgb.ckpt


def name_and_parameters(value: Any) -> tuple[str, dict[str, Any]]:
    """Check `name` or `{name: ..., parameter: value}`; ValueError names what is wrong in it."""
    parameters = dict(value) if isinstance(value, dict) else {'name': value}
    name = str(parameters.pop('name', None))
    name = RENAMED.get(name, name)
    if name not in PARAMETERS:
        raise ValueError(f'must be one of {", ".join(PARAMETERS)}, or '
                         '{name: one of these, parameter: value}')
    fields = PARAMETERS[name]
    for key in parameters:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1, 0.5) or fields
            raise ValueError(f'{name} has no parameter {key!r}'
                             + (f', did you mean {" or ".join(near)}?' if near else ''))
    model = create_model(name, __config__=ConfigDict(allow_inf_nan=False), **fields)
    try:
        return name, model(**parameters).model_dump(exclude_unset=True)
    except ValidationError as failure:
        error = failure.errors()[0]
        raise ValueError(f'{error["loc"][0]} of {name}: {what_is_wrong(error)}') from None
