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

"""The losses of a tracker: of the filter's scores, and of the box head."""

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

POSITIVE = 0.3  # cells this close to the center, in widths and heights of the box, are positive


def score_labels(centers: Tensor, size: int, sigma: float) -> Tensor:
    """Return Gaussian labels (N, size, size) around centers (N, 2), in cells."""
    places = torch.arange(size, device=centers.device)
    x, y = ((centers[:, i, None] - places).square() for i in (0, 1))
    return torch.exp(-(x[:, None, :] + y[:, :, None]) / (2 * sigma ** 2))


def score_loss(scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """
    Return L_cls, the mean of DiMP's hinge-like residual, squared.

    Where the label is above the threshold the score is to be the label, elsewhere at most 0.
    """
    residual = torch.where(labels > threshold, scores - labels, scores.clamp(min=0))
    return residual.square().mean()


def box_loss(boxes: Tensor, quality: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """
    Return L_bb of a batch, and its parts: generalized IoU, L1 and quality.

    boxes (N, 4, H, W) and quality logits (N, 1, H, W) at cells; truth (N, 4). The quality of a
    cell near the target's center is to be the overlap of its box with the truth, elsewhere 0.
    """
    quality = quality[:, 0].float()
    height, width = quality.shape[1:]
    stride = 8
    xs, ys = (torch.arange(n, device=truth.device).add(0.5).mul(stride) for n in (width, height))
    center, size = (truth[:, :2] + truth[:, 2:]) / 2, (truth[:, 2:] - truth[:, :2]).clamp(min=1)
    # A target of few cells has at least those next to its center.
    reach = (POSITIVE * size).clamp(min=stride)
    near = (((xs - center[:, :1]).abs() < reach[:, :1])[:, None, :]
            & ((ys - center[:, 1:]).abs() < reach[:, 1:])[:, :, None])
    count = near.sum().clamp(min=1)
    found = boxes.permute(0, 2, 3, 1)[near]
    wanted = truth[:, None, None].expand(-1, height, width, -1)[near]
    root = size.prod(1).sqrt()[:, None, None].expand(-1, height, width)[near]
    giou = generalized_box_iou_loss(found, wanted, reduction='none')
    distance = ((found - wanted).abs().mean(1) / root).clamp(max=4)
    target = torch.zeros_like(quality)
    # 1 - GIoU is at least 1 - IoU; for boxes that overlap well they are the same.
    target[near] = (1 - giou.detach()).clamp(0, 1)
    probability = quality.sigmoid()
    focus = (target - probability).detach().abs()
    fit = functional.binary_cross_entropy_with_logits(quality, target, reduction='none')
    fit = (focus * fit).sum() / count
    mean = giou.sum() / count
    return 2 * mean + distance.sum() / count + fit, {
        'giou': mean.detach(), 'quality': fit.detach()}
