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

"""The RGB-T tracker's network: a trunk for each modality, the transformer, and the center head."""

from collections.abc import Sequence
import copy
from pathlib import Path
from typing import NamedTuple

from cgdet_core.nets.blocks import ConvBlock, fold_norms
from cgdet_core.nets.pyramid import TRUNKS
from cgdet_core.runtime.tracking.card import CELLS, STRIDE
from cgdet_core.runtime.tracking.rgbt import RgbtCard
from cgdet_core.tracking.network import ShortTrunk, TARGET
from cgdet_core.tracking.rgbt.config import RgbtConfig
from cgdet_core.tracking.rgbt.transformer import Encoded, Encoder
from cgdet_core.training.checkpoints import load_network
import torch
from torch import nn, Tensor

THERMAL, RGB = 'thermal', 'rgb'
CHANNELS = {THERMAL: 1, RGB: 3}


class Found(NamedTuple):
    """
    What the network finds in search regions.

    score (N, 1, H, W): logits that the target's center is in the cell; boxes (N, 4, H, W): x1,
    y1, x2, y2 in pixels of the regions; encoded: see `Encoded`.
    """

    score: Tensor
    boxes: Tensor
    encoded: Encoded


class CenterHead(nn.Module):
    """Score, offset and size of a target whose center is in a cell (arXiv 1904.07850)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.tower = nn.Sequential(ConvBlock(width, channels), ConvBlock(channels, channels))
        self.out = nn.Conv2d(channels, 5, 3, padding=1)
        nn.init.normal_(self.out.weight, std=0.01)
        with torch.no_grad():
            assert self.out.bias is not None
            self.out.bias.copy_(torch.tensor([-4.0, 0, 0, 0, 0]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return score logits (N, 1, H, W) and boxes (N, 4, H, W) of features (N, C, H, W)."""
        x = self.out(self.tower(x)).float()
        # A center may be in a neighboring cell: offsets from the cell's corner are in (-1, 2).
        place = 0.5 + 1.5 * x[:, 1:3].tanh()
        half = x[:, 3:].clamp(-4, 4).exp() * (TARGET / 2)
        rows, columns = (torch.arange(n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
        corner = torch.stack(torch.meshgrid(columns, rows, indexing='xy'))
        center = (corner + place) * STRIDE
        return x[:, :1], torch.cat([center - half, center + half], 1)


class RgbtNet(nn.Module):
    """
    Find a template's target in search regions of one modality, a teacher, or of both.

    Features of a modality are (N, width, H/16, W/16); those of a template are the central CELLS
    of its region's.
    """

    def __init__(self, config: RgbtConfig | None = None,
                 modalities: Sequence[str] = (THERMAL, RGB)) -> None:
        super().__init__()
        self.config = config = config or RgbtConfig()
        self.modalities = tuple(modalities)
        trunks = {name: ShortTrunk(TRUNKS[config.trunk](config.model_copy(
            update={'in_channels': CHANNELS[name]}))) for name in modalities}
        width, count = config.width, len(self.modalities)
        self.backbone = nn.ModuleDict(trunks)
        self.embed = nn.ModuleDict({name: nn.Conv2d(trunk.widths[1], width, 1)
                                    for name, trunk in trunks.items()})
        # Added to the tokens of the template and to those of the search region.
        self.of_template = nn.Parameter(0.02 * torch.randn(width))
        self.of_search = nn.Parameter(0.02 * torch.randn(width))
        self.inside = nn.Parameter(0.02 * torch.randn(width))  # of the target's box
        self.missing = nn.Parameter(0.02 * torch.randn(width))  # RGB that is not known
        self.encoder = Encoder(count, width, config.blocks, config.heads, config.eliminate,
                               config.keep)
        self.head = CenterHead(count * width, config.head_channels)

    def trunk(self, name: str) -> ShortTrunk:
        """Return the trunk of a modality."""
        found = self.backbone[name]
        assert isinstance(found, ShortTrunk)
        return found

    def begin_as(self, network: 'RgbtNet') -> None:
        """Load the weights of a network of more modalities, of each what belongs to these."""
        weights = network.state_dict()
        for name, own in self.state_dict().items():
            if weights[name].shape != own.shape:
                axis = [a == b for a, b in zip(own.shape, weights[name].shape)].index(False)
                parts = weights[name].chunk(len(network.modalities), axis)
                weights[name] = torch.cat(
                    [parts[network.modalities.index(m)] for m in self.modalities], axis)
        self.load_state_dict({name: weights[name] for name in self.state_dict()})

    def features(self, name: str, regions: Tensor) -> Tensor:
        """Return a modality's features of regions (N, 1 or 3, H, W) in [0, 1]."""
        found: Tensor = self.embed[name](self.backbone[name](regions)[1])
        return found

    def forward(self, templates: Sequence[Tensor], searches: Sequence[Tensor], mask: Tensor,
                shown: Tensor | None = None, visible: Tensor | None = None,
                eliminate: bool = True) -> Found:
        """
        Find the target by features of each modality.

        templates (N, C, CELLS, CELLS); searches (N, C, H, W); mask (N, 1, CELLS, CELLS): share of
        each cell that the target's box covers. shown (N,): 1 where RGB is known, otherwise 0;
        visible (N, 1, H, W): 0 in search cells that are hidden, from all modalities.
        """
        height, width = searches[0].shape[2:]
        search = torch.stack([x.flatten(2).transpose(1, 2) for x in searches])
        template = torch.stack([x.flatten(2).transpose(1, 2) for x in templates])
        if visible is not None:
            search = search * visible.flatten(2).transpose(1, 2)
        present = search.new_ones(search.shape[:2])
        if shown is not None and len(searches) > 1:
            present = torch.stack([present[0], shown.to(present)])
        gap = (1 - present)[..., None, None] * self.missing
        search = search * present[..., None, None] + gap
        template = template * present[..., None, None] + gap
        search = search + positions(search, height, width) + self.of_search
        template = (template + positions(template, CELLS, CELLS) + self.of_template
                    + mask.flatten(2).transpose(1, 2) * self.inside)
        encoded = self.encoder(template, search, present, eliminate)
        fused = torch.cat([*encoded.search], 2).transpose(1, 2).unflatten(2, (height, width))
        score, boxes = self.head(fused)
        return Found(score, boxes, encoded)


def positions(like: Tensor, height: int, width: int) -> Tensor:
    """
    Return sines and cosines (H * W, C) of the cells' distances from the region's center.

    Regions of all sizes have the same at their centers.
    """
    channels = like.shape[-1] // 4
    rates = 64.0 ** (-torch.arange(channels, device=like.device, dtype=like.dtype) / channels)
    parts = []
    for length in (height, width):
        place = torch.arange(length, device=like.device, dtype=like.dtype) - (length - 1) / 2
        angle = place[:, None] * rates
        parts.append(torch.cat([angle.sin(), angle.cos()], 1))
    rows = parts[0][:, None].expand(height, width, -1)
    columns = parts[1][None].expand(height, width, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)


class DeployedRgbt(nn.Module):
    """The deployed form, which is exported: normalization layers are folded."""

    def __init__(self, network: RgbtNet) -> None:
        super().__init__()
        self.student = copy.deepcopy(network).eval()
        fold_norms(self.student)
        self.requires_grad_(False)

    def forward(self, search: Tensor, rgb: Tensor, template: Tensor, rgb_template: Tensor,
                mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores, boxes, features and rgb_features, see `runtime.tracking.rgbt`."""
        known = (rgb.amax((1, 2, 3)) > 0) & (rgb_template.abs().amax((1, 2, 3)) > 0)
        features = [self.student.features(name, image)
                    for name, image in ((THERMAL, search), (RGB, rgb))]
        found = self.student((template, rgb_template), features, mask, known.to(search.dtype))
        return found.score.sigmoid(), found.boxes, *features


def load_rgbt(path: str | Path) -> tuple[RgbtNet, RgbtCard]:
    """Build the network of a checkpoint, with its averaged weights, and its card."""
    return load_network(
        path, RgbtCard, lambda _, model: RgbtNet(RgbtConfig.model_validate(model)))
