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

"""The log of a node: messages of the runtime, and errors and warnings of each camera."""

from datetime import datetime, timezone
import logging
import re
from time import monotonic

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

ERROR_PERIOD_S = 5.0  # minimum between two logged errors of one kind
WARNING_PERIOD_S = 60.0  # the same of warnings, which the diagnostics repeat
KINDS = 100  # that a log remembers
NUMBER = re.compile(r'\d+(\.\d+)?')
QUOTED = re.compile(r"'[^']*'")  # of an image, for example its encoding


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


class CameraLog:
    """
    Log the errors and warnings of a camera, each kind once per period (rclpy throttles per line).

    A kind is the text without its numbers and quoted parts, which may differ with every image.
    subject: what the problems are those of, by default a camera.
    """

    def __init__(self, node: Node, camera: str, subject: str = 'camera') -> None:
        self.of_camera = f' of {camera}' if camera else ''
        self._name = f'{subject} {camera}'.rstrip()
        self._node = node
        self._quiet_until: dict[str, float] = {}
        self._problem = False  # one was logged and has not ended

    def error(self, what: str, error: Exception) -> None:
        """Log an error; `what` has {} in place of the camera's name."""
        text = f'{what.format(self.of_camera)}: {reason(error)}'
        if self._is_due(text, ERROR_PERIOD_S):
            self._node.get_logger().error(text)

    def follow(self, status: DiagnosticStatus) -> None:
        """Log a problem of the camera when it begins, later once a period, and when it ends."""
        if status.level != DiagnosticStatus.OK:
            if self._is_due(status.message, WARNING_PERIOD_S):
                self._node.get_logger().warning(f'{self._name}: {status.message}')
                self._problem = True
        elif self._problem:
            self._node.get_logger().info(f'{self._name}: {status.message}')
            self._problem = False

    def warning(self, text: str) -> None:
        """Log a warning that occurs once."""
        self._node.get_logger().warning(f'{self._name}: {text}')

    def _is_due(self, text: str, period: float) -> bool:
        kind = NUMBER.sub('', QUOTED.sub('', text))
        if not self._node.context.ok() or monotonic() < self._quiet_until.get(kind, 0.0):
            return False
        if len(self._quiet_until) >= KINDS:
            self._quiet_until.clear()
        self._quiet_until[kind] = monotonic() + period
        return True


def reason(error: BaseException) -> str:
    """Return the message of an error, or its class name if it has none."""
    return str(error) or type(error).__name__


def time_text() -> str:
    """Return the time of day for the diagnostics, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec='seconds')
