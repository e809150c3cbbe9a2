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
Scores that mean something: fit their scaling and thresholds, and measure how well they hold.

A scaled score is the probability that a detection, after suppression, is correct: that it is
matched with an object of its class at IoU >= 0.5, in the order of scores. Detections on ignore
regions count neither way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cgdet_core.data.coco import ImageRecord
from cgdet_core.detection.analysis import Doubles, Ints, match_by_class
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import evaluation_threshold
from cgdet_core.runtime.detection.postprocess import Detections, scale
import numpy as np
from numpy.typing import NDArray

BINS = 15  # of equal width, for the calibration error
FLOOR = 0.05  # raw score of the detections that are fitted, and whose error is measured
MIN_OBJECTS = 20  # of a class, to fit its scores
BLOCKS = 8  # of successive frames, alternately in one of the two folds
MIN_SLOPE = 1e-3


@dataclass(frozen=True)
class Judged:
    """
    The detections (D,) of a set that are right or false.

    shown: whether they reach their threshold; counted: whether their raw score reaches FLOOR.
    objects: number of each class (num_classes,).
    """

    scores: Doubles
    labels: Ints
    right: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    objects: Ints
    frames: int


def judge_all(
    found: Sequence[Detections], records: Sequence[ImageRecord], card: DetectionCard,
) -> Judged:
    """Match the detections of frames, which have the scores of the card."""
    floor = evaluation_threshold(card, FLOOR)
    parts: list[tuple[NDArray[Any], ...]] = [tuple(  # without any frame
        np.empty(0, kind) for kind in (np.float64, np.int64, np.bool_, np.bool_, np.bool_))]
    objects = np.zeros(len(card.classes), np.int64)
    for detections, truth in zip(found, records, strict=True):
        owners = match_by_class(detections, truth)
        columns = (detections.scores.astype(np.float64), detections.labels, owners >= 0,
                   detections.reaching(card.thresholds), detections.reaching(floor))
        parts.append(tuple(column[owners != -2] for column in columns))
        objects += np.bincount(truth.labels[truth.crowd == 0], minlength=len(objects))
    scores, labels, right, shown, counted = (np.concatenate(column) for column in zip(*parts))
    return Judged(scores, labels, right, shown, counted, objects, len(records))


def pool(parts: Sequence[Judged]) -> Judged:
    """Return the detections of several sets as one."""
    columns = ('scores', 'labels', 'right', 'shown', 'counted')
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in columns}
    return Judged(**joined, objects=np.sum([p.objects for p in parts], 0),
                  frames=sum(p.frames for p in parts))


def summarize(judged: Judged, classes: tuple[str, ...]) -> dict[str, Any]:
    """
    Return what the thresholds and scores of a card are worth.

    false_per_frame: false boxes of all classes at the thresholds. per_class.<name>: F1,
    precision, recall and false_per_frame at its threshold, and ECE, the expected calibration
    error (see `reliability`); None where there is nothing to divide by.
    """
    per_class = {}
    for label, name in enumerate(classes):
        shown = judged.right[judged.shown & (judged.labels == label)]
        true, objects = int(shown.sum()), int(judged.objects[label])
        per_class[name] = {
            'F1': _share(2 * true, len(shown) + objects), 'precision': _share(true, len(shown)),
            'recall': _share(true, objects),
            'false_per_frame': _share(len(shown) - true, judged.frames),
            'ECE': calibration_error(judged, label)}
    false = int((judged.shown & ~judged.right).sum())
    return {'false_per_frame': _share(false, judged.frames), 'ECE_bins': BINS,
            'ECE_raw_score_above': FLOOR, 'per_class': per_class}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def reliability(judged: Judged, label: int) -> tuple[Doubles, Doubles, Ints]:
    """Return mean score, share of right detections and their number, in each bin that has any."""
    mine = judged.counted & (judged.labels == label)
    scores, right = judged.scores[mine], judged.right[mine]
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    number = np.bincount(bins, minlength=BINS)
    full = number > 0
    sums = [np.bincount(bins, values, BINS)[full] for values in (scores, right)]
    return sums[0] / number[full], sums[1] / number[full], number[full]


def calibration_error(judged: Judged, label: int) -> float | None:
    """
    Return the expected calibration error of a class; None without detections.

    sum over bins of n / N |share right - mean score| (Guo et al., 2017, arXiv 1706.04599, eq. 3).
    """
    score, right, number = reliability(judged, label)
    return float(number @ np.abs(right - score) / number.sum()) if len(number) else None


