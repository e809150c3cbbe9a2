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

"""Decode images of files and messages by one standard: what an image claims is checked first."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from mmap import mmap
import re
import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# A few kilobytes can unpack to gigabytes; OpenCV's own limit is 2^30 pixels.
MAX_PIXELS = 2**26
MAX_BYTES = 2**28  # of the decoded pixels
MAX_SCANS = 2**29  # pixels of a JPEG times its scans, each of which visits all of them
PNG, TIFF = b'\x89PNG\r\n\x1a\n', (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # as decoded, by color type
JPEG = b'\xff\xd8\xff'
# What libjpeg takes for the next marker: any number of fill bytes may precede its code.
MARKER = re.compile(rb'\xff+([^\x00\xff])')
END, SCAN, ALONE = 0xd9, 0xda, (0x01, *range(0xd0, 0xd8))  # without a length
FRAME_HEADERS = {*range(0xc0, 0xd0)} - {0xc4, 0xc8, 0xcc}
PNM = re.compile(rb'P([1-6])' + 2 * rb'(?:\s|#[^\n]*\n)+(\d{1,9})')
PNM_LEVELS = re.compile(rb'(?:\s|#[^\n]*\n)+(\d{1,5})')
# Tags of TIFF, and the struct codes of the types in which numbers are accepted.
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
SAMPLES, ROWS, PLANAR, TILE_WIDTH, TILE_HEIGHT, KIND = 277, 278, 284, 322, 323, 339
ONCE = (WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS, PLANAR, TILE_WIDTH,
        TILE_HEIGHT, KIND)
PALETTE = 3  # of PHOTOMETRIC
UNSIGNED, FLOAT = 1, 3  # of KIND
KINDS = {UNSIGNED: 'unsigned integers', 2: 'signed integers', FLOAT: 'floats'}
READ = {UNSIGNED: (1, 8, 10, 12, 14, 16), FLOAT: (32, 64)}  # the bits that OpenCV decodes
JPEG_IN_TIFF = (6, 7)  # of COMPRESSION
NOT_AN_IMAGE = 0b101  # bits of SUBFILE: a smaller copy of another image, or a mask
CODES = {1: 'B', 3: 'H', 4: 'I'}
Data = bytes | mmap


class Claim(NamedTuple):
    """
    What an image says of itself.

    bits: of a pixel. scans: of a JPEG. whole: false if its end is missing. buffer: pixels of the
    largest part that is decoded at once. depth: bits of a sample.
    refused: what OpenCV would read wrongly, a clause.
    """

    width: int
    height: int
    bits: int
    scans: int = 1
    whole: bool = True
    buffer: int = 0
    depth: int = 8
    refused: str = ''


def format_of(data: Data) -> str:
    """Return the format of an image by its first bytes: a key of CLAIMS, or nothing."""
    start = bytes(data[:8])
    return ('PNG' if start == PNG else 'JPEG' if start.startswith(JPEG) else
            'TIFF' if start.startswith(TIFF) else 'BMP' if start.startswith(b'BM') else
            'PNM' if re.match(rb'P[1-6][\s#]', start) else '')


def decode(data: Data, flags: int = cv2.IMREAD_UNCHANGED, share: float = 1.0) -> NDArray[Any]:
    """
    Return the pixels of an image, (H, W) or (H, W, C) BGR, as OpenCV decodes it with `flags`.

    Values are those stored, also of TIFFs with 10, 12 or 14 bits. Where a TIFF says that 0 is
    white (MinIsWhite), OpenCV inverts 8-bit pictures; counts of more bits are measured values,
    which how they are shown does not change.
    share: of the limits of memory and time. ValueError, a clause that states what the image is: of
    no known format, truncated, damaged, of a kind that OpenCV would read wrongly, or so large that
    decoding it would exceed the limits.
    """
    silence()
    claim = claim_of(data, share)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f'cannot be decoded: {error.err}') from None
    if pixels is None and claim.depth not in (8, 16):
        raise ValueError(f'is damaged, or its samples of {claim.depth} bits cannot be read so; '
                         'save it with 8 or 16')
    if pixels is None:
        raise ValueError(f'is damaged, its {len(data)} bytes cannot be decoded')
    if sorted(pixels.shape[:2]) != sorted((claim.height, claim.width)):
        raise ValueError(f'is damaged, it claims {claim.width}x{claim.height} pixels')
    if flags != cv2.IMREAD_COLOR and 8 * pixels.itemsize < claim.depth:
        raise ValueError(f'has {claim.bits // claim.depth} samples of {claim.depth} bits a pixel, '
                         f'of which {8 * pixels.itemsize} would be read; save it with one sample')
    if pixels.dtype == np.uint16 and claim.depth < 16:  # OpenCV fills the low bits
        pixels >>= 16 - claim.depth
    return np.asarray(pixels)


@cache
def silence() -> None:
    """Keep OpenCV from printing errors and warnings, which are ours to report."""
    with suppress(AttributeError):  # where neither is known
        logging = cv2 if hasattr(cv2, 'setLogLevel') else cv2.utils.logging  # OpenCV 4, and 5
        logging.setLogLevel(0)


def claim_of(data: Data, share: float = 1.0) -> Claim:
    """Return what an image claims, as far as it can be decoded; ValueError as of `decode`."""
    if not len(data):
        raise ValueError('is empty')
    kind = format_of(data)
    if not kind:
        raise ValueError(f'is not an image in one of the formats {", ".join(CLAIMS)}, it begins '
                         f'with {bytes(data[:4]).hex(" ")}')
    try:
        claim = CLAIMS[kind](data)
    except (struct.error, KeyError, IndexError):
        raise ValueError(f'is truncated after {len(data)} bytes') from None
    pixels, most, most_bytes = claim.width * claim.height, MAX_PIXELS * share, MAX_BYTES * share
    if not 0 < pixels <= most or max(pixels, claim.buffer) * claim.bits > 8 * most_bytes:
        raise ValueError(f'claims {claim.width}x{claim.height} pixels, the maximum is '
                         f'{most:.0f} pixels and {most_bytes:.0f} bytes')
    if pixels * claim.scans > MAX_SCANS * share:
        raise ValueError(f'claims {claim.scans} scans of {claim.width}x{claim.height} pixels, '
                         'which take too long to decode; save it as a baseline JPEG')
    if not claim.whole:
        raise ValueError(f'is truncated after {len(data)} bytes')
    if claim.refused:
        raise ValueError(claim.refused)
    return claim


def _png(data: Data) -> Claim:
    """Read the chunks up to the end; a decoder allocates what they claim to contain."""
    at = len(PNG)
    kinds: list[bytes] = []
    while kinds[-1:] != [b'IEND']:
        length, kind = struct.unpack_from('>I4s', data, at)
        kinds.append(kind)
        at += 12 + length
        if at > len(data):
            raise KeyError(kind)
    if kinds[0] != b'IHDR' or kinds.count(b'IHDR') > 1:
        raise ValueError('is damaged, its header is not at its start')
    if b'acTL' in kinds:
        raise ValueError('is an animation; save its frames as single images')
    width, height, depth, color = struct.unpack_from('>IIBB', data, 16)
    depth = max(depth, 8)
    return Claim(width, height, depth * PNG_CHANNELS.get(color, 4), depth=depth)


def _jpeg(data: Data) -> Claim:
    """
    Read the markers as libjpeg does, to the end of the image.

    Several scans are collected as coefficients, twice the size of the pixels. OpenCV fills what
    is missing with gray and reports nothing. Other damage cannot be detected, as a JPEG has no
    checksum.
    """
    width = height = bits = scans = 0
    position = 2
    while (found := MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        if marker == END:
            return Claim(width, height, bits * (3 if scans > 1 else 1), scans, scans > 0)
        if marker in ALONE:
            continue
        length, = struct.unpack_from('>H', data, position)
        if marker in FRAME_HEADERS:
            if bits:
                raise ValueError('is damaged, it has two frame headers')
            depth, height, width, channels = struct.unpack_from('>BHHB', data, position + 2)
            bits = 8 * -(-depth // 8) * channels
        scans += marker == SCAN
        position += length
    raise KeyError(END)


def _tiff(data: Data) -> Claim:
    """Read the first directory; libtiff reports what is missing."""
    _, tags = next(_directories(data))
    width, height, scans = tags[WIDTH], tags[HEIGHT], 1
    tile = tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)
    if tags.get(COMPRESSION) in JPEG_IN_TIFF:  # each scan visits a tile or a strip
        part = tile or width * min(height, tags.get(ROWS, height))
        scans = len(re.findall(rb'\xff\xda', data)) * part // max(1, width * height)
    depth = max(8, tags.get(BITS, 1))
    return Claim(width, height, depth * tags.get(SAMPLES, 1), max(scans, 1), buffer=tile,
                 depth=depth, refused=_refused(tags))


def _refused(tags: dict[int, int]) -> str:
    """Return what OpenCV refuses or reads wrongly in a TIFF of these tags, and the remedy."""
    bits, samples, kind = tags.get(BITS, 1), tags.get(SAMPLES, 1), tags.get(KIND, UNSIGNED)
    palette = bits == 4 and tags.get(PHOTOMETRIC) == PALETTE
    if bits not in READ.get(kind, ()) and not (palette and kind == UNSIGNED):
        what = KINDS.get(kind, 'values of an undefined kind')
        return (f'has {what} of {bits} bits (tags {BITS} and {KIND}); save it with unsigned '
                'integers of 8 or 16 bits')
    if not 1 <= samples <= 4:
        return f'has {samples} samples a pixel (tag {SAMPLES}); save it with one'
    if tags.get(PLANAR) == 2 and samples > 1 and bits > 8:
        return f'stores its channels one after the other (tag {PLANAR}); save it interleaved'
    return ''


def _directories(data: Data) -> Iterator[tuple[int, dict[int, int]]]:
    """
    Yield the place of each directory of a TIFF, and its tags of one number.

    Of the values of BITS and KIND, the largest is taken.
    ValueError for what libtiff reads in its own way: a size that is listed twice, or has another
    type; and for directories that overlap or form a loop.
    """
    order = '<' if data[:2] == b'II' else '>'
    big = b'+' in data[2:4]
    counts, entry, offset = ('Q', 'HHQ8s', 'Q') if big else ('H', 'HHI4s', 'I')
    codes = CODES | ({16: 'Q'} if big else {})
    size, read = struct.calcsize('<' + entry), 0
    start, = struct.unpack_from(order + offset, data, 8 if big else 4)
    while start:
        count, = struct.unpack_from(order + counts, data, start)
        first = start + struct.calcsize('<' + counts)
        read += count * size
        if read > len(data):
            raise KeyError(start)
        tags: dict[int, int] = {}
        for tag, kind, number, value in struct.iter_unpack(
                order + entry, bytes(data[first:first + count * size])):
            if tag in ONCE and (tag in tags or kind not in codes):
                raise ValueError(f'is damaged, its tag {tag} is listed twice or has the type '
                                 f'{kind}')
            if number == 1 and kind in codes:
                tags[tag], = struct.unpack_from(order + codes[kind], value)
            elif tag in (BITS, KIND) and 0 < number * 2 <= len(value):
                tags[tag] = max(struct.unpack_from(f'{order}{number}H', value))
            elif tag in (BITS, KIND) and number:
                place, = struct.unpack_from(order + offset, value)
                tags[tag] = max(struct.unpack_from(f'{order}{min(number, 8)}H', data, place))
            elif tag in ONCE:
                raise ValueError(f'is damaged, its tag {tag} has {number} values')
        yield start, tags
        start, = struct.unpack_from(order + offset, data, first + count * size)


def tiff_pages(data: Data) -> list[int]:
    """Return the places of a TIFF's images, without smaller copies and masks; ValueError."""
    try:
        return [place for place, tags in _directories(data)
                if not tags.get(SUBFILE, 0) & NOT_AN_IMAGE]
    except (struct.error, KeyError):
        raise ValueError(f'is truncated after {len(data)} bytes') from None


