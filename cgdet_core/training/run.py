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

from collections.abc import Callable, Sequence
from contextlib import nullcontext
import io
import logging
import os
from pathlib import Path
import sys
from typing import Any
import warnings

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_atomically
from cgdet_core.training.checkpoints import fits, KEY, load_weights, read_checkpoint
from cgdet_core.training.folder import alone_in, check_folder, continuing, read_facts
from cgdet_core.training.module import TaskModule
from cgdet_core.training.precision import resolve_precision
from cgdet_core.training.progress import Show
from cgdet_core.training.recipe import Recipe
from cgdet_core.training.record import Record
import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
import torch
from torch import Tensor


def train(recipe: Recipe, open_task: Callable[[Any], TaskModule], resume: bool = False,
          progress: bool = True, started: dict[str, Any] | None = None) -> Path:
    """
    Train and return the best checkpoint, <output>/<name>/best.ckpt.

    last.ckpt is written atomically after every epoch; with `resume` the run continues from it
    and ends with the weights that an uninterrupted run would have. started: what the command line
    was asked for, for run.json. UserError if there is already a run and resume is false, or none
    and it is true, or another process trains in the folder.
    """
    check_folder(recipe, resume)
    with nullcontext() if getattr(rank_zero_only, 'rank', 0) else alone_in(recipe.folder):
        try:
            return _train(recipe, open_task, resume, progress, started)
        except RuntimeError as error:
            reason = reason_of(error)
            if not reason:
                raise
            raise UserError(f'{reason}, and {continuing(recipe.folder)}.'
                            if (recipe.folder / 'last.ckpt').is_file() else f'{reason}.') from None


