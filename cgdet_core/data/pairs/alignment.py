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

"""Shift of RGB against the thermal frame, by phase correlation of edges."""

from collections.abc import Iterable
from typing import Any

from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import cv2
import numpy as np
from numpy.typing import NDArray

WORKING_WIDTH = 320  # pixels; finer detail differs between the modalities and adds only noise
MIN_SHARE = 0.3  # fraction of pairs that must exceed chance; 0.05 do by chance
MIN_PAIRS = 4


def _edges(picture: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    if scale > 1:
        picture = cv2.resize(
            picture, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    x, y = (cv2.Sobel(picture, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    strength = cv2.magnitude(x, y)
    # The logarithm prevents a hot engine or lamp from dominating all other edges.
    edges = np.log1p(5 * strength / (strength.mean() + 1e-9))
    return edges - edges.mean()


def measure_shift(
    thermal: NDArray[Any], rgb: NDArray[np.uint8],
) -> tuple[float, float, float, float]:
    """
    Measure the shift of RGB (H', W', 3) BGR to the right and down against raw thermal (H, W).

    Returns dx, dy in thermal pixels, the response of the correlation, and the response to the
    same RGB rotated by 180 degrees, which such images reach by chance.
    """
    height, width = thermal.shape
    gray = cv2.cvtColor(
        cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    scale = max(1, round(width / WORKING_WIDTH))
    ours = _edges(normalize(thermal, Normalization('plateau')), scale)
    theirs = _edges(gray.astype(np.float32) / 255, scale)
    window = cv2.createHanningWindow(ours.shape[::-1], cv2.CV_32F)
    (dx, dy), response = cv2.phaseCorrelate(ours, theirs, window)
    turned = np.ascontiguousarray(theirs[::-1, ::-1])
    chance = cv2.phaseCorrelate(ours, turned, window)[1]
    return dx * scale, dy * scale, response, chance


def estimate_alignment(pairs: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]]) -> dict[str, Any]:
    """
    Return the median shift of RGB against thermal over (raw thermal, BGR) pairs, with its scatter.

    A pair is believed if its response exceeds the 95th percentile of the chance responses of all
    pairs; the set is believed if at least 30 % and 4 of its pairs are. Scatter is the median
    distance from the median shift. Pixels are those of the thermal frame.
    """
    rows = np.array([measure_shift(*pair) for pair in pairs], np.float64).reshape(-1, 4)
    report: dict[str, Any] = {'pairs': len(rows), 'pairs_believed': 0, 'believed': False}
    if not len(rows):
        return report
    threshold = float(np.percentile(rows[:, 3], 95))
    good = rows[rows[:, 2] > threshold]
    report |= {'pairs_believed': len(good),
               'response': round(float(np.median(rows[:, 2])), 4),
               'response_by_chance': round(threshold, 4)}
    if len(good) < max(MIN_PAIRS, MIN_SHARE * len(rows)):
        return report
    middle = np.median(good[:, :2], axis=0)
    scatter = np.median(np.hypot(*(good[:, :2] - middle).T))
    return report | {'believed': True, 'dx': round(float(middle[0]), 2),
                     'dy': round(float(middle[1]), 2), 'scatter': round(float(scatter), 2)}
