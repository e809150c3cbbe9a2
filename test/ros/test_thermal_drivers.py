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

"""The node with what each driver of a thermal camera publishes; see docs/cameras.md."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgdet_core.runtime import Detector, Normalization
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.imaging.signal import to_kelvin
from cgdet_core.runtime.inference.card import load_card, save_card
import cv2
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Bool
from toy_models import write_model

pytestmark = pytest.mark.ros
Start = Callable[..., Any]


def boxes(message: Any) -> np.ndarray:
    return np.array([[d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.size_x,
                      d.bbox.size_y] for d in message.detections])


def expected(model: Path, frame: np.ndarray) -> np.ndarray:
    """Return the boxes that the model finds in a frame, in the form of `boxes`."""
    found = Detector.load(model, 1, 'onnxruntime').detect(frame).boxes
    return np.hstack([(found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]])


def scene(width: int, height: int) -> np.ndarray:
    """Return temperatures between 280 and 305 K."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return 280 + 20 * x / width + 5 * y / height


@pytest.fixture
def model(tmp_path: Path) -> Callable[[Normalization], Path]:
    """Return a function that writes a toy model with a normalization."""
    def write(spec: Normalization) -> Path:
        path = write_model(tmp_path / 'toy.onnx')
        save_card(replace(load_card(path, DetectionCard), normalization=spec), path)
        return path
    return write


def test_boson_with_telemetry_rows(start: Start, toy: Path) -> None:
    """mono16, 640x514: the frame follows two rows of telemetry, which the crop removes."""
    counts = np.rint(100 * scene(640, 512)).astype(np.uint16)
    sent = np.vstack([np.full((2, 640), 65535, np.uint16), counts])
    with start(model_path=toy, crop_top=2) as client:
        client.wait_active()
        found = boxes(client.send(client.image(sent, 'mono16')))
        np.testing.assert_allclose(found, expected(toy, counts) + [0, 2, 0, 0], atol=0.01)
        assert client.set_parameter('crop_top', 0).successful  # what the crop is good for
        spoiled = boxes(client.send(client.image(sent, 'mono16')))
        assert np.abs(spoiled - found).max() > 0.3


def test_boson_with_ffc_status(start: Start, toy: Path) -> None:
    """16UC1 and a Bool per frame on <camera>/ffc_status, true while the shutter is closed."""
    counts = np.rint(100 * scene(64, 64)).astype(np.uint16)
    with start(cameras=('boson',), model_path=toy, ffc_topic='ffc_status',
               while_shutter_closed='skip') as client:
        client.wait_active()
        shutter = client.node.create_publisher(Bool, 'boson/ffc_status', 10)
        client.wait(shutter.get_subscription_count)
        client.send(client.image(counts, '16UC1'), 'boson')
        client.status('running', of='camera boson', shutter='open')

        def feed(closed: bool) -> Callable[[], Any]:
            def step() -> Any:
                shutter.publish(Bool(data=closed))
                client.cameras['boson'].images.publish(client.image(counts, '16UC1'))
                return client.statuses[-1]['shutter'] == (
                    'closed: boson/ffc_status' if closed else 'open')
            return step

        client.wait(feed(True))
        message = client.image(counts, '16UC1')
        client.cameras['boson'].images.publish(message)
        status = client.status('shutter closed', of='camera boson')
        assert status['level'] == b'\0' and status['shutter closed'] == '1'
        client.wait(feed(False))
        assert client.send(client.image(counts, '16UC1'), 'boson').detections
        assert not any(d.header.stamp == message.header.stamp for d in client.detections)


@pytest.mark.parametrize(('unit', 'encoding', 'size', 'topic', 'encode'), [
    ('optris', 'mono16', (382, 288), 'thermal_image',
     lambda k: np.rint(10 * (k - 273.15) + 1000).astype(np.uint16)),
    ('u10.6', 'mono16', (320, 240), '/seek/radiometric_raw',
     lambda k: np.rint(64 * (k - 273.15)).astype(np.uint16)),
    ('celsius', '32FC1', (320, 240), '/seek/radiometric_raw',
     lambda k: (k - 273.15).astype(np.float32))])
def test_temperatures_of_optris_and_seek(
    start: Start, model: Callable[[Normalization], Path], unit: str, encoding: str,
    size: tuple[int, int], topic: str, encode: Callable[[np.ndarray], np.ndarray],
) -> None:
    """A frame without frame_id on a topic of the driver's name, for a model of temperatures."""
    toy = model(Normalization('window'))
    raw = encode(scene(*size))
    program = ('-m', 'cgdet_ros.detector_node', '--ros-args', '-r', f'image_raw:={topic}')
    with start(model_path=toy, unit=unit, program=program) as client:
        depth = 1 if unit == 'optris' else 10
        images = client.node.create_publisher(Image, topic, QoSProfile(
            depth=depth, reliability=ReliabilityPolicy.RELIABLE))
        client.wait(lambda: client.labels and images.get_subscription_count())
        message = client.image(raw, encoding)
        message.header.frame_id = ''

        def answer() -> Any:  # the subscription is best effort: images may be lost at first
            images.publish(message)
            return client.detections

        client.wait(answer)
        found = boxes(client.detections[0])
        np.testing.assert_allclose(found, expected(toy, to_kelvin(raw, unit)), atol=1e-3)
        assert client.status(of='camera')['hardware'] == 'none'


