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

"""Average precision over many bags, with its curves and images of the worst frames."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
import logging
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.data.bags.io import bag_name
from cgdet_core.data.bags.truth import truth_by_stamp
from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.data.sources import bag_frames
from cgdet_core.detection import bag_detection
from cgdet_core.detection.analysis import APART, choose, match_by_class
from cgdet_core.detection.bag_detection import BagDetections, detect_bag, Job, RayFailed
from cgdet_core.detection.curves import draw_curves, draw_reliability, save_figure, write_caption
from cgdet_core.detection.metrics import curves, evaluate, Report
from cgdet_core.detection.results import Evaluation, hashes
from cgdet_core.detection.scores import Judged, summarize
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import write_json
from cgdet_core.runtime.imaging.drawing import draw_truth, line_width, save_picture
from cgdet_core.runtime.imaging.signal import CARD
import numpy as np
from numpy.typing import NDArray

WORST = 12  # frames
CURVES = 7  # bags next to the total, those of the lowest AP50
_log = logging.getLogger(__name__)


@dataclass
class Bag:
    """A bag with its annotations, and its detections or the error message."""

    path: Path
    name: str
    truth: dict[int, ImageRecord] = field(default_factory=dict)  # by stamp in nanoseconds
    result: BagDetections = field(default_factory=lambda: BagDetections([]))
    unit: str = CARD  # of its frames, and their polarity
    polarity: str = ''

    @property
    def error(self) -> str | None:
        return self.result.error

    @property
    def records(self) -> list[ImageRecord]:
        return [self.truth[stamp] for stamp, _ in self.result.found]

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of frames and annotated records of the bag that are not evaluated."""
        result = self.result
        return {'frames_without_annotation': result.unknown,
                'annotations_without_frame':
                    len(self.truth) - len(result.found) - len(result.unreadable),
                'frames_with_repeated_stamp': result.repeated,
                'unreadable_frames': len(result.unreadable)}

    @property
    def detections(self) -> list[Detections]:
        return [found for _, found in self.result.found]


@dataclass(frozen=True)
class Outcome:
    """
    The errors in a frame, of detections that reach the card's threshold.

    cost: 1 for every missed object, its score for every false detection. A detection is correct
    if it overlaps a free object of its class, IoU >= 0.5; one on an ignore region costs nothing.
    """

    missed: NDArray[np.int64]  # indices of objects
    false: NDArray[np.int64]  # indices of detections
    cost: float


def open_bags(
    paths: Sequence[Path], sets: Sequence[CocoSet], unit: str | None = None,
) -> list[Bag]:
    """
    Open the annotations of every bag; a failure is stored as the bag's error.

    unit: of the frames, by default the one that the annotations state.
    """
    names = [bag_name(p) for p in paths]
    bags = []
    for path, name in zip(paths, names):
        bag = Bag(path, name if names.count(name) == 1 else path.as_posix())
        try:
            bag.truth = truth_by_stamp(path, *sets)
            bag.unit, bag.polarity = _signal(bag, unit)
        except UserError as error:
            bag.result = BagDetections([], str(error))
        bags.append(bag)
    return bags


def _signal(bag: Bag, unit: str | None) -> tuple[str, str]:
    """Return unit and polarity of a bag's frames; UserError if its annotations state several."""
    found = {(unit or record.unit, record.polarity) for record in bag.truth.values()}
    if len(found) > 1:
        raise UserError(f'The annotations of {bag.path} state several units or polarities of its '
                        'frames.')
    return found.pop()


def detect_bags(
    bags: Sequence[Bag], detector: Detector, model: Path, topic: str | None, workers: int | None,
    address: str | None, progress: Callable[[int], None], failed: Callable[[str], None],
) -> None:
    """
    Detect in all bags and store results and errors in them.

    workers: number of processes, None for one per core; one worker or one bag does not require
    Ray. Detections depend on neither. `failed` is called immediately with each bag's error.
    """
    for bag in bags:
        if bag.error:
            failed(bag.error)
    jobs = [(i, Job(b.path, frozenset(b.truth), topic, b.unit, b.polarity))
            for i, b in enumerate(bags) if not b.error]
    if not jobs:
        return

    def keep(results: Iterable[tuple[int, BagDetections]]) -> None:
        for number, result in results:
            bags[number].result = result
            if result.error:
                failed(result.error)
            for sentence in result.unreadable:
                _log.warning('%s The frame is left out.', sentence)

    if address is not None or (len(jobs) > 1 and workers != 1):
        try:
            keep(bag_detection.detect_in_parallel(model, jobs, workers or 0, address, progress))
            return
        except RayFailed as error:
            if address is not None:
                raise
            failed(f'{error} The bags are evaluated one after the other.')
    keep((number, detect_bag(detector, job, progress)) for number, job in jobs)


def score_bags(bags: Sequence[Bag], classes: tuple[str, ...], path: Path) -> Report:
    """
    Return AP over the frames of all bags together, and `bags` with the AP of each.

    path: of the annotations, for the set that is scored. Bags with an error are in `failed`.
    """
    good = [b for b in bags if not b.error]
    if not good:
        raise UserError(f'None of the {len(bags)} bags could be evaluated.')
    pooled = CocoSet(path, [r for b in good for r in b.records], classes)
    total = evaluate([d for b in good for d in b.detections], pooled)
    parts = [{'bag': b.name, **b.counts, 'unreadable': b.result.unreadable,
              **evaluate(b.detections, replace(pooled, images=b.records))} for b in good]
    counts = {name: sum(b.counts[name] for b in good) for name in good[0].counts}
    return {**counts, 'unreadable': sum(len(b.result.unreadable) for b in good), **total,
            'bags': parts,
            'failed': [{'bag': b.name, 'error': b.error} for b in bags if b.error]}


