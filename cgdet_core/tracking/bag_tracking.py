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

"""Follow a target through the images of a bag, as the node does with those of a camera."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.io import color_picture, image_connections, image_messages, open_bag
from cgdet_core.data.sources import Frame
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_json, write_table
from cgdet_core.runtime.imaging.shutter import ShutterDetector
from cgdet_core.runtime.tracking.rgbt import is_black
from cgdet_core.runtime.tracking.target import State, Target
from cgdet_core.tracking.following import Clock, Follower, sides
from cgdet_core.tracking.pictures import open_target_video
import cv2
import numpy as np
from numpy.typing import NDArray

AHEAD_NS = 10**10  # of a stamp before the recorder's time, since the last image
SLACK_NS = 10**8  # between the requested stamp and that of the image
MOST = 128  # images that are kept while a nearer one is searched for
COLUMNS = ('stamp', 'x', 'y', 'w', 'h', 'score', 'state', 'shutter')
FORMATS = ('.csv', '.json')


@dataclass(frozen=True)
class Row:
    """The target in an image; closed: why the shutter was, '' if it was open."""

    stamp_ns: int
    target: Target
    closed: str

    def values(self) -> dict[str, Any]:
        """Return the row's values; the box in pixels, the stamp in seconds as text."""
        x, y, w, h = (round(float(v), 2) for v in sides(self.target.box))
        return dict(zip(COLUMNS, (stamp_text(self.stamp_ns), x, y, w, h,
                                  round(self.target.score, 4), self.target.state.value,
                                  self.closed)))


def parse_stamp(text: str) -> int:
    """Return a stamp in nanoseconds of a text in seconds, such as 1700000000.25; UserError."""
    try:
        seconds = Decimal(text)
        if not abs(seconds) < 2**31:  # those of header.stamp
            raise ValueError
        return int(seconds * 10**9)
    except (ArithmeticError, ValueError):
        raise UserError(f'A stamp is in seconds, as header.stamp, for example 1700000000.25, not '
                        f'{text!r}.', 'start') from None


def stamp_text(stamp_ns: int) -> str:
    """Return a stamp in seconds with all its nanoseconds."""
    seconds, nanoseconds = divmod(abs(stamp_ns), 10**9)
    return f'{"-" * (stamp_ns < 0)}{seconds}.{nanoseconds:09d}'


def stamp_of(frame: Frame) -> int:
    """Return the stamp of a bag's frame in nanoseconds, the recorder's time if it is missing."""
    assert frame.stamp_ns is not None
    return frame.stamp_ns or frame.received_ns or 0


def from_stamp(frames: Iterable[Frame], stamp_ns: int | None) -> Iterator[Frame]:
    """
    Yield frames from that of a stamp on, by default all; UserError if there is none of it.

    Without the very stamp, it is the nearest one within 0.1 s. It is searched for until a stamp
    is later than that, so stamps may be out of order, and the clock may have been set.
    """
    frames = iter(frames)
    if stamp_ns is not None:
        kept = _from_nearest(frames, stamp_ns)
        while kept:
            yield kept.popleft()
    yield from frames


def _from_nearest(frames: Iterator[Frame], stamp_ns: int) -> deque[Frame]:
    """Return the frame of a stamp and those after it, as far as they had to be read to know."""
    kept: deque[Frame] = deque()
    first = nearest = None
    for frame in frames:
        stamp = stamp_of(frame)
        first = stamp if first is None else first
        if nearest is None or abs(stamp - stamp_ns) < abs(nearest - stamp_ns):
            nearest = stamp
            kept.clear()
        if abs(nearest - stamp_ns) <= SLACK_NS:
            kept.append(frame)
            if nearest == stamp_ns or stamp > stamp_ns + SLACK_NS or len(kept) >= MOST:
                break
    if not kept:
        text = 'the bag has no images' if first is None or nearest is None else (
            f'the images begin at {stamp_text(first)}, and the nearest is of '
            f'{stamp_text(nearest)}')
        raise UserError(f'There is no image within 0.1 s of the stamp {stamp_text(stamp_ns)}; '
                        f'{text}.', 'start')
    return kept


def thermal_topic(bag: Path, topic: str | None, rgb_topic: str) -> str:
    """Return the thermal topic of a bag beside an RGB topic; UserError if one is missing."""
    with open_bag(bag) as reader:
        rgb = image_connections(reader, bag, rgb_topic, field='rgb_topic')[0].topic
        found = str(image_connections(reader, bag, topic, rgb)[0].topic)
    if found == rgb:
        raise UserError(f'{found} cannot be both the thermal and the RGB topic.', 'rgb_topic')
    return found


