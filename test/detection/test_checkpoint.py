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

"""Checkpoints: cards of earlier versions and other tasks, RGB teachers, PyTorch sessions."""

from pathlib import Path
from typing import Any

from cgdet_core.detection.predict import open_detector
from cgdet_core.detection.student import load_student
from cgdet_core.errors import UserError
from cgdet_core.training.checkpoints import KEY
import numpy as np
import pytest
import torch

PICTURE = np.random.default_rng(0).integers(0, 256, (100, 150, 3)).astype(np.uint8)


def with_card(path: Path, source: Path, card: dict[str, Any]) -> Path:
    """Write a copy of a checkpoint with another card."""
    data = torch.load(source, weights_only=True)
    data[KEY]['card'] = card
    torch.save(data, path)
    return path


def test_a_checkpoint_with_a_card_of_version_1_still_opens(
    tmp_path: Path, rgb_teacher: Path,
) -> None:
    card = torch.load(rgb_teacher, weights_only=True)[KEY]['card']
    newer = ('task', 'inputs', 'outputs', 'voting_iou', 'score_scaling', 'class_thresholds')
    old = {k: v for k, v in card.items() if k not in newer}
    old |= {'version': 1, 'input_size': (160, 128), 'channels': 3, 'top_k': 300,
            'training': {'licence': 'ours'}}
    path = with_card(tmp_path / 'old.ckpt', rgb_teacher, old)
    loaded = load_student(path)[1]
    assert loaded.training == {'license': 'ours'}
    assert loaded.inputs == load_student(rgb_teacher)[1].inputs
    assert loaded.outputs == load_student(rgb_teacher)[1].outputs
    found = [open_detector(p).detect(PICTURE, 0.0) for p in (path, rgb_teacher)]
    assert len(found[0]) > 0
    np.testing.assert_array_equal(found[0].boxes, found[1].boxes)


@pytest.mark.parametrize(('change', 'words'), [
    ({'task': 'tracking'}, 'is a tracking model, not a detection model'),
    ({'version': 3},
     'has version 3, but this package reads versions up to 2; update the package')])
def test_a_checkpoint_of_something_else_is_an_error(
    tmp_path: Path, rgb_teacher: Path, change: dict, words: str,
) -> None:
    card = torch.load(rgb_teacher, weights_only=True)[KEY]['card']
    with pytest.raises(UserError, match=f'other.ckpt {words}|card of .*other.ckpt .*{words}'):
        load_student(with_card(tmp_path / 'other.ckpt', rgb_teacher, card | change))


def test_a_teacher_detects_only_in_rgb_images(rgb_teacher: Path) -> None:
    detector = open_detector(rgb_teacher)
    assert len(detector.detect(PICTURE, 0.0)) > 0
    rows = 107  # 150x100 is 160x107 in the input
    assert 0.9 < detector.input[0, :, :rows].max() <= 1 and not detector.input[0, :, rows:].any()
    with pytest.raises(ValueError, match='an RGB image must be'):
        detector.detect(PICTURE[..., 0])


def test_a_pytorch_session_fills_what_it_returns(rgb_teacher: Path) -> None:
    session = open_detector(rgb_teacher).session
    images = np.random.default_rng(1).random((2, 3, 128, 160), np.float32)
    found = session.run({'images': images})
    out = {name: np.zeros_like(array) for name, array in found.items()}
    assert session.run({'images': images}, out) is out
    for name in ('boxes', 'scores'):
        assert out[name].any()
        np.testing.assert_array_equal(out[name], found[name])
