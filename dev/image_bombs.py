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

"""Images that claim more than they contain, and the largest that are read, for attacks."""

from collections.abc import Iterator
from io import BytesIO
import re
import struct
from typing import Any
import zlib

from cgdet_core.runtime.imaging.decoding import MAX_BYTES, MAX_PIXELS, MAX_SCANS
from cgdet_core.runtime.imaging.message import LIVE
import cv2
import numpy as np
from PIL import Image

HUGE = 30_000  # pixels, each way
LARGEST = int((MAX_PIXELS * LIVE) ** 0.5)  # the same, of an image that a node reads


def encoded(suffix: str, picture: np.ndarray) -> bytes:
    good, data = cv2.imencode(suffix, picture)
    assert good
    return data.tobytes()


def saved(picture: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    file, image = BytesIO(), Image.fromarray(picture)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return (b'\x89PNG\r\n\x1a\n' + b''.join(chunks) + chunk(b'IDAT', zlib.compress(bytes(72)))
            + chunk(b'IEND', b''))


def ihdr(side: int) -> bytes:
    return chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0))


def jpeg_parts(side: int) -> tuple[bytes, bytes, bytes]:
    """Return what is before the frame header of a JPEG, one that claims a side, and the rest."""
    data = encoded('.jpg', np.zeros((8, 8), np.uint8))
    at = data.index(b'\xff\xc0')
    end = at + 2 + struct.unpack_from('>H', data, at + 2)[0]
    size = struct.pack('>HH', side, side)
    return data[2:at], data[at:at + 5] + size + data[at + 9:end], data[end:]


def jpeg_behind(marker: int) -> bytes:
    """
    Return a huge JPEG after a marker without a length.

    To a reader that expects one, the next header is of 8x8 pixels.
    """
    before, header, rest = jpeg_parts(HUGE)
    huge = before + header + rest
    return (bytes((0xff, 0xd8, 0xff, marker)) + struct.pack('>H', len(huge) + 2) + huge
            + jpeg_parts(8)[1] + rest)


def many_scans(repeated: int, side: int = 5000) -> bytes:
    """Return a progressive JPEG with more scans than its encoder wrote."""
    data = saved(np.zeros((side, side), np.uint8), 'JPEG', progressive=True)
    last = [found.start() for found in re.finditer(b'\xff\xda', data)][-1]
    return data[:-2] + data[last:-2] * repeated + b'\xff\xd9'


def tiff(*tags: tuple[int, int, int], order: str = '<', more: bytes = b'') -> bytes:
    """Return a TIFF of 8x8 pixels with other or repeated tags (tag, type, value)."""
    own = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 8, 279: 64}
    listed = sorted([*tags, *((tag, 4, value) for tag, value in own.items()
                              if tag not in {t[0] for t in tags})], key=lambda tag: tag[0])
    entries = b''.join(struct.pack(f'{order}HHI', tag, kind, 1) + (
        struct.pack(f'{order}HH', value, 0) if kind == 3 else struct.pack(f'{order}I', value))
        for tag, kind, value in listed)
    start = b'II*\0' if order == '<' else b'MM\0*'
    data = start + struct.pack(f'{order}IH', 8, len(listed)) + entries + b'\0' * 4
    return data.ljust(200, b'\0') + bytes(64) + more


BOMBS = {
    'png': png(ihdr(HUGE)), 'png with two headers': png(ihdr(8), ihdr(HUGE)),
    'png of an iPhone': png(chunk(b'CgBI', bytes(4)), ihdr(HUGE)),
    'animation': png(ihdr(8), chunk(b'acTL', struct.pack('>II', 9, 0))),
    'jpeg': b'\xff\xd8' + b''.join(jpeg_parts(HUGE)), 'jpeg after TEM': jpeg_behind(0x01),
    'jpeg after RST': jpeg_behind(0xd0),
    'jpeg after garbage': b'\xff\xd8\xff\xe0\0\2garbage' + b''.join(jpeg_parts(HUGE)),
    'jpeg of two sizes': b'\xff\xd8' + b''.join(jpeg_parts(8)[:2]) + b''.join(
        jpeg_parts(HUGE)[1:]),
    'tiff': tiff((256, 4, HUGE), (257, 4, HUGE)),
    'tiff, large then small': tiff(*((t, 4, n) for t in (256, 257) for n in (HUGE, 8))),
    'tiff, small then large': tiff(*((t, 4, n) for t in (256, 257) for n in (8, HUGE))),
    'tiff with LONG8': tiff((256, 16, 264), (257, 16, 264), more=struct.pack('<Q', HUGE)),
    'tiff with signed sizes': tiff((256, 9, HUGE), (257, 9, HUGE), order='>'),
    'tiff with a huge tile': tiff((322, 4, HUGE), (323, 4, HUGE)),
    'tiff of many samples': tiff((256, 4, 4000), (257, 4, 4000), (277, 3, 60_000)),
    'tiff of deep samples': tiff((256, 4, 8000), (257, 4, 8000), (258, 3, 64)),
    'tiff without an end': tiff()[:8] + struct.pack('<H', 2**16 - 1) + tiff()[10:]}


def largest() -> Iterator[tuple[str, bytes]]:
    """Yield a small file of each kind with as many pixels, bytes or scans as a node reads."""
    frame = np.zeros((LARGEST, LARGEST), np.uint8)
    frame[LARGEST // 2:] = 255
    yield 'largest png', encoded('.png', frame)
    yield 'largest jpeg', encoded('.jpg', frame)
    yield 'most scans', many_scans(MAX_SCANS // MAX_PIXELS - 6, LARGEST)
    yield 'largest 16-bit png', encoded('.png', frame.astype(np.uint16) * 256)
    yield 'largest color png', encoded('.png', np.dstack([frame] * 3))
    side = int((MAX_BYTES * LIVE / 4) ** 0.5)
    yield 'largest float tiff', saved(frame[:side, :side].astype(np.float32), 'TIFF',
                                      compression='tiff_adobe_deflate')


def declarations() -> Iterator[dict[str, Any]]:
    """Yield fields of raw images whose size is not that of their 100 bytes."""
    for encoding in ('mono8', 'mono16', '32FC1', 'bgr8', '64FC4'):
        for height, width, step in ((HUGE, HUGE, 8 * HUGE), (2**32 - 1, 2**32 - 1, 2**32 - 1),
                                    (2**32 - 1, 1, 0), (1, 2**32 - 1, 2**32 - 1),
                                    (2**31, 100, 100), (0, 2**32 - 1, 100)):
            yield {'encoding': encoding, 'height': height, 'width': width, 'step': step,
                   'data': bytes(100)}
