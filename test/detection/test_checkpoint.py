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

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
import zipfile

from cgdet_core.detection.predict import open_detector
from cgdet_core.detection.student import load_student
from cgdet_core.errors import UserError
from cgdet_core.training.checkpoints import KEY, read_checkpoint
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
    newer = ('task', 'inputs', 'outputs', 'voting_iou', 'score_scaling', 'class_thresholds',
             'polarity')
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


def truncated(path: Path, source: Path) -> None:
    content = source.read_bytes()
    path.write_bytes(content[:len(content) // 2])


def zipped(path: Path, source: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.write(source, 'best.ckpt')


def scripted(path: Path, _: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('data.pkl', 'constants.pkl', 'version', 'code/net.py'):
            archive.writestr(f'net/{name}', b'3')


@pytest.mark.parametrize(('write', 'words'), [
    (lambda path, _: path.write_bytes(b''), 'it is empty'),
    (lambda path, _: path.write_text('hello'), 'seems to be text or another format'),
    (lambda path, _: path.write_text('<!DOCTYPE html>\n<html>'), 'seems to be a web page'),
    (lambda path, _: path.write_text('version https://git-lfs.github.com/spec/v1\noid x'),
     'Git LFS, whose file "git lfs pull" downloads'),
    (lambda path, _: path.write_bytes(b'\x08\x0a\x12\x07pytorch' + bytes(90)), 'an ONNX file'),
    (lambda path, _: path.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(90)), 'a PNG image'),
    (lambda path, _: path.write_bytes(b'\x80\x02}q\x00ee.'), 'a Python pickle'),
    (truncated, 'it is cut off, .*copy it again or use another checkpoint of the run'),
    (zipped, 'it seems to be a ZIP archive'),
    (lambda path, _: torch.save({'w': torch.zeros(1)}, path), 'values of another program'),
    (lambda path, _: torch.save([1], path), 'values of another program'),
    (scripted, 'a TorchScript model'),
    (lambda path, _: torch.save({KEY: torch.nn.Linear(1, 1)}, path),
     'contains torch.nn.modules.linear.Linear, which is code of another program'),
])
def test_a_file_that_is_something_else_is_named(
    tmp_path: Path, rgb_teacher: Path, write: Callable[[Path, Path], object], words: str,
) -> None:
    path = tmp_path / 'other.ckpt'
    write(path, rgb_teacher)
    with pytest.raises(UserError, match=f'other.ckpt is not a checkpoint of .*{words}') as caught:
        read_checkpoint(path)
    assert '\n' not in str(caught.value)


def test_any_damage_to_a_checkpoint_is_one_sentence(tmp_path: Path, rgb_teacher: Path) -> None:
    content = rgb_teacher.read_bytes()
    start = content.index(b'data.pkl') + 8
    for place in range(start, start + 400, 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        (tmp_path / 'a.ckpt').write_bytes(damaged)
        with suppress(UserError):  # a change of a name or a number may go unnoticed
            read_checkpoint(tmp_path / 'a.ckpt')


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, rgb_teacher: Path) -> None:
    data = torch.load(rgb_teacher, weights_only=True)
    data['state_dict']['student.head.cls_out.bias'][1] = float('nan')
    torch.save(data, tmp_path / 'nan.ckpt')
    with pytest.raises(UserError, match=r'not finite \(in student.head.cls_out.bias\);'):
        open_detector(tmp_path / 'nan.ckpt')


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
