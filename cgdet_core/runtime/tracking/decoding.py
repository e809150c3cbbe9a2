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

"""Decode what the network and the filter say: where the target is, and how sure that is."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Found:
    """
    A place in a search region that may show the target.

    box: (4,) in input pixels; score: of the filter; quality: of the box head; match: how much the
    next best place elsewhere is worse, 0 to 1.
    """

    box: NDArray[np.float64]
    score: float
    quality: float
    match: float


@cache
def _upsampling(size: int) -> NDArray[np.float32]:
    """
    Return the matrix (2 size, size + 1) that interpolates scores at the centers of fine cells.

    Scores are at the corners of coarse cells, of which each has two fine ones: fine cell i is at
    i / 2 + 1 / 4. Cubic (Catmull-Rom), as linear interpolation has no maximum between scores.
    """
    places = np.arange(2 * size) / 2 + 0.25
    low = np.floor(places).astype(int)
    t = places - low
    weights = np.stack([-t + 2 * t ** 2 - t ** 3, 2 - 5 * t ** 2 + 3 * t ** 3,
                        t + 4 * t ** 2 - 3 * t ** 3, -t ** 2 + t ** 3]) / 2
    matrix = np.zeros((2 * size, size + 1))
    for offset, row in zip((-1, 0, 1, 2), weights):
        np.add.at(matrix, (np.arange(2 * size), np.clip(low + offset, 0, size)), row)
    return matrix.astype(np.float32)


def refine(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return scores (N + 1, N + 1) at cell corners as scores (2 N, 2 N) of fine cells."""
    matrix = _upsampling(len(scores) - 1)
    return matrix @ scores @ matrix.T


def best_places(scores: NDArray[np.float32], boxes: NDArray[np.float32],
                quality: NDArray[np.float32], window: NDArray[np.float32] | None = None,
                count: int = 1, stride: float = 8.0) -> list[Found]:
    """
    Return the best places, best first.

    scores (N, N) of the filter, boxes (4, N, N), quality (N, N), at cells of `stride` input
    pixels; window: factors of the places' rank by where the target is expected. Further places
    are outside the boxes of better ones.
    """
    rank = np.clip(scores, 0, None) * np.sqrt(quality)
    if window is not None:
        rank = rank * window
    ranks, rank = rank, rank.copy()
    rows, columns = np.indices(rank.shape)
    found: list[tuple[float, int, int]] = []
    while len(found) <= count:
        row, column = divmod(int(rank.argmax()), rank.shape[1])
        found.append((float(rank[row, column]), row, column))
        x1, y1, x2, y2 = boxes[:, row, column] / stride
        rank[(rows + 0.5 > y1 - 1) & (rows + 0.5 < y2 + 1)
             & (columns + 0.5 > x1 - 1) & (columns + 0.5 < x2 + 1)] = 0
        rank[row, column] = 0
    return [Found(_mean_box(ranks, boxes, row, column), float(scores[row, column]),
                  float(quality[row, column]),
                  1 - found[n + 1][0] / value if n == 0 and value > 0 else 0.0)
            for n, (value, row, column) in enumerate(found[:count])]


def _mean_box(rank: NDArray[np.float32], boxes: NDArray[np.float32], row: int,
              column: int) -> NDArray[np.float64]:
    """Return the mean box (4,) of a place and its neighbors, weighted by their ranks."""
    rows, columns = (slice(max(n - 1, 0), n + 2) for n in (row, column))
    weights = np.square(rank[rows, columns].astype(np.float64)) + 1e-12
    return (boxes[:, rows, columns] * weights).sum((1, 2)) / weights.sum()
