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

"""The report of an evaluation: one HTML page without network, computed from `Evaluation`."""

import base64
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
import json
import math
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import counts_text
from cgdet_core.detection.analysis import APART, choose, confusions, Mistakes, mistakes
from cgdet_core.detection.metrics import Report
from cgdet_core.detection.results import decimals, Evaluation
from cgdet_core.detection.scores import (
    best_threshold,
    calibration_error,
    FLOOR,
    Judged,
    reliability,
)
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.drawing import to_picture
from cgdet_core.words import counted
import cv2
import numpy as np
from numpy.typing import NDArray

PAGE = Path(__file__).parent / 'page'
MAX_DETECTIONS = 200_000  # in the page, those of the highest scores
WORST = 6  # frames of each kind of mistake
SIDE = 800  # pixels of a picture
PICTURE_BYTES = 150_000
KINDS = {'missed': 'objects', 'false': 'detections', 'confused': 'detections',
         'bad box': 'detections'}  # where `Mistakes` counts a kind


def write_page(evaluation: Evaluation, path: Path) -> None:
    """Write the page; an existing file is replaced."""
    about = evaluation.about
    title = f'{about["model"]} on {", ".join(p.name for p in evaluation.sets)}'
    # "<" in a string of the data would end the script element.
    data = json.dumps(page_data(evaluation), ensure_ascii=False, allow_nan=False).replace(
        '<', '\\u003c').replace('\u2028', '\\u2028').replace('\u2029', '\\u2029')
    parts = {name: (PAGE / name).read_text(encoding='utf-8')
             for name in ('report.html', 'style.css', 'page.js')}
    before, _, after = parts['report.html'].partition('{{data}}')
    page = [before.replace('{{style}}', parts['style.css']).replace('{{title}}', escape(title)),
            data, after.replace('{{script}}', parts['page.js'])]
    write_atomically(path, ''.join(page).encode('utf-8', 'replace'))


def page_data(evaluation: Evaluation) -> dict[str, Any]:
    """Return all that the page shows, ready for JSON."""
    card, records, found = evaluation.card, evaluation.records, evaluation.found
    judged = evaluation.judged
    # Without low scores, where there are too many for a page.
    floor = 0.0 if len(judged.scores) <= MAX_DETECTIONS else float(
        np.partition(judged.scores, -MAX_DETECTIONS)[-MAX_DETECTIONS])
    classes = [_class(judged, card, label, evaluation.report, floor)
               for label in range(len(card.classes))]
    settings = {key: np.array([c[key] for c in classes], np.float32)
                for key in ('threshold', 'best')}
    return {
        'model': evaluation.about['model'], 'data': [p.name for p in evaluation.sets],
        'date': f'{datetime.fromisoformat(evaluation.about["date"]):%Y-%m-%d %H:%M %Z}',
        'frames': len(records), 'floor': floor, 'classes': classes,
        'others': evaluation.report.get('other_classes', {}),
        'overall': {k: evaluation.report[k] for k in ('AP', 'AP50')},
        'confusion': {key: confusions((f.above(minimum) for f in found), records,
                                      len(classes)).tolist()
                      for key, minimum in settings.items()},
        'groups': _groups(evaluation), **_worst(evaluation),
        'notes': _notes(evaluation, judged, floor), 'about': _about(evaluation),
        'card': {k: v for k, v in card.to_dict().items() if k != 'accuracy'}}


def _class(
    judged: Judged, card: DetectionCard, label: int, report: Report, floor: float,
) -> dict[str, Any]:
    """
    Return the numbers of a class and its detections, best first.

    right: a digit for each of scores, 1 for a right detection. best: threshold of the largest F1.
    """
    name = card.classes[label]
    threshold = card.class_thresholds.get(name, card.score_threshold)
    mine = np.flatnonzero((judged.labels == label) & (judged.scores >= floor))
    mine = mine[np.argsort(-judged.scores[mine], kind='stable')]
    objects = int(judged.objects[label])
    return {
        'name': name, 'objects': objects, 'threshold': threshold,
        'best': best_threshold(judged, label) if objects and len(mine) else threshold,
        'scores': decimals(judged.scores[mine].astype(np.float32)),
        'right': ''.join(np.where(judged.right[mine], '1', '0')),
        'reliability': [column.round(5).tolist() for column in reliability(judged, label)],
        'ECE': calibration_error(judged, label),
        **{key: report['per_class'][name][key] for key in ('AP', 'AP50')}}


