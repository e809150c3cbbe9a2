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

"""What a tracker sees of its target: where it may be in a region, by a filter that is learned."""

from typing import Any, Protocol, TYPE_CHECKING

from cgdet_core.runtime.tracking.card import CELLS, STRIDE, TrackingCard
from cgdet_core.runtime.tracking.decoding import best_places, Found, refine
from cgdet_core.runtime.tracking.filter import TargetFilter
from cgdet_core.runtime.tracking.region import coverage, Region
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cgdet_core.runtime.tracking.model import Image, Seen, TrackingModel

# Regions around the first box that the filter also learns: moves in roots of its area, and scale.
FIRST_VIEWS = ((0.0, 0.0, 1.0), (0.4, 0.3, 1.0), (-0.4, 0.3, 1.0), (0.3, -0.4, 1.1),
               (-0.3, -0.4, 0.9))
FAR = 0.4  # factor of the rank of a place that is far from the prediction
FIRST_STEPS, STEPS = 10, 2  # of the filter's optimizer, at the start and later


class Sight(Protocol):
    """What one target is recognized by; made by `model.sight` from a frame and a box."""

    def look(self, image: Any, region: Region, spread: float | None) -> tuple[Found, Any]:
        """
        Return the best place in a region of a frame of `model.normalized`, and what was seen.

        spread: standard deviation of where the target may be around the center, in sides of the
        region; None: all places in it are as likely.
        """
        ...

    def learn(self, found: Found, seen: Any, rival: bool, improve: bool) -> None:
        """
        Keep what was seen of a target that certainly is at `found`.

        rival: something else looks like it; improve: take the time to learn.
        """
        ...


class FilterSight:
    """Recognize a target by its filter and the template of the box head."""

    def __init__(self, model: 'TrackingModel', image: 'Image', box: NDArray[np.float64]) -> None:
        """Start with a box (4,) of a normalized frame."""
        card = model.card
        assert isinstance(card, TrackingCard)
        self._model = model
        views = [self._view(image, box, view) for view in FIRST_VIEWS]
        self._filter = TargetFilter(card.filter, card.channels[0], card.input_size // STRIDE)
        self._filter.start(np.stack([seen.features for seen, _ in views]),
                           np.stack([center for _, center in views]), FIRST_STEPS)
        region = Region.around(box, card.factor, card.input_size)
        mask = coverage(region.to_input(box), card.input_size, CELLS, STRIDE)
        self._template = np.concatenate([views[0][0].template_features, mask[None]])

    def look(self, image: 'Image', region: Region,
             spread: float | None) -> tuple[Found, 'Seen']:
        seen = self._model.see(region.cut(image), self._template)
        scores = refine(self._filter.scores(seen.features))
        window = None if spread is None else prior(len(scores), spread)
        return best_places(scores, seen.boxes, seen.quality, window)[0], seen

    def learn(self, found: Found, seen: 'Seen', rival: bool, improve: bool) -> None:
        self._filter.add(seen.features, (found.box[:2] + found.box[2:]) / (2 * STRIDE),
                         0.04 if rival else 0.02)
        if improve:
            self._filter.improve(1 if rival else STEPS)

    def _view(self, image: 'Image', box: NDArray[np.float64],
              view: tuple[float, float, float]) -> tuple['Seen', NDArray[np.float64]]:
        """Return what the network says of a region near a box, and the box's center in cells."""
        card = self._model.card
        region = Region.beside(box, view, card.factor, card.input_size)
        placed = region.to_input(box)
        return self._model.see(region.cut(image)), (placed[:2] + placed[2:]) / (2 * STRIDE)


def prior(size: int, spread: float) -> NDArray[np.float32]:
    """Return factors (size, size) that prefer the center; spread: in sides of the region."""
    places = (np.arange(size) + 0.5 - size / 2) / size
    bell = np.exp(-0.5 * (places / spread) ** 2)
    return (FAR + (1 - FAR) * bell[:, None] * bell).astype(np.float32)
