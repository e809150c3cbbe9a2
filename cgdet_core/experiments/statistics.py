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

"""Tables of an ablation over seeds: mean, standard deviation and paired differences."""

from collections.abc import Callable
import math
from typing import Any

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95
Result = dict[str, Any]  # the report of `measure`, with `variant` and `seed`

# Column title -> path of its number; the columns of classes and times of day are in between.
ACCURACY = ('AP', 'AP50', 'AP75')
CLAIMS: dict[str, tuple[str, ...]] = {
    'duplicates': ('duplicates', 'before_nms', 'duplicates'),
    'duplicates, relative': ('duplicates', 'before_nms_relative', 'duplicates'),
    'duplicates after NMS': ('duplicates', 'after_nms', 'duplicates'),
    'confused': ('confusion', 'confused'),
    'silhouette': ('separability', 'silhouette'),
    'neighbours': ('separability', 'neighbours'),
}
AT_RECALL = {'duplicates at equal recall': 'before_nms', 'after NMS at equal recall': 'after_nms'}
NOTES = """
Mean and sample standard deviation over seeds; the difference to the first variant is paired by
seed, with Student's t {percent:.0f}% interval (none for one seed; intervals are not corrected for
the number of comparisons). All numbers are those of the averaged weights of the last epoch
(last.ckpt), so nothing was chosen on the validation frames.

- duplicates: boxes before non-maximum suppression beyond the first, per found object (correct
  class, IoU >= 0.5, score >= 0.25); relative: score at least half of the object's best score,
  which does not change if all scores change by one factor; after NMS: as the first.
- at equal recall: duplicates of each detector at the score at which it finds {recall} of the
  objects, about as many as the first variant finds at 0.25. At the same score for all, a
  detector with higher scores has more boxes.
- confused: share of the objects matched at score >= 0.3 and IoU >= 0.5 whose class is wrong.
- silhouette, neighbours: separation of the classes in the pooled pyramid features of annotated
  objects, in [-1, 1], and the fraction of objects with mostly their own class among the 5 nearest
  objects of other frames; both are means over classes.
"""


def common_recall(results: list[Result], reference: str) -> float | None:
    """
    Return the recall at which duplicates are compared: the reference's, rounded down to tenths.

    At most 0.9; None if the reference finds less than a tenth or has no result.
    """
    counts = [r['duplicates']['before_nms'] for r in results if r['variant'] == reference]
    found, objects = (sum(c[key] for c in counts) for key in ('found', 'objects'))
    tenths = min(9, 10 * found // max(1, objects))
    return tenths / 10 if tenths else None


def metrics_of(result: Result, recall: float | None) -> dict[str, float | None]:
    """Return a run's numbers by column title; recall: see `common_recall`."""
    found: dict[str, float | None] = {name: result[name] for name in ACCURACY}
    for group in ('per_class', 'per_time_of_day'):
        found |= {f'AP50 {name}': v['AP50'] for name, v in result.get(group, {}).items()}
    for name, path in CLAIMS.items():
        value: Any = result
        for key in path:
            value = value[key]
        found[name] = value
    for name, where in AT_RECALL.items():
        by_recall = result['duplicates_at_recall'][where]
        found[name] = None if recall is None else by_recall[f'{recall:.1f}']
    return found


def spread(values: list[float]) -> dict[str, float | None]:
    """Return mean and sample standard deviation; None if there are too few values."""
    return {'mean': float(np.mean(values)) if values else None,
            'std': float(np.std(values, ddof=1)) if len(values) > 1 else None}


def paired_difference(
    values: dict[int, float], reference: dict[int, float],
) -> dict[str, float | int | None]:
    """
    Compare two variants over the seeds that both have.

    Returns the mean of the differences, low and high of Student's t confidence interval (None for
    fewer than two seeds), and n, the number of pairs.
    """
    differences = [values[s] - reference[s] for s in sorted(values.keys() & reference.keys())]
    n = len(differences)
    mean, std = spread(differences).values()
    if mean is None or std is None:
        return {'mean': mean, 'low': None, 'high': None, 'n': n}
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n)
    return {'mean': mean, 'low': mean - half, 'high': mean + half, 'n': n}


def summarize(results: list[Result], variants: list[str]) -> dict[str, Any]:
    """
    Summarize finished runs; the first variant is the reference.

    Returns `reference`, `confidence`, `recall` and per variant `seeds` and `metrics`: by column
    mean, std, values by seed and, but for the reference, `difference` (`paired_difference`).
    """
    recall = common_recall(results, variants[0])
    values: dict[str, dict[str, dict[int, float]]] = {v: {} for v in variants}
    seeds: dict[str, list[int]] = {v: [] for v in variants}
    for result in sorted(results, key=lambda r: r['seed']):
        seeds[result['variant']].append(result['seed'])
        for name, value in metrics_of(result, recall).items():
            column = values[result['variant']].setdefault(name, {})
            if value is not None:
                column[result['seed']] = value
    reference = values[variants[0]]
    summary: dict[str, Any] = {}
    for variant in variants:
        metrics: dict[str, dict[str, Any]] = {}
        for name, column in values[variant].items():
            metrics[name] = {**spread(list(column.values())), 'values': column}
            if variant != variants[0]:
                metrics[name]['difference'] = paired_difference(column, reference.get(name, {}))
        summary[variant] = {'seeds': seeds[variant], 'metrics': metrics}
    return {'reference': variants[0], 'confidence': CONFIDENCE, 'recall': recall,
            'variants': summary}


def markdown(summary: dict[str, Any], total: int) -> str:
    """Return a summary as Markdown tables; `total` is the number of runs of the grid."""
    variants = {k: v for k, v in summary['variants'].items() if v['seeds']}
    names = list(dict.fromkeys(n for v in variants.values() for n in v['metrics']))
    claims = [n for n in names if n in (*CLAIMS, *AT_RECALL)]
    accuracy = [n for n in names if n not in claims]
    done = sum(len(v['seeds']) for v in variants.values())
    lines = ['# Ablation', '', f'{done} of {total} runs are finished.']
    others = {k: v for k, v in variants.items() if k != summary['reference']}
    for title, columns in (('Accuracy', accuracy), ("The paper's claims", claims)):
        lines += ['', f'## {title}', '', *_rows(variants, columns, _value)]
        if others and variants.keys() - others.keys():
            lines += ['', f'Difference to {summary["reference"]}:', '',
                      *_rows(others, columns, _difference)]
    return '\n'.join(lines) + '\n' + NOTES.format(
        percent=100 * summary['confidence'],
        recall='the same share' if summary['recall'] is None else f'{summary["recall"]:.0%}')


def _rows(
    variants: dict[str, Any], columns: list[str], cell: Callable[[dict[str, Any]], str],
) -> list[str]:
    lines = ['| | seeds | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 2) + '|']
    for name, variant in variants.items():
        cells = [cell(variant['metrics'].get(c, {})) for c in columns]
        lines.append(f'| {name} | {len(variant["seeds"])} | ' + ' | '.join(cells) + ' |')
    return lines


def _value(metric: dict[str, Any]) -> str:
    if metric.get('mean') is None:
        return '-'
    std = metric['std']
    return f'{metric["mean"]:.3f}' + ('' if std is None else f' ± {std:.3f}')


def _difference(metric: dict[str, Any]) -> str:
    found = metric.get('difference', {})
    if found.get('mean') is None:
        return '-'
    if found['low'] is None:
        return f'{found["mean"]:+.3f}'
    return f'{found["mean"]:+.3f} [{found["low"]:+.3f}, {found["high"]:+.3f}]'
