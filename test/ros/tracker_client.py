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

"""A client of the tracker node, and frames with a warm object."""

from itertools import count
import time
from typing import Any

import numpy as np
import rclpy
from ros_client import Client, TIMEOUT_S
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

SIZE = 160, 128  # width and height of the frames
SIDE = 20  # of an object
SEEDS = count()  # equal frames would be those of a closed shutter


def frame(*xs: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return an 8-bit frame of new noise, with objects centered at each x, in the middle row."""
    width, height = size
    pixels = np.random.default_rng(next(SEEDS)).integers(10, 30, (height, width)).astype(np.uint8)
    pixels += np.linspace(0, 60, height).astype(np.uint8)[:, None]  # as a flat one is a shutter's
    for x in xs:
        left, top = round(x - SIDE / 2), (height - SIDE) // 2
        pixels[top:top + SIDE, left:left + SIDE] = 160
        pixels[top:top + SIDE // 2, left + 5:left + 15] = 230
    return pixels


def detection(x: float, y: float, width: float = SIDE, height: float = SIDE, stamp: Any = None,
              name: str = '', class_id: str = '', angle: float = 0.0) -> Detection2D:
    """Return a detection with its box centered at x, y."""
    message = Detection2D(id=name)
    if class_id:
        message.results.append(ObjectHypothesisWithPose())
        message.results[0].hypothesis.class_id = class_id
    box = message.bbox
    box.center.position.x, box.center.position.y = float(x), float(y)
    box.size_x, box.size_y, box.center.theta = float(width), float(height), angle
    if stamp is not None:
        message.header.stamp.sec, message.header.stamp.nanosec = stamp.sec, stamp.nanosec
    return message


def center(target: Detection2D) -> tuple[float, float]:
    position = target.bbox.center.position
    return position.x, position.y


class TrackerClient(Client):
    """A node in this process that communicates with the tracker in another one."""

    NODE, PROGRAM = 'target_tracker', 'cgdet_ros.tracker_node'

    def __init__(self, *arguments: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PointStamped
        from std_msgs.msg import String
        from std_srvs.srv import Trigger

        super().__init__(*arguments)
        self.targets: list[Detection2D] = []
        self.states: list[DiagnosticArray] = []
        create = self.node.create_publisher
        self.start = create(Detection2D, '/target_tracker/start', 10)
        self.point = create(PointStamped, '/target_tracker/point', 10)
        self.follow_id = create(String, '/target_tracker/follow_id', 10)
        self.stop_id = create(String, '/target_tracker/stop_id', 10)
        self.found = create(Detection2DArray, '/detections', 10)
        self._stop = self.node.create_client(Trigger, '/target_tracker/stop')
        # The order matters: see `wait_active`.
        self.node.create_subscription(
            Detection2D, '/target_tracker/target', self.targets.append, 100)
        self.node.create_subscription(
            DiagnosticArray, '/target_tracker/state', self.states.append, 100)

    def wait_active(self) -> None:
        """
        Wait until all topics are connected.

        The node discovers our subscriptions in the order of their creation: when a state arrives,
        targets will.
        """
        publishers = self.images, self.start, self.point, self.follow_id, self.stop_id, self.found
        self.wait(lambda: all(p.get_subscription_count() for p in publishers))

        def answered() -> bool:
            self.images.publish(self.image(frame(), 'mono8'))
            self.wait_for(0.2)
            return bool(self.states)

        self.wait(answered)
        self.settle()

    def wait_for(self, seconds: float) -> None:
        """Spin for some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def settle(self) -> None:
        """Wait until no more states arrive."""
        count = -1
        while count != len(self.states):
            count = len(self.states)
            self.wait_for(0.3)

    def image(self, pixels: np.ndarray, encoding: str, **fields: Any) -> Any:
        """Return an image message whose stamp is 0.1 s after that of the one before."""
        message = super().image(pixels, encoding, **fields)
        if 'header' not in fields:
            self.nanoseconds = getattr(self, 'nanoseconds', 10**18) + 10**8
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(
                self.nanoseconds, 10**9)
        return message

    def show(self, *xs: float) -> tuple[Any, list[Detection2D]]:
        """Publish a frame with objects; return its message, and the targets in it."""
        message = self.image(frame(*xs), 'mono8')
        return message, self.send(message)

    def send(self, message: Any, camera: str | None = None) -> list[Detection2D]:
        """Publish an image; return the targets with its stamp, when its state has come."""
        self.images.publish(message)
        stamp = message.header.stamp
        state = self.wait(lambda: next((s for s in self.states if s.header.stamp == stamp), None))

        def arrived() -> list[Detection2D]:
            return [t for t in self.targets if t.header.stamp == stamp]

        self.wait(lambda: len(arrived()) == len(state.status))
        return arrived()

    def state_of(self, message: Any) -> list[tuple[str, str]]:
        """Return id and state of each target in an image that was sent."""
        state, = (s for s in self.states if s.header.stamp == message.header.stamp)
        return [(next(v.value for v in s.values if v.key == 'id'), s.message)
                for s in state.status]

    def follow(self, *xs: float, **fields: Any) -> str:
        """Start on the first object of a new frame; return the target's id."""
        message, before = self.show(*xs)
        self.start.publish(detection(xs[0], SIZE[1] / 2, stamp=message.header.stamp, **fields))
        new = self.started(*xs, before=len(before))
        return new[-1].id

    def started(self, *xs: float, before: int = 0) -> list[Detection2D]:
        """Show objects until there is another target than before; return the targets."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            _, targets = self.show(*xs)
            if len(targets) > before:
                return targets
        raise AssertionError(self.log.read_text())

    def stop(self) -> Any:
        """Call the service that ends all targets; return its response."""
        self.wait(self._stop.service_is_ready)
        from std_srvs.srv import Trigger
        future = self._stop.call_async(Trigger.Request())
        self.wait(future.done)
        return future.result()

    def refused(self, words: str) -> dict[str, Any]:
        """Wait for a refusal with these words in the status and the log; return the status."""
        status = self.wait(lambda: next(
            (s for s in self.statuses if words in s['message']
             and s['name'] == 'target_tracker: targets'), None))
        assert words in self.log.read_text()
        return status
