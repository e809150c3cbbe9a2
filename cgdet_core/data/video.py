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

"""Write annotated videos, in H.264, VP9 or AV1 if PyAV is installed: browsers play them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
import os
from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import temporary_for
import cv2
import numpy as np
from numpy.typing import NDArray

# The first one that PyAV was built with; the options are for speed at good quality.
ENCODERS = {
    'libx264': {'preset': 'veryfast', 'crf': '23'},
    'libvpx-vp9': {'deadline': 'realtime', 'cpu-used': '8', 'crf': '32', 'b': '0'},
    'libsvtav1': {'preset': '10', 'crf': '35'},
}
Write = Callable[[NDArray[np.uint8]], None]


def video_advice() -> str:
    """Return what to install for videos that browsers play, or nothing if that is installed."""
    return '' if _encoder() else (
        'The video is MPEG-4, which browsers do not play; install PyAV with "pip install av" '
        'for H.264.')


@contextmanager
def open_video(path: Path, rate: float) -> Iterator[Write]:
    """
    Yield the function that appends a frame (H, W, 3) BGR to a video (.mp4) of `rate` frames/s.

    The first frame sets the size; others are scaled to it, and an odd side grows by one pixel.
    The file is complete also after an exception in the block; without frames there is none.
    """
    with temporary_for(path) as folder:
        folder.mkdir()
        part = folder / 'video.mp4'
        video: _Video | None = None

        def write(frame: NDArray[np.uint8]) -> None:
            nonlocal video
            video = video or _Video(part, rate, frame.shape[1::-1])
            video.write(frame)

        try:
            yield write
        finally:
            if video is not None:
                video.close()
                # OpenCV's writer reports no error.
                if not cv2.VideoCapture(os.fsencode(part)).isOpened():  # type: ignore[call-overload]
                    raise UserError(f'{path} cannot be written; is the disk full?')
                os.replace(part, path)


class _Video:
    """A video file, by PyAV or, if that is missing, by OpenCV."""

    def __init__(self, path: Path, rate: float, size: tuple[int, ...]) -> None:
        self.size = size
        self.container: Any = None
        width, height = even = tuple(side + side % 2 for side in size)
        name = _encoder()
        if not name:
            self.opencv = cv2.VideoWriter(  # a path in bytes may be of any encoding
                os.fsencode(path), cv2.VideoWriter.fourcc(*'mp4v'),  # type: ignore[call-overload]
                rate, even)
            if not self.opencv.isOpened():
                raise UserError(f'OpenCV cannot write a video of {width}x{height} pixels.')
            return
        import av

        self.container = av.open(str(path), 'w', options={'movflags': 'faststart'})
        self.stream: Any = self.container.add_stream(
            name, Fraction(rate).limit_denominator(1000), options=ENCODERS[name])
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, 'yuv420p'

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame (H, W, 3) BGR."""
        width, height = self.size
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        if width % 2 or height % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), 'edge')
        if self.container is None:
            self.opencv.write(frame)
            return
        import av

        self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(frame, 'bgr24')))

    def close(self) -> None:
        """Write what the encoder holds back, and the index."""
        if self.container is None:
            self.opencv.release()
            return
        self.container.mux(self.stream.encode(None))
        self.container.close()


def _encoder() -> str:
    """Return the name of PyAV's encoder, or nothing if there is no PyAV or none of ours."""
    try:
        from av.codec import codecs_available
    except ImportError:
        return ''
    return next((name for name in ENCODERS if name in codecs_available), '')
