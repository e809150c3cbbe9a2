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

"""One camera of the detector node: its images, and the vision_msgs with its detections."""

from collections.abc import Sequence

from cgdet_core.runtime import DetectionCard, Detections
from cgdet_core.runtime.detection.multi_object import MultiObjectTracker
from cgdet_core.runtime.imaging.clock import ImageClock
from cgdet_core.runtime.imaging.message import stamp_of
from cgdet_ros.detection.overlay import Overlay
from cgdet_ros.detection.parameters import ModelSettings
from cgdet_ros.node.image_input import Handover, ImageInput
from cgdet_ros.node.shutter import Shutter
from cgdet_ros.node.topics import latched_qos, Publishers, reliable_qos
from rclpy.node import Node
from std_msgs.msg import Header, MultiArrayDimension, MultiArrayLayout, UInt32MultiArray
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
    VisionInfo,
)

UNLABELED = 65535  # class id of unlabeled objects in vision_msgs


class Stream:
    """The input and the outputs of one camera; an empty name adds no prefix to its topics."""

    def __init__(
        self, node: Node, name: str, wake: Handover, card: DetectionCard, settings: ModelSettings,
    ) -> None:
        self.input = ImageInput(node, name, settings.input_transport, wake)
        self._tracker = MultiObjectTracker(settings.track_max_age_s) if settings.track else None
        self._clock = ImageClock()
        self.shutter = Shutter(node, name, settings.ffc_topic)
        self._publishers = Publishers(node, name)
        try:
            self.outputs = Outputs(self._publishers, card, settings.class_names)
            self.overlay = Overlay(self._publishers, card, self.input.log)
        except Exception:  # a bad qos_overrides entry
            self.destroy()
            raise

    def subscribe(self) -> None:
        """Subscribe and reset the tracker."""
        self._clock = ImageClock()
        if self._tracker is not None:
            self._tracker.reset()
        self.shutter.subscribe()
        self.input.subscribe()

    def destroy(self) -> None:
        """Destroy all topics."""
        self.input.unsubscribe()
        self.shutter.unsubscribe()
        self._publishers.destroy()

    def publish(self, detections: Detections, header: Header, received: float,
                closed: str = '') -> list[str]:
        """
        Publish the detections of an image; return their track ids.

        They are empty without a tracker, and if the shutter was closed: tracks coast.
        received: see `Received.time`.
        """
        ids: list[str] = []
        if closed:
            self.coast(header, received)
        elif self._tracker is not None:
            ids = self._tracker.update(detections, self._seconds(header, received))
        self.outputs.publish(detections, header, ids)
        return ids

    def coast(self, header: Header, received: float) -> None:
        """Predict the tracks at the time of an image that shows the closed shutter."""
        if self._tracker is not None:
            self._tracker.coast(self._seconds(header, received))

    def _seconds(self, header: Header, received: float) -> float:
        return self._clock.at(stamp_of(header), round(received * 1e9)) / 1e9


class Outputs:
    """Publish detections, the latched class map, and the latency histogram."""

    def __init__(
        self, publishers: Publishers, card: DetectionCard, class_names: bool = False,
    ) -> None:
        self._card = card
        self._names = card.classes if class_names else ()
        self._clock = publishers.node.get_clock()
        self._pool: list[Detection2D] = []
        create = publishers.create
        self._detections = create(Detection2DArray, 'detections', reliable_qos(10))
        self._label_info = create(LabelInfo, 'label_info', latched_qos())
        self._vision_info = create(VisionInfo, 'vision_info', latched_qos())
        self._histogram = create(UInt32MultiArray, 'latency_histogram', reliable_qos(10))

    @property
    def topic(self) -> str:
        """The resolved topic of the detections."""
        return str(self._detections.topic_name)

    def publish(self, detections: Detections, header: Header, ids: Sequence[str]) -> None:
        """Publish the detections of an image, in pixels of the received image."""
        self._detections.publish(to_detection_array(
            detections, header, ids, self._pool, self._names))

    def publish_infos(self, threshold: float, version: int) -> None:
        """Publish the latched class map with the current threshold, and its topic."""
        header = Header(stamp=self._clock.now().to_msg())
        self._label_info.publish(to_label_info(self._card, threshold, header))
        self._vision_info.publish(
            to_vision_info(self._card, self._label_info.topic_name, version, header))

    def publish_histogram(self, counts: Sequence[int]) -> None:
        """Publish the frames per millisecond of latency; the last bin has no upper limit."""
        dimension = MultiArrayDimension(label='latency_ms', size=len(counts), stride=len(counts))
        self._histogram.publish(UInt32MultiArray(
            layout=MultiArrayLayout(dim=[dimension]), data=counts))


def to_detection_array(
    detections: Detections, header: Header, ids: Sequence[str] = (),
    pool: list[Detection2D] | None = None, names: Sequence[str] = (),
) -> Detection2DArray:
    """
    Return a message whose headers are the image's; boxes are in pixels of the received image.

    ids: track ids, empty without a tracker. names: of the classes, by default class ids are
    numbers. pool: messages to reuse, extended as necessary,
    because constructing them is the most expensive part. Each call overwrites the messages of the
    previous result, which is safe after publishing, as publishing copies them.
    """
    pool = [] if pool is None else pool
    while len(pool) < len(detections):
        pool.append(Detection2D(results=[ObjectHypothesisWithPose()]))
    rows = zip(pool, detections.boxes.tolist(), detections.scores.tolist(),
               detections.labels.tolist(), ids or [''] * len(detections))
    for message, (x1, y1, x2, y2), score, label, track in rows:
        message.header, message.id = header, track
        box, hypothesis = message.bbox, message.results[0].hypothesis
        box.center.position.x, box.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
        box.size_x, box.size_y = x2 - x1, y2 - y1
        hypothesis.class_id = names[label] if names else str(label)
        hypothesis.score = score
    return Detection2DArray(header=header, detections=pool[:len(detections)])


def to_label_info(card: DetectionCard, threshold: float, header: Header) -> LabelInfo:
    """Return the latched class map of a model."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(card.classes)]
    classes.append(VisionClass(class_id=UNLABELED, class_name='unlabeled'))
    return LabelInfo(header=header, class_map=classes, threshold=threshold)


def to_vision_info(card: DetectionCard, location: str, version: int, header: Header) -> VisionInfo:
    """Return the name of the model and the topic of its class map."""
    return VisionInfo(header=header, method=card.name, database_location=location,
                      database_version=version)
