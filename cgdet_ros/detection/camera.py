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

"""One camera of the node: its topics, its newest image, and what is measured of it."""

from dataclasses import dataclass
from threading import Condition
from time import monotonic, perf_counter
from typing import Any

from cgdet_core.runtime import Detections, ModelCard
from cgdet_core.runtime.detection.multi_object import MultiObjectTracker
from cgdet_core.runtime.imaging.drawing import draw
from cgdet_core.runtime.imaging.frames import to_gray
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.imaging.message import encoding_of, is_false_color, view_pixels
from cgdet_ros.detection.conversions import (
    to_detection_array,
    to_histogram,
    to_label_info,
    to_vision_info,
)
from cgdet_ros.detection.overlay import annotations_type, to_annotations, to_debug_image
from cgdet_ros.detection.parameters import ModelSettings, Settings
from cgdet_ros.node.diagnostics import Statistics
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, UInt32MultiArray
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, VisionInfo

LOG_PERIOD_S = 5.0  # of images that went wrong
PREPARATION_S = 0.005  # at most, that the executor leaves the worker to an image


# Profiles are made anew each time, as rclpy writes qos_overrides into them.

def reliable_qos(depth: int) -> QoSProfile:
    """Return what subscriptions of either reliability hear."""
    return QoSProfile(depth=depth)


def latched_qos() -> QoSProfile:
    """Return what late subscriptions hear as well."""
    return QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL)


def input_qos() -> QoSProfile:
    """Return sensor data (REP-2003), the newest alone."""
    return QoSProfile(
        depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE)


class Handover(Condition):
    """Guard the cameras' slots, between the executor that fills them and the worker."""

    idle = False  # the worker waits for an image


@dataclass(frozen=True)
class Arrival:
    """An image and when it came, perf_counter's seconds."""

    message: Image | CompressedImage
    received: float


