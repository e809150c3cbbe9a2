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

"""Images of OpenCV's captures of videos, streams and cameras, at their depth and to their end."""

from collections.abc import Iterator
from functools import cache
import logging
import os
from pathlib import Path
import re
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import file_kind
from cgdet_core.runtime.imaging.decoding import silence
import cv2
from numpy.typing import NDArray

Y16 = cv2.VideoWriter.fourcc(*'Y16 ')  # raw counts, as many thermal cameras deliver over USB
# FFmpeg's codes of pixels: gray of 16 bits that OpenCV reads; others contain their depth.
GRAY_16 = (b'Y1\0\x10', b'Y16 ')
DEEP = re.compile(rb'[\x09\x0a\x0c\x0e\x10]...|...[\x09\x0a\x0c\x0e\x10]|(?:RGB|BGR|RBA|BRA)[0@]',
                  re.DOTALL)
BOXED = ('.mp4', '.mov')
# Their headers count frames; those of others state seconds, which sound may prolong.
COUNTED = ('.avi', *BOXED)
_log = logging.getLogger(__name__)


def open_capture(address: str | Path, where: str, backend: int = cv2.CAP_ANY,
                 *settings: int) -> Any:
    """
    Return OpenCV's capture of a video, a stream or a camera, opened or not, at its full depth.

    where: its name for a warning in the log, if OpenCV reads its depth as 8 bits; '' for none.
    """
    _quiet()
    # Bytes, as OpenCV ends the process for a text that is not UTF-8.
    capture = cv2.VideoCapture(os.fsencode(address), backend, settings)  # type: ignore[arg-type]
    pixels = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xffffffff
    code = pixels.to_bytes(4, 'little')
    if code in GRAY_16 or int(capture.get(cv2.CAP_PROP_FOURCC)) == Y16:
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    elif where and DEEP.fullmatch(code):
        _log.warning('%s has more than 8 bits in a format of which OpenCV reads 8; convert it '
                     'with "ffmpeg -i IN -pix_fmt gray16le -c:v ffv1 OUT.mkv".', where)
    return capture


@cache
def _quiet() -> None:
    """Keep OpenCV and FFmpeg from printing errors, which are ours to report."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    silence()


def images(capture: Any, where: str, first: NDArray[Any] | None = None) -> Iterator[NDArray[Any]]:
    """
    Yield the images of an open video, after `first` if that has been read, and release it.

    UserError at the end if there are fewer than its header states, as in a file that was cut.
    """
    total, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    number, end = 0, 0.0
    try:
        if first is not None:
            number, end = 1, capture.get(cv2.CAP_PROP_POS_MSEC)
            yield first
        while (found := capture.read())[0]:
            number, end = number + 1, capture.get(cv2.CAP_PROP_POS_MSEC)
            yield found[1]
    finally:
        capture.release()
    # By time as well, as frames may last longer than others.
    last = 1 + end * rate / 1000
    missing = min(total - number, total - last)
    if missing > (0.5 if where.lower().endswith(COUNTED) else max(1.5, total / 50)) and (
            (_shown_seconds(Path(where)) * rate or total) - last > 0.5):
        raise UserError(f'{where} ends early, after {number} of {total:.0f} frames: it was cut or '
                        'is damaged.')


def why_no_video(path: Path) -> str:
    """Return why a file is no video, as far as its beginning shows it."""
    if kind := file_kind(path):
        return f', it seems to be {kind}'
    size, boxes = path.stat().st_size, _boxes(path)
    if boxes and next(iter(boxes)) == b'ftyp' and b'moov' not in boxes:
        return (', as it has no index (moov): its recording or copy was cut off. Copy it again, '
                'or record as .mkv, which needs none')
    return ', as it is empty' if not size else (
        ': it has no frames, was cut or needs another codec; '
        f'try "ffmpeg -i {path} -c:v ffv1 OUT.mkv"')


def _boxes(path: Path) -> dict[bytes, int]:
    """Return the kinds of the first boxes of an MP4 or MOV, and where each begins."""
    found: dict[bytes, int] = {}
    place, size = 0, path.stat().st_size
    with path.open('rb') as file:
        while place + 8 <= size and len(found) < 100:
            file.seek(place)
            head = file.read(16)
            length = int.from_bytes(head[:4], 'big')
            length = int.from_bytes(head[8:], 'big') if length == 1 else length
            found[head[4:8]] = place
            if length < 8:
                break
            place += length
    return found


def _shown_seconds(path: Path) -> float:
    """
    Return how long an MP4 or MOV is shown, 0 if that is not known.

    A part of a video that was not encoded again has hidden frames, which its first ones need.
    """
    known = path.suffix.lower() in BOXED and path.is_file()
    if not known or (place := _boxes(path).get(b'moov')) is None:
        return 0.0
    with path.open('rb') as file:
        file.seek(place + 8)
        header = file.read(40)  # of the movie: with times of 64 or 32 bits
    scale, end = (28, 40) if header[8:9] == b'\1' else (20, 28)
    units = int.from_bytes(header[scale:scale + 4], 'big')
    duration = int.from_bytes(header[scale + 4:end], 'big')
    return duration / units if header[4:8] == b'mvhd' and units else 0.0
