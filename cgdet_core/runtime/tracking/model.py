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

"""The network of a tracker: its card and session, shared by any number of targets."""

from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import read_json
from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.normalization import normalize
from cgdet_core.runtime.inference.card import card_path, load_card
from cgdet_core.runtime.inference.choice import open_session
from cgdet_core.runtime.inference.session import NotFinite, Session
from cgdet_core.runtime.tensorrt.cache import Progress
from cgdet_core.runtime.tracking.camera import camera_motion, CameraMotion, Overview
from cgdet_core.runtime.tracking.card import TargetCard, TrackingCard
from cgdet_core.runtime.tracking.sight import FilterSight, Sight
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


class Seen(NamedTuple):
    """What the network says of a search region; see the card's layouts, without the batch."""

    features: Image  # (C, N, N)
    boxes: Image  # (4, 2 N, 2 N)
    quality: Image  # (2 N, 2 N)
    template_features: Image  # (C, CELLS, CELLS)


class TrackingModel:
    """A tracker's card and session; one instance per thread, for all targets of the thread."""

    def __init__(self, card: TargetCard, session: Session) -> None:
        self.card = card
        self.session = session
        self._inputs = {name: np.zeros([int(n) for n in spec.shape], np.float32)
                        for name, spec in card.with_batch(1).inputs.items()}
        self.thermal = np.empty((0, 0), np.float32)  # the last frame (H, W) in [0, 1]
        self._frame: NDArray[Any] | None = None  # that was prepared
        self._rgb: NDArray[Any] | None = None
        self._stamp, self._prepared = 0.0, None
        self.overview: Overview | None = None  # of that frame
        self._moved: tuple[Overview, Overview, CameraMotion | None] | None = None

    @staticmethod
    def load(model: str | Path, threads: int = 0, backend: str = 'auto',
             progress: Progress | None = None,
             card: TargetCard | None = None) -> 'TrackingModel':
        """
        Load an ONNX file with its card and run it once; UserError states what is wrong.

        backend: one of `BACKENDS`. progress is called while an engine is built, which may take
        minutes; by default the progress is logged. card: that of `load_tracker_card`, if it was
        read already.
        """
        from cgdet_core.runtime.tracking.rgbt import RgbtModel  # derived from this

        card = card or load_tracker_card(model)
        session = open_session(model, card, backend, threads, progress=progress)
        loaded = (TrackingModel if isinstance(card, TrackingCard) else RgbtModel)(card, session)
        loaded.try_out(model)
        return loaded

    def try_out(self, model: str | Path) -> None:
        """Run on a ramp; UserError if outputs of `model` are not finite."""
        size = self.card.input_size
        ramp = np.linspace(0, 1, size * size, dtype=np.float32).reshape(size, size)
        try:
            self._run_once(ramp)
        except NotFinite as error:
            raise UserError(f'{model} cannot be used: {error}.') from None

    def _run_once(self, ramp: Image) -> None:
        self.see(ramp)

    def prepare(self, frame: NDArray[Any], rgb: NDArray[Any] | None, stamp: float) -> Any:
        """
        Return `normalized`, once for all targets that are followed into the same frame.

        That is the same array with the same stamp: a buffer that is used again needs a new stamp.
        """
        if self._frame is not frame or self._rgb is not rgb or self._stamp != stamp:
            self._prepared = self.normalized(frame, rgb)
            self._frame, self._rgb, self._stamp = frame, rgb, stamp
        return self._prepared

    def normalized(self, frame: NDArray[Any], rgb: NDArray[Any] | None = None) -> Any:
        """
        Return a raw frame (H, W) in [0, 1], in a buffer that the next call overwrites.

        The whole frame, so that the region's contrast does not change with what is in it. rgb:
        (H, W, 3) uint8, which only an RGB-T tracker uses.
        ValueError for a frame that cannot be normalized.
        """
        self._frame = self._rgb = None
        if frame.ndim != 2 or frame.size == 0:
            raise ValueError('a thermal frame must be two-dimensional and not empty, this one '
                             f'has shape {frame.shape}')
        frame, _ = fill_dead_pixels(frame)
        if self.thermal.shape != frame.shape:
            self.thermal = np.empty(frame.shape, np.float32)
        normalize(frame, self.card.normalization, self.thermal, finite=True)
        self.overview = Overview.of(self.thermal)
        return self.thermal

    def moved(self, before: Overview) -> CameraMotion | None:
        """Return how the camera moved from an earlier overview to the last frame's."""
        assert self.overview is not None
        if self._moved is None or self._moved[:2] != (before, self.overview):
            self._moved = before, self.overview, camera_motion(before, self.overview)
        return self._moved[2]

    def sight(self, image: Any, box: NDArray[np.float64]) -> Sight:
        """Return what recognizes the target in a box (4,) of a normalized frame."""
        return FilterSight(self, image, box)

    def see(self, region: Image, template: Image | None = None) -> Seen:
        """
        Run the network on a region (size, size); template: (C + 1, CELLS, CELLS).

        Without a template boxes and quality mean nothing. NotFinite if the outputs are not.
        """
        self._inputs['search'][0, 0] = region
        self._inputs['template'][0] = 0 if template is None else template
        found = self.session.run(self._inputs)
        seen = Seen(found['features'][0], found['boxes'][0], found['quality'][0, 0],
                    found['template_features'][0])
        if not all(np.isfinite(value).all() for value in seen):
            raise NotFinite
        return seen


def load_tracker_card(model: str | Path) -> TargetCard:
    """Return the card of a tracker's ONNX file; UserError states what is wrong."""
    from cgdet_core.runtime.tracking.rgbt import RgbtCard  # its model derives from this one

    path = card_path(model)
    values = read_json(path) if path.is_file() else None
    rgbt = isinstance(values, dict) and values.get('task') == RgbtCard.TASK
    return load_card(model, RgbtCard if rgbt else TrackingCard)
