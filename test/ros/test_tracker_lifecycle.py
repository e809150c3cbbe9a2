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

"""The tracker node in the states of its lifecycle, with a shutter, failures and the detector."""

from collections.abc import Callable
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from std_msgs.msg import Bool, String
from tracker_client import detection, frame, SIZE, TrackerClient
from vision_msgs.msg import Detection2DArray
from warm_tracker import write_tracker

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ros
Start = Callable[..., Any]


def test_all_transitions(track: Start) -> None:
    with track(autostart=False) as client:
        assert client.state() == 'unconfigured'
        assert client.stop().message == 'no target was followed'
        assert client.change_state('configure') and client.state() == 'inactive'
        assert not client.start.get_subscription_count()
        for _ in range(2):
            assert client.change_state('activate') and client.state() == 'active'
            client.wait_active()
            name = client.follow(60)
            assert client.change_state('deactivate') and client.state() == 'inactive'
            client.refused(f'the node was deactivated, so these targets ended: {name}')
        assert client.change_state('activate')
        client.wait_active()
        assert client.show(60)[1] == []
        assert client.change_state('deactivate') and client.change_state('cleanup')
        assert client.change_state('configure') and client.change_state('shutdown')
        assert client.state() == 'finalized'


def test_parameters_are_static_or_dynamic(track: Start) -> None:
    with track() as client:
        client.wait_active()
        for name, value in (('model_path', 'x.onnx'), ('rgb_topic', 'rgb'), ('history_s', 1.0),
                            ('detector_model_path', ''), ('autostart', False)):
            if name != 'detector_model_path':
                assert not client.set_parameter(name, value).successful
        for name, value in (('max_targets', 0), ('point_size_px', 1.0), ('polarity', 'red')):
            assert not client.set_parameter(name, value).successful
        for name, value in (('max_targets', 3), ('point_size_px', 30.0), ('crop_top', 2)):
            assert client.set_parameter(name, value).successful
        client.status('0 of 3 targets', of='targets')


def test_what_an_operator_can_fix_is_a_sentence(
    track: Start, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('HOME', str(toy.parent))
    with track(model_path=f'~/{toy.name}', autostart=False) as client:
        assert not client.change_state('configure')
        client.status('is a detection model, not a tracking model')
        assert client.set_parameter('model_path', str(tmp_path / 'no.onnx')).successful
        assert not client.change_state('configure')
        client.status('no.onnx does not exist')
        good = write_tracker(tmp_path / 'good.onnx')
        assert client.set_parameter('model_path', str(good)).successful
        assert client.set_parameter('detector_model_path', str(good)).successful
        assert not client.change_state('configure')
        client.status('is a tracking model, not a detection model')
        assert client.set_parameter('detector_model_path', '').successful
        assert client.set_parameter('rgb_topic', 'rgb/image_raw').successful
        assert not client.change_state('configure')
        client.status('rgb_topic is rgb/image_raw, but good follows in thermal images only')
        assert client.set_parameter('rgb_topic', '').successful
        for topic in ('image_raw', '/target_tracker/target'):
            assert client.set_parameter('ffc_topic', topic).successful
            assert not client.change_state('configure')
            client.status(f'ffc_topic {topic} is already a topic of this node, and not std_msgs/m')
        assert client.set_parameter('ffc_topic', '').successful
        assert client.change_state('configure') and client.change_state('activate')
        client.wait_active()
        client.follow(60)


def test_a_closed_shutter_makes_the_target_uncertain(track: Start) -> None:
    with track(ffc_topic='ffc_status') as client:
        client.wait_active()
        shutter = client.node.create_publisher(Bool, 'ffc_status', 10)
        client.wait(shutter.get_subscription_count)
        name = client.follow(60)
        shutter.publish(Bool(data=True))
        client.wait_for(0.3)
        message = client.image(np.full((SIZE[1], SIZE[0]), 90, np.uint8), 'mono8')
        target, = client.send(message)
        assert target.id == name and client.state_of(message)[0] in (
            (name, 'uncertain'), (name, 'lost'))
        client.start.publish(detection(60, 64, name='other'))
        assert client.set_parameter('max_targets', 2).successful
        client.send(client.image(np.full((SIZE[1], SIZE[0]), 91, np.uint8), 'mono8'))
        client.refused('the shutter was closed at that time (ffc_status)')
        shutter.publish(Bool(data=False))
        client.wait_for(0.3)
        for _ in range(5):
            message, _ = client.show(60)
        assert client.state_of(message) == [(name, 'tracked')]


def test_inference_that_keeps_failing_reloads_the_model(start: Start, tmp_path: Path) -> None:
    model = write_tracker(tmp_path / 'fails.onnx', fails=True)
    # With a topic for the shutter, white images are not taken for it.
    with start(kind=TrackerClient, model_path=model, detector_model_path='""',
               max_failures=3, ffc_topic='ffc') as client:
        client.wait_active()
        client.follow(60)

        def failing() -> bool:
            white = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
            client.images.publish(client.image(white, 'mono8'))
            client.wait_for(0.1)
            return any(s.get('restarts') == '1' for s in client.statuses)

        client.wait(failing)
        client.refused('the node was deactivated, so these targets ended: t1')
        client.wait_active()
        client.wait(lambda: client.state() == 'active')
        client.settle()
        client.follow(60)


def test_the_status_forgets_a_failed_target_that_was_ended(start: Start, tmp_path: Path) -> None:
    model = write_tracker(tmp_path / 'fails.onnx', fails=True)
    with start(kind=TrackerClient, model_path=model, detector_model_path='""',
               ffc_topic='ffc') as client:
        client.wait_active()
        name = client.follow(60)
        white = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
        client.images.publish(client.image(white, 'mono8'))
        status = client.status(of='tracker', failures='1')
        assert status['level'] == b'\x02' and status['message'] == status['last error']
        client.stop_id.publish(String(data=name))
        client.wait_for(0.3)
        assert client.show(60)[1] == []
        status = client.status('active', of='tracker', failures='0')
        assert status['level'] == b'\x00' and status['last error'], 'when it was is still said'


def test_detector_and_tracker_run_together(track: Start, toy: Path) -> None:
    """In one namespace; a detection of the one, by its id, is followed by the other."""
    with track() as client:
        client.wait_active()
        found: list[Detection2DArray] = client.detections
        qos = '/image_raw.subscription.reliability'
        process = subprocess.Popen(
            [sys.executable, '-m', 'cgdet_ros.detector_node', '--ros-args', '-p',
             f'model_path:={toy}', '-p', 'track:=true', '-p', 'backend:=onnxruntime', '-p',
             f'qos_overrides.{qos}:=reliable'], cwd=ROOT)
        try:
            def named() -> str:
                client.show(30)
                return next((d.id for m in found for d in m.detections if d.id), '')

            name = client.wait(named)

            def followed() -> list[str]:
                client.follow_id.publish(String(data=name))  # the tracker may not know it yet
                client.wait_for(0.3)
                return [t.id for t in client.show(30)[1]]

            assert client.wait(followed) == [name]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(120)
        assert process.returncode == 0


def test_a_tracker_ends_at_ctrl_c_while_it_follows(track: Start) -> None:
    with track() as client:
        client.wait_active()
        client.follow(60)
        os.kill(client.process.pid, signal.SIGINT)
        while client.process.poll() is None:
            client.images.publish(client.image(frame(60), 'mono8'))
            client.wait_for(0.01)
