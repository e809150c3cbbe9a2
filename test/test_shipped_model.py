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

"""The shipped models in three precisions: cards, limits and detections."""

import json
from pathlib import Path
import re

from cgdet_core.data.coco import load_coco
from cgdet_core.data.synthetic import Scene, to_counts, write_coco
from cgdet_core.deployment.verify import scenes, verify
from cgdet_core.runtime import DetectionCard, Detector, load_card
from cgdet_core.runtime.detection.detector import evaluation_threshold
from cgdet_core.runtime.detection.postprocess import iou
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.inference.openvino import openvino_version
from cgdet_core.runtime.tracking.card import TrackingCard
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.rgbt import RgbtCard
from cgdet_core.runtime.tracking.target import State
from cgdet_core.runtime.tracking.tracker import Tracker
import numpy as np
import onnx
import pytest

MODELS = Path(__file__).resolve().parents[1] / 'models'
MODEL = MODELS / 'thermal.onnx'
FILES = {'fp32': MODEL, 'fp16': MODELS / 'thermal_fp16.onnx', 'int8': MODELS / 'thermal_int8.onnx'}
CLEAN = {name: MODELS / f'thermal_clean{end}.onnx'
         for name, end in (('fp32', ''), ('fp16', '_fp16'), ('int8', '_int8'))}
SMALL = {name: MODELS / f'thermal_small{end}.onnx'
         for name, end in (('fp32', ''), ('fp16', '_fp16'), ('int8', '_int8'))}
TRACKER, RGBT = MODELS / 'thermal_tracker.onnx', MODELS / 'rgbt_tracker.onnx'
PEER_AP50 = 0.411  # a detector of the same size on the same data, see README.md


@pytest.fixture(scope='module')
def shipped() -> Detector:
    return Detector.load(MODEL)


def average_precision(detector: Detector, annotations: Path) -> dict:
    evaluation = pytest.importorskip('cgdet_core.detection.metrics')
    coco = load_coco(annotations, None, detector.card.classes)
    low = evaluation_threshold(detector.card)
    found = [detector.detect(read_thermal(r.path), low) for r in coco.images]
    return evaluation.evaluate(found, coco)


@pytest.mark.parametrize('path', sorted(MODELS.glob('*.onnx')), ids=lambda path: path.stem)
def test_files_tell_nothing_of_the_machine_that_exported_them(path: Path) -> None:
    graph = onnx.load(path).graph
    assert not any(node.metadata_props or node.doc_string for node in graph.node)
    content = path.read_bytes()
    words = b'site-packages', b'/home/', b'/work/', b'.py"'
    assert not [word for word in words if word in content]


def test_limits(shipped: Detector) -> None:
    assert MODEL.stat().st_size < 14e6
    card = shipped.card
    assert card.classes == ('person', 'bicycle', 'car') and card.input_size == (640, 512)
    assert card.parameters <= 3.15e6 and card.gflops <= 7.5
    assert 'no licence' in card.training['license'] and card.accuracy
    assert card.training['init']['recipe']['optim']['epochs'] == 40


def test_every_file_is_named_by_its_precision() -> None:
    named = [*FILES.values(), *CLEAN.values(), *SMALL.values(), TRACKER, RGBT]
    assert sorted(MODELS.glob('*.onnx')) == sorted(named)
    for precision, path in [*FILES.items(), *CLEAN.items(), *SMALL.items()]:
        assert load_card(path, DetectionCard).precision == precision


@pytest.mark.parametrize('path', sorted(MODELS.glob('*.onnx')), ids=lambda path: path.stem)
def test_the_card_names_no_path_of_the_machine_that_made_it(path: Path) -> None:
    text = path.with_suffix('.json').read_text()
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert not [s for s in strings if s.startswith(('/', '~', '..'))]
    assert json.loads(text)['onnx_sha256']


@pytest.mark.parametrize('path', sorted(MODELS.glob('*.onnx')), ids=lambda path: path.stem)
def test_a_model_calls_itself_as_its_file(path: Path) -> None:
    card = json.loads(path.with_suffix('.json').read_text())
    assert card['name'] == re.sub('_(fp16|int8)$', '', path.stem)


