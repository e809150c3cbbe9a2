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

"""COCO box AP of detections, through faster-coco-eval; fractions, None without objects."""

from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.runtime.detection.postprocess import Detections
from faster_coco_eval import COCO, COCOeval_faster
import numpy as np
from numpy.typing import NDArray

Report = dict[str, Any]
Precision = NDArray[np.float64]  # (IoU 0.5:0.95, recall 0:0.01:1), -1 without objects
OVERALL = ('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large')  # order of COCO's values


def average_precision(
    detections: list[Detections], records: list[ImageRecord], classes: tuple[str, ...],
) -> Report:
    """Return AP, AP50, AP75, AP_small/medium/large and per_class.<name>.{AP, AP50}."""
    overall, precision = _compute(detections, records, classes)
    return {**{name: None if value < 0 else value for name, value in overall.items()},
            'per_class': {name: {'AP': _mean(p), 'AP50': _mean(p[0])}
                          for name, p in precision.items()}}


def curves(
    detections: list[Detections], records: list[ImageRecord], classes: tuple[str, ...],
) -> dict[str, list[float] | None]:
    """Return each class's precision at recall 0, 0.01 .. 1, IoU 0.5; None without objects."""
    _, precision = _compute(detections, records, classes)
    return {name: p[0].tolist() if bool((p[0] > -1).all()) else None
            for name, p in precision.items()}


def evaluate(detections: list[Detections], coco: CocoSet) -> Report:
    """
    Score detections, one entry per frame in the order of the set.

    Adds per_time_of_day.<name>.{AP, AP50, images} if the set has several times of day, and
    per_source in the same way.
    """
    report = average_precision(detections, coco.images, coco.classes)
    report['images'] = len(coco.images)
    for entry in ('time_of_day', 'source'):
        names = sorted({getattr(r, entry) for r in coco.images})
        if len(names) > 1:
            report[f'per_{entry}'] = {name: _part(detections, coco, entry, name) for name in names}
    return report


def _part(detections: list[Detections], coco: CocoSet, entry: str, value: str) -> Report:
    """Return AP, AP50 and the number of the frames whose record has a value."""
    chosen = [i for i, r in enumerate(coco.images) if getattr(r, entry) == value]
    part = average_precision([detections[i] for i in chosen], [coco.images[i] for i in chosen],
                             coco.classes)
    return {'AP': part['AP'], 'AP50': part['AP50'], 'images': len(chosen)}


def _compute(
    detections: list[Detections], records: list[ImageRecord], classes: tuple[str, ...],
) -> tuple[dict[str, float], dict[str, Precision]]:
    """Return the overall values, and each class's precision; -1 without objects."""
    labels = np.unique(np.concatenate([
        np.zeros(0, np.int64), *(d.labels for d in detections), *(r.labels for r in records)]))
    evaluation = COCOeval_faster(
        _coco([(r.boxes, r.labels, {'area': r.areas, 'iscrowd': r.crowd}) for r in records],
              labels),
        _coco([(d.boxes, d.labels, {'score': d.scores}) for d in detections], labels), 'bbox')
    precision = dict.fromkeys(classes, -np.ones((1, 1)))
    if not len(records):
        return dict.fromkeys(OVERALL, -1.0), precision
    evaluation.run()
    for i, label in enumerate(labels):
        # The last two axes are area and max detections.
        precision[classes[label]] = evaluation.eval['precision'][:, :, i, 0, -1]
    return dict(zip(OVERALL, map(float, evaluation.stats))), precision


def _coco(frames: list[tuple[NDArray[np.float32], NDArray[np.int64], dict[str, NDArray[Any]]]],
          labels: NDArray[np.int64]) -> Any:
    """Return faster-coco-eval's set of the boxes, labels and other values of each frame."""
    annotations: list[dict[str, Any]] = []
    for number, (boxes, of, others) in enumerate(frames):
        sizes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        columns = {name: values.tolist() for name, values in others.items()}
        for i, (box, label) in enumerate(zip(sizes.tolist(), of.tolist())):
            values = {name: column[i] for name, column in columns.items()}
            annotations.append({
                'id': len(annotations) + 1, 'image_id': number, 'category_id': label,
                'bbox': box, 'iscrowd': 0, **values,
                'area': values.get('area', 0) or box[2] * box[3]})
    coco = COCO()
    coco.dataset = {'images': [{'id': number} for number in range(len(frames))],
                    'annotations': annotations,
                    'categories': [{'id': label, 'name': str(label)} for label in labels.tolist()]}
    coco.createIndex()
    return coco


def _mean(precision: Precision) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.size else None
