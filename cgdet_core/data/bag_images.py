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

"""Topics and pixels of a bag's image messages, raw or compressed, thermal or colour."""

from collections.abc import Iterator
from typing import Any

from cgdet_core.data.bags import IMAGE_TYPE
from cgdet_core.errors import UserError
from cgdet_core.runtime.frames import to_gray
from cgdet_core.runtime.image_message import view_image
import cv2
import numpy as np
from numpy.typing import NDArray

COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
# encoding -> channels and the conversion to BGR
COLORS: dict[str, tuple[int, int | None]] = {
    'bgr8': (3, None), '8UC3': (3, None), 'rgb8': (3, cv2.COLOR_RGB2BGR),
    'bgra8': (4, cv2.COLOR_BGRA2BGR), 'rgba8': (4, cv2.COLOR_RGBA2BGR),
    'mono8': (1, cv2.COLOR_GRAY2BGR),
    'yuv422': (2, cv2.COLOR_YUV2BGR_UYVY), 'uyvy': (2, cv2.COLOR_YUV2BGR_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2BGR_YUY2), 'yuyv': (2, cv2.COLOR_YUV2BGR_YUY2),
    # OpenCV names a Bayer pattern by its second row and column, ROS by its first.
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2BGR), 'bayer_bggr8': (1, cv2.COLOR_BayerRG2BGR),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2BGR), 'bayer_grbg8': (1, cv2.COLOR_BayerGB2BGR)}


def image_topics(reader: Any) -> dict[str, int]:
    """Give the topics of images, raw or compressed, with their numbers of messages."""
    found: dict[str, int] = {}
    for connection in reader.connections:
        if connection.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE):
            found[connection.topic] = found.get(connection.topic, 0) + connection.msgcount
    return dict(sorted(found.items()))


def choose_topic(reader: Any, path: object, topic: str | None, option: str, other: str | None,
                 ) -> str:
    """Give the image topic, by default the only one but `other`; UserError lists all topics."""
    topics = image_topics(reader)
    choice = [t for t in topics if t != other] if topic is None else [topic]
    if len(choice) == 1 and topics.get(choice[0], 0) > 0:
        return choice[0]
    listed = ', '.join(f'{t} ({n})' for t, n in topics.items()) or 'none'
    if topic is None:
        wrong = f'{path} has no single image topic to choose by itself' if topics else (
            f'{path} has no images')
    else:
        wrong = f'{path} has no images on {topic}'
    raise UserError(f'{wrong}; image topics with their numbers of messages: {listed}'
                    + (f'; choose one with {option}.' if topics else '.'))


def topic_messages(reader: Any, topic: str | None) -> Iterator[tuple[int, Any]]:
    """Give the recorder's time in nanoseconds and the message, of each message of a topic."""
    connections = [c for c in reader.connections if c.topic == topic]
    # An empty list would mean every topic.
    for connection, received, raw in reader.messages(connections) if connections else ():
        yield received, reader.deserialize(raw, connection.msgtype)


def stamp_of(message: Any) -> int:
    """Give the header's stamp in nanoseconds."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def thermal_frame(message: Any) -> NDArray[Any]:
    """Give a raw thermal frame (H, W) of an Image or CompressedImage; ValueError says why not."""
    if hasattr(message, 'encoding'):
        return view_image(message)
    return to_gray(_decode(message, cv2.IMREAD_UNCHANGED))


def color_picture(message: Any) -> NDArray[np.uint8]:
    """Give BGR (H, W, 3) of an Image or CompressedImage; ValueError says why not."""
    if not hasattr(message, 'encoding'):
        return _decode(message, cv2.IMREAD_COLOR)
    if message.encoding not in COLORS:
        raise ValueError(f'image encoding {message.encoding!r} is not supported, a colour image '
                         f'must be one of {", ".join(COLORS)}')
    channels, conversion = COLORS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    needed = (height - 1) * step + width * channels
    if min(height, width) == 0 or step < width * channels or data.size < needed:
        raise ValueError(f'the image of {width}x{height} {message.encoding} pixels with a step of '
                         f'{step} bytes does not fit its data of {data.size} bytes')
    picture = np.ndarray((height, width, channels), np.uint8, data, strides=(step, channels, 1))
    picture = np.ascontiguousarray(picture)
    return picture if conversion is None else cv2.cvtColor(picture, conversion)


def _decode(message: Any, flags: int) -> NDArray[Any]:
    data = np.frombuffer(message.data, np.uint8)
    picture = cv2.imdecode(data, flags) if data.size else None
    if picture is None:
        raise ValueError(f'the compressed image ({message.format!r}) cannot be decoded')
    return picture
