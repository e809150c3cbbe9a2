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
What guidance compares: objectives of two feature maps.

Each takes student and teacher features (N, C, H, W), equal shapes, float32, the teacher's
without gradient, and a mask (N, 1, H, W), 1 where there is guidance and 0 elsewhere. Each gives
one loss per image, (N,); an image without guidance gives 0. A new objective is a function here
and a line in OBJECTIVES.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average (N, C, H, W) over the masked positions: (N, C, 1, 1)."""
    return (x * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp(min=1)


def _statistics(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel over the masked positions, (N, C, 1, 1)."""
    mean = _mean(x, mask)
    return mean, (_mean((x - mean).square(), mask) + 1e-5).sqrt()


def mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Compare cell by cell: the mean squared difference (CGDet's form; needs registration)."""
    return _mean((student - teacher).square(), mask).mean((1, 2, 3))


def pearson(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Give 1 - r, r Pearson's correlation per channel and image (after PKD, arXiv 2207.02039)."""
    (mean_s, std_s), (mean_t, std_t) = _statistics(student, mask), _statistics(teacher, mask)
    product = (student - mean_s) / std_s * (teacher - mean_t) / std_t
    guided = mask.amax((1, 2, 3))
    return (1 - _mean(product, mask).mean((1, 2, 3))) * guided


def cwd(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """
    Compare where each channel looks (CWD, arXiv 2011.13256, eq. 4).

    temperature^2 / C * sum_c KL(softmax_HW(teacher_c / temperature) || softmax_HW(student_c)).
    Features are standardized per channel first, so that one temperature fits all teachers.
    """
    def log_softmax(x: Tensor) -> Tensor:
        mean, std = _statistics(x, mask)
        x = (x - mean) / std / temperature
        # A large negative number, not -inf: an image without guidance must not become NaN.
        return functional.log_softmax(x.masked_fill(mask == 0, -1e4).flatten(2), -1)

    log_s, log_t = log_softmax(student), log_softmax(teacher)
    divergence = (log_t.exp() * (log_t - log_s)).sum(-1).mean(1)
    return temperature ** 2 * divergence * mask.amax((1, 2, 3))


def style(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """
    Compare the mean and standard deviation of each channel (CKD, arXiv 2410.11586, L_SD).

    These say what is seen but not where, and need no registration.
    """
    (mean_s, std_s), (mean_t, std_t) = _statistics(student, mask), _statistics(teacher, mask)
    return ((mean_s - mean_t).square() + (std_s - std_t).square()).mean((1, 2, 3))


def style_content(
    student: Tensor, teacher: Tensor, mask: Tensor, of_style: float = 0.1, content: float = 1.0,
) -> Tensor:
    """
    Compare style and content apart (CKD, arXiv 2410.11586, L_SD and L_CD).

    Content: the features after instance normalization, cell by cell. CKD weighs 0.01 : 0.1.
    """
    (mean_s, std_s), (mean_t, std_t) = _statistics(student, mask), _statistics(teacher, mask)
    of_content = mse((student - mean_s) / std_s, (teacher - mean_t) / std_t, mask)
    return of_style * style(student, teacher, mask) + content * of_content


def frequency(
    student: Tensor, teacher: Tensor, mask: Tensor, high: float = 0.1, window: int = 5,
) -> Tensor:
    """
    Compare the low band cell by cell and the high band loosely.

    Bands are split by a box filter of `window` cells over the guided cells. Low band: mean
    squared difference; high band: log(1 + mean squared difference), weight `high`, as edges
    differ more between modalities than what is smooth.
    """
    def low_pass(x: Tensor) -> Tensor:
        blur = functional.avg_pool2d(x * mask, window, 1, window // 2)
        share = functional.avg_pool2d(mask, window, 1, window // 2)
        return blur / share.clamp(min=1e-6)

    low_s, low_t = low_pass(student), low_pass(teacher)
    edges = mse(student - low_s, teacher - low_t, mask)
    return mse(low_s, low_t, mask) + high * torch.log1p(edges)


OBJECTIVES: dict[str, Objective] = {
    'mse': mse, 'pearson': pearson, 'cwd': cwd, 'style': style, 'style_content': style_content,
    'frequency': frequency,
}
