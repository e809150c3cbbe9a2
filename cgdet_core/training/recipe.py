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

"""Recipes: one YAML file says everything about a training run."""

from collections.abc import Iterator
import difflib
import math
from pathlib import Path
from typing import Any, get_args, Literal, TypeVar

from cgdet_core.data.coco import CocoSet, load_coco
from cgdet_core.detection.augmentation import AugmentConfig
from cgdet_core.detection.student import StudentConfig
from cgdet_core.distillation.contrast import ContrastiveConfig
from cgdet_core.distillation.guidance import GuidanceConfig
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.normalization import Normalization
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
    ValidationError,
)
import yaml

Schema = TypeVar('Schema', bound=BaseModel)
WEIGHTLESS = ('data.cache_gib',)  # keys that change no weight
TEACHER_CACHE = 'cmg.teacher.cache'  # where it lies changes none, that there is one does


class Strict(BaseModel):
    """A section of the recipe; unknown keys are errors."""

    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False)


class DataConfig(Strict):
    """Say which frames are used; paths are relative to the working directory."""

    train: Path
    val: Path
    images: Path | None = None  # where file names in both are relative to, if not beside them
    license: str = 'unknown'  # of the training data, for the model card
    synthetic: int = Field(0, ge=0)  # synthetic scenes mixed into an epoch
    repeat_threshold: float = Field(0.0, ge=0, le=1)  # LVIS repeat factor sampling; 0 = off
    pair_share: float | None = Field(None, ge=0, le=1)  # of frames with RGB in a batch; null: any
    cache_gib: float = Field(4.0, ge=0)  # memory for raw frames, over all workers of a process


