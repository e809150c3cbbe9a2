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

"""The model card: round trip, and every way not to fit."""

from dataclasses import replace
import json
from pathlib import Path
import shutil

from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector, load_card, ModelCard, Normalization
from cgdet_core.runtime.inference.card import card_path, save_card
import pytest


@pytest.fixture
def pair(tmp_path: Path, onnx_model: Path) -> Path:
    """Return a copy of the tiny model and its card."""
    shutil.copy(card_path(onnx_model), tmp_path / 'm.json')
    return Path(shutil.copy(onnx_model, tmp_path / 'm.onnx'))


def change(model: Path, **values: object) -> None:
    card = json.loads(card_path(model).read_text())
    card_path(model).write_text(json.dumps({**card, **values}))


def test_round_trip(pair: Path) -> None:
    card = load_card(pair)
    assert ModelCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    assert card.classes == ('person', 'bicycle', 'car')
    assert card.normalization == Normalization()


@pytest.mark.parametrize(('values', 'words'), [
    ({'onnx_sha256': 'ab' * 32}, 'belongs to another file'),
    ({'input_size': [160, 100]}, 'multiples of 32'),
    ({'normalization': {'kind': 'magic'}}, 'magic'),
    ({'normalization': {}}, "did you mean 'normalization'"),
    ({'precision': 'fp4'}, 'precision'),
    ({'onnx_sha256': None}, 'onnx_sha256 must be text'),
    ({'classes': []}, 'classes'),
    ({'version': 99}, 'version'),
    ({'letterbox': 'center'}, 'letterbox'),
])
def test_a_wrong_entry_is_named(pair: Path, values: dict, words: str) -> None:
    change(pair, **values)
    with pytest.raises(UserError, match=words):
        load_card(pair)


@pytest.mark.parametrize('values', [{'input_size': [320, 256]}, {'classes': ['person']}])
def test_a_card_of_other_shapes_does_not_open(pair: Path, values: dict) -> None:
    change(pair, **values)
    with pytest.raises(UserError, match='does not fit its card'):
        Detector.load(pair)


def test_missing_and_damaged_files(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='does not exist'):
        load_card(tmp_path / 'no.onnx')
    card_path(pair).write_text('{"name": ')
    with pytest.raises(UserError, match='not valid'):
        load_card(pair)
    card_path(pair).write_text('[' * 200_000)
    with pytest.raises(UserError, match='not valid'):
        load_card(pair)
    card_path(pair).unlink()
    with pytest.raises(UserError, match='no card'):
        load_card(pair)


def test_a_file_that_is_no_onnx_does_not_open(pair: Path) -> None:
    card = load_card(pair)
    pair.write_bytes(b'not a network')
    from cgdet_core.runtime.inference.card import file_sha256
    save_card(replace(card, onnx_sha256=file_sha256(pair)), pair)
    with pytest.raises(UserError, match='cannot|can load'):
        Detector.load(pair)
