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

"""What a teacher finds in labeled frames, as a user asks for it."""

import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from cgdet_core.data.coco import load_coco
from cgdet_core.distillation.predictions import Predictions
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
from cgdet_core.experiments.pseudo_labels import main, measure
from cgdet_core.tasks import parse_recipe
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


class Knower:
    """A teacher that knows the truth in negatives, and nothing but a wrong box elsewhere."""

    truth: dict[Path, Any] = {}

    def __init__(self, config: Any, more: Any) -> None:
        self.predictor = type('Predictor', (), {'classes': ('person', 'bicycle', 'car')})

    def of(self, views: list[View], device: Any, progress: bool) -> list[Predictions]:
        found = []
        for view in views:
            record = self.truth.get(view.picture)
            if view.black_hot and record is not None:
                scores = np.full(len(record.labels), 0.9, np.float32)
                found.append(Predictions(record.boxes.astype(np.float32), scores, record.labels))
            else:
                found.append(Predictions(np.array([[0, 0, 3, 3]], np.float32),
                                         np.array([0.8], np.float32), np.array([0])))
        return found


def test_each_source_and_all_together_are_measured(
    recipe_values: dict, pairs: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = load_coco(pairs).images
    monkeypatch.setattr('cgdet_core.detection.unlabeled.TeacherPredictions', Knower)
    monkeypatch.setattr(Knower, 'truth', {record.path: record for record in records})
    recipe = parse_recipe({
        **recipe_values, 'data': {'train': str(pairs), 'val': str(pairs)},
        'classes': ['person', 'bicycle', 'car'], 'unlabeled': {
            'frames': str(pairs), 'sources': ['student', 'rgb', 'thermal', 'black_hot'],
            'teacher': {'path': 'any'}}}, 'test')
    report = measure(recipe)
    assert list(report) == ['rgb', 'thermal', 'black_hot', 'rgb + thermal + black_hot']
    best = report['black_hot']
    assert best['AP50'] == best['person']['precision'] == best['car']['recall'] == 1
    for name in ('rgb', 'thermal'):
        assert report[name]['person']['precision'] == report[name]['AP50'] == 0
        assert report[name]['car'] == {'AP50': 0, 'precision': None, 'recall': 0}
    people = sum(int((record.labels == 0).sum()) for record in records)
    # Two wrong boxes at one place are one of the fused boxes of a frame.
    assert report['rgb + thermal + black_hot']['person']['precision'] == pytest.approx(
        people / (people + len(records)), abs=1e-3)


def test_the_program_prints_them_and_refuses_what_it_cannot_measure(
    tmp_path: Path, recipe_values: dict, pairs: Path, rgb_teacher: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / 'recipe.yaml'
    path.write_text(yaml.safe_dump({
        **recipe_values, 'data': {'train': str(pairs), 'val': str(pairs)},
        'unlabeled': {'frames': str(pairs), 'sources': ['rgb', 'black_hot'],
                      'teacher': {'path': str(rgb_teacher)}}}))
    command = [sys.executable, '-m', 'cgdet_core.experiments.pseudo_labels', str(path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(json.loads(result.stdout)) == ['rgb', 'black_hot', 'rgb + black_hot']
    monkeypatch.setattr(sys, 'argv', [
        *command[2:], 'unlabeled.teacher=null', 'unlabeled.sources=[student]'])
    with pytest.raises(SystemExit, match='has no unlabeled.teacher, which finds the objects.'):
        main()


def test_a_set_without_rgb_is_refused(recipe_values: dict, scenes: Path) -> None:
    recipe = parse_recipe({
        **recipe_values, 'classes': ['person', 'bicycle', 'car'], 'unlabeled': {
            'frames': str(scenes), 'sources': ['rgb'], 'teacher': {'path': 'any'}}}, 'test')
    with pytest.raises(UserError, match=r'no RGB images.* set unlabeled.sources to \[thermal'):
        measure(recipe)


def test_a_recipe_without_unlabeled_frames_is_refused(recipe_values: dict) -> None:
    with pytest.raises(UserError, match='has no unlabeled.teacher'):
        measure(parse_recipe(recipe_values, 'test'))
