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

"""Comparison of two models on the same frames: differences of detections, and AP."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import tee
import logging
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.data.sources import Frame
from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.detection.predict import attempt
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector, evaluation_threshold
from cgdet_core.runtime.detection.postprocess import Detections, iou
from cgdet_core.words import counted
import numpy as np
from numpy.typing import NDArray

IOU = 0.5  # minimum for two boxes of a class to show the same object
WORST = 10  # frames listed in the report
_log = logging.getLogger(__name__)


class NothingFound(UserError):
    """Neither model detected an object, so nothing was compared."""


@dataclass(frozen=True)
class Tolerances:
    """
    How much a model may differ from the one it was made from.

    A detection is off if the other model has no counterpart, if a corner is more than `corner`
    source pixels away, or if the scores differ by more than `score`. `off` is the maximum
    fraction of detections that are off, and `ap_drop` the maximum drop of AP, a fraction.
    """

    corner: float
    score: float
    off: float
    ap_drop: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise UserError(f'The tolerance {name} must not be negative, but is {value}.')


# By the model's precision. docs/decisions/0012 explains why the fraction of detections that are
# off is limited and not the largest difference.
TOLERANCES = {
    'fp32': Tolerances(corner=0.05, score=0.001, off=0.001, ap_drop=0.0005),
    'fp16': Tolerances(corner=1.0, score=0.01, off=0.01, ap_drop=0.001),
    'int8': Tolerances(corner=6.0, score=0.15, off=0.10, ap_drop=0.010),
}


@dataclass
class Difference:
    """Differences of two models on a frame; corner in source pixels, score, both (P,)."""

    name: str
    corner: NDArray[np.float32]
    score: NDArray[np.float32]
    missing: int
    extra: int

    def off(self, tolerances: Tolerances) -> int:
        far = (self.corner > tolerances.corner) | (self.score > tolerances.score)
        return int(far.sum()) + self.missing + self.extra

    def badness(self, tolerances: Tolerances) -> tuple[int, float]:
        """Return a sort key: detections that are off, then largest difference per tolerance."""
        worst = [float(values.max(initial=0.0)) / max(limit, 1e-9) for values, limit in (
            (self.corner, tolerances.corner), (self.score, tolerances.score))]
        return self.off(tolerances), max(worst)


def verify(
    model: Detector, against: Detector, frames: Iterable[Frame],
    tolerances: Tolerances | None = None, score_threshold: float | None = None,
) -> dict[str, Any]:
    """
    Compare the detections of a model with those of the one it was made from.

    A detection counts if its score is at least `score_threshold` (by default the cards', which
    must then agree); its counterpart may have any score. tolerances: by default those of the
    precision of the model's card. AP needs truth and torch; the report states why it is missing.
    The report's `passed` and `failures` (clauses) state whether the tolerances hold. UserError:
    models of different classes, no frames, or no detections in them.
    """
    tolerances = tolerances or TOLERANCES[model.card.precision]
    threshold = check_pair(model.card, against.card, score_threshold)
    minimum = model.card.shown_threshold if score_threshold is None else score_threshold
    differences, scored, unreadable = [], [], 0
    both = zip(*(attempt(detector, shown, evaluation_threshold(detector.card))
                 for detector, shown in zip((against, model), tee(_all(frames)))))
    for (frame, first), (_, second) in both:
        if isinstance(first, UserError) or isinstance(second, UserError):
            unreadable += 1
            _log.warning('%s The frame is left out.', first if isinstance(first, UserError)
                         else second)
            continue
        differences.append(difference(frame.name, first, second, threshold))
        if frame.truth is not None:
            scored.append((first, second, frame.truth))
    if not differences:
        raise UserError('There are no frames to compare the models on.')
    report: dict[str, Any] = {
        'model': model.card.name, 'precision': model.card.precision,
        'backend': model.session.describe(), 'against': against.card.name,
        'against_precision': against.card.precision,
        'against_backend': against.session.describe(), 'frames': len(differences),
        'unreadable': unreadable,
        'score_threshold': minimum, 'tolerances': asdict(tolerances),
        **_summary(differences, tolerances), **_precision(scored, model.card.classes)}
    if not report['detections']:
        raise NothingFound(f'Neither model has a detection with a score of at least '
                           f'{threshold_words(minimum)} in {counted(len(differences), "frame")}; '
                           'choose frames with objects or a lower score threshold.')
    report['failures'] = _failures(report, tolerances)
    report['passed'] = not report['failures']
    return report


def _all(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield frames to the end of their source; a damaged rest is one that cannot be read."""
    some = False
    try:
        for frame in frames:
            yield frame
            some = True
    except UserError as error:
        if not some:
            raise
        yield Frame('', partial(_fail, error))


def _fail(error: UserError) -> NDArray[Any]:
    raise error


def check_pair(
    model: DetectionCard, against: DetectionCard, score_threshold: float | None,
) -> float | NDArray[np.float32]:
    """
    Return the minimum score of detections, one or (num_classes,).

    UserError if the models cannot be compared.
    """
    for name in ('classes', 'channels'):
        ours, theirs = getattr(model, name), getattr(against, name)
        if ours != theirs:
            ours, theirs = (', '.join(v) if isinstance(v, tuple) else v for v in (ours, theirs))
            raise UserError(f'The models have different {name}, {ours} and {theirs}; they cannot '
                            'be compared.')
    if score_threshold is not None:
        return score_threshold
    if model.thresholds.tolist() != against.thresholds.tolist():
        ours, theirs = (threshold_words(card.shown_threshold) for card in (model, against))
        raise UserError(f"The cards' score thresholds differ, {ours} and {theirs}; choose one.",
                        'score_threshold')
    return model.thresholds