class OptimConfig(Strict):
    """Say how weights are found: AdamW, linear warm-up, cosine decay, averaged weights."""

    epochs: int = Field(100, gt=0)
    batch_size: int = Field(16, gt=0)
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup_epochs: float = Field(3.0, ge=0)
    final_lr: float = Field(0.02, ge=0, le=1)  # fraction of lr at the end
    clip_norm: float = Field(10.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    init: Path | None = None  # checkpoint whose weights are the start


class RunConfig(Strict):
    """Say where and how the run is executed."""

    output: Path = Path('runs')
    val_every: int = Field(5, gt=0)
    workers: int = Field(2, ge=0)
    accelerator: str = 'auto'
    devices: int = Field(1, gt=0)  # processes on a machine; optim.batch_size is one's
    nodes: int = Field(1, gt=0)  # machines
    precision: Literal['32-true', '16-mixed', 'bf16-mixed'] = '32-true'  # bf16: GPU or CPU's AMX
    deterministic: bool = False


class Recipe(Strict):
    """Hold a whole recipe."""

    name: str = Field(pattern=r'^[A-Za-z0-9][A-Za-z0-9_.-]*$')  # of the run's folder
    seed: int = Field(0, ge=0, lt=2 ** 32)
    classes: tuple[str, ...] = Field(('person', 'bicycle', 'car'), min_length=1)
    input_size: tuple[int, int] = (640, 512)  # width, height
    normalization: Normalization = Normalization()
    model: StudentConfig = StudentConfig()
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    rcs: ContrastiveConfig | None = None  # RoI-level supervised contrastive loss; null: off
    cmg: GuidanceConfig | None = None  # cross-modal guidance by an RGB teacher; null: off
    run: RunConfig = RunConfig()

    @field_validator('normalization', mode='before')
    @classmethod
    def _normalization(cls, value: Any) -> Any:
        try:
            return Normalization.from_dict(value) if isinstance(value, dict) else value
        except TypeError as error:
            raise ValueError(f'has a value of the wrong type: {error}') from None

    @field_validator('classes')
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError('must be different names')
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
    def _fits_together(self) -> 'Recipe':
        if self.rcs is not None and len(self.classes) < 2:
            raise ValueError('rcs separates classes and needs at least two; set rcs to null')
        if self.cmg is not None and self.model.in_channels != 1:
            raise ValueError('cmg guides a thermal student; set model.in_channels to 1')
        for name, term in (('rcs', self.rcs), ('cmg', self.cmg)):
            if term and term.stop_epoch is not None and term.warmup_epochs >= term.stop_epoch:
                raise ValueError(f'{name} stops before it is warm; lower {name}.warmup_epochs or '
                                 f'raise {name}.stop_epoch')
        return self

    @property
    def folder(self) -> Path:
        """Return the folder of the run's checkpoints and logs."""
        return self.run.output / self.name

    def frames(self, path: Path) -> CocoSet:
        """Read the frames of `data.train` or `data.val` as the model looks at them."""
        return load_coco(path, self.data.images, self.classes, self.model.in_channels)


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """
    Read a recipe and apply overrides `section.key=value` (values are YAML).

    UserError names a missing file, an unknown key with the nearest valid one, or a bad value.
    """
    values = read_values(path)
    if 'variants' in values and 'name' not in values:
        raise UserError(f'{path} is a grid of recipes; use "cgdet ablate".')
    return parse_recipe(apply_overrides(values, overrides), str(path))


def read_values(path: str | Path) -> dict[str, Any]:
    """Read the values of a recipe, unchecked; UserError where the file holds no mapping."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f'The recipe {path} does not exist.')
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not valid YAML: {str(error).splitlines()[0]}.') from None
    if not isinstance(values, dict):
        raise UserError(f'{path} is not a recipe: it must be a mapping of keys to values.')
    return values


def apply_overrides(values: dict[str, Any], overrides: list[str] | None) -> dict[str, Any]:
    """Set `section.key=value` in the values, in place, and give them."""
    for override in overrides or []:
        key, equals, text = override.partition('=')
        if not equals or not key:
            raise UserError(f'The override {override!r} is not of the form key=value.')
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f'The value of the override {override!r} is not valid YAML.') from None
        set_value(values, key, value)
    return values


def set_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of `section.key`; a section that is missing or null begins empty."""
    *parents, last = key.split('.')
    for parent in parents:
        node = values.get(parent)
        if node is None:
            node = values[parent] = {}
        if not isinstance(node, dict):
            raise UserError(f'The override {key!r} names no section of the recipe.')
        values = node
    values[last] = value


def flat(values: dict[str, Any], parents: str = '') -> Iterator[tuple[str, Any]]:
    """Return `section.key` and value; an empty section gives nothing."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f'{parents}{key}.')
        else:
            yield f'{parents}{key}', value


def decisive(values: dict[str, Any]) -> dict[str, Any]:
    """Return `section.key` and value of all that may change the weights."""
    found = {k: v for k, v in flat(values) if k not in WEIGHTLESS}
    if found.pop(TEACHER_CACHE, '') in (None, False):
        found[TEACHER_CACHE] = False
    return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Name the `section.key` that differ and may change the weights; plain values."""
    old, new = decisive(old), decisive(new)
    return [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]


def parse_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Check the values of a recipe; `origin` names it in errors."""
    return check_values(Recipe, values, origin)


def check_values(schema: type[Schema], values: dict[str, Any], origin: str) -> Schema:
    """Check values against a schema; UserError names the key that is wrong."""
    try:
        return schema.model_validate(values)
    except ValidationError as failure:
        error = failure.errors()[0]
        where = '.'.join(str(part) for part in error['loc'])
        if error['type'] == 'extra_forbidden':
            near = _nearest(schema, error['loc'])
            raise UserError(f'{origin}: unknown key {where!r}'
                            + (f', did you mean {near!r}?' if near else '.')) from None
        message = error['msg'].removeprefix('Value error, ')
        raise UserError(f'{origin}: {where + ": " if where else ""}{message}.') from None


def _nearest(schema: type[BaseModel], location: tuple[int | str, ...]) -> str | None:
    section: Any = schema
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        section = next((a for a in (annotation, *get_args(annotation))
                        if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if section is None:
            return None
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, 1, 0.5)
    return '.'.join([*map(str, location[:-1]), near[0]]) if near else None
