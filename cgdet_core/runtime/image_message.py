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

"""View the pixels of a sensor_msgs/Image, however it was read, without copying."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# encoding -> element type; cv_bridge is not used here: some builds read 16UC1 as 8-bit.
ENCODINGS: dict[str, str] = {
    'mono8': 'u1', '8UC1': 'u1', 'mono16': 'u2', '16UC1': 'u2', '32FC1': 'f4'}


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image; rclpy's and rosbags' messages both have them."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def view_image(message: ImageMessage) -> NDArray[Any]:
    """
    Give the frame (height, width) as uint8, uint16 or float32 (kelvin), rows unpadded.

    The result is a view of the message's data (big-endian data is swapped into a copy).
    ValueError in one sentence: unknown encoding, zero size, a step smaller than a row, or
    less data than the rows need.
    """
    kind = ENCODINGS.get(message.encoding)
    if kind is None:
        raise ValueError(f'image encoding {message.encoding!r} is not supported, a thermal '
                         f'image must be one of {", ".join(ENCODINGS)}')
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height == 0 or width == 0:
        raise ValueError(f'the image is empty, {width}x{height} pixels')
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    if step < width * dtype.itemsize:
        raise ValueError(f'the image step of {step} bytes is smaller than a row of {width} '
                         f'{message.encoding} pixels, {width * dtype.itemsize} bytes')
    data = np.frombuffer(message.data, np.uint8)
    needed = (height - 1) * step + width * dtype.itemsize
    if data.size < needed:
        raise ValueError(f'the image data is truncated, {data.size} bytes of {needed}')
    frame = np.ndarray((height, width), dtype, data, strides=(step, dtype.itemsize))
    if dtype.isnative and frame.flags.aligned:
        return frame
    return frame.astype(dtype.newbyteorder('='))
