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

"""Messages of a bag's topics, and the pixels of its color images."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from cgdet_core.runtime.imaging.message import view_image, view_pixels
import cv2
import numpy as np
from numpy.typing import NDArray

# What cameras send beside the usual: encoding -> bytes of a pixel and the conversion to BGR
CAMERA_ENCODINGS = {
    'yuv422': (2, cv2.COLOR_YUV2BGR_UYVY), 'uyvy': (2, cv2.COLOR_YUV2BGR_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2BGR_YUY2), 'yuyv': (2, cv2.COLOR_YUV2BGR_YUY2),
    # OpenCV names a Bayer pattern by its second row and column, ROS by its first.
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2BGR), 'bayer_bggr8': (1, cv2.COLOR_BayerRG2BGR),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2BGR), 'bayer_grbg8': (1, cv2.COLOR_BayerGB2BGR)}


def topic_messages(reader: Any, topic: str | None) -> Iterator[tuple[int, Any]]:
    """Return the recorder's time in nanoseconds and the message, of each message of a topic."""
    connections = [c for c in reader.connections if c.topic == topic]
    # An empty list would mean every topic.
    for connection, received, raw in reader.messages(connections) if connections else ():
        yield received, reader.deserialize(raw, connection.msgtype)


def stamp_of(message: Any) -> int:
    """Return the header's stamp in nanoseconds."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def color_picture(message: Any) -> NDArray[np.uint8]:
    """Return BGR (H, W, 3) of an Image or CompressedImage; ValueError says why not."""
    encoding = getattr(message, 'encoding', '')
    if encoding not in CAMERA_ENCODINGS:
        pixels = view_pixels(message)
        if pixels.dtype != np.uint8:
            raise ValueError(f'a color image must be 8-bit, this one is {pixels.dtype}')
        return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    size, conversion = CAMERA_ENCODINGS[encoding]
    gray = np.ascontiguousarray(view_image(SimpleNamespace(
        height=message.height, width=message.width * size, encoding='mono8', is_bigendian=0,
        step=message.step, data=message.data)))
    return cv2.cvtColor(gray.reshape(message.height, message.width, size), conversion)
