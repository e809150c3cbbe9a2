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

"""The RGB images next to the thermal ones, and why they are not used."""

from collections import deque
from threading import Lock
from time import monotonic
from typing import Any

from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.imaging.message import ENCODINGS, LIVE, stamp_of, view_pixels
from cgdet_core.runtime.tracking.rgbt import is_black
from cgdet_ros.node.bridge import read_pixels
from cgdet_ros.node.diagnostics import to_status
from cgdet_ros.node.image_input import publishers_of
from cgdet_ros.node.logs import CameraLog, reason
from cgdet_ros.node.topics import input_qos
from cgdet_ros.tracking.history import Moment
import cv2
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

# The messages of which the nearest in time is used: of so many seconds, and at least so many, as
# far as they fit into so many bytes.
KEPT_S, KEPT, KEPT_BYTES = 1.0, 10, 2**28
OTHER_CLOCK_S = 60.0  # a difference of stamps that no delay explains
ALONE = 'thermal alone is used'


class RgbInput:
    """Store the latest RGB images, and return that of a thermal image if it can be used."""

    def __init__(self, node: Node, topic: str) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._node = node
        self._log = CameraLog(node, '', 'RGB')
        self._subscription: Subscription | None = None
        self._lock = Lock()
        self._messages: deque[tuple[float, Any]] = deque()  # and when they came, monotonic
        self._problem = ''
        self._resting = True  # no target is followed
        self._used = self._alone = 0

    def subscribe(self) -> None:
        """Subscribe with new statistics; raise rclpy's error for a bad qos_overrides entry."""
        self._problem, self._resting, self._used, self._alone = '', True, 0, 0
        kind = CompressedImage if self.topic.endswith('/compressed') else Image
        self._subscription = self._node.create_subscription(
            kind, self.topic, self._receive, input_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)
        with self._lock:
            self._messages.clear()

    def _receive(self, message: Any) -> None:
        now, most = monotonic(), max(1, KEPT_BYTES // max(1, len(message.data)))
        with self._lock:
            self._messages.append((now, message))
            while len(self._messages) > most or (
                    len(self._messages) > KEPT and now - self._messages[0][0] > KEPT_S):
                self._messages.popleft()

    def at(self, moment: Moment, crop: Crop, max_delay_s: float) -> NDArray[np.uint8] | None:
        """Return the RGB image (H, W, 3) of a moment, cropped as its frame, None if unusable."""
        self._resting = False
        try:
            pixels = self._read(moment, crop, max_delay_s)
        except Exception as error:  # whatever is wrong with it, thermal goes on
            self._problem = reason(error)
            self._alone += 1
            return None
        self._problem = ''
        self._used += 1
        return pixels

    def rest(self) -> None:
        """Note that no target is followed, so that no RGB image is asked for."""
        self._problem, self._resting = '', True

    def _read(self, moment: Moment, crop: Crop, max_delay_s: float) -> NDArray[np.uint8]:
        with self._lock:
            messages = [message for _, message in self._messages]
        if not messages:
            raise ValueError(f'no image has arrived on {self.topic}')  # `status` says why
        nearest = min(reversed(messages), key=lambda m: abs(stamp_of(m.header) - moment.stamp_ns))
        off = abs(stamp_of(nearest.header) - moment.stamp_ns) * 1e-9
        if off > max(OTHER_CLOCK_S, max_delay_s):
            raise ValueError(f'the stamps of {self.topic} are {off:.0f} s off those of the '
                             'thermal images: let both drivers use one clock')
        if off > max_delay_s:
            raise ValueError(f'the nearest image on {self.topic} is {off:.3f} s off the thermal '
                             f'one, more than rgb_max_delay_s ({max_delay_s:g})')
        pixels = to_rgb(nearest)
        height, width = moment.frame.shape
        expected = width + crop.left + crop.right, height + crop.top + crop.bottom
        if pixels.shape[1::-1] != expected:
            raise ValueError(f'the images on {self.topic} have {pixels.shape[1]}x'
                             f'{pixels.shape[0]} pixels, but the thermal ones {expected[0]}x'
                             f'{expected[1]}: register them to the thermal pixels')
        if is_black(pixels):
            raise ValueError(f'the images on {self.topic} are black')
        return crop.apply(pixels)

    def status(self, prefix: str) -> DiagnosticStatus:
        """Return the status for /diagnostics, and log a new problem."""
        subscription = self._subscription
        problem = '' if subscription is None else self._problem
        if problem and not self._messages and subscription is not None:
            found = self._node.get_publishers_info_by_topic(self.topic)
            problem = f'no image has arrived on {publishers_of(subscription, found)}'
        level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
        usual = ('not active' if subscription is None else
                 'waits for a target' if self._resting else 'used')
        status = to_status(
            f'{prefix}: RGB', self.topic, level, f'{problem}; {ALONE}' if problem else usual,
            {'topic': self.topic, 'images with RGB': self._used,
             'images of thermal alone': self._alone})
        self._log.follow(status)
        return status


def to_rgb(message: Any) -> NDArray[np.uint8]:
    """Return the pixels of a color image, RGB (H, W, 3) uint8; ValueError if it is none."""
    own = hasattr(message, 'format') or message.encoding in ENCODINGS
    pixels = view_pixels(message, LIVE) if own else read_pixels(message)
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError('an RGB image must have 8-bit color, such as rgb8 or bgr8')
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2RGB),
                      np.uint8)
