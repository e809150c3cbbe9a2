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

"""The model card: the only contract between training and robot."""

from dataclasses import asdict, dataclass, field, fields
import difflib
import hashlib
import json
from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.normalization import Normalization

VERSION = 1  # of the card
PRECISIONS = ('fp32', 'fp16', 'int8')


@dataclass(frozen=True)
class ModelCard:
    """
    Say how a model is used and where it comes from; JSON beside the ONNX.

    input_size is (width, height) in pixels. The input is float32 (1, channels, height, width)
    in [0, 1]; frames are letterboxed top-left, padded with 0. score_threshold, iou_threshold
    and max_detections are defaults for deployment. onnx_sha256 ties the card to its file and
    is empty for a checkpoint. training and accuracy are free-form records.
    """

    name: str
    classes: tuple[str, ...]
    input_size: tuple[int, int]
    normalization: Normalization
    channels: int = 1
    letterbox: str = 'top-left'
    score_threshold: float = 0.3
    iou_threshold: float = 0.6
    max_detections: int = 100
    top_k: int = 300
    precision: str = 'fp32'
    onnx_sha256: str = ''
    parameters: int = 0
    gflops: float = 0.0
    training: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        checks = (
            (self.version == VERSION, f'version must be {VERSION}'),
            (len(self.classes) > 0, 'classes must not be empty'),
            (self.channels in (1, 3), 'channels must be 1 (thermal) or 3 (an RGB teacher)'),
            (self.letterbox == 'top-left', 'letterbox must be "top-left"'),
            (len(self.input_size) == 2 and all(s > 0 and s % 32 == 0 for s in self.input_size),
             'input_size must be two multiples of 32'),
            (0 <= self.score_threshold <= 1, 'score_threshold must be in [0, 1]'),
            (0 < self.iou_threshold <= 1, 'iou_threshold must be in (0, 1]'),
            (self.max_detections > 0 and self.top_k > 0,
             'max_detections and top_k must be positive'),
            (isinstance(self.onnx_sha256, str), 'onnx_sha256 must be text'),
            (self.precision in PRECISIONS, f'precision must be one of {", ".join(PRECISIONS)}'),
        )
        for good, message in checks:
            if not good:
                raise ValueError(message)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> 'ModelCard':
        """Build from JSON values; ValueError or TypeError says which entry is wrong."""
        known = {f.name for f in fields(ModelCard)}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                raise ValueError(f'unknown entry {key!r}'
                                 + (f', did you mean {near[0]!r}?' if near else ''))
        data = dict(values)
        data['classes'] = tuple(str(c) for c in data['classes'])
        data['input_size'] = tuple(int(s) for s in data['input_size'])
        data['normalization'] = Normalization.from_dict(data['normalization'])
        return ModelCard(**data)


def card_path(model: str | Path) -> Path:
    """Return the card's path, the model's with the suffix .json."""
    return Path(model).with_suffix('.json')


def file_sha256(path: str | Path) -> str:
    """Hash a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def load_card(model: str | Path) -> ModelCard:
    """Read and check the card of an ONNX file; UserError says what does not fit."""
    model = Path(model)
    path = card_path(model)
    if not model.is_file():
        raise UserError(f'The model file {model} does not exist.')
    if not path.is_file():
        raise UserError(f'The model {model} has no card {path.name} beside it; '
                        'write both with "cgdet export".')
    try:
        card = ModelCard.from_dict(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f'The model card {path} is not valid: {error}.') from None
    digest = file_sha256(model)
    if card.onnx_sha256 != digest:
        raise UserError(
            f'The card {path} belongs to another file (sha256 {card.onnx_sha256[:12]}..., '
            f'{model.name} has {digest[:12]}...); copy the pair again or rerun "cgdet export".')
    return card


def save_card(card: ModelCard, model: str | Path) -> Path:
    """Write the card beside the model, whole or not at all."""
    path = card_path(model)
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + '\n'
    write_atomically(path, text.encode())
    return path
