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

"""Follow one target through raw thermal frames."""

from dataclasses import dataclass
from typing import Any

from cgdet_core.runtime.tracking.decoding import Found
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.motion import Motion
from cgdet_core.runtime.tracking.region import Region
from cgdet_core.runtime.tracking.search import Detect, LostSearch
from cgdet_core.runtime.tracking.target import State, Target
import numpy as np
from numpy.typing import NDArray

SMALLEST = 3.0  # pixels, width and height of a target
LARGEST = 2.0  # the same, in widths and heights of the frame
SAMPLE_S = 0.1  # between samples that are kept
IMPROVE_S = 0.5  # between improvements of the filter
# Logit by which a target is more likely where it is expected than one of which nothing is known.
CONTINUITY = 2.0
SURE = 0.8  # probability from which on a sample is kept
RIVAL = 0.5  # match below which something else looks like the target
WIDER_S = 0.1  # a target that was not seen for so long is searched for in more of the frame
LOST_S = 0.5  # a target that was not seen for so long is lost
BACK_S = 1.0  # stamps that go back further are of another recording
GAP_S = 1.0  # after a longer time between frames the speed is forgotten
CONFIRM = 3  # frames in a row in which a lost target must be found
REFOUND = 0.6  # probability that the first of them needs
WORSE = 0.8  # how much less than usual its logit may be
USUAL_S = 1.0  # time in which the usual logit follows to 1 - 1/e
RELEARN_S = 1.0  # a target that was found again must be tracked for so long before it is learned
# A target is likely within NEAR of its prediction, in its size, and AWAY times more per second.
NEAR, AWAY = 0.6, 2.0
LOST_PLACES = 3  # that are searched in a frame
RESIZE_S = 0.12  # time in which the size follows the box head to 1 - 1/e
RESIZE_LIMIT = 1.25  # largest change of width and height in a frame


@dataclass
class Look:
    """A place in a frame that may show the target; box: (4,) in pixels of the frame."""

    box: NDArray[np.float64]
    probability: float
    found: Found
    region: Region
    seen: Any  # by the target's sight


