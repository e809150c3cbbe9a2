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
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
from typing import Any

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
import numpy as np
import pytest
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from sensor_msgs.msg import Image
from two_cameras import scene, START, THERMAL, write_two_cameras
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
    (('thermal_detect.launch.py', 'params_file:=/tmp'), 'file /tmp is a folder; name a file'),
    (('thermal_detect.launch.py', 'model_path:=~/no.onnx'), 'model ~/no.onnx does not exist'),
    (('thermal_detect.launch.py', 'model:=/no.onnx'),
     'model:= is not an argument of thermal_detect.launch.py; --show-args lists them.'),
    (('thermal_detect.launch.py', 'autostart:=banana'), 'autostart:=banana is neither true nor'),
    (('thermal_detect.launch.py', 'image_topic:=/cam/'), 'image_topic:=/cam/ is not valid: topic'),
    (('thermal_detect.launch.py', 'node_name:=a-b'), 'node_name:=a-b is not valid: node name'),
    (('thermal_detect.launch.py', 'score_threshold:=low'), 'score_threshold:=low is not a number'),
    (('thermal_detect.launch.py', 'log_level:=loud'), 'log_level:=loud is not one of debug'),
    (('thermal_detect.launch.py', 'image_transport:=raw', 'image_topic:=/a/compressed'),
     'image_topic:=/a/compressed has compressed images'),
    (('track_target.launch.py', 'max_targets:=2.5'), 'max_targets:=2.5 is not a whole number'),
    (('track_target.launch.py', 'detector_model_path:=~/no.onnx'), '~/no.onnx does not exist'),
    (('track_target.launch.py', 'rgb_topic:=/cam/'), 'rgb_topic:=/cam/ is not valid: topic'),
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


# A system that sets parameters for all its nodes and includes our launch file.
INCLUDING = """
from cgdet_core.runtime.files import share_file
from launch import LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch_ros.actions import SetParameter


def generate_launch_description():
    return LaunchDescription([
        SetParameter('score_threshold', 0.75), SetParameter('crop_top', 4),
        IncludeLaunchDescription(str(share_file('launch/thermal_detect.launch.py')))])
"""


def parameters_of(file: str | Path, node: str, names: list[str], *arguments: str) -> list[Any]:
    """Return parameters of a node that is launched unconfigured, and stop it."""
    process = launch(file, *arguments, 'autostart:=false')
    rclpy.init()
    client_node: Node = rclpy.create_node('test_client')
    client = client_node.create_client(GetParameters, f'{node}/get_parameters')
    try:
        while not client.wait_for_service(1.0):
            assert process.poll() is None, process.communicate()[0]
        future = client.call_async(GetParameters.Request(names=names))
        rclpy.spin_until_future_complete(client_node, future, timeout_sec=120)
        return [parameter_value_to_python(v) for v in future.result().values]
    finally:
        client_node.destroy_node()
        rclpy.try_shutdown()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_parameters_of_an_including_launch_file_win(domain: int, tmp_path: Path) -> None:
    file, names = tmp_path / 'system.launch.py', ['score_threshold', 'crop_top', 'threads']
    file.write_text(INCLUDING)
    assert parameters_of(file, '/thermal_detector', names) == [0.75, 4, 0]
    # What is typed wins over both; an argument that is not ours may be another file's.
    params = tmp_path / 'robot.yaml'
    params.write_text(yaml.safe_dump({'/**': {'ros__parameters': {
        'score_threshold': 0.5, 'crop_top': 8, 'threads': 1}}}))
    assert parameters_of(file, '/thermal_detector', names, f'params_file:={params}',
                         'score_threshold:=1', 'robot:=a') == [1.0, 8, 1]


def test_arguments_reach_the_node(domain: int) -> None:
    names = ['use_sim_time', 'backend', 'image_transport', 'autostart']
    assert parameters_of(
        'thermal_detect.launch.py', '/eyes/night', names, 'namespace:=eyes', 'node_name:=night',
        'use_sim_time:=true', 'backend:=onnxruntime', 'image_topic:=/cam/image_raw/compressed',
    ) == [True, 'onnxruntime', 'compressed', False]


