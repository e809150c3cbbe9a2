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

"""COCO average precision of detections, through torchmetrics."""

from typing import Any
import warnings

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.runtime.detection.postprocess import Detections
import torch
from torchmetrics.detection import MeanAveragePrecision

Report = dict[str, Any]


class CocoMetric:
    """Collect frames and compute COCO box AP; all values are fractions, -1 becomes None."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.metric = MeanAveragePrecision(
            backend='faster_coco_eval', extended_summary=True, class_metrics=False,
            sync_on_compute=False)
        self.metric.warn_on_many_detections = False

    def update(self, detections: Detections, truth: ImageRecord) -> None:
        """Add one frame: its detections and its record, both in source pixels."""
        self.metric.update(
            [{'boxes': torch.from_numpy(detections.boxes),
              'scores': torch.from_numpy(detections.scores),
              'labels': torch.from_numpy(detections.labels)}],
            [{'boxes': torch.from_numpy(truth.boxes), 'labels': torch.from_numpy(truth.labels),
              'area': torch.from_numpy(truth.areas), 'iscrowd': torch.from_numpy(truth.crowd)}])

    def compute(self) -> Report:
        """Return AP, AP50, AP75, AP_small/medium/large and per_class.<name>.{AP, AP50}."""
        result, precision = self._result()
        per_class: dict[str, dict[str, float | None]] = {
            name: {'AP': None, 'AP50': None} for name in self.classes}
        for i, label in enumerate(result['classes'].reshape(-1).tolist()):
            per_class[self.classes[int(label)]] = {
                'AP': _mean(precision[:, :, i]), 'AP50': _mean(precision[0, :, i])}
        names = {'AP': 'map', 'AP50': 'map_50', 'AP75': 'map_75', 'AP_small': 'map_small',
                 'AP_medium': 'map_medium', 'AP_large': 'map_large'}
        overall = {name: _fraction(float(result[key])) for name, key in names.items()}
        return {**overall, 'per_class': per_class}

    def curves(self) -> dict[str, list[float] | None]:
        """Return each class's precision at recall 0, 0.01 .. 1, IoU 0.5; None without objects."""
        found: dict[str, list[float] | None] = dict.fromkeys(self.classes)
        result, precision = self._result()
        for i, label in enumerate(result['classes'].reshape(-1).tolist()):
            if bool((precision[0, :, i] > -1).all()):
                found[self.classes[int(label)]] = precision[0, :, i].tolist()
        return found

    def _result(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return torchmetrics' values and precision (IoU 0.5:0.95, recall, classes as seen)."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            result = self.metric.compute()
        # Its last two axes are area and max detections.
        return result, result['precision'][:, :, :, 0, -1]


def curves(
    detections: list[Detections], records: list[ImageRecord], classes: tuple[str, ...],
) -> dict[str, list[float] | None]:
    """Return each class's precision at recall 0, 0.01 .. 1, IoU 0.5; None without objects."""
    return _metric(detections, records, classes).curves()


def evaluate(detections: list[Detections], coco: CocoSet) -> Report:
    """
    Score detections, one entry per frame in the order of the set.

    Adds per_time_of_day.<name>.{AP, AP50, images} if the set has several times of day.
    """
    report = _metric(detections, coco.images, coco.classes).compute()
    report['images'] = len(coco.images)
    times = sorted({r.time_of_day for r in coco.images})
    if len(times) > 1:
        report['per_time_of_day'] = {}
        for time in times:
            chosen = [i for i, r in enumerate(coco.images) if r.time_of_day == time]
            part = _metric([detections[i] for i in chosen], [coco.images[i] for i in chosen],
                           coco.classes).compute()
            report['per_time_of_day'][time] = {
                'AP': part['AP'], 'AP50': part['AP50'], 'images': len(chosen)}
    return report


def _metric(
    detections: list[Detections], records: list[ImageRecord], classes: tuple[str, ...],
) -> CocoMetric:
    metric = CocoMetric(classes)
    for found, record in zip(detections, records, strict=True):
        metric.update(found, record)
    return metric


def _mean(precision: torch.Tensor) -> float | None:
    valid = precision[precision > -1]
    return float(valid.mean()) if valid.numel() else None


def _fraction(value: float) -> float | None:
    return None if value < 0 else value
