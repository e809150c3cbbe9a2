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

"""The shutter of a camera: closed according to its driver, or to its frames."""

from collections.abc import Collection
from time import monotonic
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.shutter import ShutterDetector
from cgdet_ros.node.logs import reason
from cgdet_ros.node.topics import input_qos
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.subscription import Subscription
from std_msgs.msg import Bool

BOOL = 'std_msgs/msg/Bool'
STALE_S = 10.0  # a driver that has been silent for so long no longer holds the shutter closed


class Shutter:
    """
    Tell whether a camera's shutter is closed.

    topic: std_msgs/Bool, true while it is closed; a relative name is prefixed with the camera's.
    Empty: the frames are watched, see `ShutterDetector`.
    """

    def __init__(self, node: Node, camera: str, topic: str) -> None:
        self._node = node
        self._topic = topic if topic.startswith('/') or not camera else f'{camera}/{topic}'
        self._watch = not topic
        self._subscription: Subscription | None = None
        self.reset()

    def reset(self) -> None:
        """Forget frames and messages."""
        self._detector = ShutterDetector()
        self._reported = False, 0.0  # the driver's last message, and when it came

    def check(self, images: Collection[str]) -> None:
        """Raise UserError if the topic is one of images, or that the node publishes otherwise."""
        if self._watch:
            return
        try:
            topic = self._node.resolve_topic_name(self._topic)
        except Exception as error:  # of a name that is too long
            raise UserError(f'ffc_topic {self._topic}: {reason(error)}') from None
        if topic in (*images, *(publisher.topic_name for publisher in self._node.publishers)):
            raise UserError(f'ffc_topic {self._topic} is already a topic of this node, and not '
                            f'{BOOL}; correct the parameter, or leave it empty so that the '
                            'images are watched')

    def subscribe(self) -> None:
        """Subscribe to the driver's topic, if there is one."""
        self.reset()
        if not self._watch:
            self._subscription = self._node.create_subscription(
                Bool, self._topic, self._receive, input_qos())

    def unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def _receive(self, message: Bool) -> None:
        self._reported = bool(message.data), monotonic()

    def problem(self) -> str:
        """Return why the driver is not heard, as far as the graph shows it, '' if it may be."""
        if self._subscription is None:
            return ''
        found = self._node.get_publishers_info_by_topic(self._topic)
        kinds = {publisher.topic_type for publisher in found}
        if BOOL in kinds:
            return ''
        why = f'has {" and ".join(sorted(kinds))}, not {BOOL}' if kinds else 'has no publisher'
        return (f'ffc_topic {self._topic} {why}: a closed shutter is not recognized; correct the '
                'parameter, or leave it empty so that the images are watched')

    def closed(self, frame: NDArray[Any], seconds: float) -> str:
        """Return why the shutter is closed, '' if it is open; seconds: the time of reception."""
        if self._watch:
            return self._detector.update(frame, seconds)
        closed, when = self._reported
        return self._topic if closed and monotonic() - when < STALE_S else ''
