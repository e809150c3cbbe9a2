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
Scales: mean and deviation of each of a teacher's channels, fixed before training.

Teachers differ in the scale of their features, and channels of one teacher too. Objectives that
compare values therefore see channels of mean 0 and deviation 1 over the pictures of the training
set, so that one weight fits all teachers and no channel outweighs the others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

PICTURES = 512  # whole pictures, evenly spaced in the training set, that the scales come from
FLOOR = 1e-5  # of a channel's variance, relative to the mean variance of its level


def sums_of(features: Tensor) -> Tensor:
    """Return count, sum and sum of squares per channel of features (C, h, w): (3, C) float64."""
    x = features.double().flatten(1)
    return torch.stack([torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)]).cpu()


def scales_of(pictures: Sequence[list[Tensor]]) -> list[Tensor]:
    """Return mean and deviation per level, (2, C) float32, from the `sums_of` all pictures."""
    scales = []
    for level in zip(*pictures):
        count, total, squares = torch.stack(level).sum(0)
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        floor = FLOOR * variance.mean() + torch.finfo(torch.float32).tiny
        scales.append(torch.stack([mean, (variance + floor).sqrt()]).float())
    return scales


def standardize(features: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    """Return features (N, C, H, W) with mean 0 and deviation 1, and 0 where the mask is 0."""
    mean, std = scale.to(features.device)[:, None, :, None, None]
    return (features - mean) / std * mask
