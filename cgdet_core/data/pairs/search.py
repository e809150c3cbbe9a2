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

"""Search of the zoom and shift of RGB against thermal, by the evidence of all pairs together."""

from collections.abc import Sequence
from typing import NamedTuple

from cgdet_core.data.pairs.edges import Edges, edges_of, Floats, Gray, standardize
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH = 160  # pixels of a thermal frame, enough to find the place to 2 of them
ZOOMS = 0.5, 2.5  # of RGB, when both are scaled to the same width
STEP = 1.04  # between zooms
AROUND = 1.17  # factor around the zoom of a start
MIN_OVERLAP = 0.3  # share of the smaller image that the other must cover


class Place(NamedTuple):
    """
    A place of RGB in the thermal frame: x' = zoom x + shift, in pixels of the images searched.

    score: the correlation there, in standard deviations of that at other places.
    """

    zoom: float
    shift: tuple[float, float]
    score: float

    def matrix(self) -> Floats:
        """Return the homography (3, 3) of the images searched."""
        x, y = (0.5 * self.zoom - 0.5 + shift for shift in self.shift)
        return np.array([(self.zoom, 0, x), (0, self.zoom, y), (0, 0, 1)])


def zooms(thermal_width: int, rgb_width: int, start: float | None = None) -> Floats:
    """Return the zooms to try, in thermal pixels per RGB pixel; start: a guess of it."""
    even = thermal_width / rgb_width
    low, high = (ZOOMS[0] * even, ZOOMS[1] * even) if start is None else (
        start / AROUND, start * AROUND)
    return np.geomspace(low, high, round(np.log(high / low) / np.log(STEP)) + 1)


def search(
    thermal: Sequence[Gray], rgb: Sequence[Gray], tried: Floats, halves: NDArray[np.bool_],
) -> tuple[Place, Place, Place]:
    """
    Return the best place by all pairs, by those in `halves` (N,), and by the others.

    thermal: (H, W) each; rgb: (H', W') each; tried: zooms.
    """
    edges = np.stack([edges_of(gray) for gray in thermal])
    shape = edges.shape[1:]
    groups = halves, ~halves
    ours = [standardize(edges[group], np.ones(shape, bool)) for group in groups]
    found: list[list[Place]] = [[], [], []]
    for zoom in tried.tolist():
        size = [max(8, round(zoom * n)) for n in rgb[0].shape[::-1]]
        theirs = np.stack([edges_of(cv2.resize(gray, size, interpolation=(
            cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR))) for gray in rgb])
        seen = np.zeros(theirs.shape[1:], bool)
        seen[2:-2, 2:-2] = True  # not the border
        parts = [_correlation(t, standardize(theirs[group], seen))
                 for t, group in zip(ours, groups)]
        allowed = _overlap(shape, theirs.shape[1:])
        for places, surface in zip(found, (parts[0] + parts[1], *parts)):
            places.append(_peak(surface, allowed, zoom, theirs.shape[1:]))
    best = [max(places, key=lambda place: place.score) for places in found]
    return best[0], best[1], best[2]


def _spectrum(image: Edges, size: tuple[int, int]) -> NDArray[np.float32]:
    padded = np.zeros((size[1], size[0], 2), np.float32)
    padded[:image.shape[0], :image.shape[1], 0] = image.real
    padded[:image.shape[0], :image.shape[1], 1] = image.imag
    return cv2.dft(padded)


def _correlation(thermal: Edges, rgb: Edges) -> NDArray[np.float32]:
    """
    Return the sum over pairs of their correlation at each shift (H + H' - 1, W + W' - 1).

    It is in units of what independent edges with the same energy at each pixel would spread.
    The first shift is -(H' - 1), -(W' - 1).
    """
    full = [a + b - 1 for a, b in zip(thermal.shape[1:], rgb.shape[1:])]
    size = cv2.getOptimalDFTSize(full[1]), cv2.getOptimalDFTSize(full[0])
    total = np.zeros((size[1], size[0], 2), np.float32)
    for a, b in zip(thermal, rgb):
        total += cv2.mulSpectrums(_spectrum(a, size), _spectrum(b, size), 0, conjB=True)
    energies = [_spectrum((np.abs(e) ** 2).mean(0).astype(np.complex64), size)
                for e in (thermal, rgb)]
    expected = cv2.mulSpectrums(*energies, 0, conjB=True)
    shifted = [np.roll(cv2.idft(spectrum, flags=cv2.DFT_SCALE)[..., 0],
                       (rgb.shape[1] - 1, rgb.shape[2] - 1), (0, 1))[:full[0], :full[1]]
               for spectrum in (total, expected)]
    spread = np.sqrt(np.maximum(shifted[1], 1e-3 * shifted[1].max()) * len(thermal) / 2)
    return np.asarray(shifted[0] / np.maximum(spread, 1e-9), np.float32)


def _overlap(ours: tuple[int, ...], theirs: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the shifts at which enough of the smaller image is covered."""
    sides = [np.minimum(np.arange(1 - b, a) + b, a) - np.maximum(np.arange(1 - b, a), 0)
             for a, b in zip(ours, theirs)]
    smaller = min(ours[0] * ours[1], theirs[0] * theirs[1])
    return np.asarray(np.outer(*sides) >= MIN_OVERLAP * smaller)


def _peak(
    surface: NDArray[np.float32], allowed: NDArray[np.bool_], zoom: float, shape: tuple[int, ...],
) -> Place:
    """Return the highest allowed place; shape: of RGB."""
    spread = 1.4826 * float(np.median(np.abs(surface[allowed]))) + 1e-9
    row, column = np.unravel_index(
        int(np.where(allowed, surface, -np.inf).argmax()), surface.shape)
    shift = float(column - shape[1] + 1), float(row - shape[0] + 1)
    return Place(zoom, shift, float(surface[row, column]) / spread)