def tiff_start(data: Data, place: int) -> bytes:
    """Return the header of a TIFF whose first image is the one at a place of `tiff_pages`."""
    big = b'+' in data[2:4]
    kept = bytes(data[:8 if big else 4])
    return kept + struct.pack(('<' if kept[:2] == b'II' else '>') + ('Q' if big else 'I'), place)


def _bmp(data: Data) -> Claim:
    start, header = struct.unpack_from('<II', data, 10)
    if header == 12:
        width, height, _, depth = struct.unpack_from('<HHHH', data, 18)
        packed = 0
    else:
        width, height, _, depth, packed = struct.unpack_from('<iiHHI', data, 18)
    height = abs(height)
    needed = 0 if packed in (1, 2) else start + (width * depth + 31) // 32 * 4 * height
    return Claim(width, height, max(24, depth), whole=needed <= len(data))


def _pnm(data: Data) -> Claim:
    found = PNM.match(data)
    if found is None:
        raise KeyError(0)
    kind, width, height = map(int, found.groups())
    end, levels = found.end(), 1
    if kind not in (1, 4):
        more = PNM_LEVELS.match(data, end)
        if more is None:
            raise KeyError(0)
        end, levels = more.end(), int(more[1])
    channels, depth = 3 if kind in (3, 6) else 1, 8 if levels < 256 else 16
    row = -(-width // 8) if kind == 4 else width * channels * depth // 8
    # In text, a value takes a digit and a blank; the last one no blank.
    needed = end + 1 + row * height if kind > 3 else end + width * height * channels
    refused = ''
    if kind < 4:
        refused = _text_refused(bytes(data[end:]), levels if kind > 1 else 0)
    elif PNM.match(bytes(data[needed:]).lstrip()):
        refused = 'has another image after its pixels; save each image as a file of its own'
    return Claim(width, height, channels * depth, whole=needed <= len(data), depth=depth,
                 refused=refused)


def _text_refused(text: bytes, levels: int) -> str:
    """Return what OpenCV reads wrongly in the values of a PNM in text; levels: the largest."""
    most = str(levels).encode()
    for found in re.finditer(rb'#[^\n]*|(P[1-6]\s)|(\d{%d,})' % len(most), text):
        if found[1]:
            return 'has several images; save each as a file of its own'
        value = (found[2] or b'').lstrip(b'0')
        if levels and (len(value), value) > (len(most), most):
            return f'has values above {levels}, the maximum that it states; save it again'
    return ''


CLAIMS = {'PNG': _png, 'JPEG': _jpeg, 'TIFF': _tiff, 'BMP': _bmp, 'PNM': _pnm}
