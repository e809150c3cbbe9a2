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

"""Figures of an ablation: curves, claims, features and annotated frames."""

from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet
from cgdet_core.detection import analysis
from cgdet_core.detection.curves import add_legend, COLORS, draw_curves, row_of, save_figure
from cgdet_core.experiments.measure import Arrays, detections_of
from cgdet_core.experiments.pictures import write_failures, write_triptychs
from cgdet_core.experiments.statistics import common_recall, metrics_of, Result
from cgdet_core.runtime.imaging.normalization import Normalization
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray

BARS = {'duplicates': 'duplicate boxes before NMS\nper found object',
        'duplicates at equal recall': 'duplicate boxes before NMS\nat {recall}',
        'after NMS at equal recall': 'duplicate boxes after NMS\nat {recall}',
        'confused': 'share of matched objects\nwith a wrong class',
        'silhouette': 'silhouette of the classes\namong the features of objects'}


def write_figures(
    results: list[Result], folders: dict[tuple[str, int], Path], pair: tuple[str, str],
    coco: CocoSet, normalization: Normalization, output: Path,
) -> list[Path]:
    """
    Draw the finished runs into `output` and return the files.

    folders: the run of each (variant, seed) of the results. pair: the reference and the variant
    shown next to it; their figures are omitted while no seed of both is finished. Frames are
    drawn for the first such seed.
    """
    variants = list(dict.fromkeys(r['variant'] for r in results))
    figures = {'pr_curves': draw_curves(results, variants, coco.classes),
               'claims': draw_claims(results, variants, common_recall(results, pair[0]))}
    shared = sorted(s for v, s in folders if v == pair[0] and (pair[1], s) in folders)
    pictures: list[Path] = []
    if shared and pair[0] != pair[1]:
        figures['confusion'] = draw_confusions(results, pair)
        arrays = [dict(np.load(folders[name, shared[0]] / 'arrays.npz')) for name in pair]
        titles = (pair[0], pair[1])
        figures['embedding'] = draw_embeddings(arrays, titles, coco.classes)
        found = [[detections_of(a, i) for i in range(len(coco.images))] for a in arrays]
        pictures = [
            write_triptychs(found, titles, coco, normalization, output / 'triptychs.png'),
            write_failures(found[1], pair[1], coco, normalization, output / 'failures.png')]
    paths = [save_figure(figure, output / f'{name}.png') for name, figure in figures.items()]
    return paths + pictures


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
        names = mine[0]['classes']
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            axes.text(column, row, f'{share[row, column]:.3f}\n{count}', ha='center', va='center',
                      fontsize='small', color='white' if share[row, column] > 0.6 else 'black')
        axes.set(title=variant, xlabel='detected', ylabel='annotated')
        axes.set_xticks(range(len(names)), [*names[:-1], 'nothing'])
        axes.set_yticks(range(len(names)), names)
    return figure


def draw_embeddings(
    arrays: list[Arrays], titles: tuple[str, str], classes: tuple[str, ...],
) -> Figure:
    """Draw the objects' pooled features on their own two principal components, by class."""
    figure = Figure((11, 5), layout='constrained')
    for axes, found, title in zip(row_of(figure, 2), arrays, titles):
        labels: NDArray[Any] = found['feature_labels']
        if len(labels):
            points = analysis.project(found['features'])
            # Rare classes are drawn last, on top of the others.
            order = np.argsort(-np.bincount(labels, minlength=len(classes)), kind='stable')
            for label in order:
                mine = labels == label
                axes.scatter(points[mine, 0], points[mine, 1], s=7, alpha=0.6,
                             linewidths=0, label=classes[label],
                             color=COLORS[1 + label % (len(COLORS) - 1)])
        axes.set(title=title, xlabel='component 1', ylabel='component 2')
    add_legend(figure)
    return figure
