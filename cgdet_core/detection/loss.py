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

"""Detection loss L_det: classification, box overlap and box distribution."""

from typing import Any

from cgdet_core.detection.assignment import assign
from cgdet_core.detection.head import cell_centers, decode_boxes
from cgdet_core.training.ranks import mean_over_ranks
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

# Weights of the three terms as in PP-YOLOE (arXiv 2203.16250, section 2.2).
WEIGHTS = {'cls': 1.0, 'box': 2.5, 'dfl': 0.5}


def varifocal_loss(
    logits: Tensor, targets: Tensor, alpha: float = 0.75, negative: Tensor | None = None,
) -> Tensor:
    """
    Sum the varifocal classification loss (arXiv 2008.13367, eq. 2 with gamma = 2).

    Positives (target q > 0) have the weight q, negatives alpha * p^2; shapes equal, float32.
    negative, of a shape that expands to theirs: false where a cell is not a negative either.
    """
    weight = alpha * logits.detach().sigmoid().square()
    if negative is not None:
        weight = weight * negative
    weight = torch.where(targets > 0, targets, weight)
    return (functional.binary_cross_entropy_with_logits(
        logits, targets, reduction='none') * weight).sum()


def distribution_focal_loss(distributions: Tensor, distances: Tensor) -> Tensor:
    """
    Return the distribution focal loss per box (GFL, arXiv 2006.04388, eq. 6).

    distributions (P, 4, bins) logits, distances (P, 4) in units of the stride; returns (P,),
    the mean over the four sides. Distances beyond the last bin are clipped to it.
    """
    target = distances.clamp(0, distributions.shape[-1] - 1 - 1e-3)
    left = target.floor()
    upper = target - left
    log_p = functional.log_softmax(distributions, -1)
    at_left = log_p.gather(-1, left.long()[..., None]).squeeze(-1)
    at_right = log_p.gather(-1, left.long()[..., None] + 1).squeeze(-1)
    return -((1 - upper) * at_left + upper * at_right).mean(-1)


def within(regions: Tensor, centers: Tensor, strides: Tensor) -> Tensor:
    """
    Return for each cell (A,) whether its center is in any of the regions (I, 4).

    A region smaller than a cell counts as one cell wide, so that it always has a cell at every
    level. centers (A, 2) and strides (A, 1) as of `cell_centers`.
    """
    middle = (regions[:, :2] + regions[:, 2:]) / 2
    reach = torch.maximum((regions[:, 2:] - regions[:, :2]) / 2, strides[:, None] / 2)  # (A, I, 2)
    offset = centers[:, None] - middle
    return ((offset >= -reach) & (offset < reach)).all(-1).any(1)


def detection_loss(
    logits: Tensor, distributions: Tensor, targets: list[dict[str, Any]],
    image_size: tuple[int, int],
) -> dict[str, Tensor]:
    """
    Compute the terms of L_det, weighted, and their sum.

    logits (N, A, C) and distributions (N, A, 4, bins) of the head; targets: one dict per image
    with `boxes` (M, 4) x1, y1, x2, y2 in input pixels, `labels` (M,) and, if there are any,
    `ignored` (I, 4), regions whose cells are not negatives (COCO's iscrowd, objects that the
    augmentation has cut); image_size (height, width). All terms are normalized by the sum of the soft targets, averaged over the ranks.
    Returns {'cls', 'box', 'dfl', 'det'}, scalars, float32.
    """
    logits, distributions = logits.float(), distributions.float()
    centers, strides = cell_centers(*image_size, logits.device)
    boxes = decode_boxes(distributions, centers, strides)
    scores = logits.detach().sigmoid()

    soft = torch.zeros_like(logits)
    negative = torch.ones_like(logits[..., :1], dtype=torch.bool)
    predicted, wanted, raw, points, scale, weight = [], [], [], [], [], []
    for n, target in enumerate(targets):
        gt_boxes, gt_labels = target['boxes'].float(), target['labels']
        found = assign(scores[n], boxes[n].detach(), centers, strides, gt_boxes, gt_labels)
        soft[n, found.cells, gt_labels[found.objects]] = found.quality
        if 'ignored' in target:
            negative[n, :, 0] = ~within(target['ignored'].float(), centers, strides)
        predicted.append(boxes[n, found.cells])
        raw.append(distributions[n, found.cells])
        wanted.append(gt_boxes[found.objects])
        points.append(centers[found.cells])
        scale.append(strides[found.cells])
        weight.append(found.quality)

    gt, xy, stride, quality = map(torch.cat, (wanted, points, scale, weight))
    total = mean_over_ranks(quality.sum(), 1.0)
    distances = torch.cat([xy - gt[:, :2], gt[:, 2:] - xy], 1) / stride
    terms = {
        'cls': varifocal_loss(logits, soft, negative=negative),
        'box': (generalized_box_iou_loss(torch.cat(predicted), gt) * quality).sum(),
        'dfl': (distribution_focal_loss(torch.cat(raw), distances) * quality).sum()}
    terms = {name: WEIGHTS[name] * value / total for name, value in terms.items()}
    return {**terms, 'det': torch.stack(list(terms.values())).sum()}
