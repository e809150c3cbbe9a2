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

"""Fixtures: real rclpy, real DDS between processes, one ROS domain per test."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import fcntl
import importlib.util
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import tempfile
from typing import Any

from cgdet_ros.doctor.transport import profile_variables
import numpy as np
import pytest
from ros_client import Client, TIMEOUT_S

ROOT = Path(__file__).resolve().parents[2]
# The wheels' rclpy restarts the interpreter to set its library path, but not inside pytest.
UNPREPARED = (importlib.util.find_spec('ros_wheels_bootstrapper') is not None
              and '_ROS_WHEELS_BOOTSTRAP_COMPLETE' not in os.environ)
if UNPREPARED or importlib.util.find_spec('rclpy') is None:
    collect_ignore_glob = ['test_*.py']
# From 102 on a domain's ports are among those that Linux uses for outgoing connections.
DOMAINS = 101


def pytest_report_header() -> str | None:
    """Report why the ROS tests are not collected."""
    if UNPREPARED:
        return 'ROS tests are skipped: run ". .venv/bin/ros_env.sh" first, or "make test"'
    if importlib.util.find_spec('rclpy') is None:
        return 'ROS tests are skipped: rclpy is not installed'
    return None


@pytest.fixture(scope='session')
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a toy model, which detects four objects in every frame."""
    from toy_models import write_model
    return write_model(tmp_path_factory.mktemp('toy') / 'toy.onnx')


@pytest.fixture
def bag(run_cgdet: Callable[..., subprocess.CompletedProcess], scenes: Path, tmp_path: Path,
        ) -> Path:
    """Return twelve 16-bit frames at 5 Hz."""
    result = run_cgdet('bag', 'from-coco', scenes, tmp_path / 'bag', '--rate', 5)
    assert result.returncode == 0, result.stderr
    return tmp_path / 'bag'


@pytest.fixture
def write_compressed(bag: Path) -> Callable[..., Path]:
    """Return a function that writes the same frames as CompressedImage, by default PNG."""
    import cv2
    from rosbags.highlevel import AnyReader
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import get_typestore, Stores

    def png(frame: np.ndarray) -> bytes:
        return cv2.imencode('.png', frame)[1].tobytes()

    def write(path: Path, encode: Callable[[np.ndarray], bytes] = png) -> Path:
        store = get_typestore(Stores.ROS2_JAZZY)
        kind = 'sensor_msgs/msg/CompressedImage'
        with AnyReader([bag], default_typestore=store) as reader, Writer(
                path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            topic = writer.add_connection('/cam/image_raw/compressed', kind, typestore=store)
            for connection, time, raw in reader.messages():
                image = reader.deserialize(raw, connection.msgtype)
                frame = image.data.view(np.uint16).reshape(image.height, image.width)
                message = store.types[kind](
                    header=image.header, format='mono16; png compressed ',
                    data=np.frombuffer(encode(frame), np.uint8))
                writer.write(topic, time, store.serialize_cdr(message, kind))
        return path

    return write


# Found here, as a test may leave the documented one among the imported modules.
CV_BRIDGE = importlib.util.find_spec('cv_bridge') is not None


@pytest.fixture
def cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes find cv_bridge: the installed one, or its documented conversions."""
    if not CV_BRIDGE:
        paths = str(Path(__file__).parent / 'documented'), os.environ.get('PYTHONPATH', '')
        monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, paths)))
        monkeypatch.syspath_prepend(paths[0])


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Isolate the test's ROS graph, also from other suites here; use the shipped profile."""
    with reserved_domain() as number:
        monkeypatch.setenv('ROS_DOMAIN_ID', str(number))
        monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        for name in profile_variables(os.environ):
            monkeypatch.setenv(name, str(ROOT / 'config' / 'fastdds.xml'))
        yield number


@contextmanager
def reserved_domain() -> Iterator[int]:
    """Reserve a random ROS domain among all suites and workers of this machine."""
    for number in random.sample(range(1, DOMAINS + 1), DOMAINS):
        try:
            lock = open(Path(tempfile.gettempdir(), f'cgdet_ros_domain_{number}'), 'a')
        except OSError:  # another user's
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield number
            return
    raise RuntimeError(f'all {DOMAINS} ROS domains are in use')


@pytest.fixture
def create_node(domain: int) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a node, by default of a name, destroyed after the test."""
    import rclpy

    rclpy.init()
    nodes: list[Any] = []

    def create(*name: str, kind: Callable[..., Any] = rclpy.create_node, **options: Any) -> Any:
        nodes.append(kind(*name, **options))
        return nodes[-1]

    yield create
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def start(domain: int, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """
    Start detector nodes with parameters; each is ended by Ctrl-C, without a traceback.

    cameras: their names; one without a name by default. reliable: subscribe to images so that
    none is lost during discovery. kind: of the client, which names the node. program: the program
    to run. no_input_warn_s is an hour by default, and backend is onnxruntime if there is a
    model_path.
    """
    import rclpy

    @contextmanager
    def running(
        cameras: Sequence[str] = ('',), reliable: bool = True,
        program: Sequence[object] = (), kind: type[Client] = Client, **parameters: Any,
    ) -> Iterator[Client]:
        parameters.setdefault('no_input_warn_s', 3600.0)
        if 'model_path' in parameters:  # toy models fail and hang as they do in ONNX Runtime
            parameters.setdefault('backend', 'onnxruntime')
        if any(cameras):
            parameters['cameras'] = f'[{", ".join(cameras)}]'
        compressed = parameters.get('input_transport') == 'compressed'
        for camera in cameras if reliable else ():
            topic = f'/{camera}/image_raw'.replace('//', '/') + '/compressed' * compressed
            parameters.setdefault(f'qos_overrides.{topic}.subscription.reliability', 'reliable')
        arguments = [a for k, v in parameters.items() for a in ('-p', f'{k}:={v}')]
        log = tmp_path / f'node{len(list(tmp_path.glob("node*.log")))}.log'
        with open(log, 'w') as stream:
            process = subprocess.Popen(
                [sys.executable, *map(str, program or ('-m', kind.PROGRAM)), '--ros-args',
                 *arguments],
                cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        rclpy.init()
        client = kind(process, log, cameras)
        try:
            yield client
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_S) == 0, log.read_text()
            assert 'Traceback' not in log.read_text()
        finally:
            process.kill()
            process.wait()
            client.node.destroy_node()
            rclpy.try_shutdown()

    yield running


@pytest.fixture(scope='session')
def toy_tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tracker that follows what is warm."""
    from warm_tracker import write_tracker
    return write_tracker(tmp_path_factory.mktemp('toy') / 'toy_tracker.onnx')


@pytest.fixture
def track(start: Callable[..., Any], toy_tracker: Path) -> Callable[..., Any]:
    """Return a function that starts a tracker node, without a detector by default."""
    from tracker_client import TrackerClient

    def begin(**parameters: Any) -> Any:
        return start(kind=TrackerClient, **{
            'model_path': toy_tracker, 'detector_model_path': '""', **parameters})
    return begin
