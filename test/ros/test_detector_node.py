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

"""Images sent to the node in a separate process, over real DDS."""

from collections.abc import Callable

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.runtime import Detector
from cgdet_core.runtime.inference.choice import shipped_model
from cgdet_ros.tools.collector import from_message
import numpy as np
import pytest

pytestmark = pytest.mark.ros
Start = Callable[..., object]


@pytest.fixture(scope='module')
def frame() -> np.ndarray:
    """Return a 16-bit frame of another size than the model's input."""
    return to_counts(Scene.random(3, 200, 150).render()[0])


def test_detects_in_every_encoding(start: Start, frame: np.ndarray) -> None:
    detector = Detector.load(shipped_model())
    expected = detector.detect(frame, 0.01)
    gray = np.clip((frame.astype(int) - 26000) // 20, 0, 255).astype(np.uint8)
    expected_gray = detector.detect(gray, 0.01)
    assert len(expected) and len(expected_gray)
    padded = np.zeros((150, 220), np.uint16)
    padded[:, :200] = frame
    with start(score_threshold=0.01) as client:
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
        # Both infos are latched, so the client has received one of each.
        assert [c.class_name for c in client.labels[0].class_map] == [
            'person', 'bicycle', 'car', 'unlabeled']
        assert client.infos[0].database_location == '/label_info'


def test_bad_images_are_reported_and_the_next_good_one_detected(
    start: Start, frame: np.ndarray,
) -> None:
    with start(score_threshold=0.01) as client:
        client.wait_active()
        before = from_message(client.send(client.image(frame, 'mono16')))
        kelvin = np.full((20, 20), np.nan, np.float32)
        bad = (
            (client.image(frame, 'yuv422'), 'requires cv_bridge'),
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


def test_a_frame_without_detections_is_published(
    start: Start, frame: np.ndarray,
) -> None:
    with start(score_threshold=1.0) as client:
        client.wait_active()
        found = client.send(client.image(frame, 'mono16'))
        assert len(found.detections) == 0 and found.header.frame_id == 'thermal_optical'


def test_the_newest_frame_wins(start: Start) -> None:
    large = to_counts(Scene.random(1).render()[0])
    with start() as client:
        client.wait_active()
        # Together they fit into the transport's segment: DDS loses none.
        messages = [client.image(large, 'mono16') for _ in range(12)]
        for message in messages:
            client.images.publish(message)
        client.wait(lambda: any(
            d.header.stamp == messages[-1].header.stamp for d in client.detections))
        stamps = [d.header.stamp.sec for d in client.detections]
        assert stamps == sorted(set(stamps)), 'one output per frame, in order'
        status = client.wait(lambda: next(
            (s for s in client.statuses if s.get('processed') == str(len(stamps))), None))
        assert int(status['received']) == int(status['processed']) + int(status['dropped'])
