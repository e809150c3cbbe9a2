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

"""Comparison of two models: equal ones pass, different ones fail with a reason."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from cgdet_core.data.coco import ImageRecord
from cgdet_core.data.sources import Frame, read_frames
from cgdet_core.deployment.verify import failure, match, Tolerances, verify
from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, Detections, Detector, load_card, Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.inference.card import file_sha256, save_card
import numpy as np
from numpy.typing import NDArray
import onnx
import pytest

Run = Callable[..., subprocess.CompletedProcess]
BOXES = np.array([[10, 10, 30, 60], [50, 20, 90, 50], [100, 70, 150, 120]], np.float32)
SCORES = np.array([[0.9, 0], [0, 0.7], [0, 0.31]], np.float32)


class Fixed:
    """Return the same detections in every frame."""

    max_batch = 1

    def __init__(self, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        self.found = boxes, scores

    def run(self, inputs: dict[str, Any], out: dict[str, Any]) -> dict[str, Any]:
        out['boxes'][0], out['scores'][0] = self.found
        return out

    def describe(self) -> str:
        return 'fixed'


def stub(
    shift: float = 0.0, score: float = 0.0, scale: int = 1, **card: Any,
) -> Detector:
    classes = card.pop('classes', ('person', 'car'))
    return Detector(detection_card('stub', classes, (160 * scale, 128 * scale),
                                   Normalization('none'), top_k=3, **card),
                    Fixed((BOXES + np.float32(shift)) * scale, SCORES + np.float32(score)))


def frames(truth: bool = True, count: int = 3) -> Iterator[Frame]:
    record = ImageRecord(1, Path('x'), 160, 128, boxes=BOXES, labels=np.array([0, 1, 1]),
                         areas=np.full(3, 1000, np.float32), crowd=np.zeros(3, np.int64))
    for i in range(count):
        yield Frame(f'{i}.png', lambda: np.zeros((128, 160), np.uint8),
                    truth=record if truth else None)


@pytest.mark.parametrize('scale', [1, 2])
def test_equal_models_pass_also_at_another_input_size(scale: int) -> None:
    report = verify(stub(scale=scale), stub(), frames())
    assert report['passed'] and not report['failures']
    assert report['matched_share'] == 1 and report['detections'] == 9
    assert report['corner_px']['max'] == pytest.approx(0, abs=1e-4)
    assert report['AP']['model'] == report['AP']['against'] == pytest.approx(1, abs=0.01)


def test_a_shifted_decode_fails_by_its_shift() -> None:
    report = verify(stub(shift=3), stub(), frames())
    assert not report['passed']
    assert report['corner_px'] == pytest.approx({'p50': 3, 'p99': 3, 'max': 3})
    assert report['score']['max'] == 0 and report['off_share'] == 1
    assert report['AP']['drop'] > 0.1
    sentence = failure(report)
    assert '9 of 9 detections' in sentence and 'AP is' in sentence and sentence.count('.\n') == 0
    loose = Tolerances(corner=3.01, score=0, off=0, ap_drop=1)
    assert verify(stub(shift=3), stub(), frames(), loose)['passed']


def test_other_scores_fail_even_if_ap_is_equal() -> None:
    report = verify(stub(score=-0.05), stub(), frames())
    assert report['AP']['drop'] == pytest.approx(0, abs=1e-6)
    assert report['failures'] and 'AP' not in report['failures'][0]
    # 0.31 became 0.26: below the threshold, but still the same object.
    assert report['missing'] == 0 and report['score']['max'] == pytest.approx(0.05, abs=1e-5)


def test_the_precision_of_the_card_sets_the_tolerances() -> None:
    assert not verify(stub(score=-0.05), stub(), frames())['passed']
    assert not verify(stub(score=-0.05, precision='fp16'), stub(), frames())['passed']
    assert verify(stub(score=-0.05, precision='int8'), stub(), frames())['passed']


def test_worst_frames_come_first() -> None:
    class Once(Fixed):
        def run(self, inputs: dict[str, Any], out: dict[str, Any]) -> dict[str, Any]:
            super().run(inputs, out)
            out['boxes'][0] += 30 * (inputs['images'].max() > 0)
            return out

    model = Detector(stub().card, Once(BOXES, SCORES))
    shown = [Frame(f'{i}.png', partial(np.full, (128, 160), 255 * (i == 1), np.uint8))
             for i in range(3)]
    report = verify(model, stub(), shown)
    assert [f['name'] for f in report['worst_frames']] == ['1.png', '0.png', '2.png']
    assert report['worst_frames'][0]['missing'] == 3 == report['missing'] == report['extra']


def test_without_truth_or_metrics_boxes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    report = verify(stub(), stub(), frames(truth=False))
    assert report['AP'] is None and 'no annotations' in report['why_no_AP'] and report['passed']
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    monkeypatch.delitem(sys.modules, 'cgdet_core.detection.metrics', raising=False)
    report = verify(stub(shift=3), stub(), frames())
    assert report['AP'] is None and 'faster_coco_eval is missing' in report['why_no_AP']
    assert not report['passed']


@pytest.mark.parametrize(('card', 'words'), [
    ({'classes': ('person', 'truck')}, 'different classes, person, truck and person, car'),
    ({'channels': 3}, 'different channels, 3 and 1'),
    ({'score_threshold': 0.5}, 'thresholds differ, 0.5 and 0.3'),
])
def test_models_that_cannot_be_compared(card: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        verify(stub(**card), stub(), frames())


def test_thresholds_may_be_given() -> None:
    report = verify(stub(score_threshold=0.5), stub(), frames(), score_threshold=0.4)
    assert report['passed'] and report['detections'] == 6


def test_a_frame_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def source() -> Iterator[Frame]:
        yield from frames()
        yield Frame('bad.png', lambda: np.zeros((0, 5), np.uint8), 'here/bad.png')
        yield from frames(count=1)
        raise UserError('The rest is missing.')

    report = verify(stub(), stub(), source())
    assert report['passed'] and (report['frames'], report['unreadable']) == (4, 2)
    assert 'here/bad.png' in caplog.text and 'The rest is missing.' in caplog.text
    with pytest.raises(UserError, match='The source nothing does not exist'):
        verify(stub(), stub(), read_frames('nothing'))


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(UserError, match='no frames'):
        verify(stub(), stub(), frames(count=0))
    with pytest.raises(UserError, match=r'score of at least 0\.95 in 3 frames'):
        verify(stub(), stub(), frames(), score_threshold=0.95)
    with pytest.raises(UserError, match='corner must not be negative'):
        Tolerances(-1, 0, 0, 0)


def test_pairs_are_of_a_class_and_the_best_overlap() -> None:
    first = Detections(np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32),
                       np.array([0.9, 0.8], np.float32), np.array([0, 1]))
    second = Detections(
        np.array([[2, 0, 12, 10], [1, 0, 11, 10], [40, 0, 50, 10], [0, 0, 9, 10]], np.float32),
        np.array([0.9, 0.1, 0.6, 0.1], np.float32), np.array([0, 0, 1, 0]))
    one, other, missing, extra = match(first, second, 0.3)
    assert (one.tolist(), other.tolist()) == ([0], [3])
    assert (missing, extra) == (1, 2)


def test_command_line(
    run_cgdet: Run, program: Run, trained: Path, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    # The tiny model has low and nearly equal scores in many cells; which of them are kept depends
    # on the last digit, which may differ between PyTorch and ONNX Runtime.
    options = ('--data', scenes, '--score-threshold', 0.002, '--json', tmp_path / 'v.json')
    result = run_cgdet('verify', onnx_model, '--against', trained / 'last.ckpt', *options,
                       '--off', 0.9)
    assert result.returncode == 0, result.stderr
    assert 'agrees with last.ckpt: of the detections, at most 90.0%' in result.stdout
    report = json.loads((tmp_path / 'v.json').read_text())
    assert report['passed'] and report['frames'] == 12 and report['detections'] > 0
    assert report['AP']['drop'] == pytest.approx(0, abs=5e-4)
    # If the other one of two overlapping boxes was kept, its score also differs slightly.
    assert report['score']['p50'] < 1e-5 and report['score']['p99'] < 1e-3
    bad = perturbed(onnx_model, tmp_path / 'bad.onnx')
    result = run_cgdet('verify', bad, '--against', onnx_model, *options)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and 'differs too much' in result.stderr
    assert not json.loads((tmp_path / 'v.json').read_text())['passed']
    folder = ('--data', scenes.parent / 'thermal', *options[2:])
    result = program('verify', onnx_model, '--against', onnx_model, *folder)
    assert result.returncode == 0 and 'AP was not measured' in result.stdout, result.stderr
    report = json.loads((tmp_path / 'v.json').read_text())
    assert report['matched_share'] == 1 and report['corner_px']['max'] == 0


def perturbed(model: Path, path: Path) -> Path:
    """Write a copy of a model with noise on its kernels, and a matching card."""
    content = onnx.load(model)
    rng = np.random.default_rng(0)
    for weight in content.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.ndim == 4:
            noisy = values + rng.normal(0, 0.3 * values.std(), values.shape)
            weight.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(np.float32), weight.name))
    onnx.save(content, path)
    save_card(replace(load_card(model, DetectionCard), onnx_sha256=file_sha256(path)), path)
    return path


@pytest.mark.parametrize(('arguments', 'words'), [
    (('no.onnx', '--against', 'MODEL', '--data', 'SCENES'), 'no.onnx does not exist'),
    (('MODEL', '--against', 'no.ckpt', '--data', 'SCENES'), 'no.ckpt does not exist'),
    (('MODEL', '--against', 'MODEL', '--data', 'nowhere'), 'nowhere does not exist'),
    (('no.ckpt', '--against', 'MODEL', '--data', 'SCENES', '--backend', 'tensorrt'),
     'a checkpoint runs in PyTorch (--backend)'),
    (('MODEL', '--against', 'MODEL', '--data', 'SCENES', '--off', '-1'), 'not be negative'),
])
def test_invalid_input_is_one_sentence(
    run_cgdet: Run, onnx_model: Path, scenes: Path, arguments: tuple[str, ...], words: str,
) -> None:
    names = {'MODEL': str(onnx_model), 'SCENES': str(scenes)}
    result = run_cgdet('verify', *(names.get(a, a) for a in arguments))
    assert result.returncode == 1 and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
