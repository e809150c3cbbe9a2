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

"""Run a node in its own process; a transition that takes minutes does not block callbacks."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
import os
import signal
import sys
from typing import Any

from cgdet_core.errors import UserError
from cgdet_ros.node import starting
from cgdet_ros.node.logs import ERROR_PERIOD_S, reason
from cgdet_ros.node.managed_node import ManagedNode
from cgdet_ros.node.parameters import hint, Spec
from cgdet_ros.node.services import RCLError
import rclpy
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.logging import get_logger
from rclpy.signals import uninstall_signal_handlers
from rclpy.subscription import Subscription
from rclpy.task import Task

# The worker receives the interpreter lock from the executor sooner than after the default 5 ms:
# 0.1 ms of overhead, about the spread of the measurement (docs/decisions/0009).
SWITCH_INTERVAL_S = 1e-4


class NodeExecutor(SingleThreadedExecutor):
    """
    Run callbacks in the spinning thread, and those of one group in a separate thread.

    A MultiThreadedExecutor would pass every image between threads, with two wait sets for each.
    """

    def __init__(self, slow: CallbackGroup, name: str = 'executor') -> None:
        super().__init__()
        self._slow = slow
        self._name = name  # of its logger
        self._thread = ThreadPoolExecutor(1, 'transitions')
        self._error: BaseException | None = None  # of a callback in that thread

    # Not spin_once, which spin() no longer calls from Lyrical on.
    def _spin_once_impl(
        self, timeout_sec: Any = None, wait_condition: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait for a callback and run it; raise what a callback in the other thread raised."""
        if self._error is not None:
            raise self._error
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec, None, wait_condition)
        except (ConditionReachedException, ShutdownException, TimeoutException):
            return
        except InvalidHandle:
            return  # a transition destroyed an entity while rclpy collected them
        if entity is not None and entity.callback_group is self._slow:
            self._thread.submit(self._run_slow, handler)
        else:
            handler()
            error = handler.exception()
            if isinstance(error, Exception) and not self.context.ok():
                # rclpy was shut down meanwhile, and takes or publishes nothing any more.
                get_logger(self._name).debug(f'after the shutdown: {reason(error)}')
                return
            if isinstance(entity, Subscription) and isinstance(error, Exception):
                # Nothing that another program sends ends the node, such as a negative /clock.
                get_logger(self._name).error(
                    f'a message on {entity.topic_name} is ignored: {reason(error)}',
                    throttle_duration_sec=ERROR_PERIOD_S)
            elif error is not None:
                raise error

    # A transition may destroy an entity after it became ready and before it is executed. Some
    # releases of rclpy do not handle that, and the callback group would then be blocked forever.

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


def check_arguments(name: str, specs: Iterable[Spec], args: list[str]) -> None:
    """Print the usage for --help, and end the process for another argument that is not ROS's."""
    try:
        own = starting.own_arguments(args)
    except UserError as error:
        sys.exit(f'{name}: {error}')
    if {'-h', '--help'} & {*own}:
        print(f'usage: {name} [--ros-args -p PARAMETER:=VALUE -r FROM:=TO ...]\n\nparameters:')
        for spec in specs:
            print(f'  {spec.name} ({spec.default!r}): {spec.description}')
        sys.exit(0)
    if own:
        sys.exit(f'{name}: unknown argument {own[0]!r}; parameters and remappings follow '
                 '--ros-args, and --help lists the parameters')


def run(
    create: Callable[[], ManagedNode], name: str, specs: Iterable[Spec],
    args: list[str] | None = None,
) -> None:
    """Run the node that `create` returns; `name` is the prefix of error messages."""
    check_arguments(name, specs, sys.argv if args is None else args)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    created = False

    def interrupt(*_: Any) -> None:
        # Called besides rclpy's own handler, which ends the spinning. An exception could be raised
        # where Python can only print it, such as in a __del__ of rclpy.
        if not created:
            sys.exit(130)

    signal.signal(signal.SIGINT, interrupt)
    try:
        starting.init(args)
    except UserError as error:
        sys.exit(f'{name}: {error}')
    try:
        node = starting.create(create)
    except Exception as error:
        if not rclpy.ok():  # Ctrl-C has shut it down
            sys.exit(130)
        rclpy.try_shutdown()
        if isinstance(error, ParameterException):
            sys.exit(f'{name}: {error}{hint(error)}')
        if isinstance(error, UserError):
            sys.exit(f'{name}: {error}')
        raise
    created = True
    executor = NodeExecutor(node.transitions, name)
    executor.add_node(node)
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except RCLError:  # a timer callback published during shutdown
        if rclpy.ok():
            raise
    finally:
        # A second Ctrl-C must not interrupt the shutdown.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # This stops rclpy's thread that wakes the executors after a signal: if one is destroyed
        # at that moment, the process crashes.
        uninstall_signal_handlers()
        node.stop_loading()  # which another thread does
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # rclpy has restored the previous handler
    if node.hangs:
        # A normal exit would destroy libraries that the thread still uses.
        os._exit(1)
