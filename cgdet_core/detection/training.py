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

"""The training module of a detector."""

from dataclasses import replace
import logging
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import (
    CocoSet,
    counts_text,
    ImageRecord,
    UNKNOWN,
    warn_of_shared,
    without_rgb,
)
from cgdet_core.data.show import evenly
from cgdet_core.data.synthetic import CLASSES as SCENE_CLASSES
from cgdet_core.detection.coupled import Coupled, Outputs, rgb_model
from cgdet_core.detection.imitation import Imitation
from cgdet_core.detection.loading import epoch_sampler, PreparedBatch, train_loader, val_loader
from cgdet_core.detection.loss import detection_loss
from cgdet_core.detection.metrics import average_precision
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.run_report import describe, draw_samples, write_report
from cgdet_core.detection.starting import origin_of, start
from cgdet_core.detection.student import DeployedStudent, Student, TorchSession
from cgdet_core.detection.unlabeled import (
    blank,
    find_objects,
    load_unlabeled,
    predict,
    pseudo_labels,
    regions,
    SOFT_TARGETS,
    Targets,
)
from cgdet_core.distillation.contrast import RoiContrast
from cgdet_core.distillation.coupling import own_statistics
from cgdet_core.distillation.guidance import Guidance
from cgdet_core.distillation.guide import Guide, TeacherPyramid
from cgdet_core.distillation.objectives import standardizes
from cgdet_core.distillation.teachers import teacher_key
from cgdet_core.errors import UserError
from cgdet_core.machine import commit
from cgdet_core.nets.blocks import restore_norms
from cgdet_core.nets.trunk import freeze
from cgdet_core.runtime.detection.card import detection_card, DetectionCard
from cgdet_core.runtime.detection.detector import EVALUATION_THRESHOLD
from cgdet_core.runtime.detection.postprocess import decode, Detections
from cgdet_core.runtime.imaging.geometry import Letterbox
from cgdet_core.training.checkpoints import checkpoint_entry, KEY, read_checkpoint, STUDENT
from cgdet_core.training.module import idle, Losses, TaskModule, with_size
from cgdet_core.training.ranks import broadcast_from_first, gather_entries
from cgdet_core.training.run import AtomicCheckpoints, processes
from rich.table import Table
import torch
from torch import Tensor
from torch.utils.data import DataLoader

NORM_FRAMES = 32  # training frames that folded normalization layers are restored from
_log = logging.getLogger(__name__)
SCALES = 'teacher_scales'  # a checkpoint's entry, if the objective needs them
GRADIENTS = 'coupled_gradients'  # another, of a coupled run
RGB_STUDENT = 'coupled.student.'  # prefix of the names of its weights


