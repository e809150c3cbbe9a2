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

"""What a run of a detector shows: its samples before the first step, its results after it."""

from collections import Counter
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet
from cgdet_core.data.show import evenly
from cgdet_core.detection.analysis import confusions
from cgdet_core.detection.curves import draw_confusion, draw_curves, save_figure
from cgdet_core.detection.evaluation import detect_all
from cgdet_core.detection.loading import train_loader
from cgdet_core.detection.metrics import average_precision, curves
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.samples import IGNORED, Sample
from cgdet_core.detection.scores import best_threshold, by_score, judge_all
from cgdet_core.detection.student import detector_of, load_student
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.imaging.drawing import COLORS, contact_sheet, draw, save_picture
from cgdet_core.runtime.imaging.normalization import Normalization
import cv2
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
import torch

SAMPLES = 16  # of training, in a square
WIDTH = 480  # pixels of a sample
FRAMES = 12  # of validation, in rows of three


def describe(recipe: DetectionRecipe, train: CocoSet, val: CocoSet,
             unlabeled: CocoSet | None = None) -> dict[str, str]:
    """Return what a detector is trained on, for the table before the first step."""
    paired = sum(r.rgb_path is not None for r in train.images)
    synthetic = recipe.data.synthetic
    boxes = [Counter(label for r in part.images for label in r.labels[r.crowd == 0].tolist())
             for part in (train, val)]
    ignored = [sum(int((r.crowd != 0).sum()) for r in part.images) for part in (train, val)]
    found = {
        'task': f'detection, input {recipe.input_size[0]}x{recipe.input_size[1]}, '
                f'{len(recipe.classes)} {"class" if len(recipe.classes) == 1 else "classes"}',
        'frames': f'train {len(train.images)}' + (f' ({paired} with RGB)' if paired else '')
        + (f' + {synthetic} synthetic per epoch' if synthetic else '')
        + f', val {len(val.images)}'}
    if unlabeled is not None:
        paired = sum(r.rgb_path is not None for r in unlabeled.images)
        found['unlabeled frames'] = f'{len(unlabeled.images)} ({paired} with RGB)'
    for label, name in enumerate(recipe.classes):
        found[f'boxes: {name}'] = f'train {boxes[0][label]}, val {boxes[1][label]}'
    if any(ignored):
        found['ignore regions'] = f'train {ignored[0]}, val {ignored[1]}'
    return found


def draw_samples(recipe: DetectionRecipe, train: CocoSet, path: Path,
                 unlabeled: CocoSet | None = None) -> Path:
    """Write the first samples of the first epoch, as the network sees them, with their boxes."""
    loader = train_loader(recipe, train, unlabeled=unlabeled)
    keys = [key for key, _ in zip(loader.sampler, range(SAMPLES))]
    pictures = [_draw_sample(loader.dataset[key], recipe.classes) for key in keys]
    return save_picture(path, contact_sheet(pictures, min(4, len(pictures)), WIDTH))


def _draw_sample(sample: Sample, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    gray = (sample['image'].as_subclass(torch.Tensor).mean(0).clamp(0, 1) * 255).numpy()
    scale = WIDTH / gray.shape[1]  # first, so that captions have one size
    gray = cv2.resize(gray.astype(np.uint8), None, fx=scale, fy=scale)
    boxes, labels = sample['boxes'].as_subclass(torch.Tensor).numpy(), sample['labels'].numpy()
    boxes, real = boxes * np.float32(scale), labels != IGNORED
    return draw(gray, Normalization('none'), boxes[real],
                [classes[label] for label in labels[real]],
                [COLORS[label % len(COLORS)] for label in labels[real]], boxes[~real])


def write_report(best: Path, val: CocoSet, folder: Path, device: torch.device) -> Table:
    """
    Write val_samples.png, confusion.png and pr_curve.png of a checkpoint.

    Return a table: per class boxes, AP50, and what the threshold of the largest F1 is worth.
    """
    student, card = load_student(best)
    detector = detector_of(student.to(device), card)
    found = detect_all(detector, val)
    judged = judge_all(found, val.images, card)
    thresholds = [best_threshold(judged, label) if len(by_score(judged, label)[0]) else
                  card.score_threshold for label in range(len(card.classes))]
    shown = [f.above(np.array(thresholds, np.float32)) for f in found]
    pictures = [draw_detections(val.images[i].read(card.channels), shown[i], card,
                                val.images[i].boxes)
                for i in evenly(range(len(val.images)), FRAMES)]
    save_picture(folder / 'val_samples.png', contact_sheet(pictures, min(3, len(pictures)), 560))

    counts = confusions(shown, val.images, len(card.classes))
    size = 3 + 0.9 * len(counts)
    figure = Figure((size, size), layout='constrained')
    axes: Any = figure.subplots()
    draw_confusion(axes, counts, card.classes)
    figure.suptitle(f'{best.name} on {val.path.name}\nat the scores of the largest F1',
                    fontsize='medium', wrap=True)
    save_figure(figure, folder / 'confusion.png')

    results = [{'variant': best.name, 'curves': curves(found, val.images, card.classes)}]
    save_figure(draw_curves(results, [best.name], card.classes, judged), folder / 'pr_curve.png')

    report = average_precision(found, val.images, card.classes)
    table = Table('validation', 'boxes', 'AP50', 'at score', 'F1', 'precision', 'recall')
    for label, name in enumerate(card.classes):
        scores, precision, recall, f1 = by_score(judged, label)
        ap = report['per_class'][name]['AP50']
        cells = ['-'] * 4
        if len(scores) and f1.max() > 0:
            at = int(f1.argmax())
            cells = [f'{thresholds[label]:.2f}', f'{f1[at]:.3f}',
                     f'{precision[at]:.3f}', f'{recall[at]:.3f}']
        table.add_row(name, str(judged.objects[label]), '-' if ap is None else f'{ap:.3f}', *cells)
    return table
