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

"""Inference that does not return is reported, abandoned, and publishes nothing."""

from collections.abc import Callable
from pathlib import Path
import signal
from threading import Event
import time
from typing import Any

from cgdet_ros.detection.node import DetectorNode
from cgdet_ros.node import managed_node
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from toy_models import gray, write_model

pytestmark = pytest.mark.ros
Start = Callable[..., Any]
SUCCESS, ERROR = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.ERROR


def test_deactivating_is_a_reported_error_and_the_node_continues(
    start: Start, tmp_path: Path,
) -> None:
    with start(model_path=write_model(tmp_path / 'model.onnx', hangs=True)) as client:
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        client.images.publish(client.image(gray(1.0), 'mono8'))
        client.status('running', of='camera', received='2')
        assert not client.change_state('deactivate') and client.state() == 'unconfigured'
        status = client.status('inference hangs', of='detector')
        assert status['level'] == b'\x02' and 'restart the node' in status['message']
        assert 'inference hangs' in client.log.read_text()
        count = len(client.infos)
        assert client.change_state('configure') and client.change_state('activate')
        client.wait(lambda: len(client.infos) > count)
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        assert len(client.detections) == 2
        assert 'restart the node' in client.status('active', of='detector')['left behind']
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(120) == 1, 'a thread is still running'
        client.process.returncode = 0  # `start` expects 0


@pytest.mark.parametrize('transition', ['shutdown', None], ids=['shutdown', 'ctrl-c'])
def test_shutdown_does_not_wait_for_it(
    start: Start, tmp_path: Path, transition: str | None,
) -> None:
    with start(model_path=write_model(tmp_path / 'model.onnx', hangs=True)) as client:
        client.wait_active()
        client.images.publish(client.image(gray(1.0), 'mono8'))
        client.status('running', of='camera', received='1')
        if transition:
            assert client.change_state(transition) and client.state() == 'finalized'
        client.process.send_signal(signal.SIGINT)
        assert client.process.wait(120) == 1
        assert 'inference hangs' in client.log.read_text()
        client.process.returncode = 0


class Gate:
    """A session whose inference blocks until the gate is open."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.open, self.entered = Event(), Event()

    def run(self, *arrays: Any) -> Any:
        self.entered.set()
        self.open.wait()
        return self._session.run(*arrays)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@pytest.fixture
def node(create_node: Any, toy: Path) -> DetectorNode:
    return create_node(kind=DetectorNode, parameter_overrides=[
        Parameter('model_path', value=str(toy)), Parameter('autostart', value=False)])


def image(second: int) -> Image:
    frame = gray(0.5)
    message = Image(height=frame.shape[0], width=frame.shape[1], encoding='mono8',
                    step=frame.shape[1], data=frame.tobytes())
    message.header.stamp.sec = second
    return message


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_that_returns_late_publishes_nothing(
    node: DetectorNode, monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    old, worker = node._detector, node._worker
    gate = old.session = Gate(old.session)
    stream, = node._streams
    published: list[int] = []
    publisher = stream.outputs._detections
    publish = publisher.publish
    publisher.publish = lambda m: (published.append(m.header.stamp.sec), publish(m))
    stream.input._receive(image(1))
    gate.entered.wait()
    stream.input._receive(image(2))
    with monkeypatch.context() as impatient:
        impatient.setattr(managed_node, 'STUCK_S', 0.5)
        assert node.trigger_deactivate() == ERROR and node.state() == 'unconfigured'
    assert 'inference hangs' in node.error and node.hangs
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    assert node._detector is not old and node._worker is not worker
    node.recovery.failed('the new worker fails', 0)
    gate.open.set()  # its model is not closed: infer returns
    worker._thread.join(120)
    assert not worker._thread.is_alive() and not published
    statistics = stream.input.statistics
    assert statistics.processed == 0 and statistics.failed == 0
    assert node.recovery.failures == 1, 'failures are those of the new worker'
    stream, = node._streams
    stream.input._receive(image(3))
    wait(lambda: stream.input.statistics.processed == 1)
    assert node.trigger_deactivate() == SUCCESS and node.state() == 'inactive'


def test_cleanup_closes_the_model(node: DetectorNode) -> None:
    assert node.trigger_configure() == SUCCESS
    detector = node._detector
    detector.infer()
    assert node.trigger_cleanup() == SUCCESS
    with pytest.raises(AttributeError):
        detector.infer()
