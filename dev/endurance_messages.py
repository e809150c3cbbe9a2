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

"""Images, malformed messages, and a node that sends and receives, for the endurance tests."""

from io import BytesIO
import random
import sys
from time import monotonic, time_ns
from typing import Any
from zlib import crc32

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.runtime.imaging.message import ENCODINGS
import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2D, Detection2DArray

PATIENCE_S = 120.0  # for the node's start, or the detections of an image
FORMATS = ('mono16; png compressed ', 'mono8; jpeg compressed ', '16UC1; tiff compressed ', 'png',
           'jpeg', '', 'rvl', '16UC1; compressedDepth', '32FC1; compressedDepth png', 'ü' * 40,
           '\1', 'x' * 1000)
PNG_SIZE = 16  # offset of width and height in a PNG; the first chunk's checksum follows


def picture(size: tuple[int, int], compressed: bool = False, seed: int = 0,
            moment: int = 0) -> Any:
    """
    Return a synthetic scene as a 16-bit Image, or as a CompressedImage (PNG).

    moment: images of different ones differ by their noise only.
    """
    frame = to_counts(Scene.random(seed, *size).render()[0])
    frame = frame ^ np.random.default_rng(moment).integers(0, 2, frame.shape, frame.dtype)
    message: Any
    if compressed:
        message = CompressedImage(format='mono16; png compressed ', data=_encode(frame, '.png'))
    else:
        message = Image(height=size[1], width=size[0], encoding='mono16', step=2 * size[0])
        message.data = frame.astype('<u2').tobytes()
    message.header.frame_id = 'thermal_optical'
    return message


def _encode(frame: Any, kind: str) -> bytes:
    return bytes(cv2.imencode(kind, frame)[1])


def malformed(rng: random.Random, compressed: bool = False) -> Any:
    """Return a message with one or more errors, sometimes a valid one."""
    message = _malformed_image(rng) if not compressed else CompressedImage(
        format=rng.choice(FORMATS), data=_damage(rng, _small_picture(rng)))
    message.header.stamp.sec = rng.choice((0, -2**31, 2**31 - 1, 1_700_000_000))
    message.header.stamp.nanosec = rng.choice((0, 999_999_999, 2**32 - 1))
    message.header.frame_id = rng.choice(('', 'thermal', 'x' * 1000))
    return message


def _malformed_image(rng: random.Random) -> Image:
    width, height = rng.choice((0, 1, 7, 64, 641, 2**31)), rng.choice((0, 1, 5, 48, 2**32 - 1))
    encoding = rng.choice((*ENCODINGS, 'mono16', 'mono8', '', 'yuv422', 'bgr8', 'rgb16',
                           '64FC1', 'bayer_rggb8', '16UC3', 'ü' * 40, '\1'))
    message = Image(height=height, width=width, encoding=encoding,
                    step=rng.choice((0, 1, width * 2 % 2**32, width % 2**32, 2**32 - 1)),
                    is_bigendian=rng.randrange(256))
    message.data = rng.randbytes(rng.choice((0, 1, 3, 100, 6144, 20000)))
    return message


def _small_picture(rng: random.Random) -> bytes:
    """Return a PNG, JPEG or TIFF of noise, some in color or of a depth that no camera has."""
    noise = np.random.default_rng(rng.randrange(2**32))
    shape = rng.choice(((48, 64), (1, 1), (48, 64, 3), (5, 641)))
    kind = rng.choice(('.png', '.png', '.jpg', '.jpg', '.tiff'))
    if kind == '.tiff' and rng.random() < 0.5:
        return _encode(noise.normal(size=shape).astype(rng.choice((np.float32, np.float64))), kind)
    depth = np.uint8 if kind == '.jpg' else rng.choice((np.uint8, np.uint16))
    return _encode(noise.integers(0, np.iinfo(depth).max, shape, depth), kind)


def _damage(rng: random.Random, data: bytes) -> bytes:
    """Return the data unchanged, truncated, with flipped bits, another size, or replaced."""
    damage = rng.choice(('none', 'cut', 'cut', 'flip', 'flip', 'flip', 'size', 'noise', 'empty'))
    if damage == 'cut':
        return data[:rng.randrange(len(data))]
    if damage == 'empty':
        return b''
    if damage == 'noise':
        return data[:rng.choice((0, 2, 8))] + rng.randbytes(rng.choice((1, 3, 100, 20000)))
    changed = BytesIO(data)
    if damage == 'flip':
        for _ in range(rng.choice((1, 3, 30))):
            position = rng.randrange(min(len(data), rng.choice((30, 300, len(data)))))
            changed.getbuffer()[position] ^= 1 << rng.randrange(8)
    elif damage == 'size' and data.startswith(b'\x89PNG'):
        changed.seek(PNG_SIZE)
        for _ in range(2):
            changed.write(rng.choice((0, 1, 64, 5000, 2**31 - 1, 2**32 - 1)).to_bytes(4, 'big'))
        checked = changed.getvalue()[PNG_SIZE - 4:PNG_SIZE + 13]
        changed.seek(PNG_SIZE + 13)
        changed.write(crc32(checked).to_bytes(4, 'big'))
    return changed.getvalue()


class Listener(Node):
    """Collect detections, or the target of a tracker, and diagnostics."""

    def __init__(self, compressed: bool, tracker: bool = False) -> None:
        super().__init__('endurance')
        self.outputs: list[tuple[int, int]] = []  # stamp of the image, time of arrival; ns
        self.last: Any = None
        self.status: dict[str, str] = {}
        self._node = 'target_tracker' if tracker else 'thermal_detector'
        self._start = self.create_publisher(Detection2D, 'target_tracker/start', 1)
        kind, topic = ((Detection2D, 'target_tracker/target') if tracker else
                       (Detection2DArray, 'detections'))
        self.create_subscription(kind, topic, self._receive, 1000)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 10)
        self.camera = create_camera(self, compressed)

    def _receive(self, message: Any) -> None:
        stamp = message.header.stamp
        self.outputs.append((stamp.sec * 10**9 + stamp.nanosec, time_ns()))
        self.last = message

    def _diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if self._node in status.name:
                self.status |= {v.key: v.value for v in status.values}

    def spin_for(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=min(left, 0.1))

    def detect(self, message: Any) -> Any:
        """Publish an image once a second until its detections arrive, and return these."""
        end = monotonic() + PATIENCE_S
        while monotonic() < end:
            message.header.stamp = self.get_clock().now().to_msg()
            if self.last is None:
                self._start.publish(largest_object(message))
            self.camera.publish(message)
            again = monotonic() + 1.0
            while monotonic() < again:
                rclpy.spin_once(self, timeout_sec=0.05)
                if self.last is not None and self.last.header.stamp == message.header.stamp:
                    return self.last
        sys.exit(f'The node detected nothing within {PATIENCE_S:.0f} s.')


def largest_object(message: Any) -> Detection2D:
    """Return the largest object of a `picture`, whose image a message is."""
    size = (message.width, message.height) if isinstance(message, Image) else (640, 512)
    boxes = Scene.random(0, *size).render()[1]
    x1, y1, x2, y2 = boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()].tolist()
    found = Detection2D(header=message.header)
    found.bbox.center.position.x, found.bbox.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
    found.bbox.size_x, found.bbox.size_y = x2 - x1, y2 - y1
    return found


def create_camera(source: Node, compressed: bool) -> Any:
    """Return the publisher of a camera."""
    if compressed:
        return source.create_publisher(CompressedImage, 'image_raw/compressed', 10)
    return source.create_publisher(Image, 'image_raw', 10)
