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

"""The record of a run: its recipe and versions at the start, a row of results after each epoch."""

import platform
import time
from typing import Any

from cgdet_core.machine import describe_machine, installed
from cgdet_core.training.figures import draw_results, save_figure
from cgdet_core.training.folder import read_facts, read_results, Row, write_results, write_start
from cgdet_core.training.module import TaskModule
from cgdet_core.training.recipe import Recipe
import lightning
import torch
from torch import Tensor

PACKAGES = ('torch', 'torchvision', 'lightning', 'numpy')


class Record(lightning.Callback):
    """
    Write recipe.yaml, run.json, results.csv and results.png; only the first rank does.

    done: epochs of the run that is resumed. started: what the command line was asked for.
    rows: of all epochs so far, the last one first complete when it ends.
    """

    def __init__(self, recipe: Recipe, done: int, started: dict[str, Any]) -> None:
        self.recipe = recipe
        self.done = done
        self.started = started
        self.rows: list[Row] = read_results(recipe.folder, done) if done else []
        self._before = self.rows[-1].get('seconds', 0.0) if self.rows else 0.0
        self._start = time.monotonic()
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._metrics: dict[str, float] = {}

    def best(self, monitor: str) -> Row | None:
        """Return the row of the largest monitored metric, the first of equal ones."""
        return max((r for r in self.rows if monitor in r), key=lambda r: r[monitor], default=None)

    def mean_losses(self) -> dict[str, float]:
        """Return the losses of the current epoch so far, averaged over the steps of this rank."""
        return {name: float(total) / self._steps for name, total in self._sums.items()}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._start = time.monotonic()
        if trainer.is_global_zero:
            folder = self.recipe.folder
            started = self.started or read_facts(folder).get('started', {})
            write_start(pl_module.recipe, {
                'precision': self.recipe.run.precision, 'resumed_from_epoch': self.done,
                'python': platform.python_version(), 'versions': installed(PACKAGES),
                'device': device_name(trainer), 'machine': describe_machine(),
                'started': started})
            if self.recipe.run.report and not self.done:
                assert isinstance(pl_module, TaskModule)
                pl_module.draw_samples(folder)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._sums, self._steps, self._metrics = {}, 0, {}

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        self._steps += 1
        for name, value in trainer.callback_metrics.items():
            if name.startswith('train/') and name != 'train/lr':
                value = value.detach().double()
                self._sums[name] = self._sums[name] + value if name in self._sums else value

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._metrics = {name: float(value) for name, value in trainer.callback_metrics.items()
                         if name.startswith('val/')}

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        seconds = self._before + time.monotonic() - self._start
        rate = trainer.optimizers[0].param_groups[0]['lr']
        self.rows.append({'epoch': trainer.current_epoch + 1, 'seconds': seconds, 'lr': rate,
                          **self.mean_losses(), **self._metrics})
        if trainer.is_global_zero:
            write_results(self.recipe.folder, self.rows)

    def draw(self, monitor: str) -> None:
        """Draw results.png."""
        if self.rows:
            save_figure(draw_results(self.rows, monitor), self.recipe.folder / 'results.png')


def device_name(trainer: lightning.Trainer) -> str:
    """Return the name of what a trainer computes on."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