class ColorTopic:
    """
    The RGB images of a bag, asked for in the order of the thermal stamps, as the node does.

    used: number of frames that had one. missing: how often one was missing, by the reason.
    """

    def __init__(self, bag: Path, topic: str, max_gap_ms: float) -> None:
        self._messages = self._read(bag, topic)
        if not 0 <= max_gap_ms < 1e6:
            raise UserError(f'{max_gap_ms:g} is no time in milliseconds.', 'max_gap_ms')
        self._topic, self._gap = topic, round(max_gap_ms * 1e6)
        self._near: deque[tuple[int, Any]] = deque()
        self.used, self.missing = 0, Counter[str]()

    @staticmethod
    def _read(bag: Path, topic: str) -> Iterator[tuple[int, Any]]:
        before: tuple[int, int] | None = None  # stamp and recorder's time
        with open_bag(bag) as reader:
            for received, stamp, message in image_messages(reader, bag, topic):
                stamp = stamp or received
                ahead = 0 if before is None else stamp - before[0] - (received - before[1])
                if isinstance(message, ValueError) or ahead > AHEAD_NS:  # damaged
                    continue
                before = stamp, received
                yield stamp, message

    def at(self, stamp_ns: int, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
        """Return the RGB image (H, W, 3) nearest to a frame of a shape, None if unusable."""
        while not self._near or self._near[-1][0] <= stamp_ns + self._gap:
            if (following := next(self._messages, None)) is None:
                break
            if following[0] >= stamp_ns - self._gap:
                self._near.append(following)
        while self._near and self._near[0][0] < stamp_ns - self._gap:
            self._near.popleft()
        try:
            rgb = self._pixels(stamp_ns, shape)
        except (ValueError, cv2.error) as error:
            self.missing[str(error)] += 1
            return None
        self.used += 1
        return rgb

    def _pixels(self, stamp_ns: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        stamp, message = min(self._near, key=lambda pair: abs(pair[0] - stamp_ns),
                             default=(stamp_ns + self._gap + 1, None))
        if abs(stamp - stamp_ns) > self._gap:
            raise ValueError(f'{self._topic} has none within {self._gap / 1e6:g} ms')
        rgb = cv2.cvtColor(color_picture(message), cv2.COLOR_BGR2RGB)
        if rgb.shape[:2] != shape[:2]:
            raise ValueError(f'those of {self._topic} have {rgb.shape[1]}x{rgb.shape[0]} pixels, '
                             f'the thermal ones {shape[1]}x{shape[0]}: register them to the '
                             'thermal pixels')
        if is_black(np.asarray(rgb, np.uint8)):
            raise ValueError(f'those of {self._topic} are black')
        return np.asarray(rgb, np.uint8)


def follow_frames(
    follower: Follower, frames: Iterable[Frame], box: NDArray[np.float32],
    unreadable: Callable[[UserError], None], clock: Clock, video: Path | None = None,
    rate: float = 10.0, colors: ColorTopic | None = None,
) -> Iterator[Row]:
    """
    Follow the target with the box (4,) x1, y1, x2, y2 in the first frame; yield it in each.

    The target coasts while the shutter is closed, recognized by the frames. unreadable: called
    for each later frame that cannot be read or followed, which is left out. video: .mp4 to write.
    clock: takes the stamps. colors: RGB images for an RGB-T tracker, which follows in thermal
    alone where there is none.
    UserError if stamps go back by more than a second, where the node ends its targets.
    """
    shutter, started = ShutterDetector(), False
    with open_target_video(video, rate) if video else nullcontext() as show:
        for frame in frames:
            stamp = stamp_of(frame)
            latest = clock.at(frame, stamp / 1e9)
            try:
                pixels = frame.pixels
                closed = shutter.update(pixels, latest)
                rgb: dict[str, Any] = {} if colors is None else {
                    'rgb': colors.at(stamp, pixels.shape)}
                target = (follower.follow(pixels, latest, frozen=bool(closed), **rgb) if started
                          else follower.start(pixels, box, latest, **rgb))
            except ValueError as error:
                if not started:
                    raise frame.error(error) from None
                unreadable(frame.error(error))
                continue
            started = True
            if show is not None:
                show(frame, target, None)
            yield Row(stamp, target, closed)


def summary(rows: list[Row]) -> dict[str, Any]:
    """Return how many images were followed in each state, and how often the target was lost."""
    states = [row.target.state for row in rows]
    losses = sum(now is State.LOST and before is not State.LOST
                 for before, now in zip(states, states[1:]))
    return {'frames': len(rows), **{state.value: states.count(state) for state in State},
            'losses': losses, 'shutter_closed': sum(bool(row.closed) for row in rows)}


def write_rows(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Write a table (.csv), or the table with what it is of and the summary (.json)."""
    values = [row.values() for row in rows]
    if path.suffix.lower() == '.json':
        write_json(path, {**about, 'summary': summary(rows), 'frames': values})
    else:
        write_table(path, COLUMNS, values)
