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

"""The interface between a training run and a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
import math
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import Card, ModelCard
from cgdet_core.training.checkpoints import checkpoint_entry, KEY, not_finite
from cgdet_core.training.recipe import Recipe
import lightning
from rich.table import Table
import torch
from torch import nn, Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

FINITE_EVERY = 50  # steps between two checks of losses and weights, as reading waits for the GPU
NORMS_EVERY = 50  # steps between two measurements of the terms' gradients; all of them are logged


class Losses(NamedTuple):
    """
    The losses of a batch, scalars.

    terms: weighted, their sum is minimized; details: only logged. shared: the tensors that all
    terms are computed from, at which the norms of their gradients are compared. size: images.
    """

    terms: dict[str, Tensor]
    details: dict[str, Tensor]
    shared: list[Tensor]
    size: int


class TaskModule(lightning.LightningModule, ABC):
    """
    Train the network of a recipe; the training module of a task derives from this.

    Its constructor reads the data, raises UserError for data that the recipe cannot use, and
    draws weights from torch's seeded generator. `card` describes the model before training. The
    network is the attribute `student`, so that a checkpoint of any task can be a teacher.
    """

    monitor: ClassVar[str]  # logged by `validation_metrics`; the best checkpoint has the largest
    card: ModelCard
    average: Callable[[], Any] | None  # during training: this module with averaged weights

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.frozen: list[nn.Module] = []  # layers that keep their statistics
        self.average = None
        self._finite: list[Tensor] = []  # of the losses since the last check

    @abstractmethod
    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches."""

    @abstractmethod
    def val_dataloader(self) -> DataLoader[Any]:
        """Return this rank's share of the validation batches."""

    @abstractmethod
    def losses(self, batch: Any) -> Losses:
        """Compute the losses of a training batch; every rank calls it in every step."""

    @abstractmethod
    def validate(self, batch: Any) -> None:
        """Run the deployed form of the network on a validation batch and collect the results."""

    @abstractmethod
    def validation_metrics(self) -> dict[str, float]:
        """Return the metrics of the results collected on all ranks, and clear them."""

    @abstractmethod
    def load_start(self) -> None:
        """Load the starting weights `optim.init`; UserError if they do not fit."""

    def describe(self) -> dict[str, str]:
        """Return what the task trains on and what, for the table before the first step."""
        return {}

    def draw_samples(self, folder: Path) -> list[Path]:
        """Draw training samples into the folder of the run; return the files."""
        return []

    def report(self, best: Path, folder: Path) -> Table | None:
        """Draw what the best checkpoint does on validation data; return figures for the user."""
        return None

    def on_train_epoch_start(self) -> None:
        for layer in self.frozen:
            layer.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = checkpoint_entry(self.card, self.recipe.model)

    def training_step(self, batch: Any, _: int) -> Tensor:
        terms, details, shared, size = self.losses(batch)
        if (self.global_step + 1) % NORMS_EVERY == 0 and len(terms) > 1:
            for name, term in terms.items():
                self.log(f'gradient/{name}', gradient_norm(term, shared), batch_size=1)
        total = torch.stack(list(terms.values())).sum()
        self._finite.append(total.detach().isfinite())
        self.log_dict({f'train/{k}': v.detach() for k, v in (details | terms).items()},
                      batch_size=size)
        self.log('train/loss', total.detach(), prog_bar=True, batch_size=size)
        self.log('train/lr', self.optimizers().param_groups[0]['lr'])  # type: ignore[union-attr]
        return total

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if len(self._finite) >= FINITE_EVERY or self.trainer.is_last_batch:
            self._check_finite()

    def _check_finite(self) -> None:
        """
        Raise UserError on all ranks if losses since the last check, or weights, are not finite.

        Before each validation, so that no best checkpoint has such weights. In 16-mixed single
        losses may be infinite: their steps are skipped.
        """
        finite, self._finite = torch.stack(self._finite), []
        good = finite.any() if self.trainer.precision == '16-mixed' else finite.all()
        bad = not_finite(dict(self.named_parameters()) | dict(self.named_buffers()))
        failed = torch.tensor(float(bool(bad) or not bool(good)), device=self.device)
        if float(self.trainer.strategy.reduce(failed, reduce_op='sum')) > 0:
            where = f'weights (in {bad})' if bad else 'loss'
            raise UserError(
                f'The {where} became NaN or infinite by step {self.global_step}, in epoch '
                f'{self.current_epoch + 1}, and the training was stopped; start again with a '
                f'lower optim.lr (it is {self.recipe.optim.lr:g}) or optim.clip_norm.')

    def validation_step(self, batch: Any, _: int) -> None:
        self.validate(batch)

    def on_validation_epoch_end(self) -> None:
        # Every rank logs the metrics of all frames, as each needs the monitored one.
        for name, value in self.validation_metrics().items():
            self.log(name, value, prog_bar=name == self.monitor, batch_size=1)

    def configure_optimizers(self) -> Any:
        optim = self.recipe.optim
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                trunk = optim.trunk_lr != 1 and '.backbone.' in name
                key = trunk, parameter.ndim <= 1  # two groups, as before there was trunk_lr
                groups.setdefault(key, []).append(parameter)
        # Biases and normalization weights are not decayed.
        optimizer = torch.optim.AdamW(
            [{'params': parameters, 'lr': optim.lr * (optim.trunk_lr if trunk else 1),
              'weight_decay': 0.0 if flat else optim.weight_decay}
             for (trunk, flat), parameters in sorted(groups.items())],
            lr=optim.lr, foreach=True)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(total * optim.warmup_epochs / optim.epochs))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, total - warmup))
            return optim.final_lr + (1 - optim.final_lr) * (1 + math.cos(math.pi * progress)) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{'scheduler': schedule, 'interval': 'step'}]

    def epoch(self) -> float:
        """Return the epochs trained so far, including the fraction of the current one."""
        return self.global_step / max(1, self.trainer.num_training_batches)

    def step_generator(self) -> torch.Generator:
        """Return a generator of this rank and step; a resumed run draws the same values."""
        seed = (self.recipe.seed * 1_000_003 + self.global_step) * 1009 + self.global_rank
        return torch.Generator().manual_seed(seed)


def gradient_norm(term: Tensor, shared: list[Tensor]) -> Tensor:
    """Return the norm of a term's gradient at the shared tensors, a scalar."""
    if not term.requires_grad:
        return torch.zeros((), device=term.device)
    gradients = torch.autograd.grad(term, shared, retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), device=term.device)


def idle(module: nn.Module) -> Tensor:
    """Return a zero that depends on every weight: DDP waits for all gradients in each step."""
    return torch.stack([p.sum() for p in module.parameters()]).sum() * 0


def count_parameters(module: nn.Module) -> int:
    """Return the number of weights of a module."""
    return sum(p.numel() for p in module.parameters())


def with_size(card: Card, deployed: nn.Module) -> Card:
    """Return a card with the number of weights and operations of its deployed network."""
    with FlopCounterMode(display=False) as counter:
        deployed(*(torch.zeros([int(n) for n in spec.shape])
                   for spec in card.with_batch(1).inputs.values()))
    return replace(card, parameters=count_parameters(deployed),
                   gflops=round(counter.get_total_flops() / 1e9, 2))
