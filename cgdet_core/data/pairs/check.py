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

"""Check of pairs before they teach: RGB that shows nothing, and RGB of another place or time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from cgdet_core.data.coco import ImageRecord
from cgdet_core.data.pairs.alignment import estimate_alignment, MIN_PAIRS
from cgdet_core.data.pairs.edges import (
    against_others,
    edges_of,
    Gray,
    is_dark,
    MAX_DARK,
    MIN_WON,
)
from cgdet_core.data.show import evenly
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.drawing import as_seen
from cgdet_core.runtime.imaging.frames import read_bgr, read_thermal, to_gray
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.words import counted
import cv2
import numpy as np
from numpy.typing import NDArray

Pair = tuple[NDArray[Any], NDArray[np.uint8]]
PAIRS = 50
SMALL = 160, 128  # width and height of the images that are compared
MAX_OFF = 0.0125  # of a frame's width, shift and scatter: 8 of 640 pixels, a cell of stride 8


@dataclass(frozen=True)
class PairReport:
    """
    What is known about pairs; shifts are of RGB, right and down, in pixels of the thermal frame.

    dark: the number of pairs whose RGB is black or nearly uniform. shift_px: the median, None if
    the edges do not agree beyond chance; scatter_px: the median distance of a pair from it.
    believed: the number of pairs that it is from. confident: the shift is one of all pairs, so
    that RGB is of the same field of view. won: the share of comparisons in which a frame's own RGB
    fits better than that of another, as RGB of the same time does. good: fit to teach; the
    sentence says why not.
    """

    pairs: int
    dark: int
    shift_px: tuple[float, float] | None
    scatter_px: float | None
    believed: int
    won: float | None
    confident: bool
    good: bool
    sentence: str

    def values(self) -> dict[str, Any]:
        """Return the fields as values of a JSON file."""
        return asdict(self) | {'shift_px': self.shift_px and [*self.shift_px]}


def check_pairs(pairs: Iterable[Pair]) -> PairReport:
    """Check pairs of raw thermal (H, W) and RGB (H', W', 3) BGR; each is read once."""
    seen = _Seen()
    found = estimate_alignment(seen.lit(pairs))
    count, dark = seen.count, seen.count - len(seen.small)
    limit = MAX_OFF * float(np.median(seen.sizes, 0)[0]) if seen.sizes else 0.0
    confident = found['believed'] and found['scatter'] <= limit
    won = seen.won(found['dx'], found['dy']) if confident else None
    faults = [f'it is black or nearly uniform in {dark} of {count} pairs'] * (
        dark > MAX_DARK * count)
    if count > dark:
        faults += _misplaced(found, limit, confident, won)
    shift = (found['dx'], found['dy']) if found['believed'] else None
    return PairReport(count, dark, shift, found.get('scatter'), found['pairs_believed'], won,
                      confident, bool(count) and not faults,
                      _sentence(count, dark, faults, found))


def check_records(records: Sequence[ImageRecord]) -> PairReport:
    """Check at most 50 of a set's pairs, evenly spaced; those that cannot be read are left out."""
    return check_pairs(_read(evenly([r for r in records if r.rgb_path is not None], PAIRS)))


def _read(records: Sequence[ImageRecord]) -> Iterator[Pair]:
    for record in records:
        assert record.rgb_path is not None
        with suppress(UserError):
            yield read_thermal(record.path), read_bgr(record.rgb_path)


class _Seen:
    """What is kept of pairs: their number, and of lit ones the sizes and small gray images."""

    def __init__(self) -> None:
        self.count = 0
        self.sizes: list[tuple[int, int]] = []
        self.small: list[tuple[Gray, Gray]] = []

    def lit(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Yield the pairs whose RGB shows something."""
        for thermal, picture in pairs:
            self.count += 1
            gray = np.asarray(to_gray(picture), np.uint8)
            if not is_dark(gray):
                self.sizes.append((thermal.shape[1], thermal.shape[0]))
                a, b = (cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA) for image in (
                    as_seen(thermal, Normalization('plateau')), gray))
                self.small.append((np.asarray(a, np.uint8), np.asarray(b, np.uint8)))
                yield thermal, picture

    def won(self, dx: float, dy: float) -> float:
        """Return how often a frame's own RGB, shifted back, fits better than that of others."""
        scale = np.array(SMALL) / np.median(self.sizes, 0)
        x, y = -scale * (dx, dy)
        move = np.array([(1, 0, x), (0, 1, y)])
        ours = np.stack([edges_of(thermal) for thermal, _ in self.small])
        theirs = np.stack([edges_of(np.asarray(cv2.warpAffine(
            gray, move, SMALL, borderMode=cv2.BORDER_REPLICATE), np.uint8))
            for _, gray in self.small])
        return round(against_others(ours, theirs, np.ones(ours.shape[1:], bool))[2], 3)


def _misplaced(
    found: dict[str, Any], limit: float, confident: bool, won: float | None,
) -> list[str]:
    """Return what is wrong with the place of RGB, if anything is."""
    if found['pairs'] < MIN_PAIRS:
        return [f'{found["pairs"]} pairs are too few to measure where it is']
    if not found['believed']:
        return [f'its edges agree with those of thermal beyond chance in only '
                f'{found["pairs_believed"]} of {found["pairs"]} pairs, as if it was of another '
                'time or field of view']
    if not confident:
        return [f'its shift differs from pair to pair (scatter {found["scatter"]:.1f} px), as if '
                'it was of another field of view or time']
    if won is not None and won < MIN_WON:
        return [f'it fits better than RGB of other frames in only {won:.0%} of the comparisons, '
                'as if it was of another time']
    return [f'it is off by {found["dx"]:+.1f}, {found["dy"]:+.1f} px (right, down)'] * (
        bool(np.hypot(found['dx'], found['dy']) > limit))


def _sentence(count: int, dark: int, faults: list[str], found: dict[str, Any]) -> str:
    if not count:
        return 'There are no pairs that can be read.'
    if dark < count < MIN_PAIRS:
        return f'{counted(count, "pair")}, too few to check that RGB fits thermal.'
    if faults:
        return (f'RGB does not fit thermal: {" and ".join(faults)}. Register it with "cgdet data '
                'register", correct the pairing, or train without it.')
    return (f'RGB is off by {found["dx"]:+.1f}, {found["dy"]:+.1f} px (right, down), scatter '
            f'{found["scatter"]:.1f} px, from {found["pairs_believed"]} of {count} pairs'
            + f', {dark} of them black or nearly uniform' * bool(dark) + '.')
