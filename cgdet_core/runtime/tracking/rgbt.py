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

"""An RGB-T tracker, whose network compares the target's template with regions of both images."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.inference.card import TensorSpec
from cgdet_core.runtime.inference.session import NotFinite
from cgdet_core.runtime.tracking.card import CELLS, SEARCH, STRIDE, TargetCard, Tensors
from cgdet_core.runtime.tracking.decoding import best_places, Found
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.region import coverage, Region
from cgdet_core.runtime.tracking.sight import prior, Sight
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
BLACK = 10  # levels that 99 % of a black image's values do not exceed
RECENT = 0.1  # share of a new look in the recent appearance
LAYOUTS = {
    'search': SEARCH,
    'rgb': 'N, (R, G, B), H, W: the same region in RGB, in [0, 1]; all 0: thermal alone',
    'template': "N, C, h, w: the center of the features of the target's region",
    'rgb_template': 'N, C, h, w: the same of rgb_features; all 0: thermal alone',
    'mask': "N, 1, h, w: the share of each cell of the template that the target's box covers",
    'scores': 'N, 1, H, W: the score that the center of the target is in the cell, in [0, 1]',
    'boxes': 'N, (x1, y1, x2, y2), H, W: the box that each cell sees, in input pixels',
    'features': 'N, C, H, W: features of the thermal region',
    'rgb_features': 'N, C, H, W: features of the RGB region'}


@dataclass(frozen=True, kw_only=True)
class RgbtCard(TargetCard):
    """The model card of an RGB-T tracker, which also follows in thermal images alone."""

    TASK: ClassVar[str] = 'rgbt_tracking'

    task: str = TASK

    def checks(self) -> Iterator[tuple[bool, str]]:
        """Yield each condition with the error message for when it does not hold, in order."""
        yield from super().checks()
        names = [*self.inputs, *self.outputs]
        yield (sorted(names) == sorted(LAYOUTS),
               'an RGB-T tracker has the inputs search, rgb, template, rgb_template and mask and '
               'the outputs scores, boxes, features and rgb_features')
        yield (all(len(s.shape) == 4 for s in (*self.inputs.values(), *self.outputs.values())),
               'inputs and outputs must have four axes')
        yield from self.tensor_checks(tensors(
            self.input_size, int(self.outputs['features'].shape[1]),
            self.inputs['search'].shape[0]))


def tensors(size: int, channels: int, batch: int | str) -> tuple[Tensors, Tensors]:
    """Return the inputs and outputs of an RGB-T tracker; channels: of the features."""
    cells = size // STRIDE
    shapes = {'search': (1, size, size), 'rgb': (3, size, size),
              'template': (channels, CELLS, CELLS), 'rgb_template': (channels, CELLS, CELLS),
              'mask': (1, CELLS, CELLS), 'scores': (1, cells, cells), 'boxes': (4, cells, cells),
              'features': (channels, cells, cells), 'rgb_features': (channels, cells, cells)}
    specs = {name: TensorSpec((batch, *shape), 'float32', LAYOUTS[name])
             for name, shape in shapes.items()}
    inputs = 'search', 'rgb', 'template', 'rgb_template', 'mask'
    return ({name: specs[name] for name in inputs},
            {name: spec for name, spec in specs.items() if name not in inputs})


def rgbt_card(name: str, size: int, channels: int, normalization: Normalization,
              batch: int | str = 1, **values: Any) -> RgbtCard:
    """Return the card of an RGB-T tracker of regions (size, size); values: further entries."""
    inputs, outputs = tensors(size, channels, batch)
    return RgbtCard(name=name, inputs=inputs, outputs=outputs, normalization=normalization,
                    **values)


class Frames(NamedTuple):
    """A thermal frame (H, W) in [0, 1], and the RGB frame (H, W, 3) uint8 that shows the same."""

    thermal: Image
    rgb: NDArray[np.uint8] | None


class RgbtSeen(NamedTuple):
    """What the network says of a region; see the card's layouts, without the batch."""

    scores: Image  # (N, N)
    boxes: Image  # (4, N, N)
    features: Image  # (C, N, N)
    rgb_features: Image | None  # (C, N, N), None without RGB
    frames: Frames
    region: Region


