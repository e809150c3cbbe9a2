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
Imitation of the outputs of thermal detectors, a training-only loss.

A teacher is a student as well (a checkpoint or an exported model), with a larger trunk, or one of
several of any size, and sees the sample that the student sees. The student learns its class scores
and its box distributions at every cell (localization distillation, LD, arXiv 2102.12252), weighted
by the teacher's score, so that background teaches little. No labels are used.
"""

from collections.abc import Sequence
from typing import Any

from cgdet_core.detection.config import ImitationConfig
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.starting import load_trained
from cgdet_core.detection.student import Student
from cgdet_core.errors import UserError
from cgdet_core.nets.pyramid import STRIDES
from cgdet_core.runtime.files import model_file
from cgdet_core.runtime.inference.card import file_sha256
from cgdet_core.training.checkpoints import teacher_origin
import torch
from torch import Tensor
from torch.nn import functional


def imitation_loss(
    logits: Tensor, distributions: Tensor, teacher: tuple[Tensor, Tensor], of_box: float = 1.0,
    temperature: float = 2.0,
) -> Tensor:
    """
    Return L_scores + of_box * L_LD, each divided by the sum of w over all cells.

    With p = sigmoid(logits) of teacher (t) and student (s), and w the teacher's largest score of a
    cell: L_scores = sum |p_t - p_s|^2 BCE(p_s, p_t), the quality focal loss with the
    teacher's scores as targets (GFL, arXiv 2006.04388, eq. 4); L_LD = sum w T^2
    KL(softmax(d_t / T) || softmax(d_s / T)), the mean over the four sides (LD, eq. 4).
    logits (N, A, C) and distributions (N, A, 4, bins), those of the teacher too; returns a
    scalar, float32.
    """
    logits, distributions = logits.float(), distributions.float()
    target, target_distributions = teacher[0].float().sigmoid(), teacher[1].float()
    weight = target.amax(-1)
    scores = ((target - logits.detach().sigmoid()).square() * functional.
              binary_cross_entropy_with_logits(logits, target, reduction='none')).sum()
    log_p, log_q = (functional.log_softmax(d / temperature, -1)
                    for d in (target_distributions, distributions))
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean(-1)
    boxes = temperature ** 2 * (weight * divergence).sum()
    return (scores + of_box * boxes) / weight.sum().clamp(min=1.0)


class Imitation:
    """Frozen teachers and the loss to their outputs; no part of the student or its checkpoints."""

    def __init__(self, config: ImitationConfig, recipe: DetectionRecipe) -> None:
        """UserError if a teacher's outputs or inputs are not those of the student."""
        self.config = config
        self.students: list[Student] = []
        self.origins: list[dict[str, Any]] = []  # `teacher_origin` of each teacher
        for teacher in config.teachers:
            path = model_file(teacher)
            student, card = load_trained(path)
            for name, own, other in (
                    ('classes', list(recipe.classes), list(card.classes)),
                    ('normalization', recipe.normalization.to_dict(),
                     card.normalization.to_dict()),
                    ('model.bins', recipe.model.bins, student.head.bins),
                    ('model.in_channels', 1, card.inputs['images'].shape[1])):
                if own != other:
                    raise UserError(f'The thermal teacher {teacher} has {name} {other}, the '
                                    f'recipe {own}; they must be the same.')
            self.students.append(student.requires_grad_(False))
            self.origins.append(teacher_origin(file_sha256(path), card.training))

    def to(self, device: torch.device) -> None:
        """Move the teachers."""
        for student in self.students:
            student.to(device)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return the mean of what the teachers see in samples (N, 1, H, W), without a gradient.

        The mean of probabilities, of scores and of distances, as logits (N, A, C) and
        distributions (N, A, 4, bins).
        """
        # As exact as ever: what they see is the target.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            seen = [student(images) for student in self.students]
            if self.config.mirrored:
                seen += [mirror(student(images.flip(3)), images.shape[2:])
                         for student in self.students]
            if len(seen) == 1:
                return seen[0]
            scores = torch.stack([logits.float().sigmoid() for logits, _ in seen]).mean(0)
            distances = torch.stack([d.float().softmax(-1) for _, d in seen]).mean(0)
            return scores.logit(1e-7), distances.clamp(min=1e-12).log()

    def loss(
        self, taught: tuple[Tensor, Tensor], logits: Tensor, distributions: Tensor,
    ) -> Tensor:
        """Return the imitation loss to what `outputs` returned."""
        return imitation_loss(logits, distributions, taught, self.config.of_box,
                              self.config.temperature)


def mirror(outputs: tuple[Tensor, Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return a head's outputs for a mirrored image, (height, width), as if for the image."""
    cells = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    order = torch.cat([
        part.view(cell).flip(1).flatten() for part, cell in zip(
            torch.arange(outputs[0].shape[1]).split([h * w for h, w in cells]), cells)])
    # Of left, top, right, bottom the first and the third change places.
    return outputs[0][:, order], outputs[1][:, order][:, :, [2, 1, 0, 3]]
