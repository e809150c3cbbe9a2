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

"""What a run shows: a table before it, a bar over all its epochs, or a line an epoch."""

import time
from typing import Any

from cgdet_core.training.module import count_parameters, TaskModule
from cgdet_core.training.recipe import Recipe
from cgdet_core.training.record import device_name, Record
from cgdet_core.words import duration
import lightning
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

REFRESH_S = 0.5  # reading a loss waits for the GPU


class Show(ProgressBar):
    """
    Show a run on its first rank.

    In a terminal one bar covers all epochs, with a line above it for each validation; elsewhere
    (a pipe, a file, SLURM) each epoch is a line, written at once.
    """

    def __init__(self, record: Record, monitor: str, resumed: str = '') -> None:
        super().__init__()
        self.record = record
        self.monitor = monitor
        self.resumed = resumed
        self.console = Console(markup=False, highlight=False)
        self._bar: Progress | None = None
        self._start = self._shown = time.monotonic()
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not self._enabled:
            return
        assert isinstance(pl_module, TaskModule)
        self._say(table_before(trainer, pl_module, self.resumed))
        self._start = time.monotonic()
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn('{task.description}'), BarColumn(None),
                TextColumn('{task.fields[words]}'), console=self.console, expand=True)
            self._bar.add_task('', total=_steps(trainer), words='')
            self._bar.start()

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._describe(trainer)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any,
                           batch: Any, batch_idx: int) -> None:
        if self._bar is not None and time.monotonic() - self._shown > REFRESH_S:
            loss = self.record.mean_losses().get('train/loss', 0.0)
            self._describe(trainer, f'loss {loss:.3f}  {self._left(trainer)}')

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._describe(trainer, f'validation  {self._left(trainer)}')

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._enabled and (self._bar is None or self.monitor in self.record.rows[-1]):
            self._say(self._line(trainer))

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def on_exception(self, *_: Any) -> None:
        self._stop()

    def say(self, what: str | Table) -> None:
        """Print a sentence or a table on the first rank."""
        if self._enabled:
            self._say(what)

    def _say(self, what: str | Table) -> None:
        self.console.print(what, soft_wrap=isinstance(what, str))
        self.console.file.flush()

    def _describe(self, trainer: lightning.Trainer, words: str | None = None) -> None:
        if self._bar is not None:
            self._shown = time.monotonic()
            task = self._bar.tasks[0]
            self._bar.update(
                task.id, description=f'epoch {trainer.current_epoch + 1}/{trainer.max_epochs}',
                completed=trainer.global_step,
                words=task.fields['words'] if words is None else words)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _left(self, trainer: lightning.Trainer) -> str:
        """Return the time that is left if the steps to come take as long as those so far."""
        before = self.record.done * trainer.num_training_batches
        steps = trainer.global_step - before
        if steps <= 0 or steps + before >= _steps(trainer):
            return ''
        left = (time.monotonic() - self._start) / steps * (_steps(trainer) - before - steps)
        return f'{duration(left)} left'

    def _line(self, trainer: lightning.Trainer) -> str:
        """Return what an epoch brought: losses, rate, the monitored metric, time and time left."""
        rows = self.record.rows
        row = rows[-1]
        total = row.get('train/loss', 0.0)
        parts = ', '.join(f'{name.removeprefix("train/")} {value:.3f}' for name, value
                          in row.items() if name.startswith('train/') and value != total)
        words = [f'epoch {row["epoch"]:.0f}/{trainer.max_epochs}:',
                 f'loss {total:.3f}' + (f' ({parts})' if parts else ''),
                 f'lr {row["lr"]:.2g}']
        if self.monitor in row:
            best = self.record.best(self.monitor) is row
            words.append(f'{self.monitor.removeprefix("val/")} {row[self.monitor]:.3f}'
                         + (' (best)' if best else ''))
        seconds = row['seconds'] - (rows[-2]['seconds'] if len(rows) > 1 else 0)
        return '  '.join([*words, duration(seconds), self._left(trainer)]).rstrip()


def _steps(trainer: lightning.Trainer) -> int:
    return int((trainer.max_epochs or 0) * trainer.num_training_batches)


def table_before(trainer: lightning.Trainer, module: TaskModule, resumed: str) -> Table:
    """Return what is about to run, as a table of two columns."""
    recipe, optim, ranks = module.recipe, module.recipe.optim, trainer.world_size
    table = Table(title_justify='left')
    for head in ('run', f'{recipe.name}'):
        table.add_column(head, overflow='fold')
    steps = trainer.num_training_batches
    rows = {
        'folder': str(recipe.folder), 'resumed from': resumed or 'nothing, a new run',
        **module.describe(),
        'parameters': f'{count_parameters(module) / 1e6:.2f} M trained'
        + (f', {module.card.parameters / 1e6:.2f} M deployed' if module.card.parameters else ''),
        'starting weights': str(optim.init or 'random'),
        'epochs': f'{optim.epochs} of {steps:.0f} steps, validation every '
        f'{recipe.run.val_every}{stopping(recipe)}',
        'batch': f'{optim.batch_size}' + (f' x {ranks} processes' if ranks > 1 else ''),
        'learning rate': f'{optim.lr:g}, warm-up until epoch {optim.warmup_epochs:g}, '
        f'{optim.lr * optim.final_lr:.2g} at the end',
        'computes on': f'{device_name(trainer)}, {recipe.run.precision}'}
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def stopping(recipe: Recipe) -> str:
    """Return when a run stops early."""
    patience = recipe.run.patience
    return '' if patience is None else f', stops after {patience} without a better model'
