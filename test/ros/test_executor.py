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

"""The executor survives the destruction of entities during transitions."""

from pathlib import Path
import subprocess
import sys
from time import monotonic
from typing import Any

from cgdet_ros.node.executor import NodeExecutor
import pytest
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import Empty

ROOT = Path(__file__).resolve().parents[2]
# Ctrl-C while an object is destroyed, where Python prints an exception and goes on.
INTERRUPTED = """
import os, signal
from cgdet_ros.detection.node import DetectorNode, NAME, SPECS
from cgdet_ros.node.executor import run

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

class Interrupted(DetectorNode):
    def __init__(self):
        super().__init__()
        self.create_timer(0.01, Dying)

run(Interrupted, NAME, SPECS)
"""
EARLY = INTERRUPTED.replace('self.create_timer(0.01, Dying)', 'Dying.__del__(self)')
# Ctrl-C also shuts rclpy down, at any time.
SHUT_DOWN = INTERRUPTED.replace('        super().__init__()', """
        __import__('rclpy').shutdown()
        super().__init__()""")
# Ctrl-C in the initialization of a library of C, after which Python raises an ImportError.
IMPORTING = """
import os, signal, sys

class Library:
    @staticmethod
    def find_spec(name, *_):
        if name == 'numpy':
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError('initialization failed')

sys.meta_path.insert(0, Library)
from cgdet_ros.{} import main
main()
"""
pytestmark = pytest.mark.ros


def test_ctrl_c_is_quiet_wherever_it_arrives(domain: int, toy: Path) -> None:
    result = subprocess.run(
        [sys.executable, '-c', INTERRUPTED, '--ros-args', '-p', f'model_path:={toy}'],
        capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (0, '')
    assert 'Traceback' not in result.stderr and 'KeyboardInterrupt' not in result.stderr
    result = subprocess.run(
        [sys.executable, '-c', EARLY], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout, result.stderr) == (130, '', '')
    result = subprocess.run(
        [sys.executable, '-c', SHUT_DOWN], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout, result.stderr) == (130, '', '')


@pytest.mark.parametrize('module', ['detector_node', 'tracker_node'])
def test_ctrl_c_is_quiet_while_libraries_are_imported(domain: int, module: str) -> None:
    result = subprocess.run([sys.executable, '-c', IMPORTING.format(module)],
                            capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout, result.stderr) == (130, '', '')


def test_a_subscription_may_be_destroyed_after_it_became_ready(create_node: Any) -> None:
    node = create_node('short_lived')
    executor = NodeExecutor(MutuallyExclusiveCallbackGroup())
    try:
        executor.add_node(node)
        heard: list[Any] = []
        group = MutuallyExclusiveCallbackGroup()
        subscription = node.create_subscription(
            Empty, 'first', heard.append, 10, callback_group=group)
        publisher = node.create_publisher(Empty, 'first', 10)
        while not publisher.get_subscription_count():
            executor.spin_once(0.05)
        publisher.publish(Empty())
        handler, entity, _ = executor.wait_for_ready_callbacks(10)
        while entity is not subscription:
            handler()
            handler, entity, _ = executor.wait_for_ready_callbacks(10)
        node.destroy_subscription(subscription)
        handler()  # executed after its destruction
        assert handler.exception() is None and not heard
        # The callback group is not blocked.
        node.create_subscription(Empty, 'second', heard.append, 10, callback_group=group)
        publisher = node.create_publisher(Empty, 'second', 10)
        while not publisher.get_subscription_count():
            executor.spin_once(0.05)
        publisher.publish(Empty())
        end = monotonic() + 120
        while not heard:
            assert monotonic() < end
            executor.spin_once(0.05)
    finally:
        executor.shutdown()


@pytest.mark.parametrize('running', [True, False])
def test_an_error_counts_only_while_rclpy_runs(create_node: Any, running: bool) -> None:
    def fail() -> None:
        if not running:
            rclpy.shutdown()  # as SIGINT does, at any time
        raise RuntimeError('taken too late')

    node = create_node('failing')
    executor = NodeExecutor(MutuallyExclusiveCallbackGroup())
    executor.add_node(node)
    called = node.create_timer(0.001, fail)
    try:
        if running:
            with pytest.raises(RuntimeError, match='taken too late'):
                while True:
                    executor.spin_once(1)
        else:
            executor.spin()
            assert not rclpy.ok()
    finally:
        called.cancel()
        executor.shutdown()
