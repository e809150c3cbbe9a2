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

"""The latest images, on which a target can start with a box that is older than they are."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLACK_S = 0.1  # between a box and the image it is on: an image in between may not have arrived
MOST = 128  # images that are kept
MOST_BYTES = 2 ** 28  # of them, at least one image


class Refused(ValueError):
    """A target cannot be started; the message says why."""


@dataclass(frozen=True)
class Moment:
    """
    An image as the tracker sees it.

    stamp_ns: of its header. seconds: the tracker's time, which never goes back. frame: cropped
    gray (H, W). closed: why the shutter is, '' if it is open.
    """

    stamp_ns: int
    seconds: float
    frame: NDArray[Any]
    closed: str


class History:
    """Keep the moments of the last seconds, in order; not thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._moments: deque[Moment] = deque(maxlen=MOST)

    def add(self, moment: Moment) -> None:
        """
        Add the newest moment and forget those that are too old or too many.

        If the clock was set back, those of later stamps are forgotten too.
        """
        if moment.stamp_ns and self.stamp_ns() - moment.stamp_ns > SLACK_S * 1e9:
            kept = [m for m in self._moments if m.stamp_ns < moment.stamp_ns]
            self._moments = deque(kept, self._moments.maxlen)
        self._moments.append(moment)
        while (moment.seconds - self._moments[0].seconds > self._seconds
               or len(self._moments) > max(1, MOST_BYTES // moment.frame.nbytes)):
            self._moments.popleft()

    def newest(self) -> Moment | None:
        return self._moments[-1] if self._moments else None

    def stamp_ns(self) -> int:
        """Return the newest stamp that is not missing, 0 if all are."""
        return next((m.stamp_ns for m in reversed(self._moments) if m.stamp_ns), 0)

    def find(self, stamp_ns: int) -> Moment | None:
        """
        Return the moment of a stamp, None if it is still to come; Refused if it is gone.

        0 stands for the newest. Without the very image, it is the nearest one within SLACK_S.
        """
        newest = self.newest()
        if newest is None or stamp_ns > max(m.stamp_ns for m in self._moments):
            return None
        if stamp_ns == 0:
            return newest
        found = min(reversed(self._moments), key=lambda m: abs(m.stamp_ns - stamp_ns))
        if (off := abs(found.stamp_ns - stamp_ns) * 1e-9) > SLACK_S:
            raise Refused(
                f'the image of its stamp is gone: it is {(self.stamp_ns() - stamp_ns) * 1e-9:.2f} '
                f's older than the newest one, and the nearest that is kept (history_s) is '
                f'{off:.2f} s off; send a newer one, or a stamp of 0 for the newest image')
        return found

    def after(self, moment: Moment, count: int) -> list[Moment]:
        """Return at most `count` of the moments after one, evenly spaced, the newest included."""
        later = list(self._moments)
        later = later[next(i for i, m in enumerate(later) if m is moment) + 1:]
        if len(later) <= count:
            return later
        chosen = np.linspace(-1, len(later) - 1, count + 1).round().astype(int)[1:]
        return [later[i] for i in chosen]

    def clear(self) -> None:
        self._moments.clear()
