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

"""Fit a tracker's scores: the probability that its box is on the target, as it runs on a robot."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgdet_core.data.show import evenly
from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import save_card
from cgdet_core.runtime.tracking.card import EVIDENCE
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.tracker import Look, Tracker
from cgdet_core.tracking.frames import Frame, in_sequences, read_sets, still_rows
from cgdet_core.tracking.overlap import overlap_and_error
from cgdet_core.tracking.recipe import SequenceConfig
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
OVERLAP = 0.5  # from which a box is on the target
RIDGE = 0.05  # keeps the weights of evidence small that says nothing
BINS = 10  # of the calibration error


def calibrate(path: Path, data: Sequence[Path], count: int = 200) -> dict[str, Any]:
    """
    Fit the probability of a tracker's card to annotated frames, write the card, return a report.

    Targets are started in one frame and searched in the same or a neighboring one, and once more
    in a frame that does not show them. Use frames that the model was not trained on.
    """
    model = TrackingModel.load(path)
    looks = [*observe(model, data, count)]
    evidence, correct = _table(looks)
    if len(correct) < 20 or correct.min() == correct.max():
        raise UserError('The frames have too few objects to fit scores; choose more.')
    half = np.arange(len(correct)) // 2 % 2 == 0  # a target's two looks are in the same half
    crossed = np.empty(len(correct))
    for part in (half, ~half):
        crossed[part] = probability(evidence[part], fit(evidence[~part], correct[~part]))
    weights = fit(evidence, correct)
    report = {
        'looks': len(correct), 'correct': float(correct.mean()), 'data': [p.name for p in data],
        'cross_fitted': judge(crossed, correct),
        'fitted': judge(probability(evidence, weights), correct)}
    card = replace(model.card, calibration=dict(zip(EVIDENCE, map(float, weights.round(4)))),
                   accuracy={**model.card.accuracy, 'scores': report})
    save_card(card, path)
    return report


def observe(model: TrackingModel, data: Sequence[Path],
            count: int) -> Iterator[tuple[Look, bool]]:
    """Yield what is found, and whether that is the target; twice as often as `count`."""
    card = model.card
    sets = read_sets(data, card.normalization, card.name, 'rgb' in card.inputs)
    frames, moved = in_sequences(sets, 10.0, SequenceConfig())
    stills = still_rows(frames)
    rows = [*evenly(moved.tolist(), count - count // 3), *evenly(stills.tolist(), count // 3)]
    if len(np.unique(stills[:, 0])) < 3:  # one would show no other object than the target's
        raise UserError('The frames have too few objects to fit scores; choose more.')
    rng = np.random.default_rng(3)
    for one, first, other, second in rows:
        box, truth = (frames[n].boxes[o].astype(np.float64)
                      for n, o in ((one, first), (other, second)))
        tracker = Tracker(model)
        frame, rgb = _read(frames[one], model)
        tracker.start(frame, box, 0.0, rgb=rgb)
        image = model.normalized(*_read(frames[other], model))
        look = tracker.look(image, _moved(truth, rng), wide=True)
        yield look, overlap_and_error(look.box, truth)[0] > OVERLAP
        # An object of another frame, of the target's class where there is one.
        while True:
            far, place = stills[rng.integers(len(stills)), :2].tolist()
            if far not in (one, other):
                break
        yield tracker.look(model.normalized(*_read(frames[far], model)), _moved(
            frames[far].boxes[place].astype(np.float64), rng), wide=True), False


def fit(evidence: Array, correct: Array, steps: int = 30) -> Array:
    """Return the weights (4,) of a logistic regression of `correct` (N,), by Newton's method."""
    weights = np.zeros(evidence.shape[1])
    penalty = RIDGE * np.diag([0.0] + [1.0] * (len(weights) - 1))
    for _ in range(steps):
        found = probability(evidence, weights)
        slope = evidence.T @ (found - correct) + penalty @ weights
        curvature = (evidence * (found * (1 - found))[:, None]).T @ evidence + penalty
        weights = weights - np.linalg.solve(curvature + 1e-6 * np.eye(len(weights)), slope)
    return weights


def probability(evidence: Array, weights: Array) -> Array:
    """Return the probabilities (N,) of rows of evidence (N, 4)."""
    return 1 / (1 + np.exp(-np.clip(evidence @ weights, -50, 50)))


def judge(found: Array, correct: Array) -> dict[str, float]:
    """Return the expected calibration error, the share of right decisions, and AUROC."""
    bins = np.minimum((found * BINS).astype(int), BINS - 1)
    error = sum(abs(found[bins == b].mean() - correct[bins == b].mean()) * (bins == b).mean()
                for b in range(BINS) if (bins == b).any())
    better = found[correct == 1][:, None] - found[correct == 0]
    return {'ECE': float(error), 'right': float(((found > 0.5) == correct).mean()),
            'AUROC': float((better > 0).mean() + 0.5 * (better == 0).mean())}


def _table(looks: Sequence[tuple[Look, bool]]) -> tuple[Array, Array]:
    rows = [(1.0, look.found.score, look.found.quality, look.found.match) for look, _ in looks]
    return np.array(rows), np.array([good for _, good in looks], np.float64)


def _moved(box: Array, rng: np.random.Generator) -> Array:
    """Return a box that is as wrong as a prediction."""
    center, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    center = center + rng.uniform(-0.7, 0.7, 2) * np.sqrt(size.prod())
    size = size * np.exp(rng.uniform(-0.2, 0.2))
    return np.concatenate([center - size / 2, center + size / 2])


def _read(frame: Frame, model: TrackingModel) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Return a thermal frame, and its RGB image if it has one and the model uses it."""
    assert frame.record is not None
    card = model.card
    return (frame.record.read(polarity=card.polarity),
            frame.picture() if 'rgb' in card.inputs else None)
