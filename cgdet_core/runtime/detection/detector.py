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

"""The detector: a raw frame in, detections in the frame's pixels out."""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.postprocess import decode, Detections, scale
from cgdet_core.runtime.detection.result import Result, to_frame
from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.geometry import Letterbox
from cgdet_core.runtime.imaging.normalization import normalize
from cgdet_core.runtime.imaging.signal import CARD, seen
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.inference.choice import open_session
from cgdet_core.runtime.inference.session import NotFinite, Session
from cgdet_core.runtime.tensorrt.cache import Progress
import numpy as np
from numpy.typing import NDArray

EVALUATION_THRESHOLD = 0.001  # raw scores, for average precision
LOST_THRESHOLD = 0.1  # of detections that may be a lost target


@dataclass(frozen=True)
class Timings:
    """Seconds spent on one frame."""

    pre: float
    infer: float
    post: float


class Detector:
    """
    Detect objects in raw frames, thermal or RGB according to the card; one instance per thread.

    Call it with an image file or any array for a `Result`. `detect` processes one raw frame.
    A batch is processed in steps, one row per frame: `preprocess` each, `infer` once,
    `postprocess` each. A frame that cannot be normalized therefore affects only its own row. Of
    the latest batch of N: `input` (N, C, H, W) is the network's input, `boxes` (N, K, 4), in
    input pixels, and `scores` (N, K, num_classes) are its outputs; N is 1 until `reserve`.
    `last_timings` are the seconds of the latest `detect`.
    """

    def __init__(self, card: DetectionCard, session: Session) -> None:
        self.card = card
        self.session = session
        self.last_timings = Timings(0.0, 0.0, 0.0)
        self._scratch = np.empty((0, 0), np.float32)
        self.reserve(1)

    def reserve(self, count: int) -> None:
        """Allocate new buffers for `count` frames, at most the session's max_batch."""
        width, height = self.card.input_size
        self.input = np.zeros((count, self.card.channels, height, width), np.float32)
        self.boxes = np.zeros((count, self.card.top_k, 4), np.float32)
        self.scores = np.zeros((count, self.card.top_k, len(self.card.classes)), np.float32)

    @staticmethod
    def load(model: str | Path, threads: int = 0, backend: str = 'auto',
             progress: Progress | None = None, card: DetectionCard | None = None) -> 'Detector':
        """
        Load an ONNX file with its card and run it on two frames; UserError states what is wrong.

        backend: one of `BACKENDS`. progress is called while an engine is built, which may take
        minutes; by default the progress is logged. card: what `load_card` returned, if the caller
        has read it.
        """
        card = card or load_card(model, DetectionCard)
        if card.channels != 1:
            raise UserError(f'{model} is an RGB model; choose a thermal model.')
        detector = Detector(card, open_session(model, card, backend, threads, progress=progress))
        detector.try_out(model)
        return detector

    def try_out(self, model: str | Path) -> None:
        """Run on a flat frame and on a ramp; UserError if outputs of `model` are not finite."""
        width, height = self.card.input_size
        ramp = np.linspace(0, 65535, width * height).astype(np.uint16).reshape(height, width)
        try:
            for frame in (np.zeros_like(ramp), ramp):
                self.detect(frame)
        except NotFinite as error:
            raise UserError(f'{model} cannot be used: {error}.') from None

    def __call__(self, image: str | PathLike[str] | NDArray[Any],
                 score_threshold: float | NDArray[np.float32] | None = None) -> Result:
        """
        Detect objects in an image file or an array; the result has names and draws itself.

        image: (H, W) uint8, uint16 counts or float32 kelvin, also with 1, 3 or 4 channels, see
        `to_frame`. score_threshold: as in `detect`. UserError, a ValueError, for a file that
        cannot be read; ValueError for a frame that cannot be normalized.
        """
        frame = to_frame(image, self.card.channels)
        found = self.detect(frame, score_threshold)
        return Result(found.boxes, found.scores, found.labels, frame, self.card)

    def preprocess(self, frame: NDArray[Any], row: int = 0, finite: bool = False) -> Letterbox:
        """
        Normalize and letterbox a frame into a row of the input; ValueError if it cannot be.

        finite: the frame has no dead pixels, see `prepare`.
        """
        if self._scratch.shape != frame.shape[:2]:
            self._scratch = np.empty(frame.shape[:2], np.float32)
        return prepare(frame, self.card, self.input[row], self._scratch, finite)

    def infer(self, count: int = 1) -> None:
        """Run the network on the first `count` rows; the session's exceptions are passed on."""
        self.session.run({'images': self.input[:count]},
                         {'boxes': self.boxes[:count], 'scores': self.scores[:count]})

    def postprocess(self, box: Letterbox, score_threshold: float | NDArray[np.float32],
                    row: int = 0) -> Detections:
        """
        Return a row's detections in its frame; score_threshold: a number or (num_classes,).

        NotFinite if the network's outputs are not.
        """
        if not (np.isfinite(self.boxes[row]).all() and np.isfinite(self.scores[row]).all()):
            raise NotFinite
        return decode(self.boxes[row], self.scores[row], box, self.card, score_threshold)

    def detect(self, frame: NDArray[Any],
               score_threshold: float | NDArray[np.float32] | None = None) -> Detections:
        """
        Detect objects in a raw frame (H, W), uint8, uint16 or float32 kelvin; RGB (H, W, 3) uint8.

        score_threshold: a number or (num_classes,), by default the card's. Boxes are
        clipped to the frame. ValueError for a frame that cannot be normalized, and (NotFinite)
        if the network's outputs are not finite.
        """
        start = perf_counter()
        box = self.preprocess(frame)
        ready = perf_counter()
        self.infer()
        done = perf_counter()
        threshold = self.card.thresholds if score_threshold is None else score_threshold
        found = self.postprocess(box, threshold)
        self.last_timings = Timings(ready - start, done - ready, perf_counter() - done)
        return found


