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

"""Regions of interest: features of boxes from a pyramid."""

from typing import Any

from cgdet_core.nets.pyramid import STRIDES
import torch
from torch import Tensor
from torchvision.ops import roi_align

# Boxes of 64 to 128 pixels (geometric mean of the sides) belong to P4, smaller ones to P3,
# larger ones to P5: our choice, by the level rule of FPN (arXiv 1612.03144, eq. 1). The detection
# loss assigns levels by alignment instead; the two are independent.
SMALLEST_OF_P4 = 64


def boxes_of(targets: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Return the boxes (M, 4) of all images and the image (M,) each is in."""
    boxes = torch.cat([t['boxes'] for t in targets])
    counts = torch.tensor([len(t['boxes']) for t in targets], device=boxes.device)
    return boxes, torch.arange(len(targets), device=boxes.device).repeat_interleave(counts)


def levels_of(boxes: Tensor) -> Tensor:
    """Return the level (0, 1, 2: P3, P4, P5) that each box (M, 4) belongs to (FPN, eq. 1)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    octave = torch.log2(sides.prod(1).sqrt() / SMALLEST_OF_P4).floor() + 1
    return octave.clamp(0, len(STRIDES) - 1).long()


def pool_level(features: Tensor, boxes: Tensor, images: Tensor, level: int, size: int) -> Tensor:
    """
    Pool boxes from one level by RoIAlign (arXiv 1703.06870).

    features (N, C, H/stride, W/stride), boxes (M, 4) x1, y1, x2, y2 in input pixels, images (M,)
    the image each box is in. Returns (M, C, size, size), float32.
    """
    rois = torch.cat([images[:, None].float(), boxes.float()], 1)
    return roi_align(features.float(), rois, size, 1 / STRIDES[level], 2, aligned=True)


def pool_rois(pyramid: list[Tensor], boxes: Tensor, images: Tensor, size: int) -> Tensor:
    """Pool each box from its own level, see `pool_level`; the levels are of equal width C."""
    pooled = torch.zeros(len(boxes), pyramid[0].shape[1], size, size, device=boxes.device)
    of = levels_of(boxes)
    for level, features in enumerate(pyramid):
        index = (of == level).nonzero()[:, 0]
        regions = pool_level(features, boxes[index], images[index], level, size)
        pooled = pooled.index_add(0, index, regions)
    return pooled


def jitter_boxes(boxes: Tensor, copies: int, amount: float, generator: torch.Generator) -> Tensor:
    """
    Return the boxes (M, 4) and `copies` moved and scaled versions of each: (M * (1 + copies), 4).

    Center and size of a copy differ by up to `amount` of the box's size. Each box is followed by
    its copies. The generator is on the CPU, so that every device draws the same.
    """
    noise = torch.rand(len(boxes), copies, 4, generator=generator).to(boxes.device)
    noise = (2 * noise - 1) * amount
    size = (boxes[:, 2:] - boxes[:, :2])[:, None]
    center = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None] + noise[..., :2] * size
    half = size * (1 + noise[..., 2:]) / 2
    moved = torch.cat([center - half, center + half], -1)
    return torch.cat([boxes[:, None], moved], 1).flatten(0, 1)
