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

"""The tracker node: subscribes to thermal images and publishes the chosen targets."""

from collections.abc import Callable
import importlib
from itertools import count
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import finder, LOST_THRESHOLD
from cgdet_core.runtime.files import share_file, SHIPPED_TRACKER
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.inference.choice import shipped_model
from cgdet_core.runtime.tensorrt.cache import Progress
from cgdet_core.runtime.tracking.model import load_tracker_card, TrackingModel
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_ros.node.executor import run
from cgdet_ros.node.image_input import Handover, Hangs, ImageInput
from cgdet_ros.node.loading import fitting
from cgdet_ros.node.managed_node import ManagedNode
from cgdet_ros.node.parameters import check_overrides
from cgdet_ros.node.shutter import Shutter
from cgdet_ros.node.topics import reliable_qos
from cgdet_ros.tracking import parameters
from cgdet_ros.tracking.choice import Choice, Find
from cgdet_ros.tracking.history import History
from cgdet_ros.tracking.outputs import Notices, Outputs
from cgdet_ros.tracking.parameters import ModelSettings, SHIPPED, SPECS
from cgdet_ros.tracking.requests import Request, Requests, Seen, to_box, to_id, to_point
from cgdet_ros.tracking.rgb import RgbInput
from cgdet_ros.tracking.targets import Targets
from cgdet_ros.tracking.worker import Stream, TrackingWorker
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PointStamped
from rclpy.subscription import Subscription
from std_msgs.msg import String
from vision_msgs.msg import Detection2D, Detection2DArray

NAME = 'target_tracker'
Models = tuple[TrackingModel, Detector | None]