class DetectionTraining(TaskModule):
    """
    Train a student by L_total = L_det + lambda_rcs L_rcs + lambda_cms L_cms (CGDet).

    Further terms, if the recipe has them: `imitation`, `unlabeled` (pseudo-labels) and `coupled`.

    `losses` returns the weighted terms; `TaskModule.training_step` adds them up.

    RCS and CMG are next to the student, not in it, so that a deployed model never contains them.
    Validation runs the student's deployed form, with frames prepared as on the robot.
    """

    monitor = 'val/AP50'
    recipe: DetectionRecipe
    card: DetectionCard

    def __init__(self, recipe: DetectionRecipe) -> None:
        recipe = recipe.resolved()
        super().__init__(recipe)
        self.unlabeled_set = load_unlabeled(recipe) if recipe.unlabeled is not None else None
        self.train_set = recipe.labeled()
        if recipe.data.max_frames is not None:
            self.train_set = replace(
                self.train_set, images=evenly(self.train_set.images, recipe.data.max_frames))
        if not recipe.data.rgb:
            self.train_set = replace(
                self.train_set, images=without_rgb(self.train_set.images))
        self.val_set = recipe.frames(recipe.data.val)
        check_data(recipe, self.train_set, self.unlabeled_set)
        check_boxes(recipe, self.train_set, self.val_set)
        warn_of_shared(self.val_set.path, self.val_set.images, self._frames())
        self.guide = None if recipe.cmg is None else Guide(
            recipe.cmg.teacher, recipe.cmg.unpaired)
        self.imitation = (
            Imitation(recipe.imitation, recipe) if recipe.imitation is not None else None)
        self.card = make_card(recipe, self._license(), self.imitation)
        self.student = Student(len(recipe.classes), recipe.model)
        width = recipe.model.neck_channels
        self.rcs = RoiContrast(width, len(recipe.classes), recipe.rcs) if recipe.rcs else None
        self.cmg = (Guidance(width, self.guide.teacher.channels, recipe.cmg)
                    if recipe.cmg and self.guide else None)
        self.coupled: Coupled | None = None
        if recipe.coupled is not None and self.guide is not None:
            other = self.imitation.students[0].config.neck_channels if self.imitation else None
            self.coupled = Coupled(recipe, self.guide.teacher.channels, other)
            self.coupled.start(self.student)
        loaded = [self.student.backbone] if recipe.optim.init == 'imagenet' else [
            self.student.backbone, self.student.neck]
        self.frozen = freeze(self.student.backbone, recipe.optim.frozen_stages,
                             loaded if recipe.optim.frozen_norms else [])
        self._session: TorchSession | None = None
        self._found: dict[int, Detections] = {}
        self._objects: int | None = None  # of pseudo-labels so far; None before the first

    def load_start(self) -> None:
        folded = start(self.student, self.recipe)
        if folded and not self.recipe.optim.frozen_norms:
            frames = replace(self.train_set, images=evenly(self._frames(), NORM_FRAMES))
            images = [b.images for b in val_loader(self.recipe, frames, self.card)]
            restore_norms(folded, self._all_outputs, torch.cat(images))
        if self.coupled is not None:
            self.coupled.start(self.student, self.recipe.optim.init == 'imagenet')

    def _all_outputs(self, images: Tensor) -> tuple[Outputs, Tensor | None]:
        """Return the student's outputs, and the logits of a second class tower."""
        return self._heads(self.student.pyramid(images))

    def _heads(self, pyramid: list[Tensor]) -> tuple[Outputs, Tensor | None]:
        head = self.student.head
        return head.both(pyramid) if head.dual else (head(pyramid), None)

    def setup(self, stage: str) -> None:
        # Here, as loading workers start when the optimizer requests the number of steps.
        if stage != 'fit':
            return
        progress = self.trainer.progress_bar_callback is not None
        if self.guide is not None:
            self.guide.fill_cache(self._frames(), self.trainer.strategy.root_device, progress)
            self.trainer.strategy.barrier()
        if self.unlabeled_set is not None:
            self.unlabeled_set = predict(self.unlabeled_set, self.recipe,
                                         self.trainer.strategy.root_device, progress)

    def _license(self) -> str:
        """Return the licenses that the training data state."""
        sets = [coco for coco in (self.train_set, self.unlabeled_set) if coco and coco.images]
        return '; unlabeled frames: '.join(dict.fromkeys(coco.license for coco in sets))

    def _frames(self) -> list[ImageRecord]:
        return self.train_set.images + (self.unlabeled_set.images if self.unlabeled_set else [])

    def on_fit_start(self) -> None:
        # Faster convolutions on CPU (AMX, AVX-512) and on tensor cores alike.
        self.student.to(memory_format=torch.channels_last)
        if self.imitation is not None:
            self.imitation.to(self.device)
        # Here, as a resumed run has loaded the scales of its checkpoint.
        if (self.guide is not None and self.recipe.cmg is not None and self.guide.scales is None
                and not standardizes(self.recipe.cmg.objective)):
            self.guide.measure_scales(self._frames(), self.device,
                                      self.trainer.progress_bar_callback is not None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.guide is not None and self.guide.scales is not None:
            checkpoint[SCALES] = self.guide.scales
        if self.coupled is not None:
            checkpoint[GRADIENTS] = self.coupled.matching.state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.guide is not None:
            self.guide.scales = checkpoint.get(SCALES)
        if self.coupled is not None:
            self.coupled.matching.state = checkpoint[GRADIENTS]

    def on_train_end(self) -> None:
        best = self.recipe.folder / 'best.ckpt'
        if (self.coupled is not None and self.coupled.config.keep_rgb and best.is_file()
                and self.trainer.is_global_zero):
            write_rgb(self.recipe, self._license(), best)

    def describe(self) -> dict[str, str]:
        return describe(self.recipe, self.train_set, self.val_set, self.unlabeled_set)

    def draw_samples(self, folder: Path) -> list[Path]:
        return [draw_samples(self.recipe, self.train_set, folder / 'train_samples.png',
                             self.unlabeled_set)]

    def report(self, best: Path, folder: Path) -> Table:
        return write_report(best, self.val_set, folder, self.trainer.strategy.root_device)

    def train_dataloader(self) -> DataLoader[Any]:
        return train_loader(self.recipe, self.train_set, self.guide, self.unlabeled_set)

    def losses(self, batch: dict[str, Any]) -> Losses:
        coupled = self.coupled if self.coupled and self.coupled.active(self.epoch()) else None
        images = whole = batch['images'].to(memory_format=torch.channels_last)
        if coupled is not None:
            images = coupled.mask(batch, self.step_generator())
        pyramid = self.student.pyramid(images)
        outputs, one = self._heads(pyramid)
        pairs = None if coupled is None else coupled.look(
            batch, self.student, pyramid, outputs, self._thermal_teacher())
        imitated = 0.0 if self.imitation is None else self.imitation.config.weight_at(self.epoch())
        taught = self.imitation.outputs(whole) if self.imitation and imitated else None
        with torch.autocast(self.device.type, enabled=False):
            terms, details = self._detection(outputs, batch)
            if one is not None:  # boxes are learned from many cells
                terms['one'] = detection_loss(
                    one, outputs[1].detach(), batch['targets'], self.recipe.input_size[::-1],
                    top_k=1)['cls']
            teacher = self._teacher(batch)
            terms |= self._distillation(pyramid, batch, teacher)
            if coupled is not None and pairs is not None:
                learned = terms['det'] + terms.get('pseudo', 0)
                terms |= coupled.terms(batch, pairs, pyramid, learned, teacher, self._learn,
                                       self.epoch())
            elif self.coupled is not None:
                terms |= {'rgb': idle(self.coupled)}
            if self.imitation is not None:
                terms['imitation'] = pyramid[0].new_zeros(()) if taught is None else (
                    imitated * self.imitation.loss(taught, *outputs))
        return Losses(terms, details, pyramid + (pairs.rgb if pairs else []), len(images))

    def _thermal_teacher(self) -> Student:
        """Return the thermal teacher of coupled students: that of `imitation`, or the average."""
        if self.imitation is not None:
            return self.imitation.students[0]
        assert self.average is not None
        return self.average().student

    def _teacher(self, batch: dict[str, Any]) -> TeacherPyramid | None:
        """Return what the RGB teacher sees, if a term needs it."""
        if self.guide is None or self.cmg is None:
            return None
        needed = self.cmg.config.weight_at(self.epoch()) > 0 or (
            self.coupled is not None and self.coupled.active(self.epoch()))
        return self.guide.of(batch) if needed else None

    def _learn(self, outputs: Outputs, targets: Targets, unlabeled: Tensor | None) -> Tensor:
        """Return L_det of outputs, with u L_det of the pseudo-labels in unlabeled samples."""
        losses = self._parts(outputs, targets, unlabeled)
        return losses['det'] + losses.get('pseudo', 0)

    def _parts(self, outputs: Outputs, targets: Targets, unlabeled: Tensor | None,
               ) -> dict[str, Tensor]:
        """Return L_det of the labels and its parts, and u L_det of pseudo-labels as `pseudo`."""
        config, size = self.recipe.unlabeled, self.recipe.input_size
        if unlabeled is None or config is None:
            return detection_loss(*outputs, targets, size[::-1])
        losses = detection_loss(*outputs, blank(targets, unlabeled, size), size[::-1])
        weight, count = config.weight_at(self.epoch()), float(unlabeled.sum())
        losses['pseudo'] = outputs[0].new_zeros(())
        if weight > 0:
            parts = detection_loss(*outputs, blank(targets, ~unlabeled, size), size[::-1],
                                   max(1.0, SOFT_TARGETS * count))
            losses['pseudo'] = weight * parts['det']
        return losses

    def _detection(self, outputs: Outputs, batch: dict[str, Any],
                   ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return L_det, with pseudo-labels if there are unlabeled frames, and its parts."""
        unlabeled, config = batch.get('unlabeled'), self.recipe.unlabeled
        objects = {}
        if unlabeled is not None and config is not None and config.weight_at(self.epoch()) > 0:
            rows = unlabeled.nonzero()[:, 0].tolist()
            assert self.average is not None
            found = find_objects(self.average().student, batch['weak'], config.ignore_score)
            labels = pseudo_labels([batch['targets'][n] for n in rows], found, config)
            batch['targets'] = batch['targets'].copy()
            for row, label in zip(rows, labels):
                batch['targets'][row] = label
            if self.coupled is not None and 'visible' in batch:
                batch['targets'] = self.coupled.seen(batch['targets'], batch['visible'])
            count = sum(len(label['boxes']) for label in labels)
            self._objects = (self._objects or 0) + count
            objects['objects'] = outputs[0].new_tensor(count / len(labels))
        losses = self._parts(outputs, batch['targets'], unlabeled)
        terms: dict[str, Tensor] = {
            name: losses.pop(name) for name in ('det', 'pseudo') if name in losses}
        return terms, losses | objects

    def _distillation(self, pyramid: list[Tensor], batch: dict[str, Any],
                      teacher: TeacherPyramid | None) -> dict[str, Tensor]:
        terms, targets = {}, batch['targets']
        config, unlabeled = self.recipe.unlabeled, batch.get('unlabeled')
        size = batch['images'].shape[3], batch['images'].shape[2]
        if self.rcs is not None:
            weight = self.rcs.config.weight_at(self.epoch())
            terms['rcs'] = idle(self.rcs)
            if weight > 0:
                labeled = targets if unlabeled is None else blank(targets, unlabeled, size)
                loss = self.rcs(pyramid, labeled, self.step_generator())
                terms['rcs'] = terms['rcs'] + weight * loss
        if self.cmg is not None:
            weight = self.cmg.config.weight_at(self.epoch())
            terms['cmg'] = idle(self.cmg)
            if weight > 0:
                if unlabeled is not None and config is not None:
                    drawn = regions(targets, config, size, self.step_generator())
                    targets = [region if flag else target for region, target, flag
                               in zip(drawn, targets, unlabeled.tolist())]
                loss = self.cmg(pyramid, teacher, targets)
                if unlabeled is not None and config is not None and config.weak_guidance:
                    weak = batch['weak'].to(memory_format=torch.channels_last)
                    with own_statistics(self.student):  # those of the samples, not of this view
                        seen = self.student.pyramid(weak)
                    loss = loss + self.cmg(
                        seen, teacher and teacher.rows(unlabeled),
                        [target for target, flag in zip(targets, unlabeled.tolist()) if flag])
                terms['cmg'] = terms['cmg'] + weight * loss
        return terms

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.trainer.is_last_batch:
            self._check_objects()

    def _check_objects(self) -> None:
        """Raise UserError on all ranks if pseudo-labels teach alone and had no object so far."""
        config, others = self.recipe.unlabeled, (self.recipe.cmg, self.recipe.imitation)
        if (config is None or config.share < 1 or self._objects is None
                or any(term and term.weight for term in others)):
            return
        found = torch.tensor(float(self._objects), device=self.device)
        if float(self.trainer.strategy.reduce(found, reduce_op='sum')) == 0:
            raise UserError(
                f'No object was found in {config.frames} with a score of at least '
                f'{config.object_score:g} by epoch {self.current_epoch + 1}, so that there is '
                'nothing to learn from; lower unlabeled.object_score, add labeled frames '
                '(data.train), or name another unlabeled.teacher or optim.init.')

    def val_dataloader(self) -> DataLoader[Any]:
        return val_loader(self.recipe, self.val_set, self.card)

    def on_validation_epoch_start(self) -> None:
        # Each rank has its own batch statistics; the checkpoint has those of the first.
        broadcast_from_first(self.student.buffers())
        deployed = DeployedStudent(self.student, self.card.input_size, self.card.top_k)
        self._session = TorchSession(deployed, self.card)

    def validate(self, batch: PreparedBatch) -> None:
        assert self._session is not None
        found = self._session.run_tensors({'images': batch.images})
        boxes, scores = (found[name].cpu().numpy() for name in ('boxes', 'scores'))
        for row, (index, size) in enumerate(zip(batch.indices, batch.sizes)):
            self._found[index] = decode(
                boxes[row], scores[row], Letterbox(size, self.card.input_size), self.card,
                EVALUATION_THRESHOLD)

    def validation_metrics(self) -> dict[str, float]:
        found = gather_entries(self._found)
        report = average_precision(list(found.values()), [self.val_set.images[i] for i in found],
                                   self.recipe.classes)
        self._found, self._session = {}, None
        values = {name: report[name] for name in ('AP', 'AP75')}
        values |= {f'AP50_{name}': v['AP50'] for name, v in report['per_class'].items()}
        values['AP50'] = report['AP50']
        return {f'val/{name}': value or 0.0 for name, value in values.items()}


def check_data(recipe: DetectionRecipe, frames: CocoSet, unlabeled: CocoSet | None = None) -> None:
    """Raise UserError for training frames that the recipe cannot use."""
    more = unlabeled.images if unlabeled is not None else []
    count = len(frames.images) + recipe.data.synthetic + len(more)
    devices, nodes = processes(recipe)
    batch = recipe.optim.batch_size * devices * nodes
    if count < batch:
        over = f' over {devices * nodes} processes' if devices * nodes > 1 else ''
        frames_do = 'frame does' if count == 1 else 'frames do'
        raise UserError(f'{count} training {frames_do} not fill one batch of {batch}{over}; '
                        'lower optim.batch_size.')
    if recipe.data.synthetic and recipe.model.in_channels == 3:
        raise UserError('Synthetic scenes are thermal; a teacher (model.in_channels=3) needs '
                        'data.synthetic=0.')
    epoch_sampler(recipe, frames, len(more))  # before the teacher's features are computed
    if recipe.cmg is None:
        return
    sets = [frames] if unlabeled is None else [frames, unlabeled]
    needs = 'coupled' if recipe.coupled is not None else (
        'the guidance (cmg)' if recipe.cmg.unpaired == 'skip' else '')
    if needs and not any(record.rgb_path for coco in sets for record in coco.images):
        raise UserError(f'{frames.path} lists no RGB images (rgb_file_name), which {needs} needs.')
    for coco in sets:
        coco.check_rgb()


def check_boxes(recipe: DetectionRecipe, train: CocoSet, val: CocoSet) -> None:
    """Raise UserError for classes that cannot be learned, and log which boxes are not used."""
    drawn: tuple[str, ...] = SCENE_CLASSES if recipe.data.synthetic else ()
    if recipe.data.train is None:
        drawn = recipe.classes  # the teacher finds them
    counts = train.boxes()
    unseen = [name for name, count in counts.items() if not count and name not in drawn]
    if not any(counts.values()) and not set(drawn) & set(recipe.classes):
        raise UserError(f'{train.path} has no boxes of {", ".join(recipe.classes)}; label objects '
                        'before training.')
    if unseen:
        raise UserError(f'{train.path} has no box of {", ".join(unseen)}; remove the name from '
                        'classes, or name those of the data: '
                        f'{counts_text(counts | train.others)}.')
    missing = [name for name, count in val.boxes().items() if not count]
    if len(missing) == len(recipe.classes):
        raise UserError(f'{val.path} has no box of {", ".join(missing)}; the best weights cannot '
                        'be chosen without labeled frames.')
    if missing:
        _log.warning('%s has no box of %s, so its AP is not measured.', val.path,
                     ', '.join(missing))
    for coco in (train, val):
        coco.warn_of_prelabels()
    if val.others:
        _log.warning('%s has boxes of other classes, which are not measured: %s.', val.path,
                     counts_text(val.others))
    if train.others:
        use = ('ignored in training (data.other_classes=background makes them background)'
               if recipe.data.other_classes == 'ignore' else 'background')
        _log.warning('%s has boxes of other classes, which are %s: %s.', train.path, use,
                     counts_text(train.others))


def write_rgb(recipe: DetectionRecipe, license: str, best: Path) -> None:
    """Write the RGB student of a checkpoint as one of its own, rgb.ckpt in the same folder."""
    rgb, weights = rgb_model(recipe), read_checkpoint(best)['state_dict']
    AtomicCheckpoints().save_checkpoint({
        KEY: checkpoint_entry(make_card(rgb, license), rgb.model),
        'state_dict': {STUDENT + name.removeprefix(RGB_STUDENT): value
                       for name, value in weights.items() if name.startswith(RGB_STUDENT)},
    }, best.with_name('rgb.ckpt'))


def make_card(recipe: DetectionRecipe, license: str, imitation: Imitation | None = None,
              ) -> DetectionCard:
    """
    Return the card of a run.

    license: what the training data state, unless the recipe names it; those of the starting
    weights and of a thermal teacher are added.
    """
    student = Student(len(recipe.classes), recipe.model)
    deployed = DeployedStudent(student, recipe.input_size)
    init = origin_of(recipe, student.backbone)
    taught = imitation.origins if imitation is not None else []
    licenses = dict.fromkeys((recipe.data.license or license).split('; '), '')  # and whose
    for what, training in (('starting weights', init),
                           *(('thermal teacher', teacher) for teacher in taught)):
        for text in training.get('license', UNKNOWN).split('; ') if training else ():
            text = text.removeprefix('starting weights: ').removeprefix('thermal teacher: ')
            licenses.setdefault(text, f'{what}: ')
    card = detection_card(
        name=recipe.name, classes=recipe.classes, input_size=recipe.input_size,
        normalization=recipe.normalization, channels=recipe.model.in_channels,
        top_k=deployed.top_k,
        # If one cell scores an object, there is nothing to suppress.
        iou_threshold=1.0 if student.head.dual else DetectionCard.iou_threshold,
        training={
            'recipe': recipe.record(), 'seed': recipe.seed,
            'teacher': teacher_key(recipe.cmg.teacher) if recipe.cmg else None,
            'init': init, 'imitation': taught[0] if len(taught) == 1 else taught or None,
            **({'pseudo_teacher': teacher_key(recipe.unlabeled.teacher)}
               if recipe.unlabeled and recipe.unlabeled.teacher else {}),
            'data': [path.name for path in (
                recipe.data.train, recipe.unlabeled and recipe.unlabeled.frames) if path] + (
                [f'{recipe.data.synthetic} synthetic scenes per epoch']
                if recipe.data.synthetic else []),
            'license': '; '.join(whose + text for text, whose in licenses.items()),
            'commit': commit() or 'unknown'})
    return with_size(card, deployed)
