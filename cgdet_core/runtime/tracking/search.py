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

"""Where to look for a lost target: near its prediction first, then in all of the frame."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = NDArray[np.float64]
Detect = Callable[[NDArray[Any]], Iterable[tuple[Any, float, int]]]
STEP = 0.45  # of a region's side, between places that are searched
DETECT_S = 0.25  # between two calls of the detector
LARGEST = 2.0  # ratio of the roots of areas, of a detection and the target


class LostSearch:
    """
    Choose the places (x, y, width, height of a box) that are searched, some for each frame.

    detect: finds objects of all classes in a raw frame, or None; label: the target's class.
    """

    def __init__(self, detect: Detect | None, label: int | None) -> None:
        self._detect, self._label = detect, label
        self._next_detection = -np.inf
        self._seen: set[tuple[int, int]] = set()  # places of the scan since it began

    def start(self) -> None:
        """Begin the search."""
        self._next_detection, self._seen = -np.inf, set()

    def shift(self, seconds: float) -> None:
        """Follow a clock that was set."""
        self._next_detection += seconds

    def places(self, frame: NDArray[Any], stamp: float, box: Box, side: float,
               limit: int, reach: float = np.inf) -> list[Box]:
        """
        Return up to `limit` boxes (4,) to search around, the most promising first.

        box: the prediction; side: of a search region in pixels; reach: how far from the prediction
        the scan goes, pixels. The prediction is always one; detections of the target's class come
        before the scan.
        """
        height, width = frame.shape
        center, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        center = np.clip(center, 0, (width, height))
        chosen = [_box(center, size)]
        if self._detect is not None and stamp >= self._next_detection:
            self._next_detection = stamp + DETECT_S
            chosen += self._detections(frame, center, size)[:limit - 1]
        while len(chosen) < limit:
            place = self._scan(center, (width, height), STEP * side, reach)
            if place is None:
                break
            chosen.append(_box(place, size))
        return chosen

    def _detections(self, frame: NDArray[Any], center: Box, size: Box) -> list[Box]:
        """Return detections that may be the target, nearest first."""
        assert self._detect is not None
        found = []
        for box, _, label in self._detect(frame):
            box = np.asarray(box, np.float64)
            ratio = float(np.sqrt((box[2:] - box[:2]).prod() / size.prod()))
            if self._label in (None, int(label)) and 1 / LARGEST <= ratio <= LARGEST:
                found.append(box)
        return sorted(found, key=lambda b: float(np.linalg.norm((b[:2] + b[2:]) / 2 - center)))

    def _scan(self, center: Box, size: tuple[int, int], step: float,
              reach: float) -> Box | None:
        """Return the nearest place of a grid that was not searched; after the last, begin."""
        near = max(2.0, (reach / step) ** 2)
        columns, rows = (np.arange(-int(min(c // step, near ** 0.5)),
                                   int(min((n - c) // step, near ** 0.5)) + 1)
                         for c, n in zip(center, size))
        a, b = (cells.ravel() for cells in np.meshgrid(columns, rows, indexing='ij'))
        away = a ** 2 + b ** 2
        order = np.argsort(away, kind='stable')
        order = order[(0 < away[order]) & (away[order] <= near)]
        cells = [*zip(a[order].tolist(), b[order].tolist())]
        if not cells:
            return None
        cell = next((c for c in cells if c not in self._seen), None)
        if cell is None:
            self._seen, cell = set(), cells[0]
        self._seen.add(cell)
        return center + step * np.array(cell)


def _box(center: Box, size: Box) -> Box:
    return np.concatenate([center - size / 2, center + size / 2])
