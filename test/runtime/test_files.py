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

"""JSON files in any encoding, what files seem to be, and outputs that are also inputs."""

from codecs import BOM_UTF8
import json
import os
from pathlib import Path

from cgdet_core.detection.predict import check_model
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.files import (
    check_not_inputs,
    file_kind,
    model_file,
    read_json,
    share_file,
    SHIPPED_MODEL,
)
import pytest

VALUES = {'name': 'Wärmebild', 'sizes': [1, 2.5], 'none': None}


@pytest.mark.parametrize('content', [
    json.dumps(VALUES).encode(), BOM_UTF8 + json.dumps(VALUES, ensure_ascii=False).encode(),
    *(json.dumps(VALUES, ensure_ascii=False).encode(name) for name in (
        'utf-8', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'))])
def test_json_is_read_in_every_encoding_of_its_standard(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'a.json').write_bytes(content)
    assert read_json(tmp_path / 'a.json') == VALUES


@pytest.mark.parametrize(('content', 'words'), [
    (b'', 'it is empty'), (b' \n', 'it is empty'),
    ('{"a": "Wärme"}'.encode('latin-1'), 'UTF-8 or UTF-16; save it as UTF-8'),
    (b'{"a": 1', 'line 1 column'), (b'{"a": 1} {"a": 2}', 'Extra data'),
    (b'{"images": [], "images": [1]}', "the entry 'images' is there twice"),
    (b'[' * 100_000, 'nested too deeply'), (b'1' * 5000, 'digits'),
    (b'\x89PNG\r\n\x1a\n', 'it seems to be a PNG image'),
    (b'PK\x03\x04' + bytes(40), 'it seems to be a ZIP archive'),
    (b'\n<!doctype HTML><p>', 'it seems to be a web page'),
    (b'version https://git-lfs.github.com/spec/v1', '"git lfs pull"')])
def test_what_is_wrong_with_a_json_file_is_one_sentence(
    tmp_path: Path, content: bytes, words: str,
) -> None:
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(UserError, match='a.json is not a readable JSON file: ') as caught:
        read_json(tmp_path / 'a.json')
    assert words in str(caught.value) and '\n' not in str(caught.value)


def test_a_missing_file_and_a_folder_are_not_json(tmp_path: Path) -> None:
    for path, words in ((tmp_path / 'a.json', 'No such file'), (tmp_path, 'Is a directory')):
        with pytest.raises(UserError, match=words):
            read_json(path)
        assert file_kind(path) == ''


def test_a_file_that_is_read_is_not_written_by_any_of_its_names(tmp_path: Path) -> None:
    labels, other = tmp_path / 'labels.json', tmp_path / 'other.json'
    labels.write_text('{}')
    other.write_text('{}')
    os.symlink(labels, tmp_path / 'link.json')
    os.link(labels, tmp_path / 'hard.json')
    for name in ('labels.json', 'link.json', 'hard.json', '../' + tmp_path.name + '/labels.json'):
        with pytest.raises(UserError, match='is an input and would be replaced'):
            check_not_inputs([tmp_path / 'new.json', tmp_path / name], [other, labels])
    check_not_inputs([tmp_path / 'new.json', other], [labels, tmp_path, Path('x' * 5000)])


@pytest.mark.parametrize(('model', 'file'), [
    ('shipped', SHIPPED_MODEL), ('thermal', 'models/thermal.onnx'),
    (Path('thermal_clean'), 'models/thermal_clean.onnx')])
def test_models_of_the_package_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | Path, file: str,
) -> None:
    (tmp_path / 'thermal').mkdir()  # of frames
    monkeypatch.chdir(tmp_path)
    assert model_file(model) == share_file(file)


@pytest.mark.parametrize('model', ['thermal.onnx', './thermal', 'runs/a/best.ckpt', 'other'])
def test_other_models_are_files(model: str) -> None:
    assert model_file(model) == Path(model)


@pytest.mark.parametrize(('model', 'words'), [
    ('thermal_smal', 'thermal_smal is neither a file nor a model .*; did you mean thermal_small?'),
    ('thermal-tracker', 'did you mean thermal_tracker?'),
    ('yolo', 'of this package, which has .*thermal_small, .*thermal_tracker'),
    ('a/thermal_smal', 'a/thermal_smal does not exist')])
def test_misspelled_models_are_named(model: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_model(model_file(model))
    with pytest.raises(UserError, match=words):
        Detector.load(model_file(model))
