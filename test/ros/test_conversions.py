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

"""Detection messages, also after serialization."""

import json
from pathlib import Path
import sys

from cgdet_core.errors import UserError
from cgdet_core.runtime import Detections, Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_ros.detection.stream import to_detection_array, to_label_info, to_vision_info
from cgdet_ros.tools.collector import from_message
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

ROOT = Path(__file__).resolve().parents[2]
CARD = detection_card('m', ('person', 'bicycle', 'car'), (640, 512), Normalization())


def header() -> Header:
    message = Header(frame_id='cam')
    message.stamp.sec, message.stamp.nanosec = 12, 34
    return message


def test_round_trip_over_the_wire() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (7, 2))
    boxes = np.hstack([corner, corner + rng.uniform(1, 300, (7, 2))]).astype(np.float32)
    sent = Detections(boxes, rng.uniform(0, 1, 7).astype(np.float32), rng.integers(0, 3, 7))
    message = deserialize_message(
        serialize_message(to_detection_array(sent, header())), Detection2DArray)
    assert message.header == header()
    assert all(d.header == header() and d.id == '' and d.bbox.center.theta == 0
               for d in message.detections)
    assert [d.results[0].hypothesis.class_id for d in message.detections] == [
        str(i) for i in sent.labels]
    back = from_message(message)
    np.testing.assert_allclose(back.boxes, sent.boxes, atol=1e-4)
    np.testing.assert_array_equal(back.scores, sent.scores)
    np.testing.assert_array_equal(back.labels, sent.labels)


def test_names_of_classes_are_not_read_as_numbers() -> None:
    sent = Detections(np.array([[1, 2, 3, 4]], np.float32), np.ones(1, np.float32), np.array([2]))
    message = to_detection_array(sent, header(), names=CARD.classes)
    with pytest.raises(UserError, match=r'\(car\); set the parameter class_names'):
        from_message(message)


def test_no_detections_are_an_empty_array_with_a_header() -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32),
                         np.zeros(0, np.int64))
    message = to_detection_array(nothing, header())
    assert message.header == header() and len(message.detections) == 0
    assert len(from_message(message)) == 0


def test_messages_of_a_pool_contain_nothing_of_the_previous_frame() -> None:
    rng, pool = np.random.default_rng(1), []
    for count in (5, 9, 2, 0, 9):
        boxes = np.cumsum(rng.uniform(1, 9, (count, 4)), 1, dtype=np.float32)
        sent = Detections(boxes, rng.uniform(0, 1, count).astype(np.float32),
                          rng.integers(0, 3, count))
        expected = to_detection_array(sent, header())
        assert to_detection_array(sent, header(), pool=pool) == expected
        assert len(expected.detections) == count
    assert len(pool) == 9


def test_label_and_vision_info() -> None:
    labels = to_label_info(CARD, 0.25, header())
    assert {c.class_id: c.class_name for c in labels.class_map} == {
        0: 'person', 1: 'bicycle', 2: 'car', 65535: 'unlabeled'}
    assert labels.threshold == pytest.approx(0.25)
    info = to_vision_info(CARD, '/n/label_info', 3, header())
    assert (info.method, info.database_location, info.database_version) == (
        'm', '/n/label_info', 3)


def test_generated_vision_msgs_have_the_real_type_hashes() -> None:
    folder = Path(sys.prefix) / 'share' / 'vision_msgs' / 'msg'
    if not folder.is_dir():
        pytest.skip('vision_msgs comes from the ROS distribution here')
    expected = json.loads((ROOT / 'dev' / 'vision_msgs' / 'type_hashes.json').read_text())
    found = {}
    for path in folder.glob('*.json'):
        for entry in json.loads(path.read_text())['type_hashes']:
            if entry['type_name'] in expected:
                found[entry['type_name']] = entry['hash_string']
    assert found == expected
