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

"""The model card, the only contract between training and robot; independent of the task."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, MISSING, replace
import difflib
import hashlib
import json
import math
from pathlib import Path
import re
from typing import Any, ClassVar, TypeGuard, TypeVar

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import file_kind, finish, no_model, read_json, write_atomically
from cgdet_core.runtime.imaging.normalization import is_number, Normalization
from cgdet_core.runtime.imaging.signal import POLARITIES
from cgdet_core.runtime.inference.graph import check_terminates, not_finite

VERSION = 2  # of the card
BATCH = 'batch'  # the first axis of a tensor whose batch size is open
PRECISIONS = ('fp32', 'fp16', 'int8')
LARGEST = 2**31  # values of a tensor
DTYPES = ('float32', 'float16', 'float64', 'uint8', 'int8', 'int32', 'int64', 'bool')
Card = TypeVar('Card', bound='ModelCard')


@dataclass(frozen=True)
class TensorSpec:
    """The specification of a network's input or output."""

    shape: tuple[int | str, ...]  # positive; the first may be BATCH
    dtype: str  # numpy's name
    layout: str  # the meaning of axes and values, in words

    def __post_init__(self) -> None:
        sizes = self.shape[1:] if self.shape[:1] == (BATCH,) else self.shape
        if not self.shape or not all(is_count(n) for n in sizes):
            raise ValueError('a shape must be a list of positive integers, of which the first '
                             f'may be "{BATCH}", not {list(self.shape)}')
        if math.prod(int(n) for n in sizes) > LARGEST:
            raise ValueError(f'a tensor of shape {list(self.shape)} is too large')
        if self.dtype not in DTYPES:
            raise ValueError(f'dtype must be one of {", ".join(DTYPES)}, not {self.dtype!r}')
        if not isinstance(self.layout, str) or not self.layout:
            raise ValueError('layout must be a sentence')

    def __str__(self) -> str:
        return f'{words(self.shape, self.dtype)}, {self.layout!r}'

    @staticmethod
    def from_dict(values: dict[str, Any]) -> 'TensorSpec':
        """Build from JSON values; ValueError or TypeError states what is wrong."""
        check_entries(values, TensorSpec)
        if not isinstance(values['shape'], list | tuple):
            raise ValueError(f'a shape must be a list, not {values["shape"]!r}')
        return TensorSpec(**{**values, 'shape': tuple(values['shape'])})


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """
    The description of a model's use and origin; JSON next to the ONNX file.

    inputs and outputs are by name. onnx_sha256 ties the card to its file and is empty for a
    checkpoint. training and accuracy are free-form records. The card of a task is a subclass,
    with the task's name in TASK.
    """

    TASK: ClassVar[str] = ''

    version: int = VERSION
    task: str
    name: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    normalization: Normalization
    polarity: str = POLARITIES[0]  # of the frames that it expects
    precision: str = 'fp32'
    onnx_sha256: str = ''
    parameters: int = 0
    gflops: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for good, message in self.checks():
            if not good:
                raise ValueError(message)

    def checks(self) -> Iterator[tuple[bool, str]]:
        """Yield each condition with the error message for when it does not hold, in order."""
        yield (is_count(self.version) and self.version == VERSION,
               f'version must be {VERSION}')
        for name in ('task', 'name', 'precision', 'onnx_sha256'):
            yield isinstance(getattr(self, name), str), f'{name} must be text'
        yield self.TASK in ('', self.task), f'task must be {self.TASK}'
        yield bool(self.inputs and self.outputs), 'inputs and outputs must not be empty'
        yield self.polarity in POLARITIES, f'polarity must be one of {", ".join(POLARITIES)}'
        yield self.precision in PRECISIONS, f'precision must be one of {", ".join(PRECISIONS)}'
        yield (is_count(self.parameters) or type(self.parameters) is int and self.parameters == 0,
               'parameters must be a whole number of at least 0')
        yield is_number(self.gflops) and self.gflops >= 0, 'gflops must be at least 0'
        for name in ('training', 'accuracy'):
            yield isinstance(getattr(self, name), dict), f'{name} must be a JSON object'
            yield _is_finite(getattr(self, name)), f'{name} must not contain NaN or infinity'

    @property
    def trained_model(self) -> dict[str, Any] | None:
        """Return `model` of the recipe that trained it; None if the record does not have it."""
        recipe = self.training.get('recipe')
        model = recipe.get('model') if isinstance(recipe, dict) else None
        return model if isinstance(model, dict) else None

    def with_batch(self: Card, batch: int) -> Card:
        """Return the card of the same model with its open batch size fixed."""
        def fixed(specs: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
            return {name: replace(spec, shape=(batch, *spec.shape[1:]))
                    if spec.shape[0] == BATCH else spec for name, spec in specs.items()}

        return replace(self, inputs=fixed(self.inputs), outputs=fixed(self.outputs))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, the long records last."""
        values = asdict(self)
        records = {name: values.pop(name) for name in ('training', 'accuracy')}
        return {**values, **records}

    @classmethod
    def from_dict(cls: type[Card], values: dict[str, Any]) -> Card:
        """Build from JSON values; ValueError or TypeError names the wrong entry."""
        if values.get('version') != VERSION:
            raise ValueError(f'version must be {VERSION}')
        check_entries(values, cls)
        data = dict(values)
        for side in ('inputs', 'outputs', 'normalization'):
            if not isinstance(data[side], dict):
                raise ValueError(f'{side} must be a JSON object')
        for side in ('inputs', 'outputs'):
            data[side] = {str(k): TensorSpec.from_dict(v) for k, v in data[side].items()}
        data['normalization'] = Normalization.from_dict(data['normalization'])
        return cls(**data)


def check_entries(values: Mapping[str, Any], kind: type, known: Sequence[str] = ()) -> None:
    """Raise ValueError for unknown and missing entries of a dataclass, or of `known`."""
    if not isinstance(values, dict):
        raise ValueError(f'{str(values)[:60]} must be a JSON object')
    names = known or [f.name for f in fields(kind)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            raise ValueError(f'unknown entry {key!r}'
                             + (f', did you mean {near[0]!r}?' if near else ''))
    for entry in fields(kind) if not known else ():
        if entry.default is entry.default_factory is MISSING and entry.name not in values:
            raise ValueError(f'the entry {entry.name!r} is missing')


def words(shape: Sequence[int | str], dtype: str) -> str:
    """Return a shape and a type for messages; -1 is an open size."""
    return f'({", ".join("any" if n == -1 else str(n) for n in shape)}) {dtype}'


def card_path(model: str | Path) -> Path:
    """Return the card's path, the model's with the suffix .json."""
    return Path(model).with_suffix('.json')


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_card(values: Any, kind: type[Card], model: str | Path) -> Card:
    """Build the card of a model, an ONNX file or a checkpoint; UserError states what is wrong."""
    try:
        if not isinstance(values, dict):
            raise ValueError('it is not a JSON object')
        version, task = values.get('version'), values.get('task', 'detection')  # 1 had no other
        if is_count(version) and version > VERSION:
            raise ValueError(f'it has version {version}, but this package reads versions up to '
                             f'{VERSION}; update the package')
        if kind.TASK in ('', task):
            return kind.from_dict(values)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UserError(f'The card of {model} cannot be used: {error}.') from None
    raise UserError(f'{model} is a {task} model, not a {kind.TASK} model.')


def load_card(model: str | Path, kind: type[Card]) -> Card:
    """Read and check the card of an ONNX file; UserError states what does not fit."""
    model = Path(model)
    path = card_path(model)
    with suppress(OSError):  # a folder that this user cannot write
        finish(model, (model.name, path.name))
    if model.is_dir():
        raise UserError(f'The model file {model} is a folder; name the .onnx file in it.')
    if not model.is_file():
        raise no_model(model, 'model file')
    if not path.is_file():
        raise UserError(f'The model {model} has no card {path.name} next to it; copy or rename '
                        'its card with it, or write both with "cgdet export".')
    kind_found = file_kind(model)
    if kind_found not in ('', 'an ONNX file'):
        raise UserError(f'{model} is not an ONNX file; it seems to be {kind_found}.')
    card = read_card(read_json(path), kind, model)
    content = model.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if card.onnx_sha256 != digest:
        raise UserError(
            f'The card {path} belongs to another file (sha256 {card.onnx_sha256[:12]}..., '
            f'{model.name} has {digest[:12]}...); copy the pair again or rerun "cgdet export".')
    if bad := not_finite(content):
        raise UserError(f'{model} has weights that are not finite (in {bad}), so it detects '
                        'nothing; export another checkpoint.')
    check_terminates(content, str(model))
    return card


def save_card(card: ModelCard, model: str | Path) -> Path:
    """Write the card next to the model, atomically, and return its path."""
    path = card_path(model)
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + '\n'
    # Put lists on one line; a JSON string never contains a bare line break.
    text = re.sub(r'\[\n *([^][{}]*)\n *\]',
                  lambda m: '[' + re.sub(r'\n *', ' ', m[1]) + ']', text)
    write_atomically(path, text.encode())
    return path


def _is_finite(value: object) -> bool:
    """Return whether JSON values have no NaN and no infinity at any depth."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def is_count(value: object) -> TypeGuard[int]:
    """Return whether a value is a positive integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
