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

"""The inference thread of the detector node."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from cgdet_core.runtime import Detections, Detector
from cgdet_core.runtime.imaging.geometry import Letterbox
from cgdet_core.runtime.imaging.message import encoding_of
from cgdet_core.runtime.imaging.signal import CARD, POLARITIES, seen
from cgdet_ros.detection.parameters import Settings
from cgdet_ros.detection.stream import Stream
from cgdet_ros.node.image_input import Handover, ImageInput, ImageWorker, Received
from cgdet_ros.node.loading import Recovery
from cgdet_ros.node.logs import reason
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prepared:
    """An image whose frame is in the batch, and what postprocessing requires."""

    stream: Stream
    received: Received
    frame: NDArray[Any]
    letterbox: Letterbox
    age: float  # s, of the image
    pre: float  # s, spent before the network
    closed: str  # why the shutter is, '' if it is open


class DetectionWorker(ImageWorker):
    """
    Detect objects in the newest images of the cameras and publish the detections of each.

    An image has five forms: the `message`; its `pixels`, a view; the `frame`, cropped and gray;
    its `row` of the batch; and the `detections`, which are found in pixels of the frame and
    published in pixels of the message. `settings` returns the current ones.
    """

    def __init__(
        self, detector: Detector, streams: list[Stream], wake: Handover,
        settings: Callable[[], Settings], recovery: Recovery, unit: str = CARD,
        polarity: str = POLARITIES[0],
    ) -> None:
        self._detector = detector
        self._streams = {stream.input: stream for stream in streams}
        self._settings = settings
        self._recovery = recovery
        self._unit, self._polarity = unit, polarity
        at_once = min(detector.session.max_batch, len(streams))
        detector.reserve(at_once)
        super().__init__(list(self._streams), at_once, wake)

    def process(self, batch: list[tuple[ImageInput, Received]]) -> None:
        """Detect objects in a batch; an image that fails does not affect the others."""
        settings = self._settings()
        rows: list[Prepared] = []
        for source, received in batch:
            try:
                prepared = self._prepare(self._streams[source], received, settings, len(rows))
            except Exception as error:  # one bad image must affect neither the node nor the others
                source.skip(received.message, error)
                continue
            if prepared is not None:
                rows.append(prepared)
        self.prepared()
        if not rows:
            return
        start = perf_counter()
        try:
            self._detector.infer(len(rows))
        except Exception as error:  # inference libraries raise any type
            if not self.running():
                return
            for prepared in rows:
                prepared.stream.input.skip(prepared.received.message, error)
            self._recovery.failed(reason(error), settings.max_failures)
            return
        infer = perf_counter() - start
        if self.running():  # else it hung: streams and failures now belong to another worker
            self._recovery.inferred()
        for row, prepared in enumerate(rows):
            if not self.running():
                return
            try:
                self._finish(prepared, settings, row, infer)
            except Exception as error:
                prepared.stream.input.skip(prepared.received.message, error)

    def _prepare(
        self, stream: Stream, received: Received, settings: Settings, row: int,
    ) -> Prepared | None:
        """Add an image to the batch; None if it is skipped: too old, or of a closed shutter."""
        age = stream.input.age(received.message)
        if settings.max_image_age_s and age > settings.max_image_age_s:
            stream.input.statistics.frame_too_old(age)
            return None
        start = perf_counter()
        frame = stream.input.to_frame(received.message, settings.crop, settings.max_dead_share)
        closed = stream.shutter.closed(frame, received.time)
        if closed and settings.while_shutter_closed == 'skip':
            stream.coast(received.message.header, received.time)
            stream.input.statistics.frame_closed(encoding_of(received.message), closed, False)
            return None
        frame = seen(frame, self._unit, self._polarity, self._detector.card.polarity)
        letterbox = self._detector.preprocess(frame, row, finite=True)  # `to_frame` filled it
        return Prepared(stream, received, frame, letterbox, age, perf_counter() - start, closed)

    def _finish(self, prepared: Prepared, settings: Settings, row: int, infer: float) -> None:
        """Publish the detections of a row of the batch."""
        start = perf_counter()
        found = self._detector.postprocess(prepared.letterbox, settings.thresholds, row)
        post = perf_counter() - start
        detections = Detections(settings.crop.to_received(found.boxes), found.scores, found.labels)
        stream, message = prepared.stream, prepared.received.message
        ids = stream.publish(
            detections, message.header, prepared.received.time, prepared.closed)
        if prepared.closed:
            stream.input.statistics.frame_closed(encoding_of(message), prepared.closed, True)
        else:
            stream.input.statistics.frame_done(
                encoding_of(message), perf_counter() - prepared.received.time,
                (prepared.pre, infer, post), prepared.age)
        stream.overlay.annotate(detections, message.header, ids)
        if settings.debug_image:
            stream.overlay.draw(found, prepared.frame, message.header, ids)
