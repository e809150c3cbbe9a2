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

"""The numbers of an ablation: those of `cgdet evaluate`, boxes before NMS, features."""

from collections.abc import Callable
import json
from pathlib import Path
import subprocess

from cgdet_core.data.coco import ImageRecord, load_coco
from cgdet_core.detection import analysis
from cgdet_core.experiments.measure import _features, detections_of, measure
from cgdet_core.runtime.imaging.geometry import Letterbox
import numpy as np
import pytest
import torch


def test_average_precision_is_that_of_evaluate(
    trained: Path, scenes: Path, tmp_path: Path,
    run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    report, _ = measure(trained / 'last.ckpt', load_coco(scenes))
    result = run_cgdet('evaluate', trained / 'last.ckpt', '--data', scenes,
                       '--json', tmp_path / 'ap.json')
    assert result.returncode == 0, result.stderr
    expected = json.loads((tmp_path / 'ap.json').read_text())
    for name in ('AP', 'AP50', 'AP75', 'per_class', 'images'):
        assert report[name] == expected[name]
    for name, curve in report['curves'].items():
        assert np.mean(curve) == pytest.approx(report['per_class'][name]['AP50'], abs=1e-6)


def test_suppression_leaves_fewer_boxes(
    trained: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The tiny model has low scores and few detections.
    monkeypatch.setattr(analysis, 'DUPLICATE_SCORE', 0.002)
    monkeypatch.setattr(analysis, 'MATCH_SCORE', 0.002)
    monkeypatch.setattr(analysis, 'IOU', 0.1)
    report, arrays = measure(trained / 'last.ckpt', load_coco(scenes))
    before, relative, after = report['duplicates'].values()
    assert before['boxes'] > after['boxes'] > 0 and before['objects'] == after['objects']
    assert after['boxes'] <= relative['boxes'] <= before['boxes']
    at_recall = report['duplicates_at_recall']
    assert at_recall['before_nms']['0.1'] > 0 and at_recall['after_nms']['0.1'] >= 0
    found = [detections_of(arrays, i) for i in range(12)]
    assert sum(map(len, found)) == len(arrays['scores']) > 0
    counted = np.sum(report['confusion']['matrix'], 0)[:3]
    assert counted.sum() == len(arrays['scores'])


class Ramp:
    """A replacement of a student whose features are their position in the input."""

    def pyramid(self, images: torch.Tensor) -> list[torch.Tensor]:
        levels = []
        for stride in (8, 16, 32):
            y, x = ((torch.arange(images.shape[d] // stride) + 0.5) * stride for d in (2, 3))
            levels.append(torch.stack(torch.meshgrid(x, y, indexing='xy'))[None])
        return levels


def test_features_are_those_under_the_objects() -> None:
    box = Letterbox((320, 200), (160, 128))
    record = ImageRecord(
        1, Path('x'), 320, 200, boxes=np.array([[100, 60, 200, 140], [0, 0, 9, 9]], np.float32),
        labels=np.array([0, 1]), areas=np.ones(2, np.float32), crowd=np.array([0, 1]))
    found = _features(Ramp(), np.zeros((1, 1, 128, 160), np.float32), record, box)
    assert found == pytest.approx(np.array([[75, 50]]), abs=1e-3)
