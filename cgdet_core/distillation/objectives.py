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
Objectives: functions d that compare two feature maps in L_cms (see `guidance`).

The arguments are student and teacher features (N, C, H, W), of equal shapes, float32, the
teacher's without gradient, and a mask (N, 1, H, W), 1 where there is guidance and 0 elsewhere.
The result is one loss per image, (N,); 0 for an image without guidance. A new objective is a
function here, an entry in OBJECTIVES and one in `config.PARAMETERS`, its further arguments that a
recipe may set. Those in STANDARDIZING standardize both features themselves. The others compare
values: they are given the teacher's features at unit scale (see `scales`), and the student's
adapters learn that scale.
"""

from collections.abc import Callable
from functools import partial
import inspect
from typing import Any

from cgdet_core.distillation.config import name_and_parameters
import torch
from torch import Tensor
from torch.nn import functional

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
Over = tuple[int, ...]  # the dimensions of the statistics with which features are standardized
IMAGE: Over = (2, 3)
BATCH: Over = (0, 2, 3)  # for regions: the few cells of one have no statistics


def _mean(x: Tensor, mask: Tensor, over: Over = IMAGE) -> Tensor:
    """Average (N, C, H, W) over the positions with mask 1, by default (N, C, 1, 1)."""
    return (x * mask).sum(over, keepdim=True) / mask.sum(over, keepdim=True).clamp(min=1)


def _statistics(x: Tensor, mask: Tensor, over: Over = IMAGE) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel where the mask is 1, see `_mean`."""
    mean = _mean(x, mask, over)
    return mean, (_mean((x - mean).square(), mask, over) + 1e-5).sqrt()


def mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Compare cell by cell: the mean squared difference (CGDet's form; needs registration)."""
    return _mean((student - teacher).square(), mask).mean((1, 2, 3))


def pearson(student: Tensor, teacher: Tensor, mask: Tensor, *, over: Over = IMAGE) -> Tensor:
    """Return 1 - r, the mean Pearson correlation of the channels (PKD, arXiv 2207.02039)."""
    (mean_s, std_s), (mean_t, std_t) = (_statistics(x, mask, over) for x in (student, teacher))
    product = (student - mean_s) / std_s * (teacher - mean_t) / std_t
    guided = mask.amax((1, 2, 3))
    return (1 - _mean(product, mask).mean((1, 2, 3))) * guided


def cwd(student: Tensor, teacher: Tensor, mask: Tensor,
        temperature: float = 1.0, *, over: Over = IMAGE) -> Tensor:
    """
    Compare where each channel looks (CWD, arXiv 2011.13256, eq. 4).

    tau^2 / C * sum_c KL(softmax_HW(teacher_c / tau) || softmax_HW(student_c / tau)), tau the
    temperature. Features are standardized per channel first, so that one temperature fits all
    teachers.
    """
    def log_softmax(x: Tensor) -> Tensor:
        mean, std = _statistics(x, mask, over)
        x = (x - mean) / std / temperature
        # A large negative number, not -inf: an image without guidance must not become NaN.
        return functional.log_softmax(x.masked_fill(mask == 0, -1e4).flatten(2), -1)

    log_s, log_t = log_softmax(student), log_softmax(teacher)
    divergence = (log_t.exp() * (log_t - log_s)).sum(-1).mean(1)
    return temperature ** 2 * divergence * mask.amax((1, 2, 3))


def style(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Compare mean and deviation per channel, wherever it is (CKD, arXiv 2410.11586, L_SD)."""
    (mean_s, std_s), (mean_t, std_t) = _statistics(student, mask), _statistics(teacher, mask)
    return ((mean_s - mean_t).square() + (std_s - std_t).square()).mean((1, 2, 3))


def pearson_style(student: Tensor, teacher: Tensor, mask: Tensor, of_style: float = 0.1,
                  of_pearson: float = 2.0, *, over: Over = IMAGE) -> Tensor:
    """
    Return 2 `pearson` + 0.1 `style`, by default.

    The mean squared difference of standardized features is 2 (1 - r). Instance-normalized content
    and style are what CKD (arXiv 2410.11586) compares, but between coupled students and teachers.
    """
    return (of_pearson * pearson(student, teacher, mask, over=over)
            + of_style * style(student, teacher, mask))


def frequency(student: Tensor, teacher: Tensor, mask: Tensor, high: float = 0.1,
              radius: int = 2) -> Tensor:
    """
    Compare the low band cell by cell and the high band loosely (after UHKD, arXiv 2510.24116).

    Bands are split as in FreqKD (arXiv 2606.11572), here by a box filter over the guided cells
    within `radius`. Low band: mean squared difference; high band: log(1 + mean squared
    difference), weight `high`, as edges differ more between modalities than smooth regions.
    Tried with one seed only, which was 0.009 AP50 below no guidance (docs/results.md).
    """
    def low_pass(x: Tensor) -> Tensor:
        blur = functional.avg_pool2d(x * mask, 2 * radius + 1, 1, radius)
        share = functional.avg_pool2d(mask, 2 * radius + 1, 1, radius)
        return blur / share.clamp(min=1e-6)

    low_s, low_t = low_pass(student), low_pass(teacher)
    edges = mse(student - low_s, teacher - low_t, mask)
    return mse(low_s, low_t, mask) + high * torch.log1p(edges)


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (mse, pearson, cwd, style, pearson_style, frequency)}
STANDARDIZING = (pearson, cwd)


def standardizes(value: str | dict[str, Any]) -> bool:
    """Return whether a recipe's objective standardizes the features itself."""
    return OBJECTIVES[name_and_parameters(value)[0]] in STANDARDIZING


def objective_of(value: str | dict[str, Any], over: Over = IMAGE) -> Objective:
    """
    Return the objective of a recipe's value, with its parameters; ValueError if it is wrong.

    over: what is standardized together, by an objective that standardizes.
    """
    name, parameters = name_and_parameters(value)
    if 'over' in inspect.signature(OBJECTIVES[name]).parameters:
        parameters['over'] = over
    return partial(OBJECTIVES[name], **parameters)
