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

"""Run a recipe: data, module, Lightning trainer, checkpoints."""

import io
import json
import logging
import os
from pathlib import Path
from typing import Any
import warnings

from cgdet_core.data.coco import CocoSet
from cgdet_core.detection.checkpoint import load_student
from cgdet_core.detection.loading import AugmentedFrames, collate, EpochSampler, repeat_factors
from cgdet_core.detection.samples import CocoFrames, FrameSource, SyntheticFrames
from cgdet_core.detection.student import DeployedStudent, Student
from cgdet_core.detection.training import Averaging, count_parameters, StudentTraining
from cgdet_core.distillation.guide import TeacherGuide
from cgdet_core.distillation.teachers import teacher_key
from cgdet_core.errors import UserError
from cgdet_core.machine import commit
from cgdet_core.runtime.detection.card import detection_card, DetectionCard
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.training.recipe import differences, Recipe
import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode


def train(recipe: Recipe, resume: bool = False, progress: bool = True) -> Path:
    """
    Train and return the best checkpoint, <output>/<name>/best.ckpt.

    last.ckpt is written after every epoch, whole or not at all; with `resume` the run goes on
    from it and ends with the weights an uninterrupted run would have. UserError if there is
    already a run and resume is false, or none and it is true.
    """
    last = recipe.folder / 'last.ckpt'
    if resume and not last.is_file():
        raise UserError(f'There is nothing to resume: {last} does not exist.')
    if last.is_file() and not resume:
        raise UserError(f'{recipe.folder} already holds a run; continue it with --resume, or '
                        'choose another name=... or run.output=...')
    quiet()
    lightning.seed_everything(recipe.seed, verbose=False)
    train_set = recipe.frames(recipe.data.train)
    _check_data(recipe, train_set)
    val_set = recipe.frames(recipe.data.val)
    guide = open_guide(recipe)
    module = StudentTraining(recipe, make_card(recipe), guide, train_set.images)
    if resume:
        _same_recipe(last, module.card)
    if recipe.optim.init is not None and not resume:
        _start_from(recipe.optim.init, module.student)
    trainer = make_trainer(recipe, progress)
    try:
        trainer.fit(module, train_loader(recipe, train_set, guide), val_loader(val_set),
                    ckpt_path=str(last) if resume else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except UserError as error:
        # A loading worker wraps the message into its traceback; the sentence is the last line.
        raise UserError(str(error).strip().splitlines()[-1].split('UserError: ')[-1]) from None
    return recipe.folder / 'best.ckpt'


def _check_data(recipe: Recipe, frames: CocoSet) -> None:
    """Refuse training frames that the recipe cannot use."""
    count = len(frames.images) + recipe.data.synthetic
    devices, nodes = _processes(recipe)
    batch = recipe.optim.batch_size * devices * nodes
    if count < batch:
        over = f' over {devices * nodes} processes' if devices * nodes > 1 else ''
        raise UserError(f'{count} training frames do not fill one batch of {batch}{over}; '
                        'lower optim.batch_size.')
    if recipe.data.synthetic and recipe.model.in_channels == 3:
        raise UserError('Synthetic scenes are thermal; a teacher (model.in_channels=3) needs '
                        'data.synthetic=0.')
    if recipe.cmg is None:
        return
    pictures = [r.rgb_path for r in frames.images if r.rgb_path]
    if not pictures and recipe.cmg.unpaired != 'thermal':
        raise UserError(f'{recipe.data.train} names no RGB pictures (rgb_file_name), which the '
                        'guidance (cmg) needs.')
    missing = [p for p in pictures if not p.is_file()]
    if missing:
        raise UserError(f'{len(missing)} of the RGB pictures named in {recipe.data.train} are '
                        f'missing, the first is {missing[0]}.')


def _start_from(checkpoint: Path, student: Student) -> None:
    start, _ = load_student(checkpoint)
    try:
        student.load_state_dict(start.state_dict())
    except RuntimeError:
        raise UserError(f'{checkpoint} has other layer sizes than the recipe.') from None


def _same_recipe(last: Path, card: DetectionCard) -> None:
    """Refuse to resume a run under another recipe (`run` aside) or teacher."""
    old = load_student(last)[1].training
    new = json.loads(json.dumps(card.training))
    changed = differences(old['recipe'], new['recipe'])
    # A recipe's path may have another teacher by now; the first runs did not record theirs.
    if not changed and old.get('teacher', new['teacher']) != new['teacher']:
        changed = ['the content of cmg.teacher']
    if changed:
        raise UserError(
            f'{last} was trained by another recipe: {", ".join(changed)} changed. Resume with '
            'the recipe as it was, or start a new run with name=... and optim.init=...')


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints whole or not at all, also where $TMPDIR is another file system."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None,
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(path, content.getvalue())


def quiet() -> None:
    """Keep Lightning's hints and its dependencies' deprecations out of the user's terminal."""
    for name in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', module='lightning|torch')


def _processes(recipe: Recipe) -> tuple[int, int]:
    """Return the processes per machine and the machines; torchrun's numbers go before ours."""
    if torch.distributed.is_torchelastic_launched():
        local = int(os.environ['LOCAL_WORLD_SIZE'])
        return local, int(os.environ['WORLD_SIZE']) // local
    return recipe.run.devices, recipe.run.nodes


def make_trainer(recipe: Recipe, progress: bool) -> lightning.Trainer:
    """Set up Lightning as the recipe says; several processes train by DDP."""
    devices, nodes = _processes(recipe)
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    callbacks: list[Any] = [
        Averaging(recipe.optim.ema_decay),
        ModelCheckpoint(folder, 'best', monitor='val/AP50', mode='max',
                        enable_version_counter=False),
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
            check_val_every_n_epoch=min(recipe.run.val_every, recipe.optim.epochs),
            num_sanity_val_steps=0, log_every_n_steps=10, use_distributed_sampler=False,
            deterministic=recipe.run.deterministic, enable_progress_bar=progress,
            enable_model_summary=False)
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f'This machine cannot train with run.accelerator='
                        f'{recipe.run.accelerator} and run.devices={devices}: '
                        f'{str(error).strip().splitlines()[0]}') from None


