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

"""Figures of an ablation: curves, claims, features, and frames where variants differ or fail."""

from pathlib import Path

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.detection import curves
from cgdet_core.detection.analysis import choose, match, project
from cgdet_core.detection.curves import COLORS, row_of
from cgdet_core.experiments.measure import Arrays, detections_of
from cgdet_core.experiments.statistics import common_recall, metrics_of, Result
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging import drawing
from cgdet_core.runtime.imaging.geometry import resize
from cgdet_core.runtime.imaging.normalization import Normalization
import cv2
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray

BARS = {'duplicates': 'duplicate boxes before NMS\nper found object',
        'duplicates at equal recall': 'duplicate boxes before NMS\nat {recall}',
        'after NMS at equal recall': 'duplicate boxes after NMS\nat {recall}',
        'confused': 'share of matched objects\nwith a wrong class',
        'silhouette': 'silhouette of the classes\namong the features of objects'}
TRIPTYCHS = 6  # half where the shown variant finds more, half where it finds less
FAILURES = 4
WIDTH = 480  # pixels of a frame
Picture = NDArray[np.uint8]


def write_figures(
    results: list[Result], folders: dict[tuple[str, int], Path], pair: tuple[str, str],
    coco: CocoSet, normalization: Normalization, output: Path,
) -> list[Path]:
    """
    Draw the finished runs into `output` and return the files.

    folders: the run of each (variant, seed) of the results. pair: the reference and the variant
    shown next to it, for the first seed of both; without one, their figures are omitted.
    """
    variants = list(dict.fromkeys(r['variant'] for r in results))
    figures = {'pr_curves': curves.draw_curves(results, variants, coco.classes),
               'claims': draw_claims(results, variants, common_recall(results, pair[0]))}
    shared = sorted(s for v, s in folders if v == pair[0] and (pair[1], s) in folders)
    pictures: list[Path] = []
    if shared and pair[0] != pair[1]:
        figures['confusion'] = draw_confusions(results, pair)
        arrays = [dict(np.load(folders[name, shared[0]] / 'arrays.npz')) for name in pair]
        figures['embedding'] = draw_embeddings(arrays, pair, coco.classes)
        found = [[detections_of(a, i) for i in range(len(coco.images))] for a in arrays]
        pictures = [
            write_triptychs(found, pair, coco, normalization, output / 'triptychs.png'),
            write_failures(found[1], pair[1], coco, normalization, output / 'failures.png')]
    return [*(curves.save_figure(figure, output / f'{name}.png')
              for name, figure in figures.items()), *pictures]


def draw_claims(results: list[Result], variants: list[str], recall: float | None) -> Figure:
    """Draw the paper's claims: a bar for the mean over seeds, a point for each seed."""
    figure = Figure((3.6 * len(BARS), 4), layout='constrained')
    metrics = [(r['variant'], metrics_of(r, recall)) for r in results]
    where = 'equal recall' if recall is None else f'a recall of {recall:.0%}'
    for axes, (name, title) in zip(row_of(figure, len(BARS)), BARS.items()):
        for i, variant in enumerate(variants):
            values = [m[name] for v, m in metrics if v == variant]
            real = [v for v in values if v is not None]
            if real:
                axes.bar(i, float(np.mean(real)), color=COLORS[i % len(COLORS)], alpha=0.6)
                axes.plot([i] * len(real), real, 'o', color='#333333', markersize=4)
        axes.set_title(title.format(recall=where), fontsize='medium')
        axes.set_xticks(range(len(variants)), variants, rotation=45, ha='right')
        axes.grid(axis='y', alpha=0.3)
    return figure


def draw_confusions(results: list[Result], pair: tuple[str, str]) -> Figure:
    """Draw confusion matrices summed over seeds; rows are the truth and sum to 1."""
    figure = Figure((10, 4.6), layout='constrained')
    for axes, variant in zip(row_of(figure, 2), pair):
        mine = [r['confusion'] for r in results if r['variant'] == variant]
        counts = np.sum([c['matrix'] for c in mine], 0)
        curves.draw_confusion(axes, counts, mine[0]['classes'][:-1])
        axes.set_title(variant)
    return figure


