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

"""What the tracker node publishes: the targets, their states, and a picture."""

from collections import deque
from collections.abc import Sequence
from threading import Lock
from time import monotonic
from typing import Any

from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.tracking.drawing import draw_targets
from cgdet_core.runtime.tracking.target import State
from cgdet_ros.node.diagnostics import to_status
from cgdet_ros.node.logs import CameraLog, time_text
from cgdet_ros.node.pictures import to_debug_image
from cgdet_ros.node.topics import Publishers, reliable_qos
from cgdet_ros.tracking.targets import Followed
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose

LEVELS = {State.TRACKED: DiagnosticStatus.OK, State.UNCERTAIN: DiagnosticStatus.WARN,
          State.LOST: DiagnosticStatus.ERROR}
NOTICE_S = 5.0  # that a refusal is the message of the status


class Outputs:
    """Publish one message per target, and one with all states, for each processed image."""

    def __init__(self, node: Node, prefix: str, normalization: Normalization,
                 log: CameraLog) -> None:
        self._publishers = Publishers(node, '')
        self._prefix, self._normalization, self._log = prefix, normalization, log
        create = self._publishers.create
        try:
            self._target = create(Detection2D, '~/target', reliable_qos(10))
            self._states = create(DiagnosticArray, '~/state', reliable_qos(10))
            self._picture = create(Image, '~/debug_image', reliable_qos(1))
        except Exception:  # a bad qos_overrides entry
            self.destroy()
            raise

    @property
    def topic(self) -> str:
        """The resolved topic of the targets."""
        return str(self._target.topic_name)

    def destroy(self) -> None:
        """Destroy all topics."""
        self._publishers.destroy()

    def publish(self, followed: Sequence[Followed], header: Header, crop: Crop) -> None:
        """Publish the targets of an image and their states."""
        states = [to_state(each, self._prefix, header) for each in followed]
        for each, state in zip(followed, states):
            each.status = state, monotonic()
            self._target.publish(to_target(each, header, crop))
        self._states.publish(DiagnosticArray(header=header, status=states))

    def draw(self, followed: Sequence[Followed], frame: NDArray[Any], header: Header) -> None:
        """Publish the frame (H, W) with its targets, in its own pixels, if it is watched."""
        try:
            if self._picture.get_subscription_count():
                picture = draw_targets(frame, [each.target for each in followed],
                                       self._normalization, [each.id for each in followed])
                self._picture.publish(to_debug_image(picture, header))
        except Exception as error:
            self._log.error('no debug_image{}', error)


def to_target(followed: Followed, header: Header, crop: Crop) -> Detection2D:
    """Return a target in pixels of the received image; its score is the probability."""
    message = Detection2D(header=header, id=followed.id, results=[ObjectHypothesisWithPose()])
    x1, y1, x2, y2 = followed.in_received(crop).tolist()
    box, hypothesis = message.bbox, message.results[0].hypothesis
    box.center.position.x, box.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
    box.size_x, box.size_y = x2 - x1, y2 - y1
    hypothesis.class_id, hypothesis.score = followed.class_id, float(followed.target.score)
    return message


def to_state(followed: Followed, prefix: str, header: Header) -> DiagnosticStatus:
    """Return the state of a target; its message is tracked, uncertain or lost."""
    target = followed.target
    return to_status(
        f'{prefix}: target {followed.id}', header.frame_id, LEVELS[target.state],
        target.state.value,
        {'id': followed.id, 'class id': followed.class_id, 'score': f'{target.score:.3f}',
         'box': 'prediction' if followed.coasts() else 'seen',
         'in this state s': f'{followed.seconds():.3f}'})


class Notices:
    """Requests that were refused, and targets that were ended: log and status; thread-safe."""

    def __init__(self, node: Node) -> None:
        self._node, self._log = node, CameraLog(node, '', 'targets')
        self._lock = Lock()
        self._latest: deque[tuple[float, str]] = deque(maxlen=4)
        self._refused = 0
        self._last = self._time = ''

    def refuse(self, what: str, why: Exception | str) -> None:
        """Report why a request is refused."""
        self._log.error(f'{what} is refused', ValueError(str(why)))
        with self._lock:
            self._refused += 1
        self._keep(f'{what} is refused: {why}')

    def ended(self, names: Sequence[str], why: str) -> None:
        """Report why targets were ended without a request."""
        if names:
            text = f'{why}, so these targets ended: {", ".join(names)}'
            if self._node.context.ok():  # else Ctrl-C has ended them
                self._log.warning(text)
            self._keep(text)

    def _keep(self, text: str) -> None:
        with self._lock:
            self._latest.append((monotonic(), text))
            self._last, self._time = text, time_text()

    def status(self, prefix: str, followed: int, limit: int, started: int) -> DiagnosticStatus:
        """Return the status of the targets together."""
        with self._lock:
            new = [text for when, text in self._latest if monotonic() - when < NOTICE_S]
            level = DiagnosticStatus.WARN if new else DiagnosticStatus.OK
            return to_status(
                f'{prefix}: targets', 'none', level,
                '; '.join(dict.fromkeys(new)) or f'{followed} of {limit} targets',
                {'followed': followed, 'max_targets': limit, 'started': started,
                 'refused': self._refused, 'last notice': self._last,
                 'last notice time': self._time})
