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

"""Follow the target of a sequence with a tracker, or with anything that follows."""

from collections.abc import Callable
from dataclasses import dataclass
import logging
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from cgdet_core.data.sources import Frame
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.clock import ImageClock
from cgdet_core.runtime.imaging.frames import read_rgb
from cgdet_core.runtime.tracking.target import Target
from cgdet_core.runtime.tracking.tracker import BACK_S
from cgdet_core.tracking.sequences import Sequence
from cgdet_core.tracking.truth import Truth
from cgdet_core.words import counted
import numpy as np
from numpy.typing import NDArray

Box = NDArray[np.float64]  # (4,) x, y, w, h
PIXELS = attrgetter('pixels')  # of a frame, which is read then
BEYOND, FEW = 1.05, 3  # of the frame, by which so many boxes of a truth reach outside
_log = logging.getLogger(__name__)
# Called with each frame, its target and the truth's box, if it has one.
Show = Callable[[Frame, Target, Box | None], None]


class Follower(Protocol):
    """What follows one target, as `runtime.tracking.Tracker` does."""

    def start(self, frame: NDArray[Any], box: NDArray[Any], stamp: float,
              label: int | None = None, rgb: NDArray[Any] | None = None) -> Target:
        """Start with the box (4,), x1, y1, x2, y2, in a raw frame."""
        ...

    def follow(self, frame: NDArray[Any], stamp: float, rgb: NDArray[Any] | None = None,
               frozen: bool = False) -> Target:
        """Return the target in the next frame; stamp: in seconds."""
        ...


@dataclass(frozen=True)
class Run:
    """
    A target that was followed.

    boxes (N, 4): x, y, w, h, NaN before the start. truths: of each modality. seconds: spent on
    the `followed` frames after the start, without reading them. with_rgb: whether any frame had
    an RGB image.
    """

    boxes: NDArray[np.float64]
    truths: tuple[Truth, ...]
    seconds: float
    followed: int
    with_rgb: bool = False

    @property
    def fps(self) -> float | None:
        """Return the frames followed per second, or None if there were none."""
        return self.followed / self.seconds if self.seconds > 0 else None


class Clock:
    """
    The times of frames that follow each other, in seconds, as the node takes them.

    repeated: number of frames whose stamp is missing, or not later than those before.
    """

    def __init__(self) -> None:
        self._latest = self._stamp = -np.inf
        self._images = ImageClock()
        self.repeated = 0

    def at(self, frame: Frame, stamp: float) -> float:
        """
        Return the time of a frame, which never goes back; UserError if it is of another recording.

        stamp: in seconds. The time of a bag's image is that of its recording if its stamp is
        missing or stands still.
        """
        time = stamp
        if frame.stamp_ns is not None and frame.received_ns is not None:
            time = self._images.at(frame.stamp_ns, frame.received_ns) / 1e9
        if self._latest - time > BACK_S:
            raise frame.error(ValueError(
                f'its stamp is {self._latest - time:.1f} s older than those before, as of '
                'another recording; the target ends there; follow it again from there'))
        missing = frame.stamp_ns == 0
        self.repeated += missing or stamp <= self._stamp
        self._stamp = self._stamp if missing else max(self._stamp, stamp)
        self._latest = max(self._latest, time)
        return float(self._latest)

    @property
    def sentence(self) -> str:
        """Return what is wrong with the stamps, '' if nothing is."""
        return (f'{counted(self.repeated, "image")} without a stamp, or with one that is not '
                'later than those before; motion is judged by stamps: the camera driver must set '
                'header.stamp'
                if self.repeated else '')