def draw_embeddings(
    arrays: list[Arrays], pair: tuple[str, str], classes: tuple[str, ...],
) -> Figure:
    """Draw the objects' pooled features on their own two principal components, by class."""
    figure = Figure((11, 5), layout='constrained')
    for axes, found, title in zip(row_of(figure, 2), arrays, pair):
        labels = found['feature_labels']
        if len(labels):
            points = project(found['features'])
            # Rare classes are drawn last, on top of the others.
            for label in np.argsort(-np.bincount(labels, minlength=len(classes)), kind='stable'):
                x, y = points[labels == label].T
                axes.scatter(x, y, s=7, alpha=0.6, linewidths=0, label=classes[label],
                             color=COLORS[1 + label % (len(COLORS) - 1)])
        axes.set(title=title, xlabel='component 1', ylabel='component 2')
    curves.add_legend(figure)
    return figure


def write_triptychs(
    found: list[list[Detections]], pair: tuple[str, str], coco: CocoSet,
    normalization: Normalization, path: Path,
) -> Path:
    """
    Draw reference, variant and truth side by side (CGDet's figure 3) and return the file.

    found: the detections of both in all frames. The frames are those in which the numbers of
    correct detections differ most, half in favor of each.
    """
    right = [np.array([_right(f, r) for f, r in zip(part, coco.images)]) for part in found]
    gain = right[1] - right[0]
    chosen = choose(gain, TRIPTYCHS // 2) + choose(-gain, TRIPTYCHS // 2)
    rows = []
    # If nothing differs, the first frames are drawn.
    for i in chosen or list(range(min(len(coco.images), TRIPTYCHS // 2))):
        record = coco.images[i]
        real = int((record.crowd == 0).sum())
        rows.append([*(_picture(record, part[i], normalization, f'{title}: {count[i]} of {real}')
                       for part, title, count in zip(found, pair, right)),
                     _truth(record, coco.classes, normalization)])
    return _write(rows, path)


def write_failures(
    found: list[Detections], title: str, coco: CocoSet, normalization: Normalization, path: Path,
) -> Path:
    """Draw the frames with most misses and false boxes above the truth (CGDet's figure 4)."""
    wrong, captions = [], []
    for detections, record in zip(found, coco.images):
        right = _right(detections, record)
        missed = int((record.crowd == 0).sum()) - right
        false = len(detections) - right - int((match(detections, record) == -2).sum())
        wrong.append(missed + false)
        captions.append(f'{title}: {missed} missed, {false} false')
    chosen = choose(np.array(wrong), FAILURES) or [0]
    top = [_picture(coco.images[i], found[i], normalization, captions[i]) for i in chosen]
    bottom = [_truth(coco.images[i], coco.classes, normalization) for i in chosen]
    return _write([top, bottom], path)


def _right(found: Detections, record: ImageRecord) -> int:
    """Return the number of detections that match an object and its class."""
    objects = match(found, record)
    hit = objects >= 0
    return int((record.labels[objects[hit]] == found.labels[hit]).sum())


def _truth(record: ImageRecord, classes: tuple[str, ...], normalization: Normalization) -> Picture:
    truth = Detections(record.boxes, np.ones(len(record.labels), np.float32), record.labels)
    return _picture(record, truth, normalization, 'truth:', classes)


def _picture(
    record: ImageRecord, found: Detections, normalization: Normalization, caption: str,
    legend: tuple[str, ...] = (),
) -> Picture:
    """Draw boxes in the color of their class, and a caption in a strip below the frame."""
    gray = drawing.as_seen(record.read(), normalization)
    scale = WIDTH / gray.shape[1]
    fitted = np.empty((max(1, round(gray.shape[0] * scale)), WIDTH), np.uint8)
    resize(gray, fitted)
    picture = cv2.cvtColor(fitted, cv2.COLOR_GRAY2BGR)
    # Names and scores would hide small objects in crowded frames.
    colors = drawing.COLORS
    for box, label in zip(np.rint(found.boxes * scale).astype(int), found.labels):
        cv2.rectangle(picture, box[:2].tolist(), box[2:].tolist(), colors[label % len(colors)], 1)
    strip = curves.write_caption(caption, WIDTH)
    x = 4 + curves.text_width(caption)
    for label, name in enumerate(legend):
        x = curves.write_text(strip, name, x + 10, colors[label % len(colors)])
    return np.vstack([picture, strip])


def _write(rows: list[list[Picture]], path: Path) -> Path:
    height = max(p.shape[0] for row in rows for p in row)
    padded = [np.hstack([cv2.copyMakeBorder(
        p, 0, height - p.shape[0], 0, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for p in row]) for row in rows]
    return drawing.save_picture(path, np.vstack(padded))
