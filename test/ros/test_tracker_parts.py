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

"""The parts of the tracker node that need no model: history, requests, points, RGB images."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from cgdet_core.runtime import Detector
from cgdet_core.runtime.detection.detector import finder
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_ros.tracking import requests as requests_module
from cgdet_ros.tracking import rgb as rgb_module
from cgdet_ros.tracking.choice import Choice, late
from cgdet_ros.tracking.history import History, Moment, Refused
from cgdet_ros.tracking.requests import (
    Box,
    DetectionId,
    nearest,
    Point,
    Requests,
    Seen,
    to_box,
    to_id,
    to_point,
)
from cgdet_ros.tracking.rgb import RgbInput, to_rgb
from cgdet_ros.tracking.targets import Targets
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PointStamped
import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from toy_tracker import write_toy_tracker
from tracker_client import detection
from vision_msgs.msg import Detection2DArray


def moment(seconds: float, shape: tuple[int, int] = (4, 6)) -> Moment:
    return Moment(round(seconds * 1e9), seconds, np.zeros(shape, np.uint8), '')


def history(*seconds: float) -> History:
    found = History(2.0)
    for each in seconds:
        found.add(moment(each))
    return found


def seconds_of(moments: list[Moment]) -> list[float]:
    return [m.seconds for m in moments]


def test_a_box_is_on_the_image_of_its_stamp_or_the_nearest() -> None:
    kept = history(10.0, 10.1, 10.2)
    for wanted, found in ((10.0, 10.0), (10.1, 10.1), (10.14, 10.1), (10.16, 10.2), (9.95, 10.0)):
        assert kept.find(round(wanted * 1e9)).seconds == found
    assert kept.find(0).seconds == 10.2, '0 is the newest'
    assert kept.find(round(10.21e9)) is None, 'it is still to come'
    assert History(2.0).find(0) is None


def test_an_image_that_is_gone_is_refused_with_a_sentence() -> None:
    kept = history(10.0, 11.0, 12.5)
    assert kept.find(11 * 10**9).seconds == 11.0
    for wanted in (10.0, 11.5):  # too old, and between
        with pytest.raises(Refused, match=r'is gone: it is .* s older than the newest one, and '
                           r'the nearest that is kept \(history_s\) is'):
            kept.find(round(wanted * 1e9))


def test_what_is_followed_up_to_the_newest_image_is_evenly_spaced() -> None:
    kept = history(*(i / 10 for i in range(11)))
    start = kept.find(round(0.2e9))
    assert seconds_of(kept.after(start, 20)) == [i / 10 for i in range(3, 11)]
    assert seconds_of(kept.after(start, 4)) == [0.4, 0.6, 0.8, 1.0]
    assert kept.after(kept.newest(), 20) == []


def test_images_of_one_stamp_are_kept_apart() -> None:
    kept = History(2.0)
    first, second = moment(0.0), moment(0.0)
    kept.add(first)
    kept.add(second)
    assert kept.after(first, 20) == [second] and kept.find(0) is second


def test_after_a_clock_was_set_back_a_box_is_on_no_older_image() -> None:
    kept = history(10.0, 10.2, 10.4, 10.6)
    again = [replace(moment(seconds), seconds=10.6) for seconds in (10.1, 10.2)]
    kept.add(again[0])
    assert kept.find(round(10.2e9)) is None, 'it is still to come'
    kept.add(again[1])
    assert kept.find(round(10.2e9)) is again[1] and kept.find(round(10.0e9)).seconds == 10.0
    late = replace(moment(10.15), seconds=10.6)  # not in order
    kept.add(late)
    assert kept.find(round(10.2e9)) is again[1] and kept.find(0) is late


def test_an_image_without_a_stamp_among_others_is_no_set_back_clock() -> None:
    kept = history(10.0, 10.1)
    kept.add(Moment(0, 10.2, np.zeros((4, 6), np.uint8), ''))
    assert kept.find(round(10.1e9)).seconds == 10.1 and kept.find(0).seconds == 10.2
    with pytest.raises(Refused, match='it is 1.10 s older than the newest one'):
        kept.find(9 * 10**9)
    assert 'stamp is 0.30 s newer' in late(Point(round(10.4e9), 1, 2), kept.stamp_ns())
    kept.add(replace(moment(10.3), seconds=10.3))
    kept.add(Moment(0, 10.4, np.zeros((4, 6), np.uint8), ''))
    kept.add(replace(moment(10.1), seconds=10.4))  # now it was
    assert kept.find(round(10.3e9)) is None


def test_large_images_are_kept_while_they_fit_into_memory() -> None:
    kept = History(100.0)
    large = np.broadcast_to(np.uint8(0), (2 ** 13, 2 ** 13))  # 64 MiB
    for number in range(9):
        kept.add(Moment(number, float(number), large, ''))
    assert seconds_of(kept.after(kept.find(5), 20)) == [6, 7, 8]
    with pytest.raises(Refused, match='is gone'):
        kept.find(-10 ** 9)
    huge = np.broadcast_to(np.uint8(0), (2 ** 15, 2 ** 15))
    kept.add(Moment(10, 10.0, huge, ''))
    assert kept.newest().seconds == 10 and kept.after(kept.newest(), 5) == []


@pytest.mark.parametrize(('message', 'words'), [
    (detection(5, 5, 0, 4), '0 x 4 pixels has no area'),
    (detection(5, 5, 4, -1), 'has no area'),
    (detection(60, 64, 1e39, 1e39), r'its box has the number 1e\+39, beyond every image'),
    (detection(-1.7e308, 64), r'the number -1.7e\+308, beyond'),
    (detection(float('nan'), 5), 'is not a finite number'),
    (detection(5, 5, float('inf')), 'is not a finite number'),
    (detection(5, 5, angle=float('nan')), 'is not a finite number'),
    (detection(5, 5, name='x' * 300), '300 characters')])
@pytest.mark.filterwarnings('error')
def test_a_box_that_is_none_is_refused(message: object, words: str) -> None:
    with pytest.raises(Refused, match=words):
        to_box(message)


def test_a_box_keeps_id_class_and_stamp() -> None:
    message = detection(30, 40, 10, 20, name='7', class_id='person')
    message.header.stamp.sec, message.header.stamp.nanosec = 3, 4
    box = to_box(message)
    assert box.box.tolist() == [25, 30, 35, 50] and box.stamp_ns == 3_000_000_004
    assert (box.id, box.class_id) == ('7', 'person')


@pytest.mark.parametrize(('angle', 'half'), [
    (np.pi / 2, (10, 5)), (-np.pi, (5, 10)), (np.pi / 4, (10.607, 10.607)),
    (-np.pi / 6, (9.330, 11.160))])
def test_a_rotated_box_is_the_upright_one_around_it(
    angle: float, half: tuple[float, float],
) -> None:
    x1, y1, x2, y2 = to_box(detection(30, 40, 10, 20, angle=angle)).box
    assert (x1, y1, x2, y2) == pytest.approx(
        (30 - half[0], 40 - half[1], 30 + half[0], 40 + half[1]), abs=1e-3)


def test_points_and_ids_are_checked() -> None:
    message = PointStamped()
    message.point.x, message.point.y = 3.0, 4.0
    assert (to_point(message).x, to_point(message).y) == (3, 4)
    message.point.x = float('nan')
    with pytest.raises(Refused, match='not a finite number'):
        to_point(message)
    message.point.x = 1e300
    with pytest.raises(Refused, match=r'its point has the number 1e\+300, beyond every image'):
        to_point(message)
    assert to_id(String(data='12')).id == '12'
    with pytest.raises(Refused, match='empty'):
        to_id(String())


def test_requests_wait_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Requests()
    waiting.put(Point(0, 1.0, 2.0))
    waiting.put(Point(0, 1.0, 2.0, since=-100.0))
    assert waiting.expired() == 1 and waiting.expired() == 0
    assert len(waiting.take()) == 1 and waiting.take() == []
    for _ in range(16):
        waiting.put(Point(0, 1.0, 2.0))
    with pytest.raises(Refused, match='16 others already wait'):
        waiting.put(Point(0, 1.0, 2.0))


def test_the_box_at_a_point_is_the_smallest_or_the_nearest() -> None:
    boxes = np.array([[0, 0, 100, 100], [40, 40, 60, 60], [200, 0, 210, 10]], np.float32)
    for x, y, radius, chosen in ((50, 50, 0, 1), (10, 10, 0, 0), (215, 5, 10, 2),
                                 (215, 5, 4, None), (300, 300, 50, None)):
        assert nearest(boxes, Point(0, x, y), radius) == chosen
    assert nearest(np.zeros((0, 4), np.float32), Point(0, 1, 1), 100) is None


def test_the_detector_sees_frames_in_its_own_polarity(toy: Path) -> None:
    detector = Detector.load(toy, 1, 'onnxruntime')
    frame = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    found = detector.detect(frame)
    assert len(found) == 4
    for polarity, given in (('white_hot', frame), ('black_hot', np.invert(frame))):
        boxes, scores, labels = zip(*finder(detector, polarity)(given))
        np.testing.assert_array_equal(np.array(boxes), found.boxes)
        assert list(scores) == found.scores.tolist() and list(labels) == found.labels.tolist()


def test_a_class_id_is_a_number_or_a_name_of_the_detector() -> None:
    choice = Choice(history(), Seen(2.0), None, ('person', 'car'))
    assert [choice.label(text) for text in ('1', 'person', '2', 'dog', '', '-1')] == [
        1, 0, None, None, None, None]


def detections(seconds: float, *found: object) -> Detection2DArray:
    message = Detection2DArray(detections=list(found))
    message.header.stamp.sec = int(seconds)
    message.header.stamp.nanosec = round(seconds % 1 * 1e9)
    return message


def test_an_id_is_found_in_the_newest_detections_that_have_it() -> None:
    seen = Seen(2.0)
    with pytest.raises(Refused, match='no detections have arrived'):
        seen.find(DetectionId(0, '1'))
    seen.add(detections(10.0, detection(5, 5)))
    with pytest.raises(Refused, match='the parameter track of the detector'):
        seen.find(DetectionId(0, '1'))
    seen.add(detections(10.5, detection(5, 5, name='1', class_id='car'), detection(9, 9)))
    seen.add(detections(10.6, detection(6, 5, name='1'), detection(30, 9, name='2')))
    seen.add(detections(10.7, detection(30, 9, name='2')))
    box = seen.find(DetectionId(0, '1'))
    assert box.stamp_ns == 10_600_000_000 and box.id == '1' and box.box[0] == -4
    seen.add(detections(12.65, detection(30, 9, name='2'), detection(3, 3, name='5')))
    with pytest.raises(Refused, match="does not know the id '1' any more; its ids are 2, 5"):
        seen.find(DetectionId(0, '1'))
    seen.clear()
    seen.add(detections(3.0, detection(5, 5, name='9')))  # another recording
    assert seen.find(DetectionId(0, '9')).stamp_ns == 3 * 10**9


def test_detections_without_a_stamp_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(2.0)
    seen.add(Detection2DArray(detections=[detection(2, 3, name='7')]))
    assert seen.find(DetectionId(0, '7')).id == '7'
    now = requests_module.monotonic_ns()
    monkeypatch.setattr(requests_module, 'monotonic_ns', lambda: now + 3 * 10**9)
    with pytest.raises(Refused, match='no detections have arrived'):
        seen.find(DetectionId(0, '7'))
    assert seen.at(Point(0, 2, 3), 5, 0) is None


def test_detections_without_a_stamp_do_not_end_those_before() -> None:
    seen = Seen(2.0)
    for message in (detections(10.0, detection(5, 5, name='1')), Detection2DArray(),
                    detections(10.2, detection(5, 5, name='2'))):
        seen.add(message)
    assert [seen.find(DetectionId(0, name)).id for name in '12'] == ['1', '2']


def test_older_detections_are_forgotten_when_stamps_go_back() -> None:
    seen = Seen(2.0)
    seen.add(detections(100.0, detection(5, 5, name='9')))
    seen.add(detections(3.0, detection(5, 5, name='1')))
    with pytest.raises(Refused, match='its ids are 1'):
        seen.find(DetectionId(0, '9'))


def test_a_point_stands_for_a_detection_of_its_time() -> None:
    seen = Seen(2.0)
    seen.add(detections(10.0, detection(50, 50, 10, 10, name='1'), detection(0, 0, 0, 5)))
    seen.add(detections(11.0, detection(80, 50, 10, 10, name='1', class_id='0')))
    newest = 11_100_000_000
    assert seen.at(Point(0, 80, 50), 5, newest) == Box(
        11_000_000_000, pytest.approx([75, 45, 85, 55]), '1', '0', since=pytest.approx(0, abs=1e9))
    assert seen.at(Point(0, 50, 50), 5, newest) is None, 'it has moved'
    assert seen.at(Point(10_100_000_000, 50, 50), 5, newest).stamp_ns == 10_000_000_000
    assert seen.at(Point(0, 80, 50), 5, 20_000_000_000) is None, 'the detections are old'


@pytest.fixture
def node(create_node: Any) -> Node:
    return create_node('test_rgb')


def rgb(seconds: float, level: int = 200, encoding: str = 'rgb8', width: int = 8) -> Image:
    message = Image(height=6, width=width, encoding=encoding, step=3 * width)
    pixels = np.zeros((6, width, 3), np.uint8)
    pixels[..., 0] = level
    message.data = pixels.tobytes()
    message.header.stamp.sec = int(seconds)
    message.header.stamp.nanosec = round(seconds % 1 * 1e9)
    return message


def test_rgb_is_that_of_the_nearest_stamp_cropped_as_the_frame(node: Node) -> None:
    source, crop = RgbInput(node, 'rgb'), Crop(top=2, left=2)
    source.subscribe()
    for each in (9.9, 10.02, 10.3):
        source._receive(rgb(each, level=round(each * 10)))
    found = source.at(moment(10.0), crop, 0.05)
    assert found.shape == (4, 6, 3) and found[0, 0].tolist() == [100, 0, 0]
    assert source.status('n').message == 'used'
    source.unsubscribe()
    assert source.at(moment(10.0), crop, 0.05) is None


def test_rgb_is_kept_for_a_second_whatever_its_rate(
    node: Node, monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, now = RgbInput(node, 'rgb'), [0.0]
    monkeypatch.setattr(rgb_module, 'monotonic', lambda: now[0])

    def used(count: int, rate: float, late: float) -> bool:
        """Return whether RGB is there for a thermal image that is late by some seconds."""
        for number in range(count):
            now[0] += 1 / rate
            source._receive(rgb(10.0 + number / rate))
        stamp = moment(10.0 + (count - 1) / rate - late)
        return source.at(stamp, Crop(top=2, left=2), 0.05) is not None

    source.subscribe()
    for rate in (5, 30, 60, 200):
        assert all(used(300, rate, after) for after in (0.0, 0.2, 0.8))
        assert len(source._messages) <= max(10, rate + 1)
    monkeypatch.setattr(rgb_module, 'KEPT_BYTES', 8 * 6 * 3 * 20)
    assert used(300, 60, 0.25) and not used(300, 60, 0.5) and len(source._messages) == 20
    monkeypatch.setattr(rgb_module, 'KEPT_BYTES', 8)
    assert used(3, 60, 0.0) and len(source._messages) == 1
    source.unsubscribe()


def test_rgb_without_stamps_is_the_newest_and_rests_without_a_target(node: Node) -> None:
    source = RgbInput(node, 'rgb')
    source.subscribe()
    assert source.at(moment(0.0), Crop(top=2, left=2), 0.05) is None
    assert source.status('n').level == b'\x01'
    source.rest()
    status = source.status('n')
    assert (status.level, status.message) == (b'\x00', 'waits for a target')
    for level in (100, 150, 200):
        source._receive(rgb(0.0, level))
    assert source.at(moment(0.0), Crop(top=2, left=2), 0.05)[0, 0, 0] == 200
    assert source.status('n').message == 'used'
    source.unsubscribe()


@pytest.mark.parametrize(('message', 'words'), [
    (None, 'no image has arrived on /rgb: 0 publishers; thermal alone is used'),
    (rgb(10.2), 'the nearest image on /rgb is 0.200 s off the thermal one, more than rgb_max_del'),
    (rgb(500.0), 'the stamps of /rgb are 490 s off those of the thermal images: let both driver'),
    (rgb(10.0, level=0), 'the images on /rgb are black; thermal alone is used'),
    (rgb(10.0, width=16), 'have 16x6 pixels, but the thermal ones 8x6: register them'),
    (rgb(10.0, encoding='32FC1'), 'thermal alone is used')])
def test_rgb_that_cannot_be_used_is_said(node: Node, message: Image | None, words: str) -> None:
    source = RgbInput(node, 'rgb')
    source.subscribe()
    assert source.status('n').message == 'waits for a target'
    if message is not None:
        source._receive(message)
    assert source.at(moment(10.0), Crop(top=2, left=2), 0.05) is None
    status = source.status('n')
    assert words in status.message and status.level == b'\x01' and status.name == 'n: RGB'
    source._receive(rgb(10.0))
    if message is None:
        assert source.at(moment(10.0), Crop(top=2, left=2), 0.05) is not None
        assert source.status('n').level == b'\x00'
    source.at(moment(99.0), Crop(top=2, left=2), 0.05)
    source.unsubscribe()
    status = source.status('n')
    assert (status.level, status.message) == (b'\x00', 'not active')


def test_why_no_rgb_arrives_is_said(node: Node) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    camera = rclpy.create_node('camera', context=context)
    camera.create_publisher(CompressedImage, 'rgb', 10)
    source = RgbInput(node, 'rgb')
    source.subscribe()
    assert source.at(moment(10.0), Crop(top=2, left=2), 0.05) is None
    words = '1 publisher, of sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image; thermal'
    end = monotonic() + 120
    while words not in (said := source.status('n').message) and monotonic() < end:
        sleep(0.05)
    source.unsubscribe()
    camera.destroy_node()
    rclpy.shutdown(context=context)
    assert words in said


def test_the_order_of_colors_is_that_of_the_encoding() -> None:
    assert to_rgb(rgb(0, encoding='rgb8'))[0, 0].tolist() == [200, 0, 0]
    assert to_rgb(rgb(0, encoding='bgr8'))[0, 0].tolist() == [0, 0, 200]
    with pytest.raises(ValueError, match='8-bit color'):
        to_rgb(Image(height=2, width=2, encoding='mono8', step=2, data=bytes(4)))


def test_ids_are_not_used_again_after_a_reload(node: Node, tmp_path: Path) -> None:
    model = TrackingModel.load(write_toy_tracker(tmp_path / 'toy.onnx'), threads=1,
                               backend='onnxruntime')
    numbers = count(1)
    names = [Targets(node, lambda: Tracker(model), numbers).reserve('', '', 1).id
             for _ in range(2)]
    assert names == ['t1', 't2']


def test_a_target_without_new_images_is_not_ok(node: Node, tmp_path: Path) -> None:
    model = TrackingModel.load(write_toy_tracker(tmp_path / 'toy.onnx'), threads=1,
                               backend='onnxruntime')
    targets = Targets(node, lambda: Tracker(model), count(1))
    targets.add(targets.reserve('dog', '', 1), lambda: True)
    assert targets.statuses(0.0) == []
    followed, = targets.current()
    for level, worse in ((b'\x00', b'\x01'), (b'\x02', b'\x02')):
        latest = DiagnosticStatus(level=level, name='n: target dog', message='tracked')
        followed.status = latest, monotonic()
        assert targets.statuses(3600.0) == [latest]
        followed.status = latest, monotonic() - 5
        status, = targets.statuses(2.0)
        assert status.level == worse and status.name == latest.name
        assert status.message.startswith('tracked in the latest image, which came ')


def test_a_start_that_waits_or_is_under_way_can_be_ended(node: Node, tmp_path: Path) -> None:
    model = TrackingModel.load(write_toy_tracker(tmp_path / 'toy.onnx'), threads=1,
                               backend='onnxruntime')
    targets = Targets(node, lambda: Tracker(model), count(1))
    with pytest.raises(Refused, match='it was ended meanwhile'):
        targets.add(targets.reserve('', '', 1), lambda: False)
    targets.add(targets.reserve('dog', '', 1), lambda: True)
    assert [f.id for f in targets.current()] == targets.end('dog') == ['dog']

    waiting = Requests()
    waiting.put(DetectionId(0, '7'))
    assert waiting.cancel('7') == 1 and not waiting.cancel('7') and not waiting.take()

    # Nor does one start that the worker has taken before it was stopped.
    requests = [DetectionId(0, '7'), Point(0, 1, 2), DetectionId(0, '8'), DetectionId(0, '9')]
    for request in requests:
        waiting.put(request)
    taken = waiting.take()
    assert waiting.cancel('8') == 1 and [*map(waiting.holds, taken)] == [True, True, False, True]
    waiting.served(taken[0])
    waiting.served(taken[3], again=True)
    assert waiting.cancel() == 2 and not any(map(waiting.holds, taken))
    waiting.served(taken[1], again=True)
    assert not waiting.take()
