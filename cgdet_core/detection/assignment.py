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
from torchvision.ops import box_area

TOP_K = 13  # positive cells of an object


class Assignment(NamedTuple):
    """The positive cells of a batch, by image and cell: for which object, and how strongly."""

    images: Tensor  # (P,) int64
    cells: Tensor  # (P,) int64
    objects: Tensor  # (P,) int64, index into the batch's objects
    quality: Tensor  # (P,) float32 in [0, 1], the soft classification target


def assign(
    scores: Tensor, boxes: Tensor, centers: Tensor, strides: Tensor,
    gt_boxes: Tensor, gt_labels: Tensor, gt_images: Tensor,
    top_k: int = TOP_K, alpha: float = 1.0, beta: float = 6.0,
) -> Assignment:
    """
    Assign each object the cells of its image whose class score and box match it best.

    Alignment t = s^alpha * u^beta, s the score of the object's class and u the IoU (TOOD,
    arXiv 2108.07755, eq. 1). The top_k candidate cells per object are positive; a cell wanted
    by several objects is assigned to the one with the larger IoU. The soft target is t rescaled so
    that its maximum per object is that object's best IoU. Candidates have their center in the
    box, a box smaller than two cells counting as two cells wide: distant people are narrower
    than a cell.

    Shapes: scores (N, A, C), boxes (N, A, 4), centers (A, 2), strides (A, 1); of the objects of
    all images gt_boxes (M, 4) in pixels, gt_labels (M,) and gt_images (M,), the image it is in.
    None requires a gradient. Only candidates are computed: a cell is one for few objects.
    """
    objects, cells = _candidates(gt_boxes, centers, strides).nonzero(as_tuple=True)
    images = gt_images[objects]
    iou = _iou(gt_boxes[objects], boxes[images, cells])
    # The 1e-9 ranks candidates by score where early boxes overlap nothing at all.
    alignment = scores[images, cells, gt_labels[objects]].pow(alpha) * (iou.pow(beta) + 1e-9)

    place = images * len(centers) + cells
    kept = _largest(alignment, objects, len(gt_boxes), top_k)
    kept = kept[_owned(iou[kept], place[kept], objects[kept], scores.shape[0] * len(centers))]
    kept = kept[place[kept].argsort()]
    objects, alignment = objects[kept], alignment[kept]
    peak_alignment, peak_iou = (
        value.new_zeros(len(gt_boxes)).scatter_reduce(0, objects, value, 'amax')[objects]
        for value in (alignment, iou[kept]))
    quality = alignment / peak_alignment.clamp(min=1e-12) * peak_iou
    return Assignment(images[kept], cells[kept], objects, quality.clamp(0, 1))


def _candidates(gt_boxes: Tensor, centers: Tensor, strides: Tensor) -> Tensor:
    """Return which cells are candidates of each object, (M, A)."""
    inside = torch.ones(len(gt_boxes), len(centers), dtype=torch.bool, device=centers.device)
    for axis in (0, 1):
        low, high = gt_boxes[:, axis, None], gt_boxes[:, axis + 2, None]
        reach = torch.maximum((high - low) / 2, strides[:, 0])
        inside &= (centers[:, axis] - (low + high) / 2).abs() < reach
    return inside


def _iou(one: Tensor, two: Tensor) -> Tensor:
    """Return the IoU of each pair of boxes, (P, 4) and (P, 4)."""
    sides = (torch.minimum(one[:, 2:], two[:, 2:])
             - torch.maximum(one[:, :2], two[:, :2])).clamp(min=0)
    common = sides.prod(1)
    return common / (box_area(one) + box_area(two) - common)


def _largest(values: Tensor, groups: Tensor, count: int, top_k: int) -> Tensor:
    """Return the indices of the top_k largest values of each group; groups (P,) are sorted."""
    sizes = groups.bincount(minlength=count)
    place = torch.arange(len(groups), device=groups.device) - (sizes.cumsum(0) - sizes)[groups]
    longest = int(sizes.max()) if count else 0
    table = values.new_full((count, longest), -1.0)
    table[groups, place] = values
    top = table.topk(min(top_k, longest), 1).indices
    chosen = torch.zeros_like(table, dtype=torch.bool).scatter_(1, top, True)
    return chosen[groups, place].nonzero()[:, 0]


def _owned(iou: Tensor, place: Tensor, objects: Tensor, places: int) -> Tensor:
    """Return which pairs have the largest IoU at their place; of equal ones, the first object."""
    best = iou.new_full((places,), -1.0).scatter_reduce(0, place, iou, 'amax')
    winner = (iou == best[place]).nonzero()[:, 0]
    none = torch.iinfo(objects.dtype).max
    first = objects.new_full((places,), none).scatter_reduce(
        0, place[winner], objects[winner], 'amin')
    return winner[first[place[winner]] == objects[winner]]
