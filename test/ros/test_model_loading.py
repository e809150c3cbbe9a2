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

"""Loading a model: its progress, and stopping it."""

from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys
from threading import Thread
from time import sleep

from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.tensorrt.cache import EngineCache, LOCK, Progress
from cgdet_ros.node.loading import Loading, Stopped
import pytest

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], 'w')
fcntl.flock(file, fcntl.LOCK_EX)
print('locked', flush=True)
time.sleep(600)
"""


def loading_of(model: object = '') -> Loading[Detector]:
    def load(progress: Progress) -> Detector:
        return Detector.load(str(model), 1, 'onnxruntime', progress)

    return Loading(load)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[EngineCache]:
    """Return an engine cache in which another process is building."""
    cache = EngineCache(tmp_path / 'cache')
    cache.folder.mkdir(mode=0o700)
    other = subprocess.Popen([sys.executable, '-c', HOLD, cache.folder / LOCK],
                             stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == 'locked\n'
        yield cache
    finally:
        other.kill()
        other.wait()


def test_waiting_for_an_engine_is_reported_and_ends_when_stopped(busy: EngineCache) -> None:
    loading, ended = loading_of(), []

    def wait() -> None:
        try:
            with busy.lock(loading._progress):
                ended.append('locked')
        except Stopped:
            ended.append('stopped')

    thread = Thread(target=wait)
    assert loading.state == 'loading'
    thread.start()
    while loading.state == 'loading' and thread.is_alive():
        sleep(0.01)
    assert loading.state == 'building engine' and loading.elapsed() > 0
    loading.stop()
    thread.join(30)
    assert ended == ['stopped']


def test_a_model_that_was_stopped_is_not_used(toy: Path) -> None:
    loading = loading_of(toy)
    assert loading.run().card.name == 'toy'
    loading.stop()
    with pytest.raises(Stopped):
        loading.run()
    with pytest.raises(UserError, match='does not exist'):
        loading_of('no.onnx').run()