def test_lepton(start: Start, toy: Path, cv_bridge: None) -> None:
    """rgb8, gray, black hot; the frame_id counts the frames."""
    gray = np.rint((scene(160, 120) - 280) * 10).astype(np.uint8)
    sent = np.dstack([255 - gray] * 3)
    with start(model_path=toy, polarity='black_hot', track=True) as client:
        client.wait_active()
        ids = set()
        for number in range(6):
            sent[0, 0] = number  # no frame of a sensor equals another one
            message = client.image(sent, 'rgb8')
            message.header.frame_id = str(number)
            found = client.send(message)
            np.testing.assert_allclose(boxes(found), expected(toy, gray), atol=0.3)
            ids |= {d.id for d in found.detections if d.id}
        assert len(ids) == len(found.detections)
        status = client.status('running', of='camera', processed='6', false_color='no')
        assert status['hardware'] == 'none'


def test_the_other_drivers(start: Start, toy: Path, cv_bridge: None) -> None:
    gray = np.rint((scene(640, 480) - 280) * 10).astype(np.uint8)
    band = 30000 + gray.astype(np.uint16)
    tyrian = cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_HSV), cv2.COLOR_BGR2RGB)
    yuv = np.full((*gray.shape, 2), 128, np.uint8)
    yuv[..., 1] = np.rint(16 + gray * (219 / 255))
    with start(model_path=toy) as client:
        client.wait_active()
        for pixels, encoding, frame in (
                (band, 'mono16', band),  # Spinnaker (A70, A700): counts in a narrow band
                (gray, 'mono8', gray),  # Seek, auto_scaled
                (np.dstack([gray] * 3), 'bgr8', gray),  # Hikvision through an RTSP node
                (yuv, 'yuv422', gray)):  # Optris, visible
            found = boxes(client.send(client.image(pixels, encoding)))
            np.testing.assert_allclose(found, expected(toy, frame), atol=0.3)
        client.status('running', of='camera', processed='4', false_color='no')
        client.send(client.image(tyrian, 'rgb8'))  # Seek wrapper, FLIR Boson palettes
        client.status('running', of='camera', processed='5', false_color='yes')
        assert client.log.read_text().count('is in color (rgb8)') == 1


def test_without_cv_bridge_the_status_says_what_to_do(
    start: Start, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / 'cv_bridge.py').write_text('raise ImportError("not here")')
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{Path(__file__).parents[2]}')
    gray = np.zeros((64, 64), np.uint8)
    with start(model_path=toy) as client:
        client.wait_active()
        client.images.publish(client.image(np.dstack([gray] * 3), 'bgr8'))
        client.status("encoding 'bgr8' requires cv_bridge, which is missing: install it",
                      of='camera', failed='1')
        assert client.send(client.image(gray, 'mono8')).detections


def test_a_frozen_camera_is_seen_without_a_topic(start: Start, toy: Path) -> None:
    rng = np.random.default_rng(0)

    def noise() -> np.ndarray:
        return rng.integers(20, 200, (64, 64)).astype(np.uint8)

    with start(model_path=toy, track=True) as client:
        client.wait_active()
        for _ in range(6):
            found = client.send(client.image(noise(), 'mono8'))
        assert all(d.id for d in found.detections)
        frozen = noise()

        def last() -> str:
            client.send(client.image(frozen, 'mono8'))
            return any(s.get('shutter') == 'closed: frozen' for s in client.statuses[-1:])

        client.wait(last)
        before = int(client.status(of='camera')['images of a closed shutter'])
        found = client.send(client.image(frozen, 'mono8'))
        assert found.detections and not any(d.id for d in found.detections)  # tracks coast
        status = client.status('', of='camera', images_of_a_closed_shutter=str(before + 1))
        assert status['shutter closed'] == '1'
        assert client.set_parameter('while_shutter_closed', 'skip').successful
        skipped = client.image(frozen, 'mono8')
        client.images.publish(skipped)
        client.status('', of='camera', images_of_a_closed_shutter=str(before + 2))
        assert client.send(client.image(noise(), 'mono8')).detections
        assert not any(d.header.stamp == skipped.header.stamp for d in client.detections)


@pytest.mark.parametrize(('parameter', 'value'), [
    ('unit', 'counts'), ('unit', 'fraction'), ('polarity', 'black_hot')])
def test_a_model_of_temperatures_refuses_other_pixels(
    start: Start, model: Callable[[Normalization], Path], parameter: str, value: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('MODEL_GATE', str(tmp_path / 'never'))  # it is not loaded before
    with start(model_path=model(Normalization('window')), **{parameter: value},
               program=[Path(__file__).parent / 'gated_node.py']) as client:
        client.status(f'{parameter} is {value}, but toy is normalized by temperature')
        client.wait_for_state('unconfigured')
