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
import shutil
from typing import Any

from cgdet_core.data.coco import classes_with_boxes, load_coco, NO_CLASS
from cgdet_core.data.show import draw_record
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal
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


def test_paths_may_be_those_of_windows(coco: Path) -> None:
    expected = [record.path for record in load_coco(coco).images]
    coco.write_text(coco.read_text().replace('pics/', r'pics\\'))
    found = load_coco(coco).images
    assert [record.path for record in found] == expected
    assert found[0].rgb_path == expected[1] and found[0].read().shape == (20, 30)


@pytest.mark.parametrize('start', ['/home/somebody/set/', r'D:\\set\\', 'C:/Users/me/'])
def test_paths_may_be_those_of_another_machine(coco: Path, start: str) -> None:
    expected = [record.path for record in load_coco(coco).images]
    coco.write_text(coco.read_text().replace('pics/', f'{start}pics/'))
    found = load_coco(coco).images
    assert [record.path for record in found] == expected
    assert found[0].rgb_path == expected[1] and found[0].read().shape == (20, 30)
    coco.write_text(coco.read_text().replace('b.png', 'c.png'))
    with pytest.raises(UserError, match='1 of the 2 images listed .* are missing'):
        load_coco(coco)


@pytest.mark.parametrize(('size', 'good'), [((20, 30), True), ((30, 20), False)])
def test_the_size_is_the_one_that_exif_shows(
    coco: Path, size: tuple[int, int], good: bool,
) -> None:
    Image = pytest.importorskip('PIL.Image')  # noqa: N806
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ('a.png', 'b.png'):
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(
            coco.parent.parent / 'pics' / name, exif=exif)
    data = json.loads(coco.read_text())
    data['images'] = [image | dict(zip(('width', 'height'), size)) for image in data['images']]
    coco.write_text(json.dumps(data))
    if good:
        assert load_coco(coco).images[0].read().shape == size[::-1]
    else:
        with pytest.raises(UserError, match='a.png: 20x30, listed 30x20'):
            load_coco(coco)


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
    (lambda d: d.pop('images'), 'no list "images"; export the labels as COCO'),
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
    (lambda d: [c.update(name=f'cat {c["id"]}') for c in d['categories']], 'none of them'),
    (lambda d: d.update(categories=[{'id': 1, 'name': 'cat'}]),
     'does not list the category 7, which 1 of its 3 boxes have'),
    (lambda d: d['images'][1].update(id=5), 'lists the image id 5 twice'),
    (lambda d: d['images'][1].update(file_name='pics/a.png'), 'lists image pics/a.png twice'),
    (lambda d: d['images'][1].update(file_name='./pics/a.png'), 'lists image pics/a.png twice'),
    (lambda d: d['categories'][1].update(id=7), 'lists the category id 7 twice'),
    (lambda d: [c.update(name='dog') for c in d['categories']], 'the category dog 3 times'),
    (lambda d: d['images'][1].update(width=20, height=30),
     '1 of the 2 images .* another size than listed, .*b.png: 30x20, listed 20x30'),
    (lambda d: [a.update(bbox=[0.1, 0.2, 0.3, 0.4]) for a in d['annotations']],
     'must be x, y, width, height in pixels'),
    (lambda d: [a.update(bbox=[100, 2, 130, 20]) for a in d['annotations']],
     'most of the 3 boxes have no area in their image'),
    (lambda d: d['annotations'].extend(  # x1, y1, x2, y2
        {'image_id': 2, 'category_id': 7, 'bbox': [x, 3, x + 9, 17]} for x in (1, 5, 12)) or
     [a.update(bbox=[14, 9, 29, 19]) for a in d['annotations'][:3]],
     'all of them could be x1, y1, x2, y2; "bbox" must be x, y, width, height'),
    (lambda d: d['annotations'][0].pop('image_id'), 'is not valid: it has no "image_id"'),
    (lambda d: d['annotations'][0].update(image_id='5'), '"image_id" must be a whole number'),
    (lambda d: d['annotations'][0].update(bbox=[1, 2, 10**400, 4]), 'four finite numbers'),
    (lambda d: d['annotations'][0].update(bbox=[1, 2, True, 4]), 'four finite numbers'),
    (lambda d: d['annotations'][0].update(bbox=[1, 2, 3, 4, 30]), '"bbox" is rotated'),
    (lambda d: d['annotations'][0].update(area=[50]), '"area" must be a number of at least 0'),
    (lambda d: d['annotations'][0].update(area='50'), '"area" must be a number of at least 0'),
    (lambda d: d['annotations'][0].update(area=-1), '"area" must be a number of at least 0'),
    (lambda d: d['annotations'][0].update(area=1e300), '"area" must be a number of at least 0'),
    (lambda d: d['annotations'][0].update(area=float('nan')), '"area" must be a number'),
    (lambda d: d['annotations'][0].update(iscrowd='no'), '"iscrowd" must be 0 or 1'),
    (lambda d: d['annotations'][0].update(attributes={'rotation': 90.0}),
     '1 of the 3 boxes are rotated, the first is that of image 5'),
    (lambda d: d['annotations'][0].update(attributes={'rotation': '30'}),
     '1 of the 3 boxes are rotated, the first is that of image 5'),
    (lambda d: d['annotations'].append([1]), 'it must be a JSON object'),
    (lambda d: d['images'][0].update(width=30.5), '"width" must be a whole number above 0'),
    (lambda d: d['images'][0].update(width=True), '"width" must be a whole number above 0'),
    (lambda d: d['images'][0].update(id=None), 'it has no "id"'),
    (lambda d: d['images'][0].update(file_name=' '), '"file_name" must be text'),
    (lambda d: d['images'][0].update(rgb_file_name=3), '"rgb_file_name" must be text'),
    (lambda d: d['images'][0].update(rgb_file_name='a\0.png'), 'must be text without NUL'),
    (lambda d: d['images'][0].update(stamp_ns='now'), '"stamp_ns" must be a whole number'),
    (lambda d: d['categories'][0].update(name='  '), '"name" must be text'),
    (lambda d: d['categories'].append({'id': 9, 'name': 'Person '}),
     "categories 'person' and 'Person ', which differ only in case, blanks or Unicode form"),
    (lambda d: [d['categories'].append({'id': i, 'name': n})
                for i, n in ((9, 'caf\u00e9'), (10, 'cafe\u0301'))], 'blanks or Unicode form'),
    (lambda d: d['categories'].append({'id': 9, 'name': 'per\u200bson'}),
     r"'person' and 'per\\u200bson', which differ only in case, blanks or Unicode form"),
    (lambda d: d['categories'][1].update(name='per\u200bson'), "and the class is 'person'"),
    (lambda d: d['categories'][1].update(name='Person'),
     "names a category 'Person', and the class is 'person'; write both in the same way"),
    (lambda d: d['categories'][1].update(name='per_son\u00a0'), "and the class is 'person'"),
])
def test_wrong_files_are_explained(coco: Path, change, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_coco(edited(coco, change), classes=('person', 'car'))


@pytest.mark.parametrize(('box', 'kept', 'words'), [
    ([1, 2, 0, 4], [], '1 box smaller than a pixel or outside their image left out, the first'),
    ([40, 2, 5, 4], [], '1 box smaller than a pixel or outside their image left out'),
    ([-5, -5, 4, 4], [], '1 box smaller than a pixel or outside their image left out'),
    ([20, 10, 500, 400], [[20, 10, 30, 20]], '1 box mostly outside their image clipped'),
    ([-2, 2, 10, 5], [[-2, 2, 8, 7]], ''),
    ([1, 2, 0.4, 4], [], '1 box smaller than a pixel or outside'),
    ([29.5, 2, 20, 4], [], '1 box smaller than a pixel or outside'),
    ([1, 2, 1e7, 4], [], '1 box larger than 100 images left out, the first in pics/a.png'),
    ([1, 2, 1e300, 1e300], [], '1 box larger than 100 images left out'),
])
def test_boxes_outside_are_counted(
    coco: Path, caplog: pytest.LogCaptureFixture, box: list, kept: list, words: str,
) -> None:
    edited(coco, lambda d: d['annotations'][0].update(bbox=box))
    record = load_coco(coco, classes=('car',)).images[0]
    assert record.boxes.tolist() == kept
    assert len(record.areas) == len(record.labels) == len(kept)
    assert words in caplog.text and bool(words) == bool(caplog.text)


def test_boxes_of_images_that_are_not_listed_are_counted(
    coco: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    edited(coco, lambda d: d['annotations'][0].update(image_id=77))
    assert load_coco(coco).boxes() == {'person': 0, 'dog': 1, 'car': 0}
    assert '1 box of images that are not listed left out, the first in 77' in caplog.text


def test_boxes_that_are_listed_again_are_counted(
    coco: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    edited(coco, lambda d: d['annotations'].extend(
        {**a, 'id': 10 + a['id']} for a in d['annotations'][:2]))
    assert load_coco(coco).boxes() == {'person': 0, 'dog': 1, 'car': 1}
    assert '2 boxes listed again left out, the first in pics/a.png' in caplog.text


def test_what_other_tools_write_is_read(
    coco: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    def change(data: dict) -> None:
        for image in data['images']:
            image.update(width=30.0, height=20.0, file_name=image['file_name'].replace('/', '\\'),
                         rgb_file_name=None, bag=None, stamp_ns=None)
        for annotation in data['annotations']:
            annotation.update(image_id=5.0, iscrowd=None, area=None,
                              attributes={'rotation': 0.0, 'occluded': False})
        data['annotations'][0]['attributes'] = {'rotation': 10**400}

    plain = load_coco(coco).images[0]
    found = load_coco(edited(coco, change)).images[0]
    assert found.path == plain.path and found.file_name == 'pics/a.png'
    assert (found.width, found.height) == (30, 20) and type(found.width) is int
    np.testing.assert_array_equal(found.boxes, plain.boxes)
    np.testing.assert_array_equal(found.areas, plain.areas)
    assert not caplog.text


@pytest.mark.parametrize(('value', 'name'), [
    (14, '14'), (['x'], "['x']"), (None, 'unknown'), ('day', 'day')])
def test_times_of_day_are_texts(coco: Path, value: Any, name: str) -> None:
    """Frames are grouped and sorted by them."""
    edited(coco, lambda d: d['images'][0].update(time_of_day=value))
    assert load_coco(coco).images[0].time_of_day == name


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_files_of_windows_editors_are_read(coco: Path, encoding: str) -> None:
    coco.write_bytes(coco.read_text().encode(encoding))
    assert len(load_coco(coco).images) == 2


@pytest.mark.parametrize('orientation', [1, 6])
def test_sizes_are_those_of_the_images_as_they_are_read(coco: Path, orientation: int) -> None:
    Image = pytest.importorskip('PIL.Image', reason='training is not installed')
    path = coco.parent.parent / 'pics' / 'turned.jpg'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(path, exif=exif)
    height, width = read_thermal(path).shape
    edited(coco, lambda d: d['images'][0].update(
        file_name='pics/turned.jpg', width=width, height=height))
    assert load_coco(coco).images[0].width == width
    edited(coco, lambda d: d['images'][0].update(width=height, height=width))
    with pytest.raises(UserError, match='is turned by an EXIF orientation, save it upright'):
        load_coco(coco)
    # A model for color images reads them upright.
    color = np.zeros((20, 30, 3), np.uint8)
    color[..., 0] = 200
    Image.fromarray(color).save(path, exif=exif)
    height, width = read_rgb(path).shape[:2]
    edited(coco, lambda d: d.update(images=[{
        'id': 5, 'file_name': 'pics/turned.jpg', 'width': width, 'height': height}]))
    assert load_coco(coco, channels=3).images[0].width == width


@pytest.mark.parametrize('folder', ['images', 'images_gray', '../images'])
def test_images_beside_the_annotations_are_found(coco: Path, folder: str) -> None:
    (coco.parent.parent / 'pics').rename(coco.parent / folder)
    edited(coco, lambda d: [i.update(file_name=i['file_name'][5:]) for i in d['images']])
    assert [r.path.name for r in load_coco(coco).images] == ['a.png', 'b.png']
    shutil.copytree(coco.parent / folder, coco.parent / 'other')
    if folder == 'images_gray':
        with pytest.raises(UserError, match='are missing'):  # either could be meant
            load_coco(coco)


def test_images_are_found_if_the_first_of_them_is_missing(coco: Path) -> None:
    (coco.parent.parent / 'pics').rename(coco.parent / 'images')
    edited(coco, lambda d: [i.update(file_name=i['file_name'][5:]) for i in d['images']])
    (coco.parent / 'images' / 'a.png').unlink()
    with pytest.raises(UserError, match='^1 of the 2 images .*/images/a.png;'):
        load_coco(coco)


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_ids_of_boxes_may_be_anything(coco: Path, number: float) -> None:
    edited(coco, lambda d: d['annotations'][0].update(id=number))
    assert load_coco(coco).boxes()['car'] == 1


def test_other_categories_can_be_ignored(
    coco: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped, ignored = (load_coco(coco, classes=('car',), ignore_others=i) for i in (False, True))
    assert dropped.others == ignored.others == {'dog': 1}
    assert dropped.images[0].boxes.tolist() == [[1, 2, 11, 7]]
    record = ignored.images[0]
    assert record.labels.tolist() == [0, NO_CLASS, NO_CLASS]
    assert record.crowd.tolist() == [0, 1, 1]
    assert ignored.boxes() == dropped.boxes() == {'car': 1}
    assert classes_with_boxes(coco) == ('dog', 'car')  # all persons are ignore regions
    captions: list[str] = []
    monkeypatch.setattr('cgdet_core.data.show.draw_boxes',
                        lambda view, boxes, names, colors: captions.extend(names))
    draw_record(record, ignored.classes, paired=False)
    assert captions == ['car', 'ignore', 'ignore']  # not the name of a class of ours


@pytest.mark.parametrize(('entries', 'license'), [
    ({}, 'unknown'), ({'licenses': None, 'info': []}, 'unknown'),
    ({'licenses': [{'id': 0, 'name': '', 'url': ''}]}, 'unknown'),
    ({'licenses': [{'name': 'CC BY 4.0'}, {'url': 'x.org'}, {'name': 'CC BY 4.0'}]},
     'CC BY 4.0, x.org'),
    ({'info': {'license': 'ours'}, 'licenses': []}, 'ours'),
    ({'licenses': [{'name': {'a': [1]}}, {'name': 'b'}]}, "{'a': [1]}, b"),
])
def test_the_license_is_that_of_the_file(coco: Path, entries: dict, license: str) -> None:
    assert load_coco(edited(coco, lambda d: d.update(entries))).license == license


@pytest.mark.parametrize('name', [
    'hituav_low/train.json', 'hituav_low/val.json', 'dogs_people/annotations.json',
    'rgbt_road/annotations/train_thermal.json', 'rgbt_road/annotations/unlabelled_pairs.json'])
def test_real_sets_are_valid(
    real_data: Path, caplog: pytest.LogCaptureFixture, name: str,
) -> None:
    path = real_data.parents[1] / name
    if not path.is_file():
        pytest.skip(f'{name} is not on this machine')
    coco = load_coco(path)
    assert len(coco.images) == len(json.loads(path.read_text())['images'])
    assert not caplog.text


def test_files_that_are_not_coco(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='does not exist'):
        load_coco(tmp_path / 'no.json')
    with pytest.raises(UserError, match='is a folder; .* which "cgdet data convert" writes'):
        load_coco(tmp_path)
    (tmp_path / 'empty.json').write_text('')
    with pytest.raises(UserError, match='is a folder; .* such as .*empty.json'):
        load_coco(tmp_path)
    (tmp_path / 'model.onnx').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match='model.onnx is not a readable JSON file: it is not text'):
        load_coco(tmp_path / 'model.onnx')
    with pytest.raises(UserError, match='not a readable JSON'):
        load_coco(tmp_path / 'empty.json')
    (tmp_path / 'list.json').write_text('[]')
    with pytest.raises(UserError, match='not a COCO'):
        load_coco(tmp_path / 'list.json')
