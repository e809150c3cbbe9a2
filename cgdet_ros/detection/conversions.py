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

"""Convert detections to vision_msgs."""

from collections.abc import Sequence

from cgdet_core.runtime import DetectionCard, Detections
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


def to_detection_array(
    detections: Detections, header: Header, ids: Sequence[str] = (),
    pool: list[Detection2D] | None = None,
) -> Detection2DArray:
    """
    Return a message whose headers are the image's; boxes are in pixels of the received image.

    ids: track ids, empty without a tracker. pool: messages to reuse, extended as necessary,
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
        hypothesis.class_id, hypothesis.score = str(label), score
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


def to_histogram(counts: Sequence[int]) -> UInt32MultiArray:
    """Return the number of frames per millisecond of latency; the last bin has no upper limit."""
    dimension = MultiArrayDimension(label='latency_ms', size=len(counts), stride=len(counts))
    return UInt32MultiArray(layout=MultiArrayLayout(dim=[dimension]), data=counts)
