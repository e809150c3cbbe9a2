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

"""From detections to vision_msgs."""

from cgdet_core.runtime import Detections, ModelCard
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
    VisionClass,
    VisionInfo,
)

UNLABELED = 65535  # class id of what belongs to no class, as vision_msgs defines it


def to_detection_array(detections: Detections, header: Header) -> Detection2DArray:
    """Convert; every header is the image's, boxes are in pixels of the received image."""
    message = Detection2DArray(header=header)
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist())
    for (x1, y1, x2, y2), score, label in rows:
        center = Pose2D(position=Point2D(x=(x1 + x2) / 2, y=(y1 + y2) / 2))
        hypothesis = ObjectHypothesis(class_id=str(label), score=score)
        message.detections.append(Detection2D(
            header=header, results=[ObjectHypothesisWithPose(hypothesis=hypothesis)],
            bbox=BoundingBox2D(center=center, size_x=x2 - x1, size_y=y2 - y1)))
    return message


def to_label_info(card: ModelCard, threshold: float, header: Header) -> LabelInfo:
    """Give the latched class map of a model."""
    classes = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(card.classes)]
    classes.append(VisionClass(class_id=UNLABELED, class_name='unlabeled'))
    return LabelInfo(header=header, class_map=classes, threshold=threshold)


def to_vision_info(card: ModelCard, location: str, version: int, header: Header) -> VisionInfo:
    """Say which model detects and where its class map is found."""
    return VisionInfo(header=header, method=card.name, database_location=location,
                      database_version=version)
