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

"""A node that communicates with the node under test."""

from collections.abc import Callable, Sequence
import itertools
import os
from pathlib import Path
import subprocess
import time
from typing import Any

import numpy as np

TIMEOUT_S = 120.0  # of every wait: only a failure takes so long, on a busy machine too


class Topics:
    """What a client publishes to one camera and receives from it."""

    def __init__(self, node: Any, camera: str) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import Image
        from std_msgs.msg import UInt32MultiArray
        from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

        self.detections: list[Detection2DArray] = []
        self.labels: list[LabelInfo] = []
        self.infos: list[VisionInfo] = []
        self.histograms: list[UInt32MultiArray] = []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for kind, topic, heard, qos in (
                (Detection2DArray, 'detections', self.detections, 100),
                (LabelInfo, 'label_info', self.labels, latched),
                (VisionInfo, 'vision_info', self.infos, latched),
                (UInt32MultiArray, 'latency_histogram', self.histograms, 10)):
            node.create_subscription(
                kind, f'{camera}/{topic}'.lstrip('/'), heard.append, qos)
        self.images = node.create_publisher(Image, f'{camera}/image_raw'.lstrip('/'), 10)


class Client:
    """A node in this process that communicates with the detector in another one."""

    NODE, PROGRAM = 'thermal_detector', 'cgdet_ros.detector_node'

    def __init__(self, process: subprocess.Popen, log: Path, cameras: Sequence[str]) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.srv import ChangeState, GetState
        from rcl_interfaces.srv import (
            DescribeParameters,
            GetParameters,
            SetParameters,
            SetParametersAtomically,
        )
        import rclpy

        self.process, self.log = process, log
        self.node = rclpy.create_node('test_client')
        self.cameras = {name: Topics(self.node, name) for name in cameras}
        first = self.cameras[cameras[0]]
        self.detections, self.labels, self.infos, self.images = (
            first.detections, first.labels, first.infos, first.images)
        # get_state comes last: see `_wait_for_services`.
        self._clients = {
            name: self.node.create_client(kind, f'/{self.NODE}/{name}') for name, kind in (
                ('change_state', ChangeState), ('set_parameters', SetParameters),
                ('get_parameters', GetParameters),
                ('set_parameters_atomically', SetParametersAtomically),
                ('describe_parameters', DescribeParameters), ('get_state', GetState))}
        self._services_ready = False
        self.statuses: list[dict[str, Any]] = []
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._status, 10)
        self._stamps = itertools.count(int(time.time()) - 10**6)

    def _status(self, message: Any) -> None:
        for status in message.status:
            self.statuses.append({'name': status.name, 'level': status.level,
                                  'message': status.message, 'hardware': status.hardware_id,
                                  **{v.key: v.value for v in status.values}})

    def status(self, words: str = '', of: str = '', **values: str) -> dict[str, Any]:
        """Wait for a new status with these words in its message, values, and end of its name."""
        start = len(self.statuses)
        return self.wait(lambda: next(
            (s for s in self.statuses[start:] if words in s['message'] and s['name'].endswith(of)
             and all(s.get(k.replace('_', ' ')) == v for k, v in values.items())), None))

    def error(self) -> dict[str, Any]:
        """Wait for a status that is an error."""
        return self.wait(lambda: next((s for s in self.statuses if s['level'] == b'\x02'), None))

    def wait(self, condition: Callable[[], Any], timeout: float = TIMEOUT_S) -> Any:
        """Spin until the condition holds; fail with the node's log after `timeout` seconds."""
        import rclpy
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.05)
            value = condition()
            if value:
                return value
        raise AssertionError(f'timeout after {timeout} s; log of the node:\n'
                             f'{self.log.read_text()}\n{self.statuses[-1:]}')

    def wait_active(self) -> None:
        """
        Wait until every camera's topics are connected.

        Images sent afterwards are received: the subscription is reliable (see `start`) and was
        discovered. So are detections: the node discovers our subscriptions in the order of their
        creation, and it has already served the one to label_info, which was created later.
        """
        self.wait(lambda: all(c.labels and c.images.get_subscription_count()
                              for c in self.cameras.values()))

    def image(self, frame: np.ndarray, encoding: str, **fields: Any) -> Any:
        """Return an image message with a unique stamp."""
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

    def send(self, message: Any, camera: str | None = None) -> Any:
        """Publish an image and return the detections with its stamp."""
        topics = self.cameras[next(iter(self.cameras)) if camera is None else camera]
        topics.images.publish(message)
        return self.wait(lambda: next(
            (d for d in topics.detections if d.header.stamp == message.header.stamp), None))

    def call(self, name: str, request: Any) -> Any:
        """Call a service of the detector and return its response."""
        future = self.ask(name, request)
        self.wait(future.done)
        return future.result()

    def ask(self, name: str, request: Any) -> Any:
        """Call a service of the detector; return the future of its response."""
        if not self._services_ready:
            self._wait_for_services()
        return self._clients[name].call_async(request)

    def _wait_for_services(self) -> None:
        """
        Wait until the responses of all services can be received.

        The response to a client that a server has not discovered yet is lost. Clients are
        discovered in the order of their creation: when the last one has a response, all will.
        """
        from lifecycle_msgs.srv import GetState
        self.wait(lambda: all(client.service_is_ready() for client in self._clients.values()))
        futures: list[Any] = []
        due = 0.0  # of the next call

        def answered() -> bool:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + 1.0
                futures.append(self._clients['get_state'].call_async(GetState.Request()))
            return any(future.done() for future in futures)

        self.wait(answered)
        self._services_ready = True

    def change_state(self, transition: str | int) -> bool:
        """Request a transition by its label or number; "deactivate" waits until unsubscribed."""
        future = self.request(transition)
        self.wait(future.done)
        if future.result().success and transition == 'deactivate':
            self.wait(lambda: not any(
                c.images.get_subscription_count() for c in self.cameras.values()))
        return future.result().success

    def request(self, transition: str | int) -> Any:
        """Request a transition by its label or number; return the future of the response."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState
        wanted = (Transition(label=transition) if isinstance(transition, str)
                  else Transition(id=transition))
        return self.ask('change_state', ChangeState.Request(transition=wanted))

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState
        return self.call('get_state', GetState.Request()).current_state.label

    def wait_for_state(self, label: str) -> None:
        """Wait for a state: a transition's error is reported before the transition ends."""
        self.wait(lambda: self.state() == label)

    def set_parameter(self, name: str, value: Any) -> Any:
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call('set_parameters', request).results[0]

    def resident(self) -> int:
        """Return the resident memory of the detector's process in bytes."""
        pages = Path(f'/proc/{self.process.pid}/statm').read_text().split()[1]
        return int(pages) * os.sysconf('SC_PAGE_SIZE')

    def describe(self, *names: str) -> Any:
        from rcl_interfaces.srv import DescribeParameters
        return self.call('describe_parameters',
                         DescribeParameters.Request(names=names)).descriptors
