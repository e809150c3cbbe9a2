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

"""What the runtime logs, in the node's log."""

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger


class RosLog(logging.Handler):
    """Hand the runtime's log on to ROS, from INFO upwards, until closed."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger
        self._runtime = logging.getLogger('cgdet_core.runtime')
        self._level = self._runtime.level
        self._runtime.setLevel(logging.INFO)
        self._runtime.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; ROS wants one line of code for each severity."""
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