def test_finds_the_objects_of_unseen_synthetic_scenes(shipped: Detector, tmp_path: Path) -> None:
    report = average_precision(shipped, write_coco(tmp_path, 20, 99, 1))
    assert report['AP50'] > 0.5


@pytest.mark.parametrize('precision', ['fp16', 'int8'])
def test_a_precision_is_equal_enough_to_fp32(shipped: Detector, precision: str) -> None:
    other = Detector.load(FILES[precision], backend='onnxruntime')
    report = verify(other, shipped, scenes(shipped.card, 12))
    assert report['passed'], report['failures']


@pytest.mark.parametrize('path', [MODEL, CLEAN['fp32'], SMALL['fp32']],
                         ids=lambda path: path.stem)
def test_a_shipped_model_can_be_a_start_and_a_teacher(path: Path) -> None:
    torch = pytest.importorskip('torch')
    from cgdet_core.detection.starting import load_trained
    from cgdet_core.detection.student import DeployedStudent

    student, card = load_trained(path)
    detector = Detector.load(path, backend='onnxruntime')
    detector.preprocess(next(scenes(card, 1)).pixels)
    wanted = detector.session.run({'images': detector.input})
    _, found = DeployedStudent(student, card.input_size)(torch.from_numpy(detector.input))
    np.testing.assert_allclose(found.numpy(), wanted['scores'], atol=2e-3)


def test_the_small_model_has_better_boxes_at_half_the_size() -> None:
    small, model = (load_card(path, DetectionCard) for path in (SMALL['fp32'], MODEL))
    assert small.classes == model.classes and small.parameters < 0.55 * model.parameters
    int8 = load_card(SMALL['int8'], DetectionCard).accuracy['val_thermal.json']
    assert int8['AP'] > small.accuracy['val_thermal.json']['AP'] - 0.005
    one, other = (card.accuracy['val_thermal.json'] for card in (small, model))
    assert one['AP'] > other['AP'] + 0.02 and one['AP50'] > other['AP50']
    assert 'state no license' in small.training['license']


def test_the_small_model_in_fp16_is_equal_enough() -> None:
    one, other = (Detector.load(SMALL[name], backend='onnxruntime') for name in ('fp32', 'fp16'))
    report = verify(other, one, scenes(one.card, 12))
    assert report['detections'] > 20 and report['matched_share'] > 0.98
    assert report['score']['p99'] < 0.05, 'its fitted scores are steep'
    assert report['corner_px']['p50'] < 0.1


def test_the_clean_model_is_of_data_whose_license_allows_products() -> None:
    card = load_card(CLEAN['fp32'], DetectionCard)
    assert card.classes == ('person', 'bicycle', 'car', 'dog')
    assert CLEAN['fp32'].stat().st_size < 6e6 and card.parameters < 1.3e6
    record, licenses = card.training, []
    while record:  # each run and the one that it began with
        licenses.append(record['license'])
        record = record.get('init')
    assert len(licenses) > 2 and licenses[-1] == 'Apache-2.0', 'NanoDet-Plus'
    for license in licenses[:-1]:
        assert 'public domain' in license and 'CC BY 4.0' in license
        assert not any(word in license for word in ('no licence', 'non-commercial', 'unknown'))
    assert card.accuracy['hituav_val.json']['AP50'] > 0.55
    assert card.accuracy['dogs_people_val.json']['per_class']['person']['AP50'] > 0.75


def test_the_clean_model_in_fp16_is_equal_enough() -> None:
    one, other = (Detector.load(CLEAN[name], backend='onnxruntime') for name in ('fp32', 'fp16'))
    report = verify(other, one, scenes(one.card, 12))
    assert report['detections'] > 20 and report['matched_share'] == 1
    assert report['score']['p99'] < 0.03, 'its fitted scores are steep'
    assert report['corner_px']['p50'] < 0.1


def test_the_clean_model_in_int8_finds_what_fp32_finds() -> None:
    one, other = (Detector.load(CLEAN[name], backend='onnxruntime') for name in ('fp32', 'int8'))
    report = verify(other, one, scenes(one.card, 12), score_threshold=0.3)
    assert report['detections'] > 20 and report['matched_share'] > 0.7
    assert report['score']['p50'] < 0.2 and report['corner_px']['p50'] < 2


