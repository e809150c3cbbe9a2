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
Measure what a teacher finds: `python -m cgdet_core.experiments.pseudo_labels RECIPE.yaml`.

The labeled frames of `data.val` show how good the pseudo-labels are that `cgdet distill RECIPE`
would learn from: of each of the teacher's `unlabeled.sources` alone, and of all, fused. Precision
and recall are those at `unlabeled.object_score`. Nothing is trained.
"""

import argparse
from collections.abc import Iterable, Sequence
import json
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.detection.analysis import match_by_class
from cgdet_core.detection.metrics import evaluate
from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.unlabeled import load_unlabeled, predict
from cgdet_core.distillation.predictions import FLOOR
from cgdet_core.distillation.regions import fuse
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.tasks import load_recipe
import numpy as np
import torch


def fused(seen: Iterable[Sequence[ImageRecord]], minimum: float, iou: float) -> list[Detections]:
    """Return each frame's boxes of a class and a minimum score, of all sources, best first."""
    found = []
    for records in seen:
        boxes = np.concatenate([record.boxes for record in records]).astype(np.float32)
        labels = np.concatenate([record.labels for record in records])
        scores = np.concatenate([  # none if the teacher saw no picture
            np.ones(0, np.float32) if r.scores is None else r.scores for r in records])
        kept = (labels >= 0) & (scores >= minimum)
        boxes, scores, labels = (part.numpy() for part in fuse(
            torch.from_numpy(boxes[kept]), torch.from_numpy(scores[kept]),
            torch.from_numpy(labels[kept]), iou))
        order = np.argsort(-scores, kind='stable')
        found.append(Detections(boxes[order], scores[order], labels[order]))
    return found


def measure(recipe: DetectionRecipe) -> dict[str, Any]:
    """Return AP, AP50, and AP50, precision and recall of each class, by source and of all."""
    config = recipe.unlabeled
    if config is None or config.teacher is None:
        raise UserError(f'{recipe.name} has no unlabeled.teacher, which finds the objects.')
    coco = recipe.frames(recipe.data.val)
    frames = load_unlabeled(recipe.model_copy(update={
        'unlabeled': config.model_copy(update={'frames': recipe.data.val})}))
    sources = [source for source in config.sources if source != 'student']
    seen = {source: predict(frames, recipe.model_copy(update={
        'unlabeled': config.model_copy(update={'sources': (source,), 'ignore_score': FLOOR})}),
        torch.device('cpu'), True).images for source in sources}
    report = {}
    for names in [(source,) for source in sources] + ([tuple(sources)] if sources[1:] else []):
        every, taught = (fused(zip(*(seen[name] for name in names)), minimum, config.fuse_iou)
                         for minimum in (FLOOR, config.ignore_score))
        numbers = evaluate(every, coco)
        found = [frame.above(config.object_score) for frame in taught]
        owners = [match_by_class(shown, record) for shown, record in zip(found, coco.images)]
        report[' + '.join(names)] = {
            **{key: _rounded(numbers[key]) for key in ('AP', 'AP50')},
            **{name: {'AP50': _rounded(numbers['per_class'][name]['AP50']),
                      **_shares(label, found, owners, coco)}
               for label, name in enumerate(coco.classes)}}
    return report


def _shares(label: int, found: list[Detections], owners: list[Any], coco: CocoSet,
            ) -> dict[str, float | None]:
    """Return precision and recall of a class."""
    mine = np.concatenate([owner[frame.labels == label] for frame, owner in zip(found, owners)])
    right, shown = int((mine >= 0).sum()), int((mine != -2).sum())
    objects = sum(int(((r.labels == label) & (r.crowd == 0)).sum()) for r in coco.images)
    return {'precision': _rounded(right / shown if shown else None),
            'recall': _rounded(right / objects if objects else None)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('overrides', nargs='*', metavar='KEY=VALUE')
    options = parser.parse_args()
    try:
        recipe = load_recipe(options.recipe, options.overrides)
        if not isinstance(recipe, DetectionRecipe):
            raise UserError(f'{options.recipe} is no recipe of a detector.')
        report = measure(recipe.resolved())
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(json.dumps(report, indent=2))


if __name__ == '__main__':
    main()
