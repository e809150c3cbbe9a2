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

"""`cgdet doctor` on real graphs: cameras, detectors, and why they are not connected."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import subprocess
from typing import Any

from cgdet_core.doctor import Check
from cgdet_ros.doctor.exchange import exchange, summarize
from cgdet_ros.doctor.graph import (
    COMPRESSED,
    FoundNode,
    graph_checks,
    node_checks,
    qos_checks,
    RAW,
    state_check,
    unconnected,
    wrong_type,
)
from cgdet_ros.doctor.transport import profile_variables
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, qos_profile_sensor_data, QoSProfile
from sensor_msgs.msg import CompressedImage, Image

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / 'models' / 'thermal.onnx'
pytestmark = pytest.mark.ros


@pytest.fixture
def node(create_node: Any) -> Node:
    return create_node('doctor_under_test')


def test_lost_frames_are_counted() -> None:
    result = summarize(100, {i: i * 1e-3 for i in range(100) if i not in (0, 50, 99)})
    assert (result.sent, result.lost) == (100, 3)
    assert result.p50 == pytest.approx(49, abs=1) and result.p99 > 90
    assert summarize(10, {}).lost == 10 and summarize(10, {}).p50 is None
    assert summarize(2, {0: 0.001, 1: 0.001, 7: 0.1}).lost == 0


def test_frames_reach_another_process(node: Node) -> None:
    for _ in range(20):  # a busy machine may lose best effort frames
        result = exchange(node, 0.5)
        assert result.sent == 30
        if not result.lost:
            break
    assert result.lost == 0 and result.p50 > 0


def test_a_publisher_that_fails_is_reported(node: Node) -> None:
    with pytest.raises(RuntimeError, match='profile|Error|rmw'):
        exchange(node, 0.5, {'RMW_IMPLEMENTATION': 'rmw_that_does_not_exist'})


@pytest.mark.parametrize(('topic', 'kind', 'cameras', 'words'), [
    ('/image_raw', RAW, [('/cam/image_raw', RAW), ('/points/x', RAW)],
     'remap /image_raw to /cam/image_raw (the launch file: image_topic:=/cam/image_raw)'),
    ('/image_raw', RAW, [('/boson', RAW)],
     'remap /image_raw to /boson (the launch file: image_topic:=/boson)'),
    ('/image_raw', RAW, [('/cam/image_raw/compressed', COMPRESSED)],
     'set input_transport to compressed and image_topic to /cam/image_raw'),
    ('/image_raw/compressed', COMPRESSED, [('/cam/image_raw/compressed', COMPRESSED)],
     'remap /image_raw to /cam/image_raw (the launch file: image_topic:=/cam/image_raw)'),
    ('/image_raw/compressed', COMPRESSED, [('/cam/image_raw', RAW)],
     'set input_transport to raw and image_topic to /cam/image_raw'),
    ('/image_raw', RAW, [], 'start the camera driver, or remap the topic')])
def test_the_intended_topic_is_suggested(
    topic: str, kind: str, cameras: list[tuple[str, str]], words: str,
) -> None:
    check = unconnected(topic, kind, cameras)
    assert check.level == 'FAIL' and check.advice.endswith(words)


def test_a_remapping_to_the_compressed_topic_is_explained() -> None:
    check = wrong_type('/cam/image_raw/compressed', RAW, COMPRESSED)
    assert check.found == 'has CompressedImage, the detector expects Image'
    assert check.advice == 'set input_transport to compressed and image_topic to /cam/image_raw'
    check = wrong_type('/scan', RAW, 'sensor_msgs/msg/LaserScan')
    assert check.advice == 'it is not an image topic'


@pytest.mark.parametrize(('transport', 'topic', 'published', 'found', 'advice'), [
    ('raw', '/image_raw', CompressedImage, 'has CompressedImage, the detector expects Image',
     'set input_transport to compressed and image_topic to /image_raw, and remap '
     '/image_raw/compressed to /image_raw'),
    ('compressed', '/image_raw/compressed', Image,
     'has Image, the detector expects CompressedImage',
     'set input_transport to raw and image_topic to /image_raw/compressed')])
def test_a_topic_of_another_type_is_a_failure(
    start: Callable[..., Any], transport: str, topic: str, published: type, found: str,
    advice: str,
) -> None:
    with start(model_path=SHIPPED, threads=1, input_transport=transport) as client:
        client.wait(lambda: client.labels)
        client.node.destroy_publisher(client.images)
        client.wait(lambda: client.node.get_subscriptions_info_by_topic(topic))
        camera = client.node.create_publisher(published, topic, 10)
        client.node.create_timer(0.1, lambda: camera.publish(published()))
        checks = list(graph_checks(client.node, 1.0))
    heard, failure = (c for c in checks if c.name == topic)
    assert (heard.level, failure.level) == ('OK', 'FAIL') and ' at ' in heard.found
    assert failure.found == found and failure.advice == advice


@pytest.mark.parametrize(('state', 'level', 'found', 'advice'), [
    ('active', 'OK', 'active', ''),
    ('inactive', 'WARN', 'inactive', 'ros2 lifecycle set /d activate'),
    ('configuring', 'WARN', 'configuring', 'wait'),
    ('finalized', 'WARN', 'finalized', 'restart it'),
    ('', 'WARN', 'does not respond', 'check its log')])
def test_every_state_has_advice_that_works(
    state: str, level: str, found: str, advice: str,
) -> None:
    check = state_check('/d', state)
    assert (check.level, check.found) == (level, found) and advice in check.advice
    assert ('activate' in check.advice) == (state == 'inactive')


def test_images_without_an_encoding_are_reported(node: Node) -> None:
    for kind, topic in ((Image, 'raw'), (CompressedImage, 'compressed')):
        publisher = node.create_publisher(kind, topic, 10)
        node.create_timer(0.1, lambda p=publisher, k=kind: p.publish(k()))
    found = {c.name: c.found for c in graph_checks(node, 1.0)}
    assert 'Image no encoding at' in found['/raw']
    assert 'CompressedImage no encoding at' in found['/compressed']


def test_qos_that_never_matches_is_a_failure(node: Node) -> None:
    node.create_publisher(Image, 'a', qos_profile_sensor_data)
    node.create_publisher(Image, 'b', 10)
    for topic in 'ab':
        node.create_subscription(Image, topic, lambda _: None, QoSProfile(depth=1))
    node.create_subscription(Image, 'b', lambda _: None, QoSProfile(
        depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))

    def found(topic: str) -> list[str]:
        return [c.found for c in qos_checks(topic, node.get_publishers_info_by_topic(topic),
                                            node.get_subscriptions_info_by_topic(topic))]

    assert len(found('/a')) == len(found('/b')) == 1
    assert 'eliable' in found('/a')[0] and 'ransient local' in found('/b')[0]


def test_a_healthy_graph(start: Callable[..., Any]) -> None:
    with start(model_path=SHIPPED, threads=1) as client:
        client.wait_active()
        elsewhere = client.node.create_publisher(Image, 'boson/image_raw', 10)
        message = client.image(np.zeros((512, 640), np.uint16), 'mono16')
        client.node.create_timer(0.1, lambda: client.images.publish(message))
        checks = list(graph_checks(client.node, 2.0))
        by_name = {c.name: c for c in checks}
        assert not [c for c in checks if c.level == 'FAIL']
        assert 'Image mono16 at' in by_name['/image_raw'].found
        assert by_name['/boson/image_raw'].level == 'WARN'  # it publishes nothing
        assert by_name['/thermal_detector'].found == 'active'
        assert 'thermal_detector' in by_name['diagnostics'].found
        client.node.destroy_publisher(elsewhere)


def test_a_detector_that_waits_on_the_wrong_topic(
    start: Callable[..., Any], program: Callable[..., subprocess.CompletedProcess],
    tmp_path: Path,
) -> None:
    with start(model_path=SHIPPED, threads=1) as client:
        client.wait_active()
        client.node.destroy_publisher(client.images)
        camera = client.node.create_publisher(Image, 'boson/image_raw', 10)
        result = program('doctor', SHIPPED, '--seconds', 1, '--json', tmp_path / 'd.json')
        client.node.destroy_publisher(camera)
    assert result.returncode == 1, result.stdout + result.stderr
    report = json.loads((tmp_path / 'd.json').read_text())
    checks = {c['name']: c for c in report['checks']}
    assert checks['/image_raw']['level'] == 'FAIL'
    assert 'image_topic:=/boson/image_raw' in checks['/image_raw']['advice']
    assert ' of 60 640x512 16-bit frames lost' in checks['self-test']['found']
    assert checks['profile']['level'] == 'OK' and checks['inference']['level'] == 'OK'
    assert report['FAIL'] == sum(c['level'] == 'FAIL' for c in report['checks'])
    assert 'remap /image_raw to /boson/image_raw' in result.stdout


def test_a_debug_image_is_not_a_camera(start: Callable[..., Any]) -> None:
    with start(model_path=SHIPPED, threads=1) as client:
        client.wait_active()
        client.node.destroy_publisher(client.images)
        camera = client.node.create_publisher(Image, 'boson', 10)
        checks = {c.name: c for c in graph_checks(client.node, 1.0)}
        client.node.destroy_publisher(camera)
    assert '/boson' in checks and '/debug_image' not in checks
    assert checks['/image_raw'].level == 'FAIL'
    assert 'image_topic:=/boson' in checks['/image_raw'].advice


def test_a_tracker_is_found_and_its_picture_is_not_a_camera(track: Callable[..., Any]) -> None:
    with track() as client:
        client.wait(lambda: client.images.get_subscription_count())
        client.node.destroy_publisher(client.images)
        again = client.node.create_publisher(
            CompressedImage, '/target_tracker/debug_image/compressed', 10)
        camera = client.node.create_publisher(Image, 'boson', 10)
        checks = {c.name: c for c in graph_checks(client.node, 2.0)}
        picture = '/target_tracker/debug_image'
        assert {info.node_name for info in
                client.node.get_subscriptions_info_by_topic(picture)} == set()
        client.node.destroy_publisher(camera)
        client.node.destroy_publisher(again)
    assert '/boson' in checks and 'detector' not in checks
    assert not [name for name in checks if name.startswith(picture)]
    assert checks['/target_tracker'].found == 'active'
    assert 'target_tracker: ' in checks['diagnostics'].found
    assert checks['/image_raw'].level == 'FAIL'
    assert checks['/image_raw'].found == 'is an input of the tracker without publisher'
    assert 'image_topic:=/boson' in checks['/image_raw'].advice


def test_rgb_images_of_a_tracker_are_not_taken_for_its_thermal_camera(node: Node) -> None:
    found = FoundNode('/target_tracker', 'tracker', {'/image_raw': RAW, '/rgb': RAW},
                      {'/target_tracker/debug_image'}, set())
    statuses = {name: DiagnosticStatus(name=name, level=level, values=values) for name, level,
                values in (
        ('target_tracker: RGB', b'\1', [KeyValue(key='topic', value='/rgb')]),
        ('target_tracker: target 1', b'\2', []))}

    def checks() -> dict[str, Check]:
        return {c.name: c for c in node_checks(node, found, statuses, [('/rgb', RAW)])}

    assert checks()['/rgb'].level == 'WARN' and 'set rgb_topic' in checks()['/rgb'].advice
    assert checks()['/image_raw'].advice == 'start the camera driver, or remap the topic'
    assert checks()['diagnostics'].found.startswith('target_tracker: RGB')
    node.create_publisher(Image, '/rgb', 10)
    for _ in range(100):
        if '/rgb' not in checks():
            return
    pytest.fail('the publisher was not found')


def test_advice_for_an_inactive_detector(start: Callable[..., Any]) -> None:
    with start(model_path=SHIPPED, threads=1, autostart='false') as client:
        client.wait(lambda: client.statuses)
        checks = {c.name: c for c in graph_checks(client.node, 2.0)}
    assert checks['/thermal_detector'].found == 'unconfigured'
    assert 'ros2 lifecycle set /thermal_detector configure' in checks['/thermal_detector'].advice


def test_a_profile_that_is_not_there_is_a_failure(
    domain: int, program: Callable[..., subprocess.CompletedProcess], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in profile_variables(os.environ):
        monkeypatch.setenv(name, str(tmp_path / 'no.xml'))
    result = program('doctor', tmp_path / 'no.onnx', '--seconds', 0.5)
    assert result.returncode == 1 and 'no.xml: No such file' in result.stdout
    assert 'no.onnx' in result.stdout and 'Traceback' not in result.stderr


def test_two_nodes_of_one_name_are_reported(node: Node) -> None:
    from lifecycle_msgs.srv import GetState
    from vision_msgs.msg import Detection2DArray

    twins = [rclpy.create_node('twin') for _ in range(2)]
    for twin in twins:
        twin.create_publisher(Detection2DArray, 'detections', 10)
        twin.create_service(GetState, '~/get_state', lambda request, response: response)
    found = [check for check in graph_checks(node, 0.1) if 'have this name' in check.found]
    for twin in twins:
        twin.destroy_node()
    assert [(c.name, c.level, c.found[:7]) for c in found] == [('/twin', 'FAIL', '2 nodes')]
