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

"""Pixels of sensor_msgs/Image and CompressedImage messages of any library, without ROS."""

import struct
from typing import Any, Protocol

from cgdet_core.runtime.imaging.frames import to_gray
import cv2
import numpy as np
from numpy.typing import NDArray

# encoding -> element type and channels
ENCODINGS: dict[str, tuple[str, int]] = {
    'mono8': ('u1', 1), '8UC1': ('u1', 1), 'mono16': ('u2', 1), '16UC1': ('u2', 1),
    '32FC1': ('f4', 1), 'bgr8': ('u1', 3), 'rgb8': ('u1', 3), 'bgra8': ('u1', 4),
    'rgba8': ('u1', 4), '8UC3': ('u1', 3)}
TO_BGR = {'rgb8': cv2.COLOR_RGB2BGR, 'rgba8': cv2.COLOR_RGBA2BGR, 'bgra8': cv2.COLOR_BGRA2BGR}
# A few kilobytes can unpack to gigabytes; OpenCV's own limit is 2^30 pixels.
MAX_PIXELS = 2**25
PNG, JPEG, TIFF = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff', (b'II*\0', b'MM\0*')
JPEG_END, JPEG_SCAN = b'\xff\xd9', b'\xff\xda'
TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image; rclpy's and rosbags' messages both have them."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage."""

    format: str
    data: Any


def view_message(message: ImageMessage | CompressedMessage) -> NDArray[Any]:
    """
    Return the thermal frame (height, width) of either kind of image message.

    uint8, uint16 or float32 (kelvin), a view of the message's data if possible. Color is
    converted to gray. ValueError if the message is not a valid image.
    """
    return to_gray(view_pixels(message))


def view_pixels(message: ImageMessage | CompressedMessage) -> NDArray[Any]:
    """Return the pixels of either kind of message: (height, width), or (..., 3) as BGR."""
    if hasattr(message, 'format'):
        return decode_image(message.format, message.data)
    return view_image(message)


def is_false_color(pixels: NDArray[Any]) -> bool:
    """Return whether pixels are false color; some drivers send gray as bgr8, three times."""
    return pixels.ndim == 3 and not (
        np.array_equal(pixels[..., 0], pixels[..., 1])
        and np.array_equal(pixels[..., 1], pixels[..., 2]))


def encoding_of(message: ImageMessage | CompressedMessage) -> str:
    """Return the encoding of an image, or the format of a compressed one."""
    return message.format if hasattr(message, 'format') else message.encoding


def view_image(message: ImageMessage) -> NDArray[Any]:
    """
    Return the pixels of a raw image, rows unpadded.

    The result is a view of the message's data; big-endian data, rgb8 and alpha are copied.
    ValueError for an unknown encoding, zero size, a step smaller than a row, or missing data.
    """
    if message.encoding not in ENCODINGS:
        raise ValueError(f'image encoding {message.encoding[:40]!r} is not supported, a thermal '
                         f'image must be one of {", ".join(ENCODINGS)}')
    kind, channels = ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height == 0 or width == 0:
        raise ValueError(f'the image is empty, {width}x{height} pixels')
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    row = width * channels * dtype.itemsize
    if step < row:
        raise ValueError(f'the image step of {step} bytes is smaller than a row of {width} '
                         f'{message.encoding} pixels, {row} bytes')
    data = np.frombuffer(message.data, np.uint8)
    needed = (height - 1) * step + row
    if data.size < needed:
        raise ValueError(f'the image data is truncated, {data.size} bytes of {needed}')
    if channels > 1:
        pixels = np.ndarray((height, width, channels), dtype, data, strides=(step, channels, 1))
        code = TO_BGR.get(message.encoding)
        return pixels if code is None else cv2.cvtColor(pixels, code)
    pixels = np.ndarray((height, width), dtype, data, strides=(step, dtype.itemsize))
    if dtype.isnative and pixels.flags.aligned:
        return pixels
    return pixels.astype(dtype.newbyteorder('='))


def decode_image(kind: str, data: Any) -> NDArray[Any]:
    """
    Decode the PNG, JPEG or TIFF of a compressed image at its full depth.

    kind: the message's format; only "compressedDepth" matters, whose PNG follows a header.
    ValueError for another format, and for damaged, truncated or too large data.
    """
    buffer = np.frombuffer(data, np.uint8)
    if 'compressedDepth' in kind:
        if kind.startswith('32FC1') or 'rvl' in kind.lower():
            raise ValueError(f'the image format {kind[:40]!r} is not supported, '
                             'compressedDepth must be 16-bit PNG; publish 16UC1, or use '
                             '"compressed"')
        buffer = buffer[12:]  # after image_transport's header
    _check_header(buffer)
    try:
        pixels = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(f'the compressed image cannot be decoded: {error.err}') from None
    if pixels is None:
        raise ValueError(f'the compressed image is damaged, its {buffer.size} bytes '
                         'cannot be decoded')
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f'the compressed image has {pixels.dtype} pixels, a thermal image '
                         'must be 8- or 16-bit, or float32')
    if pixels.ndim == 3:
        if pixels.shape[2] not in (3, 4):
            raise ValueError(f'the compressed image has {pixels.shape[2]} channels, '
                             'a thermal image must be gray or color')
        return pixels[:, :, :3]
    return pixels


def _check_header(buffer: NDArray[np.uint8]) -> None:
    """Raise ValueError before decoding if data is truncated or claims too many pixels."""
    data = buffer.tobytes()
    if not data:
        raise ValueError('the compressed image is empty')
    try:
        if data.startswith(PNG):
            width, height = struct.unpack_from('>II', data, 16)
            whole = data.rfind(b'IEND') >= 0
        elif data.startswith(JPEG):
            width, height = _jpeg_size(data)
            # OpenCV fills the missing part with gray and reports nothing. Other damage to a JPEG
            # cannot be detected, as it has no checksum.
            whole = data.rfind(JPEG_END) > data.rfind(JPEG_SCAN)
        elif data.startswith(TIFF):
            width, height = _tiff_size(data)
            whole = True  # libtiff reports what is missing
        else:
            raise ValueError('the compressed image is not PNG, JPEG or TIFF, it begins with '
                             f'{data[:4].hex(" ")}')
    except (struct.error, KeyError):
        whole = False
    if not whole:
        raise ValueError(f'the compressed image is truncated after {len(data)} bytes')
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f'the compressed image claims {width}x{height} pixels, at most '
                         f'{MAX_PIXELS} are accepted')


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Read width and height from a JPEG's frame header; struct.error or KeyError if missing."""
    position = 2
    while True:
        marker, length = struct.unpack_from('>HH', data, position)
        if marker < 0xff00:
            raise KeyError(marker)
        if 0xffc0 <= marker <= 0xffcf and marker not in (0xffc4, 0xffc8, 0xffcc):
            height, width = struct.unpack_from('>HH', data, position + 5)
            return width, height
        # Any number of fill bytes 0xff may precede a marker.
        position += 1 if marker == 0xffff else 2 + length


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Read width and height from a TIFF's first directory; struct.error, KeyError if missing."""
    order = '<' if data.startswith(b'II') else '>'
    start, = struct.unpack_from(order + 'I', data, 4)
    count, = struct.unpack_from(order + 'H', data, start)
    tags = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + 'HH', data, entry)
        if tag in (TIFF_WIDTH, TIFF_HEIGHT):
            tags[tag], = struct.unpack_from(order + ('H' if kind == 3 else 'I'), data, entry + 8)
    return tags[TIFF_WIDTH], tags[TIFF_HEIGHT]
