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

"""What to follow: a box, a point, or a detection of our detector by its id."""

from collections import deque
from dataclasses import dataclass, field, replace
from threading import Lock
from time import monotonic, monotonic_ns

from cgdet_core.runtime.imaging.message import stamp_of
from cgdet_ros.tracking.history import Refused
from geometry_msgs.msg import PointStamped
import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import String
from vision_msgs.msg import Detection2D, Detection2DArray

PATIENCE_S = 2.0  # that a request waits for the image of its stamp
MOST = 16  # requests that wait
TEXT = 256  # characters of an id or a class id
FAR = 1e6  # pixels, beyond every image


@dataclass(frozen=True)
class Request:
    """stamp_ns: of the image it is about, 0 for the newest. since: when it arrived, monotonic."""

    stamp_ns: int
    since: float = field(default_factory=monotonic, kw_only=True)


@dataclass(frozen=True)
class Box(Request):
    """A box (4,), x1, y1, x2, y2 in pixels of the received image; id: '' for a new one."""

    box: NDArray[np.float32]
    id: str = ''
    class_id: str = ''


@dataclass(frozen=True)
class Point(Request):
    """A point in pixels of the received image."""

    x: float
    y: float


@dataclass(frozen=True)
class DetectionId(Request):
    """The id of a detection, on the newest image that has it."""

    id: str


def to_box(message: Detection2D) -> Box:
    """
    Return the box of a detection, of a rotated one the upright box around it.

    Refused if it is not finite, has no area or is far off.
    """
    center, size = message.bbox.center.position, (message.bbox.size_x, message.bbox.size_y)
    numbers, angle = np.array((center.x, center.y, *size)), message.bbox.center.theta
    if not np.isfinite((*numbers, angle)).all():
        raise Refused('its box has a center, a size or an angle that is not a finite number')
    if min(size) <= 0:
        raise Refused(f'its box of {size[0]:g} x {size[1]:g} pixels has no area: set '
                      'bbox.size_x and bbox.size_y')
    _check_near(numbers, 'box')
    along, across = abs(np.cos(angle)), abs(np.sin(angle))
    half = np.array(((along, across), (across, along))) @ numbers[2:] / 2
    corners = np.concatenate([numbers[:2] - half, numbers[:2] + half]).astype(np.float32)
    class_id = message.results[0].hypothesis.class_id if message.results else ''
    return Box(stamp_of(message.header), corners, _short(message.id), _short(class_id))


def to_point(message: PointStamped) -> Point:
    """Return a point; Refused if it is not finite or far off."""
    x, y = message.point.x, message.point.y
    if not np.isfinite((x, y)).all():
        raise Refused('its point is not a finite number')
    _check_near(np.array((x, y)), 'point')
    return Point(stamp_of(message.header), x, y)


def to_id(message: String) -> DetectionId:
    """Return the id of a detection; Refused if it is empty."""
    if not message.data:
        raise Refused('the id is empty')
    return DetectionId(0, _short(message.data))


def _check_near(numbers: NDArray[np.float64], what: str) -> None:
    farthest = numbers[np.abs(numbers).argmax()]
    if abs(farthest) > FAR:
        raise Refused(f'its {what} has the number {farthest:g}, beyond every image: send pixels '
                      'of the received image')


def _short(text: str) -> str:
    if len(text) > TEXT:
        raise Refused(f'its id or class id has {len(text)} characters, at most {TEXT} are '
                      'accepted')
    return str(text)


