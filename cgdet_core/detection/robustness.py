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

"""How much average precision a detector loses on corrupted frames."""

from collections.abc import Callable, Iterator
from typing import Any

from cgdet_core.data.coco import CocoSet
from cgdet_core.data.corruptions import corrupt, CORRUPTIONS, STRENGTHS
from cgdet_core.data.sources import coco_frames
from cgdet_core.detection.metrics import average_precision
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector, evaluation_threshold
from cgdet_core.runtime.detection.postprocess import Detections
import numpy as np

CLEAN = ('none', 0)
VARIANTS = (CLEAN, *((name, strength) for name in CORRUPTIONS for strength in STRENGTHS))


def measure_corruptions(
    detector: Detector, coco: CocoSet, seed: int = 0,
    progress: Callable[[int], None] = lambda frames: None,
) -> dict[str, Any]:
    """
    Return AP and AP50 without corruption and with each one in each strength.

    `clean`: without; `corruptions`: by name, in the order of the strengths; `mean`: the AP of all
    strengths of a corruption relative to that without. progress is called once per image, of
    which there are len(VARIANTS) times those of the set. UserError for a set of RGB images.
    """
    if detector.card.channels != 1:
        raise UserError('Corruptions are those of thermal cameras; choose a thermal model.')
    threshold = evaluation_threshold(detector.card)
    found: dict[tuple[str, int], list[Detections]] = {variant: [] for variant in VARIANTS}
    for number, frame in enumerate(coco_frames(coco, polarity=detector.card.polarity)):
        for name, strength in VARIANTS:
            pixels = frame.pixels
            if strength:
                pixels = corrupt(pixels, name, strength, number, seed)
            found[name, strength].append(detector.detect(pixels, threshold))
            progress(1)
    scores = {variant: _score(detections, coco) for variant, detections in found.items()}
    clean = scores[CLEAN]
    corrupted = {name: [scores[name, s] for s in STRENGTHS] for name in CORRUPTIONS}
    return {'seed': seed, 'images': len(coco.images), 'clean': clean, 'corruptions': corrupted,
            'mean': {name: _relative(values, clean) for name, values in corrupted.items()}}


def _score(found: list[Detections], coco: CocoSet) -> dict[str, float | None]:
    report = average_precision(found, coco.images, coco.classes)
    return {name: report[name] for name in ('AP', 'AP50')}


def _relative(values: list[dict[str, float | None]], clean: dict[str, float | None],
              ) -> float | None:
    """Return the mean AP as a fraction of the one without corruption."""
    known = [value['AP'] for value in values if value['AP'] is not None]
    return float(np.mean(known)) / clean['AP'] if known and clean['AP'] else None


def rows(report: dict[str, Any]) -> Iterator[tuple[str, list[float | None], float | None]]:
    """Yield name, AP of strengths 0 (none) to 5, and the relative mean of each corruption."""
    for name, values in report['corruptions'].items():
        yield (name, [report['clean']['AP'], *(value['AP'] for value in values)],
               report['mean'][name])