def follow_sequence(follower: Follower, sequence: Sequence, show: Show | None = None,
                    progress: Callable[[int], None] = lambda frames: None,
                    unreadable: Callable[[UserError], None] | None = None) -> Run:
    """
    Follow the target from the first frame whose truth has a box; earlier frames are skipped.

    unreadable: called for each later frame that cannot be read, in which the target is where it
    was before, and for each RGB image that cannot, without which it is followed in thermal alone,
    as without those of another size than their frame. UserError names a frame that cannot be
    read, without it, or followed, and one that has another size than the first.
    """
    names, truths = sequence.names, sequence.truths
    first = int(truths[0].visible.argmax())
    boxes = np.full((len(names), 4), np.nan)
    seconds, followed, shape = 0.0, 0, None
    unregistered = with_rgb = False
    for i, frame in zip(range(len(names)), sequence.source.frames):
        progress(1)
        if i < first:
            continue
        pixels = read_or_tell(PIXELS, frame, unreadable if i > first else None)
        if pixels is None:
            boxes[i] = boxes[i - 1]
            continue
        if shape is None:
            _check_truth(truths[0], pixels.shape, sequence.entry.truths[0])
        shape = shape or pixels.shape
        if pixels.shape != shape:
            raise UserError(f'{frame.where} has {_size(pixels.shape)} pixels, earlier frames have '
                            f'{_size(shape)}; a sequence has one size.')
        color: dict[str, Any] = {}
        if sequence.rgb and (picture := sequence.rgb[i]):
            color['rgb'] = read_or_tell(read_rgb, picture, unreadable)
            if color['rgb'] is not None and color['rgb'].shape[:2] != shape[:2]:
                if not unregistered:
                    _log.warning('%s The target is followed in thermal alone there.',
                                 _other_size(picture, color['rgb'], shape))
                unregistered, color['rgb'] = True, None
            with_rgb |= color['rgb'] is not None
        started = perf_counter()
        try:
            if i == first:
                target = follower.start(pixels, corners(truths[0].boxes[i]), i / sequence.rate,
                                        **color)
            else:
                target = follower.follow(pixels, i / sequence.rate, **color)
        except ValueError as error:
            raise frame.error(error) from None
        if i > first:
            seconds += perf_counter() - started
            followed += 1
        boxes[i] = truths[0].boxes[i] if i == first else sides(target.box)
        if show is not None:
            show(frame, target, truths[0].boxes[i] if truths[0].visible[i] else None)
    return Run(boxes, truths, seconds, followed, with_rgb)


def _check_truth(truth: Truth, shape: tuple[int, ...], path: Path) -> None:
    """Log it if all boxes reach far beyond the frame, and are inside as two corners."""
    x, y, w, h = truth.boxes[truth.visible].T
    height, width = shape[:2]
    outside = (x + w > BEYOND * width) | (y + h > BEYOND * height)
    if len(x) >= FEW and (outside & (w > x) & (h > y) & (w <= width) & (h <= height)).all():
        _log.warning('%s: all boxes reach beyond the frames of %s pixels, and seem to be '
                     'x1, y1, x2, y2; a truth has the left and top side, width and height.', path,
                     _size(shape))


def corners(box: NDArray[Any]) -> NDArray[np.float32]:
    """Return x1, y1, x2, y2 of a box (4,) x, y, w, h."""
    return np.array([*box[:2], *(box[:2] + box[2:])], np.float32)


def sides(box: NDArray[Any]) -> Box:
    """Return x, y, w, h of a box (4,) x1, y1, x2, y2."""
    return np.array([*box[:2], *(box[2:] - box[:2])], np.float64)


def read_or_tell(
    read: Callable[[Any], NDArray[Any]], what: Any, unreadable: Callable[[UserError], None] | None,
) -> NDArray[Any] | None:
    """Return read(what); if it cannot be read, call unreadable and return None, or raise."""
    try:
        return read(what)
    except UserError as error:
        if unreadable is None:
            raise
        unreadable(error)
        return None


def read_rgb_of(
    path: Path, shape: tuple[int, ...], unreadable: Callable[[UserError], None] | None = None,
) -> NDArray[np.uint8] | None:
    """
    Return the RGB image of a frame of a shape; UserError if it has another size.

    unreadable: called with the error if it cannot be read, in place of raising it.
    """
    found = read_or_tell(read_rgb, path, unreadable)
    if found is not None and found.shape[:2] != shape[:2]:
        raise UserError(_other_size(path, found, shape))
    return found


def _other_size(path: Path, image: NDArray[Any], shape: tuple[int, ...]) -> str:
    return (f'{path} has {_size(image.shape)} pixels, its thermal frame has {_size(shape)}; '
            'register RGB to the thermal pixels (cgdet data register).')


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'
