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
Coupled students: an RGB and a thermal student that are trained together (CKD, arXiv 2410.11586).

F_r and F_t are the pyramids of the RGB and of the thermal student, T_r and T_t those of the
teachers of each modality, mu and sigma mean and standard deviation of a channel over positions,
IN(x) = (x - mu) / sigma, and sg stops the gradient:

    L_SD = sum_l mean_c [(mu_r - mu_t)^2 + (sigma_r - sigma_t)^2]     style, gradient to both
    L_CD = sum_l sum_m mean [(IN(sg T_m) - IN(A_m(F_m)))^2], m in {r, t}                  content

A mean of squared differences of IN is 2 (1 - r), r the Pearson correlation, here of the channels.
In CKD teachers and students are one network each, so that channels correspond. Here T_r is the
frozen RGB teacher of CMG, and a 1x1 convolution A_r maps to its width, as in CMG. T_t is the
average of the thermal student itself, without A_t, or another frozen teacher, with it.

Both students see the same random patches of a sample hidden, the teachers see all of it. Only
samples that show RGB take part, statistics are over the cells that show it, and a loss is a mean
over samples weighted by the share that does, of all ranks.

The students are separate networks. If the head of one looks at the pyramid of the other (CMD's
swap, arXiv 2108.00187), it normalizes by the statistics of its own modality: `own_statistics`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

from cgdet_core.distillation.guide import TeacherPyramid
from cgdet_core.distillation.layout import Layout
from cgdet_core.distillation.objectives import pearson, style
from cgdet_core.distillation.views import View
from cgdet_core.nets.pyramid import STRIDES
from cgdet_core.training.module import gradient_norm
from cgdet_core.training.ranks import mean_over_ranks
import torch
from torch import nn, Tensor

STEPS = 10  # over which gradients are measured


class Painted(NamedTuple):
    """The RGB picture of a sample of size (W, H)."""

    pixels: Tensor  # (3, H, W) in [0, 1], black where no RGB is known
    shown: Tensor  # (1, H, W): 1 where it is, otherwise 0
    bare: Tensor  # (R, 4) regions x1, y1, x2, y2 where it is not


def paint_rgb(views: list[View], size: tuple[int, int]) -> Painted | None:
    """Return the RGB pictures of a sample of `size` = (width, height), None if it has none."""
    views = [v for v in views if not v.thermal
             and v.region[0] < v.region[2] and v.region[1] < v.region[3]]
    if not views:
        return None
    shown = torch.zeros(1, size[1], size[0])
    for view in views:
        x1, y1, x2, y2 = (round(v) for v in view.region)
        shown[:, y1:y2, x1:x2] = 1
    if not shown.any():
        return None
    xs, ys = (sorted({0.0, float(length), *(v.region[i] for v in views for i in (axis, axis + 2))})
              for axis, length in enumerate(size))
    bare = [(x1, y1, x2, y2) for x1, x2 in pairwise(xs) for y1, y2 in pairwise(ys)
            if not any(v.region[0] <= x1 and x2 <= v.region[2]
                       and v.region[1] <= y1 and y2 <= v.region[3] for v in views)]
    pixels = Layout(size, 0, (1, 1, 1)).pixels(views, size)
    return Painted(pixels.float() / 255, shown, torch.tensor(bare).reshape(-1, 4))


