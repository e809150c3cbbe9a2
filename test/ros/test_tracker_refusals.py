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

"""What cannot be followed is refused with one sentence, and the tracker node goes on."""

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PointStamped
import numpy as np
import pytest
from std_msgs.msg import String
from tracker_client import center, detection, frame, SIZE
from vision_msgs.msg import Detection2D, Detection2DArray

pytestmark = pytest.mark.ros
Start = Callable[..., Any]
MIDDLE = SIZE[1] / 2


def test_wrong_starts_are_refused_and_the_node_follows_on(track: Start) -> None:
    with track(history_s=1.0) as client:
        client.wait_active()
        old, _ = client.show(60)
        for _ in range(15):
            client.show(60)
        ahead = detection(60, MIDDLE, stamp=old.header.stamp)
        ahead.header.stamp.sec += 1000
        for message, words in (
                (detection(60, MIDDLE, 0, 10), 'its box of 0 x 10 pixels has no area'),
                (detection(float('nan'), MIDDLE), 'is not a finite number'),
                (detection(500, 500), 'is outside of the frame of 160x128 pixels'),
                (detection(60, MIDDLE, stamp=old.header.stamp), 'the image of its stamp is gone'),
                (ahead, 'newer than the newest image'),
                (Detection2D(), 'has no area')):
            client.start.publish(message)
            client.wait_for(0.3)
            if message is ahead:
                client.wait_for(2.0)
            assert client.show(60)[1] == []
            status = client.refused(words)
            assert status['level'] == b'\x01' and words in status['last notice']
            assert '\n' not in status['message']
        name = client.follow(60)
        message, (target,) = client.show(62)
        assert target.id == name and client.state_of(message) == [(name, 'tracked')]


def test_a_start_beyond_max_targets_is_refused(track: Start) -> None:
    with track() as client:
        client.wait_active()
        name = client.follow(30, 110)
        client.start.publish(detection(110, MIDDLE, name='second'))
        client.wait_for(0.3)
        _, (target,) = client.show(30, 110)
        assert target.id == name
        client.refused('1 of 1 targets (max_targets) are followed already, t1: end one with')
        assert client.set_parameter('max_targets', 2).successful
        client.start.publish(detection(110, MIDDLE, name='second'))
        assert [t.id for t in client.started(30, 110, before=1)] == [name, 'second']
        client.start.publish(detection(110, MIDDLE, name='second'))
        client.wait_for(0.3)
        client.show(30, 110)
        client.refused('the target second is followed already')


def test_an_id_that_the_detector_does_not_know_is_refused(track: Start) -> None:
    with track() as client:
        client.wait_active()
        client.follow_id.publish(String(data='5'))
        client.wait_for(0.3)
        message, _ = client.show(60)
        client.refused('no detections have arrived')
        client.found.publish(Detection2DArray(
            header=message.header, detections=[detection(60, MIDDLE, name='4')]))
        client.wait_for(0.3)
        client.follow_id.publish(String(data='5'))
        client.wait_for(0.3)
        client.show(60)
        client.refused("the detector does not know the id '5' any more; its ids are 4")
        client.follow_id.publish(String(data='4'))
        assert client.started(60)[0].id == '4'


def test_points_and_boxes_outside_the_cropped_image_are_refused(track: Start) -> None:
    with track(crop_top=8) as client:
        client.wait_active()
        message = PointStamped()
        message.point.x, message.point.y = 60.0, 4.0  # in the cropped rows
        client.point.publish(message)
        client.wait_for(0.3)
        client.show(60)
        client.refused('the point (60, 4) is outside the image of 160x120 pixels; the image is '
                       'cropped, its first pixel is (0, 8)')
        client.start.publish(detection(60, 2, 10, 8))
        client.wait_for(0.3)
        client.show(60)
        client.refused('the box 55, -10, 65, -2 (x1, y1, x2, y2) is outside of the frame of '
                       '160x120 pixels; the image is cropped, its first pixel is (0, 8)')


def test_a_request_without_images_is_refused(track: Start) -> None:
    with track() as client:
        client.wait(lambda: client.start.get_subscription_count())
        client.start.publish(detection(60, MIDDLE))
        client.refused('no image was processed in time (1 waited)')


def test_boxes_are_in_pixels_of_the_received_image(track: Start) -> None:
    with track(crop_top=20, crop_left=10) as client:
        client.wait_active()
        client.follow(60)
        _, (target,) = client.show(63)
        assert center(target) == pytest.approx((63, MIDDLE), abs=4)


def test_another_size_or_crop_ends_the_targets(track: Start) -> None:
    with track() as client:
        client.wait_active()
        client.follow(60)
        assert client.send(client.image(frame(60, size=(128, 96)), 'mono8')) == []
        client.refused('the image now has 128x96 pixels, or is cropped otherwise, so these '
                       'targets ended: t1')
        client.show(60)
        client.follow(60)
        assert client.set_parameter('crop_left', 4).successful
        assert client.show(60)[1] == []
        assert client.follow(60) == 't3'


def test_stamps_that_go_back_end_the_targets(track: Start) -> None:
    with track() as client:
        client.wait_active()
        client.follow(60)
        client.nanoseconds -= 150_000_000  # images out of order
        assert len(client.show(60)[1]) == 1
        client.nanoseconds -= 100 * 10**9
        assert client.show(60)[1] == []
        client.refused('stamps went back by ')
        client.follow(60)


def test_images_without_stamps_are_followed_in_the_order_of_their_arrival(track: Start) -> None:
    with track() as client:
        client.wait_active()

        def unstamped(x: float) -> None:
            message = client.image(frame(x), 'mono8')
            message.header.stamp.sec = message.header.stamp.nanosec = 0
            client.images.publish(message)
            client.wait_for(0.1)

        unstamped(60)
        client.start.publish(detection(60, MIDDLE))
        client.wait_for(0.3)
        for x in (60, 62, 64):
            unstamped(x)
        client.wait(lambda: client.targets and abs(center(client.targets[-1])[0] - 64) < 4)


def test_a_bad_image_costs_only_itself(track: Start) -> None:
    with track() as client:
        client.wait_active()
        name = client.follow(60)
        message = client.image(frame(60), 'mono8')
        message.data = message.data[:100]
        client.images.publish(message)
        client.status('truncated', of='camera')
        _, (target,) = client.show(62)
        assert target.id == name
        kelvin = np.full((SIZE[1], SIZE[0]), np.nan, np.float32)
        client.images.publish(client.image(kelvin, '32FC1'))
        client.status('NaN', of='camera')
        assert client.show(63)[1][0].id == name
