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

"""COCO box AP of detections, through torchmetrics; fractions, None without objects."""

from typing import Any
import warnings

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.runtime.detection.postprocess import Detections
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

Report = dict[str, Any]


def average_precision(
    detections: list[Detections], records: list[ImageRecord], classes: tuple[str, ...],
) -> Report:
    """Return AP, AP50, AP75, AP_small/medium/large and per_class.<name>.{AP, AP50}."""
    result, precision = _compute(detections, records, classes)
    names = {'AP': 'map', 'AP50': 'map_50', 'AP75': 'map_75', 'AP_small': 'map_small',
             'AP_medium': 'map_medium', 'AP_large': 'map_large'}
    overall = {name: float(result[key]) for name, key in names.items()}
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
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return torchmetrics' values, and precision (IoU 0.5:0.95, recall) by class, -1 for none."""
    metric = MeanAveragePrecision(
        backend='faster_coco_eval', extended_summary=True, class_metrics=False,
        sync_on_compute=False)
    metric.warn_on_many_detections = False
    for found, truth in zip(detections, records, strict=True):
        metric.update(
            [{'boxes': torch.from_numpy(found.boxes), 'scores': torch.from_numpy(found.scores),
              'labels': torch.from_numpy(found.labels)}],
            [{'boxes': torch.from_numpy(truth.boxes), 'labels': torch.from_numpy(truth.labels),
              'area': torch.from_numpy(truth.areas), 'iscrowd': torch.from_numpy(truth.crowd)}])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        result = metric.compute()
    precision = dict.fromkeys(classes, -torch.ones(1, 1))
    for i, label in enumerate(result['classes'].reshape(-1).tolist()):
        # The last two axes are area and max detections.
        precision[classes[int(label)]] = result['precision'][:, :, i, 0, -1]
    return result, precision


def _mean(precision: Tensor) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.numel() else None
