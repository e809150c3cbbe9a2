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

"""An input counts what does not reach it, says why, bounds what it passes on, and logs by kind."""

from collections.abc import Callable
from typing import Any

from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_ros.node import logs
from cgdet_ros.node.image_input import Handover, ImageInput
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Empty

pytestmark = pytest.mark.ros
RELIABLE = 'qos_overrides./image_raw.subscription.reliability'


@pytest.fixture
def create(create_node: Any) -> Callable[..., Node]:
    def make(*arguments: str, **parameters: str) -> Node:
        return create_node(
            'camera_test', cli_args=['--ros-args', *arguments] if arguments else None,
            parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])

    return make


def spin_until(node: Node, condition: Callable[[], object]) -> None:
    for _ in range(2400):
        if condition():
            return
        rclpy.spin_once(node, timeout_sec=0.05)
    pytest.fail('the condition did not hold')


def float_image(dead: int = 0, frame_id: str = 'thermal') -> Image:
    frame = np.full((64, 64), 300, np.float32)
    frame.ravel()[:dead] = np.nan
    message = Image(height=64, width=64, encoding='32FC1', step=256, data=frame.tobytes())
    message.header.frame_id = frame_id
    return message


def test_what_was_sent_while_not_subscribed_is_not_lost(create: Callable[..., Node]) -> None:
    node = create(**{RELIABLE: 'reliable'})
    source = ImageInput(node, '', 'raw', Handover())
    publisher = node.create_publisher(Image, 'image_raw', 10)

    def receive() -> dict[str, str]:
        source.subscribe()
        spin_until(node, publisher.get_subscription_count)
        source.status('test', 60.0)  # sees that there is one publisher
        publisher.publish(float_image())
        spin_until(node, lambda: source.statistics.received)
        return {v.key: v.value for v in source.status('test', 60.0).values}

    assert receive()['lost'] == '0' and source._number is not None
    source.unsubscribe()
    spin_until(node, lambda: not publisher.get_subscription_count())
    for _ in range(5):
        publisher.publish(float_image())
    assert receive()['lost'] == '0'


def test_false_color_is_that_of_the_latest_image(
    create: Callable[..., Node], cv_bridge: None,
) -> None:
    source = ImageInput(create(), '', 'raw', Handover())
    palette = np.zeros((64, 64, 3), np.uint8)
    palette[..., 0] = np.arange(64)
    colored = Image(height=64, width=64, encoding='bgr8', step=192, data=palette.tobytes())
    gray = Image(height=64, width=64, encoding='mono8', step=64, data=palette[..., 0].tobytes())
    for message, expected in ((colored, True), (gray, False), (colored, True)):
        source.to_frame(message, Crop(), 0.1)
        assert source.statistics.false_color is expected


def test_images_that_the_reader_overwrites_are_counted(create: Callable[..., Node]) -> None:
    node = create(**{RELIABLE: 'reliable'})
    source = ImageInput(node, '', 'raw', Handover())
    source.subscribe()
    publisher = node.create_publisher(Image, 'image_raw', 10)
    statistics = source.statistics
    spin_until(node, publisher.get_subscription_count)

    def lost() -> str:
        return {v.key: v.value for v in source.status('test', 60.0).values}['lost']

    assert lost() == 'unknown'
    publisher.publish(float_image())
    spin_until(node, lambda: statistics.received == 1)
    assert lost() == '0'
    for _ in range(5):  # while the executor is busy
        publisher.publish(float_image())
    spin_until(node, lambda: statistics.received + (statistics.lost or 0) == 6)
    assert lost() == '4' and statistics.received == 2
    # The numbers of two publishers do not follow each other.
    other = node.create_publisher(Image, 'image_raw', 10)
    spin_until(node, lambda: other.get_subscription_count()
               and node.count_publishers('/image_raw') == 2)
    source.status('test', 60.0)
    other.publish(float_image())
    spin_until(node, lambda: statistics.received == 3)
    publisher.publish(float_image())
    spin_until(node, lambda: statistics.received == 4)
    assert lost() == '4'


def test_a_publisher_that_joins_is_no_loss(create: Callable[..., Node]) -> None:
    node = create(**{RELIABLE: 'reliable'})
    source = ImageInput(node, '', 'raw', Handover())
    source.subscribe()
    first = node.create_publisher(Image, 'image_raw', 10)
    statistics, wanted = source.statistics, [0]

    def receive(publisher: Publisher, count: int = 1) -> None:
        for _ in range(count):
            wanted.append(statistics.received + 1)
            publisher.publish(float_image())
            spin_until(node, lambda: statistics.received == wanted[-1])

    spin_until(node, first.get_subscription_count)
    source.status('test', 60.0)  # once a second, so that what follows is between two
    receive(first, 20)
    second = node.create_publisher(Image, 'image_raw', 10)
    spin_until(node, second.get_subscription_count)
    for publisher in (second, first, second, first):
        receive(publisher)
    assert statistics.lost == 0
    node.destroy_publisher(first)
    third = node.create_publisher(Image, 'image_raw', 10)
    spin_until(node, third.get_subscription_count)
    receive(second, 20)
    for publisher in (third, second):
        receive(publisher)
    node.destroy_publisher(third)
    spin_until(node, lambda: node.count_publishers('/image_raw') == 1)
    receive(second, 3)
    assert statistics.lost == 0 and statistics.received == 49
    source.status('test', 60.0)
    receive(second)
    for _ in range(4):  # while the executor is busy
        second.publish(float_image())
    spin_until(node, lambda: statistics.received + (statistics.lost or 0) == 54)
    assert statistics.lost == 3


