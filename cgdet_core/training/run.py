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

"""A training run: trainer, averaged weights, checkpoints, resuming."""

from collections.abc import Callable
import io
import logging
import os
from pathlib import Path
from typing import Any
import warnings

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_atomically
from cgdet_core.training.checkpoints import KEY, read_checkpoint
from cgdet_core.training.module import TaskModule
from cgdet_core.training.recipe import Recipe
import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
import torch
from torch import Tensor


def train(recipe: Recipe, open_task: Callable[[Any], TaskModule], resume: bool = False,
          progress: bool = True) -> Path:
    """
    Train and return the best checkpoint, <output>/<name>/best.ckpt.

    last.ckpt is written atomically after every epoch; with `resume` the run continues from it
    and ends with the weights that an uninterrupted run would have. UserError if there is already
    a run and resume is false, or none and it is true.
    """
    last = recipe.folder / 'last.ckpt'
    if resume and not last.is_file():
        raise UserError(f'There is nothing to resume: {last} does not exist.')
    if last.is_file() and not resume:
        raise UserError(f'{recipe.folder} already contains a run; resume it, or choose another '
                        'name=... or run.output=...', 'resume')
    quiet()
    lightning.seed_everything(recipe.seed, verbose=False)
    module = open_task(recipe)
    if resume:
        _same_recipe(last, module)
    elif recipe.optim.init is not None:
        module.load_start()
    trainer = make_trainer(recipe, module.monitor, progress)
    try:
        trainer.fit(module, ckpt_path=str(last) if resume else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except UserError as error:
        # A loading worker wraps the message into its traceback; the sentence is the last line.
        raise UserError(str(error).strip().splitlines()[-1].split('UserError: ')[-1]) from None
    return recipe.folder / 'best.ckpt'


def _same_recipe(last: Path, module: TaskModule) -> None:
    """Raise UserError if the recipe, except `run`, or the teacher changed since the last run."""
    old, new = read_checkpoint(last)[KEY]['card']['training'], module.card.training
    changed = module.recipe.changes_since(old['recipe'])
    # The file of the teacher may have changed; the first runs did not record its key.
    if not changed and old.get('teacher', new.get('teacher')) != new.get('teacher'):
        changed = ['the content of cmg.teacher']
    if changed:
        raise UserError(
            f'{last} was trained with another recipe: {", ".join(changed)} changed. Resume with '
            'the original recipe, or start a new run with name=... and optim.init=...')


class Averaging(WeightAveraging):
    """Keep an exponential moving average of the weights, which follows them closely at first."""

    def __init__(self, decay: float) -> None:
        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            keep = min(decay, (1 + float(count)) / (10 + float(count)))
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(averaged, current, 1 - keep)
            else:
                for a, c in zip(averaged, current):
                    a.copy_(c)

        super().__init__(multi_avg_fn=average)

    def on_fit_start(self, trainer: lightning.Trainer,
                     pl_module: lightning.LightningModule) -> None:
        """Move the average to the module's device: it was created before the module was moved."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)


class ValidationEpochs(lightning.Callback):
    """Validate after every `every` epochs and always after the last, whose weights are final."""

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_epoch_start(self, trainer: lightning.Trainer,
                             pl_module: lightning.LightningModule) -> None:
        """Set whether this epoch is validated: Lightning's own setting must divide its number."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if last else self.every


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints atomically, even if $TMPDIR is on another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path,
                        storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(path, content.getvalue())


def quiet() -> None:
    """Suppress Lightning's hints and the deprecation warnings of its dependencies."""
    for name in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', module='lightning|torch')


def processes(recipe: Recipe) -> tuple[int, int]:
    """Return the processes per machine and the machines; torchrun's numbers take precedence."""
    if torch.distributed.is_torchelastic_launched():
        local = int(os.environ['LOCAL_WORLD_SIZE'])
        return local, int(os.environ['WORLD_SIZE']) // local
    return recipe.run.devices, recipe.run.nodes


def make_trainer(recipe: Recipe, monitor: str, progress: bool) -> lightning.Trainer:
    """Set up Lightning's trainer for a recipe; several processes train with DDP."""
    devices, nodes = processes(recipe)
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    callbacks: list[Any] = [
        Averaging(recipe.optim.ema_decay), ValidationEpochs(recipe.run.val_every),
        ModelCheckpoint(folder, 'best', monitor=monitor, mode='max',
                        save_on_train_epoch_end=False, enable_version_counter=False),
        ModelCheckpoint(folder, 'last', every_n_epochs=1, save_on_train_epoch_end=True,
                        enable_version_counter=False),
    ]
    if progress:
        callbacks.append(RichProgressBar())
    try:
        return lightning.Trainer(
            accelerator=recipe.run.accelerator, devices=devices, num_nodes=nodes,
            precision=recipe.run.precision,  # type: ignore[arg-type]
            max_epochs=recipe.optim.epochs, callbacks=callbacks, plugins=[AtomicCheckpoints()],
            logger=TensorBoardLogger(folder, 'logs', ''),
            gradient_clip_val=recipe.optim.clip_norm,
            num_sanity_val_steps=0, log_every_n_steps=10, use_distributed_sampler=False,
            deterministic=recipe.run.deterministic, enable_progress_bar=progress,
            enable_model_summary=False)
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f'This machine cannot train with run.accelerator='
                        f'{recipe.run.accelerator} and run.devices={devices}: '
                        f'{str(error).strip().splitlines()[0]}') from None
