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

"""The executor: a transition that takes minutes holds up nothing else."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.task import Task


class NodeExecutor(SingleThreadedExecutor):
    """
    Run callbacks in the spinning thread, those of one group in a thread of their own.

    A MultiThreadedExecutor would do as well, but it hands every image from thread to thread,
    with its wait set built twice for it.
    """

    def __init__(self, slow: CallbackGroup) -> None:
        super().__init__()
        self._slow = slow
        self._thread = ThreadPoolExecutor(1, 'transitions')
        self._error: BaseException | None = None  # of a callback in that thread

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback and run it; what one in the other thread raised is raised here."""
        if self._error is not None:
            raise self._error
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec)
        except (ShutdownException, TimeoutException):
            return
        except InvalidHandle:
            return  # a transition destroyed an entity while rclpy listed what to wait for
        if entity is not None and entity.callback_group is self._slow:
            self._thread.submit(self._run_slow, handler)
        else:
            handler()
            if handler.exception() is not None:
                raise handler.exception()

    # A transition may destroy an entity between its getting ready and its turn. Not every rclpy
    # expects that, and the entity's group would then stay busy for ever.

    def _take_subscription(self, sub: Any) -> Any:
        try:
            return super()._take_subscription(sub)
        except InvalidHandle:
            return None

    def _take_waitable(self, waitable: Any) -> Any:
        try:
            return super()._take_waitable(waitable)
        except InvalidHandle:
            return None

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Wait for the transition in progress, then stop."""
        self._thread.shutdown()
        return bool(super().shutdown(timeout_sec))

    def _run_slow(self, handler: Task) -> None:
        handler()
        if handler.exception() is not None and self.context.ok():
            self._error = handler.exception()
            self.wake()
