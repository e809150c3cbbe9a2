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
A transformer of template and search tokens whose weights both modalities share, not their norms.

Tokens are (M, B, L, C), M modalities; the template's come first. In one stream template and
search attend to each other, as in OSTrack (arXiv 2203.11991).
"""

import math
from typing import NamedTuple

from cgdet_core.runtime.tracking.card import CELLS
import torch
from torch import nn, Tensor
from torch.nn import functional

MIDDLE = 2  # template cells in both directions whose attention ranks the search tokens


class Encoded(NamedTuple):
    """
    What the transformer says.

    search (M, B, N, C): tokens of all cells, 0 where they were dropped. levels: the tokens
    (M, B, L, C) after each block; places: for each, the search cells (B, K) they are of.
    """

    search: Tensor
    levels: list[Tensor]
    places: list[Tensor]


class ModalNorm(nn.Module):
    """Layer normalization with its own scale and shift for each modality."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(modalities, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(modalities, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class Block(nn.Module):
    """Attention within a modality and two layers for each token."""

    def __init__(self, modalities: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = ModalNorm(modalities, width), ModalNorm(modalities, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        last = nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), last)
        for layer in (self.project, last):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens, and how much the template's middle attends to each search token."""
        modalities, batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(
            modalities * batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.project(mixed.transpose(1, 2).reshape(x.shape))
        looks = middle_attention(query, key).reshape(modalities, batch, -1)
        return x + self.mlp(self.norm2(x)), looks


def middle_attention(query: Tensor, key: Tensor) -> Tensor:
    """
    Return the attention (N, K) of the template's middle cells to the K search tokens.

    query, key (N, heads, L, c), of which the first CELLS^2 are the template's. The softmax is
    over all tokens; the mean is over heads and middle cells.
    """
    low = (CELLS - MIDDLE) // 2
    cells = torch.arange(CELLS * CELLS, device=query.device).reshape(CELLS, CELLS)
    middle = cells[low:low + MIDDLE, low:low + MIDDLE].flatten()
    weights = query[:, :, middle] @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    return weights.softmax(3)[..., CELLS * CELLS:].mean((1, 2))


def kept_tokens(looks: Tensor, present: Tensor, keep: float) -> Tensor:
    """
    Return the numbers (B, K) of the search tokens that stay in all modalities.

    looks (M, B, N): attention to them, of which the largest of the modalities counts; present
    (M, B): 0 for a modality that a sample does not have.
    """
    count = math.ceil(keep * looks.shape[2])
    return (looks * present[..., None]).amax(0).topk(count, dim=1).indices


def pick(tokens: Tensor, places: Tensor) -> Tensor:
    """Return the tokens (..., B, K, C) at places (B, K) of tokens (..., B, N, C)."""
    index = places[..., None].expand(*tokens.shape[:-2], places.shape[1], tokens.shape[-1])
    return tokens.gather(-2, index)


class Encoder(nn.Module):
    """Blocks, between which the worst search tokens are dropped, the same in all modalities."""

    def __init__(self, modalities: int, width: int, blocks: int, heads: int,
                 eliminate: tuple[int, ...], keep: float) -> None:
        super().__init__()
        self.eliminate, self.keep = eliminate, keep
        self.blocks = nn.ModuleList(Block(modalities, width, heads) for _ in range(blocks))
        self.norm = ModalNorm(modalities, width)

    def forward(self, template: Tensor, search: Tensor, present: Tensor,
                eliminate: bool = True) -> Encoded:
        """Encode template (M, B, T, C) and search (M, B, N, C); present: see `kept_tokens`."""
        first, total = template.shape[2], search.shape[2]
        cells = torch.arange(total, device=search.device).expand(search.shape[1], total)
        x = torch.cat([template, search], 2)
        levels, places = [], []
        for number, block in enumerate(self.blocks):
            x, looks = block(x)
            levels.append(x)
            places.append(cells)
            if eliminate and number in self.eliminate:
                kept = kept_tokens(looks, present, self.keep)
                cells = cells.gather(1, kept)
                x = torch.cat([x[:, :, :first], pick(x[:, :, first:], kept)], 2)
        x = self.norm(x)[:, :, first:]
        if cells.shape[1] < total:
            index = cells[..., None].expand(x.shape)
            x = torch.zeros_like(search).to(x.dtype).scatter(2, index, x)
        return Encoded(x, levels, places)
