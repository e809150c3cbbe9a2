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

"""What other programs send does not end the node, and nothing that fails stays unsaid."""

from collections.abc import Callable
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from toy_models import gray, write_model

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ros
Start = Callable[..., Any]
OK, WARN, ERROR = b'\0', b'\1', b'\2'


def test_an_invalid_clock_is_ignored(start: Start, toy: Path) -> None:
    from rosgraph_msgs.msg import Clock
    with start(model_path=toy, use_sim_time='true') as client:
        clock = client.node.create_publisher(Clock, '/clock', 10)
        client.wait_active()
        client.wait(clock.get_subscription_count)
        message = Clock()
        for second in (-1, -2**31):
            message.clock.sec = second
            clock.publish(message)
        client.wait(lambda: 'a message on /clock is ignored' in client.log.read_text())
        image = client.image(gray(0.5), 'mono8')
        message.clock.sec = image.header.stamp.sec + 2
        message.clock.nanosec = image.header.stamp.nanosec

        def aged() -> bool:
            clock.publish(message)
            client.images.publish(image)
            return any(s.get('image age s') == '2.000' for s in client.statuses)

        client.wait(aged)  # the next clock is used


def test_a_bad_image_is_an_error_until_a_good_one(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        client.images.publish(client.image(gray(0.5), 'strange'))
        client.status("'strange' is none of ROS", of='camera', failed='1')
        long = client.image(gray(0.5), 'mono8')
        long.header.frame_id = 'x' * 2**20
        client.images.publish(long)
        status = client.status('the frame_id has 1048576 characters', of='camera', failed='2')
        assert status['level'] == ERROR and len(status['hardware']) <= 256
        log = client.log.read_text()
        assert 'is none of ROS' in log and 'the frame_id has' in log, 'throttled by kind'
        client.send(client.image(gray(0.5), 'mono8'))
        status = client.status('running', of='camera', processed='1')
        assert status['last error'] == '' and status['last error time']


def test_a_camera_with_dead_pixels_is_not_blind(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        frame = np.full((64, 64), 0.5, np.float32)
        whole = client.send(client.image(frame, '32FC1'))
        frame[10, 10], frame[40] = np.inf, np.nan
        client.images.publish(client.image(frame, '32FC1'))
        client.status('65 of 4096 pixels are NaN or infinite', of='camera', failed='1')
        assert client.set_parameter('max_dead_share', 0.02).successful
        found = client.send(client.image(frame, '32FC1'))
        assert [d.bbox for d in found.detections] == [d.bbox for d in whole.detections]
        assert client.status('running', of='camera', processed='2')['dead pixels'] == '65'


def test_a_model_that_returns_nan_is_an_error(start: Start, tmp_path: Path) -> None:
    with start(model_path=write_model(tmp_path / 'model.onnx', nan_above=0.9)) as client:
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        client.images.publish(client.image(gray(1.0), 'mono8'))
        status = client.status('values that are not numbers', of='camera', failed='1')
        assert status['level'] == ERROR
        client.send(client.image(gray(0.5), 'mono8'))
        assert client.status('running', of='camera', processed='2')['level'] == OK


def test_a_model_that_only_returns_nan_is_refused(start: Start, tmp_path: Path) -> None:
    with start(model_path=write_model(tmp_path / 'model.onnx', nan_above=-1.0)) as client:
        status = client.status('NaN', of='detector')
        assert status['level'] == ERROR
        client.wait_for_state('unconfigured')


def test_each_parameter_of_a_request_has_its_own_result(start: Start, toy: Path) -> None:
    from rcl_interfaces.msg import Parameter as Message
    from rcl_interfaces.msg import ParameterValue
    from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
    from rclpy.parameter import Parameter, parameter_value_to_python
    strange = Message(name='threads', value=ParameterValue(type=200))
    with start(model_path=toy) as client:
        client.wait_active()

        def value(name: str) -> Any:
            return parameter_value_to_python(client.call(
                'get_parameters', GetParameters.Request(names=[name])).values[0])

        good, later = (Parameter(name, value=value).to_parameter_msg() for name, value in (
            ('score_threshold', 0.75), ('max_failures', 7)))
        results = client.call('set_parameters', SetParameters.Request(
            parameters=[good, strange, later])).results
        assert [r.successful for r in results] == [True, False, True] and results[1].reason
        assert (value('score_threshold'), value('max_failures')) == (0.75, 7)
        good.value.double_value = 0.5
        result = client.call('set_parameters_atomically', SetParametersAtomically.Request(
            parameters=[good, strange])).result
        assert not result.successful and result.reason and value('score_threshold') == 0.75


def test_a_node_loads_its_own_dump_while_active(start: Start, toy: Path) -> None:
    from cgdet_ros.detection.parameters import SPECS
    from rcl_interfaces.msg import Parameter as Message
    from rcl_interfaces.srv import GetParameters, SetParameters
    names = [s.name for s in SPECS] + ['class_thresholds.person']
    with start(model_path=toy, cameras=('front', 'rear'), crop_left=2) as client:
        client.wait_active()
        values = client.call('get_parameters', GetParameters.Request(names=names)).values
        results = client.call('set_parameters', SetParameters.Request(parameters=[
            Message(name=n, value=v) for n, v in zip(names, values)])).results
        assert [n for n, r in zip(names, results) if not r.successful] == []
        assert not client.set_parameter('threads', 3).successful, 'another value is refused'


@pytest.mark.parametrize(('arguments', 'words'), [
    (['--help'], 'score_threshold'), (['--bogus'], "unknown argument '--bogus'")])
def test_arguments_that_are_not_ros_arguments(
    domain: int, arguments: list[str], words: str,
) -> None:
    result = subprocess.run([sys.executable, '-m', 'cgdet_ros.detector_node', *arguments],
                            capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == (0 if arguments == ['--help'] else 1)
    assert words in result.stdout + result.stderr and 'Traceback' not in result.stderr


@pytest.mark.parametrize('program', ['detector_node', 'tracker_node', 'tools.play'])
@pytest.mark.parametrize(('option', 'value', 'words'), [
    ('--params-file', 'absent.yaml', 'name a YAML file'),
    ('--params-file', 'cut.yaml', 'near line 3); name a YAML file'),
    ('-r', '__ns:=/a b', 'write -r FROM:=TO'), ('-r', 'image_raw:=/a b', 'write -r FROM:=TO'),
    ('-p', 'threads', 'write -p NAME:=VALUE'), ('--log-level', 'loud', 'write debug, info'),
    ('--bogus', '', '--bogus')])
def test_wrong_ros_arguments_are_one_sentence(
    domain: int, tmp_path: Path, program: str, option: str, value: str, words: str,
) -> None:
    (tmp_path / 'cut.yaml').write_text('/**:\n  ros__parameters:\n    threads: [1,\n')
    result = subprocess.run(
        [sys.executable, '-m', f'cgdet_ros.{program}', *(['bag'] if 'play' in program else []),
         '--ros-args', option, *filter(None, [value])],
        capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])})
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    name = {'detector_node': 'thermal_detector', 'tracker_node': 'target_tracker'}.get(
        program, 'cgdet')
    assert last.startswith(f'{name}: ') and words in last
    assert 'lexeme' not in last and '.c:' not in last


