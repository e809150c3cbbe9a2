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

"""Topics of cameras: names, QoS profiles (REP-2003), publishers whose QoS can be overridden."""

import re

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

CAMERA_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*')


def camera_topics(cameras: str, image_topic: str) -> dict[str, str]:
    """
    Return the image topic of each camera, from names separated by commas or blanks.

    image_topic: relative to the camera's name, or contains "{camera}" in place of the name.
    ValueError if a name or the topic is wrong.
    """
    names = cameras.replace(',', ' ').split()
    if not names:
        raise ValueError('The list of cameras is empty; for example, use cameras:=front,rear.')
    for name in names:
        if not CAMERA_NAME.fullmatch(name):
            raise ValueError(f'{name!r} is not a camera name: use letters, digits and '
                             'underscores, with a letter first.')
        if names.count(name) > 1:
            raise ValueError(f'The camera {name} is listed twice.')
    if '{camera}' in image_topic:
        return {name: image_topic.replace('{camera}', name) for name in names}
    if image_topic.startswith('/'):
        raise ValueError(f'All cameras would use {image_topic}; put {{camera}} in place of their '
                         'names, for example image_topic:=/{camera}/image_raw.')
    return {name: f'{name}/{image_topic}' for name in names}


# Each call returns a new profile, because rclpy applies qos_overrides in place.


def reliable_qos(depth: int) -> QoSProfile:
    """Return a profile that matches subscriptions of either reliability."""
    return QoSProfile(depth=depth)


def latched_qos() -> QoSProfile:
    """Return a profile whose last message is also sent to late subscriptions."""
    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def input_qos() -> QoSProfile:
    """Return the sensor data profile with depth 1."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Publishers:
    """Create publishers with a camera's name as topic prefix, and destroy them together."""

    def __init__(self, node: Node, camera: str) -> None:
        self.node = node
        self._prefix = f'{camera}/' if camera else ''
        self._all: list[Publisher] = []

    def create(self, kind: type, topic: str, qos: QoSProfile) -> Publisher:
        """Create a publisher; raise rclpy's error for a bad qos_overrides entry."""
        publisher = self.node.create_publisher(
            kind, self._prefix + topic, qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self._all.append(publisher)
        return publisher

    def destroy(self) -> None:
        """Destroy all publishers."""
        while self._all:
            self.node.destroy_publisher(self._all.pop())
