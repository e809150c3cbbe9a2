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

"""What a node reports: its statistics and its diagnostic status (REP-107)."""

from collections import deque
from socket import gethostname
from threading import Lock
from time import monotonic
from typing import Any

from cgdet_ros.node.loading import Loading, Recovery
from cgdet_ros.node.logs import time_text
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np

TEXT = 256  # characters of an image's frame_id and encoding that are reported
WINDOW = 1000  # frames that the percentiles are computed over
FUTURE_S = 1.0  # maximum of a stamp in the future: more than synchronized clocks differ
STILL_S = 1.0  # with images of one stamp
STUCK_S = 5.0  # with images and without a result: longer than any useful inference
YEAR_S = 365.25 * 86400.0
OLD_S = 10 * YEAR_S  # older than any bag that is played: such stamps do not mean a date
BEHIND_S, BEHIND_IMAGES, BEHIND_SHARE = 10.0, 10, 0.25  # replaced of the images of that time
LONGEST_FFC_S = 5.0  # that a shutter is closed
SHARES = {'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}
HISTOGRAM_BINS = 101  # milliseconds of latency; the last bin counts 100 ms and more


class Statistics:
    """Count and time the frames of one camera; thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.received = 0
        self.processed = 0
        self.replaced = 0  # in the slot, by a newer frame
        self.too_old = 0
        self.failed = 0
        self.lost: int | None = None  # before this node; None if the middleware does not count
        self.dead_pixels = 0  # of the latest image
        self.false_color = False
        self.closed = 0  # frames of a closed shutter, and how often it closed
        self.closings = 0
        self._unpublished = 0  # of the frames of a closed shutter
        self._shutter = ''  # why it is closed
        self._closed_since = 0.0
        self.frame_id = ''
        self._counts_frames = False  # the frame_id changes
        self.encoding = ''
        self.last_error = ''  # empty when images are processed again
        self.last_error_time = ''
        self._stamp: int | None = None  # of the latest image, ns, and when it was new
        self._stamp_since = 0.0
        self.image_age = 0.0
        self.started = monotonic()
        self._last_received: float | None = None
        self._waiting_since: float | None = None  # while an image is without a result
        self._last_result = ''  # failed, too old, or empty
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._outputs: deque[float] = deque(maxlen=WINDOW)
        self._replacements: deque[float] = deque(maxlen=WINDOW)
        self._behind = False  # was reported
        self._latencies: deque[tuple[float, ...]] = deque(maxlen=WINDOW)
        self._histogram = [0] * HISTOGRAM_BINS

    def frame_received(self, frame_id: str, replaces: bool, stamp: int | None = None) -> None:
        """Count a frame, and a replaced one if another was waiting; stamp: in ns, if known."""
        with self._lock:
            self.received += 1
            self.replaced += replaces
            # Some drivers count frames in it: then it does not name the camera.
            self._counts_frames |= self.received > 1 and frame_id[:TEXT] != self.frame_id
            self.frame_id = frame_id[:TEXT]
            self._last_received = monotonic()
            if stamp is None or stamp != self._stamp:
                self._stamp, self._stamp_since = stamp, self._last_received
            if replaces:
                self._replacements.append(self._last_received)
            self._waiting_since = self._waiting_since or self._last_received
            self._arrivals.append(self._last_received)

    def frames_lost(self, count: int) -> None:
        """Count frames that were published and did not reach the node."""
        with self._lock:
            self.lost = (self.lost or 0) + count

    def frame_too_old(self, image_age: float) -> None:
        with self._lock:
            self.too_old += 1
            self.image_age = image_age
            self._done('too old')

    def frame_done(
        self, encoding: str, total: float, steps: tuple[float, float, float], image_age: float,
    ) -> None:
        """Record a published frame: s in total from reception, and before, in, after inference."""
        with self._lock:
            self.processed += 1
            self.encoding = encoding[:TEXT]
            self.last_error = ''
            self.image_age = image_age
            self._outputs.append(self._done(''))
            self._latencies.append((total, *steps, image_age))
            self._histogram[min(int(total * 1e3), HISTOGRAM_BINS - 1)] += 1

    def frame_closed(self, encoding: str, why: str, published: bool) -> None:
        """Count a frame of a closed shutter, which no time or rate includes."""
        with self._lock:
            self.closed += 1
            self.processed += published
            self._unpublished += not published
            self.encoding = encoding[:TEXT]
            now = self._done('closed')
            if not self._shutter:
                self.closings += 1
                self._closed_since = now
            self._shutter = why

    def frame_failed(self, encoding: str, error: str) -> None:
        with self._lock:
            self.failed += 1
            self.encoding = encoding[:TEXT]
            self.last_error, self.last_error_time = error, time_text()
            self._done('failed')

    def _done(self, result: str) -> float:
        now = monotonic()
        results = (self.processed + self.failed + self.too_old + self.replaced
                   + self._unpublished)
        if result != 'closed':
            self._shutter = ''
        self._last_result, self._waiting_since = result, now if self.received > results else None
        return now

    def take_histogram(self) -> list[int]:
        """Return the frames per millisecond of latency since the last call."""
        with self._lock:
            counts, self._histogram = self._histogram, [0] * HISTOGRAM_BINS
            return counts

    def falls_behind(self) -> str:
        """Return once, when many images are replaced before their turn, what to do about it."""
        with self._lock:
            images, replaced = (_recent(times, BEHIND_S)
                                for times in (self._arrivals, self._replacements))
            if self._behind or len(images) < BEHIND_IMAGES or (
                    len(replaced) < BEHIND_SHARE * len(images)):
                return ''
            self._behind = True
            infer = np.median([latency[2] for latency in self._latencies] or [np.nan]) * 1e3
            return (f'the node cannot keep up: {len(replaced)} of {len(images)} images were '
                    f'replaced by newer ones before their turn (inference takes {infer:.0f} ms); '
                    'use another backend or more threads, the INT8 model of a detector, fewer '
                    'targets of a tracker, or lower the rate of the camera')

    def status(
        self, name: str, hardware: str, source: str | None, no_input_warn_s: float,
        remark: str = '',
    ) -> DiagnosticStatus:
        """
        Return the camera's status for /diagnostics.

        hardware: the camera's name, used until an image contains a frame_id; source: topic and
        publishers, None without a subscription; remark: a warning if nothing else is wrong.
        """
        with self._lock:
            level, message = (DiagnosticStatus.OK, 'not active') if source is None else (
                self._level(source, no_input_warn_s, remark))
            named = '' if self._counts_frames else self.frame_id
            return to_status(name, named or hardware, level, message, {
                'encoding': self.encoding,
                'false color': 'yes' if self.false_color else 'no',
                'received': self.received, 'processed': self.processed,
                'dropped': self.replaced + self.too_old, 'replaced': self.replaced,
                'too old': self.too_old, 'failed': self.failed,
                'lost': 'unknown' if self.lost is None else self.lost,
                'dead pixels': self.dead_pixels,
                'shutter': f'closed: {self._shutter}' if self._shutter else 'open',
                'shutter closed': self.closings, 'images of a closed shutter': self.closed,
                'skipped': self._unpublished,
                'last error': self.last_error,
                'last error time': self.last_error_time,
                'input rate Hz': f'{_rate(self._arrivals):.2f}',
                'output rate Hz': f'{_rate(self._outputs):.2f}',
                'image age s': f'{self.image_age:.3f}', **self._percentiles()})

    def _level(self, source: str, no_input_warn_s: float, remark: str) -> tuple[bytes, str]:
        silent = monotonic() - (self._last_received or self.started)
        if silent > no_input_warn_s:
            return DiagnosticStatus.WARN, f'no image for {silent:.0f} s on {source}'
        idle = monotonic() - (self._waiting_since or monotonic())
        if idle > max(no_input_warn_s, STUCK_S):
            return DiagnosticStatus.ERROR, (
                f'images are received, but none was processed for {idle:.0f} s: inference hangs '
                'or is too slow')
        if self._last_result == 'failed':
            return DiagnosticStatus.ERROR, self.last_error
        if self._last_result == 'closed':
            seconds = monotonic() - self._closed_since
            if seconds < LONGEST_FFC_S:
                return DiagnosticStatus.OK, f'shutter closed ({self._shutter})'
            return DiagnosticStatus.WARN, (
                f'the images have shown nothing new for {seconds:.0f} s ({self._shutter}): the '
                'camera or its driver hangs, or its shutter is stuck')
        if self._last_result == 'too old':
            return DiagnosticStatus.WARN, f'images are too old, {self.image_age:.1f} s'
        if self._stamp == 0 and self.image_age > FUTURE_S:
            return DiagnosticStatus.WARN, (
                'the stamps of the images are 0: set them in the driver, as nothing can be '
                'matched with these detections by time')
        still = (self._last_received or self._stamp_since) - self._stamp_since
        if still > STILL_S:
            return DiagnosticStatus.WARN, (
                f'the stamps of the images have stood still for {still:.0f} s: set header.stamp '
                'for each image in the driver; if it has use_sim_time, check that /clock runs')
        if self.image_age > OLD_S:
            return DiagnosticStatus.WARN, (
                f'stamps are {self.image_age / YEAR_S:.0f} years old: the driver stamps with '
                'another clock, for example with the time since boot')
        if self.image_age < -FUTURE_S:
            return DiagnosticStatus.WARN, (
                f'stamps are {-self.image_age:.1f} s in the future: check that camera and node '
                'share a clock (use_sim_time requires /clock)')
        if remark:
            return DiagnosticStatus.WARN, remark
        return DiagnosticStatus.OK, 'running'

    def _percentiles(self) -> dict[str, str]:
        if not self._latencies:
            return {}
        table = np.array(self._latencies) * 1e3
        overhead = table[:, 0] - table[:, 2]
        columns = {'latency': table[:, 0], 'pre': table[:, 1], 'infer': table[:, 2],
                   'post': table[:, 3], 'overhead': overhead, 'image age': table[:, 4]}
        return {f'{name} {label} ms': f'{value:.2f}' for name, column in columns.items()
                for label, value in zip(SHARES, np.percentile(column, list(SHARES.values())))}


def node_status(
    name: str, state: str, error: str, recovery: Recovery, loading: Loading[Any] | None,
    values: dict[str, object],
) -> DiagnosticStatus:
    """Return the status of the node; error: why the latest transition failed."""
    values = {'state': state, 'failures': recovery.failures, 'restarts': recovery.restarts,
              'last error': error or recovery.error, 'last error time': recovery.error_time,
              **values}
    level, text = DiagnosticStatus.OK, state
    if loading is not None:
        if loading.state != 'loading':  # an engine build may take minutes
            level = DiagnosticStatus.WARN
        text = f'{loading.state}, {loading.elapsed():.0f} s'
        values |= {'state': loading.state, 'elapsed s': f'{loading.elapsed():.0f}'}
    elif error:
        level, text = DiagnosticStatus.ERROR, error
    elif recovery.failures:
        level, text = DiagnosticStatus.ERROR, recovery.error
    elif state == 'finalized':
        level = DiagnosticStatus.WARN
        text = 'finalized: no more images are processed; restart the node'
    if (left := recovery.seconds_left()) is not None:
        level = DiagnosticStatus.ERROR
        text += f'; the model is reloaded in {left:.0f} s'
    return to_status(name, gethostname(), level, text, values)


def to_status(
    name: str, hardware: str, level: bytes, message: str, values: dict[str, object],
) -> DiagnosticStatus:
    """Return a status; all values are converted to text."""
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])


def _recent(times: deque[float], seconds: float) -> list[float]:
    start = monotonic() - seconds
    return [t for t in times if t > start]


def _rate(times: deque[float]) -> float:
    """Return the Hz of the last 5 s, or of the latest two of slower ones, less in a pause."""
    recent = _recent(times, 5.0)
    if len(recent) > 1:
        return (len(recent) - 1) / (recent[-1] - recent[0])
    if len(times) < 2:
        return 0.0
    return 1 / max(times[-1] - times[-2], monotonic() - times[-1])
