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

import math
from typing import Any

from cgdet_core.detection.assignment import assign, Assignment, TOP_K
from cgdet_core.detection.head import cell_centers, decode_boxes
from cgdet_core.distillation.rois import boxes_of
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
    Return whether the center of each cell is in each region, (I, A).

    A region smaller than a cell counts as one cell wide, so that it always has a cell at every
    level. regions (I, 4), centers (A, 2) and strides (A, 1) as of `cell_centers`.
    """
    inside = torch.ones(len(regions), len(centers), dtype=torch.bool, device=centers.device)
    for axis in (0, 1):
        low, high = regions[:, axis, None], regions[:, axis + 2, None]
        reach = torch.maximum((high - low) / 2, strides[:, 0] / 2)
        offset = centers[:, axis] - (low + high) / 2
        inside &= (offset >= -reach) & (offset < reach)
    return inside


def detection_loss(
    logits: Tensor, distributions: Tensor, targets: list[dict[str, Any]],
    image_size: tuple[int, int], minimum: float = 1.0, top_k: int = TOP_K,
) -> dict[str, Tensor]:
    """
    Compute the terms of L_det, weighted, and their sum.

    logits (N, A, C) and distributions (N, A, 4, bins) of the head; targets: one dict per image
    with `boxes` (M, 4) x1, y1, x2, y2 in input pixels, `labels` (M,) and, if there are any,
    `ignored` (I, 4), regions whose cells are not negatives (COCO's iscrowd, objects that the
    augmentation has cut), and of pseudo-labels `scores` (M,), which are their largest soft targets
    (NaN: those of a label), and `box_weights` (M,) of their boxes; image_size (height, width);
    top_k positive cells of an object. All terms are normalized by the sum of the soft targets,
    averaged over the ranks, or `minimum` if that is more.
    Returns {'cls', 'box', 'dfl', 'det'}, scalars, float32.
    """
    logits, distributions = logits.float(), distributions.float()
    centers, strides = cell_centers(*image_size, logits.device)
    boxes = decode_boxes(distributions, centers, strides)
    gt_boxes, gt_images = boxes_of(targets)
    gt_boxes, gt_labels = gt_boxes.float(), torch.cat([target['labels'] for target in targets])
    found = assign(logits.detach().sigmoid(), boxes.detach(), centers, strides,
                   gt_boxes, gt_labels, gt_images, top_k)
    at, gt = (found.images, found.cells), gt_boxes[found.objects]
    quality = _quality(found, targets)

    soft = torch.zeros_like(logits)
    soft[found.images, found.cells, gt_labels[found.objects]] = quality
    xy, stride = centers[found.cells], strides[found.cells]
    distances = torch.cat([xy - gt[:, :2], gt[:, 2:] - xy], 1) / stride
    total = mean_over_ranks(quality.sum(), minimum)
    weights = quality * torch.cat([
        t.get('box_weights', torch.ones_like(t['boxes'][:, 0])) for t in targets])[found.objects]
    terms = {
        'cls': varifocal_loss(logits, soft, negative=_negative(targets, centers, strides)),
        'box': (generalized_box_iou_loss(boxes[at], gt) * weights).sum(),
        'dfl': (distribution_focal_loss(distributions[at], distances) * weights).sum()}
    terms = {name: WEIGHTS[name] * value / total for name, value in terms.items()}
    return {**terms, 'det': torch.stack(list(terms.values())).sum()}


def _quality(found: Assignment, targets: list[dict[str, Any]]) -> Tensor:
    """
    Return the soft targets (P,); the largest one of a pseudo-label is its score.

    Not the overlap with it, as of labels: a student that learns from itself overlaps itself, and
    would become ever more certain.
    """
    scores = torch.cat([t.get('scores', t['boxes'].new_full((len(t['boxes']),), math.nan))
                        for t in targets]).to(found.quality)
    best = torch.zeros_like(scores).scatter_reduce(0, found.objects, found.quality, 'amax')
    scores, best = scores[found.objects], best[found.objects]
    return torch.where(scores.isnan(), found.quality,
                       found.quality / best.clamp(min=1e-9) * scores)


def _negative(targets: list[dict[str, Any]], centers: Tensor, strides: Tensor) -> Tensor:
    """Return which cells may be negatives, (N, A, 1): those outside of the ignored regions."""
    negative = centers.new_ones(len(targets), len(centers), 1, dtype=torch.bool)
    none = centers.new_zeros(0, 4)
    ignored = [{'boxes': target.get('ignored', none)} for target in targets]
    regions, images = boxes_of(ignored)
    region, cells = within(regions.float(), centers, strides).nonzero(as_tuple=True)
    negative[images[region], cells] = False
    return negative
