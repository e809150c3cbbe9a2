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
from cgdet_core.data.pairs.edges import is_dark
from cgdet_core.data.show import evenly
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal, to_gray
import cv2
import numpy as np
from numpy.typing import NDArray

Pair = tuple[NDArray[Any], NDArray[np.uint8]]
PAIRS = 50
MAX_DARK = 0.5  # share of pairs
MAX_OFF = 0.0125  # of a frame's width, shift and scatter: 8 of 640 pixels, a cell of stride 8


@dataclass(frozen=True)
class PairReport:
    """
    What is known about pairs; shifts are of RGB, right and down, in pixels of the thermal frame.

    dark: the number of pairs whose RGB is black or nearly uniform. shift_px: the median, None if
    the edges do not agree beyond chance; scatter_px: the median distance of a pair from it.
    believed: the number of pairs that it is from. confident: the shift is one of all pairs, so
    that RGB is of the same time and field of view. good: fit to teach; the sentence says why not.
    """

    pairs: int
    dark: int
    shift_px: tuple[float, float] | None
    scatter_px: float | None
    believed: int
    confident: bool
    good: bool
    sentence: str

    def values(self) -> dict[str, Any]:
        """Return the fields as values of a JSON file."""
        return asdict(self)


def check_pairs(pairs: Iterable[Pair]) -> PairReport:
    """Check pairs of raw thermal (H, W) and RGB (H', W', 3) BGR; each is read once."""
    seen: list[tuple[int, bool]] = []  # width, dark
    found = estimate_alignment(_lit(pairs, seen))
    count, dark = len(seen), sum(is_dark for _, is_dark in seen)
    limit = MAX_OFF * float(np.median([width for width, _ in seen])) if seen else 0.0
    confident = found['believed'] and found['scatter'] <= limit
    faults = [f'it is black or nearly uniform in {dark} of {count} pairs'] * (
        dark > MAX_DARK * count)
    if count > dark:
        faults += _misplaced(found, limit, confident)
    shift = (found['dx'], found['dy']) if found['believed'] else None
    return PairReport(count, dark, shift, found.get('scatter'), found['pairs_believed'],
                      confident, bool(count) and not faults,
                      _sentence(count, dark, faults, found))


def check_records(records: Sequence[ImageRecord]) -> PairReport:
    """Check at most 50 of a set's pairs, evenly spaced; those that cannot be read are left out."""
    return check_pairs(_read(evenly([r for r in records if r.rgb_path is not None], PAIRS)))


def _read(records: Sequence[ImageRecord]) -> Iterator[Pair]:
    for record in records:
        assert record.rgb_path is not None
        with suppress(UserError):
            picture = cv2.cvtColor(read_rgb(record.rgb_path), cv2.COLOR_RGB2BGR)
            yield read_thermal(record.path), np.asarray(picture, np.uint8)


def _lit(pairs: Iterable[Pair], seen: list[tuple[int, bool]]) -> Iterator[Pair]:
    """Yield the pairs whose RGB shows something, and note all."""
    for thermal, picture in pairs:
        seen.append((thermal.shape[1], is_dark(np.asarray(to_gray(picture), np.uint8))))
        if not seen[-1][1]:
            yield thermal, picture


def _misplaced(found: dict[str, Any], limit: float, confident: bool) -> list[str]:
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
    return [f'it is off by {found["dx"]:+.1f}, {found["dy"]:+.1f} px (right, down)'] * (
        bool(np.hypot(found['dx'], found['dy']) > limit))


def _sentence(count: int, dark: int, faults: list[str], found: dict[str, Any]) -> str:
    if not count:
        return 'There are no pairs that can be read.'
    if faults:
        return (f'RGB does not fit thermal: {" and ".join(faults)}. Register it with "cgdet data '
                'register", correct the pairing, or train without it.')
    return (f'RGB is off by {found["dx"]:+.1f}, {found["dy"]:+.1f} px (right, down), scatter '
            f'{found["scatter"]:.1f} px, from {found["pairs_believed"]} of {count} pairs'
            + f', {dark} of them black or nearly uniform' * bool(dark) + '.')