@pytest.mark.skipif(not openvino_version(), reason='OpenVINO is not installed')
@pytest.mark.parametrize('path', [*FILES.values(), CLEAN['int8'], SMALL['int8']],
                         ids=lambda path: path.stem)
def test_openvino_is_equal_enough_to_onnx_runtime(path: Path) -> None:
    one, other = (Detector.load(path, backend=backend)
                  for backend in ('openvino_fp32', 'onnxruntime'))
    report = verify(one, other, scenes(one.card, 12))
    assert report['backend'].startswith('OpenVINO')
    assert report['passed'], report['failures']


def test_8_and_16_bit_give_the_same_detections(shipped: Detector) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (48, 64)).astype(np.uint8)
    frame = np.kron(levels, np.ones((10, 10), np.uint8))
    one = shipped.detect(frame, 0.01)
    two = shipped.detect(frame.astype(np.uint16) * 64, 0.01)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-2)


@pytest.mark.parametrize(('path', 'drop'), [
    (FILES['fp32'], 0.0), (FILES['fp16'], 0.001), (FILES['int8'], 0.010), (SMALL['fp32'], 0.0),
    (SMALL['fp16'], 0.0), (SMALL['int8'], 0.005)], ids=lambda value: getattr(value, 'stem', None))
def test_real_validation_frames(
    shipped: Detector, real_data: Path, path: Path, drop: float,
) -> None:
    detector = Detector.load(path, backend='onnxruntime')
    report = average_precision(detector, real_data / 'val_thermal.json')
    assert report['AP50'] >= PEER_AP50
    written = detector.card.accuracy['val_thermal.json']
    assert report['AP50'] == pytest.approx(written['AP50'], abs=0.002)
    assert report['AP'] >= shipped.card.accuracy['val_thermal.json']['AP'] - drop - 1e-4


def test_the_tracker_is_small_and_says_what_it_was_trained_on() -> None:
    card = load_card(TRACKER, TrackingCard)
    assert TRACKER.stat().st_size < 6e6 and card.parameters < 1.1e6 and card.gflops < 1.2
    sets = ['train_thermal.json', 'hituav_train.json', 'dogs_train.json']
    assert card.training['data'] == sets, 'that license is of all of its data'
    for words in ('state no license', 'HIT-UAV: CC BY 4.0', 'dogs_people: public domain'):
        assert words in card.training['license']
    assert card.training['init']['recipe']
    assert card.accuracy['scores']['cross_fitted']['AUROC'] > 0.8


def test_the_rgbt_tracker_says_what_it_was_trained_on() -> None:
    card = load_card(RGBT, RgbtCard)
    assert RGBT.stat().st_size < 15e6 and card.parameters < 3e6 and card.gflops < 3
    assert 'state no license' in card.training['license']
    assert card.training['data'] == ['train_thermal.json'], 'that license is of all of its data'
    assert card.accuracy['scores']['cross_fitted']['AUROC'] > 0.9


@pytest.mark.parametrize(('path', 'with_rgb'), [(TRACKER, False), (RGBT, False), (RGBT, True)])
def test_a_tracker_follows_a_target_of_a_synthetic_drive(path: Path, with_rgb: bool) -> None:
    tracker = Tracker(TrackingModel.load(path, threads=1, backend='onnxruntime'))
    scene, overlaps, states = Scene.traffic(900_000), [], []
    first = scene.frame(5)
    track = first.track_ids[(first.boxes[:, 2:] - first.boxes[:, :2]).prod(1).argmax()]
    for number in range(12):
        frame = scene.frame(5 + number / 10)
        counts = to_counts(frame.kelvin)
        box = frame.boxes[int(np.flatnonzero(frame.track_ids == track)[0])]
        gray = np.clip((counts - counts.min()) / np.ptp(counts) * 255, 0, 255).astype(np.uint8)
        seen = {'rgb': np.stack([gray] * 3, 2)} if with_rgb else {}
        target = (tracker.follow(counts, frame.stamp, **seen) if number
                  else tracker.start(counts, box, frame.stamp, **seen))
        overlaps.append(float(iou(target.box[None], box[None])[0, 0]))
        states.append(target.state)
    assert np.mean(overlaps) > 0.5 and states.count(State.TRACKED) >= 8
