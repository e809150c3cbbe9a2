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

"""A node that is killed while it builds an engine does not affect the next start."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
import os
from pathlib import Path
import subprocess
import sys
import time

from cgdet_core.runtime.tensorrt.cache import EngineCache, LOCK
from cgdet_core.runtime.tensorrt.engine_file import read_engine
from diagnostic_msgs.msg import DiagnosticArray
import pytest
import rclpy

PROGRAM = Path(__file__).with_name('simulated_gpu_node.py')
ROOT = PROGRAM.parents[2]
PATIENCE_S = 120.0
BUILT, ACTIVE = 'was built in', 'on TensorRT-RTX'
Run = Callable[[float], AbstractContextManager[tuple[subprocess.Popen, Path]]]


@pytest.fixture
def building_node(domain: int, toy: Path, tmp_path: Path) -> Run:
    """Return a function that runs the node; each step of its builder takes step_s seconds."""
    pytest.importorskip('tensorrt_rtx', reason='TensorRT-RTX is not installed here')

    @contextmanager
    def run(step_s: float) -> Iterator[tuple[subprocess.Popen, Path]]:
        log = tmp_path / f'node{len(list(tmp_path.glob("node*.log")))}.log'
        folders = [str(ROOT), str(ROOT / 'test' / 'runtime'), os.environ.get('PYTHONPATH', '')]
        with open(log, 'w') as stream:
            process = subprocess.Popen(
                [sys.executable, PROGRAM, '--ros-args', '-p', f'model_path:={toy}',
                 '-p', 'backend:=tensorrt_rtx'],
                cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env={
                    **os.environ, 'PYTHONPATH': os.pathsep.join(folders),
                    'CGDET_ENGINE_CACHE': str(tmp_path / 'cache'),
                    'SIMULATED_MODEL': str(toy), 'SIMULATED_STEP_S': str(step_s)})
        try:
            yield process, log
        finally:
            process.kill()
            process.wait()

    return run


def wait_for_state(wanted: str) -> None:
    """Wait until /diagnostics contains the state."""
    seen: list[str] = []

    def hear(message: DiagnosticArray) -> None:
        seen.extend(v.value for s in message.status for v in s.values if v.key == 'state')

    rclpy.init()
    node = rclpy.create_node('test_client')
    try:
        node.create_subscription(DiagnosticArray, '/diagnostics', hear, 10)
        end = time.monotonic() + PATIENCE_S
        while wanted not in seen:
            assert time.monotonic() < end, seen
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def wait_active(log: Path) -> str:
    """Return the log of a node when it has loaded its model."""
    end = time.monotonic() + PATIENCE_S
    while ACTIVE not in (text := log.read_text()):
        assert time.monotonic() < end, text
        time.sleep(0.1)
    return text


def test_a_killed_build_leaves_no_partial_engine_and_no_lock(
    building_node: Run, tmp_path: Path,
) -> None:
    cache = EngineCache(tmp_path / 'cache')
    with building_node(600.0) as (process, log):
        wait_for_state('building engine')
        process.kill()
        process.wait()
        assert BUILT not in log.read_text()
    assert [path.name for path in cache.folder.iterdir()] == [LOCK]
    with building_node(0.0) as (_, log):
        text = wait_active(log)
    assert BUILT in text and 'another process' not in text
    engines = cache.files()
    assert len(engines) == 2 and not cache.leftovers()  # the engine and its kernels
    assert all(read_engine(path).payload for path in engines)
    with building_node(600.0) as (_, log):
        assert BUILT not in wait_active(log)
    assert cache.files() == engines
