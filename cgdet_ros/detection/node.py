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

"""The detector node: subscribes to thermal images and publishes vision_msgs detections."""

from cgdet_core.runtime import DetectionCard, Detector
from cgdet_core.runtime.imaging.signal import CARD, POLARITIES
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.inference.choice import shipped_model
from cgdet_core.runtime.tensorrt.cache import Progress
from cgdet_ros.detection import parameters
from cgdet_ros.detection.parameters import ModelSettings
from cgdet_ros.detection.stream import Stream
from cgdet_ros.detection.worker import DetectionWorker
from cgdet_ros.node.executor import run
from cgdet_ros.node.image_input import Handover, Hangs
from cgdet_ros.node.loading import fitting
from cgdet_ros.node.managed_node import ManagedNode
from cgdet_ros.node.parameters import check_overrides
from diagnostic_msgs.msg import DiagnosticStatus

NAME = 'thermal_detector'
SPECS = (*parameters.SPECS, parameters.CLASS_SPEC)


class DetectorNode(ManagedNode):
    """Detect objects in the newest thermal image of every camera."""

    def __init__(self, **node_options: object) -> None:
        super().__init__(
            NAME, 'detector', SPECS, **node_options)
        self._detector: Detector | None = None
        self._backend = ''
        self._streams: list[Stream] = []
        self._wake = Handover()
        self._worker: DetectionWorker | None = None
        self._classes: tuple[str, ...] = ()  # of the latest model, kept after a cleanup
        self._version = 0  # of the class map: increases when the classes change
        self._settings = parameters.read_settings(self, None)
        self._signal = CARD, POLARITIES[0]  # unit and polarity of the cameras

    def configure(self) -> None:
        check_overrides(self)  # before the model is loaded, which may take minutes
        with self.lock:
            settings = parameters.read_model_settings(self)
            self._signal = settings.unit, settings.polarity
        detector = self.load(lambda progress: _load(settings, progress))
        card = detector.card
        with self.lock:
            self._detector = detector
            self._backend = detector.session.describe()
            for name in settings.cameras:
                self._streams.append(Stream(self, name, self._wake, card, settings))
            for stream in self._streams:
                stream.shutter.check([each.input.topic for each in self._streams])
            parameters.declare_classes(self, card.classes)
            self._settings = parameters.read_settings(self, card)
            self._version += card.classes != self._classes
            self._classes = card.classes
        for name in parameters.unknown_classes(self, card.classes):
            self.get_logger().warning(
                f'{name} is ignored: the classes of the model are {", ".join(card.classes)}')
        self.get_logger().info(f'{card.name}: {", ".join(card.classes)} at '
                               f'{card.input_size[0]}x{card.input_size[1]} on {self._backend}')

    def activate(self) -> None:
        """Publish the class map, subscribe, and start the worker."""
        with self.lock:
            assert self._detector is not None
            self._publish_infos()
            for stream in self._streams:
                stream.subscribe()
            self._worker = DetectionWorker(self._detector, self._streams, self._wake,
                                           lambda: self._settings, self.recovery,
                                           *self._signal)
        self.get_logger().info('active: ' + ', '.join(
            f'{stream.input.topic} -> {stream.outputs.topic}' for stream in self._streams))

    def stop(self) -> None:
        with self.lock:
            for stream in self._streams:
                stream.input.unsubscribe()
                stream.shutter.unsubscribe()
            worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            self.end(worker)
        except Hangs:
            with self.lock:
                self._detector = None  # the worker still uses it
            raise

    def free(self) -> None:
        with self.lock:
            for stream in self._streams:
                stream.destroy()
            self._streams = []
            detector, self._detector = self._detector, None
        if detector is not None:
            detector.session.close()

    def parameters_changed(self) -> None:
        """Use the new values for the next image; publish the class map with a new threshold."""
        before = self._settings
        card = None if self._detector is None else self._detector.card
        self._settings = parameters.read_settings(self, card)
        if self._worker is not None and (
                self._settings.thresholds.min() != before.thresholds.min()):
            self._publish_infos()

    def missing(self, name: str) -> str:
        return parameters.missing_class(self, name) or super().missing(name)

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = {'cameras': len(self._streams)}
        if self._detector is not None:
            facts |= {'model': self._detector.card.name, 'backend': self._backend}
        return facts

    def statuses(self) -> list[DiagnosticStatus]:
        """Return the status of each camera, and publish its histogram if that is enabled."""
        name = self.status_name()
        statuses = [stream.input.status(name, self._settings.no_input_warn_s,
                                        stream.shutter.problem()) for stream in self._streams]
        for stream in self._streams:
            counts = stream.input.statistics.take_histogram()
            if self._worker is not None and self._settings.latency_histogram:
                stream.outputs.publish_histogram(counts)
        return statuses

    def _publish_infos(self) -> None:
        for stream in self._streams:
            stream.outputs.publish_infos(float(self._settings.thresholds.min()), self._version)


def _load(settings: ModelSettings, progress: Progress) -> Detector:
    path = settings.model_path or shipped_model(settings.backend)
    card = fitting(load_card(path, DetectionCard), settings.unit, settings.polarity)
    return Detector.load(path, settings.threads, settings.backend, progress, card)


def main(args: list[str] | None = None) -> None:
    """Run the node until it is shut down."""
    run(DetectorNode, NAME, SPECS, args)
