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

"""CKD's losses: of the tracked box, of both students' style, and of their teachers' content."""

from collections.abc import Sequence
from typing import NamedTuple

from cgdet_core.distillation.objectives import Objective, pearson, style
from cgdet_core.runtime.tracking.card import CELLS, STRIDE
from cgdet_core.tracking.rgbt.transformer import Encoded, pick
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

NEAR = 0.3  # label from which on a cell's box is trained


class TrackLoss(NamedTuple):
    """The parts of L_track, scalars."""

    giou: Tensor
    l1: Tensor
    focal: Tensor


def center_labels(truth: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Return Gaussian labels (N, H, W), 1 in the cell that holds the center of a box (N, 4)."""
    cell = ((truth[:, :2] + truth[:, 2:]) / (2 * STRIDE)).floor()
    xs, ys = (torch.arange(n, device=truth.device) for n in (width, height))
    x, y = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    square = (xs - x[:, None]).square()[:, None, :] + (ys - y[:, None]).square()[:, :, None]
    return torch.exp(-square / (2 * sigma ** 2))


def focal_loss(score: Tensor, labels: Tensor) -> Tensor:
    """
    Return CenterNet's focal loss (N,) of logits and labels (N, H, W), one of which is 1.

    -(1 - p)^2 log p where the label y is 1, elsewhere -(1 - y)^4 p^2 log(1 - p).
    """
    p = score.sigmoid()
    positive = labels == 1
    hit = (1 - p).square() * functional.logsigmoid(score)
    miss = (1 - labels) ** 4 * p.square() * functional.logsigmoid(-score)
    return -torch.where(positive, hit, miss).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1)


def track_loss(score: Tensor, boxes: Tensor, truth: Tensor, sigma: float,
               weights: Tensor | None = None) -> TrackLoss:
    """
    Return the parts of L_track of a batch.

    score (N, 1, H, W) and boxes (N, 4, H, W); truth (N, 4). Boxes count near the target's center,
    by their labels; L1 is relative to the region's width. weights (N,): of the samples, by default
    1; their sum may be 0.
    """
    score = score[:, 0].float()
    height, width = score.shape[1:]
    labels = center_labels(truth, height, width, sigma)
    weights = truth.new_ones(len(truth)) if weights is None else weights
    total = weights.sum().clamp(min=1e-6)
    share = torch.where(labels >= NEAR, labels, 0.0)
    share = share / share.sum((1, 2), keepdim=True) * weights[:, None, None]
    found = boxes.permute(0, 2, 3, 1).float()
    wanted = truth[:, None, None].expand_as(found)
    giou = generalized_box_iou_loss(found, wanted, reduction='none')
    l1 = (found - wanted).abs().mean(3) / (width * STRIDE)
    return TrackLoss((giou * share).sum() / total, (l1 * share).sum() / total,
                     (focal_loss(score, labels) * weights).sum() / total)


def style_loss(levels: Sequence[Tensor], shown: Tensor) -> Tensor:
    """
    Return L_SD: mean and deviation per channel of both students' tokens, after each block.

    levels (2, N, L, C); shown (N,): 1 for samples that show RGB, which alone take part.
    """
    found = [_over_tokens(style, level[1], level[0]) for level in levels]
    return (torch.stack(found).sum(0) * shown).sum() / shown.sum().clamp(min=1e-6)


def content_loss(students: Encoded, teachers: Sequence[Encoded], shown: Tensor) -> Tensor:
    """
    Return L_CD: the mean squared difference of students' and teachers' standardized tokens.

    teachers: of thermal and of RGB, (1, N, L, C), which keep all tokens: those that the students
    kept are compared. The mean squared difference of standardized values is 2 (1 - r).
    """
    total = shown.sum().clamp(min=1e-6)
    losses = []
    for depth, (level, places) in enumerate(zip(students.levels, students.places)):
        for number, teacher in enumerate(teachers):
            tokens = teacher.levels[depth][0].detach()
            first = CELLS * CELLS
            tokens = torch.cat([tokens[:, :first], pick(tokens[:, first:], places)], 1)
            each = 2 * _over_tokens(pearson, level[number], tokens)
            losses.append(each.mean() if number == 0 else (each * shown).sum() / total)
    return torch.stack(losses).sum()


def _over_tokens(compare: Objective, one: Tensor, other: Tensor) -> Tensor:
    """Return what an objective says (N,) of tokens (N, L, C), its positions being the tokens."""
    one, other = (x.float().transpose(1, 2)[..., None] for x in (one, other))
    mask = one.new_ones(len(one), 1, one.shape[2], 1)
    return compare(one, other, mask)
