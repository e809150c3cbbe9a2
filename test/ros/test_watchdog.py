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

"""The node recovers from failing inference and from model files that change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgdet_ros.detection.node import DetectorNode
from cgdet_ros.node import loading
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from toy_models import gray, write_model

pytestmark = pytest.mark.ros
SUCCESS = TransitionCallbackReturn.SUCCESS
Start = Callable[..., object]


def feed_until(client: object, level: float, condition: Callable[[], object]) -> object:
    """Send frames of a brightness at 20 Hz until the condition holds."""
    def fed() -> object:
        client.images.publish(client.image(gray(level), 'mono8'))
        return condition()

    return client.wait(fed)


def node_status(
    client: object, words: str, minimum: dict[str, int] | None = None, **values: str,
) -> Callable[[], object]:
    """Return a condition: a new status of the node with these words, values and minimum counts."""
    start = len(client.statuses)
    return lambda: next((
        s for s in client.statuses[start:] if 'state' in s and words in s['message']
        and all(int(s[k]) >= v for k, v in (minimum or {}).items())
        and all(s.get(k) == v for k, v in values.items())), None)


def test_failing_inference_reloads_the_model_until_it_works(
    start: Start, tmp_path: Path,
) -> None:
    model = write_model(tmp_path / 'model.onnx', fails=True)
    with start(model_path=model, max_failures=3) as client:
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        status = feed_until(client, 1.0, node_status(client, 'the model is reloaded in'))
        assert status['level'] == b'\x02' and 'out of data bounds' in status['message']
        # The same model again: it fails again, and the node tries again.
        feed_until(client, 1.0, node_status(client, '', {'restarts': 2}))
        write_model(model)
        feed_until(client, 1.0, lambda: len(client.detections) > 1)
        status = client.wait(node_status(client, 'active', failures='0'))
        assert status['level'] == b'\x00' and int(status['restarts']) >= 2
        assert len(client.infos) > 2 and {i.database_version for i in client.infos} == {1}
        assert 'inference keeps failing' in client.log.read_text()


def test_a_reload_that_fails_is_tried_again(start: Start, tmp_path: Path) -> None:
    model = write_model(tmp_path / 'model.onnx', fails=True)
    with start(model_path=model, max_failures=2) as client:
        client.wait_active()
        model.with_suffix('.json').rename(tmp_path / 'away.json')
        feed_until(client, 1.0, node_status(client, 'no card', state='unconfigured'))
        write_model(model)
        client.wait(node_status(client, 'active'))
        feed_until(client, 1.0, lambda: client.detections)


def test_a_requested_transition_ends_the_recovery(
    create_node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0  # simulated: a busy machine may not answer between two attempts
    monkeypatch.setattr(loading, 'monotonic', lambda: now)
    model = write_model(tmp_path / 'model.onnx')
    node = create_node(kind=DetectorNode, parameter_overrides=[
        Parameter('model_path', value=str(model)), Parameter('autostart', value=False)])
    reports: list[DiagnosticArray] = []
    monkeypatch.setattr(node._diagnostics, 'publish', reports.append)
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    model.with_suffix('.json').rename(tmp_path / 'away.json')
    node.recovery.failed('out of data bounds', 1)
    for attempt in (1, 2):
        now += node.recovery.seconds_left()
        node._recover()
        assert node.state() == 'unconfigured' and node.recovery.restarts == attempt
        node._report()
        assert 'no card' in reports[-1].status[0].message
    write_model(model)
    service, = (s for s in node.services if s.srv_type is ChangeState)
    request = ChangeState.Request(transition=Transition(label='configure'))
    assert service.callback(request, ChangeState.Response()).success
    now += 1000.0
    node._recover()
    node._report()
    assert node.state() == 'inactive' and reports[-1].status[0].level == b'\x00'


def test_max_failures_0_never_reloads_and_a_bad_image_does_not_count(
    start: Start, tmp_path: Path,
) -> None:
    model = write_model(tmp_path / 'model.onnx', fails=True)
    with start(model_path=model, max_failures=1) as client:
        client.wait_active()
        for number in range(1, 4):
            client.images.publish(client.image(gray(0.5), 'mono8', data=b''))
            client.status('truncated', failed=str(number))
        assert client.set_parameter('max_failures', 0).successful
        status = feed_until(
            client, 1.0, node_status(client, 'out of data bounds', {'failures': 20}))
        assert status['restarts'] == '0'
        client.send(client.image(gray(0.5), 'mono8'))  # it is still active


def test_the_end_of_a_silence_is_logged(start: Start, toy: Path) -> None:
    with start(model_path=toy, no_input_warn_s=0.1) as client:
        client.wait_active()
        client.wait(lambda: 'camera: no image for' in client.log.read_text())
        assert client.set_parameter('no_input_warn_s', 3600.0).successful  # it stays "running"
        client.send(client.image(gray(0.5), 'mono8'))
        client.wait(lambda: 'camera: running' in client.log.read_text())


@pytest.mark.parametrize('harm', [
    lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:100]),
    lambda p: write_model(p, classes=('dog', 'cat', 'cow'))],
    ids=['removed', 'damaged', 'replaced'])
def test_the_running_model_outlives_its_file(
    start: Start, tmp_path: Path, harm: Callable[[Path], object],
) -> None:
    model = write_model(tmp_path / 'model.onnx')
    with start(model_path=model) as client:
        client.wait_active()
        harm(model)
        client.send(client.image(gray(0.5), 'mono8'))
        assert client.change_state('deactivate') and client.change_state('cleanup')
        if client.change_state('configure'):
            assert client.change_state('activate')
            client.wait(lambda: client.labels[-1].class_map[0].class_name == 'dog')
            assert client.infos[-1].database_version == 2
        else:
            assert client.status('model.onnx')['level'] == b'\x02'
            write_model(model)
            assert client.change_state('configure') and client.change_state('activate')
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
