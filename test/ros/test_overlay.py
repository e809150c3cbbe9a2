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

"""The messages of debug image and annotations, also after serialization."""

import json
from pathlib import Path
import sys
from typing import Any

from cgdet_core.runtime import Detections, Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.imaging.drawing import COLORS
from cgdet_core.runtime.imaging.message import view_pixels
from cgdet_ros.detection.overlay import annotations_type, Overlay, to_annotations
from cgdet_ros.node.logs import CameraLog
from cgdet_ros.node.pictures import to_debug_image
from cgdet_ros.node.services import RCLError
from cgdet_ros.node.topics import Publishers
import numpy as np
import pytest
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ('person', 'bicycle', 'car')
FOUND = Detections(np.array([[10, 20, 50, 60], [0, 0, 8, 9]], np.float32),
                   np.array([0.9, 0.5], np.float32), np.array([2, 0]))
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32),
                     np.zeros(0, np.int64))


@pytest.fixture
def header() -> Header:
    """Return the header of an image."""
    message = Header(frame_id='cam')
    message.stamp.sec, message.stamp.nanosec = 12, 34
    return message


@pytest.fixture
def needs_foxglove() -> None:
    """Skip the test if foxglove_msgs is missing."""
    if annotations_type() is None:
        pytest.skip('foxglove_msgs is not installed')


def test_the_debug_image_is_the_picture(header: Header) -> None:
    card = detection_card('m', CLASSES, (64, 64), Normalization('none'))
    picture = draw_detections(np.zeros((64, 80), np.uint16), FOUND, card, ids=('7', ''))
    message = deserialize_message(serialize_message(to_debug_image(picture, header)), Image)
    assert message.header == header and message.encoding == 'bgr8' and message.step == 240
    np.testing.assert_array_equal(view_pixels(message), picture)
    assert tuple(picture[40, 10]) == COLORS[2] and tuple(picture[5, 8]) == COLORS[0]


def test_a_noncontiguous_picture_is_sent_unchanged(header: Header) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        view_pixels(to_debug_image(picture[2:18, 5:20], header)), picture[2:18, 5:20])


def test_annotations_outline_and_name_each_detection(
    needs_foxglove: None, header: Header,
) -> None:
    kind = annotations_type()
    sent = to_annotations(FOUND, CLASSES, header, ('7', ''))
    message = deserialize_message(serialize_message(sent), kind)
    assert [t.text for t in message.texts] == ['car 0.90 #7', 'person 0.50']
    outline = message.points[0]
    assert outline.type == outline.LINE_LOOP == 2
    assert [(p.x, p.y) for p in outline.points] == [(10, 20), (50, 20), (50, 60), (10, 60)]
    assert outline.outline_color.b == pytest.approx(COLORS[2][0] / 255)
    assert outline.outline_color.a == 1 and outline.fill_color.a == 0
    assert all(a.timestamp == header.stamp for a in [*message.points, *message.texts])
    assert message.timestamp == header.stamp
    assert (message.texts[0].position.x, message.texts[0].position.y) == (10, 20)
    assert message.texts[1].position.y == message.texts[1].font_size  # not above the image


def test_no_detections_clear_the_annotations(needs_foxglove: None, header: Header) -> None:
    message = to_annotations(NOTHING, CLASSES, header)
    assert len(message.points) == len(message.texts) == 0 and message.timestamp == header.stamp


def test_a_missing_package_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'foxglove_msgs.msg', None)
    assert annotations_type.__wrapped__() is None


def test_generated_foxglove_msgs_have_the_real_type_hashes() -> None:
    folder = Path(sys.prefix) / 'share' / 'foxglove_msgs' / 'msg'
    if not folder.is_dir():
        pytest.skip('foxglove_msgs was not generated here')
    file = ROOT / 'dev' / 'foxglove_msgs' / 'type_hashes.json'
    for name, expected in json.loads(file.read_text()).items():
        entries = json.loads((folder / f'{name.split("/")[-1]}.json').read_text())['type_hashes']
        assert {e['type_name']: e['hash_string'] for e in entries}[name] == expected


def test_a_policy_without_annotations_leaves_the_rest(
    needs_foxglove: None, create_node: Any, capfd: pytest.CaptureFixture[str],
) -> None:
    class Denied(Publishers):
        """Publishers under a security policy that lacks one topic."""

        def create(self, kind: type, topic: str, qos: QoSProfile) -> Publisher:
            if topic == 'annotations':
                raise RCLError('the topic is not allowed')
            return super().create(kind, topic, qos)

    node = create_node('denied')
    card = detection_card('m', CLASSES, (64, 64), Normalization('none'))
    overlay = Overlay(Denied(node, ''), card, CameraLog(node, ''))
    overlay.annotate(FOUND, Header(), ('', ''))
    assert node.count_publishers('debug_image') and not node.count_publishers('annotations')
    assert 'no annotations: the topic is not allowed' in ''.join(capfd.readouterr())
