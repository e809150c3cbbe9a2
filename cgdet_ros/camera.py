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
from cgdet_core.runtime.image_message import view_image
from cgdet_ros.conversions import (
    to_detection_array,
    to_histogram,
    to_label_info,
    to_vision_info,
)
from cgdet_ros.diagnostics import Statistics
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_msgs.msg import Header, UInt32MultiArray
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, VisionInfo

INPUT_QOS = QoSProfile(  # REP-2003 sensor data, but only ever the newest image
    depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE)
LATCHED_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL)
LOG_PERIOD_S = 5.0  # of skipped images


@dataclass(frozen=True)
class Arrival:
    """An image and when it came, perf_counter's seconds."""

    message: Image
    received: float


class Camera:
    """
    Publish what is found in one camera's images; an empty name adds nothing to its topics.

    A slot keeps the newest image until the worker takes it; `wake` guards it, and hears of
    every image.
    """

    def __init__(self, node: Node, name: str, wake: Condition) -> None:
        self.name = name
        self.statistics = Statistics()
        self._node = node
        self._prefix = f'{name}/' if name else ''
        self._wake = wake
        self._slot: Arrival | None = None
        self._quiet_until = 0.0
        self._pool: list[Detection2D] = []
        self._subscription: Subscription | None = None
        self._publishers: list[Publisher] = []
        self._detections = self._advertise(Detection2DArray, 'detections', 10)
        self._label_info = self._advertise(LabelInfo, 'label_info', LATCHED_QOS)
        self._vision_info = self._advertise(VisionInfo, 'vision_info', LATCHED_QOS)
        self._histogram = self._advertise(UInt32MultiArray, 'latency_histogram', 10)

    def _advertise(self, kind: type, topic: str, qos: int | QoSProfile) -> Publisher:
        publisher = self._node.create_publisher(kind, self._prefix + topic, qos)
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
        self._subscription = self._node.create_subscription(
            Image, f'{self._prefix}image_raw', self._receive, INPUT_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def unsubscribe(self) -> None:
        """Stop listening and forget what waits."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self.take()

    def _receive(self, message: Image) -> None:
        arrival = Arrival(message, perf_counter())
        with self._wake:
            self.statistics.frame_received(replaces=self._slot is not None)
            self._slot = arrival
            self._wake.notify()

    def waits(self) -> bool:
        """Say whether there is an image to take."""
        return self._slot is not None

    def take(self) -> Arrival | None:
        """Give the newest image, once."""
        with self._wake:
            arrival, self._slot = self._slot, None
            return arrival

    def image_age(self, message: Image) -> float:
        """Give the seconds since the image's stamp, by the node's clock."""
        stamp = message.header.stamp
        now = self._node.get_clock().now().nanoseconds
        return float(now - stamp.sec * 10**9 - stamp.nanosec) * 1e-9

    def to_frame(self, message: Image) -> NDArray[Any]:
        """Give the frame to detect in; ValueError says what is wrong with the image."""
        return view_image(message)

    # Results

    def publish(self, found: Detections, header: Header) -> None:
        """Publish the detections of an image."""
        self._detections.publish(to_detection_array(found, header, self._pool))

    def publish_infos(self, card: ModelCard, threshold: float, version: int) -> None:
        """Publish the latched class map with the threshold in force, and where it is found."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(to_label_info(card, threshold, header))
        self._vision_info.publish(
            to_vision_info(card, self._label_info.topic_name, version, header))

    def publish_histogram(self) -> None:
        """Publish how many frames of the last second took how many milliseconds."""
        self._histogram.publish(to_histogram(self.statistics.take_histogram()))

    def skip(self, message: Image, error: Exception) -> None:
        """Count an image as failed and say why, not more often than one can read."""
        if not self._node.context.ok():
            return  # Ctrl-C took the publishers away
        text = str(error) or type(error).__name__
        self.statistics.frame_failed(message.encoding, text)
        if monotonic() >= self._quiet_until:
            self._quiet_until = monotonic() + LOG_PERIOD_S
            of = f' of {self.name}' if self.name else ''
            self._node.get_logger().error(f'image{of} skipped: {text}')
