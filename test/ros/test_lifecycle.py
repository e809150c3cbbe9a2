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

"""All transitions, errors, long loads, and shutdown."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

from lifecycle_msgs.msg import Transition
import pytest
from toy_models import gray, write_model

ROOT = Path(__file__).resolve().parents[2]
GATED = Path(__file__).with_name('gated_node.py')
pytestmark = pytest.mark.ros
Start = Callable[..., object]


def test_all_transitions_of_the_lifecycle(start: Start, toy: Path) -> None:
    with start(model_path=toy, autostart=False) as client:
        assert client.state() == 'unconfigured'
        assert not client.labels
        assert client.change_state('configure') and client.state() == 'inactive'
        client.images.publish(client.image(gray(0.5), 'mono8'))
        client.status('inactive')
        assert not client.detections
        for _ in range(2):  # twice: subscribing again must work
            assert client.change_state('activate') and client.state() == 'active'
            client.wait_active()
            count = len(client.detections)
            client.send(client.image(gray(0.5), 'mono8'))
            assert len(client.detections) == count + 1
            assert client.change_state('deactivate') and client.state() == 'inactive'
        assert client.change_state('cleanup') and client.state() == 'unconfigured'
        assert client.change_state('configure') and client.change_state('activate')
        assert client.change_state('shutdown') and client.state() == 'finalized'


def test_the_node_is_enabled_and_disabled_by_one_service(start: Start, toy: Path) -> None:
    SetBool = pytest.importorskip('std_srvs.srv').SetBool
    with start(model_path=toy, autostart=False) as client:
        client.wait(lambda: 'waits for a lifecycle manager' in client.log.read_text())
        enable = client.node.create_client(SetBool, '/thermal_detector/enable')
        client.wait(enable.service_is_ready)
        assert client.state() == 'unconfigured'

        def request(data: bool) -> tuple[bool, str]:
            future = enable.call_async(SetBool.Request(data=data))
            client.wait(future.done)
            return future.result().success, future.result().message

        assert request(False) == (True, 'the node is unconfigured')
        for _ in range(2):
            assert request(True) == (True, 'the node is active')
            client.wait_active()
            client.send(client.image(gray(0.5), 'mono8'))
            assert request(True) == (True, 'the node is active'), 'it is already'
            assert request(False) == (True, 'the node is inactive')
            client.wait(lambda: not client.images.get_subscription_count())
            assert 'toy' in client.status('inactive', of='detector')['model'], 'still loaded'
        assert client.change_state('shutdown')
        assert request(True) == (False, 'the node is finalized')


def test_enabling_a_node_whose_model_is_missing_says_why(start: Start, tmp_path: Path) -> None:
    SetBool = pytest.importorskip('std_srvs.srv').SetBool
    with start(model_path=tmp_path / 'missing.onnx', autostart=False) as client:
        enable = client.node.create_client(SetBool, '/thermal_detector/enable')
        client.wait(enable.service_is_ready)
        assert client.state() == 'unconfigured'
        future = enable.call_async(SetBool.Request(data=True))
        client.wait(future.done)
        assert not future.result().success and 'missing.onnx' in future.result().message


def test_shutdown_from_unconfigured(start: Start, toy: Path) -> None:
    with start(model_path=toy, autostart=False) as client:
        assert client.change_state('shutdown')
        assert client.state() == 'finalized'


def test_a_wrong_model_is_reported_and_can_be_replaced(
    start: Start, toy: Path, tmp_path: Path,
) -> None:
    lonely = Path(shutil.copy(toy, tmp_path / 'lonely.onnx'))
    with start(model_path=tmp_path / 'no.onnx') as client:
        status = client.error()
        assert 'no.onnx does not exist' in status['message']
        client.wait_for_state('unconfigured')
        assert client.set_parameter('model_path', str(lonely)).successful
        assert not client.change_state('configure')
        status = client.wait(lambda: next(
            (s for s in client.statuses if 'no card' in s['message']), None))
        assert client.set_parameter('model_path', str(toy)).successful
        assert client.change_state('configure') and client.change_state('activate')
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        refused = client.set_parameter('model_path', 'other.onnx')
        assert not refused.successful and 'clean the node up' in refused.reason


def test_a_model_may_be_below_the_home_of_the_user(
    start: Start, toy: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('HOME', str(toy.parent))
    with start(model_path=f'~/{toy.name}') as client:
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))


def test_an_inactive_node_does_not_listen_to_the_shutter(start: Start, toy: Path) -> None:
    with start(model_path=toy, ffc_topic='ffc') as client:
        for _ in range(2):
            client.wait_active()
            client.wait(lambda: client.node.count_subscribers('/ffc') == 1)
            assert client.change_state('deactivate')
            client.wait(lambda: client.node.count_subscribers('/ffc') == 0)
            assert client.change_state('activate')


def test_a_second_ctrl_c_is_ignored(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        client.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        client.process.send_signal(signal.SIGINT)
        # `start` checks the exit status and that there is no traceback.
        client.process.wait(120)


def test_ctrl_c_while_images_stream_is_quiet(
    start: Start, toy: Path,
) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        client.process.send_signal(signal.SIGINT)
        while client.process.poll() is None:
            client.images.publish(client.image(gray(0.5), 'mono8'))
            time.sleep(0.002)
        assert 'image skipped' not in client.log.read_text()


def test_a_transition_that_is_not_possible_is_refused(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP,
                           'activate', 'nonsense', 200):
            assert not client.change_state(transition) and client.state() == 'active'
        client.send(client.image(gray(0.5), 'mono8'))


def test_an_error_leads_to_unconfigured_and_back(start: Start, toy: Path) -> None:
    with start(model_path=toy, autostart=False) as client:
        # No file system accepts this name: the error is not a UserError.
        assert client.set_parameter('model_path', 'x' * 5000).successful
        assert not client.change_state('configure')
        assert client.status('File name too long')['level'] == b'\x02'
        assert client.state() == 'unconfigured'
        assert client.set_parameter('model_path', str(toy)).successful
        assert client.change_state('configure') and client.change_state('activate')
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        assert client.status('active', state='active')['level'] == b'\x00'


def test_a_shutter_topic_that_the_node_has_is_refused(start: Start, toy: Path) -> None:
    with start(cameras=('front', 'rear'), model_path=toy, ffc_topic='image_raw') as client:
        assert client.error()['message'] == (
            'ffc_topic front/image_raw is already a topic of this node, and not std_msgs/msg/Bool;'
            ' correct the parameter, or leave it empty so that the images are watched')
        client.wait_for_state('unconfigured')
        for topic, words in (('/rear/image_raw', 'ffc_topic /rear/image_raw is already'),
                             ('detections', 'ffc_topic front/detections is already'),
                             ('x' * 300, 'xxx: failed to resolve name')):
            assert client.set_parameter('ffc_topic', topic).successful
            assert not client.change_state('configure')
            client.status(words)
        assert client.set_parameter('ffc_topic', 'ffc').successful
        assert client.change_state('configure') and client.change_state('activate')


def test_a_failing_activation_is_reported(start: Start, toy: Path) -> None:
    with start(model_path=toy, use_sim_time=True, ffc_topic='/clock') as client:
        assert 'create subscription' in client.error()['message'], 'it has another type'
        client.wait_for_state('unconfigured')
        assert client.set_parameter('ffc_topic', '').successful
        assert client.change_state('configure') and client.change_state('activate')


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that GATED waits for before it loads its model."""
    monkeypatch.setenv('MODEL_GATE', str(tmp_path / 'gate'))
    return tmp_path / 'gate'


