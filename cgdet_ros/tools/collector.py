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

"""Collect what the node publishes for a bag."""

from dataclasses import dataclass, field
import struct
from time import monotonic

from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_ros.node.topics import latched_qos
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.node import Node
from vision_msgs.msg import Detection2DArray, LabelInfo

STAMP = struct.Struct('<iI')  # seconds and nanoseconds of a serialized header


@dataclass
class Collected:
    """What the node published for a bag; keys are the images' stamps in nanoseconds."""

    sent: dict[int, float] = field(default_factory=dict)  # time of publication
    received: dict[int, Detections] = field(default_factory=dict)
    latencies: dict[int, float] = field(default_factory=dict)  # s, publication to detections
    frame_ids: set[str] = field(default_factory=set)
    headers_equal: bool = True  # each detection has the header of its array
    status: dict[str, str] = field(default_factory=dict)  # the node's last diagnostics


class Collector(Node):
    """Subscribe to the topics of the node."""

    def __init__(self) -> None:
        super().__init__('cgdet_collector')
        self.run = Collected()
        self._detector = f'{self.get_namespace().rstrip("/")}/thermal_detector:'
        self.classes: dict[int, str] | None = None
        self.create_subscription(Detection2DArray, 'detections', self._detections, 100)
        self.create_subscription(LabelInfo, 'label_info', self._label_info, latched_qos())
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 10)

    def sent(self, data: bytes) -> None:
        """Record when an image is published; `data` is the serialized message."""
        seconds, nanoseconds = STAMP.unpack_from(data, 4)
        self.run.sent[seconds * 10**9 + nanoseconds] = monotonic()

    def _detections(self, message: Detection2DArray) -> None:
        now = monotonic()
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        run = self.run
        run.frame_ids.add(message.header.frame_id)
        run.headers_equal &= all(d.header == message.header for d in message.detections)
        run.received[stamp] = from_message(message)
        if stamp in run.sent:
            run.latencies[stamp] = now - run.sent[stamp]

    def _label_info(self, message: LabelInfo) -> None:
        self.classes = {c.class_id: c.class_name for c in message.class_map}

    def _diagnostics(self, message: DiagnosticArray) -> None:
        # The node's own status comes first: its message contains the reason if it does not start.
        statuses = [s for s in message.status if s.name.startswith(self._detector)]
        if statuses:
            values = {v.key: v.value for s in reversed(statuses) for v in s.values if v.value}
            self.run.status = {'message': statuses[0].message, **values}


def from_message(message: Detection2DArray) -> Detections:
    """Return the arrays of a message, the inverse of `to_detection_array`."""
    boxes = np.array([(d.bbox.center.position.x, d.bbox.center.position.y,
                       d.bbox.size_x, d.bbox.size_y) for d in message.detections],
                     np.float64).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    hypotheses = [d.results[0].hypothesis for d in message.detections]
    return Detections(
        np.hstack([boxes[:, :2] - half, boxes[:, :2] + half]).astype(np.float32),
        np.array([h.score for h in hypotheses], np.float32),
        np.array([int(h.class_id) for h in hypotheses], np.int64))
