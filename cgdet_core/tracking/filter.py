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
The target's filter in training: initialized from templates, refined by unrolled steps.

The equations are those of `cgdet_core.runtime.tracking.filter`, which runs them on the robot. Here
step length, regularization, label, mask and weight are learned through the steps.
"""

import math

from cgdet_core.runtime.tracking.filter import EPS, FilterSettings, KERNEL, PAD
import torch
from torch import nn, Tensor
from torch.nn import functional

KNOTS, SPACING = 13, 0.5  # of the learned functions, up to 6 cells
LABEL_SIGMA = 0.9  # cells, of the first label
MASK_RADIUS = 2.0  # cells, of the first mask


class FilterOptimizer(nn.Module):
    """
    Compute filters (B, C, k, k) from samples, and their scores.

    Samples are (B, S, C, N, N), scores (B, S, N + 1, N + 1) at the corners of the cells, and
    centers of targets (B, S, 2) in cells.
    """

    def __init__(self) -> None:
        super().__init__()
        distance = torch.arange(KNOTS) * SPACING
        self.initial = nn.Parameter(torch.ones(()))
        self.log_step = nn.Parameter(torch.zeros(()))
        self.log_regularization = nn.Parameter(torch.tensor(math.log(0.1)))
        self.label = nn.Parameter(torch.exp(-0.5 * (distance / LABEL_SIGMA) ** 2))
        self.mask_logit = nn.Parameter(4 * (MASK_RADIUS - distance))
        self.weight = nn.Parameter(torch.ones(KNOTS))

    def settings(self) -> FilterSettings:
        """Return what was learned, for the card."""
        lists = [tuple(v.detach().float().cpu().tolist()) for v in (
            self.label, self.mask_logit.sigmoid(), self.weight)]
        initial, step, regularization = (float(v.detach()) for v in (
            self.initial, self.log_step.exp(), self.log_regularization.exp()))
        return FilterSettings(initial, step, regularization, SPACING, *lists)

    def load(self, settings: FilterSettings) -> None:
        """Start from what a card says; ValueError for functions of other distances."""
        if len(settings.label) != KNOTS or settings.spacing != SPACING:
            raise ValueError('its filter has functions of other distances')
        with torch.no_grad():
            self.initial.fill_(settings.initial)
            self.log_step.fill_(math.log(max(settings.step, EPS)))
            self.log_regularization.fill_(math.log(max(settings.regularization, EPS)))
            self.label.copy_(torch.tensor(settings.label))
            self.mask_logit.copy_(torch.tensor(settings.mask).logit(1e-6))
            self.weight.copy_(torch.tensor(settings.weight))

    def functions(self, size: int, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, m and v at all positions of the scores, each (B, S, N + 1, N + 1)."""
        places = torch.arange(size + 1, device=centers.device)
        x, y = (centers[..., i, None] - places for i in (0, 1))
        distance = (x[..., None, :] ** 2 + y[..., :, None] ** 2).sqrt() / SPACING
        low = distance.clamp(max=KNOTS - 1 - 1e-4).floor().long()
        share = (distance - low).clamp(0, 1)
        label, mask, weight = ((1 - share) * v[low] + share * v[low + 1] for v in (
            self.label, self.mask_logit.sigmoid(), self.weight))
        return label, mask, weight

    def forward(self, samples: Tensor, centers: Tensor, steps: int) -> list[Tensor]:
        """Return the filter after 0, 1, ..., `steps` steps; the first sample is centered."""
        batch, count, channels, size, _ = samples.shape
        start = size // 2 - PAD
        cells = samples[:, 0, :, start:start + KERNEL, start:start + KERNEL]
        filters = [self.initial * cells / (cells.square().sum((1, 2, 3), keepdim=True) + EPS)]
        padded = pad(samples)
        label, mask, weight = self.functions(size, centers)
        squared = (2 * self.log_regularization).exp()
        for _ in range(steps):
            scores = correlate(padded, filters[-1])
            slope = weight * torch.where(scores > 0, torch.ones_like(mask), mask)
            residual = slope * scores - weight * label
            gradient = transposed(padded, slope * residual) / count + squared * filters[-1]
            along = slope * correlate(padded, gradient)
            norm = gradient.square().sum((1, 2, 3))
            curvature = along.square().sum((1, 2, 3)) / count + squared * norm
            length = self.log_step.exp() * norm / (curvature + EPS)
            filters.append(filters[-1] - length[:, None, None, None] * gradient)
        return filters


def pad(samples: Tensor) -> Tensor:
    """Return samples (B, S, C, N, N) as the filter sees them, (B, S, C, P, P)."""
    return functional.pad(samples, [PAD] * 4)


def correlate(padded: Tensor, filters: Tensor) -> Tensor:
    """Return the correlation (B, S, N + 1, N + 1) of padded samples with filters (B, C, k, k)."""
    size = padded.shape[-1]
    out = size - KERNEL + 1
    # One product for all cells of the kernel, then a sum of shifted maps.
    parts = filters.flatten(2).transpose(1, 2)[:, None] @ padded.flatten(3)
    parts = parts.unflatten(2, (KERNEL, KERNEL)).unflatten(4, (size, size)).contiguous()
    b, s, i, j, y, x = parts.stride()
    shifted = parts.as_strided((*padded.shape[:2], KERNEL, KERNEL, out, out),
                               (b, s, i + y, j + x, y, x))
    return shifted.sum((2, 3))


def transposed(padded: Tensor, maps: Tensor) -> Tensor:
    """Return (B, C, k, k), the gradient of sum(maps * correlation) by the filters."""
    size = padded.shape[-1]
    shifted = functional.pad(maps, [KERNEL - 1] * 4).unfold(2, size, 1).unfold(3, size, 1)
    found = (padded.flatten(3) @ shifted.flatten(2, 3).flatten(3).transpose(2, 3)).sum(1)
    return found.unflatten(2, (KERNEL, KERNEL)).flip(2, 3)
