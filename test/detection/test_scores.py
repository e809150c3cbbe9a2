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

"""Fitted scores and thresholds, against their definitions."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
import shutil
import subprocess

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.data.synthetic import write_coco
from cgdet_core.detection import scores
from cgdet_core.detection.curves import draw_curves, draw_reliability
from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, load_card, Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.inference.card import save_card
import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess]
CARD = detection_card('m', ('person', 'car'), (64, 64), Normalization())


def frames(count: int, seed: int = 0) -> tuple[list[Detections], list[ImageRecord]]:
    """Return frames of 4 objects and detections, of which a share of score ** 3 is right."""
    rng = np.random.default_rng(seed)
    found, records = [], []
    for i in range(count):
        objects = np.arange(4, dtype=np.float32)[:, None] * 100 + np.float32([0, 0, 30, 30])
        raw = rng.uniform(0.06, 0.99, 12).astype(np.float32)
        right = (rng.uniform(0, 1, 12) < raw**3) & (np.arange(12) % 3 == 0)
        boxes = np.where(right[:, None], objects[np.arange(12) // 3], 1000 + np.float32(
            [0, 0, 30, 30]) + 50 * np.arange(12, dtype=np.float32)[:, None])
        order = np.argsort(-raw, kind='stable')
        labels = (np.arange(12) // 6)
        found.append(Detections(boxes[order].astype(np.float32), raw[order], labels[order]))
        records.append(ImageRecord(i, Path(f'{i:04d}.png'), 2000, 2000, boxes=objects,
                                   labels=np.array([0, 0, 1, 1]),
                                   areas=np.full(4, 900, np.float32),
                                   crowd=np.zeros(4, np.int64)))
    return found, records


def test_the_fit_finds_the_line_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    raw = rng.uniform(0.05, 0.95, 20_000)
    z = 2.5 * np.log(raw / (1 - raw)) - 0.7
    slope, offset = scores.fit_scaling(raw, rng.uniform(0, 1, 20_000) < 1 / (1 + np.exp(-z)))
    assert slope == pytest.approx(2.5, abs=0.1) and offset == pytest.approx(-0.7, abs=0.1)


def test_the_slope_is_positive_even_if_scores_mislead() -> None:
    raw = np.linspace(0.1, 0.9, 100)
    assert scores.fit_scaling(raw, raw < 0.5)[0] > 0


def test_scores_become_probabilities_and_average_precision_stays() -> None:
    metrics = pytest.importorskip('cgdet_core.detection.metrics')
    found, records = frames(300)
    card = scores.fit(found, records, CARD)
    fitted = [scores.scaled(f, card) for f in found]
    raw, after = (scores.summarize(scores.judge_all(f, records, c), c.classes)
                  for f, c in ((found, CARD), (fitted, card)))
    for name in CARD.classes:
        assert raw['per_class'][name]['ECE'] > 0.1 and after['per_class'][name]['ECE'] < 0.04
        assert after['per_class'][name]['F1'] > raw['per_class'][name]['F1']
    assert after['false_per_frame'] < raw['false_per_frame']
    one, two = (metrics.evaluate(f, CocoSet(Path(), records, CARD.classes))
                for f in (found, fitted))
    assert one == two and one['AP'] > 0.05


def test_no_other_threshold_has_a_larger_f1() -> None:
    found, records = frames(60)
    card = scores.fit(found, records, CARD)
    fitted = [scores.scaled(f, card) for f in found]

    def f1(thresholds: dict[str, float], name: str) -> float:
        judged = scores.judge_all(fitted, records, replace(card, class_thresholds=thresholds))
        return scores.summarize(judged, card.classes)['per_class'][name]['F1'] or 0.0

    for name in card.classes:
        best = f1(card.class_thresholds, name)
        others = [f1({**card.class_thresholds, name: t}, name) for t in np.linspace(0, 1, 101)]
        assert best >= max(others) - 1e-12 and best > min(others)


def test_further_boxes_are_false_and_ignore_regions_count_neither_way() -> None:
    box = np.float32([0, 0, 10, 10])
    boxes = np.stack([box, box, box + 50, box + 50, box])
    found = Detections(boxes, np.float32([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0, 0, 0, 0, 1]))
    truth = ImageRecord(1, Path('a.png'), 99, 99, boxes=np.stack([box, box + 50]),
                        labels=np.array([0, 0]), areas=np.float32([100, 100]),
                        crowd=np.array([0, 1]))
    judged = scores.judge_all([found], [truth], CARD)
    assert judged.right.tolist() == [True, False, False]
    assert judged.objects.tolist() == [1, 0]
    report = scores.summarize(judged, CARD.classes)
    assert report['false_per_frame'] == 2
    assert report['per_class']['person']['precision'] == 0.5
    assert report['per_class']['person']['recall'] == 1
    assert report['per_class']['car']['recall'] is None


def test_the_calibration_error_of_five_detections() -> None:
    values = np.array([0.91, 0.93, 0.92, 0.1, 0.08])
    judged = scores.Judged(
        values, np.zeros(5, np.int64), np.array([1, 1, 0, 0, 0], bool), np.ones(5, bool),
        np.ones(5, bool), np.array([3]), 1)
    # Bins of 1/15: three scores of mean 0.92, two thirds right; two of mean 0.09, none right.
    assert scores.calibration_error(judged, 0) == pytest.approx(
        (3 * (0.92 - 2 / 3) + 2 * 0.09) / 5)
    assert scores.calibration_error(judged, 1) is None
    axes = draw_reliability(judged, ('person', 'car')).axes
    assert axes[0].get_title() == 'person, ECE 0.188' and axes[1].get_title() == 'car'
    np.testing.assert_allclose(axes[0].lines[1].get_ydata(), [0, 2 / 3])


def test_a_threshold_can_be_chosen_from_the_curves() -> None:
    judged = scores.Judged(
        np.array([0.91, 0.93, 0.92, 0.1, 0.08]), np.zeros(5, np.int64),
        np.array([1, 1, 0, 0, 0], bool), np.ones(5, bool), np.ones(5, bool), np.array([3, 0]), 1)
    values, precision, recall, f1 = scores.by_score(judged, 0)
    np.testing.assert_allclose(values, [0.93, 0.92, 0.91, 0.1, 0.08])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 2 / 4, 2 / 5])
    np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(f1, [2 / 4, 2 / 5, 4 / 6, 4 / 7, 4 / 8])
    assert scores.best_threshold(judged, 0) == 0.505
    results = [{'variant': 'm', 'curves': {'person': [1.0] * 101, 'car': None}}]
    axes = draw_curves(results, ['m'], ('person', 'car'), judged).axes
    marks = {text.get_text(): text.xy for text in axes[0].texts}
    assert marks == {'.1': pytest.approx((2 / 3, 2 / 4)),
                     '.2 .3 .4 .5 .6 .7 .8 .9': pytest.approx((2 / 3, 2 / 3))}
    assert axes[2].get_title() == 'largest F1 0.67 at 0.51'
    assert [line.get_label() for line in axes[2].lines[:3]] == ['precision', 'recall', 'F1']
    assert axes[3].get_title() == 'no right detection'


def test_cross_fitting_judges_every_frame_by_the_other_half() -> None:
    found, records = frames(160)
    judged = scores.cross_fit(found, records, CARD)
    assert judged.frames == 160 and judged.objects.tolist() == [320, 320]
    assert len(judged.scores) == sum(map(len, found))
    assert scores.calibration_error(judged, 0) < 0.06
    # Without objects in the odd blocks the scores of the even ones cannot be fitted.
    for i, record in enumerate(records):
        if i // 20 % 2:
            records[i] = replace(record, boxes=record.boxes[:0], labels=record.labels[:0],
                                 crowd=record.crowd[:0])
    with pytest.raises(UserError, match='too few objects'):
        scores.cross_fit(found, records, CARD)


def test_a_class_of_few_objects_stays_raw() -> None:
    found, records = frames(30)
    few = [replace(r, labels=np.zeros(4, np.int64)) for r in records]
    card = scores.fit(found, few, CARD)
    assert [*card.score_scaling] == [*card.class_thresholds] == ['person']
    with pytest.raises(UserError, match=r'too few objects to fit scores \(person 8, car 8\)'):
        scores.fit(found[:4], records[:4], CARD)


def test_fit_scores_writes_the_cards(run_cgdet: Run, tmp_path: Path) -> None:
    pytest.importorskip('cgdet_core.detection.metrics')
    shipped = Path(__file__).resolve().parents[2] / 'models/thermal_int8.onnx'
    raw_card = replace(load_card(shipped, DetectionCard), score_scaling={}, class_thresholds={},
                       voting_iou=None)
    models = [Path(shutil.copy(shipped, tmp_path / f'{name}.onnx')) for name in ('one', 'two')]
    for model in models:
        save_card(raw_card, model)
    data = write_coco(tmp_path / 'scenes', 12, 99, 1)
    options = ('--data', data, '--voting-iou', 0.5, '--json')
    result = run_cgdet('evaluate', models[0], *options, tmp_path / 'raw.json')
    assert result.returncode == 0, result.stderr
    result = run_cgdet('fit-scores', *models, *options, tmp_path / 'fit.json')
    assert result.returncode == 0, result.stderr
    cards = [load_card(model, DetectionCard) for model in models]
    assert cards[0].score_scaling == cards[1].score_scaling != {}
    assert [*cards[0].class_thresholds] == [*cards[0].score_scaling]
    assert cards[0].voting_iou == 0.5 and cards[0].training['scores']['frames'] == 12
    result = run_cgdet('evaluate', models[1], '--data', data, '--json', tmp_path / 'after.json',
                       '--output', tmp_path / 'figures')
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in (tmp_path / 'figures').iterdir()) == [
        'evaluation.json', 'pr_curve.png', 'reliability.png']
    raw, fit, after = (json.loads((tmp_path / f'{n}.json').read_text())
                       for n in ('raw', 'fit', 'after'))
    report = fit['models'][1]
    for key in ('AP', 'AP50', 'AP75'):
        assert after[key] == report[key] == raw[key]
    assert after['scores'] == report['scores'] and raw['scores'] == report['before']


def test_a_checkpoint_is_compared_with_the_scores_of_the_card(
    run_cgdet: Run, trained: Path, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    model = Path(shutil.copy(onnx_model, tmp_path / 'fitted.onnx'))
    card, line = load_card(onnx_model, DetectionCard), {'slope': 0.5, 'offset': 1.0}
    save_card(replace(card, voting_iou=0.5, score_scaling=dict.fromkeys(card.classes, line)),
              model)
    result = run_cgdet('verify', model, '--against', trained / 'last.ckpt', '--data', scenes,
                       '--score-threshold', 0.1, '--off', 0.9, '--json', tmp_path / 'v.json')
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'v.json').read_text())['score']['p50'] < 1e-3


def test_scores_of_a_checkpoint_are_not_fitted(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    result = run_cgdet('fit-scores', tmp_path / 'a.ckpt', '--data', scenes)
    assert result.returncode == 1 and 'export the checkpoint first' in result.stderr
    result = run_cgdet('evaluate', onnx_model, '--data', scenes, '--update-card',
                       '--iou-threshold', 0.5)
    assert result.returncode == 1 and 'cgdet fit-scores' in result.stderr
