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

"""Frames of cameras, network streams and images on the web."""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPException, IncompleteRead
from pathlib import Path, PurePosixPath
from queue import Empty, Queue
import re
import stat
from threading import Event, Thread
from time import time_ns
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from cgdet_core.data.capture import images, open_capture
from cgdet_core.data.sources import Colors, Frame, RATE, Source
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import IMAGE_SUFFIXES
from cgdet_core.runtime.imaging.message import decode_image
import cv2
import numpy as np
from numpy.typing import NDArray

SCHEMES = ('http', 'https', 'rtsp', 'rtsps', 'rtmp', 'udp', 'tcp')
TIMEOUT_S = 10.0
LARGEST = 2**28  # bytes of an image on the web
SAFE = "%/:=&?~+!$,;'@()*[]"  # characters of a path and a query that need no quotation


def check_url(url: str) -> None:
    """Raise UserError for a URL that is not valid, or not of a scheme that can be read."""
    try:
        parts, _ = urlsplit(url), urlsplit(url).port
    except ValueError:  # whose text may contain a part of the password
        raise UserError(f'{re.sub("//.*@", "//", url)} is not a valid address; write special '
                        'characters in a password as %2F and so on.') from None
    if parts.scheme.lower() not in SCHEMES:
        raise UserError(f'{shown(url)} has the scheme {parts.scheme}; choose one of '
                        f'{", ".join(SCHEMES)}, or name a file.')


def open_url(url: str, name: str) -> Source:
    """
    Return the image or the stream at a URL; UserError if it cannot be reached or read.

    url: as `check_url` accepts it. name: of its frames, without suffix.
    """
    parts, where = urlsplit(url), shown(url)
    if parts.scheme.lower() in ('http', 'https'):
        data = _download(url, where)
        if data is not None:
            return _picture(data, name + PurePosixPath(parts.path).suffix, where)
    timeout = int(TIMEOUT_S * 1000)
    capture = open_capture(url, where, cv2.CAP_FFMPEG, cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout,
                           cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout)
    if not capture.isOpened():
        raise UserError(f'{where} cannot be opened as a stream; check the address, and that a '
                        'player such as ffplay shows it.')
    return _stream(capture, where, name, (
        f'{where} delivers no images; if it is a file, download it and name that.'))


def open_camera(path: Path, name: str) -> Source:
    """Return the frames of a camera of Video4Linux, such as /dev/video0, as those of `name`."""
    if not path.exists():
        others = ', '.join(map(str, sorted(Path('/dev').glob('video*'))))
        raise UserError(f'There is no camera {path}; ' + (
            f'this machine has {others}.' if others else 'this machine has none.'))
    try:
        path.open('rb').close()
    except PermissionError:
        raise UserError(f'No permission to read {path}; add the user to its group (video), '
                        'and log in again.') from None
    except OSError as error:
        raise UserError(f'{path} cannot be opened: {error.strerror}.') from None
    return _stream(open_capture(path, str(path), cv2.CAP_V4L2), str(path), name, (
        f'{path} delivers no images; if it is a camera, end the other program that uses it.'))


def is_device(path: Path) -> bool:
    """Return whether a path is a camera's, there or not, or another device."""
    return (str(path).startswith('/dev/video')
            or path.exists() and stat.S_ISCHR(path.stat().st_mode))


def shown(url: str) -> str:
    """Return a URL without user name and password."""
    return re.sub(r'(?<=://)[^/?#]*@', '', url)


def _download(url: str, where: str) -> bytes | None:
    """Return the image at a URL, or None for anything that may be a stream."""
    parts = urlsplit(url)
    address = urlsplit(where)._replace(**{
        part: quote(getattr(parts, part), SAFE) for part in ('path', 'query')}).geturl()
    request = Request(address, headers={'User-Agent': 'cgdet'})
    if parts.username is not None:
        login = f'{unquote(parts.username)}:{unquote(parts.password or "")}'
        request.add_unredirected_header(  # it is for this host only
            'Authorization', f'Basic {b64encode(login.encode()).decode()}')
    data: bytes | None = None
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            kind = answer.headers.get_content_type()
            suffix = PurePosixPath(parts.path).suffix.lower()
            if kind.startswith('image/') or (
                    suffix in IMAGE_SUFFIXES and not kind.startswith(('text/', 'multipart/'))):
                data = answer.read(LARGEST + 1)
                if len(data) <= LARGEST and answer.length:  # what was announced and is missing
                    raise IncompleteRead(data, answer.length)
    except HTTPError as error:
        raise UserError(f'{where} cannot be read: {error.code} {error.reason}.') from None
    except URLError as error:
        reason = getattr(error.reason, 'strerror', None) or error.reason
        raise UserError(f'{where} cannot be reached: {reason}.') from None
    except (OSError, ValueError, HTTPException) as error:
        raise UserError(f'{where} cannot be read: {error}.') from None
    if data is None and kind.startswith('text/'):
        raise UserError(f'{where} is a page ({kind}), neither an image nor a stream.')
    if data is not None and len(data) > LARGEST:
        raise UserError(f'{where} is larger than {LARGEST >> 20} MiB; download it and name the '
                        'file.')
    return data


def _picture(data: bytes, name: str, where: str) -> Source:
    colors = Colors()

    def read() -> NDArray[Any]:
        return colors.gray(decode_image('', data), where)

    return Source(iter([Frame(name, read, where)]), where, 1, names=[name], colors=colors)


def _stream(capture: Any, where: str, name: str, silent: str) -> Source:
    """Return the frames of a capture; UserError with the sentence `silent` if there are none."""
    good, first = capture.read()
    if not good:
        capture.release()
        raise UserError(silent)
    rate, total = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    colors = Colors()
    found = ((image, None) for image in images(capture, where, first)) if total > 0 else (
        _newest(capture, first))
    return Source(_frames(found, where, name, colors), where, total if total > 0 else None, name,
                  rate if 1 <= rate <= 240 else RATE, colors=colors)


def _frames(found: Iterable[tuple[NDArray[Any], int | None]], where: str, name: str,
            colors: Colors) -> Iterator[Frame]:
    for number, (pixels, stamp) in enumerate(found):
        place = f'{where}, frame {number}'
        yield Frame(f'{name}_{number:06d}.png', partial(colors.gray, pixels, place), place, stamp)


def _newest(capture: Any, first: NDArray[Any]) -> Iterator[tuple[NDArray[Any], int]]:
    """Yield the newest image and its time, until the stream ends; slow users skip images."""
    newest: Queue[tuple[NDArray[np.uint8], int] | None] = Queue()  # an image, None at the end
    stopped = Event()

    def read() -> None:
        try:
            while not stopped.is_set() and (found := capture.read())[0]:
                with suppress(Empty):
                    newest.get_nowait()
                newest.put((found[1], time_ns()))
        finally:
            capture.release()
            newest.put(None)

    arrived = time_ns()  # before the next image can
    thread = Thread(target=read, daemon=True)  # a read may wait for the network
    thread.start()
    try:
        yield first, arrived
        while (item := newest.get()) is not None:
            yield item
    finally:
        stopped.set()
        thread.join(1.0)
