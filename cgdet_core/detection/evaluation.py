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

"""Measure a model on annotated frames, and fit the scores of a network's files to them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
import logging
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet, counts_text
from cgdet_core.data.sources import coco_frames
from cgdet_core.detection.metrics import evaluate, Report
from cgdet_core.detection.predict import attempt
from cgdet_core.detection.results import describe, Evaluation, hashes
from cgdet_core.detection.scores import cross_fit, fit, judge_all, scaled, summarize
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector, evaluation_threshold
from cgdet_core.runtime.detection.postprocess import Detections

_log = logging.getLogger(__name__)


def suppressing(
    card: DetectionCard, iou_threshold: float | None, voting_iou: float | None,
) -> DetectionCard:
    """Return the card with another suppression; None keeps the card's, no voting is 0."""
    if iou_threshold is not None:
        card = replace(card, iou_threshold=iou_threshold)
    return card if voting_iou is None else replace(card, voting_iou=voting_iou or None)


def detect_all(
    detector: Detector, coco: CocoSet, progress: Callable[[int], None] = lambda frames: None,
) -> list[Detections]:
    """
    Return the detections of each frame that average precision needs.

    Frames that cannot be read are removed from the set, and named in the log. UserError if there
    are no boxes, or no frame can be read.
    """
    if not any(coco.boxes().values()):
        raise UserError(f'{coco.path} has no boxes of {", ".join(coco.classes)}; a measurement '
                        'requires labeled frames.')
    if coco.others:
        _log.warning('%s has boxes of classes that the model does not know, which are not '
                     'measured: %s. A detection of such an object counts as false.', coco.path,
                     counts_text(coco.others))
    coco.warn_of_prelabels()
    found, records, errors = [], [], []
    card = detector.card
    coco.check_signal(card.normalization.kind, card.name)
    frames = coco_frames(coco, '*', card.channels, card.polarity)
    for frame, detections in attempt(detector, frames, evaluation_threshold(card)):
        progress(1)
        if isinstance(detections, UserError):
            errors.append(detections)
            continue
        assert frame.truth is not None
        found.append(detections)
        records.append(frame.truth)
    if not found:
        raise errors[0]
    for error in errors:
        _log.warning('%s The frame is left out.', error)
    coco.images = records
    return found


def measure(
    name: str, detector: Detector, found: Sequence[Detections], coco: CocoSet,
) -> Report:
    """Return average precision, and what scores and thresholds of the card are worth."""
    card = detector.card
    return {'model': name, 'data': coco.path.name, 'backend': detector.session.describe(),
            **evaluate(list(found), coco), 'other_classes': coco.others,
            'prelabels': coco.prelabels, 'score_threshold': card.shown_threshold,
            'iou_threshold': card.iou_threshold, 'voting_iou': card.voting_iou,
            'scores': summarize(judge_all(found, coco.images, card), card.classes)}


def evaluation_of(
    model: Path, detector: Detector, found: Sequence[Detections], coco: CocoSet,
    images: Path | None, command: str,
) -> Evaluation:
    """Return the results on a set with their metrics; images: as for `load_coco`."""
    return Evaluation(
        describe(model, detector.session.describe(), command), detector.card, hashes([coco]),
        images, coco.images, found, measure(model.name, detector, found, coco))


def fit_models(
    models: Sequence[Path], detectors: Sequence[Detector], coco: CocoSet,
    progress: Callable[[int], None] = lambda frames: None,
) -> tuple[list[DetectionCard], list[dict[str, Any]]]:
    """
    Fit the scores of the first model, and return new cards and a report for all.

    All are files of one network, for example its precisions, and get the same scaling and
    thresholds. Each report has the metrics of `measure` with the new card, and the scores
    `before` and `cross_fitted` (see `cross_fit`; None if half of the frames are too few). The
    record of accuracy on other sets is dropped, as it was made with other thresholds. UserError
    for a frame that cannot be read.
    """
    if any(d.card.classes != detectors[0].card.classes for d in detectors):
        raise UserError('The models have different classes; fit their scores separately.')
    for detector in detectors:
        detector.card = replace(detector.card, score_scaling={}, class_thresholds={})
    listed = len(coco.images)
    found = [detect_all(detector, coco, progress) for detector in detectors]
    if len(coco.images) < listed:
        raise UserError(f'The cards are unchanged, as {listed - len(coco.images)} of {listed} '
                        'frames could not be read; replace them or leave them out of the set.')
    fitted = fit(found[0], coco.images, detectors[0].card)
    cards, reports = [], []
    for model, detector, raw in zip(models, detectors, found):
        card = detector.card
        before = summarize(judge_all(raw, coco.images, card), card.classes)
        cross = None
        with suppress(UserError):  # half of the frames may be too few
            cross = summarize(cross_fit(raw, coco.images, card, found[0]), card.classes)
        record = {'source': coco.path.name, 'frames': len(coco.images),
                  'model': models[0].name, 'cross_fitted': cross}
        detector.card = replace(card, score_scaling=fitted.score_scaling,
                                class_thresholds=fitted.class_thresholds)
        report = measure(model.name, detector, [scaled(f, detector.card) for f in raw], coco)
        cards.append(replace(detector.card, training={**card.training, 'scores': record},
                             accuracy={coco.path.name: report}))
        reports.append({**report, 'before': before, 'cross_fitted': cross})
    return cards, reports
