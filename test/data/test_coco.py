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

"""COCO files: valid files are read, and each error is one sentence."""

import json
from pathlib import Path

from cgdet_core.data.coco import load_coco
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Write two frames; categories in another order than the classes, one unknown."""
    (tmp_path / 'pics').mkdir()
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / 'pics' / name), np.zeros((20, 30), np.uint8))
    path = tmp_path / 'annotations' / 'x.json'
    path.parent.mkdir()
    path.write_text(json.dumps({
        'images': [{'id': 5, 'file_name': 'pics/a.png', 'width': 30, 'height': 20,
                    'time_of_day': 'night', 'rgb_file_name': 'pics/b.png'},
                   {'id': 2, 'file_name': 'pics/b.png', 'width': 30, 'height': 20}],
        'categories': [{'id': 7, 'name': 'car'}, {'id': 1, 'name': 'person'},
                       {'id': 3, 'name': 'dog'}],
        'annotations': [
            {'id': 1, 'image_id': 5, 'category_id': 7, 'bbox': [1, 2, 10, 5]},
            {'id': 2, 'image_id': 5, 'category_id': 3, 'bbox': [1, 2, 3, 4]},
            {'id': 3, 'image_id': 5, 'category_id': 1, 'bbox': [3, 4, 2, 2], 'iscrowd': 1}]}))
    return path


def test_reads_boxes_classes_and_folders(coco: Path) -> None:
    found = load_coco(coco, classes=('person', 'bicycle', 'car'))
    first, second = found.images
    assert first.image_id == 5 and first.time_of_day == 'night' and first.path.is_file()
    assert first.rgb_path is not None and second.rgb_path is None
    assert first.boxes.tolist() == [[1, 2, 11, 7], [3, 4, 5, 6]]
    assert first.labels.tolist() == [2, 0] and first.crowd.tolist() == [0, 1]
    assert first.areas.tolist() == [50, 4]
    assert second.boxes.shape == (0, 4)
    assert load_coco(coco).classes == ('person', 'dog', 'car')
    assert load_coco(coco, coco.parent.parent / 'pics').images[0].path.is_file()


def test_rgb_models_read_the_rgb_images_of_a_thermal_set(coco: Path) -> None:
    picture = np.zeros((40, 90, 3), np.uint8)
    picture[..., 0] = 9
    cv2.imwrite(str(coco.parent.parent / 'pics' / 'rgb.png'), picture)
    found = load_coco(edited(coco, lambda d: d['images'][0].update(
        rgb_file_name='pics/rgb.png')), channels=3)
    assert [r.path.name for r in found.images] == ['rgb.png']
    record = found.images[0]
    assert (record.width, record.height) == (90, 40)
    assert record.boxes[0].tolist() == [3, 4, 33, 14] and record.areas[0] == 300
    # Without rgb_file_name, color images are used and thermal ones are an error.
    edited(coco, lambda d: [i.update(rgb_file_name=None) for i in d['images']])
    with pytest.raises(UserError, match='thermal set without RGB'):
        load_coco(coco, channels=3)
    edited(coco, lambda d: d['images'][1].update(file_name='pics/rgb.png', width=90, height=40))
    assert len(load_coco(coco, channels=3).images) == 2
    for name, words in (('gone.png', 'does not exist'), ('../annotations/x.json', 'cannot be')):
        edited(coco, lambda d, n=name: d['images'][0].update(rgb_file_name=f'pics/{n}'))
        with pytest.raises(UserError, match=words):
            load_coco(coco, channels=3)


def edited(path: Path, change) -> Path:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(('change', 'words'), [
    (lambda d: d['images'].append(
        {'id': 9, 'file_name': 'pics/gone.png', 'width': 1, 'height': 1}), '1 of the 3'),
    (lambda d: d.pop('images'), 'no list "images"'),
    (lambda d: d.update(images=[]), 'lists no images'),
    (lambda d: d['images'][0].pop('width'), 'entry 0 of "images"'),
    (lambda d: d['images'][0].update(width='abc'), 'entry 0 of "images"'),
    (lambda d: d['images'][1].update(height=0), 'entry 1 of "images"'),
    (lambda d: d.update(categories=None), 'is not a list'),
    (lambda d: d['categories'][1].pop('name'), 'entry 1 of "categories"'),
    (lambda d: d.pop('categories'), 'no "categories"'),
    (lambda d: d['annotations'][0].pop('bbox'), 'entry 0 of "annotations"'),
    (lambda d: d['annotations'][0].update(bbox=[1, 2]), 'bbox'),
    (lambda d: d['annotations'][1].update(bbox=[1, 2, -3, 4]), 'entry 1'),
    (lambda d: d['annotations'][2].update(bbox=[1, 2, float('nan'), 4]), 'entry 2'),
    (lambda d: d['annotations'][2].update(bbox='1 2 3 4'), 'entry 2'),
    (lambda d: d.update(categories=[{'id': 1, 'name': 'cat'}]), 'none of them'),
])
def test_wrong_files_are_explained(coco: Path, change, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_coco(edited(coco, change), classes=('person', 'car'))


def test_files_that_are_not_coco(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='does not exist'):
        load_coco(tmp_path / 'no.json')
    (tmp_path / 'empty.json').write_text('')
    with pytest.raises(UserError, match='not a readable JSON'):
        load_coco(tmp_path / 'empty.json')
    (tmp_path / 'list.json').write_text('[]')
    with pytest.raises(UserError, match='not a COCO'):
        load_coco(tmp_path / 'list.json')
