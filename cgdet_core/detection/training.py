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

"""The training loop's module: what one step and one validation do."""

import math
from typing import Any

from cgdet_core.data.coco import ImageRecord
from cgdet_core.detection.checkpoint import checkpoint_entry, detector_of, KEY
from cgdet_core.detection.loss import detection_loss
from cgdet_core.detection.metrics import CocoMetric
from cgdet_core.detection.student import Student
from cgdet_core.distillation.contrast import RoiContrast
from cgdet_core.distillation.guidance import Guidance
from cgdet_core.distillation.guide import TeacherGuide
from cgdet_core.distillation.schedule import ScheduledLoss
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector, EVALUATION_THRESHOLD
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.frames import read_frame
from cgdet_core.training.ranks import broadcast_from_first, gather_entries
from cgdet_core.training.recipe import Recipe
import lightning
from lightning.pytorch.callbacks import WeightAveraging
import torch
from torch import nn, Tensor

NORMS_EVERY = 50  # steps between two measurements of the terms' gradients; all of them are logged


class StudentTraining(lightning.LightningModule):
    """
    Train a student by L_det + lambda_rcs L_rcs + lambda_cms L_cms (CGDet).

    RCS and CMG live beside the student, not in it: what is deployed never holds them. Validation
    runs the student's deployed form on raw frames.
    """

    def __init__(
        self, recipe: Recipe, card: DetectionCard, guide: TeacherGuide | None = None,
        pictures: list[ImageRecord] | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.card = card
        self.student = Student(len(recipe.classes), recipe.model)
        width = recipe.model.neck_channels
        self.rcs = RoiContrast(width, len(recipe.classes), recipe.rcs) if recipe.rcs else None
        self.guide = guide
        self.pictures = pictures or []  # what the teacher will be asked about
        self.cmg = (Guidance(width, guide.teacher.channels, recipe.cmg)
                    if recipe.cmg and guide else None)
        self._detector: Detector | None = None
        self._found: dict[int, tuple[Detections, ImageRecord]] = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = checkpoint_entry(self.card, self.recipe.model)

    def setup(self, stage: str) -> None:
        # Here, as loading workers start when the optimizer asks for the number of steps.
        if self.guide is not None and stage == 'fit':
            progress = self.trainer.progress_bar_callback is not None
            self.guide.fill_cache(
                self.pictures, self.trainer.strategy.root_device, progress)
            self.trainer.strategy.barrier()

    def on_fit_start(self) -> None:
        # Faster convolutions on CPU (AMX, AVX-512) and on tensor cores alike.
        self.student.to(memory_format=torch.channels_last)

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        images = batch['images'].to(memory_format=torch.channels_last)
        pyramid = self.student.pyramid(images)
        logits, distributions = self.student.head(pyramid)
        with torch.autocast(self.device.type, enabled=False):
            parts = detection_loss(logits, distributions, batch['targets'], images.shape[2:])
            terms = {'det': parts.pop('det'), **self._guidance(pyramid, batch)}
        if (self.global_step + 1) % NORMS_EVERY == 0 and len(terms) > 1:
            self._log_gradients(terms, pyramid)
        total = torch.stack(list(terms.values())).sum()
        self.log_dict({f'train/{k}': v.detach() for k, v in (parts | terms).items()},
                      batch_size=len(images))
        self.log('train/loss', total.detach(), prog_bar=True, batch_size=len(images))
        self.log('train/lr', self.optimizers().param_groups[0]['lr'])  # type: ignore[union-attr]
        return total

    def _guidance(self, pyramid: list[Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the weighted terms that are part of training only."""
        terms = {}
        if self.rcs is not None:
            weight = self._weight(self.rcs.config)
            terms['rcs'] = _idle(self.rcs)
            if weight > 0:
                loss = self.rcs(pyramid, batch['targets'], self._generator())
                terms['rcs'] = terms['rcs'] + weight * loss
        if self.cmg is not None and self.guide is not None:
            weight = self._weight(self.cmg.config)
            terms['cms'] = _idle(self.cmg)
            if weight > 0:
                loss = self.cmg(pyramid, self.guide.of(batch), batch['targets'])
                terms['cms'] = terms['cms'] + weight * loss
        return terms

    def _weight(self, config: ScheduledLoss) -> float:
        return config.weight_at(self.global_step / max(1, self.trainer.num_training_batches))

    def _generator(self) -> torch.Generator:
        # From seed and step, so that a resumed run draws what an uninterrupted one draws.
        seed = (self.recipe.seed * 1_000_003 + self.global_step) * 1009 + self.global_rank
        return torch.Generator().manual_seed(seed)

    def _log_gradients(self, terms: dict[str, Tensor], pyramid: list[Tensor]) -> None:
        """Log each term's gradient norm at the pyramid, where all terms meet."""
        for name, term in terms.items():
            gradients = torch.autograd.grad(
                term, pyramid, retain_graph=True, allow_unused=True)
            squares = [g.float().square().sum() for g in gradients if g is not None]
            norm = torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
            self.log(f'gradient/{name}', norm, batch_size=1)

    def on_validation_epoch_start(self) -> None:
        # Ranks normalize batches by themselves; the checkpoint has the statistics of the first.
        broadcast_from_first(self.student.buffers())
        self._detector = detector_of(self.student, self.card)

    def validation_step(self, record: ImageRecord, index: int) -> None:
        assert self._detector is not None
        if index % self.trainer.world_size != self.global_rank:
            return  # another rank's
        frame = read_frame(record.path, self.card.channels)
        self._found[index] = self._detector.detect(frame, EVALUATION_THRESHOLD), record

    def on_validation_epoch_end(self) -> None:
        # Every rank scores all frames: each needs the number that chooses the best checkpoint.
        metric = CocoMetric(self.recipe.classes)
        for found, record in gather_entries(self._found).values():
            metric.update(found, record)
        report = metric.compute()
        self._found = {}
        self._detector = None
        values = {'AP': report['AP'], 'AP50': report['AP50'], 'AP75': report['AP75']}
        values |= {f'AP50_{name}': v['AP50'] for name, v in report['per_class'].items()}
        ap50 = values.pop('AP50')
        self.log_dict({f'val/{k}': v or 0.0 for k, v in values.items()}, batch_size=1)
        self.log('val/AP50', ap50 or 0.0, prog_bar=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        optim = self.recipe.optim
        # Biases and normalization weights are not decayed.
        groups = [
            {'params': [p for p in self.parameters() if p.ndim > 1],
             'weight_decay': optim.weight_decay},
            {'params': [p for p in self.parameters() if p.ndim <= 1], 'weight_decay': 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=optim.lr, foreach=True)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(total * optim.warmup_epochs / optim.epochs))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, total - warmup))
            return optim.final_lr + (1 - optim.final_lr) * (1 + math.cos(math.pi * progress)) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{'scheduler': schedule, 'interval': 'step'}]


def _idle(module: nn.Module) -> Tensor:
    """Return a zero that touches every weight: DDP waits for the gradient of each in each step."""
    return torch.stack([p.sum() for p in module.parameters()]).sum() * 0


class Averaging(WeightAveraging):
    """Exponential moving average of the weights, growing from the latest weights at first."""

    def __init__(self, decay: float) -> None:
        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            keep = min(decay, (1 + float(count)) / (10 + float(count)))
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(averaged, current, 1 - keep)
            else:
                for a, c in zip(averaged, current):
                    a.copy_(c)

        super().__init__(multi_avg_fn=average)

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
    ) -> None:
        """Follow the module to its device: the copy was made before it moved."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)


def count_parameters(module: nn.Module) -> int:
    """Count the weights of a module."""
    return sum(p.numel() for p in module.parameters())