def test_the_graph_shows_why_nothing_is_received(create: Callable[..., Node]) -> None:
    node = create(**{RELIABLE: 'reliable'})
    source = ImageInput(node, '', 'raw', Handover())
    source.subscribe()

    def message() -> str:
        return str(source.status('test', -1.0).message)

    assert message().endswith('on /image_raw: 0 publishers')
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = node.create_publisher(Image, 'image_raw', qos)
    spin_until(node, lambda: 'Best effort publisher and reliable subscription' in message())
    node.destroy_publisher(publisher)
    context = rclpy.Context()  # as another process: one participant has one type per topic
    context.init()
    other = rclpy.create_node('other', context=context)
    try:
        other.create_publisher(Empty, 'image_raw', 10)
        spin_until(node, lambda: message().endswith(
            '1 publisher, of std_msgs/msg/Empty, not sensor_msgs/msg/Image'))
        node.create_publisher(Image, 'image_raw', 10)
        spin_until(node, lambda: '2 publishers, of the right type and QoS' in message())
    finally:
        other.destroy_node()
        context.try_shutdown()


@pytest.mark.parametrize('topic', ['/cam/image_raw', '/cam/image_raw/compressed'])
def test_the_compressed_topic_may_be_named_itself(
    create: Callable[..., Node], topic: str,
) -> None:
    node = create('-r', f'image_raw:={topic}')
    assert ImageInput(node, '', 'compressed', Handover()).topic == '/cam/image_raw/compressed'


def test_a_long_frame_id_is_refused_and_not_repeated(create: Callable[..., Node]) -> None:
    source = ImageInput(create(), '', 'raw', Handover())
    long = float_image(frame_id='x' * 2**20)
    with pytest.raises(ValueError, match='the frame_id has 1048576 characters, at most 256'):
        source.to_frame(long, Crop(), 0.01)
    source.statistics.frame_received(long.header.frame_id, replaces=False)
    source.statistics.frame_failed('y' * 2**20, 'failed')
    status = source.status('test', 60.0)
    assert len(status.hardware_id) == 256 and max(len(v.value) for v in status.values) == 256
    assert source.to_frame(float_image(frame_id='x' * 256), Crop(), 0.01).shape == (64, 64)


def test_dead_pixels_are_counted_for_each_image(create: Callable[..., Node]) -> None:
    source = ImageInput(create(), '', 'raw', Handover())
    for dead in (40, 3, 0):
        assert (source.to_frame(float_image(dead), Crop(), 0.01) == 300).all()
        assert source.statistics.dead_pixels == dead
    with pytest.raises(ValueError, match='41 of 4096 pixels are NaN or infinite, at most 1 %'):
        source.to_frame(float_image(41), Crop(), 0.01)
    assert (source.to_frame(float_image(64), Crop(top=1), 0.0) == 300).all(), 'cropped before'


def test_the_log_is_throttled_by_kind_of_reason(
    create: Callable[..., Node], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    now = 100.0
    monkeypatch.setattr(logs, 'monotonic', lambda: now)
    log = logs.CameraLog(create(), 'front')

    def lines(*errors: str) -> int:
        capfd.readouterr()
        for error in errors:
            log.error('image{} skipped', ValueError(error))
        found = capfd.readouterr()
        return (found.err + found.out).count('image of front skipped: ')

    empty, odd = 'the image is empty, {0}x0 pixels', "image encoding '{0}' is not supported"
    assert lines(empty.format(0), empty.format(12)) == 1
    assert lines(odd.format('abc'), odd.format('x-9'), empty.format(3)) == 1
    now += 4.0
    assert lines(odd.format('abc'), empty.format(4)) == 0
    now += 1.5
    assert lines(odd.format('abc'), empty.format(4)) == 2
    lines(*(f'reason {"a" * i}' for i in range(3 * logs.KINDS)))
    assert len(log._quiet_until) <= logs.KINDS


def test_a_problem_is_logged_when_it_begins_and_ends(
    create: Callable[..., Node], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    now = 100.0
    monkeypatch.setattr(logs, 'monotonic', lambda: now)
    log = logs.CameraLog(create(), '')

    def said(level: bytes, message: str) -> str:
        capfd.readouterr()
        log.follow(DiagnosticStatus(level=level, message=message))
        found = capfd.readouterr()
        return found.err + found.out

    ok, warn = DiagnosticStatus.OK, DiagnosticStatus.WARN
    assert said(ok, 'running') == ''
    assert '[WARN]' in (text := said(warn, 'no image for 3 s')) and 'camera: no image' in text
    assert said(warn, 'no image for 4 s') == ''
    assert '[INFO]' in (text := said(ok, 'running')) and 'camera: running' in text
    assert said(warn, 'no image for 3 s') == said(ok, 'running') == '', 'within the period'
    now += 61.0
    assert '[WARN]' in said(warn, 'no image for 3 s')
