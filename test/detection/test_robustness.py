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

"""AP on corrupted frames."""

from dataclasses import replace
import json
from pathlib import Path

from cgdet_core.data.coco import load_coco
from cgdet_core.data.corruptions import CORRUPTIONS
from cgdet_core.detection.evaluation import detect_all
from cgdet_core.detection.metrics import average_precision
from cgdet_core.detection.robustness import measure_corruptions, rows, VARIANTS
from cgdet_core.runtime import Detections
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.imaging.normalization import Normalization
import numpy as np
import pytest


class BrightSpots:
    """Find the warm objects of a frame: bright pixels, in place of a network."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.card = detection_card('spots', classes, (160, 128), Normalization())

    def detect(self, frame: np.ndarray, threshold: object = None) -> Detections:
        import cv2
        bright = (frame > np.percentile(frame, 97)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(bright)
        x, y, w, h, area = stats[1:].T.astype(np.float32)
        return Detections(np.stack([x, y, x + w, y + h], 1), area / area.max(),
                          np.zeros(len(x), np.int64))


def test_the_report_has_each_corruption_in_five_strengths(scenes: Path) -> None:
    coco = load_coco(scenes)
    coco = replace(coco, images=coco.images[::3])
    detector = BrightSpots(coco.classes)
    done = []
    report = measure_corruptions(detector, coco, 3, done.append)
    assert sum(done) == len(VARIANTS) * len(coco.images) == report['images'] * 46
    plain = average_precision(detect_all(detector, coco), coco.images, coco.classes)
    assert report['clean'] == {name: plain[name] for name in ('AP', 'AP50')}
    assert list(report['corruptions']) == list(CORRUPTIONS)
    assert report == measure_corruptions(detector, coco, 3)
    table = list(rows(report))
    assert all(len(values) == 6 for _, values, _ in table)
    assert report['mean']['polarity'] < 0.9 and report['mean']['JPEG'] > 0.5
    for name, values, mean in table:
        assert mean == pytest.approx(np.mean(values[1:]) / values[0]), name


def test_the_command_writes_table_figure_and_numbers(
    run_cgdet: object, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    result = run_cgdet('evaluate', onnx_model, '--data', scenes, '--every', 6, '--corruptions',
                       '--json', tmp_path / 'r.json', '--output', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    assert 'AP on corrupted frames' in result.stdout
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['images'] == report['robustness']['images'] == 2
    assert (tmp_path / 'out' / 'corruptions.png').read_bytes().startswith(b'\x89PNG')
    refused = run_cgdet('evaluate', onnx_model, '--data', scenes, '--every', 6, '--update-card')
    assert refused.returncode == 1 and 'leave out --every' in refused.stderr
