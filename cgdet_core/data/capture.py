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
# Their headers count frames; those of others state seconds, which sound may prolong.
COUNTED = ('.avi', '.mp4', '.mov')
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
    missing = min(total - number, total - 1 - end * rate / 1000)
    if missing > (0.5 if where.lower().endswith(COUNTED) else max(1.5, total / 50)):
        raise UserError(f'{where} ends early, after {number} of {total:.0f} frames: it was cut or '
                        'is damaged.')


def why_no_video(path: Path) -> str:
    """Return why a file is no video, as far as its beginning shows it."""
    if kind := file_kind(path):
        return f', it seems to be {kind}'
    size = path.stat().st_size
    with path.open('rb') as file:
        place, kinds = 0, b''
        while len(head := file.read(16)) >= 8 and len(kinds) < 400:  # boxes of MP4 and MOV
            length, box = int.from_bytes(head[:4], 'big'), head[4:8]
            length = int.from_bytes(head[8:], 'big') if length == 1 else length
            kinds += box
            if length < 8:
                break
            place += length
            file.seek(place)
    if kinds.startswith(b'ftyp') and b'moov' not in kinds:
        return (', as it has no index (moov): its recording or copy was cut off. Copy it again, '
                'or record as .mkv, which needs none')
    return ', as it is empty' if not size else (
        ': it has no frames, was cut or needs another codec; '
        f'try "ffmpeg -i {path} -c:v ffv1 OUT.mkv"')