def fit(
    found: Sequence[Detections], records: Sequence[ImageRecord], card: DetectionCard,
) -> DetectionCard:
    """
    Return the card with score_scaling and class_thresholds fitted to raw detections.

    Classes of fewer than 20 objects, or without both right and false detections, keep raw
    scores and score_threshold. UserError if there is no other class.
    """
    raw = replace(card, score_scaling={}, class_thresholds={})
    judged = judge_all(found, records, raw)
    scaling = {}
    for label, name in enumerate(card.classes):
        mine = judged.counted & (judged.labels == label)
        if judged.objects[label] >= MIN_OBJECTS and len(set(judged.right[mine].tolist())) == 2:
            slope, offset = fit_scaling(judged.scores[mine], judged.right[mine])
            scaling[name] = {'slope': round(slope, 4), 'offset': round(offset, 4)}
    if not scaling:
        counts = ', '.join(f'{c} {n}' for c, n in zip(card.classes, judged.objects))
        raise UserError(f'The frames have too few objects to fit scores ({counts}); a class '
                        f'requires {MIN_OBJECTS}, and right and false detections.')
    fitted = replace(raw, score_scaling=scaling)
    judged = judge_all([scaled(f, fitted) for f in found], records, fitted)
    thresholds = {name: best_threshold(judged, card.classes.index(name)) for name in scaling}
    return replace(fitted, class_thresholds=thresholds)


def fit_scaling(scores: Doubles, right: NDArray[np.bool_]) -> tuple[float, float]:
    """
    Return slope and offset of maximum likelihood (see `postprocess.scale`), slope > 0.

    The targets are Platt's, (n + 1) / (n + 2) and 1 / (m + 2) for n right and m false detections,
    so that few detections do not give certain ones.
    """
    from scipy.optimize import minimize

    values = np.clip(scores, 1e-7, 1 - 1e-7)
    logits = np.log(values) - np.log1p(-values)
    n, m = right.sum(), (~right).sum()
    targets = np.where(right, (n + 1) / (n + 2), 1 / (m + 2))

    def loss(x: Doubles) -> tuple[float, Doubles]:
        z = x[0] * logits + x[1]
        error = 1 / (1 + np.exp(-z)) - targets
        value = float(np.mean(np.logaddexp(0, z) - targets * z))
        return value, np.array([np.mean(error * logits), np.mean(error)])

    found = minimize(loss, (1.0, 0.0), jac=True, method='L-BFGS-B',
                     bounds=[(MIN_SLOPE, None), (None, None)])
    return float(found.x[0]), float(found.x[1])


def best_threshold(judged: Judged, label: int) -> float:
    """Return the score of the largest F1 of a class, halfway to the next lower score."""
    scores, _, _, f1 = by_score(judged, label)
    best = int(f1.argmax())
    lower = scores[best + 1] if best + 1 < len(scores) else 0.0
    return round(float(scores[best] + lower) / 2, 4)


def by_score(judged: Judged, label: int) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """
    Return the different scores of a class, high to low, with precision, recall and F1.

    They are those of a threshold that shows the detections of this score and all above it; recall
    is 0 without objects.
    """
    mine = judged.labels == label
    order = np.argsort(-judged.scores[mine], kind='stable')
    scores, right = judged.scores[mine][order], judged.right[mine][order]
    number = np.arange(1, len(scores) + 1)
    last = np.append(scores[1:] < scores[:-1], True)[:len(scores)]  # of equal scores, all
    true, objects = right.cumsum(), judged.objects[label]
    return (scores[last], (true / number)[last], (true / max(objects, 1))[last],
            (2 * true / (number + objects))[last])


def scaled(found: Detections, card: DetectionCard) -> Detections:
    """Return detections with raw scores as the card scales them, best first."""
    if card.scaling is None:
        return found
    scores = scale(found.scores, card.scaling[found.labels])
    order = np.argsort(-scores, kind='stable')
    return Detections(found.boxes[order], scores[order], found.labels[order])


def cross_fit(
    found: Sequence[Detections], records: Sequence[ImageRecord], card: DetectionCard,
    fitted_to: Sequence[Detections] | None = None,
) -> Judged:
    """
    Judge raw detections by scores and thresholds that were fitted on other frames.

    Frames in the order of their names are cut into 8 blocks; those with even and with odd
    numbers are fitted on each other. fitted_to: raw detections of the model that is fitted, by
    default the same.
    """
    source = found if fitted_to is None else fitted_to
    order = sorted(range(len(records)), key=lambda i: records[i].path.as_posix())
    blocks = np.array_split(np.array(order), BLOCKS)
    folds = [np.concatenate(blocks[start::2]).tolist() for start in (0, 1)]
    parts = []
    for mine, others in (folds, folds[::-1]):
        fitted = fit([source[i] for i in others], [records[i] for i in others], card)
        parts.append(judge_all([scaled(found[i], fitted) for i in mine],
                               [records[i] for i in mine], fitted))
    return pool(parts)