def test_arguments_reach_the_tracker(domain: int) -> None:
    names = ['max_targets', 'detector_model_path', 'rgb_topic', 'image_transport', 'backend']
    assert parameters_of(
        'track_target.launch.py', '/eyes/target_tracker', names, 'namespace:=eyes',
        'max_targets:=3', 'detector_model_path:=none', 'rgb_topic:=/rgb', 'backend:=onnxruntime',
        'image_topic:=/cam/image_raw/compressed') == [3, '', '/rgb', 'compressed', 'onnxruntime']
    assert parameters_of('track_target.launch.py', '/target_tracker', names[:2]) == [1, 'shipped']


def test_a_node_that_died_fails_the_launch(domain: int, tmp_path: Path) -> None:
    params = tmp_path / 'wrong.yaml'
    params.write_text(yaml.safe_dump({'/**': {'ros__parameters': {'threads': 'many'}}}))
    process = launch('thermal_detect.launch.py', f'params_file:={params}')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and 'died, exit status' in output, output
    # Another process of the launch goes on, if the node is not required.
    file = tmp_path / 'system.launch.py'
    file.write_text(INCLUDING.replace('LaunchDescription([\n', """LaunchDescription([
        ExecuteProcess(cmd=['sleep', '1000'], name='camera', output='screen'),
"""))
    process = launch(file, f'params_file:={params}', 'required:=true')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and 'died, exit status' in output, output
    process = launch(file, f'params_file:={params}')
    assert process.stdout is not None
    assert any('died, exit status' in line for line in process.stdout) and process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_a_killed_node_is_started_again(domain: int) -> None:
    process = launch('thermal_detect.launch.py', 'respawn:=true')
    assert process.stdout is not None
    pids: list[int] = []
    for line in process.stdout:
        if found := re.search(r'process started with pid .(\d+)', line):
            pids.append(int(found[1]))
            if len(pids) == 1:
                os.kill(pids[0], signal.SIGKILL)
        # Not earlier: launch may lose a Ctrl-C in the moment in which it starts a process again.
        if len(pids) == 2 and 'active: ' in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert len(set(pids)) == 2 and process.returncode == 0


def score(bag: Path, scenes: Path, out: Path, *arguments: str) -> dict[str, Any]:
    """Launch an evaluation of the shipped model and return its report."""
    process = launch('evaluate_bag.launch.py', f'bag:={bag}', f'data:={scenes}',
                     f'model_path:={SHIPPED}', f'output:={out}', *arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and 'frames processed' in output, output
    assert len(output.splitlines()) < 60, output  # no line for each step of a progress bar
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
        'cameras': ['front', 'rear'], 'image_transport': 'raw', 'max_image_age_s': 0.001,
        'track': True, 'class_names': True, 'while_shutter_closed': 'skip',
        'class_thresholds': {'person': 1.0, 'bicycle': 1.0, 'car': 1.0}}}}))
    report = score(compressed, scenes, tmp_path / 'out', 'rate:=0.5', f'params_file:={params}')
    assert report['frames processed'] > 0 and report['AP'] > 0


def test_a_bag_of_two_cameras_requires_a_topic(
    domain: int, scenes: Path, tmp_path: Path,
) -> None:
    bag = write_two_cameras(tmp_path / 'two', {START: scene(0)}, {START: scene(1)})
    process = launch('evaluate_bag.launch.py', f'bag:={bag}', f'data:={scenes}')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and 'choose one. (topic:=)' in output
    process = launch('evaluate_bag.launch.py', f'bag:={bag}', f'data:={scenes}',
                     f'topic:={THERMAL}')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and 'can be matched to' in output  # the topic is accepted


def test_an_evaluation_that_fails_fails_the_launch(
    domain: int, bag: Path, tmp_path: Path,
) -> None:
    data = tmp_path / 'data.json'
    data.write_text('no JSON')
    process = launch('evaluate_bag.launch.py', f'bag:={bag}', f'data:={data}')
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and 'failed, exit status' in output
