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

"""A tracker's scores are fitted to annotated frames; how lost targets are found is measured."""

from dataclasses import replace
import json
from pathlib import Path
import sys

from cgdet_core.cli import app
from cgdet_core.errors import UserError
from cgdet_core.experiments import refinding, starts
from cgdet_core.runtime.inference.card import card_path, load_card, save_card
from cgdet_core.runtime.tracking.card import EVIDENCE, TrackingCard
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.tracking.calibration import calibrate, fit, judge, observe, probability
from cgdet_core.tracking.sequences import find_sequences, open_sequence
import cv2
from drawn import write_sequence
import numpy as np
import pytest
from toy_tracker import box_around, draw, write_toy_tracker
from typer.testing import CliRunner


def write_set(folder: Path, frames: int) -> Path:
    """Write frames of a striped target and a plain one, whose names are those of a drive."""
    folder.mkdir()
    images, annotations = [], []
    for number in range(frames):
        center = (60.0 + 6 * number, 80.0 + 3 * number)
        other = (240.0 - 4 * number, 190.0)
        cv2.imwrite(str(folder / f'drive_{number:03d}.png'), draw(center, others=(other,)))
        images.append({'id': number + 1, 'file_name': f'drive_{number:03d}.png', 'width': 320,
                       'height': 240})
        for place, category in ((center, 1), (other, 2)):
            x1, y1, x2, y2 = box_around(place)
            annotations.append({
                'id': len(annotations) + 1, 'image_id': number + 1, 'category_id': category,
                'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': 1600, 'iscrowd': 0})
    path = folder / 'set.json'
    path.write_text(json.dumps({
        'images': images, 'annotations': annotations,
        'categories': [{'id': 1, 'name': 'striped'}, {'id': 2, 'name': 'plain'}]}))
    return path


def test_the_fit_is_that_of_known_weights() -> None:
    rng = np.random.default_rng(0)
    evidence = np.concatenate([np.ones((4000, 1)), rng.random((4000, 3))], 1)
    weights = np.array([-3.0, 4.0, 2.0, 0.5])
    correct = (rng.random(4000) < probability(evidence, weights)).astype(float)
    found = fit(evidence, correct)
    assert found == pytest.approx(weights, abs=0.4)
    judged = judge(probability(evidence, found), correct)
    assert judged['ECE'] < 0.05 and 0.7 < judged['AUROC'] < 1


def test_a_certain_and_a_guessing_score_are_judged() -> None:
    correct = np.array([0.0, 1.0] * 50)
    assert judge(correct, correct) == {'ECE': 0, 'right': 1, 'AUROC': 1}
    assert judge(np.full(100, 0.9), correct) == pytest.approx(
        {'ECE': 0.4, 'right': 0.5, 'AUROC': 0.5})


def test_scores_are_fitted_and_written_to_the_card(tmp_path: Path) -> None:
    model = write_toy_tracker(tmp_path / 'toy.onnx')
    before = load_card(model, TrackingCard)
    data = write_set(tmp_path / 'set', 12)
    result = CliRunner().invoke(app, ['track', 'fit-scores', str(model), '--data', str(data),
                                      '--objects', '24', '--json', str(tmp_path / 'r.json')])
    assert result.exit_code == 0, result.output
    card = load_card(model, TrackingCard)
    assert card.calibration != before.calibration and sorted(card.calibration) == sorted(EVIDENCE)
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report.pop('made_by') == 'cgdet'
    assert card.accuracy['scores'] == report and report['looks'] == 48
    assert 0 < report['correct'] <= 0.5 and report['cross_fitted']['AUROC'] > 0.6


def test_frames_are_seen_in_the_polarity_of_the_card(tmp_path: Path) -> None:
    path = write_toy_tracker(tmp_path / 'toy.onnx')
    save_card(replace(load_card(path, TrackingCard), polarity='black_hot'), path)
    model = TrackingModel.load(path, backend='onnxruntime')
    data = write_set(tmp_path / 'set', 6)
    values = json.loads(data.read_text())
    found = []
    for info in ({}, {'polarity': 'black_hot'}, {'polarity': 'white_hot'}):
        data.write_text(json.dumps(values | {'info': info}))
        found.append([look.found.score for look, _ in observe(model, [data], 6)])
    assert found[0] == found[1] != found[2], 'only those of the other one are inverted'


def test_too_few_objects_are_refused_and_the_card_stays(tmp_path: Path) -> None:
    model = write_toy_tracker(tmp_path / 'toy.onnx')
    before = card_path(model).read_bytes()
    with pytest.raises(UserError, match='too few objects'):
        calibrate(model, [write_set(tmp_path / 'set', 2)])
    assert card_path(model).read_bytes() == before


def test_too_few_frames_with_objects_are_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / 'set', 4)
    values = json.loads(data.read_text())
    values['annotations'] = values['annotations'][:4]
    data.write_text(json.dumps(values))
    with pytest.raises(UserError, match='too few objects'):
        calibrate(write_toy_tracker(tmp_path / 'toy.onnx'), [data])


def test_a_hidden_target_is_not_in_the_frame() -> None:
    center = (160.0, 120.0)
    frame = draw(center).astype(np.uint16) * 50
    hidden = refinding.hide(frame, np.array(box_around(center)))
    part = np.s_[104:136, 144:176]
    assert hidden[part].max() < 150 * 50 < frame[part].max()
    assert (hidden[:60] == frame[:60]).all() and hidden.dtype == np.uint16


def test_events_of_hidden_targets_are_counted(tmp_path: Path) -> None:
    model = TrackingModel.load(write_toy_tracker(tmp_path / 'toy.onnx'), threads=1,
                               backend='onnxruntime')
    report = refinding.measure(model, None, 1, seed=0)
    assert report['events'] == 1
    assert 0 <= report['found_within_1_s'] <= 1 and 0 <= report['false'] <= 1


def test_a_sequence_is_followed_from_many_starts_forward_and_backward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_sequence(tmp_path / 'sequence', 8)
    entry, = find_sequences(folder)
    names = open_sequence(entry).names
    forward, backward = [*starts.parts(open_sequence(entry))][1::4]
    assert forward.names == names[2:] and backward.names == names[5::-1]
    for part in (forward, backward):
        assert [frame.name for frame in part.source.frames] == part.names
        assert part.truths[0].visible.all() and len(part.truths[0].boxes) == 6
    model = write_toy_tracker(tmp_path / 'toy.onnx')
    monkeypatch.setattr(sys, 'argv', ['starts', *map(str, (model, folder, folder))])
    starts.main()
    report = json.loads(capsys.readouterr().out)
    assert list(report['means']) == ['sequence', 'sequence_2'], 'of one name in several folders'
    for found in report['success_auc'].values():
        assert len(found) == 8 and min(found) > 0.5