@pytest.mark.parametrize(('given', 'words'), [
    ('cameras:=front', 'write [front]'), ('threads:=two', 'write a whole number'),
    ('model_path:=5', 'write it in quotes'), ('track:=1', 'write true or false')])
def test_a_parameter_of_the_wrong_type_says_what_to_write(
    domain: int, given: str, words: str,
) -> None:
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.detector_node', '--ros-args', '-p', given],
        capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert words in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize('enclaves', [True, False])
def test_security_that_cannot_be_used_is_one_sentence(
    domain: int, tmp_path: Path, enclaves: bool,
) -> None:
    if enclaves:
        (tmp_path / 'enclaves').mkdir()
        for name in ('identity_ca.cert.pem', 'cert.pem', 'key.pem', 'permissions_ca.cert.pem',
                     'governance.p7s', 'permissions.p7s'):
            (tmp_path / 'enclaves' / name).write_text('damaged')
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.detector_node'], capture_output=True, text=True,
        cwd=ROOT, env=os.environ | {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY':
                                    'Enforce', 'ROS_SECURITY_KEYSTORE': str(tmp_path)})
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith('thermal_detector: ') and 'ROS_SECURITY_ENABLE is true' in last
    assert 'docs/sros2.md' in last and '.cpp' not in last


def test_a_shutter_topic_that_tells_nothing_is_a_warning(start: Start, toy: Path) -> None:
    from std_msgs.msg import Bool, UInt8
    with start(model_path=toy, ffc_topic='flag_state') as client:
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        status = client.status('ffc_topic flag_state has no publisher', of='camera')
        assert status['level'] == WARN
        other = client.node.create_publisher(UInt8, 'flag_state', 10)
        client.status('has std_msgs/msg/UInt8, not std_msgs/msg/Bool', of='camera')
        client.node.destroy_publisher(other)
        client.node.create_publisher(Bool, 'flag_state', 10)
        client.status('running', of='camera')
