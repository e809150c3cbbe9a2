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

"""The subscriptions and the camera of the endurance tests."""

import sys
from time import monotonic, time_ns
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray

PATIENCE_S = 120.0  # for the node's start, or the detections of an image


class Listener(Node):
    """Collect detections and diagnostics."""

    def __init__(self, compressed: bool) -> None:
        super().__init__('endurance')
        self.outputs: list[tuple[int, int]] = []  # stamp of the image, time of arrival; ns
        self.last: Detection2DArray | None = None
        self.status: dict[str, str] = {}
        self.levels: dict[bytes, int] = {}
        self.create_subscription(Detection2DArray, 'detections', self._detections, 1000)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 10)
        self.camera = create_camera(self, compressed)

    def _detections(self, message: Detection2DArray) -> None:
        stamp = message.header.stamp
        self.outputs.append((stamp.sec * 10**9 + stamp.nanosec, time_ns()))
        self.last = message

    def _diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if 'thermal_detector' in status.name:
                self.status |= {v.key: v.value for v in status.values}
                self.levels[status.level] = self.levels.get(status.level, 0) + 1

    def spin_for(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=min(left, 0.1))

    def detect(self, message: Any) -> Detection2DArray:
        """Publish an image once a second until its detections arrive, and return these."""
        end = monotonic() + PATIENCE_S
        while monotonic() < end:
            message.header.stamp = self.get_clock().now().to_msg()
            self.camera.publish(message)
            again = monotonic() + 1.0
            while monotonic() < again:
                rclpy.spin_once(self, timeout_sec=0.05)
                if self.last is not None and self.last.header.stamp == message.header.stamp:
                    return self.last
        sys.exit(f'The node detected nothing within {PATIENCE_S:.0f} s.')


def create_camera(source: Node, compressed: bool) -> Any:
    """Return the publisher of a camera."""
    if compressed:
        return source.create_publisher(CompressedImage, 'image_raw/compressed', 10)
    return source.create_publisher(Image, 'image_raw', 10)
