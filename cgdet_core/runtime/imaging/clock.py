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

"""The times of a camera's images, also if stamps are missing or stand still."""


class ImageClock:
    """
    Return the time of each image of a camera: that of its stamp, as long as stamps move.

    An image without a stamp, or with the one of the image before, is later by as much as it was
    received later, and later stamps go on from there. The time goes back only with a stamp that
    is earlier than the one before it.
    """

    def __init__(self) -> None:
        self._stamp: int | None = None  # the latest that was not missing
        self._latest: tuple[int, int] | None = None  # time and reception
        self._ahead = 0  # of the time, from the stamps
        self._stands = False  # the latest time is not that of a stamp

    def at(self, stamp_ns: int, received_ns: int) -> int:
        """Return the time in nanoseconds; stamp_ns: 0 if it is missing."""
        stands = stamp_ns in (0, self._stamp)
        if self._latest is None:
            time = stamp_ns or received_ns
        elif stands or (self._stands and (self._stamp is None or stamp_ns > self._stamp)):
            time = self._latest[0] + max(0, received_ns - self._latest[1])
        else:
            time = stamp_ns + self._ahead
        self._stamp = stamp_ns or self._stamp
        self._ahead = 0 if self._stamp is None else time - self._stamp
        self._latest, self._stands = (time, received_ns), stands
        return time
