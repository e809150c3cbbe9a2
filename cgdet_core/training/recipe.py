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

"""
The recipe engine: YAML, overrides, errors that suggest the nearest valid key, differences.

It is independent of tasks. A task's recipe derives from `Recipe` and adds its own sections;
`cgdet_core.tasks` selects it by the key `task`.
"""

from collections.abc import Callable, Iterator
import difflib
import os
from pathlib import Path
import re
from typing import Any, ClassVar, get_args, Literal, TypeVar

from cgdet_core.errors import UserError
from cgdet_core.runtime.bounded_yaml import load_yaml
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
MAX_BYTES = 1_000_000  # of a recipe; YAML would read a large JSON file for minutes
_KEY = re.compile(r'[a-z0-9_]+')  # what else pydantic names is a branch of a union
# What a value must be, by the beginning of the type of pydantic's error.
_MUST_BE = {
    'bool': 'be true or false', 'int': 'be a whole number', 'float': 'be a number',
    'finite': 'be a finite number', 'string_type': 'be text',
    'string_pattern': 'begin with a letter or digit and contain only letters, digits, "_", "." '
    'and "-"',
    'literal': 'be one of {expected}', 'greater_than_equal': 'be at least {ge}',
    'greater_than': 'be greater than {gt}', 'less_than_equal': 'be at most {le}',
    'less_than': 'be less than {lt}', 'multiple_of': 'be a multiple of {multiple_of}',
    'path': 'be the path of a file or folder', 'model': 'be a section, {{key: value}}',
    'dataclass': 'be a section, {{key: value}}',
    'dict': 'be a section, {{key: value}}', 'tuple': 'be a list, [a, b]',
    'list': 'be a list, [a, b]', 'missing': 'have more entries',
    'too_short': 'have at least {min_length} entries',
    'too_long': 'have at most {max_length} entries'}


def former_name(value: Any) -> Any:
    """Return `thermal` for `shipped`, as recipes called it when it was the only model."""
    if isinstance(value, list | tuple):
        return [former_name(entry) for entry in value]
    return 'thermal' if value == 'shipped' else value


