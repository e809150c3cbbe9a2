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

"""The detector: a raw thermal frame in, detections in its own pixels out."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.postprocess import Detections, select
from cgdet_core.runtime.imaging.geometry import Letterbox
from cgdet_core.runtime.imaging.normalization import normalize
from cgdet_core.runtime.inference.card import load_card, ModelCard
from cgdet_core.runtime.inference.choice import open_backend
from cgdet_core.runtime.inference.session import Backend
from cgdet_core.runtime.tensorrt.cache import Progress
import numpy as np
from numpy.typing import NDArray

EVALUATION_THRESHOLD = 0.001  # raw scores, for average precision


@dataclass(frozen=True)
class Timings:
    """Seconds spent on one frame."""

    pre: float
    infer: float
    post: float


class Detector:
    """
    Detect objects in raw thermal frames; not thread-safe, one per thread.

    `detect` does one frame. Several go through its steps, a row each: `preprocess` them, `infer`
    once, `postprocess` each. Of the latest batch of N: `input` (N, C, H, W) is what the network
    saw, `boxes` (N, K, 4), in input pixels, and `scores` (N, K, num_classes) what it gave; N
    is 1 until `reserve`. `last_timings` are the seconds of the latest `detect`.
    """

    def __init__(self, card: ModelCard, backend: Backend) -> None:
        self.card = card
        self.backend = backend
        self.last_timings = Timings(0.0, 0.0, 0.0)
        self._normalized = np.empty((0, 0), np.float32)  # kept: a large new array costs more
        self.reserve(1)

    def reserve(self, count: int) -> None:
        """Make room for `count` frames, at most the backend's max_batch; the buffers are new."""
        width, height = self.card.input_size
        rows = self.backend.rows
        self.input = np.zeros((count, self.card.channels, height, width), np.float32)
        self.boxes = np.zeros((count, rows, 4), np.float32)
        self.scores = np.zeros((count, rows, len(self.card.classes)), np.float32)

    @staticmethod
    def load(
        model: str | Path, threads: int = 0, backend: str = 'auto',
        progress: Progress | None = None,
    ) -> 'Detector':
        """
        Open an ONNX file with its card and run it once; UserError says what is wrong.

        backend: one of `BACKENDS`. progress hears of an engine being built, which may take
        minutes; the log does by default.
        """
        card = load_card(model)
        if card.channels != 1:
            raise UserError(f'{model} looks at RGB pictures; choose a thermal model.')
        detector = Detector(
            card, open_backend(model, card, backend, threads, progress=progress))
        detector.detect(np.zeros(card.input_size[::-1], np.uint16))
        return detector

    def preprocess(self, frame: NDArray[Any], row: int = 0) -> Letterbox:
        """
        Normalize and letterbox a frame (H, W) into a row of the input buffer.

        ValueError for a frame that cannot be normalized; the other rows stay as they are.
        """
        if frame.ndim != 2 or frame.size == 0:
            raise ValueError(f'a thermal frame must be two-dimensional and not empty, '
                             f'this one has shape {frame.shape}')
        box = Letterbox((frame.shape[1], frame.shape[0]), self.card.input_size)
        target = self.input[row, 0]
        if box.fitted == box.source:
            normalize(frame, self.card.normalization, box.window(target))
        else:
            if self._normalized.shape != frame.shape:
                self._normalized = np.empty(frame.shape, np.float32)
            box.apply(normalize(frame, self.card.normalization, self._normalized), target)
        return box

    def infer(self, count: int = 1) -> None:
        """Run the network on the first rows; what the backend raises goes through."""
        self.backend.infer(self.input[:count], self.boxes[:count], self.scores[:count])

    def postprocess(
        self, box: Letterbox, score_threshold: float | NDArray[np.float32], row: int = 0,
    ) -> Detections:
        """Return a row's detections in its frame; score_threshold: for all, or (num_classes,)."""
        found = select(self.boxes[row], self.scores[row], score_threshold,
                       self.card.iou_threshold, self.card.max_detections)
        corners = box.to_source(found.boxes)
        # What lay in the padding alone has no area in the frame.
        real = (corners[:, 2:] > corners[:, :2]).all(1)
        return Detections(corners[real], found.scores[real], found.labels[real])

    def detect(
        self, frame: NDArray[Any], score_threshold: float | NDArray[np.float32] | None = None,
    ) -> Detections:
        """
        Detect objects in a raw frame (H, W), uint8, uint16 or float32 kelvin.

        score_threshold: one, one per class (num_classes,), or the card's by default. Boxes are
        clipped to the frame. ValueError for a frame that cannot be normalized.
        """
        start = perf_counter()
        box = self.preprocess(frame)
        ready = perf_counter()
        self.infer()
        done = perf_counter()
        threshold = self.card.score_threshold if score_threshold is None else score_threshold
        found = self.postprocess(box, threshold)
        self.last_timings = Timings(ready - start, done - ready, perf_counter() - done)
        return found


def prepare(frame, card, out):  # type: ignore[no-untyped-def]  # stand-in
    box = Letterbox((frame.shape[1], frame.shape[0]), card.input_size)
    if card.channels == 3:
        for channel in range(3):
            box.apply(frame[..., channel].astype(np.float32) / np.float32(255), out[channel])
    elif box.fitted == box.source:
        normalize(frame, card.normalization, box.window(out[0]))
    else:
        box.apply(normalize(frame, card.normalization, np.empty(frame.shape, np.float32)), out[0])
    return box


def postprocess(boxes, scores, box, card, threshold):  # type: ignore[no-untyped-def]  # stand-in
    found = select(boxes, scores, threshold, card.iou_threshold, card.max_detections)
    corners = box.to_source(found.boxes)
    real = (corners[:, 2:] > corners[:, :2]).all(1)
    return Detections(corners[real], found.scores[real], found.labels[real])
