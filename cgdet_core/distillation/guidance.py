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

"""CMG: an RGB teacher's features guide the thermal student's."""

from typing import Any, Literal, NamedTuple

from cgdet_core.distillation.objectives import OBJECTIVES
from cgdet_core.distillation.rois import boxes_of, levels_of, pool_level
from cgdet_core.distillation.schedule import ScheduledLoss
from cgdet_core.distillation.teachers import TeacherConfig
from cgdet_core.nets.neck import STRIDES
from cgdet_core.training.ranks import mean_over_ranks
from pydantic import Field, field_validator
import torch
from torch import nn, Tensor


class GuidanceConfig(ScheduledLoss):
    """Say how CMG works; weights, levels and objective are our choice, the paper gives none."""

    teacher: TeacherConfig
    weight: float = Field(5.0, ge=0)  # lambda_cms
    objective: str = 'pearson'
    over: Literal['pyramid', 'roi', 'both'] = 'pyramid'
    unpaired: Literal['skip', 'thermal'] = 'skip'  # thermal: teacher sees the frame itself
    roi_size: int = Field(3, gt=0)  # cells of a pooled region's side

    @field_validator('objective')
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in OBJECTIVES:
            raise ValueError(f'must be one of {", ".join(OBJECTIVES)}')
        return value


class Guide(NamedTuple):
    """What the teacher sees of a batch, on the student's cells."""

    features: list[Tensor]  # P3, P4, P5: (N, C_l, H/stride, W/stride)
    masks: list[Tensor]  # (N, 1, H/stride, W/stride): 1 where the features are real


class Guidance(nn.Module):
    """
    Compute L_cms; exists in training only.

    Per level a 1x1 convolution adapts the student's features to the teacher's width, then the
    objective compares them over the whole pyramid (the paper's abstract), over the regions of
    the objects (its figure 2), or both. Images count by the share of their area that RGB covers.
    """

    def __init__(
        self, channels: int, teacher_channels: tuple[int, ...], config: GuidanceConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.adapt = nn.ModuleList(nn.Conv2d(channels, c, 1) for c in teacher_channels)

    def forward(
        self, pyramid: list[Tensor], guide: Guide | None, targets: list[dict[str, Any]],
    ) -> Tensor:
        """
        Return L_cms, a scalar.

        pyramid: P3, P4, P5 of the student, (N, channels, H/stride, W/stride); guide: None where
        no image has RGB; targets: per image `boxes` (M, 4) in input pixels. Every rank must call
        this, guided or not.
        """
        adapted = [adapt(level.float()) for adapt, level in zip(self.adapt, pyramid)
                   if guide is not None]
        loss = torch.zeros((), device=pyramid[0].device)
        if self.config.over != 'roi':
            loss = loss + self._over_pyramid(adapted, guide)
        if self.config.over != 'pyramid':
            loss = loss + self._over_regions(adapted, guide, targets)
        return loss

    def _over_pyramid(self, adapted: list[Tensor], guide: Guide | None) -> Tensor:
        objective = OBJECTIVES[self.config.objective]
        if guide is None:
            return mean_over_ranks(torch.zeros((), device=self._device()), 1e-6) * 0
        share = guide.masks[0].mean((1, 2, 3))
        total = mean_over_ranks(share.sum(), 1e-6)
        losses = [(objective(s, t, m) * share).sum() / total
                  for s, t, m in zip(adapted, guide.features, guide.masks)]
        return torch.stack(losses).mean()

    def _over_regions(
        self, adapted: list[Tensor], guide: Guide | None, targets: list[dict[str, Any]],
    ) -> Tensor:
        objective = OBJECTIVES[self.config.objective]
        if guide is None:
            return mean_over_ranks(torch.zeros((), device=self._device()), 1.0) * 0
        boxes, images = boxes_of(targets)
        levels = levels_of(boxes)
        seen = _under(guide.masks, boxes, images, levels)
        boxes, images, levels = boxes[seen], images[seen], levels[seen]
        loss = adapted[0].sum() * 0
        for level, (s, t) in enumerate(zip(adapted, guide.features)):
            mine = levels == level
            if bool(mine.any()):
                where = boxes[mine], images[mine], level, self.config.roi_size
                ones = torch.ones(int(mine.sum()), 1, 1, 1, device=boxes.device)
                regions = pool_level(s, *where), pool_level(t, *where)
                loss = loss + objective(*regions, ones.expand(-1, 1, *regions[0].shape[2:])).sum()
        count = torch.tensor(float(len(boxes)), device=boxes.device)
        return loss / mean_over_ranks(count, 1.0)

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def _under(masks: list[Tensor], boxes: Tensor, images: Tensor, levels: Tensor) -> Tensor:
    """Say for each box whether the mask of its level is set at its center."""
    seen = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for level, (mask, stride) in enumerate(zip(masks, STRIDES)):
        mine = levels == level
        center = ((boxes[mine, :2] + boxes[mine, 2:]) / 2 / stride).long()
        x = center[:, 0].clamp(0, mask.shape[3] - 1)
        y = center[:, 1].clamp(0, mask.shape[2] - 1)
        seen[mine] = mask[images[mine], 0, y, x] > 0
    return seen