def _groups(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Return AP, AP50 and the numbers of frames and objects by source, time, size and bag."""
    report, records = evaluation.report, evaluation.records
    groups: dict[str, list[dict[str, Any]]] = {}
    for title, entry in (('source', 'source'), ('time of day', 'time_of_day')):
        objects: Counter[str] = Counter()
        for record in records:
            objects[getattr(record, entry)] += int((record.crowd == 0).sum())
        if rows := report.get(f'per_{entry}'):
            groups[title] = [{'name': name, 'frames': row['images'], 'objects': objects[name],
                              'AP': row['AP'], 'AP50': row['AP50']} for name, row in rows.items()]
    areas = np.concatenate([r.areas[r.crowd == 0] for r in records])
    sizes = {'small': (0, 32), 'medium': (32, 96), 'large': (96, math.inf)}  # COCO's
    groups['size'] = [
        {'name': f'{name} ({low} to {high} px)' if high < math.inf else f'{name} (from {low} px)',
         'objects': int(((areas >= low**2) & (areas < high**2)).sum()),
         'AP': report[f'AP_{name}']} for name, (low, high) in sizes.items()]
    if len(bags := report.get('bags', ())) > 1:
        groups['bag'] = [{'name': b['bag'], 'frames': b['images'], 'AP': b['AP'],
                          'AP50': b['AP50']} for b in bags]
    return groups


def _worst(evaluation: Evaluation) -> dict[str, Any]:
    """Return the frames with most mistakes of each kind, and the pictures of these frames."""
    card = evaluation.card
    shown = [found.above(card.thresholds) for found in evaluation.found]
    wrong = [mistakes(found, truth) for found, truth in zip(shown, evaluation.records)]
    places, used = _places(evaluation)
    chosen: dict[str, list[int]] = {}
    for kind, where in KINDS.items():
        cost = np.zeros(used)
        for place, found, marks in zip(places, shown, wrong):
            hit = [mark == kind for mark in getattr(marks, where)]
            # A confident mistake is worse; of missed objects, all are alike.
            cost[place] = sum(hit) if where == 'objects' else found.scores[hit].sum()
        frame_at = {place: i for i, place in enumerate(places)}
        chosen[kind] = [frame_at[place] for place in choose(cost, WORST)]
    wanted = sorted({i for frames in chosen.values() for i in frames})
    pixels = {i: encode(frame, card) for i, frame in evaluation.pixels(set(wanted))}
    wanted = [i for i in wanted if i in pixels]
    return {
        'worst': {kind: [{'picture': wanted.index(i),
                          'count': getattr(wrong[i], where).count(kind)}
                         for i in chosen[kind] if i in pixels] for kind, where in KINDS.items()},
        'mistakes': {kind: sum(getattr(w, where).count(kind) for w in wrong)
                     for kind, where in KINDS.items()},
        'pictures': [_picture(evaluation, i, shown[i], wrong[i], pixels[i]) for i in wanted]}


def _places(evaluation: Evaluation) -> tuple[list[int], int]:
    """Return a place of each frame, those of different bags being far apart, and the end."""
    places: list[int] = []
    for i in range(len(evaluation.records)):
        other = i > 0 and bool(evaluation.stamps) and (
            evaluation.stamps[i][0] != evaluation.stamps[i - 1][0])
        places.append((places[-1] + 1 if places else 0) + (APART if other else 0))
    return places, places[-1] + 1


def _picture(
    evaluation: Evaluation, index: int, found: Detections, wrong: Mistakes, jpeg: str,
) -> dict[str, Any]:
    truth = evaluation.records[index]
    return {'name': evaluation.name(index), 'width': truth.width, 'height': truth.height,
            'jpeg': jpeg,
            'truth': [{'box': _round(box), 'label': int(label), 'kind': kind or 'found'}
                      for box, label, kind, crowd in zip(
                          truth.boxes, truth.labels, wrong.objects, truth.crowd) if not crowd],
            'found': [{'box': _round(box), 'label': int(label), 'score': round(float(score), 3),
                       'kind': kind or 'right'} for box, label, score, kind in zip(
                           found.boxes, found.labels, found.scores, wrong.detections)]}


def _round(box: NDArray[np.float32]) -> list[float]:
    return [round(float(value), 1) for value in box]


def encode(frame: NDArray[Any], card: DetectionCard) -> str:
    """Return a frame as the network sees it, as JPEG in base 64, of limited size."""
    picture = to_picture(frame, card.normalization)
    scale = SIDE / max(picture.shape[:2])
    if scale < 1:
        size = [max(1, round(n * scale)) for n in picture.shape[1::-1]]
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    content = b''
    for quality in (80, 60, 40, 20):
        content = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(content) <= PICTURE_BYTES:
            break
    return base64.b64encode(content).decode()


def _notes(evaluation: Evaluation, judged: Judged, floor: float) -> list[str]:
    """Return what limits the numbers, in sentences."""
    card, names = evaluation.card, [p.name for p in evaluation.sets]
    few = [f'{c} ({n})' for c, n in zip(card.classes, judged.objects) if 0 < n < 100]
    notes = [f'All figures are of {counted(len(judged.objects), "class", "classes")}, '
             f'{counted(int(judged.objects.sum()), "object")} and '
             f'{counted(judged.frames, "frame")}. The ± of precision and recall are 95 % '
             'intervals for independent objects; those of neighboring frames are not independent, '
             'so the real uncertainty is larger.',
             'The threshold of the largest F1 is chosen on these frames: on other frames F1 is '
             'a little lower.']
    if few:
        notes.append(f'Fewer than 100 objects: {", ".join(few)}. Differences of a few percent '
                     'mean nothing for them.')
    others = counts_text(evaluation.report.get('other_classes', {}))
    if others != 'none':
        notes.append(f'The annotations have boxes of classes that the model does not know, which '
                     f'are not measured: {others}. A detection of such an object counts as false.')
    if number := evaluation.report.get('prelabels'):
        notes.append(f'{counted(number, "box", "boxes")} of the annotations came from a model '
                     '(they have a score) and were not checked by a person: the figures compare '
                     'two models there.')
    if empty := [c for c, n in zip(card.classes, judged.objects) if not n]:
        notes.append(f'The frames have no object of {", ".join(empty)}: AP and recall are not '
                     'defined, and every such detection counts as false.')
    fitted = card.training.get('scores')
    if isinstance(fitted, dict) and fitted.get('source') in names:
        notes.append(f"The card's scores and thresholds were fitted on {fitted['source']}, these "
                     'frames: calibration and F1 are better here than on other frames.')
    for name in sorted({*names} & {*_trained_on(card)}):
        notes.append(f'The model was trained on a file named {name}: if these are its frames, the '
                     'figures say nothing about other frames.')
    report = evaluation.report
    for key, words in (('frames_without_annotation', 'frames have no annotation'),
                       ('annotations_without_frame', 'annotated images have no frame'),
                       ('unreadable', 'frames could not be read')):
        if report.get(key):
            notes.append(f'{report[key]} {words} and are not part of the figures.')
    notes += [f'Not evaluated: {failed["error"]}' for failed in report.get('failed', ())]
    if floor:
        notes.append(f'Scores below {floor:.3g} are not in this page, which is limited to '
                     f'{MAX_DETECTIONS} detections.')
    notes.append('A detection is right if it overlaps an object of its class by IoU 0.5, in the '
                 'order of scores; ignore regions count neither way. Average precision does not '
                 'depend on thresholds. Calibration covers raw scores from '
                 f'{FLOOR:g}.')
    return notes


def _trained_on(card: DetectionCard) -> list[str]:
    """Return the names of the training data; the record of a training is free-form."""
    data = card.training.get('data')
    return [*map(str, data)] if isinstance(data, list | tuple) else []


def _about(evaluation: Evaluation) -> list[list[str]]:
    """Return the origin of the figures, rows of title and text."""
    about, card = evaluation.about, evaluation.card
    width, height = card.input_size
    rows: Sequence[tuple[str, Any]] = (
        ('Model', f'{about["model"]}, {card.precision}, input {width}x{height}, '
                  f'{card.parameters / 1e6:.2f} M parameters, {card.gflops:.2f} GFLOPs'),
        ('Model SHA-256', about['model_sha256']), ('Backend', about['backend']),
        ('Data', ', '.join(p.name for p in evaluation.sets)),
        ('Data SHA-256', ', '.join(evaluation.sets.values())),
        ('Trained on', ', '.join(_trained_on(card))),
        ('License of the training data', card.training.get('license')),
        ('Suppression', f'IoU {card.iou_threshold:g}' + (
            f', voting from {card.voting_iou:g}' if card.voting_iou else '')),
        ('Date', about['date']), ('Commit of cgdet', about['commit']),
        ('Command', about['command']))
    return [[title, str(text)] for title, text in rows if text]
