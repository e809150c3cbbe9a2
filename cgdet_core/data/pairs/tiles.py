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

"""Refinement of a homography by the displacement of tiles, over all pairs together."""

from collections.abc import Sequence
from dataclasses import dataclass

from cgdet_core.data.pairs.edges import (
    Edges,
    edges_of,
    Floats,
    Gray,
    standardize,
    warped_edges,
)
import cv2
import numpy as np
from numpy.typing import NDArray

TILE = 64  # pixels of a tile, each way
COVERED = 0.6  # share of a tile that RGB must cover
MIN_SCORE = 6.0  # of a tile's correlation, in standard deviations of that at other displacements
REACH = 16  # pixels that a tile may be displaced
RING = 6  # pixels from the peak, where the correlation must be lower than
RIDGE = 0.75  # of the peak in all directions
LEVELS = (160, 320, 320, 320)  # widths of the thermal frames of the rounds
TOLERANCE = 2.0  # pixels of the working width, up to which a tile agrees with the homography
MIN_TILES = 4
FOR_AFFINE, FOR_HOMOGRAPHY = 8, 14  # tiles


@dataclass(frozen=True)
class Tiles:
    """Centers and offsets (K, 2), x and y, of the tiles that have a place of their own."""

    centers: Floats
    offsets: Floats


def refine(
    thermal: Sequence[Gray], rgb: Sequence[Gray], start: Floats,
) -> tuple[Floats, Floats] | None:
    """
    Return the homography from RGB to thermal pixels and the residuals (K, 2) of the tiles.

    Residuals are in pixels of the thermal frame; None if too few tiles have a place.
    """
    matrix, ready = start, {width: _prepared(thermal, width) for width in set(LEVELS)}
    for width in LEVELS:
        frames, scale = ready[width]
        moved = _fit(displacements(frames, rgb, scale @ matrix))
        if moved is None:
            return None
        matrix = np.linalg.inv(scale) @ moved @ scale @ matrix
    tiles = displacements(frames, rgb, scale @ matrix)
    if len(tiles.centers) < MIN_TILES:
        return None
    return matrix / matrix[2, 2], tiles.offsets / np.diag(scale)[:2]


def _prepared(thermal: Sequence[Gray], width: int) -> tuple[Edges, Floats]:
    """Return the standardized edges of frames at a width, and the map to its pixels."""
    frames = [_resized(gray, width) for gray in thermal]
    edges = np.stack([edges_of(gray) for gray in frames])
    return (standardize(edges, np.ones(edges.shape[1:], bool)),
            scaling(thermal[0].shape, frames[0].shape))


def scaling(before: tuple[int, ...], after: tuple[int, ...]) -> Floats:
    """Return the map (3, 3) of an image's pixels to those of the same image in another size."""
    x, y = after[1] / before[1], after[0] / before[0]
    return np.array([(x, 0, x / 2 - 0.5), (0, y, y / 2 - 0.5), (0, 0, 1)])


def displacements(thermal: Edges, rgb: Sequence[Gray], matrix: Floats) -> Tiles:
    """Measure the tiles' offsets from RGB under a homography to standardized thermal edges."""
    theirs, seen = warped_edges(rgb, matrix, (thermal.shape[2], thermal.shape[1]))
    return _measure(thermal, standardize(theirs, seen), seen)


def _measure(ours: Edges, theirs: Edges, seen: NDArray[np.bool_]) -> Tiles:
    corners = [(x, y) for y in _steps(ours.shape[1]) for x in _steps(ours.shape[2])
               if seen[y:y + TILE, x:x + TILE].mean() >= COVERED]
    if not corners:
        return Tiles(np.zeros((0, 2)), np.zeros((0, 2)))
    window = cv2.createHanningWindow((TILE, TILE), cv2.CV_32F)
    cross = np.zeros((len(corners), TILE, TILE), np.complex64)
    for a, b in zip(ours, theirs):
        cross += _spectra(a, corners, window) * _spectra(b, corners, window).conj()
    surfaces = np.fft.fftshift(np.fft.ifft2(cross).real, (1, 2))
    centers, offsets = [], []
    for corner, surface in zip(corners, surfaces):
        found = _peak(surface)
        if found is not None:
            centers.append(np.array(corner) + (TILE - 1) / 2)
            offsets.append(found)
    return Tiles(np.array(centers).reshape(-1, 2), np.array(offsets).reshape(-1, 2))


def _spectra(
    edges: Edges, corners: list[tuple[int, int]], window: NDArray[np.float32],
) -> Edges:
    """Return the spectra (K, TILE, TILE) of the tiles at these corners."""
    tiles = np.stack([edges[y:y + TILE, x:x + TILE] for x, y in corners]) * window
    planes = tiles.view(np.float32).reshape(*tiles.shape, 2)
    for plane in planes:
        cv2.dft(plane, plane)  # in place, and faster than numpy's
    return tiles


def _peak(surface: NDArray[np.float32]) -> Floats | None:
    """Return the displacement (2,), x and y, at the peak of a surface, None if there is none."""
    middle = TILE // 2
    near = surface[middle - REACH:middle + REACH + 1, middle - REACH:middle + REACH + 1]
    row, column = (int(i) + middle - REACH for i in np.unravel_index(near.argmax(), near.shape))
    top = float(surface[row, column])
    if max(abs(row - middle), abs(column - middle)) == REACH:
        return None  # the peak is farther away
    distance = np.hypot(*np.ogrid[-row:TILE - row, -column:TILE - column])
    ring = surface[(distance >= RING) & (distance < RING + 1)]
    score = top / (float(surface[distance > RING].std()) + 1e-9)
    if score < MIN_SCORE or ring.max() > RIDGE * top:  # noise, or parallel lines
        return None
    return np.array([column - middle + _vertex(surface[row, column - 1:column + 2]),
                     row - middle + _vertex(surface[row - 1:row + 2, column])])


def _vertex(values: NDArray[np.float32]) -> float:
    """Return where a parabola through values at -1, 0 and 1 has its maximum."""
    before, top, after = values.tolist()
    return 0.5 * (before - after) / min(before - 2 * top + after, -1e-9)


def _fit(tiles: Tiles) -> Floats | None:
    """Return the transform (3, 3) of the tiles' centers to their places; None if too few agree."""
    count = len(tiles.centers)
    if count < MIN_TILES:
        return None
    there = tiles.centers + tiles.offsets
    if count >= FOR_HOMOGRAPHY:
        matrix, _ = cv2.findHomography(tiles.centers, there, cv2.RANSAC, TOLERANCE)
        return None if matrix is None else np.asarray(matrix, np.float64)
    fit = cv2.estimateAffine2D if count >= FOR_AFFINE else cv2.estimateAffinePartial2D
    affine, _ = fit(tiles.centers, there, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE)
    return None if affine is None else np.vstack([affine, (0, 0, 1)])


def _steps(length: int) -> range:
    return range(0, max(1, length - TILE + 1), TILE // 2)


def _resized(gray: Gray, width: int) -> Gray:
    size = width, max(TILE, round(gray.shape[0] * width / gray.shape[1]))
    kind = cv2.INTER_AREA if gray.shape[1] >= width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(gray, size, interpolation=kind), np.uint8)
