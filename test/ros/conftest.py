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

"""Real rclpy, real DDS between processes, one ROS domain a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import importlib.util
import itertools
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# The wheels' rclpy restarts the interpreter to set its library path; not inside pytest.
UNPREPARED = (importlib.util.find_spec('ros_wheels_bootstrapper') is not None
              and '_ROS_WHEELS_BOOTSTRAP_COMPLETE' not in os.environ)
if UNPREPARED or importlib.util.find_spec('rclpy') is None:
    collect_ignore_glob = ['test_*.py']
_domains = itertools.count(1 + os.getpid() % 60)


def pytest_report_header() -> str | None:
    """Say why the ROS tests are not collected."""
    if UNPREPARED:
        return 'ROS tests are left out: run ". .venv/bin/ros_env.sh" first, or "make test"'
    if importlib.util.find_spec('rclpy') is None:
        return 'ROS tests are left out: there is no rclpy'
    return None


class Client:
    """A node in this process that talks to the detector in another."""

    def __init__(self, process: subprocess.Popen, log: Path) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        import rclpy
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import Image
        from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

        self.process, self.log = process, log
        self.node = rclpy.create_node('test_client')
        self.detections: list[Detection2DArray] = []
        self.labels: list[LabelInfo] = []
        self.infos: list[VisionInfo] = []
        self.statuses: list[dict[str, Any]] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(
            Detection2DArray, 'detections', self.detections.append, 100)
        self.node.create_subscription(LabelInfo, 'label_info', self.labels.append, latched)
        self.node.create_subscription(VisionInfo, 'vision_info', self.infos.append, latched)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._status, 10)
        self.images = self.node.create_publisher(Image, 'image_raw', 10)
        self._stamps = itertools.count(1)

    def _status(self, message: Any) -> None:
        for status in message.status:
            self.statuses.append({'level': status.level, 'message': status.message,
                                  **{v.key: v.value for v in status.values}})

    def wait(self, condition: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Spin until the condition holds; fail with the node's log after `timeout` seconds."""
        import rclpy
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.05)
            value = condition()
            if value:
                return value
        raise AssertionError(f'waited {timeout} s in vain; the node said:\n'
                             f'{self.log.read_text()}\n{self.statuses[-1:]}')

    def wait_active(self) -> None:
        self.wait(lambda: self.labels and self.images.get_subscription_count())
        self.spin(0.3)

    def spin(self, seconds: float) -> None:
        import rclpy
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def image(self, frame: np.ndarray, encoding: str, **fields: Any) -> Any:
        """Make an image message with a stamp of its own."""
        from sensor_msgs.msg import Image
        message = Image(height=frame.shape[0], width=frame.shape[1], encoding=encoding,
                        step=frame.strides[0])
        message.data = np.ascontiguousarray(frame).view(np.uint8).ravel().tobytes()
        message.header.stamp.sec = next(self._stamps)
        message.header.stamp.nanosec = 123456789
        message.header.frame_id = 'thermal_optical'
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def send(self, message: Any) -> Any:
        """Publish an image and give the detections with its stamp."""
        self.images.publish(message)
        return self.wait(lambda: next(
            (d for d in self.detections if d.header.stamp == message.header.stamp), None))

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        self.wait(client.service_is_ready)
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    def change_state(self, transition: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState
        request = ChangeState.Request(transition=Transition(label=transition))
        return self.call(ChangeState, '/thermal_detector/change_state', request).success

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState
        return self.call(GetState, '/thermal_detector/get_state',
                         GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: Any) -> Any:
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, '/thermal_detector/set_parameters', request).results[0]


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """Isolate the test's ROS graph and give it the shipped transport profile."""
    number = next(_domains)
    monkeypatch.setenv('ROS_DOMAIN_ID', str(number))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.setenv(name, str(ROOT / 'config' / 'fastdds.xml'))
    return number


@pytest.fixture
def start(domain: int, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start detector nodes with parameters; each ends with Ctrl-C and without a traceback."""
    import rclpy

    @contextmanager
    def running(**parameters: Any) -> Iterator[Client]:
        arguments = [a for k, v in parameters.items() for a in ('-p', f'{k}:={v}')]
        log = tmp_path / f'node{len(list(tmp_path.glob("node*.log")))}.log'
        with open(log, 'w') as stream:
            process = subprocess.Popen(
                [sys.executable, '-m', 'cgdet_ros.detector_node',
                 *(['--ros-args', *arguments] if arguments else [])],
                cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        rclpy.init()
        client = Client(process, log)
        try:
            yield client
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0, log.read_text()
            assert 'Traceback' not in log.read_text()
        finally:
            process.kill()
            process.wait()
            client.node.destroy_node()
            rclpy.try_shutdown()

    yield running
