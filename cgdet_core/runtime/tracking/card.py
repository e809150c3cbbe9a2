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

"""The model card of a tracker: the common entries, the search region, filter and scores."""

from collections.abc import Iterator
from dataclasses import dataclass, field
import math
from typing import Any, ClassVar

from cgdet_core.runtime.imaging.normalization import is_number, Normalization
from cgdet_core.runtime.inference.card import ModelCard, TensorSpec
from cgdet_core.runtime.tracking.filter import FilterSettings

STRIDE = 16  # of the features, input pixels; boxes and quality are at half of it
CELLS = 8  # of the template, in both directions, at STRIDE
SEARCH = 'N, 1, H, W: a search region of a thermal frame, in [0, 1] as normalization makes it'
TEMPLATE = ("N, C + 1, h, w: template_features of the target's region, and the share of each cell "
            'that its box covers')
FEATURES = "N, C, H, W: features that the target's filter is correlated with"
BOXES = 'N, (x1, y1, x2, y2), H, W: the box that each cell sees, in input pixels'
QUALITY = 'N, 1, H, W: the expected overlap of that box with the target, in [0, 1]'
TEMPLATE_FEATURES = 'N, C, h, w: features of the center of the region'
# What the probability is computed from, each with its weight.
EVIDENCE = ('offset', 'score', 'quality', 'match')
Tensors = dict[str, TensorSpec]


@dataclass(frozen=True, kw_only=True)
class TargetCard(ModelCard):
    """
    What the cards of all trackers have.

    factor: side of the search region, relative to the square root of the box's area. calibration:
    weights of `EVIDENCE`, whose sum is the logit of the probability that a box is on the target.
    tracked_threshold: the probability over time from which on the target is tracked, at least 0.5;
    lost_threshold: that of a look near the prediction, below which its box is not followed.
    """

    factor: float
    calibration: dict[str, float] = field(default_factory=lambda: {
        'offset': -4.0, 'score': 6.0, 'quality': 4.0, 'match': 0.0})
    tracked_threshold: float = 0.7
    lost_threshold: float = 0.3

    @property
    def input_size(self) -> int:
        """Return the width and height of the search region in input pixels."""
        return int(self.inputs['search'].shape[2])

    def checks(self) -> Iterator[tuple[bool, str]]:
        """Yield each condition with the error message for when it does not hold, in order."""
        yield from super().checks()
        yield (is_number(self.factor) and 1 < self.factor <= 16,
               'factor must be a number above 1 and at most 16')
        yield (isinstance(self.calibration, dict)
               and sorted(self.calibration) == sorted(EVIDENCE)
               and all(map(is_number, self.calibration.values())),
               f'calibration must be numbers for {", ".join(EVIDENCE)}')
        for name in ('tracked_threshold', 'lost_threshold'):
            value = getattr(self, name)
            yield is_number(value) and 0 < value < 1, f'{name} must be a number in (0, 1)'
        yield (self.lost_threshold <= self.tracked_threshold,
               'lost_threshold must not be above tracked_threshold')

    def tensor_checks(self, expected: tuple[Tensors, Tensors]) -> Iterator[tuple[bool, str]]:
        """Yield the conditions of inputs and outputs, which are those expected."""
        yield (self.input_size % (2 * STRIDE) == 0 and self.input_size >= CELLS * STRIDE,
               f'width and height of search must be a multiple of {2 * STRIDE} and at least '
               f'{CELLS * STRIDE}')
        given = self.inputs | self.outputs
        for name, spec in (expected[0] | expected[1]).items():
            yield given[name] == spec, f'{name} must be {spec}, not {given[name]}'

    def probability(self, score: float, quality: float, match: float) -> float:
        """Return the probability that a box is on the target."""
        found = dict(zip(EVIDENCE, (1.0, score, quality, match)))
        logit = sum(self.calibration[name] * value for name, value in found.items())
        return 1 / (1 + math.exp(-min(max(logit, -50.0), 50.0)))


@dataclass(frozen=True, kw_only=True)
class TrackingCard(TargetCard):
    """The model card of a thermal tracker; filter: what its filter's optimizer has learned."""

    TASK: ClassVar[str] = 'tracking'

    task: str = TASK
    filter: FilterSettings

    @property
    def channels(self) -> tuple[int, int]:
        """Return the channels of the features and of the template's features."""
        return (int(self.outputs['features'].shape[1]),
                int(self.outputs['template_features'].shape[1]))

    def checks(self) -> Iterator[tuple[bool, str]]:
        """Yield each condition with the error message for when it does not hold, in order."""
        yield from super().checks()
        yield isinstance(self.filter, FilterSettings), 'filter must be a JSON object'
        names = [*self.inputs, *self.outputs]
        yield (sorted(names) == sorted(('search', 'template', 'features', 'boxes', 'quality',
                                        'template_features')),
               'a tracker has the inputs search and template and the outputs features, boxes, '
               'quality and template_features')
        yield (all(len(s.shape) == 4 for s in (*self.inputs.values(), *self.outputs.values())),
               'inputs and outputs must have four axes')
        yield from self.tensor_checks(tensors(self.input_size, *self.channels,
                                              self.inputs['search'].shape[0]))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, the long records last."""
        values = super().to_dict()
        return values | {'filter': self.filter.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'TrackingCard':
        """Build from JSON values; ValueError or TypeError names the wrong entry."""
        if 'filter' in values:
            values = {**values, 'filter': FilterSettings.from_dict(values['filter'])}
        return super().from_dict(values)


def tensors(size: int, features: int, template: int,
            batch: int | str) -> tuple[Tensors, Tensors]:
    """Return a tracker's inputs and outputs; features, template: channels."""
    coarse, fine = size // STRIDE, 2 * size // STRIDE
    return ({'search': TensorSpec((batch, 1, size, size), 'float32', SEARCH),
             'template': TensorSpec((batch, template + 1, CELLS, CELLS), 'float32', TEMPLATE)},
            {'features': TensorSpec((batch, features, coarse, coarse), 'float32', FEATURES),
             'boxes': TensorSpec((batch, 4, fine, fine), 'float32', BOXES),
             'quality': TensorSpec((batch, 1, fine, fine), 'float32', QUALITY),
             'template_features': TensorSpec((batch, template, CELLS, CELLS), 'float32',
                                             TEMPLATE_FEATURES)})


def tracking_card(name: str, size: int, features: int, template: int,
                  normalization: Normalization, batch: int | str = 1,
                  **values: Any) -> TrackingCard:
    """Return the card of a tracker of regions (size, size); values are further entries."""
    inputs, outputs = tensors(size, features, template, batch)
    return TrackingCard(name=name, inputs=inputs, outputs=outputs, normalization=normalization,
                        **values)
