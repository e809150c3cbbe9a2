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

"""The inference thread: the newest image of every camera, as many at once as the model takes."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from time import perf_counter
from typing import Any

from cgdet_core.runtime import Detector
from cgdet_core.runtime.detection.detector import Timings
from cgdet_core.runtime.imaging.geometry import Letterbox
from cgdet_core.runtime.imaging.message import encoding_of
from cgdet_ros.detection.camera import Arrival, Camera, Handover
from cgdet_ros.detection.parameters import Settings
from cgdet_ros.node.recovery import Recovery
from numpy.typing import NDArray


class Hangs(Exception):
    """A worker did not stop."""


@dataclass(frozen=True)
class Frame:
    """An image on its way through the network."""

    camera: Camera
    arrival: Arrival
    age: float  # s, of the image
    pre: float  # s, spent before the network
    pixels: NDArray[Any]
    box: Letterbox


class Worker:
    """
    Detect in what the cameras have, and have each publish its own.

    It never waits for a camera: a batch is whoever has an image now, cameras that were not
    served last time first. `settings` gives the latest ones.
    """

    def __init__(
        self, detector: Detector, cameras: list[Camera], wake: Handover,
        settings: Callable[[], Settings], recovery: Recovery,
    ) -> None:
        self._detector = detector
        self._turns = list(cameras)  # who is served first
        self._wake = wake
        self._settings = settings
        self._recovery = recovery
        self._running = True
        self._most = min(detector.session.max_batch, len(cameras))
        detector.reserve(self._most)
        self._thread = Thread(target=self._run, name='detector', daemon=True)
        self._thread.start()

    def stop(self, patience: float) -> None:
        """
        Publish no more, and end after the batch in progress.

        Hangs if that takes longer than `patience` seconds; the detector remains the worker's.
        """
        with self._wake:
            self._running = False
            self._wake.notify_all()
        self._thread.join(patience)
        if self._thread.is_alive():
            raise Hangs(f'inference hangs: it was left behind after {patience:g} s, with its '
                        'memory; restart the node')

    def _stopped(self) -> bool:
        """Look anew: to a type checker an attribute stays what it was a line before."""
        return not self._running

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopped():
                    return  # it hung, and what the cameras share is another worker's now
                self._wake.idle = True
                self._wake.wait_for(
                    lambda: self._stopped() or any(c.waits() for c in self._turns))
                self._wake.idle = False
                if self._stopped():
                    return
                batch = self._take()
            self._process(batch)

    def _take(self) -> list[tuple[Camera, Arrival]]:
        chosen = [camera for camera in self._turns if camera.waits()][:self._most]
        self._turns.sort(key=chosen.__contains__)  # stable: who was served goes to the end
        return [(camera, arrival) for camera in chosen if (arrival := camera.take())]

    def _process(self, batch: list[tuple[Camera, Arrival]]) -> None:
        settings = self._settings()
        frames: list[Frame] = []
        for camera, arrival in batch:
            try:
                frame = self._prepare(camera, arrival, settings, len(frames))
            except Exception as error:  # one bad image must hurt neither the node nor the others
                camera.skip(arrival.message, error)
                continue
            if frame is not None:
                frames.append(frame)
        with self._wake:
            self._wake.notify_all()
        if not frames:
            return
        start = perf_counter()
        try:
            self._detector.infer(len(frames))
        except Exception as error:  # the backends' libraries raise anything
            if not self._running:
                return
            for frame in frames:
                frame.camera.skip(frame.arrival.message, error)
            self._recovery.failed(str(error) or type(error).__name__, settings.max_failures)
            return
        infer = perf_counter() - start
        if self._running:  # else it hung, and the cameras and failures are another worker's now
            self._recovery.inferred()
        for row, frame in enumerate(frames):
            if not self._running:
                return
            try:
                self._finish(frame, settings, row, infer)
            except Exception as error:
                frame.camera.skip(frame.arrival.message, error)

    def _prepare(
        self, camera: Camera, arrival: Arrival, settings: Settings, row: int,
    ) -> Frame | None:
        """Put an image into the batch; None if it is too old."""
        age = camera.image_age(arrival.message)
        if settings.max_image_age_s and age > settings.max_image_age_s:
            camera.statistics.frame_too_old(age)
            return None
        start = perf_counter()
        pixels = camera.to_frame(arrival.message, settings)
        box = self._detector.preprocess(pixels, row)
        return Frame(camera, arrival, age, perf_counter() - start, pixels, box)

    def _finish(self, frame: Frame, settings: Settings, row: int, infer: float) -> None:
        """Publish what a row of the batch gave."""
        start = perf_counter()
        found = self._detector.postprocess(frame.box, settings.thresholds, row)
        post = perf_counter() - start
        message = frame.arrival.message
        ids = frame.camera.publish(found, message.header, settings.crop)
        frame.camera.statistics.frame_done(
            encoding_of(message), perf_counter() - frame.arrival.received,
            Timings(frame.pre, infer, post), frame.age)
        frame.camera.show(found, ids, frame.pixels, message.header, settings)