def finder(
    detector: Detector, polarity: str = '', score_threshold: float | None = None,
) -> Callable[[NDArray[Any]], list[tuple[NDArray[np.float32], float, int]]]:
    """
    Return a function of a raw frame for trackers: box (4,), score and label of each object.

    polarity: of the frames, '' for that of the detector's card. score_threshold: as in `detect`.
    """
    def find(frame: NDArray[Any]) -> list[tuple[NDArray[np.float32], float, int]]:
        found = detector.detect(seen(frame, CARD, polarity, detector.card.polarity),
                                score_threshold)
        return list(zip(found.boxes, found.scores.tolist(), found.labels.tolist()))

    return find


def evaluation_threshold(
    card: DetectionCard, raw: float = EVALUATION_THRESHOLD,
) -> float | NDArray[np.float32]:
    """Return the threshold that a raw score is for a card's scores, scaled or not."""
    if card.scaling is None:
        return raw
    return scale(np.full(len(card.classes), raw, np.float32), card.scaling)


def prepare(frame: NDArray[Any], card: DetectionCard, out: NDArray[np.float32],
            scratch: NDArray[np.float32] | None = None, finite: bool = False) -> Letterbox:
    """
    Normalize and letterbox a raw frame into `out` (C, H, W).

    frame: (H, W) thermal, or (H, W, 3) RGB uint8 if the card has three channels. scratch: a
    buffer (H, W) of the frame's size, as allocating a large array is slower. A few dead pixels
    are filled, unless the caller has done so (finite). ValueError for a frame that cannot be
    normalized.
    """
    if card.channels == 3:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f'an RGB image must be (H, W, 3) uint8, this one is {frame.shape}')
    elif frame.ndim != 2 or frame.size == 0:
        raise ValueError(f'a thermal frame must be two-dimensional and not empty, '
                         f'this one has shape {frame.shape}')
    box = Letterbox((frame.shape[1], frame.shape[0]), card.input_size)
    if not finite:
        frame, _ = fill_dead_pixels(frame)
    if card.channels == 3:
        for channel in range(3):
            box.apply(frame[..., channel].astype(np.float32) / np.float32(255), out[channel])
    elif box.fitted == box.source:
        normalize(frame, card.normalization, box.window(out[0]), finite=True)
    else:
        box.apply(normalize(frame, card.normalization, scratch, finite=True), out[0])
    return box
