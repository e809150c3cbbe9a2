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

"""The content of /diagnostics: the source, the error, and what to check."""

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from socket import gethostname
from typing import Any

from cgdet_ros.node import diagnostics
from cgdet_ros.node.diagnostics import Statistics
import numpy as np
import pytest
from toy_models import gray

pytestmark = pytest.mark.ros
Start = Callable[..., Any]
OK, WARN, ERROR = b'\0', b'\1', b'\2'


def test_statuses_name_their_hardware(start: Start, toy: Path) -> None:
    with start(cameras=('front', 'rear'), model_path=toy) as client:
        client.wait_active()
        assert client.status(of='detector')['hardware'] == gethostname()
        assert client.status(of='camera front')['hardware'] == 'front'
        client.send(client.image(gray(0.5), 'mono8'), 'front')
        client.status(of='camera front', hardware='thermal_optical')
        assert client.status(of='camera rear')['hardware'] == 'rear'


def test_a_finalized_node_is_not_ok(start: Start, toy: Path) -> None:
    with start(model_path=toy, autostart=False) as client:
        assert client.status('unconfigured')['level'] == OK
        assert client.change_state('shutdown')
        assert client.status('restart the node', state='finalized')['level'] == WARN


def test_silence_is_reported_with_topic_and_publishers(start: Start, toy: Path) -> None:
    from std_msgs.msg import Empty
    with start(cameras=('front',), model_path=toy, no_input_warn_s=0.5) as client:
        client.wait_active()
        assert 'on /front/image_raw: 1 publisher, of the right type and QoS' in (
            client.status('no image for', of='front')['message'])
        assert 'camera front: no image for' in client.log.read_text()
        client.send(client.image(gray(0.5), 'mono8'))
        assert client.status('no image for', of='front', processed='1')['message'].endswith(
            'on /front/image_raw: 1 publisher')
        client.node.destroy_publisher(client.images)
        client.status('/front/image_raw: 0 publishers', of='front')
        client.node.create_publisher(Empty, 'front/image_raw', 10)
        client.status('/front/image_raw: 1 publisher', of='front', received='1')


def test_stamps_in_the_future_are_a_warning(start: Start, toy: Path) -> None:
    with start(model_path=toy, use_sim_time='true') as client:  # no node publishes /clock
        client.wait_active()
        message = client.image(gray(0.5), 'mono8')
        message.header.stamp.sec = 1_700_000_000
        client.send(message)
        status = client.status('in the future', of='camera', processed='1')
        assert status['level'] == WARN and 'stamps are 1700000000.1 s' in status['message']
        assert 'share a clock' in status['message']


@pytest.mark.parametrize(('age', 'level'), [(0.02, OK), (-0.9, OK), (-1.5, WARN)])
def test_clocks_may_differ_a_little(age: float, level: bytes) -> None:
    statistics = Statistics()
    statistics.frame_received('thermal', replaces=False)
    statistics.frame_done('mono16', 0.02, (0.0, 0.02, 0.0), age)
    assert statistics.status('camera', 'front', '/image_raw', 2.0).level == level


@pytest.mark.parametrize(('age', 'stamped', 'words'), [
    (1.7e9, False, 'the stamps of the images are 0'), (1.7e9, True, '54 years old'),
    (5e8, True, '16 years old'), (1e8, True, ''), (0.5, False, '')])
def test_stamps_that_mean_no_date_are_a_warning(age: float, stamped: bool, words: str) -> None:
    statistics = Statistics()
    statistics.frame_received('thermal', replaces=False, stamp=int(stamped))
    statistics.frame_done('mono16', 0.02, (0.0, 0.02, 0.0), age)
    status = statistics.status('camera', 'front', '/image_raw', 2.0)
    assert status.level == (WARN if words else OK) and words in status.message


def test_stamps_that_stand_still_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(diagnostics, 'monotonic', lambda: now)
    statistics = Statistics()

    def show(stamp: int) -> tuple[bytes, str]:
        nonlocal now
        now += 0.5
        statistics.frame_received('thermal', replaces=False, stamp=stamp)
        statistics.frame_done('mono16', 0.02, (0.0, 0.02, 0.0), 0.02)
        status = statistics.status('camera', 'front', '/image_raw', 60.0)
        return status.level, status.message

    assert [show(stamp)[0] for stamp in (1, 1, 2, 2, 2)] == [OK] * 5, 'one image twice'
    level, message = show(2)
    assert level == WARN and 'stamps of the images have stood still for 2 s' in message
    now += 30.0  # a pause is none of the stamps
    assert 'for 2 s' in statistics.status('camera', 'front', '/image_raw', 60.0).message
    assert show(3)[0] == OK


@pytest.mark.parametrize(('period', 'rate'), [
    (0.5, '2.00'), (2.6, '0.38'), (3.3, '0.30'), (6.0, '0.17')])
