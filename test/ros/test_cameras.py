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

"""Several cameras in one node: separate topics, batches, and no effect on each other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_models import BOXES, gray, SHIFT, write_model

pytestmark = pytest.mark.ros
Start = Callable[..., object]
FRONT, REAR = 0.2, 0.8  # brightness


def corner(message: object) -> float:
    """Return the left side of the best box, which depends on the brightness of the frame."""
    box = message.detections[0].bbox
    return box.center.position.x - box.size_x / 2


def expected(level: float) -> float:
    return float(BOXES[0, 0] + SHIFT * round(level * 255) / 255)


@pytest.fixture(params=[1, 'n'], ids=['one by one', 'batched'])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_model(tmp_path / 'model.onnx', request.param)


def test_each_camera_has_its_own_detections(start: Start, model: Path) -> None:
    with start(cameras=('front', 'rear/left'), model_path=model) as client:
        client.wait_active()
        sent = {'front': [], 'rear/left': []}
        for _ in range(10):
            for camera, level in (('front', FRONT), ('rear/left', REAR)):
                message = client.image(gray(level), 'mono8')
                message.header.frame_id = camera
                client.cameras[camera].images.publish(message)
                sent[camera].append(message.header.stamp.sec)
            client.wait(lambda stamp=message.header.stamp: any(
                d.header.stamp == stamp for d in client.cameras['rear/left'].detections))
        for camera, level in (('front', FRONT), ('rear/left', REAR)):
            heard = client.cameras[camera].detections
            last = sent[camera][-1]
            client.wait(lambda h=heard, s=last: h and h[-1].header.stamp.sec == s)
            stamps = [m.header.stamp.sec for m in heard]
            assert stamps == sorted(set(stamps)) and set(stamps) <= set(sent[camera])
            for message in heard:
                assert message.header.frame_id == camera
                assert all(d.header == message.header for d in message.detections)
                assert corner(message) == pytest.approx(expected(level), abs=1e-3)
            client.status('running', of=f': camera {camera}', processed=str(len(heard)))
            infos = client.cameras[camera].infos
            assert infos[-1].database_location == f'/{camera}/label_info'


def test_a_bad_image_does_not_affect_other_cameras(start: Start, model: Path) -> None:
    with start(cameras=('front', 'rear'), model_path=model) as client:
        client.wait_active()
        for number in range(1, 4):
            client.cameras['front'].images.publish(
                client.image(gray(FRONT), 'mono8', data=b'\1'))
            found = client.send(client.image(gray(REAR), 'mono8'), 'rear')
            assert corner(found) == pytest.approx(expected(REAR), abs=1e-3)
            client.status('truncated', of='camera front', failed=str(number))
        client.status('running', of='camera rear', processed='3')
        found = client.send(client.image(gray(FRONT), 'mono8'), 'front')
        assert corner(found) == pytest.approx(expected(FRONT), abs=1e-3)


def test_a_silent_camera_does_not_block_others(start: Start, model: Path) -> None:
    with start(cameras=('front', 'rear'), model_path=model, no_input_warn_s=0.5) as client:
        client.wait_active()
        client.status('no image for', of='camera front')
        for _ in range(3):
            client.send(client.image(gray(REAR), 'mono8'), 'rear')
        assert not client.cameras['front'].detections
        client.send(client.image(gray(FRONT), 'mono8'), 'front')
        assert client.set_parameter('no_input_warn_s', 3600.0).successful
        client.status('running', of='camera front', processed='1')


def test_a_qos_override_applies_to_one_camera(start: Start, toy: Path) -> None:
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image
    override = {'qos_overrides./front/image_raw.subscription.reliability': 'reliable'}
    with start(cameras=('front', 'rear'), reliable=False, no_input_warn_s=0.5, model_path=toy,
               **override) as client:
        best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        for name, topics in client.cameras.items():
            client.node.destroy_publisher(topics.images)
            topics.images = client.node.create_publisher(
                Image, f'{name}/image_raw', best_effort)

        def feed() -> object:
            for topics in client.cameras.values():
                topics.images.publish(client.image(gray(REAR), 'mono8'))
            return client.cameras['rear'].detections

        client.wait(feed)
        client.status('no image for', of='camera front', received='0')


def test_qos_overrides_apply_to_publishers_and_ignored_ones_are_logged(
    start: Start, toy: Path,
) -> None:
    from rclpy.qos import ReliabilityPolicy
    overrides = {'qos_overrides./front/detections.publisher.reliability': 'best_effort',
                 'qos_overrides./front/label_info.publisher.reliability': 'best_effort',
                 'qos_overrides./detections.publisher.depth': 3,
                 'qos_overrides./front/detections.publisher.durability': 'transient_local'}

    def reliability(topic: str) -> list[object]:
        return [e.qos_profile.reliability for e in client.node.get_publishers_info_by_topic(topic)
                if e.node_name == 'thermal_detector']

    with start(cameras=('front', 'rear'), model_path=toy, autostart=False, **overrides) as client:
        assert client.change_state('configure')
        for _ in range(2):
            assert client.change_state('activate')
            # label_info and vision_info have equal profiles, and so have the cameras.
            for topic, expected in (('front/detections', ReliabilityPolicy.BEST_EFFORT),
                                    ('front/label_info', ReliabilityPolicy.BEST_EFFORT),
                                    ('rear/detections', ReliabilityPolicy.RELIABLE),
                                    ('rear/label_info', ReliabilityPolicy.RELIABLE),
                                    ('front/vision_info', ReliabilityPolicy.RELIABLE)):
                client.wait(lambda t=topic, e=expected: reliability(t) == [e])
            assert client.change_state('deactivate')
            assert client.change_state('cleanup') and client.change_state('configure')
        ignored = [line for line in client.log.read_text().splitlines() if 'is ignored' in line]
        assert len(ignored) == 4 and all(
            '/detections.publisher.d' in line for line in ignored), ignored


def test_a_wrong_qos_override_of_a_publisher_leaves_no_topic_behind(
    start: Start, toy: Path,
) -> None:
    override = {'qos_overrides./debug_image.publisher.depth': 'deep'}
    with start(model_path=toy, **override) as client:
        status = client.error()
        assert 'qos_overrides./debug_image' in status['message']
        client.wait_for_state('unconfigured')
        client.wait(lambda: not client.node.count_publishers('detections'))


def test_cameras_change_with_the_next_configure(start: Start, toy: Path) -> None:
    with start(cameras=('front', 'rear'), model_path=toy, autostart=False) as client:
        result = client.set_parameter('cameras', ['front', 'front'])
        assert not result.successful and 'twice' in result.reason
        result = client.set_parameter('cameras', ['a b'])
        assert not result.successful and 'letters' in result.reason
        assert client.set_parameter('cameras', ['rear']).successful
        assert client.change_state('configure') and client.change_state('activate')
        client.wait(client.cameras['rear'].images.get_subscription_count)
        assert not client.cameras['front'].images.get_subscription_count()
        refused = client.set_parameter('cameras', ['front'])
        assert not refused.successful and 'clean the node up' in refused.reason
        np.testing.assert_equal(
            corner(client.send(client.image(gray(0.0), 'mono8'), 'rear')), BOXES[0, 0])
