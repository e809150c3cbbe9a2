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

"""Logging: pass the runtime's log to ROS, and throttle errors that occur for every image."""

import logging
from time import monotonic

from rclpy.node import Node

PERIOD_S = 5.0  # minimum between two errors of one kind


class RosLog(logging.Handler):
    """Pass the runtime's log messages to ROS, at least INFO, until closed."""

    def __init__(self, node: Node) -> None:
        super().__init__(logging.INFO)
        self._logger = node.get_logger()
        self._runtime = logging.getLogger('cgdet_core.runtime')
        self._level = self._runtime.level
        self._runtime.setLevel(logging.INFO)
        self._runtime.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; rclpy requires one line of code per severity."""
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())

    def close(self) -> None:
        self._runtime.removeHandler(self)
        self._runtime.setLevel(self._level)
        super().close()


class ErrorLog:
    """Log the errors of a camera, each kind once per PERIOD_S (rclpy throttles per line)."""

    def __init__(self, node: Node, camera: str) -> None:
        self.of_camera = f' of {camera}' if camera else ''
        self._node = node
        self._quiet_until: dict[str, float] = {}

    def log(self, what: str, error: Exception) -> None:
        """Log an error; `what` is its kind, with {} in place of the camera's name."""
        if self._node.context.ok() and monotonic() >= self._quiet_until.get(what, 0.0):
            self._quiet_until[what] = monotonic() + PERIOD_S
            self._node.get_logger().error(f'{what.format(self.of_camera)}: {reason(error)}')


def reason(error: Exception) -> str:
    """Return the message of an error, or its class name if it has none."""
    return str(error) or type(error).__name__
