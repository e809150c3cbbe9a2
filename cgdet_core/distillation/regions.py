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
Regions of frames without labels: what CMD (arXiv 2108.00187) cuts from RGB-thermal pairs.

A fixed region in the center, random boxes, and detections. The detections of several detectors,
or of one in both modalities, are fused; they may also serve as pseudo-labels.
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

CENTER = 0.5  # share of width and height of the fixed region; CMD states none


def center_region(size: tuple[int, int]) -> Tensor:
    """Return the fixed region (1, 4) in the center of a sample of `size` = (width, height)."""
    width, height = size
    low, high = (1 - CENTER) / 2, (1 + CENTER) / 2
    return torch.tensor([[low * width, low * height, high * width, high * height]])


def random_regions(size: tuple[int, int], count: int, side: int,
                   generator: torch.Generator) -> Tensor:
    """Return `count` random squares (count, 4) inside a sample of `size` = (width, height)."""
    limits = torch.tensor([max(0.0, float(length - side)) for length in size])
    corner = torch.rand(count, 2, generator=generator) * limits
    return torch.cat([corner, torch.minimum(corner + side, torch.tensor(size).float())], 1)


def fuse(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float,
         ) -> tuple[Tensor, Tensor, Tensor]:
    """
    Fuse boxes of one object by several detectors (weighted boxes fusion, arXiv 1910.13302).

    In the order of their scores, each box joins the fused box of its class that it overlaps most,
    with an IoU of at least `iou`, or begins a new one. A fused box is the mean of its boxes
    weighted by their scores; its score is their largest, as a detector that is silent, such as
    that of RGB by night, says nothing against an object.
    boxes (M, 4), scores (M,), labels (M,) -> the same of the F fused boxes.
    """
    device = boxes.device
    boxes, scores, labels = boxes.cpu(), scores.cpu(), labels.cpu()  # a loop of small steps
    order = scores.argsort(descending=True, stable=True)
    fused = boxes.new_zeros(0, 4)
    sums: list[Tensor] = []  # of scores and boxes times scores
    best: list[int] = []
    for index in order.tolist():
        row = torch.cat([scores[index, None], boxes[index] * scores[index]])
        overlap = (box_iou(boxes[index, None], fused)[0]
                   * (labels[best] == labels[index]) if best else fused.new_zeros(0))
        if len(overlap) and float(overlap.max()) >= iou:
            place = int(overlap.argmax())
            sums[place] = sums[place] + row
            fused[place] = sums[place][1:] / sums[place][0].clamp(min=1e-9)
        else:
            sums.append(row)
            best.append(index)
            fused = torch.cat([fused, boxes[index, None]])
    return fused.to(device), scores[best].to(device), labels[best].to(device)
