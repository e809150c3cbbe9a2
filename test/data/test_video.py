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

"""Writing videos: sizes, rates, interruptions, a full disk."""

from collections.abc import Iterator
from pathlib import Path
import resource
import sys

from cgdet_core.data.video import open_video, video_advice
from cgdet_core.errors import UserError
import cv2
import numpy as np
from numpy.typing import NDArray
import pytest


@pytest.fixture(params=['PyAV', 'OpenCV'], autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == 'PyAV':
        pytest.importorskip('av')
    else:
        monkeypatch.setitem(sys.modules, 'av.codec', None)
    assert ('pip install av' in video_advice()) == (request.param == 'OpenCV')


@pytest.fixture()
def small_disk() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read(path: Path) -> tuple[list[NDArray[np.uint8]], float]:
    """Return a video's frames and its rate."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        frames.append(found[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize('size', [(128, 160), (125, 161), (60, 80)])
def test_a_video_holds_its_frames_at_its_rate(tmp_path: Path, size: tuple[int, int]) -> None:
    with open_video(tmp_path / 'new' / 'a.mp4', 29.97) as write:
        for level in range(0, 250, 10):
            write(np.full((*size, 3), level, np.uint8))
        write(np.full((300, 300, 3), 250, np.uint8))  # another size
    frames, rate = read(tmp_path / 'new' / 'a.mp4')
    assert rate == pytest.approx(29.97) and len(frames) == 26
    for i, frame in enumerate(frames):
        assert frame.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        assert abs(frame.mean() - 10 * i) < 8


def test_an_interrupted_video_holds_what_was_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_video(tmp_path / 'a.mp4', 10) as write:
        for _ in range(3):
            write(np.zeros((60, 80, 3), np.uint8))
        raise KeyboardInterrupt
    assert len(read(tmp_path / 'a.mp4')[0]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    with open_video(tmp_path / 'a.mp4', 10):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures('small_disk')
def test_a_full_disk_is_an_error_that_names_the_video(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, 256, 320, 3), np.uint8)
    with pytest.raises((OSError, UserError)) as caught, \
            open_video(tmp_path / 'a.mp4', 10) as write:
        for frame in noise:
            write(frame)
    assert str(tmp_path / 'a.mp4') in str(caught.value)
    assert not list(tmp_path.iterdir())