class Requests:
    """Hold requests until the image they are about is there; thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[Request] = deque()
        self._taken: list[Request] = []  # by the worker, which has not served them yet

    def put(self, request: Request) -> None:
        """Add a request; Refused if too many wait."""
        with self._lock:
            if len(self._waiting) >= MOST:
                raise Refused(f'{MOST} others already wait for an image')
            self._waiting.append(request)

    def take(self) -> list[Request]:
        """Return all that wait, to be served; until then they can be canceled."""
        with self._lock:
            self._taken, self._waiting = list(self._waiting), deque()
            return list(self._taken)

    def holds(self, request: Request) -> bool:
        """Return whether a request that was taken has not been canceled."""
        with self._lock:
            return any(r is request for r in self._taken)

    def cancel(self, name: str | None = None) -> int:
        """Remove the requests that state this id, or all; return how many there were."""
        with self._lock:
            before = len(self._waiting) + len(self._taken)
            waiting, self._taken = (
                [r for r in held if name not in (None, getattr(r, 'id', ''))]
                for held in (self._waiting, self._taken))
            self._waiting = deque(waiting)
            return before - len(self._waiting) - len(self._taken)

    def served(self, request: Request, again: bool = False) -> None:
        """Forget a request that was taken; again: it waits again, unless it was canceled."""
        with self._lock:
            if again and any(r is request for r in self._taken):
                self._waiting.append(request)
            self._taken = [r for r in self._taken if r is not request]

    def expired(self) -> int:
        """Remove the requests that no worker has taken in time, and return their number."""
        with self._lock:
            kept = [r for r in self._waiting if monotonic() - r.since <= 2 * PATIENCE_S]
            number, self._waiting = len(self._waiting) - len(kept), deque(kept)
            return number


class Seen:
    """The latest detections of our detector; thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._ns = round(seconds * 1e9)
        self._lock = Lock()
        self._messages: deque[tuple[int, Detection2DArray]] = deque(maxlen=128)

    def add(self, message: Detection2DArray) -> None:
        """Keep a message, and those of the seconds before it."""
        now, stamp = monotonic_ns(), stamp_of(message.header)
        with self._lock:
            self._messages.append((now, message))
            while not 0 <= self._before(self._messages[0], now, stamp) <= self._ns:
                self._messages.popleft()

    @staticmethod
    def _before(entry: tuple[int, Detection2DArray], now: int, stamp: int) -> int:
        """Return how old a message is by its stamp, or without one by when it came."""
        came, earlier = entry[0], stamp_of(entry[1].header)
        return stamp - earlier if stamp and earlier else now - came

    def clear(self) -> None:
        with self._lock:
            self._messages.clear()

    def find(self, request: DetectionId) -> Box:
        """Return the newest box with an id; Refused if the detector does not know it."""
        messages = self._recent()
        for message in reversed(messages):
            for detection in message.detections:
                if detection.id == request.id:
                    return self._box(detection, message, request)
        if not messages:
            raise Refused('no detections have arrived: start the detector with the parameter '
                          'track, and check the topic "detections"')
        known = sorted({d.id for m in messages for d in m.detections} - {''})
        if not known:
            raise Refused('the detections have no ids: set the parameter track of the detector '
                          'to true')
        raise Refused(f'the detector does not know the id {request.id!r} any more; its ids are '
                      f'{", ".join(known)[:TEXT]}')

    def at(self, point: Point, radius: float, newest_ns: int) -> Box | None:
        """
        Return the box at a point, None if there is none within `radius` pixels.

        Of the newest detections, not later than the point: the smallest box that contains the
        point, or else the nearest. newest_ns: stamp of the newest image.
        """
        messages = self._recent()
        last = point.stamp_ns or newest_ns
        message = next((m for m in reversed(messages)
                        if 0 <= last - stamp_of(m.header) <= self._ns), None)
        if message is None:
            return None
        boxes = []
        for detection in message.detections:
            try:
                boxes.append(self._box(detection, message, point))
            except Refused:
                continue
        chosen = nearest(np.array([b.box for b in boxes]).reshape(-1, 4), point, radius)
        return None if chosen is None else boxes[chosen]

    def _recent(self) -> list[Detection2DArray]:
        """Return the messages; those without a stamp only for the seconds since they came."""
        with self._lock:
            return [message for came, message in self._messages
                    if stamp_of(message.header) or monotonic_ns() - came <= self._ns]

    @staticmethod
    def _box(detection: Detection2D, message: Detection2DArray, request: Request) -> Box:
        return replace(to_box(detection), stamp_ns=stamp_of(message.header), since=request.since)


def nearest(boxes: NDArray[np.float32], point: Point, radius: float) -> int | None:
    """Return which of the boxes (N, 4) is the smallest at a point, or the nearest in a radius."""
    if not len(boxes):
        return None
    center = np.array((point.x, point.y))
    beside = np.maximum(0, np.maximum(boxes[:, :2] - center, center - boxes[:, 2:]))
    distances = np.hypot(*beside.T)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    best = int(np.lexsort((areas, distances))[0])
    return best if distances[best] <= radius else None