def batch_rgb(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Stack the RGB pictures of a batch; {} if no sample has one.

    rgb (V, 3, H, W), rgb_shown (V, 1, H, W), and lists of V: rgb_rows, the number of the sample,
    and rgb_bare (R, 4).
    """
    painted = {n: sample['rgb'] for n, sample in enumerate(samples) if 'rgb' in sample}
    if not painted:
        return {}
    pixels, shown, bare = zip(*painted.values())
    return {'rgb': torch.stack(pixels), 'rgb_shown': torch.stack(shown),
            'rgb_rows': list(painted), 'rgb_bare': list(bare)}


def cells_of(shown: Tensor) -> list[Tensor]:
    """Return the masks of P3, P4, P5 of a mask of pixels (N, 1, H, W), by the cells' centers."""
    return [shown[..., s // 2::s, s // 2::s] for s in STRIDES]


def random_patches(count: int, size: tuple[int, int], patch: int, ratio: float,
                   generator: torch.Generator) -> Tensor:
    """Return masks (count, 1, H, W), 0 in a share `ratio` of the patches, of size (W, H)."""
    columns, rows = (-(-length // patch) for length in size)
    order = torch.rand(count, rows * columns, generator=generator).argsort(1)
    visible = torch.ones(count, rows * columns)
    visible.scatter_(1, order[:, :round(ratio * rows * columns)], 0)
    visible = visible.reshape(count, 1, rows, columns)
    return visible.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[
        ..., :size[1], :size[0]]


def hide(images: Tensor, visible: Tensor) -> Tensor:
    """Return images (N, C, H, W) with their mean where they are not visible (N, 1, H, W)."""
    return torch.where(visible > 0, images, images.mean((2, 3), keepdim=True))


@contextmanager
def own_statistics(network: nn.Module) -> Iterator[None]:
    """Let a network normalize by the statistics that it has, and not update them."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


class Coupling(nn.Module):
    """Compute L_SD and L_CD; channels: width of both students' levels."""

    def __init__(self, channels: int, of_rgb: tuple[int, ...], of_thermal: tuple[int, ...] | None,
                 ) -> None:
        """Set up A_r and A_t to widths of the teachers' levels; of_thermal: None without A_t."""
        super().__init__()
        self.adapt_rgb = nn.ModuleList(nn.Conv2d(channels, c, 1) for c in of_rgb)
        self.adapt_thermal = nn.ModuleList(nn.Conv2d(channels, c, 1) if of_thermal else
                                           nn.Identity() for c in of_thermal or of_rgb)

    def forward(self, thermal: list[Tensor], rgb: list[Tensor], masks: list[Tensor],
                teacher_thermal: list[Tensor] | None, teacher_rgb: TeacherPyramid | None,
                ) -> dict[str, Tensor]:
        """
        Return `style` and `content`, scalars; every rank must call this in every step.

        Per level the features (V, C, h, w) of samples that show RGB, and masks (V, 1, h, w) of
        where they do. V may be 0. A teacher that is None teaches nothing.
        """
        thermal, rgb = ([level.float() for level in levels] for levels in (thermal, rgb))
        share = masks[0].mean((1, 2, 3))
        total = mean_over_ranks(share.sum(), 1e-6)
        of_style = [style(r, t, m) for r, t, m in zip(rgb, thermal, masks)]
        content = [share * 0]
        if teacher_thermal is not None:
            content += [2 * pearson(adapt(s), t.float(), m) for adapt, s, t, m in zip(
                self.adapt_thermal, thermal, teacher_thermal, masks)]
        if teacher_rgb is not None:
            content += [2 * pearson(adapt(s), t, m * seen) for adapt, s, t, m, seen in zip(
                self.adapt_rgb, rgb, teacher_rgb.features, masks, teacher_rgb.masks)]
        return {name: (torch.stack(losses).sum(0) * share).sum() / total
                for name, losses in (('style', of_style), ('content', content))}


class GradientMatch:
    """
    Measure the gradients of terms once, and match them to that of L_det.

    With `matched`, the factor of a term is its weight times |gradient of L_det| / |its gradient|,
    root mean squares over the first STEPS measured steps that show RGB and have labels or
    pseudo-labels, of all ranks. It is 0 until then.
    """

    def __init__(self, weights: dict[str, float], matched: bool) -> None:
        self.weights = weights
        self.matched = matched
        self.state = torch.zeros(2 + len(weights), dtype=torch.double)  # steps, sums of squares

    @property
    def done(self) -> bool:
        return bool(self.state[0] >= STEPS)

    def measure(self, det: Tensor, terms: dict[str, Tensor], shared: list[Tensor]) -> None:
        """Add the gradients of a step at the shared tensors; all ranks must call this."""
        norms = [gradient_norm(term, shared) for term in (det, *terms.values())]
        squares = mean_over_ranks(torch.stack(norms).square(), 0.0).cpu().double()
        if squares[0] > 0 and (squares[1:] > 0).any():
            self.state += torch.cat([torch.ones(1), squares])

    def factor(self, name: str) -> float:
        """Return the factor of a term."""
        if not self.matched:
            return self.weights[name]
        det, own = self._norm(0), self._norm(1 + list(self.weights).index(name))
        return self.weights[name] * det / own if self.done and own > 0 else 0.0

    def lines(self) -> list[str]:
        """Return a line for each term, its gradient and its weight, once they are measured."""
        if not self.done:
            return []
        det = self._norm(0)
        return [f'coupled.{name}: gradient {self._norm(1 + i):.3g} of weight 1, L_det {det:.3g}; '
                f'weight {weight:g}' + (f', matched: factor {self.factor(name):.3g}'
                                        if self.matched else '')
                for i, (name, weight) in enumerate(self.weights.items())]

    def _norm(self, place: int) -> float:
        return float((self.state[1 + place] / self.state[0].clamp(min=1)).sqrt())
