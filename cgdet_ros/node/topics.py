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

"""QoS profiles (REP-2003) and publishers whose QoS can be overridden."""

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

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
