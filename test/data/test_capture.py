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

"""Images of videos: their depth, their end, and their names."""

from fractions import Fraction
import os
from pathlib import Path

from cgdet_core.data.capture import images, open_capture
from cgdet_core.data.sources import open_path
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest

CODECS = {'.avi': 'MJPG', '.mp4': 'mp4v', '.mov': 'mp4v', '.mkv': 'MJPG'}


def write(path: Path, frames: int, code: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 10, (160, 128))
    noise = np.random.default_rng(0).integers(0, 255, (128, 160, 3)).astype(np.uint8)
    for i in range(frames):
        writer.write(np.roll(noise, i, 1))
    writer.release()
    return path


@pytest.mark.parametrize('suffix', ['.avi', '.mkv'])
def test_counts_of_16_bits_survive(suffix: str, tmp_path: Path) -> None:
    av = pytest.importorskip('av', reason='PyAV writes the video')
    counts = np.random.default_rng(0).integers(27_000, 30_000, (3, 48, 64)).astype(np.uint16)
    path = tmp_path / f'counts{suffix}'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', 10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'gray16le'
        for frame in counts:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'gray16le')))
        container.mux(stream.encode(None))
    found = [frame.pixels for frame in open_path(path).frames]
    np.testing.assert_array_equal(found, counts)
    assert found[0].dtype == np.uint16


@pytest.mark.parametrize(('pixels', 'said'), [
    ('gray10le', True), ('gray12le', True), ('yuv420p10le', True), ('gray', False),
    ('yuv420p', False), ('bgr0', False), ('rgb48le', True), ('yuv444p', False)])
def test_a_depth_that_is_lost_is_said(
    pixels: str, said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    av = pytest.importorskip('av', reason='PyAV writes the video')
    path = tmp_path / 'deep.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', 10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        frame = av.VideoFrame.from_ndarray(np.full((48, 64), 9, np.uint8), 'gray')
        container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode(None))
    assert len(list(open_path(path).frames)) == 1
    assert caplog.text.count(f'{path} has more than 8 bits') == said


@pytest.mark.parametrize('suffix', CODECS)
@pytest.mark.parametrize('frames', [1, 8, 60])
def test_a_whole_video_ends_without_an_error(suffix: str, frames: int, tmp_path: Path) -> None:
    source = open_path(write(tmp_path / f'a{suffix}', frames, CODECS[suffix]))
    assert len(list(source.frames)) == source.total == frames


@pytest.mark.parametrize('suffix', ['.avi', '.mkv'])
@pytest.mark.parametrize('frames', [8, 60])
def test_a_video_that_was_cut_gives_its_frames_and_says_so(
    suffix: str, frames: int, tmp_path: Path,
) -> None:
    path = write(tmp_path / f'a{suffix}', frames, CODECS[suffix])
    data = path.read_bytes()
    for share in (0.5, 0.7):
        path.write_bytes(data[:int(len(data) * share)])
        found = []
        with pytest.raises(UserError, match=rf'a\{suffix} ends early, after \d+ of {frames} '):
            for frame in open_path(path).frames:
                found.append(frame)
        assert 0.3 * frames < len(found) <= share * frames + 1


def test_frames_of_other_lengths_are_not_missing(tmp_path: Path) -> None:
    av = pytest.importorskip('av', reason='PyAV writes the video')
    path = tmp_path / 'a.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', 30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'gray'
        for time in (0, 1, 2, 10, 11, 40, 41, 42):  # a recorder that drops frames
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), time, np.uint8), 'gray')
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert [int(frame.pixels[0, 0]) for frame in open_path(path).frames] == [
        0, 1, 2, 10, 11, 40, 41, 42]


@pytest.mark.parametrize('suffix', ['.mp4', '.mov'])
def test_hidden_frames_are_not_missing(suffix: str, tmp_path: Path) -> None:
    """A part of a video, copied without encoding it again, hides what its first frame needs."""
    av = pytest.importorskip('av', reason='PyAV writes the video')
    path = tmp_path / f'part{suffix}'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', 10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        packets = [packet for value in range(20) for packet in stream.encode(
            av.VideoFrame.from_ndarray(np.full((48, 64), 10 * value, np.uint8), 'gray').reformat(
                format='yuv420p'))]
        for packet in [*packets, *stream.encode(None)]:
            begin = int(0.5 / packet.time_base)
            packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
            container.mux(packet)
    levels = [int(frame.pixels.mean()) for frame in open_path(path).frames]
    np.testing.assert_allclose(levels, 10 * np.arange(5, 20), atol=3)
    data = bytearray(path.read_bytes())
    duration = data.index(b'mvhd') + 20
    assert int.from_bytes(data[duration:duration + 4], 'big') == 1500, 'milliseconds'
    data[duration:duration + 4] = (2000).to_bytes(4, 'big')
    path.write_bytes(data)
    with pytest.raises(UserError, match='ends early, after 15 of 20 frames'):
        list(open_path(path).frames)


def test_the_name_of_a_video_may_be_no_text(tmp_path: Path) -> None:
    write(tmp_path / 'a.avi', 3, 'MJPG')
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.avi'))
    os.replace(tmp_path / 'a.avi', path)
    assert len(list(open_path(path).frames)) == 3


def test_images_release_their_capture(tmp_path: Path) -> None:
    capture = open_capture(write(tmp_path / 'a.avi', 3, 'MJPG'), 'a.avi')
    found = images(capture, 'a.avi')
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert not capture.isOpened()
