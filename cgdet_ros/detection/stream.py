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

"""One camera of the detector node: its images, detections and overlays."""

from cgdet_core.runtime import DetectionCard, Detections
from cgdet_core.runtime.detection.multi_object import MultiObjectTracker
from cgdet_ros.detection.outputs import Outputs
from cgdet_ros.detection.overlay import Overlay
from cgdet_ros.detection.parameters import ModelSettings
from cgdet_ros.node.image_input import Handover, ImageInput
from cgdet_ros.node.topics import Publishers
from rclpy.node import Node
from std_msgs.msg import Header


class Stream:
    """The input and the outputs of one camera; an empty name adds no prefix to its topics."""

    def __init__(
        self, node: Node, name: str, wake: Handover, card: DetectionCard, settings: ModelSettings,
    ) -> None:
        self.input = ImageInput(node, name, settings.input_transport, wake)
        self._tracker = MultiObjectTracker(settings.track_max_age_s) if settings.track else None
        self._publishers = Publishers(node, name)
        try:
            self.outputs = Outputs(self._publishers, card)
            self.overlay = Overlay(self._publishers, card, self.input.errors)
        except Exception:  # a bad qos_overrides entry
            self.destroy()
            raise

    def subscribe(self) -> None:
        """Subscribe and reset the tracker."""
        if self._tracker is not None:
            self._tracker.reset()
        self.input.subscribe()

    def destroy(self) -> None:
        """Destroy all topics."""
        self.input.unsubscribe()
        self._publishers.destroy()

    def publish(self, detections: Detections, header: Header) -> list[str]:
        """Publish the detections of an image; return their track ids, empty without a tracker."""
        ids = [] if self._tracker is None else self._tracker.update(
            detections, header.stamp.sec + header.stamp.nanosec * 1e-9)
        self.outputs.publish(detections, header, ids)
        return ids