class Tracker:
    """
    Follow one target; not thread-safe, one instance per target.

    detect: returns boxes (x1, y1, x2, y2 in pixels), scores and labels of the objects in a raw
    frame; a lost target is then also searched for at objects of its class.
    """

    def __init__(self, model: TrackingModel, detect: Detect | None = None) -> None:
        self.model = model
        self._detect = detect
        self._motion: Motion | None = None

    def start(self, frame: NDArray[Any], box: Any, stamp: float,
              label: int | None = None, rgb: NDArray[Any] | None = None) -> Target:
        """
        Start following what is in a box (4,), x1, y1, x2, y2 in pixels of the frame.

        frame: raw (H, W), uint8, uint16 counts or float32 kelvin; stamp: seconds; label: the
        target's class, as `detect` names it; rgb: as for `follow`. ValueError for a box of no
        area, outside of the frame, far larger than it or not finite, and for a frame that cannot
        be normalized.
        """
        box = check_box(box, frame)
        self._sight = self.model.sight(self.model.normalized(frame, rgb), box)
        self._shape, self._size = frame.shape, box[2:] - box[:2]
        self._motion = Motion((box[:2] + box[2:]) / 2, self._root)
        self._search = LostSearch(self._detect, label)
        self._stamp = self._seen_at = self._sampled = self._improved = float(stamp)
        self._hits, self._refinding, self._found_at = 0, False, -np.inf
        self._usual = _logit(SURE)
        self._last = Target(box.astype(np.float32), 1.0, State.TRACKED)
        return self._last

    def follow(self, frame: NDArray[Any], stamp: float, rgb: NDArray[Any] | None = None,
               frozen: bool = False) -> Target:
        """
        Return the target in the next frame.

        stamp: seconds, of the same clock as at the start; rgb: (H, W, 3) uint8, the same view in
        the same pixels, which an RGB-T tracker uses; without it, of another size or black, and
        by a thermal tracker, thermal alone is used.
        frozen: the frame says nothing, as during a shutter event; the target keeps moving, and
        nothing is learned. ValueError before a start, and for a frame that cannot be normalized or
        has another size than that of the start.
        """
        if self._motion is None:
            raise ValueError('no target was chosen; call start with its box first')
        if frame.ndim == 2 and frame.shape != self._shape:
            raise ValueError(f'the frame has {_pixels(frame.shape)} pixels, and the target was '
                             f'chosen in one of {_pixels(self._shape)}; start again with a box in '
                             'this size')
        passed = self._advance(float(stamp))
        self._motion.predict(passed, self._root)
        if frozen:
            self._seen_at += passed
            state = State.LOST if self._last.state == State.LOST else State.UNCERTAIN
            return self._result(self._predicted(), self._last.score * np.exp(-passed), state)
        image = self.model.normalized(frame, rgb)
        # What leaves the frame is searched for where it left.
        self._motion.center = np.clip(self._motion.center, 0, frame.shape[::-1])
        if self._last.state == State.LOST:
            return self._search_lost(frame, image, State.LOST)
        look = self.look(image, self._predicted())
        if look.probability >= self.model.card.lost_threshold:
            return self._correct(look, passed)
        return self._missed(frame, image, look)

    def _missed(self, frame: NDArray[Any], image: Any, look: Look) -> Target:
        """Return the target that was not seen at its prediction."""
        unseen, self._hits = self._stamp - self._seen_at, 0
        lost = unseen >= LOST_S or self._refinding
        state = State.LOST if lost else State.UNCERTAIN
        if self._refinding or self._last.state == State.TRACKED:
            self._refinding = False
            self._search.start()
        if unseen < WIDER_S:
            return self._result(self._predicted(), look.probability, state)
        return self._search_lost(frame, image, state)

    def _correct(self, look: Look, passed: float) -> Target:
        """Return the target that was seen at its prediction, more or less certainly."""
        assert self._motion is not None
        center = (look.box[:2] + look.box[2:]) / 2
        self._seen_at = self._stamp
        self._motion.update(center, self._root, look.probability)
        self._resize(look.box, passed * look.probability)
        self._hits = self._hits + 1 if look.probability >= self.model.card.tracked_threshold else 0
        if not self._hits or self._refinding and self._hits < CONFIRM:
            return self._result(self._predicted(), look.probability, State.UNCERTAIN)
        self._refinding = False
        self._usual += (1 - np.exp(-passed / USUAL_S)) * (
            _logit(look.probability) - CONTINUITY - self._usual)
        self._learn(look)
        half = self._size / 2
        return self._result(np.concatenate([center - half, center + half]), look.probability,
                            State.TRACKED)

    def _search_lost(self, frame: NDArray[Any], image: Any, state: State) -> Target:
        """Search for the target in more of the frame; it stays in `state` if it is not found."""
        card, predicted = self.model.card, self._predicted()
        side = Region.around(predicted, card.factor, card.input_size).side
        places = self._search.places(frame, self._stamp, predicted, side, LOST_PLACES)
        looks = [self.look(image, place, wide=True) for place in places]
        rated = [(self._rate(look), look) for look in looks]
        rating, best = max(rated, key=lambda pair: pair[0])
        if rating < max(_logit(REFOUND), self._usual - WORSE):
            # What was seen elsewhere says nothing of the box that is returned.
            return self._result(predicted, _probability(rated[0][0]), state)
        self._set_size(np.clip(best.box[2:] - best.box[:2], self._size / 1.5, self._size * 1.5))
        self._motion = Motion((best.box[:2] + best.box[2:]) / 2, self._root)
        self._found_at = self._seen_at = self._stamp
        self._hits, self._refinding = 1, True
        return self._result(self._predicted(), best.probability, State.UNCERTAIN)

    def _rate(self, look: Look) -> float:
        """Return the logit of a look, less where the target is less likely to be."""
        assert self._motion is not None
        away = float(np.linalg.norm((look.box[:2] + look.box[2:]) / 2 - self._motion.center))
        return _logit(look.probability) - 0.5 * (away / self._spread()) ** 2

    def _spread(self) -> float:
        """Return the standard deviation of where the target may be, pixels."""
        assert self._motion is not None
        near = NEAR * (1 + AWAY * (self._stamp - self._seen_at))
        return float(np.hypot(self._motion.spread, near * self._root))

    def look(self, image: Any, box: NDArray[np.float64], wide: bool = False) -> Look:
        """
        Search the region around a box (4,) of a normalized frame; nothing of it is kept.

        wide: all places in it are as likely; otherwise the target was just seen near the box.
        """
        card = self.model.card
        region = Region.around(box, card.factor, card.input_size)
        spread = None if wide else self._spread() / region.side
        found, seen = self._sight.look(image, region, spread)
        probability = card.probability(found.score, found.quality, found.match)
        if not wide:
            probability = _probability(_logit(probability) + CONTINUITY)
        return Look(region.to_frame(found.box), probability, found, region, seen)

    def _learn(self, look: Look) -> None:
        """Keep a certain sample, and learn of it from time to time, or with a rival."""
        rival = look.found.match < RIVAL
        if (look.probability < SURE or self._stamp - self._sampled < SAMPLE_S
                or self._stamp - self._found_at < RELEARN_S):
            return
        improve = rival or self._stamp - self._improved >= IMPROVE_S
        self._sight.learn(look.found, look.seen, rival, improve)
        self._sampled = self._stamp
        if improve:
            self._improved = self._stamp

    def _resize(self, box: NDArray[np.float64], passed: float) -> None:
        """Let the size follow that of a found box."""
        share = 1 - np.exp(-passed / RESIZE_S)
        ratio = np.clip(np.maximum(box[2:] - box[:2], 1) / self._size, 1 / RESIZE_LIMIT,
                        RESIZE_LIMIT)
        self._set_size(self._size * ratio ** share)

    def _set_size(self, size: NDArray[np.float64]) -> None:
        self._size = np.clip(size, SMALLEST, LARGEST * np.array(self._shape[::-1]))

    def _advance(self, stamp: float) -> float:
        """Return the seconds since the last frame; 0 if the clock went back."""
        assert self._motion is not None
        passed = stamp - self._stamp
        if passed > GAP_S or passed < -GAP_S:
            self._motion.stop()
        if passed < 0:  # a looping bag, or frames out of order
            for name in ('_seen_at', '_sampled', '_improved', '_found_at'):
                setattr(self, name, getattr(self, name) + passed)
            passed = 0.0
        self._stamp = stamp
        return passed

    @property
    def _root(self) -> float:
        return float(np.sqrt(self._size.prod()))

    def _predicted(self) -> NDArray[np.float64]:
        assert self._motion is not None
        half = self._size / 2
        return np.concatenate([self._motion.center - half, self._motion.center + half])

    def _result(self, box: NDArray[np.float64], score: float, state: State) -> Target:
        self._last = Target(box.astype(np.float32), float(score), state)
        return self._last


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(clipped / (1 - clipped)))


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def check_box(box: Any, frame: NDArray[Any]) -> NDArray[np.float64]:
    """Return a target's box (4,) as float64; ValueError states why it cannot be followed."""
    try:
        found = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape != (4,) or not np.isfinite(found).all():
        raise ValueError(f'the box of a target must be four finite numbers x1, y1, x2, y2, not '
                         f'{box!r}')
    shown = ', '.join(f'{v:g}' for v in found)
    if (found[2:] - found[:2] < SMALLEST).any():
        raise ValueError(f'the box {shown} is smaller than {SMALLEST:g} pixels in width or '
                         'height; choose a larger one (x1, y1, x2, y2)')
    if frame.ndim != 2:
        raise ValueError(f'a thermal frame must be two-dimensional, this one has shape '
                         f'{frame.shape}')
    height, width = frame.shape
    if (found[2:] - found[:2] > LARGEST * np.array((width, height))).any():
        raise ValueError(f'the box {shown} is more than {LARGEST:g} times as large as the frame '
                         f'of {width}x{height} pixels; choose a smaller one (x1, y1, x2, y2)')
    inside = np.minimum(found[2:], (width, height)) - np.maximum(found[:2], 0)
    if (inside <= 0).any():
        raise ValueError(f'the box {shown} is outside of the frame of {width}x{height} pixels')
    return found


def _pixels(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'