class Camera:
    """
    Publish what is found in one camera's images; an empty name adds nothing to its topics.

    A slot keeps the newest image until the worker takes it; `wake` guards it, and hears of
    every image.
    """

    def __init__(
        self, node: Node, name: str, wake: Handover, card: ModelCard, settings: ModelSettings,
    ) -> None:
        self.name = name
        self.statistics = Statistics()
        self._node = node
        self._prefix = f'{name}/' if name else ''
        self._wake = wake
        self._card = card
        self._input: tuple[type, str] = Image, f'{self._prefix}image_raw'
        if settings.input_transport == 'compressed':
            # As image_transport does it: beside the raw topic, wherever that is remapped to.
            raw = node.resolve_topic_name(self._input[1])
            self._input = CompressedImage, f'{raw}/compressed'
        self.image_topic = node.resolve_topic_name(self._input[1])
        self._tracker = MultiObjectTracker(settings.track_max_age_s) if settings.track else None
        self._slot: Arrival | None = None
        self._quiet_until: dict[str, float] = {}  # by what there is to tell
        self._pool: list[Detection2D] = []
        self._subscription: Subscription | None = None
        self._publishers: list[Publisher] = []
        try:
            self._advertise_all()
        except Exception:  # a bad qos_overrides entry
            self.destroy()
            raise

    def _advertise_all(self) -> None:
        self._detections = self._advertise(Detection2DArray, 'detections', reliable_qos(10))
        self._label_info = self._advertise(LabelInfo, 'label_info', latched_qos())
        self._vision_info = self._advertise(VisionInfo, 'vision_info', latched_qos())
        self._histogram = self._advertise(
            UInt32MultiArray, 'latency_histogram', reliable_qos(10))
        self._debug_image = self._advertise(Image, 'debug_image', reliable_qos(1))
        kind = annotations_type()
        self._annotations = (
            self._advertise(kind, 'annotations', reliable_qos(10)) if kind else None)

    def _advertise(self, kind: type, topic: str, qos: QoSProfile) -> Publisher:
        publisher = self._node.create_publisher(
            kind, self._prefix + topic, qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self._publishers.append(publisher)
        return publisher

    def destroy(self) -> None:
        """Take all topics back."""
        self.unsubscribe()
        while self._publishers:
            self._node.destroy_publisher(self._publishers.pop())

    # Images

    def subscribe(self) -> None:
        """Listen, and measure anew; raises what a bad qos_overrides entry makes rclpy raise."""
        self.statistics = Statistics()
        if self._tracker is not None:
            self._tracker.reset()
        self._subscription = self._node.create_subscription(
            *self._input, self._receive, input_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def unsubscribe(self) -> None:
        """Stop listening and forget what waits."""
        with self._wake:
            subscription, self._subscription = self._subscription, None
            self._slot = None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def _receive(self, message: Image | CompressedImage) -> None:
        arrival = Arrival(message, perf_counter())
        with self._wake:
            if self._subscription is None:
                return  # it was on its way when the subscription went
            self.statistics.frame_received(
                message.header.frame_id, replaces=self._slot is not None)
            self._slot = arrival
            self._wake.notify_all()
            if self._wake.idle:
                # What the executor still does would take the interpreter from the worker.
                self._wake.wait(PREPARATION_S)

    def waits(self) -> bool:
        """Return whether there is an image to take."""
        return self._slot is not None

    def take(self) -> Arrival | None:
        """Return the newest image, once."""
        with self._wake:
            arrival, self._slot = self._slot, None
            return arrival

    def image_age(self, message: Image | CompressedImage) -> float:
        """Return the seconds since the image's stamp, by the node's clock."""
        stamp = message.header.stamp
        now = self._node.get_clock().now().nanoseconds
        return float(now - stamp.sec * 10**9 - stamp.nanosec) * 1e-9

    def to_frame(self, message: Image | CompressedImage, settings: Settings) -> NDArray[Any]:
        """Return the frame to detect in; ValueError says what is wrong with the image."""
        pixels = settings.crop.apply(view_pixels(message))
        statistics = self.statistics
        if pixels.ndim == 3 and not statistics.false_color and is_false_color(pixels):
            statistics.false_color = True
            self._node.get_logger().warning(
                f'the image{self._of()} is in color ({encoding_of(message)}), of which only the '
                'brightness is used: a palette hides what the model was trained on; set the '
                'camera to white hot, or better to 16 bit')
        return to_gray(pixels)

    # Results

    @property
    def detections_topic(self) -> str:
        """Return the name that the topic was resolved to."""
        return str(self._detections.topic_name)

    def status(self, prefix: str, no_input_warn_s: float) -> DiagnosticStatus:
        """Return the status for /diagnostics, its name behind a prefix."""
        source = None if self._subscription is None else self._source()
        return self.statistics.status(f'{prefix}: camera {self.name}'.rstrip(),
                                      self.name or 'none', source, no_input_warn_s)

    def _source(self) -> str:
        """Say where images would come from, and what may keep them from coming."""
        count = self._node.count_publishers(self.image_topic)
        text = f'{self.image_topic}: {count} publisher{"" if count == 1 else "s"}'
        if not count or self.statistics.received:
            return text
        return f'{text}: {"does its" if count == 1 else "do their"} type or QoS differ?'

    def publish(self, found: Detections, header: Header, crop: Crop) -> list[str]:
        """Publish the detections of a frame and give their track ids, none without a tracker."""
        received = _received(found, crop)
        ids = [] if self._tracker is None else self._tracker.update(
            received, header.stamp.sec + header.stamp.nanosec * 1e-9)
        self._detections.publish(to_detection_array(received, header, ids, self._pool))
        return ids

    def show(
        self, found: Detections, ids: list[str], frame: NDArray[Any], header: Header,
        settings: Settings,
    ) -> None:
        """Publish pictures of the detections to those who look; one that fails is only told."""
        for what, publish in (('annotations', self._annotate), ('debug_image', self._draw)):
            try:
                publish(found, ids, frame, header, settings)
            except Exception as error:
                self._tell(f'no {what}{self._of()}', error)

    def _annotate(
        self, found: Detections, ids: list[str], frame: NDArray[Any], header: Header,
        settings: Settings,
    ) -> None:
        if self._annotations is not None and self._annotations.get_subscription_count():
            self._annotations.publish(to_annotations(
                _received(found, settings.crop), self._card.classes, header, ids))

    def _draw(
        self, found: Detections, ids: list[str], frame: NDArray[Any], header: Header,
        settings: Settings,
    ) -> None:
        if settings.debug_image and self._debug_image.get_subscription_count():
            picture = draw(frame, found, self._card.classes, self._card.normalization, ids=ids)
            self._debug_image.publish(to_debug_image(picture, header))

    def publish_infos(self, threshold: float, version: int) -> None:
        """Publish the latched class map with the threshold in force, and where it is found."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(to_label_info(self._card, threshold, header))
        self._vision_info.publish(
            to_vision_info(self._card, self._label_info.topic_name, version, header))

    def publish_histogram(self) -> None:
        """Publish how many frames since the last call took how many milliseconds."""
        self._histogram.publish(to_histogram(self.statistics.take_histogram()))

    def skip(self, message: Image | CompressedImage, error: Exception) -> None:
        """Count an image as failed and say why."""
        if self._node.context.ok():  # else Ctrl-C took the publishers away
            self.statistics.frame_failed(encoding_of(message), _reason(error))
            self._tell(f'image{self._of()} skipped', error)

    def _tell(self, what: str, error: Exception) -> None:
        """Log an error, each kind not more often than one can read."""
        if self._node.context.ok() and monotonic() >= self._quiet_until.get(what, 0.0):
            self._quiet_until[what] = monotonic() + LOG_PERIOD_S
            self._node.get_logger().error(f'{what}: {_reason(error)}')

    def _of(self) -> str:
        return f' of {self.name}' if self.name else ''


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _received(found: Detections, crop: Crop) -> Detections:
    """Return detections in pixels of the received image."""
    return Detections(crop.to_received(found.boxes), found.scores, found.labels)
