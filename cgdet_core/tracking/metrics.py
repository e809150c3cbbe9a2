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

"""
Success, precision and normalized precision of one sequence and of many, as a benchmark counts.

success: share of frames whose overlap (IoU) exceeds each of 21 thresholds from 0 to 1; its mean is
the area under the curve, at most 20/21, as no overlap exceeds 1. precision: share of frames whose
center error is at most 0 to 50 pixels. normalized precision: the same error in units of the
truth's width and height, up to 0 to 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cgdet_core.tracking.benchmarks import Benchmark, PRECISION_PX
import numpy as np
from numpy.typing import NDArray

OVERLAPS = np.linspace(0, 1, 21)
PIXELS = np.arange(51)
RELATIVE = np.arange(51) / 100
RELATIVE_AT = 20  # the index of 0.2 in RELATIVE
Boxes = NDArray[np.float64]  # (N, 4) x, y, w, h


@dataclass(frozen=True)
class Errors:
    """
    Errors of the frames that count, each (N,).

    overlap: IoU; distance: of the centers, in pixels; relative: in units of the truth's size.
    """

    overlap: NDArray[np.float64]
    distance: NDArray[np.float64]
    relative: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.overlap)

    def only(self, kept: NDArray[np.bool_]) -> 'Errors':
        """Return the errors of some of the frames (N,)."""
        return Errors(self.overlap[kept], self.distance[kept], self.relative[kept])


@dataclass(frozen=True)
class Curves:
    """Shares of frames: success (21,), precision (51,), normalized precision (51,)."""

    success: NDArray[np.float64]
    precision: NDArray[np.float64]
    relative: NDArray[np.float64]
    frames: int


def compare(boxes: Boxes, truths: Sequence[Boxes], benchmark: Benchmark) -> Errors:
    """
    Return the errors of boxes (N, 4) x, y, w, h of the frames that count.

    truths: (N, 4) each; of two, a frame counts with the better one.
    """
    boxes = boxes.copy()
    if benchmark.first_is_truth:
        boxes[0] = truths[0][0]
    for i in range(1, len(boxes)) if benchmark.repeats else ():
        if not (boxes[i, 2:] > 0).all():
            boxes[i] = boxes[i - 1]
    found = [_compare(boxes, truth, benchmark.invalid_hits) for truth in truths]
    # Of two truths, of which one has no box: the other one.
    return Errors(np.fmax.reduce([e.overlap for e in found]),
                  np.fmin.reduce([e.distance for e in found]),
                  np.fmin.reduce([e.relative for e in found]))


def _compare(boxes: Boxes, truth: Boxes, invalid_hits: bool) -> Errors:
    with np.errstate(all='ignore'):  # boxes without area
        centers, wanted = (b[:, :2] + (b[:, 2:] - 1) / 2 for b in (boxes, truth))
        distance = np.sqrt(((centers - wanted) ** 2).sum(1))
        relative = np.sqrt(((centers / truth[:, 2:] - wanted / truth[:, 2:]) ** 2).sum(1))
        overlap = overlaps(boxes, truth)
    if invalid_hits:
        invalid = ~(truth > 0).all(1)
        for values in (overlap, distance, relative):
            values[invalid] = -1
    return Errors(overlap, distance, relative)


def overlaps(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Return the IoU (N,) of boxes x, y, w, h, in the order of operations of the toolkits."""
    ends = np.minimum(first[:, :2] + first[:, 2:] - 1, second[:, :2] + second[:, 2:] - 1)
    sides = np.maximum(0, ends - np.maximum(first[:, :2], second[:, :2]) + 1)
    shared = sides[:, 0] * sides[:, 1]
    return np.asarray(shared / (first[:, 2] * first[:, 3] + second[:, 2] * second[:, 3] - shared))


def curves_of(errors: Errors, benchmark: Benchmark) -> Curves:
    """Return the curves of one sequence, or of any frames; at least one."""
    near = np.less if benchmark.under else np.less_equal
    return Curves((errors.overlap[:, None] > OVERLAPS).mean(0),
                  near(errors.distance[:, None], PIXELS).mean(0),
                  near(errors.relative[:, None], RELATIVE).mean(0), len(errors))


def join(curves: Sequence[Curves], benchmark: Benchmark) -> Curves:
    """Return the mean curves of sequences."""
    weights = np.array([c.frames if benchmark.by_frames else 1 for c in curves], float)

    def mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = rows.any(1) if benchmark.leaves_out_empty and rows.any() else np.ones(
            len(rows), bool)
        return np.asarray(np.average(rows[kept], axis=0, weights=weights[kept]))

    return Curves(mean(np.array([c.success for c in curves])),
                  mean(np.array([c.precision for c in curves])),
                  mean(np.array([c.relative for c in curves])), sum(c.frames for c in curves))


def score(curves: Curves, benchmark: Benchmark) -> dict[str, Any]:
    """Return the numbers of curves by their names in a report."""
    success = curves.success
    area = float(np.mean((success[1:] + success[:-1]) / 2 if benchmark.trapezoid else success))
    relative = curves.relative.mean() if benchmark.relative_area else curves.relative[RELATIVE_AT]
    pixels = dict.fromkeys((benchmark.pixels, PRECISION_PX))
    return {'success_auc': area,
            **{f'precision_{px}px': float(curves.precision[px]) for px in pixels},
            'normalized_precision': float(relative), 'frames': curves.frames}
