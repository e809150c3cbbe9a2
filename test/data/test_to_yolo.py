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

"""Sets written as YOLO are read again as they were; what YOLO has no form for is counted."""

from collections.abc import Callable
import json
from pathlib import Path
import subprocess

from cgdet_core.data.coco import load_coco
from cgdet_core.data.to_yolo import write_yolo, yolo_lines
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess]


def write(folder: Path, names: list[str], boxes: list[tuple[int, int, list[float]]]) -> Path:
    """Write a set of 16-bit frames of two classes; boxes: image, category and x y w h."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.full((40, 50), 30_000, np.uint16))
    path = folder / 'set.json'
    path.write_text(json.dumps({
        'images': [{'id': i, 'file_name': name, 'width': 50, 'height': 40}
                   for i, name in enumerate(names)],
        'categories': [{'id': 3, 'name': 'dog'}, {'id': 8, 'name': 'straße'}],
        'annotations': [{'id': i, 'image_id': image, 'category_id': category, 'bbox': box,
                         'area': box[2] * box[3], 'iscrowd': int(category < 0)}
                        for i, (image, category, box) in enumerate(boxes)]}))
    return path


def test_converting_back_gives_the_same_set(run_cgdet: Run, tmp_path: Path) -> None:
    names = ['a.png', 'day/a.png', 'day/b.tif']
    train = write(tmp_path / 'train', names, [
        (0, 3, [1, 2, 5.5, 5]), (0, 8, [40, 30, 10, 10]), (2, 8, [3, 4, 2, 2])])
    val = write(tmp_path / 'val', ['c.png'], [(0, 3, [0, 0, 50, 40])])
    out = tmp_path / 'yolo'
    result = run_cgdet('data', 'to-yolo', train, '--val', val, '--output', out)
    assert result.returncode == 0, result.stderr
    assert 'images/train: 3 frames, 3 boxes' in result.stdout and 'left out' not in result.stdout
    assert 'names the classes: dog, straße' in result.stdout
    again = run_cgdet('data', 'convert', 'yolo', out)
    assert again.returncode == 0, again.stderr
    for path, split in ((train, 'train'), (val, 'val')):
        before, after = load_coco(path), load_coco(out / 'annotations' / f'{split}_thermal.json')
        assert after.classes == before.classes
        found = {record.path.relative_to(out / 'images' / split): record
                 for record in after.images}
        assert len(found) == len(before.images)
        for record in before.images:
            other = found[Path(record.file_name)]
            assert other.path.read_bytes() == record.path.read_bytes()
            np.testing.assert_allclose(other.boxes, record.boxes, atol=1e-3)
            assert other.labels.tolist() == record.labels.tolist()


def test_ignore_regions_and_rgb_images_are_counted(run_cgdet: Run, tmp_path: Path) -> None:
    path = write(tmp_path / 'set', ['a.png'], [(0, 3, [1, 2, 5, 5]), (0, 8, [9, 9, 9, 9])])
    data = json.loads(path.read_text())
    data['annotations'][1]['iscrowd'] = 1
    data['images'][0]['rgb_file_name'] = 'a.png'
    path.write_text(json.dumps(data))
    result = run_cgdet('data', 'to-yolo', path, '--output', tmp_path / 'yolo')
    assert result.returncode == 0, result.stderr
    assert '1 frame, 1 box\n1 ignore region left out' in result.stdout
    assert '1 RGB image left out' in result.stdout
    lines = (tmp_path / 'yolo/labels/train/a.txt').read_text()
    assert lines == '0 0.070000 0.112500 0.100000 0.125000\n'
    with pytest.raises(UserError, match='yolo already exists'):
        write_yolo({'train': load_coco(path)}, tmp_path / 'yolo', lambda error: None)


def test_what_yolo_cannot_say_is_said(run_cgdet: Run, tmp_path: Path) -> None:
    train = write(tmp_path / 'train', ['a.png'], [(0, 3, [1, 2, 5, 5]), (0, 8, [9, 9, 9, 9])])
    val = write(tmp_path / 'val', ['b.png'], [(0, 3, [1, 2, 5, 5]), (0, 8, [9, 9, 9, 9])])
    for path, old, new in ((train, '"images"', '"info": {"polarity": "black_hot"}, "images"'),
                           (val, 'dog', 'fox')):
        path.write_text(path.read_text().replace(old, new))
    result = run_cgdet('data', 'to-yolo', train, '--val', val, '--output', tmp_path / 'yolo')
    assert result.returncode == 0, result.stderr
    assert f'{train}: unit and polarity of frames (black_hot) are left out' in result.stdout
    assert f'{val}: boxes of classes that {train} does not list are left out: fox 1' in (
        result.stdout)


def test_a_truncated_image_is_left_out_and_reported(run_cgdet: Run, tmp_path: Path) -> None:
    boxes: list = [(0, 3, [1, 2, 5, 5]), (1, 8, [9, 9, 9, 9])]
    path = write(tmp_path / 'set', ['a.png', 'b.png'], boxes)
    torn = tmp_path / 'set' / 'b.png'
    torn.write_bytes(torn.read_bytes()[:-20])
    result = run_cgdet('data', 'to-yolo', path, '--output', tmp_path / 'yolo')
    assert result.returncode == 1 and 'images/train: 1 frame, 1 box' in result.stdout
    assert 'b.png' in result.stderr and '1 of 2 images could not be read' in result.stderr
    assert [p.stem for p in (tmp_path / 'yolo').rglob('*/train/*')] == ['a', 'a']
    torn.with_name('a.png').write_bytes(b'')
    with pytest.raises(UserError, match='None of the frames of .*set.json can be read'):
        write_yolo({'train': load_coco(path)}, tmp_path / 'none', lambda error: None)
    assert not (tmp_path / 'none').exists()


def test_boxes_are_clipped_to_the_frame() -> None:
    box = np.array([[-5, 10, 60, 30]], np.float32)
    assert yolo_lines(box, np.array([2]), 50, 40) == '2 0.500000 0.500000 1.000000 0.500000\n'


@pytest.mark.parametrize(('files', 'name', 'words'), [
    (('data.yaml',), '.', 'is of a YOLO set.*data convert yolo .*set"'),
    (('data.yaml',), 'data.yaml', 'data convert yolo .*set"'),
    (('data.yaml', 'valid/images/a.png', 'valid/labels/a.txt'), 'valid',
     'data convert yolo .*set"'),
    (('images/a.png', 'labels/a.txt'), 'labels', 'data convert yolo .*set"'),
    (('Annotations/a.xml', 'JPEGImages/a.png'), '.', 'is of a VOC set.*data convert voc .*set"'),
    (('Annotations/a.xml',), 'Annotations/a.xml', 'data convert voc .*set"'),
    (('images/a.png',), '.', 'is a folder; a COCO annotation file is required, which'),
    (('images/a.png', 'all.json'), '.', 'is a folder; .*, such as .*all.json')])
def test_sets_of_other_formats_are_named_with_the_command(
    tmp_path: Path, files: tuple[str, ...], name: str, words: str,
) -> None:
    for file in files:
        (tmp_path / 'set' / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'set' / file).touch()
    with pytest.raises(UserError, match=words):
        load_coco(tmp_path / 'set' / name)
