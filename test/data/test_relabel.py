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

"""Boxes of an annotation tool in the set that they were drawn for."""

import json
from pathlib import Path
from typing import Any

from cgdet_core.data.relabel import relabel
from cgdet_core.errors import UserError
import pytest


def image(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {'id': number, 'file_name': name, 'width': 64, 'height': 48, **more}


def box(number: int, of: int) -> dict[str, Any]:
    return {'id': number, 'image_id': of, 'category_id': 7, 'bbox': [1, 2, 3, 4]}


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Return a set of three frames with the fields that a tool's export lacks."""
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps({
        'images': [image(i, f'thermal/{i}.png', rgb_file_name=f'rgb/{i}.jpg', stamp_ns=i)
                   for i in (1, 2, 3)],
        'categories': [{'id': 1, 'name': 'person'}], 'annotations': []}))
    return path


def export(tmp_path: Path, *images: dict[str, Any], **more: Any) -> Path:
    path = tmp_path / f'export{len(list(tmp_path.iterdir()))}.json'
    path.write_text(json.dumps({'images': images, 'categories': [{'id': 7, 'name': 'car'}],
                                'annotations': [box(1, images[0]['id'])], **more}))
    return path


def test_boxes_of_an_export(tmp_path: Path, ours: Path) -> None:
    labels = export(tmp_path, image(10, '3.png'), image(11, 'other/1.png'))
    output = tmp_path / 'labelled.json'
    assert relabel(ours, labels, output, False) == (2, 1, 1)
    made = json.loads(output.read_text())
    assert [(i['id'], i['stamp_ns'], i['rgb_file_name']) for i in made['images']] == [
        (1, 1, 'rgb/1.jpg'), (3, 3, 'rgb/3.jpg')]
    assert made['annotations'] == [box(1, 3)]
    assert made['categories'] == [{'id': 7, 'name': 'car'}]
    with pytest.raises(UserError, match='already exists'):
        relabel(ours, labels, output, False)
    assert relabel(ours, labels, output, True) == (2, 1, 1)


@pytest.mark.parametrize('name', [
    'images/0a1b2c3d-3.png', '../../media/upload/1/0a1b2c3d-3.png',  # Label Studio
    '3_JPG.rf.0123456789abcdef0123456789abcdef.jpg', 'a/3_tiff.rf.Ab0.jpg'])  # Roboflow
def test_what_tools_add_to_names_is_left_out(tmp_path: Path, ours: Path, name: str) -> None:
    output = tmp_path / 'labelled.json'
    assert relabel(ours, export(tmp_path, image(10, name)), output, False) == (1, 1, 2)
    assert json.loads(output.read_text())['images'][0]['id'] == 3
    with pytest.raises(UserError, match='0a1b2c3d-4.png is not in'):
        relabel(ours, export(tmp_path, image(1, '0a1b2c3d-4.png')), output, True)


def test_exports_of_something_else(tmp_path: Path, ours: Path) -> None:
    output = tmp_path / 'labelled.json'
    for labels, words in (
            (export(tmp_path, image(1, '4.png')), 'is not in'),
            (export(tmp_path, image(1, '0a1b2c3d-_png.rf.abc.png')), 'is not in'),
            (export(tmp_path, image(1, '1.png', width=65)), '65x48 pixels'),
            (export(tmp_path, image(1, '1.png'), annotations=[box(1, 5)]), 'does not list'),
            (export(tmp_path, image(1, '1.png'), categories=[]), 'no "categories"'),
            (export(tmp_path, image(1, '1.png'), categories=[{'id': 1, 'name': 'car'}]),
             'does not list'),
            (export(tmp_path, image(1, '1.png'), image(1, '2.png')), 'twice'),
            (export(tmp_path, image(1, 'a/1.png'), image(2, 'b/1.png')), 'twice'),
            (tmp_path / 'none.json', 'does not exist')):
        with pytest.raises(UserError, match=words):
            relabel(ours, labels, output, False)
    with pytest.raises(UserError, match='1.png must end with .json'):
        relabel(ours, ours, tmp_path / '1.png', True)
    with pytest.raises(UserError, match='must be in the folder of'):
        relabel(ours, ours, tmp_path / 'far' / 'a.json', False)
    assert not output.exists()


def test_repeated_names_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    ours, output = tmp_path / 'ours.json', tmp_path / 'labelled.json'
    ours.write_text(json.dumps({'images': [image(1, 'a/x/1.png'), image(2, 'b/x/1.png')]}))
    labels = export(tmp_path, image(5, 'view/b/x/1.jpg'))
    assert relabel(ours, labels, output, False) == (1, 1, 1)
    assert json.loads(output.read_text())['images'][0]['id'] == 2
    with pytest.raises(UserError, match='matches 2 frames'):
        relabel(ours, export(tmp_path, image(5, 'x/1.png')), output, True)