@pytest.mark.parametrize(('policy', 'value', 'wanted'), [
    ('image_raw.subscription.depth', 'deep', "from 0 to 2147483647, not 'deep'"),
    ('image_raw.subscription.depth', -1, 'from 0 to 2147483647, not -1'),
    ('image_raw.subscription.reliability', 'relyable', "not 'relyable'"),
    ('detections.publisher.history', 'unknown', "keep_last, keep_all, not 'unknown'")])
def test_a_wrong_qos_override_is_named_before_the_model_is_loaded(
    start: Start, toy: Path, gate: Path, policy: str, value: object, wanted: str,
) -> None:
    name = f'qos_overrides./{policy}'
    with start(program=[GATED], model_path=toy, reliable=False, **{name: value}) as client:
        message = client.error()['message']
        assert message.startswith(f'{name} must be ') and message.endswith(wanted)
        client.wait_for_state('unconfigured')


def test_a_long_load_does_not_block_services(start: Start, toy: Path, gate: Path) -> None:
    with start(program=[GATED], model_path=toy, autostart=False) as client:
        client.status('unconfigured')
        configured = client.request('configure')
        first = client.status('loading', state='loading')
        assert client.state() == 'configuring'
        assert client.set_parameter('score_threshold', 0.4).successful
        refused = client.set_parameter('model_path', 'other.onnx')
        assert not refused.successful and 'configuring' in refused.reason
        assert client.describe('score_threshold')[0].description
        later = client.wait(lambda: next((
            s for s in client.statuses if s.get('state') == 'loading'
            and int(s['elapsed s']) > int(first['elapsed s'])), None))
        assert later['level'] == b'\x00' and not configured.done()
        gate.touch()
        client.wait(configured.done)
        assert configured.result().success and client.change_state('activate')
        client.wait(lambda: client.labels)
        assert client.labels[-1].threshold == pytest.approx(0.4)


