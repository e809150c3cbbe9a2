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

"""Merged sets have the frames, boxes and licenses of all."""

import json
from pathlib import Path

from cgdet_core.data.coco import load_coco
from cgdet_core.data.merge import merge
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest


def write(folder: Path, categories: dict[int, str], boxes: list[tuple[int, list[float]]],
          **entries: object) -> Path:
    """Write a set of one frame, with an RGB image, and boxes (category, x y w h)."""
    (folder / 'thermal').mkdir(parents=True)
    for name in ('a.png', 'rgb.png'):
        cv2.imwrite(str(folder / 'thermal' / name), np.zeros((20, 30), np.uint8))
    path = folder / 'set.json'
    path.write_text(json.dumps({
        'images': [{'id': 7, 'file_name': 'thermal/a.png', 'width': 30, 'height': 20,
                    'rgb_file_name': 'thermal/rgb.png', 'time_of_day': 'night'}],
        'categories': [{'id': i, 'name': name} for i, name in categories.items()],
        'annotations': [{'id': i, 'image_id': 7, 'category_id': c, 'bbox': box, 'area': 4}
                        for i, (c, box) in enumerate(boxes)], **entries}))
    return path


def test_frames_boxes_and_licenses_of_two_sets(tmp_path: Path) -> None:
    first = write(
        tmp_path / 'road', {1: 'car', 2: 'person'}, [(1, [1, 2, 5, 5]), (2, [3, 4, 2, 2])],
        licenses=[{'id': 3, 'name': 'CC BY 4.0'}])
    second = write(tmp_path / 'yard', {1: 'dog', 9: 'car'}, [(9, [0, 0, 9, 9]), (1, [1, 1, 4, 4])])
    output = tmp_path / 'both' / 'all.json'
    coco, lacking = merge([first, second], output)
    assert coco.classes == ('car', 'person', 'dog')
    assert coco.boxes() == {'car': 2, 'person': 1, 'dog': 1}
    assert coco.license == 'CC BY 4.0, unknown'
    assert lacking == {str(first): ['dog'], str(second): ['person']}
    road, yard = load_coco(output).images
    assert road.path.resolve() == (tmp_path / 'road/thermal/a.png').resolve()
    assert yard.rgb_path is not None and yard.rgb_path.is_file()
    assert (road.source, yard.source, yard.time_of_day) == ('road', 'yard', 'night')
    assert yard.boxes.tolist() == [[0, 0, 9, 9], [1, 1, 5, 5]] and yard.labels.tolist() == [0, 2]
    ids = [a['id'] for a in json.loads(output.read_text())['annotations']]
    assert len(set(ids)) == 4


def test_boxes_of_images_that_are_not_listed_are_left_out(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, {1: 'car'}, [(1, [1, 2, 5, 5])]) for name in 'ab']
    data = json.loads(paths[0].read_text())
    data['annotations'].append({**data['annotations'][0], 'image_id': 8})
    paths[0].write_text(json.dumps(data))
    assert merge(paths, tmp_path / 'all.json')[0].boxes() == {'car': 2}


def test_a_frame_twice_one_set_and_an_existing_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / 'road', {1: 'car'}, [(1, [1, 2, 5, 5])])
    with pytest.raises(UserError, match='a frame can be in a set once'):
        merge([path, path], tmp_path / 'all.json')
    with pytest.raises(UserError, match='name two or more'):
        merge([path], tmp_path / 'all.json')
    before = path.read_bytes()
    with pytest.raises(UserError, match='already exists'):
        merge([path, path], path)
    other = write(tmp_path / 'yard', {1: 'car'}, [(1, [1, 2, 5, 5])])
    with pytest.raises(UserError, match='is an input and would be replaced'):
        merge([path, other], path, overwrite=True)
    picture = tmp_path / 'road' / 'thermal' / 'a.png'
    with pytest.raises(UserError, match='a.png must end with .json'):
        merge([path, other], picture, overwrite=True)
    assert path.read_bytes() == before and not (tmp_path / 'all.json').exists()


def test_categories_that_differ_in_case_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    paths = [write(tmp_path / name, {1: name}, [(1, [1, 2, 5, 5])]) for name in ('car', 'Car')]
    with pytest.raises(UserError, match="'car' and 'Car', which differ only in case"):
        merge(paths, tmp_path / 'all.json')
    assert not (tmp_path / 'all.json').exists()
