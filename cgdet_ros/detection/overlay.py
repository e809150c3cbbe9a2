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

"""The debug image and the Foxglove annotations."""

from collections.abc import Sequence
from functools import cache
import importlib
from typing import Any

from cgdet_core.runtime import DetectionCard, Detections
from cgdet_core.runtime.detection.drawing import captions, colors, draw_detections
from cgdet_ros.node.logs import CameraLog, reason
from cgdet_ros.node.pictures import to_debug_image
from cgdet_ros.node.services import RCLError
from cgdet_ros.node.topics import Publishers, reliable_qos
from numpy.typing import NDArray
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from std_msgs.msg import Header

THICKNESS = 2.0  # pixels
FONT_SIZE = 12.0  # pixels


class Overlay:
    """Publish overlays if there is a subscriber; an error is logged, its image does not fail."""

    def __init__(self, publishers: Publishers, card: DetectionCard, log: CameraLog) -> None:
        self._card = card
        self._log = log
        self._debug_image = publishers.create(Image, 'debug_image', reliable_qos(1))
        self._annotations: Publisher | None = None
        if (kind := annotations_type()) is not None:
            try:
                self._annotations = publishers.create(kind, 'annotations', reliable_qos(10))
            except RCLError as error:  # a security policy may lack this optional topic
                log.warning(f'no annotations: {reason(error)}')

    def annotate(self, detections: Detections, header: Header, ids: Sequence[str]) -> None:
        """Publish annotations; boxes are in pixels of the received image."""
        try:
            if self._annotations is not None and self._annotations.get_subscription_count():
                self._annotations.publish(
                    to_annotations(detections, self._card.classes, header, ids))
        except Exception as error:
            self._log.error('no annotations{}', error)

    def draw(
        self, detections: Detections, frame: NDArray[Any], header: Header, ids: Sequence[str],
    ) -> None:
        """Publish the frame (H, W) with its detections, in its own pixels."""
        try:
            if self._debug_image.get_subscription_count():
                picture = draw_detections(frame, detections, self._card, ids=ids)
                self._debug_image.publish(to_debug_image(picture, header))
        except Exception as error:
            self._log.error('no debug_image{}', error)


@cache
def annotations_type() -> Any:
    """Return the class foxglove_msgs/ImageAnnotations, or None if the package is missing."""
    try:
        return importlib.import_module('foxglove_msgs.msg').ImageAnnotations
    except ImportError:
        return None


def to_annotations(
    detections: Detections, classes: tuple[str, ...], header: Header, ids: Sequence[str] = (),
) -> Any:
    """
    Return ImageAnnotations: an outline and a caption per detection, in the color of its class.

    Boxes are in pixels of the received image. Requires foxglove_msgs, see `annotations_type`.
    """
    from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation

    message = ImageAnnotations()
    if hasattr(message, 'timestamp'):  # since foxglove_msgs 3.2.5
        message.timestamp = header.stamp
    boxes = detections.boxes.tolist()
    for (x1, y1, x2, y2), text, bgr in zip(
            boxes, captions(detections, classes, ids), colors(detections)):
        blue, green, red = (value / 255 for value in bgr)
        color = Color(r=red, g=green, b=blue, a=1.0)
        message.points.append(PointsAnnotation(
            timestamp=header.stamp, type=PointsAnnotation.LINE_LOOP, outline_color=color,
            thickness=THICKNESS, points=[
                Point2(x=x, y=y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]))
        message.texts.append(TextAnnotation(
            timestamp=header.stamp, text=text, font_size=FONT_SIZE, text_color=color,
            background_color=Color(a=0.5), position=Point2(x=x1, y=max(FONT_SIZE, y1))))
    return message
