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

"""Task-aligned assignment of ground truth to cells."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou


class Assignment(NamedTuple):
    """Which cells are positive for one image, for which object, and how strongly."""

    cells: Tensor  # (P,) int64, indices of positive cells
    objects: Tensor  # (P,) int64, ground-truth index of each positive cell
    quality: Tensor  # (P,) float32 in [0, 1], the soft classification target


def assign(
    scores: Tensor, boxes: Tensor, centers: Tensor, strides: Tensor,
    gt_boxes: Tensor, gt_labels: Tensor,
    top_k: int = 13, alpha: float = 1.0, beta: float = 6.0,
) -> Assignment:
    """
    Assign each object the cells whose class score and box match it best (one image).

    Alignment t = s^alpha * u^beta, s the score of the object's class and u the IoU (TOOD,
    arXiv 2108.07755, eq. 1). The top_k candidate cells per object are positive; a cell wanted
    by several objects is assigned to the one with the larger IoU. The soft target is t rescaled so
    that its maximum per object is that object's best IoU. Candidates have their center in the
    box, a box smaller than two cells counting as two cells wide: distant people are narrower
    than a cell.

    Shapes: scores (A, C), boxes (A, 4), centers (A, 2), strides (A, 1), gt_boxes (M, 4) in
    pixels, gt_labels (M,).
    """
    if len(gt_boxes) == 0:
        none = torch.zeros(0, dtype=torch.long, device=boxes.device)
        return Assignment(none, none, none.float())
    middle = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    half = (gt_boxes[:, 2:] - gt_boxes[:, :2]) / 2
    reach = torch.maximum(half[:, None], strides[None])  # (M, A, 2)
    inside = ((centers[None] - middle[:, None]).abs() < reach).all(-1)

    iou = box_iou(gt_boxes, boxes)  # (M, A)
    # The 1e-9 ranks candidates by score where early boxes overlap nothing at all.
    alignment = scores[:, gt_labels].T.pow(alpha) * (iou.pow(beta) + 1e-9) * inside
    top = alignment.topk(min(top_k, alignment.shape[1]), dim=1).indices
    wanted = torch.zeros_like(inside).scatter_(1, top, True) & inside

    best_iou, owner = torch.where(wanted, iou, -1.0).max(0)
    cells = torch.nonzero(best_iou >= 0).squeeze(1)
    objects = owner[cells]
    chosen = torch.zeros_like(wanted)
    chosen[objects, cells] = True
    alignment = alignment * chosen
    peak_alignment = alignment.amax(1, keepdim=True).clamp(min=1e-12)
    peak_iou = (iou * chosen).amax(1, keepdim=True)
    quality = (alignment / peak_alignment * peak_iou)[objects, cells]
    return Assignment(cells, objects, quality.clamp(0, 1))
