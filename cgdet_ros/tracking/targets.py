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

"""The targets that are followed: start, follow, end."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from time import monotonic

from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.tracking.target import State, Target
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_ros.node.logs import CameraLog
from cgdet_ros.tracking.history import Moment, Refused
from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

CATCH_UP = 20  # images at most, between that of the start and the newest


class Followed:
    """
    A target with its tracker, used by the worker only.

    class_id: of its start. status: of the latest image, and when that was, monotonic; other
    threads may read both.
    """

    def __init__(self, name: str, class_id: str, tracker: Tracker, log: CameraLog) -> None:
        self.id, self.class_id = name, class_id
        self.log = log
        self.status = DiagnosticStatus(), 0.0
        self._tracker = tracker
        self._moment: Moment | None = None  # the latest it was followed in
        self._target: Target | None = None
        self._since = 0.0  # when the state began

    @property
    def target(self) -> Target:
        """The target in the latest moment, in pixels of its frame."""
        assert self._target is not None
        return self._target

    def start(self, moment: Moment, box: NDArray[np.float64], label: int | None,
              later: Iterable[Moment]) -> None:
        """
        Start on a box (4,) in pixels of the frame, and follow the target through later moments.

        ValueError if there cannot be a target.
        """
        if moment.closed:
            raise Refused(f'the shutter was closed at that time ({moment.closed}); choose a later '
                          'image')
        self._set(moment, self._tracker.start(moment.frame, box, moment.seconds, label))
        for between in later:
            self.follow(between)

    def follow(self, moment: Moment, rgb: NDArray[np.uint8] | None = None) -> None:
        """Follow the target into a moment, in which it coasts if the shutter is closed."""
        if moment is not self._moment:
            extra = {} if rgb is None else {'rgb': rgb}
            self._set(moment, self._tracker.follow(
                moment.frame, moment.seconds, frozen=bool(moment.closed), **extra))

    def is_in(self, moment: Moment) -> bool:
        """Return whether the target was followed into a moment."""
        return self._moment is moment

    def seconds(self) -> float:
        """Return for how long the target has been in its state."""
        assert self._moment is not None
        return self._moment.seconds - self._since

    def _set(self, moment: Moment, target: Target) -> None:
        if self._target is None or target.state != self._target.state:
            self._since = moment.seconds
        self._moment, self._target = moment, target

    def in_received(self, crop: Crop) -> NDArray[np.float32]:
        """Return the box (4,) in pixels of the received image."""
        return crop.to_received(self.target.box[None])[0]

    def coasts(self) -> bool:
        """Return whether the box is a prediction."""
        return self.target.state != State.TRACKED


class Targets:
    """
    The targets in the order of their start; thread-safe.

    The worker starts and follows them, and any thread ends them: after `end` has returned,
    nothing is published for them. numbers: of those that have no id of their own.
    """

    def __init__(self, node: Node, create: Callable[[], Tracker],
                 numbers: Iterator[int]) -> None:
        self._node = node
        self._create = create
        self._lock = Lock()
        self._all: dict[str, Followed] = {}
        self._numbers = numbers
        self.started = 0

    def reserve(self, name: str, class_id: str, limit: int) -> Followed:
        """Return a new target, which `add` adds; Refused for a used id, or above the limit."""
        with self._lock:
            used = list(self._all)
        if name in used:
            raise Refused(f'the target {name} is followed already')
        if len(used) >= limit:
            raise Refused(f'{len(used)} of {limit} targets (max_targets) are followed already, '
                          f'{", ".join(used)}: end one with ~/stop_id, or all with ~/stop')
        name = name or next(text for n in self._numbers if (text := f't{n}') not in used)
        return Followed(name, class_id, self._create(), CameraLog(self._node, name, 'target'))

    def add(self, followed: Followed, wanted: Callable[[], bool]) -> None:
        """Add a started target; Refused if it is not wanted any more."""
        with self._lock:
            if not wanted():
                raise Refused('it was ended meanwhile')
            self._all[followed.id] = followed
            self.started += 1

    def current(self) -> list[Followed]:
        with self._lock:
            return list(self._all.values())

    @contextmanager
    def publishing(self, followed: Sequence[Followed]) -> Iterator[list[Followed]]:
        """Yield those that are not ended, and let none be ended meanwhile."""
        with self._lock:
            yield [f for f in followed if self._all.get(f.id) is f]

    def end(self, name: str | None = None) -> list[str]:
        """End one target, or all; return the ids of those that were followed."""
        with self._lock:
            ended = [n for n in self._all if name in (None, n)]
            for each in ended:
                del self._all[each]
            return ended

    def statuses(self, patience: float) -> list[DiagnosticStatus]:
        """
        Return the status of each target, and log a new problem.

        That of the latest image; WARN if it was processed more than `patience` seconds ago.
        """
        statuses = []
        for followed in self.current():
            status, when = followed.status
            if not status.name:
                continue  # it has not been published yet
            if (silent := monotonic() - when) > patience:
                status = DiagnosticStatus(
                    level=max(status.level, DiagnosticStatus.WARN), name=status.name,
                    message=f'{status.message} in the latest image, which came {silent:.0f} s ago',
                    hardware_id=status.hardware_id, values=status.values)
            followed.log.follow(status)
            statuses.append(status)
        return statuses
