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

"""The node in a process of its own, over real DDS."""

from collections.abc import Callable
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.backends.tensorrt import check_device
from cgdet_ros.collector import from_message
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ros
Start = Callable[..., object]


@pytest.fixture(scope='module')
def frame() -> np.ndarray:
    """Give a 16-bit frame of another size than the model's input."""
    return to_counts(Scene.random(3, 200, 150).render()[0])


def test_detects_in_every_encoding(start: Start, onnx_model: Path, frame: np.ndarray) -> None:
    expected = Detector.load(onnx_model).detect(frame, 0.01)
    gray = np.clip((frame.astype(int) - 26000) // 20, 0, 255).astype(np.uint8)
    expected_gray = Detector.load(onnx_model).detect(gray, 0.01)
    assert len(expected) and len(expected_gray)
    padded = np.zeros((150, 220), np.uint16)
    padded[:, :200] = frame
    with start(model_path=onnx_model, score_threshold=0.01) as client:
        client.wait_active()
        for message, wanted in (
                (client.image(frame, 'mono16'), expected),
                (client.image(frame, '16UC1'), expected),
                (client.image(padded, 'mono16', width=200), expected),
                (client.image(frame.byteswap(), 'mono16', is_bigendian=1), expected),
                (client.image(gray, 'mono8'), expected_gray),
                (client.image(gray, '8UC1'), expected_gray)):
            found = client.send(message)
            assert found.header == message.header
            assert all(d.header == message.header for d in found.detections)
            boxes = from_message(found)
            np.testing.assert_allclose(boxes.boxes, wanted.boxes, atol=0.01)
            np.testing.assert_allclose(boxes.scores, wanted.scores, atol=1e-4)
            np.testing.assert_array_equal(boxes.labels, wanted.labels)
            assert (boxes.boxes <= [200, 150, 200, 150]).all() and (boxes.boxes >= 0).all()
        # Both infos are latched: this client subscribed before or after, and has one of each.
        assert [c.class_name for c in client.labels[0].class_map] == [
            'person', 'bicycle', 'car', 'unlabeled']
        assert client.infos[0].database_location == '/thermal_detector/label_info'


def test_bad_images_are_reported_and_the_next_good_one_detected(
    start: Start, onnx_model: Path, frame: np.ndarray,
) -> None:
    with start(model_path=onnx_model, score_threshold=0.01) as client:
        client.wait_active()
        before = from_message(client.send(client.image(frame, 'mono16')))
        kelvin = np.full((20, 20), np.nan, np.float32)
        bad = (
            (client.image(frame, 'yuv422'), 'not supported'),
            (client.image(frame, 'mono16', data=b'\1\2\3'), 'truncated'),
            (client.image(frame, 'mono16', step=100), 'step'),
            (client.image(frame, 'mono16', height=0), 'empty'),
            (client.image(kelvin, '32FC1'), 'NaN'),
        )
        for number, (message, words) in enumerate(bad, 1):
            client.images.publish(message)
            status = client.wait(lambda n=number: next(
                (s for s in client.statuses if s.get('failed') == str(n)), None))
            assert status['level'] == b'\x02' and words in status['message']
        after = from_message(client.send(client.image(frame, 'mono16')))
        np.testing.assert_array_equal(before.boxes, after.boxes)
        recovered = client.wait(lambda: next(
            (s for s in client.statuses if s.get('processed') == '2'), None))
        assert recovered['level'] == b'\x00' and recovered['failed'] == '5'
        assert len(client.detections) == 2


def test_an_empty_frame_still_gives_an_output(
    start: Start, onnx_model: Path, frame: np.ndarray,
) -> None:
    with start(model_path=onnx_model, score_threshold=1.0) as client:
        client.wait_active()
        found = client.send(client.image(frame, 'mono16'))
        assert len(found.detections) == 0 and found.header.frame_id == 'thermal_optical'


def test_the_newest_frame_wins(start: Start, onnx_model: Path) -> None:
    large = to_counts(Scene.random(1).render()[0])
    with start(model_path=onnx_model) as client:
        client.wait_active()
        # Together they fit into the transport's segment: DDS itself loses none.
        messages = [client.image(large, 'mono16') for _ in range(12)]
        for message in messages:
            client.images.publish(message)
        client.wait(lambda: any(
            d.header.stamp == messages[-1].header.stamp for d in client.detections))
        stamps = [d.header.stamp.sec for d in client.detections]
        assert stamps == sorted(set(stamps)), 'one output a frame, in order'
        status = client.wait(lambda: next(
            (s for s in client.statuses if s.get('processed') == str(len(stamps))), None))
        assert int(status['received']) == int(status['processed']) + int(status['dropped'])


def test_lifecycle_to_the_letter(start: Start, onnx_model: Path, frame: np.ndarray) -> None:
    with start(model_path=onnx_model, autostart=False) as client:
        assert client.state() == 'unconfigured'
        assert not client.labels
        assert client.change_state('configure') and client.state() == 'inactive'
        client.images.publish(client.image(frame, 'mono16'))
        client.spin(0.5)
        assert not client.detections
        for _ in range(2):  # twice: subscribing again must work
            assert client.change_state('activate') and client.state() == 'active'
            client.wait_active()
            count = len(client.detections)
            client.send(client.image(frame, 'mono16'))
            assert len(client.detections) == count + 1
            assert client.change_state('deactivate') and client.state() == 'inactive'
            client.wait(lambda: not client.images.get_subscription_count())
        assert client.change_state('cleanup') and client.state() == 'unconfigured'
        assert client.change_state('configure') and client.change_state('activate')
        assert client.change_state('shutdown') and client.state() == 'finalized'


def test_shutdown_from_unconfigured(start: Start, onnx_model: Path) -> None:
    with start(model_path=onnx_model, autostart=False) as client:
        assert client.change_state('shutdown')
        assert client.state() == 'finalized'


def test_a_wrong_model_is_reported_and_can_be_replaced(
    start: Start, onnx_model: Path, frame: np.ndarray, tmp_path: Path,
) -> None:
    lonely = Path(shutil.copy(onnx_model, tmp_path / 'lonely.onnx'))
    with start(model_path=tmp_path / 'no.onnx') as client:
        status = client.wait(lambda: next(
            (s for s in client.statuses if s['level'] == b'\x02'), None))
        assert 'no.onnx does not exist' in status['message']
        assert client.state() == 'unconfigured'
        assert client.set_parameter('model_path', str(lonely)).successful
        assert not client.change_state('configure')
        status = client.wait(lambda: next(
            (s for s in client.statuses if 'no card' in s['message']), None))
        assert client.set_parameter('model_path', str(onnx_model)).successful
        assert client.change_state('configure') and client.change_state('activate')
        client.wait_active()
        client.send(client.image(frame, 'mono16'))
        refused = client.set_parameter('model_path', 'other.onnx')
        assert not refused.successful and 'clean the node up' in refused.reason


def test_parameters_change_while_running(
    start: Start, onnx_model: Path, frame: np.ndarray,
) -> None:
    with start(model_path=onnx_model, score_threshold=0.0) as client:
        client.wait_active()
        many = len(client.send(client.image(frame, 'mono16')).detections)
        assert client.set_parameter('score_threshold', 1.0).successful
        client.wait(lambda: client.labels[-1].threshold == 1.0)  # the latched one follows
        assert len(client.send(client.image(frame, 'mono16')).detections) == 0
        assert client.set_parameter('score_threshold', 0.0).successful
        assert len(client.send(client.image(frame, 'mono16')).detections) == many
        for name, value in (('score_threshold', 1.5), ('score_threshold', -0.5),
                            ('score_threshold', 'high'), ('no_input_warn_s', -1.0),
                            ('autostart', False), ('backend', 'openvino')):
            result = client.set_parameter(name, value)
            assert not result.successful and result.reason
        assert client.set_parameter('max_image_age_s', 1.0).successful
        client.images.publish(client.image(frame, 'mono16'))  # a stamp of 1970
        client.wait(lambda: any(
            s.get('dropped') == '1' and s['level'] == b'\x01' and 'too old' in s['message']
            for s in client.statuses))


def test_the_backend_can_be_chosen_and_says_what_it_lacks(
    start: Start, onnx_model: Path,
) -> None:
    try:
        check_device('tensorrt')
        pytest.skip('TensorRT runs here')
    except UserError as error:
        words = str(error)
    with start(model_path=onnx_model, backend='tensorrt') as client:
        status = client.wait(lambda: next(
            (s for s in client.statuses if s['level'] == b'\x02'), None))
        assert status['message'].endswith(words) and client.state() == 'unconfigured'
        assert client.set_parameter('backend', 'auto').successful
        assert client.change_state('configure')
        assert 'Inference by' in client.log.read_text()
        refused = client.set_parameter('backend', 'onnxruntime')
        assert not refused.successful and 'clean the node up' in refused.reason


def test_silence_is_a_warning(start: Start, onnx_model: Path) -> None:
    with start(model_path=onnx_model, no_input_warn_s=0.5) as client:
        status = client.wait(lambda: next(
            (s for s in client.statuses if s['level'] == b'\x01'), None))
        assert 'no image for' in status['message'] and status['state'] == 'active'


@pytest.mark.parametrize(('name', 'value'), [
    ('score_threshold', '1'), ('score_threshold', '-0.5'), ('score_threshold', '2.0'),
    ('score_threshold', 'high'), ('backend', 'openvino')])
def test_a_wrong_parameter_at_start_is_one_sentence(domain: int, name: str, value: str) -> None:
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.detector_node', '--ros-args', '-p',
         f'{name}:={value}'], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1 and name in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_impatient_second_ctrl_c_does_no_harm(start: Start, onnx_model: Path) -> None:
    with start(model_path=onnx_model) as client:
        client.wait_active()
        client.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        client.process.send_signal(signal.SIGINT)
        # `start` checks the exit status and that there is no traceback.
        client.process.wait(20)


def test_ctrl_c_while_images_stream_is_quiet(
    start: Start, onnx_model: Path, frame: np.ndarray,
) -> None:
    with start(model_path=onnx_model) as client:
        client.wait_active()
        client.send(client.image(frame, 'mono16'))
        client.process.send_signal(signal.SIGINT)
        while client.process.poll() is None:
            client.images.publish(client.image(frame, 'mono16'))
            client.spin(0.002)
        assert 'image skipped' not in client.log.read_text()


def test_a_failing_activation_is_reported(start: Start, onnx_model: Path) -> None:
    overrides = {'qos_overrides./image_raw.subscription.depth': 'deep'}
    with start(model_path=onnx_model, **overrides) as client:
        client.wait(lambda: any(s['level'] == b'\x02' for s in client.statuses))
        assert client.state() == 'inactive'
