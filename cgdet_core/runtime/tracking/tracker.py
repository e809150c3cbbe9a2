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

from cgdet_core.runtime.tracking.box_bias import BoxBias
from cgdet_core.runtime.tracking.continuity import Continuity
from cgdet_core.runtime.tracking.decoding import Found
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.motion import Motion, Trail
from cgdet_core.runtime.tracking.presence import logit, Presence, probability
from cgdet_core.runtime.tracking.region import Region
from cgdet_core.runtime.tracking.search import Detect, LostSearch
from cgdet_core.runtime.tracking.target import State, Target
import numpy as np
from numpy.typing import NDArray

SMALLEST = 3.0  # pixels, width and height of a target
ROUNDED = 0.01  # pixels, by which sides may be smaller, as texts and float32 round them
LARGEST = 2.0  # the same, in widths and heights of the frame
SAMPLE_S = 0.1  # between samples that are kept
IMPROVE_S = 0.5  # between improvements of the filter
SURE = 0.35  # probability of a look, without NEARNESS, from which on it is learned
RIVAL = 0.5  # match below which something else looks like the target
LEAST_S = 0.005  # that a frame counts for, also if its stamp is that of the one before
LOST_S = 0.5  # a target that was not seen for so long is lost
HELD = 0.5  # continuity from which on a target that is not recognized is the same
RESIZED = 0.25  # standard deviation of the logarithm of a lost target's size
JUMPED = 2.0  # `_unlikely` above which a look that is not for the target does not move it
AGAIN = 2.0  # logit by which, and up to which, what looks as a lost target did counts more
BACK_S = 1.0  # stamps that go back further are of another recording
GAP_S = 1.0  # after a longer time between frames the speed is forgotten
RELEARN_S = 1.0  # a target that was found again must be tracked for so long before it is learned
NEARNESS = 2.0  # logit by which what is near the prediction is rather the target than unknown
# A target is likely within NEAR of its prediction, in its size, or within JUMPS times the mean of
# how far it was from it in the last JUMPS_S. Unseen, it is within AWAY more per second, and ASTRAY
# more per second squared.
NEAR, AWAY, ASTRAY = 0.3, 0.1, 0.07
JUMPS, JUMPS_S = 3.0, 1.0
FIRST_JUMP = 0.2  # of the target's size
LOST_PLACES = 3  # that are searched in a frame
SAME = 0.5  # of the target's size: places that are nearer are searched once
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

    @property
    def center(self) -> NDArray[np.float64]:
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def logit(self) -> float:
        return logit(self.probability)


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
        # Where a target that is not seen is expected, (2, 2), and its size, (2,).
        self._expected: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

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
        image = self.model.normalized(frame, rgb)
        self._sight = self.model.sight(image, box)
        self._bias = BoxBias(self._sight, image, box, self.model.card)
        self._shape, self._size = frame.shape, box[2:] - box[:2]
        self._overview = self.model.overview
        self._motion = Motion((box[:2] + box[2:]) / 2, self._root)
        self._search = LostSearch(self._detect, label)
        self._stamp = self._seen_at = self._sampled = self._improved = float(stamp)
        self._presence, self._expected, self._found_at = Presence(), None, -np.inf
        self._jump, self._trail = FIRST_JUMP, Trail(self._stamp, box)
        self._continuity = Continuity(self.model.thermal, box, self._stamp)
        self._last = Target(box.astype(np.float32), 1.0, State.TRACKED)
        return self._last

    def follow(self, frame: NDArray[Any], stamp: float, rgb: NDArray[Any] | None = None,
               frozen: bool = False) -> Target:
        """
        Return the target in the next frame.

        stamp: seconds, of the same clock as at the start; with that of the frame before, the frame
        counts little. rgb: (H, W, 3) uint8, the same view in the same pixels, which an RGB-T
        tracker uses; without it, of another size or black, and by a thermal tracker, thermal alone
        is used.
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
        image = self.model.prepare(frame, rgb, self._stamp)
        self._follow_camera()
        if self._expected is not None:
            self._expected = self._expect()
        # What leaves the frame is searched for where it left.
        self._motion.center = np.clip(self._motion.center, 0, frame.shape[::-1])
        look = self.look(image, self._predicted())
        support = self._support(look)
        if self._expected is None:
            held = self._continuity.follow(self.model.thermal, look.box, self._stamp, support > 0)
            support += held * max(0.0, -self._presence.evidence(look.logit))
        if self._presence.logit < 0:
            look, support = self._search_elsewhere(frame, image, look, support)
        self._presence.add(support, max(passed, LEAST_S))
        if self._presence.logit < 0 and self._expected is None:
            self._search.start()
            self._expected = self._expect()
        unknown = look.logit + NEARNESS < logit(self.model.card.lost_threshold)
        jumped = support < 0 and self._unlikely(look) > JUMPED
        if jumped or (unknown and not self._unchanged()):
            return self._unseen()
        return self._correct(look, support, passed)

    def _unchanged(self) -> bool:
        """Return whether the box shows what it showed when the target was last recognized."""
        return self._expected is None and self._continuity.held >= HELD

    def _follow_camera(self) -> None:
        """Expect the target where the camera's motion since the last frame moved it."""
        assert self._overview is not None and self._motion is not None
        camera = self.model.moved(self._overview)
        self._overview = self.model.overview
        if camera is not None:
            self._motion.move(camera)
            self._trail.move(camera)

    def _unseen(self) -> Target:
        """Return the target that is not seen, or not yet certainly."""
        lost = self._expected is not None and self._stamp - self._seen_at >= LOST_S
        return self._result(self._predicted(), self._presence.probability,
                            State.LOST if lost else State.UNCERTAIN)

    def _correct(self, look: Look, support: float, passed: float) -> Target:
        """Return the target that was seen, more or less certainly."""
        assert self._motion is not None
        center = look.center
        trust = probability(look.logit + NEARNESS)
        away = float(np.linalg.norm(center - self._motion.center)) / self._root
        self._motion.update(center, self._root, trust)
        self._resize(look.box, passed * trust)
        present = self._presence.probability
        if present < max(0.5, self.model.card.tracked_threshold):
            return self._unseen()
        if self._expected is not None:
            self._expected, self._found_at = None, self._stamp
            self._trail = Trail(self._stamp, look.box)
            self._continuity = Continuity(self.model.thermal, look.box, self._stamp)
        elif support > 0:
            self._trail.add(self._stamp, look.box)
        self._seen_at = self._stamp
        self._jump += (1 - np.exp(-passed / JUMPS_S)) * (min(away, 1.0) - self._jump)
        self._presence.learn(look.logit, passed)
        self._learn(look)
        half = self._size / 2
        return self._result(np.concatenate([center - half, center + half]), present,
                            State.TRACKED)

    def _expect(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where the target is expected, (2, 2), inside of the frame, and its size."""
        centers, size = self._trail.ahead(self._stamp)
        return np.clip(centers, 0, self._shape[::-1]), size

    def _search_elsewhere(self, frame: NDArray[Any], image: Any, look: Look,
                          support: float) -> tuple[Look, float]:
        """
        Return a look in more of the frame that is for the target, or else the given one.

        With it its support; the motion goes on from what was found.
        """
        assert self._expected is not None and self._motion is not None
        card, (centers, size) = self.model.card, self._expected
        expected = np.concatenate([centers[0] - size / 2, centers[0] + size / 2])
        side = Region.around(expected, card.factor, card.input_size).side
        # The given look may have been there already.
        same = int(np.linalg.norm(centers[0] - self._motion.center) < SAME * self._root)
        places = self._search.places(frame, self._stamp, expected, side, LOST_PLACES - 1 + same,
                                     2 * self._spread())[same:]
        # Where the target is expected, what is near is preferred.
        looks = [self.look(image, place, wide=bool(same or number))
                 for number, place in enumerate(places)]
        rated = [(self._support(other), other) for other in looks]
        best, found = max(rated, key=lambda pair: pair[0], default=(0.0, look))
        if best <= max(support, 0.0):
            return look, support
        self._set_size(np.clip(found.box[2:] - found.box[:2], size / 1.5, size * 1.5))
        self._motion = Motion(found.center, self._root)
        return found, best

    def _support(self, look: Look) -> float:
        """Return what a look says for the target, less how unlikely its place and size are."""
        support = self._presence.evidence(look.logit) - self._unlikely(look)
        if self._expected is None:
            return support
        again = AGAIN * self._continuity.again(self.model.thermal, look.box)
        return max(support, min(support + again, AGAIN))

    def _unlikely(self, look: Look) -> float:
        """
        Return how unlikely a look's place is, and of a lost target its size, as a logit.

        For each half the squared distance from what is expected, in standard deviations.
        """
        assert self._motion is not None
        places = self._motion.center[None] if self._expected is None else self._expected[0]
        away = float(np.linalg.norm(places - look.center, axis=1).min())
        unlikely = 0.5 * (away / self._spread()) ** 2
        if self._expected is not None:
            sides = np.maximum(look.box[2:] - look.box[:2], 1)
            larger = 0.5 * float(np.log(sides.prod() / self._expected[1].prod()))
            unlikely += 0.5 * (larger / RESIZED) ** 2
        return unlikely

    def _spread(self) -> float:
        """Return the standard deviation of where the target may be, pixels."""
        near, passed = max(NEAR, JUMPS * self._jump), self._stamp - self._seen_at
        size = self._size if self._expected is None else self._expected[1]
        return float(np.sqrt(size.prod())) * (near + AWAY * passed + ASTRAY * passed ** 2)

    def look(self, image: Any, box: NDArray[np.float64], wide: bool = False) -> Look:
        """
        Search the region around a box (4,) of a normalized frame; nothing of it is kept.

        wide: all places in it are as likely; otherwise the target was just seen near the box.
        """
        card = self.model.card
        region = Region.around(box, card.factor, card.input_size)
        spread = None if wide else self._spread() / region.side
        found, seen = self._sight.look(image, region, spread)
        return Look(self._bias.corrected(region.to_frame(found.box)),
                    card.probability(found.score, found.quality, found.match), found, region, seen)

    def _learn(self, look: Look) -> None:
        """Keep what was seen of a target that is tracked, and learn of it now and then."""
        rival = look.found.match < RIVAL
        if (look.probability < SURE and not self._unchanged()
                or self._stamp - self._sampled < SAMPLE_S
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
            self._trail = Trail(stamp, self._predicted())
        if passed < 0:  # a looping bag, or frames out of order
            for name in ('_seen_at', '_sampled', '_improved', '_found_at'):
                setattr(self, name, getattr(self, name) + passed)
            self._search.shift(passed)
            if passed >= -GAP_S:
                self._trail.shift(passed)
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
    if (found[2:] - found[:2] < SMALLEST - ROUNDED).any():
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
        raise ValueError(f'the box {shown} (x1, y1, x2, y2) is outside of the frame of '
                         f'{width}x{height} pixels')
    return found


def _pixels(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'

