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

"""Figures of evaluation reports: curves, and captions below the worst frames."""

from collections.abc import Mapping, Sequence
from typing import Any

from cgdet_core.detection.scores import (
    best_threshold,
    by_score,
    calibration_error,
    Judged,
    reliability,
)
from cgdet_core.runtime.imaging.drawing import as_text
from cgdet_core.training.figures import save_figure as save_figure
import cv2
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray

# Distinguishable with color blindness (Okabe and Ito, 2008), as drawing.COLORS; then styles.
COLORS = ('#000000', '#d55e00', '#009e73', '#56b4e9', '#e69f00', '#cc79a7', '#0072b2', '#999999')
STYLES = ('-', '--', ':')


def draw_curves(
    results: Sequence[Mapping[str, Any]], variants: list[str], classes: tuple[str, ...],
    judged: Judged | None = None,
) -> Figure:
    """
    Draw precision over recall at IoU 0.5: one panel per class, mean and range over seeds.

    judged: detections, of which a second row shows what a threshold at each score is worth; scores
    from 0.1 to 0.9 are marked in the first.
    """
    rows = 1 if judged is None else 2
    figure = Figure((4.2 * len(classes), 4 * rows), layout='constrained')
    recall = np.linspace(0, 1, 101)
    panels = figure.subplots(rows, len(classes), squeeze=False)
    for axes, name in zip(panels[0], classes):
        for i, variant in enumerate(variants):
            curves = [r['curves'][name] for r in results if r['variant'] == variant]
            curves = [c for c in curves if c is not None]
            if curves:
                color = COLORS[i % len(COLORS)]
                axes.plot(recall, np.mean(curves, 0), STYLES[i // len(COLORS) % len(STYLES)],
                          color=color, label=variant)
                axes.fill_between(recall, np.min(curves, 0), np.max(curves, 0), color=color,
                                  alpha=0.12, linewidth=0)
        axes.set(title=name, xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    if judged is not None:
        for label in range(len(classes)):
            _mark_scores(panels[0, label], judged, label)
            _draw_by_score(panels[1, label], judged, label)
        panels[1, 0].legend(fontsize='small')
    add_legend(figure)
    return figure


def _mark_scores(axes: Axes, judged: Judged, label: int) -> None:
    """Mark where the thresholds 0.1, 0.2 .. 0.9 are on a precision-recall curve."""
    scores, precision, recall, _ = by_score(judged, label)
    marks: dict[int, str] = {}  # several thresholds may show the same detections
    for tenth in range(1, 10):
        shown = int((scores >= tenth / 10).sum())
        if shown:
            marks[shown - 1] = f'{marks.get(shown - 1, "")} .{tenth}'.strip()
    for i, text in marks.items():
        axes.plot(recall[i], precision[i], 'o', color=COLORS[1], markersize=3)
        axes.annotate(text, (recall[i], precision[i]), (3, 3), textcoords='offset points',
                      fontsize='x-small')


def _draw_by_score(axes: Axes, judged: Judged, label: int) -> None:
    """Draw precision, recall and F1 over the score that is the threshold; mark the best F1."""
    scores, *values = by_score(judged, label)
    title = 'no right detection'
    for name, color, value in zip(('precision', 'recall', 'F1'), COLORS[2:], values):
        axes.plot(scores, value, color=COLORS[0] if name == 'F1' else color, label=name,
                  linewidth=2 if name == 'F1' else 1, drawstyle='steps-post')
    if len(scores) and values[2].max() > 0:
        best = best_threshold(judged, label)
        axes.axvline(best, color=COLORS[1], linestyle='--', linewidth=1)
        title = f'largest F1 {values[2].max():.2f} at {best:.2f}'
    axes.set(title=title, xlabel='score threshold', xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)


def draw_confusion(axes: Axes, counts: NDArray[Any], classes: Sequence[str]) -> None:
    """Draw a confusion matrix (classes + 1, classes + 1); rows are the truth and sum to 1."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f'{share[row, column]:.3f}\n{count}', ha='center', va='center',
                  fontsize='small', color='white' if share[row, column] > 0.6 else 'black')
    axes.set(xlabel='detected', ylabel='annotated')
    axes.set_xticks(range(len(counts)), [*classes, 'nothing'])
    axes.set_yticks(range(len(counts)), [*classes, 'background'])


def draw_reliability(judged: Judged, classes: tuple[str, ...]) -> Figure:
    """Draw the share of right detections over the score: one panel per class, 15 bins."""
    figure = Figure((4.2 * len(classes), 4), layout='constrained')
    for label, (axes, name) in enumerate(zip(row_of(figure, len(classes)), classes)):
        score, right, number = reliability(judged, label)
        axes.plot((0, 1), (0, 1), ':', color=COLORS[-1], label='probability')
        axes.plot(score, right, color=COLORS[1], linewidth=1, label='detections')
        axes.scatter(score, right, 8 + 120 * number / max(number.max(initial=0), 1),
                     color=COLORS[1])
        error = calibration_error(judged, label)
        axes.set(title=name if error is None else f'{name}, ECE {error:.3f}', xlabel='score',
                 ylabel='share of right detections', xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
    add_legend(figure)
    return figure


def row_of(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def add_legend(figure: Figure) -> None:
    """Add a legend to the first panel that has curves."""
    for axes in figure.axes:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize='small', markerscale=2)
            return


def write_caption(text: str, width: int) -> NDArray[np.uint8]:
    """Return a strip (24, width, 3) with white text, to be placed below an image."""
    strip = np.zeros((24, width, 3), np.uint8)
    write_text(strip, text, 4, (255, 255, 255))
    return strip


def write_text(strip: NDArray[np.uint8], text: str, x: int, color: tuple[int, int, int]) -> int:
    """Write at x into a strip and return where the text ends."""
    cv2.putText(strip, as_text(text), (x, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1,
                cv2.LINE_AA)
    return x + text_width(text)


def text_width(text: str) -> int:
    return cv2.getTextSize(as_text(text), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]


def draw_corruptions(rows: Sequence[tuple[str, list[float | None], float | None]]) -> Figure:
    """Draw the AP over the strength of each corruption; rows: see `robustness.rows`."""
    figure = Figure((7, 4.5), layout='constrained')
    axes = figure.subplots()
    for number, (name, values, _) in enumerate(rows):
        known = [np.nan if value is None else value for value in values]
        axes.plot(range(len(known)), known, STYLES[number // len(COLORS)], marker='o',
                  markersize=3, color=COLORS[number % len(COLORS)], label=name)
    axes.set(xlabel='strength (0: as recorded)', ylabel='AP', ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right upper', fontsize='small')
    return figure