def test_shutdown_while_loading_waits_for_its_turn(start: Start, toy: Path, gate: Path) -> None:
    with start(program=[GATED], model_path=toy, autostart=False) as client:
        client.status('unconfigured')
        configured = client.request('configure')
        client.status('loading')
        finished = client.request('shutdown')
        assert client.state() == 'configuring' and not finished.done()
        gate.touch()
        client.wait(configured.done)
        client.wait(finished.done)
        assert configured.result().success and finished.result().success
        assert client.state() == 'finalized'


def test_ctrl_c_while_loading_is_quiet(start: Start, toy: Path, gate: Path) -> None:
    with start(program=[GATED], model_path=toy, autostart=False) as client:
        client.status('unconfigured')
        client.request('configure')
        client.status('loading')
        client.process.send_signal(signal.SIGINT)
        gate.touch()
        client.process.wait(120)
        assert 'ERROR' not in client.log.read_text()


def test_cleanup_frees_the_model_and_its_topics(start: Start, tmp_path: Path) -> None:
    weights = 200 * 2**20
    model = write_model(tmp_path / 'large.onnx', ballast=weights)
    with start(model_path=model, autostart=False) as client:
        empty = []
        for _ in range(4):
            assert client.change_state('configure') and client.change_state('activate')
            client.wait_active()
            client.send(client.image(gray(0.5), 'mono8'))
            loaded = client.resident()
            assert client.change_state('deactivate') and client.change_state('cleanup')
            client.wait(lambda: not client.node.count_publishers('detections'))
            empty.append(client.resident())
            # Libraries remain after the first round; a tenth of the weights is the tolerance.
            assert loaded - empty[-1] > 0.9 * weights, (loaded, empty)
        assert empty[-1] - empty[0] < 0.1 * weights, empty


@pytest.mark.parametrize('program', [('detector_node',), ('tools.play', 'bag')])
def test_no_folder_for_logs_is_one_sentence(
    domain: int, tmp_path: Path, program: tuple[str, ...],
) -> None:
    (tmp_path / 'file').touch()
    result = subprocess.run(
        [sys.executable, '-m', f'cgdet_ros.{program[0]}', *program[1:]], capture_output=True,
        text=True, cwd=ROOT, env={**os.environ, 'ROS_LOG_DIR': str(tmp_path / 'file' / 'log')})
    assert result.returncode == 1 and 'ROS_LOG_DIR' in result.stderr
    assert 'Traceback' not in result.stderr


def test_doctor_reports_that_there_is_no_folder_for_logs(domain: int, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.doctor.checks'], capture_output=True, text=True,
        cwd=ROOT, env={**os.environ, 'ROS_LOG_DIR': str(tmp_path / 'file' / 'log')})
    found = json.loads(result.stdout)
    assert result.returncode == 0 and found['level'] == 'FAIL'
    assert found['advice'] == 'set ROS_LOG_DIR to a writable folder'
