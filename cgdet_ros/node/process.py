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

"""Run a node in its own process until it is shut down."""

from collections.abc import Callable
import os
import signal
import sys

from cgdet_ros.node.executor import NodeExecutor
from cgdet_ros.node.managed_node import ManagedNode, RCLError
import rclpy
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.signals import uninstall_signal_handlers

# The worker receives the interpreter lock from the executor sooner than after the default 5 ms:
# 0.1 ms of overhead, about the spread of the measurement (docs/decisions/0009).
SWITCH_INTERVAL_S = 1e-4


def run(create: Callable[[], ManagedNode], name: str, args: list[str] | None = None) -> None:
    """Run the node that `create` returns; `name` is the prefix of error messages."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        rclpy.init(args=args)
    except RCLError as error:
        hint = '; set ROS_LOG_DIR to a writable folder' if 'log directory' in str(error) else ''
        sys.exit(f'{name}: {error}{hint}')
    try:
        node = create()
    except ParameterException as error:
        rclpy.try_shutdown()
        hint = (' (write 1.0, not 1)' if isinstance(error, InvalidParameterTypeException)
                and "expecting type 'DOUBLE'" in str(error) else '')
        sys.exit(f'{name}: {error}{hint}')
    executor = NodeExecutor(node.transitions)
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
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
        node.stop_loading()  # Ctrl-C interrupts the spinning thread only
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # rclpy has restored the previous handler
    if node.hangs:
        # A normal exit would destroy libraries that the thread still uses.
        os._exit(1)
