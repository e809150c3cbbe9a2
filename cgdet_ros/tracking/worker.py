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

"""The thread of the tracker node that follows the targets."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from time import perf_counter
from typing import Any

from cgdet_core.runtime.imaging.clock import ImageClock
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.imaging.message import encoding_of, stamp_of
from cgdet_core.runtime.imaging.signal import seen
from cgdet_core.runtime.inference.session import NotFinite
from cgdet_core.runtime.tracking.tracker import BACK_S
from cgdet_ros.node.image_input import Handover, ImageInput, ImageWorker, Received
from cgdet_ros.node.loading import Recovery
from cgdet_ros.node.logs import reason
from cgdet_ros.node.shutter import Shutter
from cgdet_ros.tracking.choice import Choice, in_frame
from cgdet_ros.tracking.history import History, Moment, Refused
from cgdet_ros.tracking.outputs import Notices, Outputs
from cgdet_ros.tracking.parameters import Settings
from cgdet_ros.tracking.requests import Request, Requests
from cgdet_ros.tracking.rgb import RgbInput
from cgdet_ros.tracking.targets import CATCH_UP, Targets
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stream:
    """The input and the outputs of the tracker node."""

    input: ImageInput
    shutter: Shutter
    rgb: RgbInput | None
    outputs: Outputs


class TrackingWorker(ImageWorker):
    """
    Follow the targets into the newest image and publish them.

    Before that, requests are served: a target starts on its own image, and is followed from there
    to the newest one. `settings` returns the current ones; signal: unit and polarity of the
    camera, and the polarity of the model.
    """

    def __init__(
        self, stream: Stream, targets: Targets, requests: Requests, notices: Notices,
        history: History, choice: Choice, settings: Callable[[], Settings], recovery: Recovery,
        signal: tuple[str, str, str], wake: Handover,
    ) -> None:
        self._stream, self._targets, self._notices = stream, targets, notices
        self._requests, self._history, self._choice = requests, history, choice
        self._settings, self._recovery, self._signal = settings, recovery, signal
        self._geometry: tuple[Crop, tuple[int, ...]] | None = None
        self._clock = ImageClock()
        self._failing = False  # a target could not be followed into the latest image
        super().__init__([stream.input], 1, wake)

    def process(self, batch: list[tuple[ImageInput, Received]]) -> None:
        """Follow the targets into the images of a batch, which is one."""
        for source, received in batch:
            try:
                self._process(source, received, self._settings())
            except Exception as error:  # a bad image must not end the node
                self.prepared()
                if self.running():
                    source.skip(received.message, error)

    def _process(self, source: ImageInput, received: Received, settings: Settings) -> None:
        message = received.message
        age = source.age(message)
        if settings.max_image_age_s and age > settings.max_image_age_s:
            self.prepared()
            source.statistics.frame_too_old(age)
            return
        start = perf_counter()
        frame = source.to_frame(message, settings.crop, settings.max_dead_share)
        closed = self._stream.shutter.closed(frame, received.time)
        moment = self._moment(seen(frame, *self._signal), received, settings.crop, closed)
        self.prepared()
        ready = perf_counter()
        failure = self._follow(moment, settings)
        done = perf_counter()
        if not self.running():  # it hung: the outputs now belong to another worker
            return
        followed = [target for target in self._targets.current() if target.is_in(moment)]
        with self._targets.publishing(followed) as alive:
            self._stream.outputs.publish(alive, message.header, settings.crop)
        if failure is not None:
            source.skip(message, failure)
            if isinstance(failure, NotFinite) or not isinstance(failure, ValueError):
                self._recovery.failed(reason(failure), settings.max_failures)
            return
        if followed and not closed:
            self._recovery.inferred()
            self._failing = False
        elif self._failing and not followed and self._recovery.seconds_left() is None:
            self._recovery.give_up()  # the targets that failed were ended
            self._failing = False
        now = perf_counter()
        if closed:
            source.statistics.frame_closed(encoding_of(message), closed, True)
        else:
            source.statistics.frame_done(encoding_of(message), now - received.time,
                                         (ready - start, done - ready, now - done), age)
        if settings.debug_image:
            self._stream.outputs.draw(followed, moment.frame, message.header)

    def _moment(self, frame: NDArray[Any], received: Received, crop: Crop, closed: str) -> Moment:
        """Return the moment of an image, and end the targets that cannot be followed into it."""
        stamp = stamp_of(received.message.header)
        seconds = self._clock.at(stamp, round(received.time * 1e9)) / 1e9
        newest, geometry = self._history.newest(), (crop, frame.shape)
        why = ''
        if self._geometry not in (None, geometry):
            why = (f'the image now has {frame.shape[1]}x{frame.shape[0]} pixels, or is cropped '
                   'otherwise')
        elif newest is not None and newest.seconds - seconds > BACK_S:
            why = (f'stamps went back by {newest.seconds - seconds:.1f} s (a bag that starts '
                   'again, or a clock that was set)')
        self._geometry = geometry
        if why:
            self._history.clear()
            self._notices.ended(self._targets.end(), why)
        elif newest is not None:
            seconds = max(seconds, newest.seconds)  # of images out of order
        if crop != Crop():  # a view would keep all of the image in the history
            frame = frame.copy()
        moment = Moment(stamp, seconds, frame, closed)
        self._history.add(moment)
        return moment

    def _follow(self, moment: Moment, settings: Settings) -> Exception | None:
        """Start what was requested, follow all targets into a moment; return what failed."""
        failure: Exception | None = None
        for request in takewhile(lambda _: self.running(), self._requests.take()):
            waits = False
            try:
                waits = not self._start(request, settings)
            except Exception as error:  # a ValueError is one of the request
                self._notices.refuse('a start', error)
                failure = failure if isinstance(error, ValueError) else error
            finally:
                self._requests.served(request, waits)
        targets = self._targets.current()
        rgb = None
        if self._stream.rgb is not None and targets:
            rgb = self._stream.rgb.at(moment, settings.crop, settings.rgb_max_delay_s)
        elif self._stream.rgb is not None:
            self._stream.rgb.rest()
        for followed in targets:
            try:
                followed.follow(moment, rgb)
            except Exception as error:  # of this target; inference libraries raise any type
                failure = failure or error
                self._failing = True
        return failure

    def _start(self, request: Request, settings: Settings) -> bool:
        """Start a target, unless it was stopped; return False if its image is still to come."""
        if not self._requests.holds(request):
            return True
        found = self._choice.start_of(request, settings)
        if found is None:
            return False
        box, moment = found
        target = self._targets.reserve(box.id, box.class_id, settings.max_targets)
        later = takewhile(lambda _: self.running(), self._history.after(moment, CATCH_UP))
        target.start(moment, in_frame(box, moment, settings.crop),
                     self._choice.label(box.class_id), later)
        if not self.running():
            raise Refused('the node was deactivated meanwhile')
        self._targets.add(target, lambda: self._requests.holds(request))
        return True
