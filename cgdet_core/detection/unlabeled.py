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
Learning from frames without labels: pseudo-labels of an RGB teacher and of the averaged student.

    L = L_det(labels) + u(t) L_det(pseudo-labels) + lambda_cms L_cms(weak and strong views)

The student learns on the strong view, the augmented sample. The averaged student (mean teacher,
arXiv 1703.01780) looks at the weak view, the same sample before its contrast is jittered. Both
have one geometry, and so do the teacher's boxes, which are moved with the frame. All boxes are
fused (`regions.fuse`): those with a score of `object_score` are objects, and those above
`ignore_score` neither objects nor background. What the teacher finds is a label like others; what
the student alone finds is as certain as its score, and teaches classes, but by default no boxes.
RGB only adds objects: by night it does not see what thermal sees, so that background is only where
nobody sees an object.
"""

from collections.abc import Callable
from dataclasses import replace
import logging
import math
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco, without_rgb
from cgdet_core.data.pairs.check import check_records
from cgdet_core.detection.config import UnlabeledConfig
from cgdet_core.detection.head import cell_centers, decode_boxes
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.student import DeployedStudent, load_student, Student
from cgdet_core.distillation.config import TeacherConfig, Unpaired
from cgdet_core.distillation.predictions import Predictions, suppress, TeacherPredictions
from cgdet_core.distillation.regions import center_region, fuse, random_regions
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
from cgdet_core.training.ranks import gather_entries, rank_and_ranks
import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

IOU = 0.5  # of the suppression of the student's boxes
# Minimum sum of soft targets that pseudo-labels are normalized by, per sample: with few of them,
# the background would outweigh everything.
SOFT_TARGETS = 10.0
Targets = list[dict[str, Any]]
_log = logging.getLogger(__name__)


def load_unlabeled(recipe: DetectionRecipe) -> CocoSet:
    """Read the frames without labels; UserError if no teacher or student can use them."""
    config = recipe.unlabeled
    assert config is not None
    coco = load_coco(config.frames, recipe.data.images)
    records = without_boxes(coco.images)
    if not recipe.data.rgb:
        records = without_rgb(records)
    pictures = [record.rgb_path for record in records if record.rgb_path is not None]
    if 'rgb' in config.sources and not pictures:
        raise UserError(f'{config.frames} lists no RGB images (rgb_file_name), in which '
                        'unlabeled.teacher is to find objects; set unlabeled.sources to '
                        '[thermal, black_hot].')
    coco.check_signal(recipe.normalization.kind, recipe.name)
    if pictures and (recipe.cmg is not None or 'rgb' in config.sources):
        coco.check_rgb()
        report = check_records(records)
        if not report.good:
            _log.warning('%s: %s', config.frames, report.sentence)
    return replace(coco, images=records, classes=recipe.classes, others={})


def without_boxes(records: list[ImageRecord]) -> list[ImageRecord]:
    """Return frames as if nobody had labeled them."""
    none = ImageRecord(0, Path(), 0, 0)
    return [replace(record, boxes=none.boxes, labels=none.labels, areas=none.areas,
                    crowd=none.crowd) for record in records]


def predict(coco: CocoSet, recipe: DetectionRecipe, device: torch.device, progress: bool,
            ) -> CocoSet:
    """Return the frames with the boxes that the teacher finds, each rank in its share."""
    config = recipe.unlabeled
    assert config is not None
    if config.teacher is None:
        return coco
    teacher = TeacherPredictions(config.teacher, {'cgdet': StudentPredictor})
    label_of = labels_of(teacher.predictor.classes, config, recipe.classes)
    found: list[list[Predictions]] = [[] for _ in coco.images]
    rank, ranks = rank_and_ranks()
    thermal = without_rgb(coco.images)
    pictures: dict[str, tuple[list[ImageRecord], Unpaired]] = {
        'rgb': (coco.images, 'skip'), 'thermal': (thermal, 'thermal'),
        'black_hot': (thermal, 'black_hot')}
    for source, (shown, picture) in pictures.items():  # in this order, whatever the recipe's
        if source not in config.sources:
            continue
        views = {n: view for n, record in enumerate(shown)
                 if (view := View.of(record, picture)) is not None}
        mine = [*views][rank::ranks]
        part = dict(zip(mine, teacher.of([views[n] for n in mine], device,
                                         progress and rank == 0)))
        for n, predictions in gather_entries(part).items():
            found[n].append(predictions)
    return replace(coco, images=[
        _with_boxes(record, parts, label_of, config.ignore_score)
        for record, parts in zip(coco.images, found)])


class StudentPredictor:
    """A detector of this package that was trained on RGB."""

    pad = 0

    def __init__(self, config: TeacherConfig) -> None:
        assert config.path is not None
        student, card = load_student(config.path)
        if card.channels != 3:
            raise UserError(f'{config.path} was trained on thermal frames; a teacher needs a '
                            'checkpoint trained with model.in_channels=3.')
        self.classes = card.classes
        self.input_size = config.input_size or card.input_size
        self._network = DeployedStudent(student, self.input_size)

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = self._network.to(pixels.device)(pixels.float() / 255)
        return boxes[0], scores[0]


def labels_of(
    names: tuple[str, ...], config: UnlabeledConfig, classes: tuple[str, ...],
) -> dict[int, int]:
    """
    Return the class of each of the teacher's that counts, -1 for those to be ignored.

    UserError if the teacher knows none of the classes.
    """
    label_of = {}
    for number, name in enumerate(names):
        own = config.names.get(name, name)
        if own in classes:
            label_of[number] = classes.index(own)
        elif name in config.ignored:
            label_of[number] = -1
    if wrong := [name for name in config.names.values() if name not in classes]:
        raise UserError(f'unlabeled.names leads to {", ".join(wrong)}, which is none of the '
                        f'classes {", ".join(classes)}.')
    unknown = [name for name in config.names if name not in names]
    if unknown:
        raise UserError(f'unlabeled.teacher knows no {", ".join(unknown)} (unlabeled.names); it '
                        f'knows {", ".join(names)}.')
    if not any(label >= 0 for label in label_of.values()):
        raise UserError(f'unlabeled.teacher knows none of {", ".join(classes)}; map its names by '
                        f'unlabeled.names. It knows {", ".join(names)}.')
    return label_of


def _with_boxes(record: ImageRecord, parts: list[Predictions], label_of: dict[int, int],
                minimum: float) -> ImageRecord:
    if not parts:
        return record
    boxes, scores, numbers = (np.concatenate(column) for column in zip(*parts))
    kept = (scores >= minimum) & np.isin(numbers, list(label_of))
    labels = np.array([label_of[n] for n in numbers[kept].tolist()], np.int64)
    return replace(record, boxes=boxes[kept], labels=labels, scores=scores[kept],
                   crowd=(labels < 0).astype(np.int64))


@torch.no_grad()
def find_objects(student: Student, images: Tensor, minimum: float) -> list[dict[str, Tensor]]:
    """Return boxes (M, 4), scores (M,) and labels (M,) of each image (N, 1, H, W)."""
    logits, distributions = student.eval()(images)
    height, width = images.shape[2:]
    centers, strides = cell_centers(height, width, images.device)
    every = decode_boxes(distributions.float(), centers, strides)
    found = []
    for boxes, scores in zip(every, logits.float().sigmoid()):
        found.append(dict(zip(('boxes', 'scores', 'labels'),
                              suppress(boxes, scores, minimum, IOU))))
    return found


def pseudo_labels(
    targets: Targets, found: list[dict[str, Tensor]], config: UnlabeledConfig,
) -> Targets:
    """
    Fuse what the teacher (targets) and the student (found) see in each sample.

    If the student is no source, what it finds is at least no background.
    Returns per sample `boxes`, `labels`, `scores` (NaN: certain) and `box_weights` of objects, and
    `ignored` regions.
    """
    labels: Targets = []
    for target, own in zip(targets, found):
        parts, ignored = [target], [target['ignored']]
        if 'student' in config.sources:
            parts.append(own)
        else:
            ignored.append(own['boxes'])
        every = {key: torch.cat([part[key] for part in parts])
                 for key in ('boxes', 'scores', 'labels')}
        boxes, scores, classes = fuse(**every, iou=config.fuse_iou)
        certain = scores >= config.object_score
        sure = target['scores'] >= config.object_score
        taught = ((box_iou(boxes, target['boxes'][sure]) >= config.fuse_iou)
                  & (classes[:, None] == target['labels'][sure])).any(1)
        labels.append({'boxes': boxes[certain], 'labels': classes[certain],
                       'scores': torch.where(taught & config.hard, math.nan, scores)[certain],
                       'box_weights': torch.where(taught, 1.0, config.box_weight)[certain],
                       'ignored': torch.cat([*ignored, boxes[~certain]])})
    return labels


def blank(targets: Targets, where: Tensor, size: tuple[int, int]) -> Targets:
    """Return targets by which the flagged samples of `size` = (width, height) teach nothing."""
    return [{'boxes': t['boxes'][:0], 'labels': t['labels'][:0],
             'ignored': t['boxes'].new_tensor([[0, 0, *size]])} if flag else t
            for t, flag in zip(targets, where.tolist())]


def regions(targets: Targets, config: UnlabeledConfig, size: tuple[int, int],
            generator: torch.Generator) -> Targets:
    """Return the regions of samples whose features are compared, as `boxes` (CMD)."""
    draw: dict[str, Callable[[Tensor], Tensor]] = {
        'center': lambda boxes: center_region(size).to(boxes),
        'random': lambda boxes: random_regions(
            size, config.random_regions, config.random_side, generator).to(boxes),
        'detected': lambda boxes: boxes}
    return [{'boxes': torch.cat([draw[name](t['boxes']) for name in config.regions])}
            for t in targets]