def without_frame(bags: Sequence[Bag]) -> int:
    """Return the number of annotated frames that are in none of the bags without an error."""
    good = [bag for bag in bags if not bag.error]
    listed = {id(record) for bag in good for record in bag.truth.values()}
    found = {id(record) for bag in good for record in bag.records}
    return max(0, len(listed - found) - sum(len(bag.result.unreadable) for bag in good))


def evaluation_of(
    bags: Sequence[Bag], report: Report, about: dict[str, Any], card: DetectionCard,
    sets: Sequence[CocoSet], images: Path | None, topic: str | None,
) -> Evaluation:
    """Return the results of the bags without an error."""
    good = [b for b in bags if not b.error]
    return Evaluation(
        about, card, hashes(sets), images, [r for b in good for r in b.records],
        [d for b in good for d in b.detections], report,
        [(b.path, stamp) for b in good for stamp, _ in b.result.found], topic)


def write_results(bags: Sequence[Bag], results: Evaluation, output: Path) -> None:
    """
    Write report.json, pr_curve.png, reliability.png and worst/; results: of `evaluation_of`.

    Adds the worst frames, and what the scores of all frames are worth, to the report.
    """
    report, card, judged = results.report, results.card, results.judged
    report['score_threshold'] = card.shown_threshold
    report['scores'] = summarize(judged, card.classes)
    # First, as the images take time and may fail.
    write_json(output / 'report.json', report)
    shutil.rmtree(output / 'worst', ignore_errors=True)
    write_curves(bags, report, card.classes, output / 'pr_curve.png', judged)
    save_figure(draw_reliability(judged, card.classes), output / 'reliability.png')
    report['worst_frames'] = write_worst(bags, card, results.topic, output / 'worst')
    write_json(output / 'report.json', report)


def write_curves(
    bags: Sequence[Bag], report: Report, classes: tuple[str, ...], path: Path,
    judged: Judged | None = None,
) -> Path:
    """
    Draw precision over recall at IoU 0.5: all frames, and the bags of the lowest AP50.

    judged: the detections of all frames, to draw what thresholds are worth.
    """
    good = [b for b in bags if not b.error]
    names = hardest(report['bags'], CURVES) if len(good) > 1 else []
    groups = [('all', good), *((b.name, [b]) for b in good if b.name in names)]
    results = [{'variant': name, 'curves': curves(
        [d for b in group for d in b.detections], [r for b in group for r in b.records], classes)}
        for name, group in groups]
    figure = draw_curves(results, [name for name, _ in groups], classes, judged)
    return save_figure(figure, path)


def hardest(parts: Sequence[Report], count: int) -> list[str]:
    """Return the names of the bags of the lowest AP50; bags without objects do not have one."""
    scored = [part for part in parts if part['AP50'] is not None]
    return [part['bag'] for part in sorted(scored, key=lambda part: part['AP50'])[:count]]


def judge(found: Detections, truth: ImageRecord) -> Outcome:
    """Return the errors of a frame's detections, all of which are counted."""
    objects = match_by_class(found, truth)
    false = np.flatnonzero(objects == -1)
    missed = np.setdiff1d(np.flatnonzero(truth.crowd == 0), objects[objects >= 0])
    return Outcome(missed, false, len(missed) + float(found.scores[false].sum()))


def write_worst(
    bags: Sequence[Bag], card: DetectionCard, topic: str | None, folder: Path, count: int = WORST,
) -> list[dict[str, Any]]:
    """
    Draw the frames of the highest cost, at least 5 apart in a bag, and list them, worst first.

    Detections are drawn with class and score, annotations in white, missed objects thick.
    """
    frames: dict[int, tuple[Bag, int, Detections, Outcome]] = {}  # by place among the costs
    costs: list[float] = []
    for bag in bags:
        for stamp, found in bag.result.found:
            sure = found.above(card.thresholds)
            outcome = judge(sure, bag.truth[stamp])
            frames[len(costs)] = (bag, stamp, sure, outcome)
            costs.append(outcome.cost)
        costs += [0.0] * APART  # frames of different bags are never neighbors
    chosen = [frames[i] for i in choose(np.array(costs), count)]
    listed: list[dict[str, Any]] = [
        {'bag': bag.name, 'stamp_ns': stamp, 'cost': round(outcome.cost, 4),
         'missed': len(outcome.missed), 'false': len(outcome.false),
         'picture': f'{rank:02d}_{bag_name(bag.path)}_{stamp}.png'}
        for rank, (bag, stamp, _, outcome) in enumerate(chosen, 1)]
    for bag in bags:
        mine = {stamp: (rank, sure, outcome) for rank, (owner, stamp, sure, outcome)
                in enumerate(chosen) if owner is bag}
        for frame in bag_frames(bag.path, topic) if mine else ():
            if frame.stamp_ns in mine:
                rank, sure, outcome = mine.pop(frame.stamp_ns)  # the first of repeated stamps
                save_picture(folder / listed[rank]['picture'], _picture(
                    frame.seen(bag.unit, bag.polarity, card.polarity).pixels, sure,
                    bag.truth[frame.stamp_ns], outcome, card,
                    f'{bag.name} {frame.stamp_ns}'))
    return listed


def _picture(
    frame: NDArray[Any], found: Detections, truth: ImageRecord, outcome: Outcome,
    card: DetectionCard, name: str,
) -> NDArray[np.uint8]:
    picture = draw_detections(frame, found, card, truth.boxes)
    draw_truth(picture, truth.boxes[outcome.missed], line_width(picture) + 1)
    words = f'{len(outcome.missed)} missed (thick dashes), {len(outcome.false)} false   {name}'
    return np.vstack([picture, write_caption(words, picture.shape[1])])
