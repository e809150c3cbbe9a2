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

from collections.abc import Callable
from dataclasses import dataclass, field
import struct
from threading import Condition
from time import monotonic

from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.message import stamp_of
from cgdet_ros.node.logs import reason
from cgdet_ros.node.topics import latched_qos
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.node import Node
from vision_msgs.msg import Detection2DArray, LabelInfo

STAMP = struct.Struct('<iI')  # seconds and nanoseconds of a serialized header
LOST_S = 5.0  # an image that the node does not count by then was lost on its way
STALLED_S = 120.0  # a node that needs longer for an image is not waited for


@dataclass
class Collected:
    """What the node published for a bag; keys are the images' stamps in nanoseconds."""

    sent: dict[int, float] = field(default_factory=dict)  # time of publication
    repeated: int = 0  # images with the stamp of an earlier one, whose results are not kept
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
        self._detector = f'{self.get_namespace()}/thermal_detector:'.lstrip('/')
        self.classes: dict[int, str] | None = None
        self._news = Condition()  # notified of detections and of diagnostics
        self._counted = 0.0  # time of the last diagnostics
        self._before = 0, 0  # the node's counts before the first image
        self._error: Exception | None = None  # of a callback, after which nothing is received
        self.create_subscription(Detection2DArray, 'detections', self._detections, 100)
        self.create_subscription(LabelInfo, 'label_info', self._label_info, latched_qos())
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 10)

    def sent(self, data: bytes) -> None:
        """Record when an image is published; `data` is the serialized message."""
        seconds, nanoseconds = STAMP.unpack_from(data, 4)
        stamp = seconds * 10**9 + nanoseconds
        with self._news:
            if not self.run.sent:
                self._before = self._counts()
            self.run.repeated += stamp in self.run.sent
            self.run.sent.setdefault(stamp, monotonic())

    def wait_for_answer(self, check: Callable[[], None]) -> None:
        """
        Wait for the detections of the last image, until the node failed at it, or it was lost.

        check: called while waiting; raises an error to end it. UserError if the node stalls, or
        if what it publishes cannot be read.
        """
        stamp, start = next(reversed(self.run.sent.items()))
        with self._news:
            while stamp not in self.run.received and not self._is_settled(start):
                check()
                self.check()
                if monotonic() > start + STALLED_S:
                    why = self.run.status.get('message', 'it reports nothing')
                    raise UserError(f'The node did not answer an image within {STALLED_S:.0f} s: '
                                    f'{why}.')
                self._news.wait(0.2)

    def fail(self, error: Exception) -> None:
        """Store the error of a callback, with which the receiving thread ends."""
        with self._news:
            self._error = error
            self._news.notify_all()

    def check(self) -> None:
        """Raise UserError if nothing is received any more."""
        if isinstance(self._error, UserError):
            raise self._error
        if self._error is not None:
            raise UserError(f'What the node publishes cannot be read: {reason(self._error)}'
                            ) from self._error

    def wait_for_status(self, patience: float) -> None:
        """Wait for diagnostics that are published after this call, at most `patience` seconds."""
        start = monotonic()
        with self._news:
            self._news.wait_for(lambda: self._counted > start or self._error, patience)

    def _is_settled(self, start: float) -> bool:
        """Return whether the node cannot answer the image that was sent at `start` any more."""
        if self._counted < start:
            return False
        arrived, unanswered = (now - before for now, before in zip(self._counts(), self._before))
        if arrived >= len(self.run.sent):
            return unanswered >= len(self.run.sent) - len(self.run.received)
        return self._counted > start + LOST_S

    def _counts(self) -> tuple[int, int]:
        """Return the images that the node received, and those that it publishes nothing for."""
        received, failed, dropped, skipped = (
            int(self.run.status.get(key, 0))
            for key in ('received', 'failed', 'dropped', 'skipped'))
        return received, failed + dropped + skipped

    def _detections(self, message: Detection2DArray) -> None:
        now = monotonic()
        run, stamp = self.run, stamp_of(message.header)
        run.frame_ids.add(message.header.frame_id)
        run.headers_equal &= all(d.header == message.header for d in message.detections)
        detections = from_message(message)
        with self._news:
            if stamp in run.sent and stamp not in run.received:
                run.latencies[stamp] = now - run.sent[stamp]
            run.received.setdefault(stamp, detections)
            self._news.notify_all()

    def _label_info(self, message: LabelInfo) -> None:
        self.classes = {c.class_id: c.class_name for c in message.class_map}

    def _diagnostics(self, message: DiagnosticArray) -> None:
        # The node's own status comes first: its message contains the reason if it does not start.
        statuses = [s for s in message.status if s.name.startswith(self._detector)]
        if statuses:
            values = {v.key: v.value for s in reversed(statuses) for v in s.values if v.value}
            with self._news:
                self.run.status = {'message': statuses[0].message, **values}
                self._counted = monotonic()
                self._news.notify_all()


def from_message(message: Detection2DArray) -> Detections:
    """Return the arrays of a message, the inverse of `to_detection_array` with class numbers."""
    boxes = np.array([(d.bbox.center.position.x, d.bbox.center.position.y,
                       d.bbox.size_x, d.bbox.size_y) for d in message.detections],
                     np.float64).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    hypotheses = [d.results[0].hypothesis for d in message.detections]
    if named := next((h.class_id for h in hypotheses if not h.class_id.isdecimal()), ''):
        raise UserError(f'The detections have names of classes ({named}); set the parameter '
                        'class_names of the node to false.')
    return Detections(
        np.hstack([boxes[:, :2] - half, boxes[:, :2] + half]).astype(np.float32),
        np.array([h.score for h in hypotheses], np.float32),
        np.array([int(h.class_id) for h in hypotheses], np.int64))