class RgbtModel(TrackingModel):
    """An RGB-T tracker's card and session; one instance per thread, for all its targets."""

    def normalized(self, frame: NDArray[Any], rgb: NDArray[Any] | None = None) -> Frames:
        """
        Return a raw frame in [0, 1], in a buffer that the next call overwrites, and its RGB.

        RGB is left out if it has another size or type, or is black. ValueError for a frame that
        cannot be normalized.
        """
        thermal = super().normalized(frame)
        usable = (rgb is not None and rgb.shape == (*thermal.shape, 3) and rgb.dtype == np.uint8
                  and not is_black(rgb))
        return Frames(thermal, rgb if usable else None)

    def sight(self, image: Frames, box: NDArray[np.float64]) -> Sight:
        """Return what recognizes the target in a box (4,) of normalized frames."""
        return RgbtSight(self, image, box)

    def search(self, frames: Frames, region: Region,
               templates: tuple[Image, Image | None, Image] | None = None) -> RgbtSeen:
        """
        Run the network on a region; NotFinite if the outputs are not.

        templates: template, rgb_template and mask; without them scores and boxes mean nothing.
        """
        values = self._inputs
        values['search'][0, 0] = region.cut(frames.thermal)
        values['rgb'][0] = 0 if frames.rgb is None else (
            region.cut(frames.rgb).transpose(2, 0, 1) / np.float32(255))
        for name, value in zip(('template', 'rgb_template', 'mask'), templates or (None,) * 3):
            values[name][0] = 0 if value is None else value
        found = {name: value[0] for name, value in self.session.run(values).items()}
        if not all(np.isfinite(value).all() for value in found.values()):
            raise NotFinite
        return RgbtSeen(found['scores'][0], found['boxes'], found['features'],
                        None if frames.rgb is None else found['rgb_features'], frames, region)

    def _run_once(self, ramp: Image) -> None:
        rgb = np.repeat((255 * ramp).astype(np.uint8)[..., None], 3, 2)
        self.search(Frames(ramp, rgb), Region(0, 0, len(ramp), len(ramp)))


class RgbtSight:
    """
    Recognize a target by its templates; `quality` of what is found is the likeness of features.

    Templates are those of the first frame; if it had no RGB, that of RGB is of the first later
    frame in which the target is certain.
    """

    def __init__(self, model: RgbtModel, frames: Frames, box: NDArray[np.float64]) -> None:
        """Start with a box (4,) of normalized frames."""
        self._model, card = model, model.card
        region = Region.around(box, card.factor, card.input_size)
        placed = region.to_input(box)
        seen = model.search(frames, region)
        self._template = center(seen.features)
        self._rgb_template = None if seen.rgb_features is None else center(seen.rgb_features)
        self._mask = coverage(placed, card.input_size, CELLS, STRIDE)[None]
        self._first = self._recent = appearance(seen.features, placed)

    def look(self, image: Frames, region: Region,
             spread: float | None) -> tuple[Found, RgbtSeen]:
        seen = self._model.search(image, region,
                                  (self._template, self._rgb_template, self._mask))
        window = None if spread is None else prior(len(seen.scores), spread)
        found = best_places(seen.scores, seen.boxes, np.ones_like(seen.scores), window,
                            stride=STRIDE)[0]
        shown = appearance(seen.features, found.box)
        likeness = max(0.0, float(shown @ self._first), float(shown @ self._recent))
        return replace(found, quality=likeness), seen

    def learn(self, found: Found, seen: RgbtSeen, rival: bool, improve: bool) -> None:
        recent = (1 - RECENT) * self._recent + RECENT * appearance(seen.features, found.box)
        self._recent = _unit(recent)
        if self._rgb_template is None and seen.frames.rgb is not None and not rival:
            card = self._model.card
            around = Region.around(seen.region.to_frame(found.box), card.factor, card.input_size)
            again = self._model.search(seen.frames, around).rgb_features
            assert again is not None
            self._rgb_template = center(again)


def center(features: Image) -> Image:
    """Return a copy of the central cells (C, CELLS, CELLS) of features (C, N, N)."""
    start = (features.shape[1] - CELLS) // 2
    return features[:, start:start + CELLS, start:start + CELLS].copy()


def appearance(features: Image, box: NDArray[np.float64]) -> Image:
    """
    Return what distinguishes a box (4,), in input pixels, from its region, as a unit vector (C,).

    It is the mean of the features (C, N, N) in the box less that of all of them.
    """
    cells = features.shape[1]
    covered = coverage(box, cells * STRIDE, cells, STRIDE)
    total = float(covered.sum())
    if total <= 0:  # the box is outside
        return np.zeros(len(features), np.float32)
    inside = (features * (covered / total)).sum((1, 2)) - features.mean((1, 2))
    return _unit(inside)


def _unit(vector: NDArray[np.floating]) -> Image:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)


def is_black(rgb: NDArray[np.uint8]) -> bool:
    """Return whether an RGB image (H, W, 3) shows nothing, as at night."""
    return bool(np.percentile(rgb[::8, ::8], 99) <= BLACK)
