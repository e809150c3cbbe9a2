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
RCS: supervised contrastive loss of the regions of objects, L_rcs (CGDet, arXiv 2511.01435).

    L_rcs = 1/|K| sum_{k in K} mean_{i of class k} L_i      (with `balance`, the default)
    L_rcs = mean_i L_i                                      (without)
    L_i = -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p / tau) / sum_{a != i} exp(z_i.z_a / tau) )

z_i is the embedding of region i: RoIAlign of a ground-truth box or of a jittered copy, global
average pooling, projection, L2 normalization. The index a runs over all regions of all ranks and
over the queue; P(i) are those of the same class as i. Regions without a positive are left out of
the means, and K are the classes that remain.
"""

from typing import Any

from cgdet_core.distillation.config import ContrastiveConfig
from cgdet_core.distillation.rois import boxes_of, jitter_boxes, pool_rois
from cgdet_core.training.ranks import gather_rows
import torch
from torch import nn, Tensor
from torch.nn import functional


def supervised_contrastive_loss(z: Tensor, labels: Tensor, temperature: float,
                                balance: bool = False, others: Tensor | None = None,
                                other_labels: Tensor | None = None) -> Tensor:
    """
    Return L_rcs as above (SupCon, arXiv 2004.11362, eq. 2).

    z (R, D), L2-normalized, float; labels (R,); others (Q, D) and other_labels (Q,) are further
    contrasts, which are not anchors themselves. Returns a scalar; 0, still connected to z, if no
    i has a positive.
    """
    bank = z if others is None else torch.cat([z, others])
    bank_labels = labels if other_labels is None else torch.cat([labels, other_labels])
    itself = torch.eye(len(z), len(bank), dtype=torch.bool, device=z.device)
    positive = (labels[:, None] == bank_labels[None]) & ~itself
    count = positive.sum(1)
    anchors = count > 0
    if not bool(anchors.any()):
        return z.sum() * 0
    similarity = (z @ bank.T / temperature).masked_fill(itself, float('-inf'))
    log_p = functional.log_softmax(similarity, 1)
    loss = -torch.where(positive, log_p, 0.0).sum(1)[anchors] / count[anchors]
    if not balance:
        return loss.mean()
    kinds, index = labels[anchors].unique(return_inverse=True)
    per_class = torch.zeros(len(kinds), dtype=loss.dtype, device=z.device)
    per_class = per_class.index_add(0, index, loss)
    return (per_class / index.bincount(minlength=len(kinds))).mean()


class RoiContrast(nn.Module):
    """
    Compute L_rcs from a pyramid and ground-truth boxes; used in training only.

    RoIAlign of every box and its jittered copies, global average pooling, a projection head of
    two layers, L2 normalization, supervised contrastive loss over the objects of all ranks.
    With a queue, the latest `queue` embeddings of each class, from earlier batches of all ranks,
    are further contrasts (as in MoCo, arXiv 1911.05722), so that rare classes have positives.
    """

    queue: Tensor
    filled: Tensor

    def __init__(self, channels: int, num_classes: int, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True),
            nn.Linear(channels, config.embedding))
        self.register_buffer('queue', torch.zeros(num_classes, config.queue, config.embedding))
        self.register_buffer('filled', torch.zeros(num_classes, dtype=torch.long))

    def forward(self, pyramid: list[Tensor], targets: list[dict[str, Any]],
                generator: torch.Generator) -> Tensor:
        """
        Return L_rcs, a scalar.

        pyramid: P3, P4, P5 of the student, (N, channels, H/stride, W/stride); targets: per image
        `boxes` (M, 4) in input pixels and `labels` (M,); the generator draws the copies.
        """
        c = self.config
        boxes, images = boxes_of(targets)
        boxes = jitter_boxes(boxes, c.copies, c.jitter, generator)
        images = images.repeat_interleave(1 + c.copies)
        labels = torch.cat([t['labels'] for t in targets]).repeat_interleave(1 + c.copies)
        z = self.embed(pool_rois(pyramid, boxes, images, c.roi_size))
        # Gather the objects of all ranks; every rank then computes the same loss.
        z, labels = gather_rows(z), gather_rows(labels)
        others, other_labels = self._earlier()
        loss = supervised_contrastive_loss(
            z, labels, c.temperature, c.balance, others, other_labels)
        self._remember(z.detach(), labels)
        return loss

    def embed(self, regions: Tensor) -> Tensor:
        """Project pooled regions (R, C, k, k) to unit vectors (R, embedding)."""
        return functional.normalize(self.project(regions.mean((2, 3))), dim=1)

    def _earlier(self) -> tuple[Tensor, Tensor]:
        size = self.config.queue
        slot = torch.arange(size, device=self.filled.device)
        valid = slot[None] < self.filled[:, None].clamp(max=size)
        return self.queue[valid], valid.nonzero()[:, 0]

    def _remember(self, z: Tensor, labels: Tensor) -> None:
        size = self.config.queue
        if size == 0 or not self.training:
            return
        for label in labels.unique().tolist():
            latest = z[labels == label][-size:]
            start = int(self.filled[label])
            slots = torch.arange(start, start + len(latest), device=z.device) % size
            self.queue[label, slots] = latest.to(self.queue.dtype)
            self.filled[label] += len(latest)
