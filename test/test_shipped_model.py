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

"""The model in models/: fits its card, keeps the limits, and still detects."""

import json
from pathlib import Path
import re

from cgdet_core.data.coco import load_coco
from cgdet_core.data.synthetic import write_coco
from cgdet_core.runtime import Detector
from cgdet_core.runtime.detector import EVALUATION_THRESHOLD
from cgdet_core.runtime.frames import read_thermal
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PEER_AP50 = 0.411  # a detector of the same size on the same data, see README.md


@pytest.fixture(scope='module')
def shipped() -> Detector:
    """Open the one shipped model."""
    models = list((ROOT / 'models').glob('*.onnx'))
    assert len(models) == 1
    return Detector.load(models[0])


def average_precision(detector: Detector, annotations: Path) -> dict:
    evaluation = pytest.importorskip('cgdet_core.evaluation.coco')
    coco = load_coco(annotations, None, detector.card.classes)
    found = [detector.detect(read_thermal(r.path), EVALUATION_THRESHOLD) for r in coco.images]
    return evaluation.evaluate(found, coco)


def test_limits(shipped: Detector) -> None:
    model = next((ROOT / 'models').glob('*.onnx'))
    assert model.stat().st_size < 14e6
    card = shipped.card
    assert card.classes == ('person', 'bicycle', 'car') and card.input_size == (640, 512)
    assert card.parameters <= 3.15e6 and card.gflops <= 7.5
    assert 'no licence' in card.training['licence'] and card.accuracy
    assert card.training['init']['recipe']['optim']['epochs'] == 40


def test_the_card_names_no_path_of_the_machine_that_made_it() -> None:
    text = next((ROOT / 'models').glob('*.json')).read_text()
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert not [s for s in strings if s.startswith(('/', '~', '..'))]
    assert json.loads(text)['onnx_sha256']


def test_finds_the_objects_of_unseen_synthetic_scenes(shipped: Detector, tmp_path: Path) -> None:
    report = average_precision(shipped, write_coco(tmp_path, 20, 99, 1))
    assert report['AP50'] > 0.5


def test_8_and_16_bit_give_the_same_detections(shipped: Detector) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (48, 64)).astype(np.uint8)
    frame = np.kron(levels, np.ones((10, 10), np.uint8))
    one = shipped.detect(frame, 0.01)
    two = shipped.detect(frame.astype(np.uint16) * 64, 0.01)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-2)


def test_real_validation_frames(shipped: Detector, real_data: Path) -> None:
    report = average_precision(shipped, real_data / 'val_thermal.json')
    assert report['AP50'] >= PEER_AP50
    written = shipped.card.accuracy['val_thermal.json']
    assert report['AP50'] == pytest.approx(written['AP50'], abs=0.002)