def threshold_words(shown: float | dict[str, float]) -> str:
    """Return a threshold, one or by class, for messages."""
    if isinstance(shown, dict):
        return ', '.join(f'{value:g} ({name})' for name, value in shown.items())
    return f'{shown:g}'


def difference(
    name: str, first: Detections, second: Detections, threshold: float | NDArray[np.float32],
) -> Difference:
    one, other, missing, extra = match(first, second, threshold)
    corner = np.abs(first.boxes[one] - second.boxes[other])
    score = np.abs(first.scores[one] - second.scores[other])
    return Difference(name, corner.max(1, initial=0.0), score, missing, extra)


def match(
    first: Detections, second: Detections, threshold: float | NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
    """
    Pair detections of the same class, best overlap first.

    One of each pair has a score of at least `threshold`, the other any score, so that a score
    just below the threshold is a small difference and not a missing object. Returns the indices
    of the pairs (P,) in the first and second detections, and how many of each remain alone.
    """
    shared = iou(first.boxes, second.boxes)
    sure = first.reaching(threshold), second.reaching(threshold)
    fits = ((shared >= IOU) & (first.labels[:, None] == second.labels)
            & (sure[0][:, None] | sure[1]))
    rows, columns = np.nonzero(fits)
    pairs: list[tuple[int, int]] = []
    free = np.ones(len(first), bool), np.ones(len(second), bool)
    for k in np.argsort(-shared[rows, columns], kind='stable'):
        i, j = int(rows[k]), int(columns[k])
        if free[0][i] and free[1][j]:
            free[0][i] = free[1][j] = False
            pairs.append((i, j))
    indices = np.array(pairs, np.int64).reshape(-1, 2)
    return (indices[:, 0], indices[:, 1],
            int((free[0] & sure[0]).sum()), int((free[1] & sure[1]).sum()))


def scenes(card: DetectionCard, count: int = 16) -> Iterator[Frame]:
    """Yield synthetic 16-bit frames of the model's input size."""
    for i in range(count):
        kelvin, _, _ = Scene.random(i, *card.input_size).render()
        yield Frame(f'synthetic scene {i}', partial(to_counts, kelvin))


def failure(report: dict[str, Any]) -> str:
    """Return a sentence that states why a model did not pass."""
    return (f'{report["model"]} ({report["precision"]}) differs too much from '
            f'{report["against"]}: {"; ".join(report["failures"])}.')


def _summary(differences: list[Difference], tolerances: Tolerances) -> dict[str, Any]:
    missing, extra = sum(d.missing for d in differences), sum(d.extra for d in differences)
    matched = sum(len(d.score) for d in differences)
    total = matched + missing + extra
    off = sum(d.off(tolerances) for d in differences)
    worst = sorted(differences, key=lambda d: d.badness(tolerances), reverse=True)[:WORST]
    return {
        'detections': total, 'matched': matched, 'missing': missing, 'extra': extra,
        'matched_share': matched / total if total else None,
        'off': off, 'off_share': off / total if total else None,
        'corner_px': _percentiles([d.corner for d in differences]),
        'score': _percentiles([d.score for d in differences]),
        'worst_frames': [
            {'name': d.name, 'off': d.off(tolerances), 'missing': d.missing, 'extra': d.extra,
             'corner_px': float(d.corner.max(initial=0.0)),
             'score': float(d.score.max(initial=0.0))} for d in worst]}


def _precision(
    scored: list[tuple[Detections, Detections, ImageRecord]], classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return AP and AP50 of both and the drop, or the reason why there is no AP."""
    why = 'the frames have no annotations'
    if any((truth.crowd == 0).any() for _, _, truth in scored):
        try:
            from cgdet_core.detection.metrics import evaluate
        except ModuleNotFoundError as error:
            why = f'the module {error.name} is missing'
        else:
            coco = CocoSet(Path(), [truth for _, _, truth in scored], classes)
            first = evaluate([found for found, _, _ in scored], coco)
            second = evaluate([found for _, found, _ in scored], coco)
            return {name: {'against': first[name], 'model': second[name],
                           'drop': first[name] - second[name]} for name in ('AP', 'AP50')}
    return {'AP': None, 'AP50': None, 'why_no_AP': why}


def _percentiles(parts: list[NDArray[np.float32]]) -> dict[str, float | None]:
    values = np.concatenate(parts)
    if not len(values):
        return dict.fromkeys(('p50', 'p99', 'max'))
    return dict(zip(('p50', 'p99', 'max'), np.percentile(values, (50, 99, 100)).tolist()))


def _failures(report: dict[str, Any], tolerances: Tolerances) -> list[str]:
    failures = []
    if report['off_share'] > tolerances.off:
        failures.append(
            f'{report["off"]} of {report["detections"]} detections '
            f'({report["off_share"]:.1%}, at most {tolerances.off:.1%}) have no counterpart, are '
            f'more than {tolerances.corner:g} px away or differ by more than '
            f'{tolerances.score:g} in score')
    if report['AP'] and report['AP']['drop'] > tolerances.ap_drop:
        failures.append(f'AP is {report["AP"]["drop"]:.4f} lower (at most '
                        f'{tolerances.ap_drop:g})')
    return failures
