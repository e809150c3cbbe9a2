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
CMG: an RGB teacher's features guide the thermal student's (CGDet, arXiv 2511.01435).

The paper calls the loss L_cms and its module CMG. Recipe, log and code use cmg for both. S_ln is
level l of the student's pyramid for image n, A_l a 1x1 convolution to the teacher's width, T_ln
the teacher's features at the student's cells, and d one of the `objectives`. Each channel of T_ln
has unit scale (see `scales`), unless d standardizes features itself. The mask M_ln is 1 at cells
for which the teacher has seen a picture: RGB, or the thermal frame if `unpaired` says so.

Over the pyramid (the paper's abstract), where a_n is the mean of M_{P3,n}:

    L_cms = 1/3 sum_l ( sum_n a_n d(A_l(S_ln), T_ln, M_ln) / sum_n a_n )

Over the regions of the objects (its figure 2), where B are the boxes whose center is at a cell
with M = 1, the size of box b selects its level l, and the mask is 1 in the whole region:

    L_cms = 1/|B| sum_{b in B} d(RoIAlign(A_l(S_l), b), RoIAlign(T_l, b), 1)

Here S and T are standardized, if d does so, over the cells of all boxes of a level, of all ranks,
as the few cells of one region have no statistics.

`both` is the sum of the two. Numerators and denominators are sums over all ranks
(`mean_over_ranks`, `gather_rows`). The loss is 0 if the teacher has seen no picture of the batch.
"""

from typing import Any

from cgdet_core.distillation.config import GuidanceConfig
from cgdet_core.distillation.guide import TeacherPyramid
from cgdet_core.distillation.objectives import BATCH, objective_of
from cgdet_core.distillation.rois import boxes_of, levels_of, pool_level
from cgdet_core.nets.pyramid import STRIDES
from cgdet_core.training.ranks import gather_rows, mean_over_ranks
import torch
from torch import nn, Tensor


class Guidance(nn.Module):
    """Compute L_cms; channels: width of the student's levels; teacher_channels: of P3, P4, P5."""

    def __init__(self, channels: int, teacher_channels: tuple[int, ...],
                 config: GuidanceConfig) -> None:
        super().__init__()
        self.config = config
        self.objective = objective_of(config.objective)
        self.objective_of_regions = objective_of(config.objective, BATCH)
        self.adapt = nn.ModuleList(nn.Conv2d(channels, c, 1) for c in teacher_channels)

    def forward(self, pyramid: list[Tensor], teacher: TeacherPyramid | None,
                targets: list[dict[str, Any]]) -> Tensor:
        """
        Return L_cms, a scalar.

        pyramid: P3, P4, P5 of the student, (N, channels, H/stride, W/stride); teacher: None if it
        has seen no picture of the batch; targets: per image `boxes` (M, 4) in input pixels.
        Every rank must call this in every step, as the ranks exchange normalizers.
        """
        adapted = [adapt(level.float()) for adapt, level in zip(self.adapt, pyramid)]
        loss = torch.zeros((), device=pyramid[0].device)
        if self.config.over != 'roi':
            loss = loss + self._over_pyramid(adapted, teacher)
        if self.config.over != 'pyramid':
            loss = loss + self._over_regions(adapted, teacher, targets)
        return loss

    def _over_pyramid(self, adapted: list[Tensor], teacher: TeacherPyramid | None) -> Tensor:
        if teacher is None:
            nothing = torch.zeros((), device=adapted[0].device)
            mean_over_ranks(nothing, 1.0)
            return nothing
        share = teacher.masks[0].mean((1, 2, 3))
        total = mean_over_ranks(share.sum(), 1e-6)
        losses = [(self.objective(s, t, m) * share).sum() / total
                  for s, t, m in zip(adapted, teacher.features, teacher.masks)]
        return torch.stack(losses).mean()

    def _over_regions(self, adapted: list[Tensor], teacher: TeacherPyramid | None,
                      targets: list[dict[str, Any]]) -> Tensor:
        boxes, images = boxes_of(targets)
        levels = levels_of(boxes)
        seen = (torch.zeros_like(levels, dtype=torch.bool) if teacher is None
                else _under(teacher.masks, boxes, images, levels))
        loss, count = torch.zeros((), device=boxes.device), 0
        for level, s in enumerate(adapted):
            mine = seen & (levels == level)
            where = boxes[mine], images[mine], level, self.config.roi_size
            t = s.detach() if teacher is None else teacher.features[level]
            # Every rank has the regions of all ranks, and then computes the same loss.
            of_student, of_teacher = (gather_rows(pool_level(x, *where)) for x in (s, t))
            everywhere = torch.ones_like(of_teacher[:, :1])
            loss = loss + self.objective_of_regions(of_student, of_teacher, everywhere).sum()
            count += len(of_student)
        return loss / max(1, count)


def _under(masks: list[Tensor], boxes: Tensor, images: Tensor, levels: Tensor) -> Tensor:
    """Return for each box whether the mask of its level is set at its center."""
    seen = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for level, (mask, stride) in enumerate(zip(masks, STRIDES)):
        mine = levels == level
        center = ((boxes[mine, :2] + boxes[mine, 2:]) / 2 / stride).long()
        x = center[:, 0].clamp(0, mask.shape[3] - 1)
        y = center[:, 1].clamp(0, mask.shape[2] - 1)
        seen[mine] = mask[images[mine], 0, y, x] > 0
    return seen
