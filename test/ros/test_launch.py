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

"""The launch files with the real `ros2 launch`, as users run them, if it is installed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import json
from pathlib import Path
import shutil
import signal
import subprocess
from typing import Any

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray
import yaml

pytest.importorskip('launch_ros', reason='launch is not installed (the wheels lack it)')
if shutil.which('ros2') is None:
    pytest.skip('there is no ros2 command', allow_module_level=True)
try:
    get_package_prefix('cgdet_ros')
except (LookupError, PackageNotFoundError):
    pytest.skip('cgdet_ros is not installed by colcon', allow_module_level=True)

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'thermal.onnx'
pytestmark = pytest.mark.ros


# The launch file of a system, in which launch replaces a lifecycle manager.
MANAGING = """
from cgdet_core.runtime.files import share_file
from launch import LaunchDescription
from launch.actions import EmitEvent, IncludeLaunchDescription, RegisterEventHandler
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition


def change(transition):
    return EmitEvent(event=ChangeState(
        lifecycle_node_matcher=lambda node: node.node_name == '/front/thermal_detector',
        transition_id=transition))


def generate_launch_description():
    return LaunchDescription([
        RegisterEventHandler(OnStateTransition(
            start_state='configuring', goal_state='inactive',
            entities=[change(Transition.TRANSITION_ACTIVATE)])),
        IncludeLaunchDescription(str(share_file('launch/thermal_detect.launch.py'))),
        change(Transition.TRANSITION_CONFIGURE)])
"""


def launch(file: str | Path, *arguments: Any, **options: Any) -> subprocess.Popen:
    package = [] if isinstance(file, Path) else ['cgdet_ros']
    return subprocess.Popen(['ros2', 'launch', *package, str(file), *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


@contextmanager
def detects(
    topics: dict[str, str], file: str | Path, *arguments: Any,
) -> Iterator[dict[str, list[Any]]]:
    """Launch, publish images until each detections topic has received a message, and stop."""
    process = launch(file, *arguments, f'model_path:={SHIPPED}')
    rclpy.init()
    node: Node = rclpy.create_node('test_client')
    frame = np.random.default_rng(0).integers(7000, 8000, (512, 640), np.uint16)
    received: dict[str, list[Any]] = {topic: [] for topic in topics.values()}
    publishers = []
    for camera, (image, detections) in enumerate(topics.items()):
        message = Image(height=512, width=640, encoding='mono16', step=1280)
        message.data = frame.tobytes()
        message.header.frame_id = f'camera{camera}'
        publishers.append((node.create_publisher(Image, image, 1), message))
        node.create_subscription(Detection2DArray, detections, received[detections].append, 10)
    try:
        for _ in range(600):
            if process.poll() is not None or all(received.values()):
                break
            for publisher, message in publishers:
                publisher.publish(message)
            rclpy.spin_once(node, timeout_sec=0.2)
        yield received
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert 'finished cleanly' in output and 'Traceback' not in output, output


def test_one_camera(domain: int) -> None:
    with detects({'/boson/raw': '/front/detections'}, 'thermal_detect.launch.py',
                 'image_topic:=/boson/raw', 'namespace:=front', 'autostart:=true') as received:
        assert received['/front/detections'][0].header.frame_id == 'camera0'


def test_a_launch_file_changes_the_nodes_state(domain: int, tmp_path: Path) -> None:
    file = tmp_path / 'managing.launch.py'
    file.write_text(MANAGING)
    with detects({'/image_raw': '/front/detections'}, file, 'image_topic:=/image_raw',
                 'namespace:=front', 'autostart:=false') as received:
        assert received['/front/detections']


def test_two_cameras_in_one_process(domain: int) -> None:
    topics = {'/left/thermal': '/left/detections', '/right/thermal': '/right/detections'}
    with detects(topics, 'multi_camera.launch.py', 'cameras:=left,right',
                 'image_topic:=thermal') as received:
        assert received['/left/detections'][0].header.frame_id == 'camera0'
        assert received['/right/detections'][0].header.frame_id == 'camera1'


@pytest.mark.parametrize(('arguments', 'words'), [
    (('thermal_detect.launch.py', 'params_file:=/no.yaml'), 'file /no.yaml does not exist'),
    (('multi_camera.launch.py', 'cameras:=,'), 'list of cameras is empty'),
    (('multi_camera.launch.py', 'cameras:=a,a'), 'camera a is listed twice'),
    (('multi_camera.launch.py',), "missing required argument 'cameras'"),
    (('evaluate_bag.launch.py', 'bag:=/no_bag', 'data:=/no.json'), 'bag /no_bag does not exist')])
def test_wrong_arguments_are_one_sentence(
    domain: int, arguments: tuple[str, ...], words: str,
) -> None:
    process = launch(*arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and words in output and 'Traceback (' not in output


def score(bag: Path, scenes: Path, out: Path, *arguments: str) -> dict[str, Any]:
    """Launch an evaluation of the shipped model and return its report."""
    process = launch('evaluate_bag.launch.py', f'bag:={bag}', f'data:={scenes}',
                     f'model_path:={SHIPPED}', f'output:={out}', *arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and 'frames processed' in output, output
    return json.loads((out / 'report.json').read_text())


def test_a_bag_is_scored(domain: int, bag: Path, scenes: Path, tmp_path: Path) -> None:
    report = score(bag, scenes, tmp_path / 'out', 'rate:=0.5')
    assert report['frames sent'] == 12 and 0 < report['AP'] <= 1


def test_a_compressed_bag_is_scored_whatever_a_robots_parameters_are(
    domain: int, bag: Path, write_compressed: Callable[..., Path], scenes: Path, tmp_path: Path,
) -> None:
    compressed = write_compressed(tmp_path / 'compressed')
    metadata = [yaml.safe_load((b / 'metadata.yaml').read_text()) for b in (bag, compressed)]
    information = [m['rosbag2_bagfile_information'] for m in metadata]
    information[1]['custom_data'] = information[0]['custom_data']
    (compressed / 'metadata.yaml').write_text(yaml.safe_dump(metadata[1]))
    params = tmp_path / 'robot.yaml'
    params.write_text(yaml.safe_dump({'/**': {'ros__parameters': {
        'cameras': ['front', 'rear'], 'input_transport': 'raw', 'max_image_age_s': 0.001,
        'track': True, 'class_thresholds': {'person': 1.0, 'bicycle': 1.0, 'car': 1.0}}}}))
    report = score(compressed, scenes, tmp_path / 'out', 'rate:=0.5', f'params_file:={params}')
    assert report['frames processed'] > 0 and report['AP'] > 0


def test_an_evaluation_that_fails_fails_the_launch(
    domain: int, bag: Path, tmp_path: Path,
) -> None:
    data = tmp_path / 'data.json'
    data.write_text('no JSON')
    process = launch('evaluate_bag.launch.py', f'bag:={bag}', f'data:={data}')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and 'failed, exit status' in output
