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

"""The tracker node follows what is requested, and publishes where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PointStamped
import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import String
from toy_models import write_model
from tracker_client import center, detection, frame, SIDE, SIZE
from vision_msgs.msg import Detection2DArray

pytestmark = pytest.mark.ros
Start = Callable[..., Any]
MIDDLE = SIZE[1] / 2
NEAR = 4.0  # pixels of the frame, of the toy's cells


def test_a_target_is_followed_with_its_id_and_class(track: Start) -> None:
    with track() as client:
        client.wait_active()
        message, targets = client.show(50)
        assert targets == [] and client.state_of(message) == [], 'one output also without targets'
        name = client.follow(50, class_id='person')
        assert name == 't1'
        for x in range(52, 90, 3):
            message, (target,) = client.show(x)
            assert center(target) == pytest.approx((x, MIDDLE), abs=NEAR)
            assert target.id == name and target.header == message.header
            hypothesis = target.results[0].hypothesis
            assert hypothesis.class_id == 'person' and 0.5 < hypothesis.score <= 1
            assert client.state_of(message) == [(name, 'tracked')]
        status = client.status('tracked', of='target t1')
        assert status['level'] == b'\0' and status['class id'] == 'person'
        assert status['hardware'] == 'thermal_optical' and status['box'] == 'seen'
        assert client.status('1 of 1 targets', of='targets')['started'] == '1'


def test_a_box_starts_on_the_image_of_its_stamp(track: Start) -> None:
    with track() as client:
        client.wait_active()
        old, _ = client.show(30)
        for x in range(34, 70, 4):
            client.show(x)
        client.start.publish(detection(30, MIDDLE, stamp=old.header.stamp))
        target, = client.started(70)
        assert center(target) == pytest.approx((70, MIDDLE), abs=NEAR)


def test_a_box_waits_for_the_image_of_its_stamp(track: Start) -> None:
    with track() as client:
        client.wait_active()
        client.show(90)
        later = client.image(frame(40), 'mono8')
        client.start.publish(detection(40, MIDDLE, stamp=later.header.stamp, name='walker'))
        client.wait_for(0.3)
        target, = client.send(later)
        assert target.id == 'walker' and center(target) == (40, MIDDLE)


def test_a_stamp_of_zero_is_the_newest_image(track: Start) -> None:
    with track() as client:
        client.wait_active()
        client.start.publish(detection(60, MIDDLE))
        target, = client.started(60)
        assert center(target) == pytest.approx((60, MIDDLE), abs=NEAR)


def point(x: float, y: float, stamp: Any = None) -> PointStamped:
    message = PointStamped()
    message.point.x, message.point.y = float(x), float(y)
    if stamp is not None:
        message.header.stamp = stamp
    return message


def test_a_point_is_a_detection_or_a_box_of_the_default_size(track: Start) -> None:
    with track(point_size_px=24.0, point_radius_px=15.0) as client:
        client.wait_active()
        message, _ = client.show(60)
        found = Detection2DArray(header=message.header, detections=[
            detection(60, MIDDLE, name='7', class_id='2'), detection(120, MIDDLE, name='8')])
        client.found.publish(found)
        client.wait_for(0.3)
        client.point.publish(point(75, MIDDLE, message.header.stamp))  # 5 pixels beside it
        target, = client.started(60)
        assert target.id == '7' and target.results[0].hypothesis.class_id == '2'
        assert client.stop().message == 'ended: 7'
        message, _ = client.show(60)
        client.point.publish(point(100, MIDDLE + 40, message.header.stamp))
        target, = client.started(60)
        assert target.id == 't1' and target.bbox.size_x == pytest.approx(24, abs=8)


def test_a_point_is_what_the_own_detector_finds_there(track: Start, tmp_path: Path) -> None:
    toy = write_model(tmp_path / 'toy.onnx')  # boxes of about 45 pixels from (5, 5) on
    with track(detector_model_path=toy) as client:
        client.wait_active()
        client.point.publish(point(30, 30))
        message = client.image(frame(30), 'mono8')
        target, = client.send(message)
        assert target.results[0].hypothesis.class_id == '0'
        assert (target.bbox.size_x, target.bbox.size_y) == pytest.approx((45, 45), abs=1)


def test_a_detection_is_followed_by_its_id(track: Start) -> None:
    with track() as client:
        client.wait_active()
        message, _ = client.show(60)
        client.found.publish(Detection2DArray(
            header=message.header, detections=[detection(60, MIDDLE, name='12', class_id='car')]))
        client.wait_for(0.3)
        client.show(63)
        client.follow_id.publish(String(data='12'))
        target, = client.started(66)
        assert target.id == '12' and target.results[0].hypothesis.class_id == 'car'
        assert center(target) == pytest.approx((66, MIDDLE), abs=NEAR)


def test_several_targets_have_ids_of_their_own(track: Start) -> None:
    with track(max_targets=2) as client:
        client.wait_active()
        assert client.follow(30, 110) == 't1'
        assert client.follow(110, 30) == 't2'
        for step in range(1, 6):
            message, (left, right) = client.show(30 + 2 * step, 110 - step)
            assert (left.id, right.id) == ('t1', 't2')
            assert center(left)[0] == pytest.approx(30 + 2 * step, abs=NEAR)
            assert center(right)[0] == pytest.approx(110 - step, abs=NEAR)
            assert client.state_of(message) == [('t1', 'tracked'), ('t2', 'tracked')]
        client.stop_id.publish(String(data='t1'))
        client.wait_for(0.3)
        _, (right,) = client.show(40, 105)
        assert right.id == 't2'
        assert client.follow(40, 105) == 't3', 'an id is not used again'
        client.stop_id.publish(String(data='t9'))
        client.refused("there is no target 't9'; the targets are t2, t3")
        assert client.stop().message == 'ended: t2, t3'
        assert client.show(40, 105)[1] == []
        assert client.stop().message == 'no target was followed'


def test_a_target_that_is_gone_is_lost_and_its_box_a_prediction(track: Start) -> None:
    with track() as client:
        client.wait_active()
        name = client.follow(80)
        for _ in range(40):
            message, (target,) = client.show()
            if client.state_of(message) == [(name, 'lost')]:
                break
        assert client.state_of(message) == [(name, 'lost')]
        assert target.id == name and target.results[0].hypothesis.score < 0.5
        status = client.status('lost', of='target t1')
        assert status['level'] == b'\x02' and status['box'] == 'prediction'
        assert 'target t1: lost' in client.log.read_text()
        for _ in range(20):
            message, (target,) = client.show(84)
            if client.state_of(message) == [(name, 'tracked')]:
                break
        assert target.id == name and center(target) == pytest.approx((84, MIDDLE), abs=NEAR)
        assert client.state_of(message) == [(name, 'tracked')], 'it is found again'


def show_at(client: Any, seconds: int, *xs: float) -> list[str]:
    """Show objects in an image of a stamp; return the states of the targets in it."""
    message, before = client.image(frame(*xs), 'mono8'), len(client.states)
    message.header.stamp.sec, message.header.stamp.nanosec = seconds, 0
    client.images.publish(message)
    client.wait(lambda: len(client.states) > before)
    return [s.message for s in client.states[-1].status]


@pytest.mark.parametrize('seconds', [0, 2 * 10**9])
def test_a_target_is_lost_also_if_stamps_stand_still(track: Start, seconds: int) -> None:
    with track() as client:
        client.wait_active()
        show_at(client, seconds, 60)
        client.start.publish(detection(60, MIDDLE))
        client.wait_for(0.3)
        for x in range(60, 80, 2):
            client.wait_for(0.1)
            states = show_at(client, seconds, x)
        assert states == ['tracked']
        for _ in range(40):
            client.wait_for(0.1)
            states = show_at(client, seconds)
        assert states == ['lost']


def test_an_image_without_a_stamp_among_others_ends_no_target(track: Start) -> None:
    with track() as client:
        client.wait_active()
        name = client.follow(60)
        assert show_at(client, 0, 60) == ['tracked']
        assert [target.id for target in client.show(62)[1]] == [name]


def test_a_black_hot_camera_is_seen_as_a_white_hot_one(track: Start) -> None:
    with track(polarity='black_hot', unit='counts') as client:
        client.wait_active()

        def shown(x: float) -> Any:
            counts = (255 - frame(x).astype(np.uint16)) * 257
            message = client.image(counts, 'mono16')
            return message, client.send(message)

        client.send(client.image(np.invert(frame(60)), 'mono8'))  # an 8-bit one, too
        message, _ = shown(60)
        client.start.publish(detection(60, MIDDLE, stamp=message.header.stamp))
        client.wait_for(0.3)
        for x in (62, 64):
            message, (target,) = shown(x)
        assert center(target) == pytest.approx((64, MIDDLE), abs=NEAR)
        assert client.state_of(message) == [('t1', 'tracked')]


def test_the_debug_image_shows_the_target(track: Start) -> None:
    with track() as client:
        client.wait_active()
        pictures: list[Image] = []
        client.node.create_subscription(
            Image, '/target_tracker/debug_image', pictures.append, 10)
        client.follow(80)
        client.wait(lambda: client.show(80) and pictures)
        picture = pictures[-1]
        assert picture.encoding == 'bgr8' and (picture.width, picture.height) == SIZE
        assert len(set(picture.data)) > 3 and SIDE < picture.width
