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

"""The model card of a detector: the common entries, and classes, boxes and scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cgdet_core.runtime.imaging.normalization import is_number, Normalization
from cgdet_core.runtime.inference.card import BATCH, check_entries, is_count, ModelCard, TensorSpec
import numpy as np
from numpy.typing import NDArray

# Layouts of the input, by number of channels (3: RGB teacher), and of the outputs.
IMAGES = {1: 'N, 1, H, W: thermal values in [0, 1] as normalization makes them',
          3: 'N, (R, G, B), H, W: values in [0, 1]'}
BOXES = 'N, K, (x1, y1, x2, y2) in input pixels'
SCORES = 'N, K, the score in [0, 1] of each of the classes'
STRIDES = (8, 16, 32)  # of the cells, in input pixels; the K best cells become boxes
STEEPEST = 1e6  # of what scales scores
# What "cgdet fit-scores" writes.
FITTED = ('iou_threshold', 'voting_iou', 'score_scaling', 'class_thresholds')
VERSION_1 = ('name', 'classes', 'input_size', 'normalization', 'channels', 'letterbox',
             'score_threshold', 'iou_threshold', 'max_detections', 'top_k', 'precision',
             'onnx_sha256', 'parameters', 'gflops', 'training', 'accuracy', 'version')


@dataclass(frozen=True, kw_only=True)
class DetectionCard(ModelCard):
    """
    The model card of a detector; frames are letterboxed top-left, padded with 0.

    Written by "cgdet fit-scores": score_scaling, the slope and offset by class that turn raw
    scores into probabilities (see `postprocess.scale`), and class_thresholds, minimum scaled
    scores by class. Classes without an entry keep raw scores and score_threshold. voting_iou:
    see `postprocess.vote`; None for no voting.
    """

    TASK: ClassVar[str] = 'detection'

    task: str = TASK
    classes: tuple[str, ...]
    letterbox: str = 'top-left'
    score_threshold: float = 0.3  # this and the following are defaults for deployment
    iou_threshold: float = 0.6
    max_detections: int = 100
    voting_iou: float | None = None
    score_scaling: dict[str, dict[str, float]] = field(default_factory=dict)
    class_thresholds: dict[str, float] = field(default_factory=dict)

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        height, width = self.inputs['images'].shape[2:]
        return int(width), int(height)

    @property
    def channels(self) -> int:
        """Return 1 for thermal frames, 3 for RGB images."""
        return int(self.inputs['images'].shape[1])

    @property
    def top_k(self) -> int:
        """Return K, the number of boxes per image."""
        return int(self.outputs['boxes'].shape[1])

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """Return the minimum score of each class (num_classes,)."""
        return np.array([self.class_thresholds.get(c, self.score_threshold)
                         for c in self.classes], np.float32)

    @property
    def shown_threshold(self) -> float | dict[str, float]:
        """Return score_threshold, or with class_thresholds the threshold of each class."""
        if not self.class_thresholds:
            return self.score_threshold
        return {c: self.class_thresholds.get(c, self.score_threshold) for c in self.classes}

    @property
    def scaling(self) -> NDArray[np.float64] | None:
        """Return slope and offset of each class (num_classes, 2); None if scores stay raw."""
        if not self.score_scaling:
            return None
        same = {'slope': 1.0, 'offset': 0.0}
        entries = [self.score_scaling.get(c, same) for c in self.classes]
        return np.array([[entry['slope'], entry['offset']] for entry in entries])

    def checks(self) -> Iterator[tuple[bool, str]]:
        """Yield each condition with the error message for when it does not hold, in order."""
        yield from super().checks()
        yield (bool(self.classes) and isinstance(self.classes, tuple)
               and all(isinstance(c, str) and c.strip() for c in self.classes)
               and len({*self.classes}) == len(self.classes),
               'classes must be a list of different names and not empty')
        yield self.letterbox == 'top-left', 'letterbox must be "top-left"'
        for name, low in (('score_threshold', True), ('iou_threshold', False)):
            value = getattr(self, name)
            yield (is_number(value) and (0 < value <= 1 or low and value == 0),
                   f'{name} must be a number in {"[" if low else "("}0, 1]')
        yield is_count(self.max_detections), 'max_detections must be a positive whole number'
        yield (self.voting_iou is None or is_number(self.voting_iou) and 0 < self.voting_iou <= 1,
               'voting_iou must be null or a number in (0, 1]')
        yield from self._score_checks()
        yield ([*self.inputs] == ['images'] and sorted(self.outputs) == ['boxes', 'scores'],
               'a detector has the input images and the outputs boxes and scores')
        yield (len(self.inputs['images'].shape) == 4 and len(self.outputs['boxes'].shape) == 3,
               'images must be (N, C, H, W) and boxes (N, K, 4)')
        yield (not any(n % STRIDES[-1] for n in self.input_size),
               f'width and height of images must be multiples of {STRIDES[-1]}')
        inputs, outputs = tensors(self.input_size, self.channels, len(self.classes), self.top_k,
                                  self.inputs['images'].shape[0])
        for name, spec in (inputs | outputs).items():
            given = (self.inputs | self.outputs)[name]
            yield given == spec, f'{name} must be {spec}, not {given}'

    def _score_checks(self) -> Iterator[tuple[bool, str]]:
        for name in ('score_scaling', 'class_thresholds'):
            entries = getattr(self, name)
            yield isinstance(entries, dict), f'{name} must be a JSON object'
            for unknown in set(entries) - set(self.classes):
                yield False, f'{name} has an entry for {unknown!r}, which is not a class'
        for name, entry in self.score_scaling.items():
            yield (isinstance(entry, dict) and sorted(entry) == ['offset', 'slope']
                   and all(is_number(v) and abs(v) <= STEEPEST for v in entry.values())
                   and entry['slope'] > 0,
                   f'score_scaling of {name} must be a slope above 0 and an offset, '
                   f'at most {STEEPEST:.0e}')
        for name, value in self.class_thresholds.items():
            yield (is_number(value) and 0 <= value <= 1,
                   f'class_thresholds of {name} must be a number in [0, 1]')

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'DetectionCard':
        """Build from JSON values; ValueError or TypeError names the wrong entry."""
        if values.get('version', 1) == 1 and 'inputs' not in values:
            return _from_version_1(values)
        if isinstance(classes := values.get('classes'), list):
            values = {**values, 'classes': tuple(classes)}
        return super().from_dict(values)


def tensors(input_size: tuple[int, int], channels: int, classes: int, top_k: int,
            batch: int | str) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Return a detector's inputs and outputs."""
    width, height = input_size
    if channels not in IMAGES:
        raise ValueError('channels must be 1 (thermal) or 3 (an RGB teacher)')
    return ({'images': TensorSpec((batch, channels, height, width), 'float32', IMAGES[channels])},
            {'boxes': TensorSpec((batch, top_k, 4), 'float32', BOXES),
             'scores': TensorSpec((batch, top_k, classes), 'float32', SCORES)})


