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

"""Compressed and color images, crops, debug images, track ids."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from cgdet_core.runtime import DetectionCard, Detections, load_card
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_ros.detection.parameters import ModelSettings
from cgdet_ros.detection.stream import Stream
from cgdet_ros.node.image_input import Handover
from cgdet_ros.tools.collector import from_message
import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from toy_models import BOXES, gray

pytestmark = pytest.mark.ros
Start = Callable[..., object]


def boxes(message: Any) -> np.ndarray:
    return from_message(message).boxes


def compressed(client: Any, frame: np.ndarray, suffix: str) -> Any:
    """Return a sensor_msgs/CompressedImage with a unique stamp."""
    good, data = cv2.imencode(suffix, frame)
    assert good
    kind = 'png' if suffix == '.png' else 'jpeg'
    return CompressedImage(header=client.image(frame, 'mono8').header, data=data.tobytes(),
                           format=f'{"mono16" if frame.dtype == np.uint16 else "mono8"}; {kind}')


def test_compressed_images(start: Start, toy: Path) -> None:
    frame = gray(0.4)
    with start(model_path=toy) as client:
        client.wait_active()
        expected = boxes(client.send(client.image(frame, 'mono8')))
    with start(model_path=toy, input_transport='compressed') as client:
        images = client.node.create_publisher(CompressedImage, 'image_raw/compressed', 10)
        client.wait(lambda: client.labels and images.get_subscription_count())
        assert not client.images.get_subscription_count()
        client.images = client.cameras[''].images = images
        for suffix in ('.png', '.jpg'):
            found = client.send(compressed(client, frame, suffix))
            np.testing.assert_allclose(boxes(found), expected, atol=0.5)
        message = compressed(client, frame, '.png')
        message.data = message.data[:len(message.data) // 2]
        images.publish(message)
        client.status('truncated', failed='1')
        found = client.send(compressed(client, frame.astype(np.uint16) * 257, '.png'))
        np.testing.assert_allclose(boxes(found), expected, atol=0.5)
        client.status('running', encoding='mono16; png')
        refused = client.set_parameter('input_transport', 'raw')
        assert not refused.successful and 'clean the node up' in refused.reason


def test_a_palette_is_reported_once(start: Start, toy: Path, cv_bridge: None) -> None:
    frame = gray(0.4)
    with start(model_path=toy) as client:
        client.wait_active()
        expected = boxes(client.send(client.image(frame, 'mono8')))
        plain = np.repeat(frame[..., None], 3, 2)
        np.testing.assert_allclose(
            boxes(client.send(client.image(plain, 'bgr8'))), expected, atol=0.5)
        assert 'in color' not in client.log.read_text()
        palette = cv2.applyColorMap(frame, cv2.COLORMAP_JET)
        for _ in range(3):
            assert len(boxes(client.send(client.image(palette, 'bgr8')))) == len(expected)
        assert client.log.read_text().count('in color (bgr8)') == 1


def test_with_a_crop_boxes_are_in_pixels_of_the_received_image(start: Start, toy: Path) -> None:
    frame = gray(0.4)
    rows, columns = 3, 5
    received = cv2.copyMakeBorder(
        frame, rows, 0, columns, 2, cv2.BORDER_CONSTANT, value=255)
    with start(model_path=toy, crop_top=rows) as client:
        client.wait_active()
        assert client.set_parameter('crop_left', columns).successful
        assert client.set_parameter('crop_right', 2).successful
        found = boxes(client.send(client.image(received, 'mono8')))
        assert client.set_parameter('crop_top', 0).successful
        assert client.set_parameter('crop_left', 0).successful
        assert client.set_parameter('crop_right', 0).successful
        plain = boxes(client.send(client.image(frame, 'mono8')))
        np.testing.assert_allclose(
            found, plain + [columns, rows, columns, rows], atol=1e-3)
        assert not client.set_parameter('crop_top', -1).successful
        assert client.set_parameter('crop_top', 60000).successful
        client.images.publish(client.image(frame, 'mono8'))
        client.status('leaves nothing', failed='1')


def test_debug_image_and_annotations_are_sent_to_subscribers(start: Start, toy: Path) -> None:
    pictures: list[Any] = []
    annotations: list[Any] = []
    with start(model_path=toy) as client:
        client.wait_active()
        client.send(client.image(gray(0.4), 'mono8'))
        subscription = client.node.create_subscription(Image, 'debug_image', pictures.append, 10)
        try:
            from foxglove_msgs.msg import ImageAnnotations
            client.node.create_subscription(
                ImageAnnotations, 'annotations', annotations.append, 10)
        except ImportError:
            annotations = None
        sent: dict[int, Any] = {}  # by stamp
        found: dict[int, Any] = {}

        def seen() -> bool:
            """Send images until the node has discovered the subscriptions."""
            message = client.image(gray(0.4), 'mono8')
            sent[message.header.stamp.sec] = message
            found[message.header.stamp.sec] = client.send(message)
            return bool(pictures) and (annotations is None or bool(annotations))

        client.wait(seen)
        picture = pictures[-1]
        message = sent[picture.header.stamp.sec]
        assert picture.header == message.header and picture.encoding == 'bgr8'
        assert (picture.width, picture.height) == (message.width, message.height)
        pixels = np.frombuffer(picture.data, np.uint8).reshape(picture.height, picture.width, 3)
        assert np.ptp(pixels.astype(int), axis=2).any(), 'colored boxes'
        if annotations is not None:
            stamp = annotations[-1].points[0].timestamp
            assert stamp == sent[stamp.sec].header.stamp
            assert len(annotations[-1].points) == len(found[stamp.sec].detections)
        assert client.set_parameter('debug_image', False).successful
        later = [client.send(client.image(gray(0.4), 'mono8')).header for _ in range(3)]
        client.status('running', of='camera')
        assert not [picture for picture in pictures if picture.header in later]
        client.node.destroy_subscription(subscription)


def test_ids_stay_with_the_objects(start: Start, toy: Path) -> None:
    with start(model_path=toy, track=True) as client:
        client.wait_active()

        def ids(seconds: float) -> list[str]:
            message = client.image(gray(0.4), 'mono8')
            message.header.stamp.sec = int(seconds)
            message.header.stamp.nanosec = round(seconds % 1 * 1e9)
            return [d.id for d in client.send(message).detections]

        history = [ids(100 + 0.1 * i) for i in range(8)]
        assert history[0] == [''] * len(BOXES)
        assert len(set(history[-1])) == len(BOXES) and all(history[-1])
        assert history[-1] == history[-2] == history[-3]
        later = [ids(50 + 0.1 * i) for i in range(8)]  # a bag that starts again
        assert later[0] == [''] * len(BOXES)
        assert all(later[-1]) and not set(later[-1]) & set(history[-1])


@pytest.mark.parametrize('stamps', ['all', 'none', 'constant', 'all but one'])
def test_ids_stay_with_an_object_that_was_hidden(create_node: Any, toy: Path, stamps: str) -> None:
    """It is for half a second at 30 Hz, also without stamps or if one is missing."""
    node = create_node('ids')
    stream = Stream(node, '', Handover(), load_card(toy, DetectionCard), ModelSettings(
        str(toy), 'auto', 1, 'raw', True, 1.0, False, ('',), 'card', 'white_hot', ''))
    there = Detections(np.array([[9, 9, 30, 50]], np.float32), np.ones(1, np.float32),
                       np.zeros(1, np.int64))
    nothing = Detections(there.boxes[:0], there.scores[:0], there.labels[:0])
    ids = []
    for number in range(90):
        header = Header()
        if stamps == 'all' or (stamps == 'all but one' and number != 75):
            header.stamp.sec, header.stamp.nanosec = 100 + number // 30, number % 30 * 33333333
        elif stamps == 'constant':
            header.stamp.sec = 100
        ids += stream.publish(nothing if 40 <= number < 55 else there, header, 7 + number / 30)
    assert ids[5] and set(ids[5:]) == {ids[5]}
    stream.destroy()


def test_without_a_tracker_there_are_no_ids(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        for _ in range(4):
            found = client.send(client.image(gray(0.4), 'mono8'))
        assert [d.id for d in found.detections] == [''] * len(BOXES)


def test_a_debug_image_that_fails_does_not_fail_its_image(create_node: Any, toy: Path) -> None:
    node = create_node('picture')
    card = load_card(toy, DetectionCard)
    stream = Stream(node, '', Handover(), card, ModelSettings(
        str(toy), 'auto', 1, 'raw', False, 1.0, False, ('',), 'card', 'white_hot', ''))
    node.create_subscription(Image, 'debug_image', lambda _: None, 10)
    end = monotonic() + 120
    while not stream.overlay._debug_image.get_subscription_count():
        assert monotonic() < end
        sleep(0.01)
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    frame = np.zeros((2, 2, 2, 2))
    with pytest.raises(ValueError, match='dimensions|shape|unpack'):
        draw_detections(frame, nothing, card)
    stream.overlay.draw(nothing, frame, Header(), [])
    kind, = stream.input.log._quiet_until
    assert kind.startswith('no debug_image: ')
    assert stream.input.statistics.failed == 0
    stream.destroy()