def open_guide(recipe: Recipe) -> TeacherGuide | None:
    """Load the teacher, if the recipe has one."""
    if recipe.cmg is None:
        return None
    return TeacherGuide(recipe.cmg.teacher, recipe.cmg.unpaired == 'thermal')


def train_loader(
    recipe: Recipe, coco: CocoSet, guide: TeacherGuide | None = None,
) -> DataLoader[Any]:
    """Return the training batches."""
    share = recipe.data.cache_gib * 2 ** 30 / max(1, recipe.run.workers)
    most = recipe.augment.scale[1]
    largest = (round(recipe.input_size[0] * most), round(recipe.input_size[1] * most))
    sources: list[FrameSource] = [
        CocoFrames(coco, recipe.normalization, recipe.model.in_channels, largest, share,
                   guide is not None and guide.thermal)]
    repeats = None
    if recipe.data.synthetic:
        sources.append(SyntheticFrames(
            recipe.data.synthetic, recipe.normalization, recipe.classes, recipe.seed))
    paired = torch.tensor([r.rgb_path is not None for r in coco.images]
                          + [False] * recipe.data.synthetic)
    frames = AugmentedFrames(
        sources, recipe.input_size, recipe.augment, recipe.seed, recipe.optim.epochs,
        paired if recipe.data.pair_share is not None else None,
        guide.reader if guide else None, recipe.cmg.stop_epoch if recipe.cmg else None)
    if recipe.data.repeat_threshold:
        labels = [set(r.labels[r.crowd == 0].tolist()) for r in coco.images]
        repeats = torch.cat([repeat_factors(labels, recipe.data.repeat_threshold),
                             torch.ones(recipe.data.synthetic)])
    return DataLoader(
        frames, recipe.optim.batch_size, sampler=EpochSampler(
            len(frames), recipe.seed, recipe.optim.batch_size, repeats, paired,
            recipe.data.pair_share),
        collate_fn=collate, num_workers=recipe.run.workers, drop_last=True,
        persistent_workers=recipe.run.workers > 0,
        pin_memory=torch.cuda.is_available())


def val_loader(coco: CocoSet) -> DataLoader[Any]:
    """Return the validation frames' records one by one; the detector reads the raw frames."""
    return DataLoader(coco.images, batch_size=None)  # type: ignore[arg-type]


def make_card(recipe: Recipe) -> DetectionCard:
    """Write what is known of the model before training."""
    student = Student(len(recipe.classes), recipe.model)
    deployed = DeployedStudent(student, recipe.input_size)
    with FlopCounterMode(display=False) as counter:
        deployed(torch.zeros(1, recipe.model.in_channels, *recipe.input_size[::-1]))
    return detection_card(
        name=recipe.name, classes=recipe.classes, input_size=recipe.input_size,
        normalization=recipe.normalization, channels=recipe.model.in_channels,
        top_k=deployed.top_k, parameters=count_parameters(deployed),
        gflops=round(counter.get_total_flops() / 1e9, 2),
        training={
            'recipe': _without_folders(recipe.model_dump(exclude={'run'})), 'seed': recipe.seed,
            'teacher': teacher_key(recipe.cmg.teacher) if recipe.cmg else None,
            'init': load_student(recipe.optim.init)[1].training if recipe.optim.init else None,
            'data': [recipe.data.train.name] + (
                [f'{recipe.data.synthetic} synthetic scenes'] if recipe.data.synthetic else []),
            'license': recipe.data.license, 'commit': commit() or 'unknown'})


def _without_folders(value: Any) -> Any:
    """Return plain JSON values; a card travels, so paths keep their last part alone."""
    if isinstance(value, dict):
        return {k: _without_folders(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(v) for v in value]
    if isinstance(value, Normalization):
        return value.to_dict()
    return value.name if isinstance(value, Path) else value