class Strict(BaseModel):
    """A section of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False)

    @field_validator('*')
    @classmethod
    def _home(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(cls._home, value))
        return Path(os.path.expanduser(value)) if isinstance(value, Path) else value


class ScheduledLoss(Strict):
    """The settings of a training-only loss: its weight over the epochs."""

    weight: float = Field(1.0, ge=0)  # lambda
    warmup_epochs: float = Field(1.0, ge=0)  # the weight grows linearly over these
    stop_epoch: int | None = Field(None, gt=0)  # the weight is 0 from this epoch

    def weight_at(self, epoch: float) -> float:
        """Return lambda: a linear warm-up, then constant, then 0 from stop_epoch."""
        if self.stop_epoch is not None and epoch >= self.stop_epoch:
            return 0.0
        return self.weight * (min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1)


class OptimConfig(Strict):
    """The settings of the optimizer: AdamW, linear warm-up, cosine decay, averaged weights."""

    epochs: int = Field(100, gt=0)  # passes over the training frames
    batch_size: int = Field(16, gt=0)  # samples per step and process
    lr: float = Field(2e-3, gt=0)  # learning rate after the warm-up
    weight_decay: float = Field(0.05, ge=0)  # AdamW's; not of norms and biases
    warmup_epochs: float = Field(3.0, ge=0)  # the learning rate grows linearly over these
    final_lr: float = Field(0.02, ge=0, le=1)  # fraction of lr at the end
    clip_norm: float = Field(10.0, gt=0)  # largest norm of the gradient
    ema_decay: float = Field(0.999, ge=0, lt=1)  # of the averaged weights, which are evaluated
    # Starting weights: a checkpoint; an exported FP32 file with its card, or the name of one of
    # this package, such as `thermal`; `imagenet`, those of the trunk; of a detector also
    # NanoDet-Plus-m's file. Of a detector a tracker takes the trunk.
    init: Literal['imagenet'] | Path | None = None
    # Of tasks whose network has a trunk.
    trunk_lr: float = Field(1.0, gt=0)  # factor of lr
    frozen_stages: int = Field(0, ge=0)  # of the trunk, with its stem; their weights stay
    frozen_norms: bool = False  # trunk and neck normalize by the statistics that were loaded

    _former_name = field_validator('init', mode='before')(former_name)

    @model_validator(mode='after')
    def _frozen_weights_are_loaded(self) -> 'OptimConfig':
        if self.init is None and (self.frozen_stages or self.frozen_norms):
            raise ValueError('frozen_stages and frozen_norms keep what init loads; set init')
        return self


class RunConfig(Strict):
    """The settings of the run: folder, validation, workers and devices."""

    output: Path = Path('runs')  # folder of all runs
    val_every: int = Field(5, gt=0)  # epochs from one validation to the next; and the last
    workers: int = Field(2, ge=0)  # processes that read samples, per process
    accelerator: str = 'auto'  # Lightning's: auto, cpu, gpu
    devices: int = Field(1, gt=0)  # processes per machine; optim.batch_size is per process
    nodes: int = Field(1, gt=0)  # machines
    # auto: bf16-mixed on GPUs and CPUs that compute in bfloat16, otherwise 32-true
    precision: Literal['auto', '32-true', '16-mixed', 'bf16-mixed'] = 'auto'
    deterministic: bool = False  # use deterministic algorithms only
    patience: int | None = Field(None, gt=0)  # validations without a better model; null: no stop
    report: bool = True  # pictures of samples before the run, of results after it


class Recipe(Strict):
    """
    The common part of all tasks' recipes; each adds `task`, `model`, `data` and its own sections.

    renamed: old key -> new key, so that recipes and checkpoints of earlier releases are read.
    weightless: keys whose value changes no weight. presence: keys for which it only matters
    whether they are set.
    """

    renamed: ClassVar[dict[str, str]] = {}
    weightless: ClassVar[tuple[str, ...]] = ()
    presence: ClassVar[tuple[str, ...]] = ()

    task: str  # detection
    name: str = Field(pattern=r'^[A-Za-z0-9][A-Za-z0-9_.-]*$')  # of the run's folder
    seed: int = Field(0, ge=0, lt=2 ** 32)  # of weights, samples and augmentation
    model: Any  # sizes of the network
    optim: OptimConfig = OptimConfig()  # optimizer and starting weights
    run: RunConfig = RunConfig()  # folder, validation and devices

    @field_validator('normalization', mode='before', check_fields=False)
    @classmethod
    def _normalization(cls, value: Any) -> Any:  # of the tasks that have this key
        try:
            return Normalization.from_dict(value) if isinstance(value, dict) else value
        except TypeError as error:
            raise ValueError(f'has a value of the wrong type: {error}') from None

    @property
    def folder(self) -> Path:
        """Return the folder of the run's checkpoints and logs."""
        return self.run.output / self.name

    def resolved(self) -> 'Recipe':
        """Return the recipe with what its data decide; a run keeps that one."""
        return self

    def values(self) -> dict[str, Any]:
        """Return the whole recipe as plain values, which YAML keeps and a recipe accepts."""
        values: dict[str, Any] = _plain(self.model_dump(), str)
        return values

    def record(self) -> dict[str, Any]:
        """Return the recipe for a card, without `run` and with only the last part of paths."""
        values: dict[str, Any] = _plain(self.model_dump(exclude={'run'}), lambda path: path.name)
        return values

    def decisive(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return `section.key` and value of all that may change the weights."""
        found = {k: v for k, v in flat(values) if k not in self.weightless}
        for key in self.presence:
            if found.pop(key, '') in (None, False):
                found[key] = False
        return found

    def changes_since(self, record: dict[str, Any]) -> list[str]:
        """Return the `section.key` that differ from a `record` and may change the weights."""
        try:  # keys newer than the record have their defaults
            values = rename(record, self.renamed)
            record = type(self).model_validate(values).record()
        except ValidationError:
            pass
        return differences(self.decisive(record), self.decisive(self.record()))


def read_values(path: str | Path) -> dict[str, Any]:
    """Return the values of a recipe, unchecked; UserError if the file is not a mapping."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f'The recipe {path} does not exist.')
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f'{path} is not a recipe: it has {path.stat().st_size / 1e6:.1f} MB; name '
                        'a YAML file like those in config/train.')
    try:
        values = load_yaml(path.read_bytes())  # UTF-8 or UTF-16
    except (UnicodeDecodeError, yaml.reader.ReaderError):
        raise UserError(f'{path} is not a recipe: it is not a text file; name a YAML file like '
                        'those in config/train.') from None
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        line = f'line {mark.line + 1}: ' if mark else ''
        reason = getattr(error, 'problem', None) or str(error).splitlines()[0]
        raise UserError(f'{path} is not valid YAML: {line}{reason}.') from None
    if not isinstance(values, dict):
        raise UserError(f'{path} is not a recipe: it must be a mapping of keys to values.')
    if {'images', 'annotations'} <= values.keys():
        raise UserError(f'{path} is a COCO annotation file, not a recipe; name a recipe and set '
                        f'data.train={path}.')
    return values


