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
The target's filter: what distinguishes it from its background, learned while it is followed.

Discriminative model prediction (DiMP, arXiv 1904.07220): the filter f (C, k, k) minimizes
    L(f) = sum_s w_s |r(x_s * f, c_s)|^2 + |lambda f|^2,
    r(s, c) = v_c (m_c s + (1 - m_c) max(0, s) - y_c),
over samples x_s with targets at c_s, by steepest descent with the step length
    |g|^2 / (g^T Q g), Q from the Gauss-Newton approximation.
Label y, mask m and weight v are learned functions of the distance to c, and so are lambda and a
factor of the step: the training unrolls the same steps (`cgdet_core.tracking.filter`).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from cgdet_core.runtime.imaging.normalization import is_number
import numpy as np
from numpy.typing import NDArray

KERNEL = 4  # k, cells; even, so that a centered target has a score at its center
PAD = KERNEL // 2
EPS = 1e-8  # of the step length's denominator


@dataclass(frozen=True)
class FilterSettings:
    """
    What the filter's optimizer has learned.

    label, mask, weight: y, m and v at distances 0, spacing, 2 spacing, ... from the target, in
    cells, linear between them and constant beyond.
    """

    initial: float  # factor of the first filter
    step: float  # factor of the step length
    regularization: float  # lambda
    spacing: float
    label: tuple[float, ...]
    mask: tuple[float, ...]
    weight: tuple[float, ...]

    @staticmethod
    def from_dict(values: Any) -> 'FilterSettings':
        """Build from JSON values; ValueError states what is wrong."""
        names = {f.name for f in fields(FilterSettings)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(f'filter must have the entries {", ".join(sorted(names))}')
        lists = {k: v for k, v in values.items() if k in ('label', 'mask', 'weight')}
        for name, value in values.items():
            numbers = value if name in lists and isinstance(value, list | tuple) else [value]
            if not numbers or not all(map(is_number, numbers)):
                raise ValueError(f'filter: {name} must be '
                                 f'{"a list of numbers" if name in lists else "a number"}')
        if values['spacing'] <= 0:
            raise ValueError('filter: spacing must be positive')
        if len({len(v) for v in lists.values()}) != 1:
            raise ValueError('filter: label, mask and weight must be equally long')
        entries: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in values.items()}
        return FilterSettings(**entries)

    def to_dict(self) -> dict[str, Any]:
        """Return the values for a model card."""
        return asdict(self)

    def functions(self, size: int, centers: NDArray[np.float64]) -> tuple[
            NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """
        Return y, m and v on the scores' positions, each (S, size + 1, size + 1).

        size: cells of the features; centers: (S, 2) x, y of the targets in cells.
        """
        places = np.arange(size + 1)
        x, y = (centers[:, i, None] - places for i in (0, 1))
        distance = np.sqrt(x[:, None, :] ** 2 + y[:, :, None] ** 2)
        knots = np.arange(len(self.label)) * self.spacing
        label, mask, weight = (np.interp(distance, knots, values).astype(np.float32)
                               for values in (self.label, self.mask, self.weight))
        return label, mask, weight


class TargetFilter:
    """
    A filter and the samples that it is learned from; at most `capacity` of them.

    The first `kept` samples are never replaced and keep at least `share` of the weight; of the
    others the oldest is replaced.
    """

    def __init__(self, settings: FilterSettings, channels: int, size: int, capacity: int = 30,
                 share: float = 0.3) -> None:
        self.settings, self.size, self.capacity, self.share = settings, size, capacity, share
        self.filter = np.zeros((channels, KERNEL, KERNEL), np.float32)
        padded = size + 2 * PAD
        self._samples = np.zeros((channels, capacity, padded, padded), np.float32)
        self._centers = np.zeros((capacity, 2))
        self._weights = np.zeros(capacity)
        self.count = self.kept = 0

    def start(self, features: NDArray[np.float32], centers: NDArray[np.float64],
              steps: int = 10) -> None:
        """
        Start from samples (S, C, size, size) with targets at centers (S, 2), in cells.

        The first must be centered; its central cells are the filter that the steps refine.
        """
        self.count = self.kept = len(features)
        for row, sample in enumerate(features):
            self._set(row, sample)
        self._centers[:self.count] = centers
        self._weights[:self.count] = 1 / self.count
        self.filter = initial_filter(features[0], self.settings)
        self.improve(steps)

    def add(self, features: NDArray[np.float32], center: NDArray[np.float64],
            rate: float = 0.02) -> None:
        """Add a sample (C, size, size) with the weight `rate`; those of the others decay."""
        rows = np.arange(self.kept, self.count)
        if self.count < self.capacity:
            row = self.count
            self.count += 1
        else:
            row = int(rows[self._weights[rows].argmin()])
        self._set(row, features)
        self._centers[row] = center
        self._weights[:self.count] *= 1 - rate
        self._weights[row] = rate
        weights = self._weights[:self.count]
        weights /= weights.sum()
        first = weights[:self.kept].sum()
        if first < self.share:
            weights[:self.kept] *= self.share / first
            weights[self.kept:] *= (1 - self.share) / (1 - first)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores (size + 1, size + 1) of features (C, size, size), at cell corners."""
        padded = np.pad(features, ((0, 0), (PAD, PAD), (PAD, PAD)))
        return _correlate(padded[:, None], self.filter)[0]

    def improve(self, steps: int) -> None:
        """Take steps of steepest descent on all samples."""
        samples, settings = self._samples[:, :self.count], self.settings
        weights = self._weights[:self.count].astype(np.float32)[:, None, None]
        label, mask, weight = settings.functions(self.size, self._centers[:self.count])
        squared = np.float32(settings.regularization ** 2)
        for _ in range(steps):
            scores = _correlate(samples, self.filter)
            slope = weight * np.where(scores > 0, np.float32(1), mask)
            residual = slope * scores - weight * label
            gradient = _transposed(samples, weights * slope * residual) + squared * self.filter
            along = slope * _correlate(samples, gradient)
            norm = float(np.square(gradient).sum())
            curvature = float((weights * np.square(along)).sum()) + float(squared) * norm
            self.filter -= np.float32(settings.step * norm / (curvature + EPS)) * gradient

    def _set(self, row: int, sample: NDArray[np.float32]) -> None:
        self._samples[:, row, PAD:-PAD, PAD:-PAD] = sample


def initial_filter(features: NDArray[np.float32],
                   settings: FilterSettings) -> NDArray[np.float32]:
    """Return the central cells of features (C, size, size), scaled to a score of `initial`."""
    start = features.shape[1] // 2 - PAD
    center = features[:, start:start + KERNEL, start:start + KERNEL]
    return np.asarray(settings.initial * center / (np.square(center).sum() + EPS), np.float32)


def _offsets() -> Iterator[tuple[int, slice, slice]]:
    for row in range(KERNEL):
        for column in range(KERNEL):
            yield (row * KERNEL + column, slice(row, row - KERNEL + 1 or None),
                   slice(column, column - KERNEL + 1 or None))


def _correlate(samples: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (S, N, N), the correlation of padded samples (C, S, P, P) with (C, k, k)."""
    channels, count, size, _ = samples.shape
    # One product for all cells of the kernel, then a sum of shifted maps.
    parts = kernel.reshape(channels, -1).T @ samples.reshape(channels, -1)
    parts = parts.reshape(-1, count, size, size)
    total = np.zeros((count, size - KERNEL + 1, size - KERNEL + 1), np.float32)
    for index, rows, columns in _offsets():
        total += parts[index][:, rows, columns]
    return total


def _transposed(samples: NDArray[np.float32], maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (C, k, k), the gradient of sum(maps * correlation) by the kernel."""
    channels, count, size, _ = samples.shape
    shifted = np.zeros((KERNEL * KERNEL, count, size, size), np.float32)
    for index, rows, columns in _offsets():
        shifted[index][:, rows, columns] = maps
    product = samples.reshape(channels, -1) @ shifted.reshape(len(shifted), -1).T
    return product.reshape(channels, KERNEL, KERNEL)