def detection_card(name: str, classes: tuple[str, ...], input_size: tuple[int, int],
                   normalization: Normalization, channels: int = 1, top_k: int = 300,
                   batch: int | str = BATCH, **values: Any) -> DetectionCard:
    """Return the card of a detector of input_size (width, height); values are further entries."""
    inputs, outputs = tensors(input_size, channels, len(classes), top_k, batch)
    return DetectionCard(name=name, classes=classes, inputs=inputs, outputs=outputs,
                         normalization=normalization, **values)


def _from_version_1(values: dict[str, Any]) -> DetectionCard:
    """Build from a card of version 1: size, channels and K as entries, no batch."""
    check_entries(values, DetectionCard, VERSION_1)
    data = {k: v for k, v in values.items() if k != 'version'}
    size, lists = data.get('input_size'), (list, tuple)
    for good, message in (
            (isinstance(data.get('name'), str), 'name must be text'),
            (isinstance(data.get('classes'), lists), 'classes must be a list of names'),
            (isinstance(size, lists) and len(size) == 2 and all(map(is_count, size)),
             'input_size must be two positive whole numbers'),
            (isinstance(data.get('normalization'), dict), 'normalization must be a JSON object'),
            (is_count(data.get('channels', 1)), 'channels must be 1 or 3'),
            (is_count(data.get('top_k', 1)), 'top_k must be a positive whole number')):
        if not good:
            raise ValueError(message)
    width, height = data['input_size']
    cells = sum((width // s) * (height // s) for s in STRIDES)
    return detection_card(**{
        **data, 'classes': tuple(data['classes']), 'input_size': (width, height),
        'normalization': Normalization.from_dict(data['normalization']),
        'top_k': min(data.get('top_k', 300), cells),
        'batch': 1 if data.get('onnx_sha256') else BATCH,  # a checkpoint accepts any
        'training': _with_license(data.get('training', {}))})


def _with_license(record: Any) -> Any:
    """Return a training record with "licence" renamed to "license" at every depth."""
    if not isinstance(record, dict):
        return record
    return {'license' if k == 'licence' else k: _with_license(v) for k, v in record.items()}