def apply_overrides(
    values: dict[str, Any], overrides: list[str] | None, renamed: dict[str, str],
) -> dict[str, Any]:
    """Set `section.key=value` (values are YAML) in the values, in place, and return them."""
    for override in overrides or []:
        key, equals, text = override.partition('=')
        if not equals or not all(key.split('.')):
            raise UserError(f'The override {override!r} is not of the form key=value.')
        try:
            value = load_yaml(text)
        except yaml.YAMLError:
            raise UserError(f'The value of the override {override!r} is not valid YAML.') from None
        set_value(values, renamed.get(key, key), value)
    return values


def set_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of `section.key`; a section that is missing or null is created."""
    *parents, last = key.split('.')
    for parent in parents:
        node = values.get(parent)
        if node is None:
            node = values[parent] = {}
        if not isinstance(node, dict):
            raise UserError(f'The override {key!r} does not name a section of the recipe.')
        values = node
    values[last] = value


def rename(values: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """Return a copy of the values with the old names of keys replaced by the new ones."""
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for old, new in renamed.items():
        section, _, key = old.rpartition('.')
        node = values.get(section) if section else values
        if isinstance(node, dict) and key in node:
            value = node.pop(key)
            if new.rpartition('.')[2] not in node:
                set_value(values, new, value)
    return values


def flat(values: dict[str, Any], parents: str = '') -> Iterator[tuple[str, Any]]:
    """Yield `section.key` and value; an empty section yields nothing."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f'{parents}{key}.')
        else:
            yield f'{parents}{key}', value


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the keys whose values differ."""
    return [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]


def check_values(schema: type[Schema], values: dict[str, Any], origin: str) -> Schema:
    """Check values against a schema; UserError names the key that is wrong."""
    try:
        return schema.model_validate(values)
    except ValidationError as failure:
        errors = failure.errors()
        # A misspelled key that is required is also missing; its nearest name says more.
        error = next((e for e in errors if e['type'] == 'extra_forbidden'), errors[0])
        where = '.'.join(str(part) for part in error['loc'] if _KEY.fullmatch(str(part)))
        if error['type'] == 'extra_forbidden':
            raise UserError(f'{origin}: unknown key {where!r}'
                            f'{_alternatives(schema, error["loc"])}') from None
        if error['type'] == 'missing' and isinstance(error['loc'][-1], str):
            raise UserError(f'{origin}: {where} is missing; add it to the file or to the command '
                            f'({where}=...).') from None
        raise UserError(f'{origin}: {where + ": " if where else ""}'
                        f'{what_is_wrong(error)}.') from None


def what_is_wrong(error: Any) -> str:
    """Return what a value must be, in our words, for an error of pydantic."""
    kind, context = error['type'], error.get('ctx', {})
    if kind == 'value_error':
        return str(error['msg'].removeprefix('Value error, '))
    words = next((text for start, text in _MUST_BE.items() if kind.startswith(start)), None)
    if words is None:
        return str(error['msg'])
    given = repr(error['input'])
    given = given if len(given) <= 60 else f'{given[:57]}...'
    return f'must {words.format(**context)}, not {given}'


def _alternatives(schema: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """Return the end of a sentence on an unknown key: the nearest one, or all of its section."""
    section: Any = schema
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        section = next((a for a in (annotation, *get_args(annotation))
                        if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if section is None:
            return '.'
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, 1, 0.5)
    if near:
        return f', did you mean {".".join([*map(str, location[:-1]), near[0]])!r}?'
    return f'; the keys there are {", ".join(section.model_fields)}.'


def _plain(value: Any, of_path: Callable[[Path], str]) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v, of_path) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, of_path) for v in value]
    if hasattr(value, 'to_dict'):
        return _plain(value.to_dict(), of_path)
    return of_path(value) if isinstance(value, Path) else value