class TrackerNode(ManagedNode):
    """Follow the targets that other programs choose through the images of one camera."""

    def __init__(self, **node_options: object) -> None:
        super().__init__(NAME, 'tracker', SPECS, **node_options)
        self._models: Models | None = None
        self._find: Find | None = None
        self._backend = ''
        self._stream: Stream | None = None
        self._subscriptions_of_requests: list[Subscription] = []
        self._wake = Handover()
        self._worker: TrackingWorker | None = None
        self._requests = Requests()
        self._notices = Notices(self)
        self._targets: Targets | None = None
        self._numbers = count(1)  # which a reload does not begin again
        self._seen = Seen(0.0)
        self._model_settings = parameters.read_model_settings(self)
        self._settings = parameters.read_settings(self)
        try:
            kind = importlib.import_module('std_srvs.srv').Trigger
        except ImportError:
            return  # ~/stop_id and the transitions remain
        self.create_service(kind, '~/stop', self._stop_all)

    def configure(self) -> None:
        check_overrides(self)  # before the model is loaded, which may take minutes
        with self.lock:
            settings = self._model_settings = parameters.read_model_settings(self)
        models = self.load(lambda progress: _load(settings, progress))
        model, detector = models
        polarity = model.card.polarity
        lost = None if detector is None else finder(detector, polarity, LOST_THRESHOLD)
        with self.lock:
            self._models = models
            self._find = None if detector is None else finder(detector, polarity)
            self._backend = model.session.describe()
            source = ImageInput(self, '', settings.input_transport, self._wake)
            rgb = RgbInput(self, settings.rgb_topic) if settings.rgb_topic else None
            self._stream = Stream(
                source, Shutter(self, '', settings.ffc_topic), rgb,
                Outputs(self, self.status_name(), model.card.normalization, source.log))
            self._stream.shutter.check([source.topic, *([rgb.topic] if rgb else [])])
            self._targets = Targets(self, lambda: Tracker(model, lost), self._numbers)
            self._settings = parameters.read_settings(self)
        self.get_logger().info(
            f'{model.card.name} on {self._backend}; lost targets are '
            + (f'searched for with {detector.card.name}' if detector else 'not detected again'))

    def activate(self) -> None:
        """Subscribe to images and requests, and start the worker."""
        settings = self._model_settings
        with self.lock:
            assert self._models is not None and self._stream and self._targets
            model, detector = self._models
            history, self._seen = History(settings.history_s), Seen(settings.history_s)
            self._requests.cancel()  # of the time before
            self._stream.shutter.subscribe()
            if self._stream.rgb is not None:
                self._stream.rgb.subscribe()
            self._subscribe_to_requests()
            self._stream.input.subscribe()
            choice = Choice(history, self._seen, self._find,
                            () if detector is None else detector.card.classes)
            self._worker = TrackingWorker(
                self._stream, self._targets, self._requests, self._notices, history, choice,
                lambda: self._settings, self.recovery,
                (settings.unit, settings.polarity, model.card.polarity), self._wake)
        self.get_logger().info(
            f'active: {self._stream.input.topic} -> {self._stream.outputs.topic}; follows what '
            'is sent to ~/start, ~/point or ~/follow_id')

    def _subscribe_to_requests(self) -> None:
        for kind, topic, receive in (
                (Detection2D, '~/start', self._receiver('~/start', to_box)),
                (PointStamped, '~/point', self._receiver('~/point', to_point)),
                (String, '~/follow_id', self._receiver('~/follow_id', to_id)),
                (String, '~/stop_id', self._stop_one),
                (Detection2DArray, 'detections', lambda message: self._seen.add(message))):
            self._subscriptions_of_requests.append(
                self.create_subscription(kind, topic, receive, reliable_qos(10)))

    def _receiver(self, topic: str, convert: Callable[[Any], Request]) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            try:
                self._requests.put(convert(message))
            except ValueError as error:
                self._notices.refuse(f'a start ({topic})', error)

        return receive

    def _stop_one(self, message: String) -> None:
        if not message.data:
            self._notices.refuse('a stop (~/stop_id)', 'the id is empty; ~/stop ends all targets')
            return
        # First those that are not followed yet, so that none is followed after this.
        canceled = self._requests.cancel(message.data)
        if self._targets is not None and not (self._targets.end(message.data) or canceled):
            known = ', '.join(f.id for f in self._targets.current()) or 'none'
            self._notices.refuse('a stop (~/stop_id)', 'there is no target '
                                 f'{message.data[:40]!r}; the targets are {known}')

    def _stop_all(self, request: Any, response: Any) -> Any:
        """Serve stop: end all targets, also those that wait for their image."""
        canceled = self._requests.cancel()  # first, so that none is followed after this
        ended = [] if self._targets is None else self._targets.end()
        response.success = True
        response.message = (f'ended: {", ".join(ended)}' if ended else
                            'no target was followed') + (
            f'; starts that waited or were under way: {canceled}' if canceled else '')
        return response

    def stop(self) -> None:
        with self.lock:
            if self._stream is not None:
                self._stream.input.unsubscribe()
                self._stream.shutter.unsubscribe()
                if self._stream.rgb is not None:
                    self._stream.rgb.unsubscribe()
            while self._subscriptions_of_requests:
                self.destroy_subscription(self._subscriptions_of_requests.pop())
            worker, self._worker = self._worker, None
        if worker is None:
            return
        try:
            self.end(worker)
        except Hangs:
            with self.lock:
                self._models = None  # the worker still uses them
            raise
        finally:
            if self._targets is not None:
                self._notices.ended(self._targets.end(), 'the node was deactivated')

    def free(self) -> None:
        with self.lock:
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.outputs.destroy()
            models, self._models = self._models, None
            self._targets = self._find = None
        if models is not None:
            models[0].session.close()
            if models[1] is not None:
                models[1].session.close()

    def parameters_changed(self) -> None:
        self._settings = parameters.read_settings(self)

    def facts(self) -> dict[str, object]:
        if self._models is None:
            return {}
        model, detector = self._models
        return {'model': model.card.name, 'backend': self._backend,
                'detector': detector.card.name if detector else 'none'}

    def statuses(self) -> list[DiagnosticStatus]:
        """Return the status of the camera, the targets together, each of them, and the RGB."""
        if self._stream is None or self._targets is None:
            return []
        if expired := self._requests.expired():
            self._notices.refuse('a start', f'no image was processed in time ({expired} waited)')
        name = self.status_name()
        targets = self._targets.statuses(self._settings.no_input_warn_s)
        return [self._stream.input.status(name, self._settings.no_input_warn_s,
                                          self._stream.shutter.problem()),
                self._notices.status(name, len(targets), self._settings.max_targets,
                                     self._targets.started),
                *targets, *([self._stream.rgb.status(name)] if self._stream.rgb else [])]


def _load(settings: ModelSettings, progress: Progress) -> Models:
    """Load the tracker, and the detector if there is to be one; first check both cards."""
    signal = settings.unit, settings.polarity
    path = settings.model_path or share_file(SHIPPED_TRACKER)
    detector = settings.detector_model_path
    if detector == SHIPPED:
        detector = str(shipped_model(settings.backend))
    card = fitting(load_tracker_card(path), *signal)
    detector_card = fitting(load_card(detector, DetectionCard), *signal) if detector else None
    if settings.rgb_topic and 'rgb' not in card.inputs:
        raise UserError(f'rgb_topic is {settings.rgb_topic}, but {card.name} follows in '
                        'thermal images only; leave rgb_topic empty, or choose an RGB-T model')
    model = TrackingModel.load(path, settings.threads, settings.backend, progress, card)
    if detector_card is None:
        return model, None
    try:
        return model, Detector.load(detector, settings.threads, settings.backend, progress,
                                    detector_card)
    except BaseException:
        model.session.close()
        raise


def main(args: list[str] | None = None) -> None:
    """Run the node until it is shut down."""
    run(TrackerNode, NAME, SPECS, args)
