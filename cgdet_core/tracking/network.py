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

"""The tracker's network: a trunk to stride 16, features for the filter, and the box head."""

import copy
from dataclasses import replace
from pathlib import Path

from cgdet_core.nets.blocks import ConvBlock, fold_norms
from cgdet_core.nets.pyramid import TRUNKS
from cgdet_core.nets.trunk import Trunk
from cgdet_core.runtime.tracking.card import CELLS, STRIDE, TrackingCard
from cgdet_core.runtime.tracking.filter import KERNEL
from cgdet_core.tracking.config import TrackerConfig
from cgdet_core.tracking.filter import FilterOptimizer
from cgdet_core.training.checkpoints import load_network
import torch
from torch import nn, Tensor
from torch.nn import functional

TARGET = 57.0  # input pixels, root of the area of a centered target's box
EMBEDDING = 64  # channels in which template and search are compared


class ShortTrunk(nn.Module):
    """The stem and stages of a trunk up to stride 16."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        with torch.no_grad():
            found = trunk.eval().outputs(torch.zeros(1, trunk.in_channels, 64, 64))
        trunk.train()
        sizes = [x.shape[2] for x in found]
        last = [len(sizes) - 1 - sizes[::-1].index(n) for n in (8, 4)]  # of strides 8 and 16
        self.taps = tuple(last)
        self.widths = found[last[0]].shape[1], found[last[1]].shape[1]
        self.stem = trunk.stem
        self.stages = trunk.stages[:last[1] + 1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to features at strides 8 and 16."""
        found = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found[self.taps[0]], found[self.taps[1]]


class BoxHead(nn.Module):
    """
    Find the template's target in the search features: a box and its quality for every cell.

    Every cell of the search is compared with every cell of the template (pixel-wise correlation,
    as in LightTrack, arXiv 2104.14545); the template also scales the search channels.
    """

    def __init__(self, config: TrackerConfig) -> None:
        super().__init__()
        width, tower = config.neck_channels, config.tower_channels
        self.of_template = nn.Conv2d(width, EMBEDDING, 1)
        self.of_search = nn.Conv2d(width, EMBEDDING, 1)
        self.place = nn.Parameter(0.1 * torch.randn(2, EMBEDDING))  # outside and inside the box
        self.attention = nn.Linear(width, width)
        self.shape = nn.Linear(CELLS * CELLS, tower)
        self.mix = ConvBlock(width + CELLS * CELLS, tower, 1)
        self.tower = nn.Sequential(*(ConvBlock(tower, tower) for _ in range(config.tower_depth)))
        self.out = nn.Conv2d(tower, 5, 3, padding=1)
        nn.init.normal_(self.out.weight, std=0.01)
        assert self.out.bias is not None
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -3.0]))

    def forward(self, search: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return distances (N, 4, H, W) left, top, right, bottom and quality logits (N, 1, H, W).

        search (N, C, H, W); template (N, C + 1, CELLS, CELLS). Distances are in units of half a
        centered target.
        """
        features, mask = template[:, :-1], template[:, -1:].flatten(1)
        places = torch.stack([1 - mask, mask], -1) @ self.place  # keeps its name in an export
        cells = self.of_template(features).flatten(2).transpose(1, 2) + places
        compared = self.of_search(search)
        height, width = compared.shape[2:]
        similar = (cells @ compared.flatten(2)).unflatten(2, (height, width)) / EMBEDDING ** 0.5
        inside = (features.flatten(2) * mask[:, None]).sum(2) / (mask.sum(1, keepdim=True) + 1e-3)
        scaled = search * self.attention(inside).sigmoid()[..., None, None]
        x = self.mix(torch.cat([scaled, similar], 1)) + self.shape(mask)[..., None, None]
        x = self.out(self.tower(x))
        return x[:, :4].clamp(-4, 4).exp(), x[:, 4:]


def center(features: Tensor) -> Tensor:
    """Return the central cells (N, C, CELLS, CELLS) of features (N, C, H, W)."""
    top, left = ((n - CELLS) // 2 for n in features.shape[2:])
    return features[:, :, top:top + CELLS, left:left + CELLS]


class TrackerNet(nn.Module):
    """
    Compute features of search regions, and boxes of a template's target in them.

    Regions are (N, in_channels, H, W) in [0, 1]. `optimizer` holds what the filter learns with.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TrackerConfig()
        self.backbone = ShortTrunk(TRUNKS[config.trunk](config))
        width = config.neck_channels
        fine, coarse = self.backbone.widths
        self.lateral = nn.ModuleList(ConvBlock(c, width, 1) for c in (fine, coarse))
        self.fuse = ConvBlock(width, width)
        self.classifier = nn.Sequential(
            ConvBlock(coarse, width), nn.Conv2d(width, config.feature_channels, 3, padding=1))
        self.head = BoxHead(config)
        self.optimizer = FilterOptimizer()

    def features(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return fused features (N, C, H/8, W/8), and the filter's (N, F, H/16, W/16)."""
        fine, coarse = self.backbone(regions)
        upper = functional.interpolate(self.lateral[1](coarse), scale_factor=2.0, mode='nearest')
        return self.fuse(self.lateral[0](fine) + upper), self.normalize(self.classifier(coarse))

    def normalize(self, features: Tensor) -> Tensor:
        """Scale each region's features so that what a filter sees has a norm of 1 on average."""
        square = features.float().square().mean((1, 2, 3), keepdim=True)
        length = (self.config.feature_channels * KERNEL * KERNEL) ** 0.5
        return features / (length * (square + 1e-6).sqrt()).to(features.dtype)

    @staticmethod
    def template(fused: Tensor) -> Tensor:
        """Return the template's features (N, C, CELLS, CELLS), of the regions' center."""
        return center(functional.avg_pool2d(fused, 2))

    def boxes(self, fused: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (N, 4, H, W) in pixels of the regions and quality logits (N, 1, H, W)."""
        distances, quality = self.head(fused, template)
        distances = distances.float() * (TARGET / 2)
        xs, ys = (torch.arange(n, device=fused.device).add(0.5).mul(STRIDE // 2)
                  for n in (distances.shape[3], distances.shape[2]))
        left, top, right, bottom = distances.unbind(1)
        return torch.stack([xs - left, ys[:, None] - top, xs + right, ys[:, None] + bottom],
                           1), quality


class DeployedTracker(nn.Module):
    """The deployed form, which is exported: normalization layers are folded."""

    def __init__(self, network: TrackerNet) -> None:
        super().__init__()
        self.student = copy.deepcopy(network).eval()
        del self.student.optimizer  # its values are on the card
        fold_norms(self.student)
        self.requires_grad_(False)

    def forward(self, search: Tensor, template: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features, boxes, quality and template_features, see `runtime.tracking.card`."""
        fused, features = self.student.features(search)
        boxes, quality = self.student.boxes(fused, template)
        return features, boxes, quality.sigmoid(), self.student.template(fused)


def load_tracker(path: str | Path) -> tuple[TrackerNet, TrackingCard]:
    """Build the network of a checkpoint, with its averaged weights, and its card."""
    network, card = load_network(
        path, TrackingCard, lambda _, model: TrackerNet(TrackerConfig.model_validate(model)))
    return network, replace(card, filter=network.optimizer.settings())