def test_the_rate_of_a_slow_camera_is_steady(
    monkeypatch: pytest.MonkeyPatch, period: float, rate: str,
) -> None:
    now = 100.0
    monkeypatch.setattr(diagnostics, 'monotonic', lambda: now)
    statistics = Statistics()

    def shown() -> str:
        status = statistics.status('camera', 'front', '/image_raw', 60.0)
        return next(v.value for v in status.values if v.key == 'input rate Hz')

    found = set()
    for tick in range(1, 600):  # tenths of a second
        now = 100.0 + tick / 10
        if tick % round(period * 10) == 0:
            statistics.frame_received('thermal', replaces=False)
        if tick > 150:
            found.add(shown())
    assert found == {rate}
    now += 50.0
    assert shown() == '0.02', 'no rate remains'


def test_the_last_error_ends_with_a_good_image_and_its_time_stays() -> None:
    statistics = Statistics()
    for _ in range(2):
        statistics.frame_received('thermal', replaces=False)
    statistics.frame_failed('mono16', 'the image is empty')
    status = statistics.status('camera', 'front', '/image_raw', 2.0)
    values = {v.key: v.value for v in status.values}
    assert values['last error'] == status.message == 'the image is empty'
    time = datetime.fromisoformat(values['last error time'])
    assert abs((datetime.now(timezone.utc) - time).total_seconds()) < 120
    statistics.frame_done('mono16', 0.02, (0.0, 0.02, 0.0), 0.1)
    values = {v.key: v.value
              for v in statistics.status('camera', 'front', '/image_raw', 2.0).values}
    assert values['last error'] == ''
    assert datetime.fromisoformat(values['last error time']) == time


def test_a_node_that_cannot_keep_up_is_reported_once() -> None:
    slow, fast = Statistics(), Statistics()
    for number in range(40):
        slow.frame_received('thermal', replaces=number % 2 == 1)
        fast.frame_received('thermal', replaces=number % 10 == 1)
        if number % 2 == 0:
            slow.frame_done('mono16', 0.2, (0.0, 0.18, 0.0), 0.2)
    assert '20 of 40 images were replaced' in (words := slow.falls_behind())
    assert 'inference takes 180 ms' in words and 'fewer targets' in words  # trackers have no INT8
    assert not slow.falls_behind() and not fast.falls_behind()


def test_dropped_frames_are_replaced_or_too_old() -> None:
    statistics = Statistics()
    for number in range(5):
        statistics.frame_received('thermal', replaces=number > 2)
    statistics.frame_too_old(3.0)
    status = statistics.status('camera', 'front', '/image_raw', 60.0)
    values = {v.key: v.value for v in status.values}
    assert (values['dropped'], values['replaced'], values['too old']) == ('3', '2', '1')
    assert status.hardware_id == 'thermal' and status.level == WARN


def test_only_an_image_without_a_result_can_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(diagnostics, 'monotonic', lambda: now)
    statistics = Statistics()

    def level() -> bytes:
        return statistics.status('camera', 'front', '/image_raw', 2.0).level

    statistics.frame_received('thermal', replaces=False)
    statistics.frame_received('thermal', replaces=False)  # waits while the first is processed
    statistics.frame_done('mono16', 0.02, (0.0, 0.02, 0.0), 0.0)
    now += 4.0
    statistics.frame_received('thermal', replaces=True)
    assert level() == OK
    now += 1.5  # the second one hangs
    assert level() == ERROR
    statistics.frame_done('mono16', 5.5, (0.0, 5.5, 0.0), 0.0)
    now += 3000.0  # a pause
    statistics.frame_received('thermal', replaces=False)
    now += 1.5
    assert level() == OK


def test_false_color_stays_in_the_status(start: Start, toy: Path, cv_bridge: None) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        plain = np.repeat(gray(0.5)[..., None], 3, 2)
        client.send(client.image(plain, 'bgr8'))
        client.status('running', of='camera', processed='1', false_color='no')
        colored = plain.copy()
        colored[..., 0] = 0
        client.send(client.image(colored, 'bgr8'))
        client.status('running', of='camera', processed='2', false_color='yes')


@pytest.mark.parametrize('name', ['input_transport', 'image_transport'])
def test_activation_logs_its_topics(start: Start, toy: Path, name: str) -> None:
    with start(cameras=('front', 'rear'), model_path=toy, autostart=False,
               **{name: 'compressed'}) as client:
        assert client.change_state('configure')
        assert ' -> ' not in client.log.read_text()
        assert client.change_state('activate')
        client.wait(lambda: 'active: /front/image_raw/compressed -> /front/detections, '
                    '/rear/image_raw/compressed -> /rear/detections' in client.log.read_text())
