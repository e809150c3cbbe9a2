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

"""The bond of a node, by which nav2's lifecycle manager notices that its process has ended."""

import importlib
from typing import Any
from uuid import uuid4

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile

PERIOD_S, TIMEOUT_S = 0.1, 4.0  # as nav2's own nodes


class Bond:
    """
    Publish heartbeats from `start` to `stop`, if the package bond is installed.

    The manager's side has formed the bond when it receives one, and breaks it when they end or
    when one says so. This side does not follow the manager's heartbeats: a robot whose manager
    has ended still sees.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher: Publisher | None = None
        self._instance = ''  # empty while stopped
        try:
            self._kind: Any = importlib.import_module('bond.msg').Status
        except ImportError:
            return
        self._publisher = node.create_publisher(self._kind, 'bond', QoSProfile(depth=5))
        # Not the node's clock, which a paused bag stops.
        self._timer = node.create_timer(
            PERIOD_S, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def start(self) -> None:
        """Form a bond, unless there is one."""
        if self._publisher is not None and not self._instance:
            self._instance = str(uuid4())
            self._timer.reset()

    def stop(self) -> None:
        """Break the bond, if there is one."""
        if self._instance:
            self._timer.cancel()
            self._publish(False)
            self._instance = ''

    def _beat(self) -> None:
        if self._instance:
            self._publish(True)

    def _publish(self, active: bool) -> None:
        if self._publisher is not None and self._node.context.ok() and (
                self._publisher.get_subscription_count()):
            message = self._kind(
                id=self._node.get_name(), instance_id=self._instance, active=active,
                heartbeat_timeout=TIMEOUT_S, heartbeat_period=PERIOD_S)
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(message)
