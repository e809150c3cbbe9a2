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

import re
from typing import Any, Protocol

from cgdet_core.runtime.imaging.decoding import decode, format_of, tiff_pages
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
COMPRESSED = ('PNG', 'JPEG', 'TIFF')
# Of the limits of `decode`, for a process that must go on: less than 1 GB of memory, and 2 s.
LIVE = 0.25
NOISY = 16.0  # gray levels between neighbors, more than any image has
# The bits of a channel that the format of a compressed image starts with.
DEPTH = re.compile(r'(?:(8|16|32|64)[USF]C\d|(?:mono|rgba?|bgra?|bayer_[rgb]{4})(8|16)\b)',
                   re.IGNORECASE)


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


def stamp_of(header: Any) -> int:
    """Return the stamp of a std_msgs/Header in nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def view_message(message: ImageMessage | CompressedMessage) -> NDArray[Any]:
    """
    Return the thermal frame (height, width) of either kind of image message.

    uint8, uint16 or float32 (kelvin), a view of the message's data if possible. Color is
    converted to gray. ValueError if the message is not a valid image.
    """
    return to_gray(view_pixels(message))


def view_pixels(
    message: ImageMessage | CompressedMessage, share: float = 1.0,
) -> NDArray[Any]:
    """
    Return the pixels of either kind of message: (height, width), or (..., 3) as BGR.

    share: of the limits of a compressed image, see `decode`.
    """
    if hasattr(message, 'format'):
        return decode_image(message.format, message.data, share)
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
    ValueError for an unknown encoding, zero size, a step smaller than a row, missing data,
    more data than rows, or 16-bit pixels under an encoding of 8 bits.
    """
    if message.encoding not in ENCODINGS:
        raise ValueError(f'image encoding {message.encoding[:40]!r} is not supported, a thermal '
                         f'image must be one of {", ".join(ENCODINGS)}; set the driver to one and '
                         'record again, or convert the images')
    kind, channels = ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    data = data_of(message, width * channels * dtype.itemsize)
    if channels > 1:
        pixels = np.ndarray((height, width, channels), dtype, data, strides=(step, channels, 1))
        code = TO_BGR.get(message.encoding)
        return pixels if code is None else cv2.cvtColor(pixels, code)
    pixels = np.ndarray((height, width), dtype, data, strides=(step, dtype.itemsize))
    if step == 2 * width and kind == 'u1' and _alternates(pixels):
        raise ValueError(f'the bytes of the image alternate as those of 16-bit pixels, and its '
                         f'step of {step} bytes fits these; its encoding {message.encoding} is '
                         'wrong')
    if dtype.isnative and pixels.flags.aligned:
        return pixels
    return pixels.astype(dtype.newbyteorder('='))


def _alternates(pixels: NDArray[np.uint8]) -> bool:
    """Return whether every other byte of the rows is far smoother than its neighbors."""
    rows = pixels[::max(1, len(pixels) // 16)].astype(np.int16)
    if rows.shape[1] < 16:
        return False
    whole = np.abs(np.diff(rows)).mean()
    smooth = min(np.abs(np.diff(rows[:, start::2])).mean() for start in (0, 1))
    return bool(whole > NOISY and smooth < whole / 8)


def data_of(message: ImageMessage, row: int | None = None) -> NDArray[np.uint8]:
    """
    Return the bytes of a raw image; ValueError if size, step and number of bytes disagree.

    row: bytes of a row's pixels, without which the last row must be as long as the step.
    """
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height == 0 or width == 0:
        raise ValueError(f'the image is empty, {width}x{height} pixels')
    row = step if row is None else row
    if step < row:
        raise ValueError(f'the image step of {step} bytes is smaller than a row of {width} '
                         f'{message.encoding} pixels, {row} bytes')
    data = np.frombuffer(message.data, np.uint8)
    needed = (height - 1) * step + row
    if data.size < needed:
        raise ValueError(f'the image data is truncated, {data.size} bytes of {needed}')
    if data.size > height * step:
        raise ValueError(f'the image data has {data.size} bytes, but height and step say '
                         f'{height * step}; its encoding {message.encoding} or size is wrong')
    return data


def decode_image(kind: str, data: Any, share: float = 1.0) -> NDArray[Any]:
    """
    Decode the PNG, JPEG or TIFF of a compressed image at its full depth.

    kind: the message's format, whose encoding must not be deeper than the image;
    "compressedDepth" is a PNG after a header. ValueError for another format, and for damaged,
    truncated or too large data; share: of the limits.
    """
    buffer = bytes(np.frombuffer(data, np.uint8))
    if 'compressedDepth' in kind:
        if kind.startswith('32FC1') or 'rvl' in kind.lower():
            raise ValueError(f'the image format {kind[:40]!r} is not supported, '
                             'compressedDepth must be 16-bit PNG; publish 16UC1, or use '
                             '"compressed"')
        buffer = buffer[12:]  # after image_transport's header
    if buffer and format_of(buffer) not in COMPRESSED:
        raise ValueError('the compressed image is not PNG, JPEG or TIFF, it begins with '
                         f'{buffer[:4].hex(" ")}')
    try:
        pixels = decode(buffer, share=share)
        if format_of(buffer) == 'TIFF' and (count := len(tiff_pages(buffer))) > 1:
            raise ValueError(f'has {count} pages, and a message is one image')
    except ValueError as error:
        raise ValueError(f'the compressed image {error}') from None
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f'the compressed image has {pixels.dtype} pixels, a thermal image '
                         'must be 8- or 16-bit, or float32')
    depth = DEPTH.match(kind.strip())
    if depth is not None and int(depth[1] or depth[2]) > 8 * pixels.itemsize:
        raise ValueError(f'the compressed image has {8 * pixels.itemsize}-bit pixels, but its '
                         f'format is {kind[:40]!r}: the depth was lost; let the driver send PNG')
    if pixels.ndim == 3:
        if pixels.shape[2] not in (3, 4):
            raise ValueError(f'the compressed image has {pixels.shape[2]} channels, '
                             'a thermal image must be gray or color')
        return pixels[:, :, :3]
    return pixels