def _train(recipe: Recipe, open_task: Callable[[Any], TaskModule], resume: bool, progress: bool,
           started: dict[str, Any] | None) -> Path:
    check_folder(recipe, resume)  # again: another process may have trained meanwhile
    last = recipe.folder / 'last.ckpt'
    quiet()
    if resume and recipe.run.precision == 'auto':
        recipe = computing_in(recipe, read_facts(recipe.folder).get('precision', 'auto'))
    recipe = computing_in(recipe, resolve_precision(recipe))
    lightning.seed_everything(recipe.seed, verbose=False)
    module = open_task(recipe)
    done, total = _resumable(last, module) if resume else (0, recipe.optim.epochs)
    if not resume and recipe.optim.init is not None:
        module.load_start()
    record = Record(recipe, done, started or {})
    show = Show(record, module.monitor, f'epoch {done} of {total}' if resume else '')
    trainer = make_trainer(recipe, module.monitor, progress, [record, show][:1 + progress])
    if progress and trainer.is_global_zero:
        for sentence in _on_resuming(recipe, done, total) if resume else ():
            show.say(sentence)
    try:
        trainer.fit(module, ckpt_path=str(last) if resume else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except UserError as error:
        # A loading worker wraps the message into its traceback; the sentence is the last line.
        raise UserError(str(error).strip().splitlines()[-1].split('UserError: ')[-1]) from None
    if trainer.is_global_zero:
        _report(trainer, module, record, show if progress else None)
    return recipe.folder / 'best.ckpt'


def reason_of(error: RuntimeError) -> str:
    """Return why a lack of memory ended a training, and what to do, or nothing."""
    if isinstance(error, torch.OutOfMemoryError):
        return 'The memory of the GPU is full; choose a smaller optim.batch_size or input_size'
    if 'allocate memory' in str(error):
        return ('The memory of this machine is full; choose a smaller optim.batch_size, '
                'input_size or model')
    if any(words in str(error) for words in ('DataLoader worker', 'shared memory')):
        return ('A loading worker was killed, as when memory or /dev/shm is full; choose fewer '
                'run.workers or a smaller data.cache_gib, start a container with a larger '
                '--shm-size')
    return ''


def _report(trainer: lightning.Trainer, module: TaskModule, record: Record,
            show: Show | None) -> None:
    """Draw what the run came to, and show it."""
    recipe = module.recipe
    if show and trainer.current_epoch < recipe.optim.epochs and record.rows:
        show.say(f'Stopped after epoch {record.rows[-1]["epoch"]:.0f}: no better '
                 f'{module.monitor.removeprefix("val/")} in {recipe.run.patience} validations '
                 '(run.patience).')
    if recipe.run.report:
        record.draw(module.monitor)
        table = module.report(recipe.folder / 'best.ckpt', recipe.folder)
        if show and table is not None:
            show.say(table)
    best = record.best(module.monitor)
    if show and best:
        if best[module.monitor] <= 0:
            show.say('No validation found anything right: look at the boxes in the pictures of '
                     'the run folder, then train longer or start from weights (optim.init).')
        show.say(f'The best {module.monitor.removeprefix("val/")} is {best[module.monitor]:.3f}, '
                 f'of epoch {best["epoch"]:.0f}.')


def computing_in(recipe: Recipe, precision: str) -> Recipe:
    """Return the recipe with a precision."""
    return recipe.model_copy(update={'run': recipe.run.model_copy(
        update={'precision': precision})})


def _resumable(last: Path, module: TaskModule) -> tuple[int, int]:
    """
    Return the finished epochs of a run, and how many it was to have.

    UserError if the recipe changed in what decides about weights, except for more epochs, or the
    teacher did, or the layers of the network.
    """
    checkpoint = read_checkpoint(last)
    old, new = checkpoint[KEY]['card']['training'], module.card.training
    changed = module.recipe.changes_since(old['recipe'])
    epochs = int(old['recipe']['optim']['epochs'])
    if 'optim.epochs' in changed and module.recipe.optim.epochs > epochs:
        changed.remove('optim.epochs')
    # The file of a teacher may have changed; the first runs did not record it.
    for key, name in (('teacher', 'cmg.teacher'), ('imitation', 'imitation.teacher'),
                      ('pseudo_teacher', 'unlabeled.teacher')):
        if not changed and old.get(key, new.get(key)) != new.get(key):
            changed = [f'the content of {name}']
    if changed:
        raise UserError(
            f'{last} was trained with another recipe: {", ".join(changed)} changed. Resume with '
            'the original recipe, or start a new run with name=... and optim.init=...')
    with fits(last):
        load_weights(module, checkpoint['state_dict'])
    return int(checkpoint['epoch']) + 1, epochs


def _on_resuming(recipe: Recipe, done: int, total: int) -> list[str]:
    """Return what a person must know about a run that is resumed."""
    if recipe.optim.epochs > total:
        return [f'Extended from {total} to {recipe.optim.epochs} epochs: from epoch {done + 1} on '
                'the learning rate, and all else that is scheduled by epochs, follows the '
                'schedule of the new length, so the rate may rise first.']
    if done >= total:
        return [f'All {total} epochs of this run are finished; continue it with a larger '
                'optim.epochs=...']
    return []


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
        """Move the average to the module's device, as it was created before, and show it."""
        average = self._average_model
        if average is not None:
            average.to(pl_module.device)
            assert isinstance(pl_module, TaskModule)
            pl_module.average = lambda: average.module


class ValidationEpochs(lightning.Callback):
    """Validate after every `every` epochs and always after the last, whose weights are final."""

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_epoch_start(self, trainer: lightning.Trainer,
                             pl_module: lightning.LightningModule) -> None:
        """Set whether this epoch is validated: Lightning's own setting must divide its number."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        trainer.check_val_every_n_epoch = 1 if last else self.every


class BestCheckpoint(ModelCheckpoint):
    """Keep what was best so far also if the folder of the run was moved or copied since."""

    @property
    def state_key(self) -> str:
        """Return the key in checkpoints: that of the class which earlier releases used."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the best score, unless its weights were left behind."""
        assert self.dirpath is not None
        there = (Path(self.dirpath) / 'best.ckpt').is_file()
        super().load_state_dict({**state_dict, 'dirpath': self.dirpath if there else None})


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints atomically, even if $TMPDIR is on another file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path,
                        storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(path, content.getvalue())

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove nothing: our files are replaced; any other path is from a resumed checkpoint."""


def quiet() -> None:
    """Suppress Lightning's hints and the deprecation warnings of its dependencies."""
    for name in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', module='lightning|torch')
    sys.unraisablehook = _report_unraisable


def _report_unraisable(unraisable: 'sys.UnraisableHookArgs') -> None:
    """Report as Python does, except a killed worker's loader, which the run reports."""
    if not (isinstance(unraisable.exc_value, RuntimeError) and reason_of(unraisable.exc_value)):
        sys.__unraisablehook__(unraisable)


def processes(recipe: Recipe) -> tuple[int, int]:
    """Return the processes per machine and the machines; torchrun's numbers take precedence."""
    if torch.distributed.is_torchelastic_launched():
        local = int(os.environ['LOCAL_WORLD_SIZE'])
        return local, int(os.environ['WORLD_SIZE']) // local
    return recipe.run.devices, recipe.run.nodes


def make_trainer(recipe: Recipe, monitor: str, progress: bool,
                 more: Sequence[lightning.Callback] = ()) -> lightning.Trainer:
    """Set up Lightning's trainer for a recipe; several processes train with DDP."""
    devices, nodes = processes(recipe)
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    callbacks: list[Any] = [
        *more, Averaging(recipe.optim.ema_decay), ValidationEpochs(recipe.run.val_every),
        BestCheckpoint(folder, 'best', monitor=monitor, mode='max',
                       save_on_train_epoch_end=False, enable_version_counter=False),
        ModelCheckpoint(folder, 'last', every_n_epochs=1, save_on_train_epoch_end=True,
                        enable_version_counter=False),
    ]
    if recipe.run.patience is not None:
        callbacks.append(EarlyStopping(monitor, mode='max', patience=recipe.run.patience,
                                       check_on_train_epoch_end=False))
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
