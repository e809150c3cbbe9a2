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

"""Conversion: numbers of the report, damaged and missing files, and no overwriting."""

from collections.abc import Callable
import json
from pathlib import Path
import shutil
import subprocess
from typing import Any

from cgdet_core.data.coco import load_coco
from cgdet_core.data.formats.convert import convert
from cgdet_core.data.formats.native import Options
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import temporary_for
from cgdet_core.runtime.imaging.drawing import COLORS
import cv2
from native_layouts import coco, flir_v1, flir_v2, LAYOUTS, llvip, m3fd, text, thermal, voc, yolo
import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess]


def run(name: str, folder: Path, output: Path | None = None, **options: Any) -> dict[str, Any]:
    return convert(name, folder, output, **options)[1]


@pytest.mark.parametrize('name', LAYOUTS)
def test_output_is_complete_and_needs_no_options(tmp_path: Path, name: str) -> None:
    folder = LAYOUTS[name](tmp_path)
    before = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    report = run(name, folder)
    out = folder / 'annotations'
    splits = [f'{s}_thermal.json' for s in report['splits']]
    new = {p for p in folder.rglob('*') if p.is_file()} - before.keys()
    assert {p.name for p in new} == {*splits, 'report.json', 'contact_sheet.png'}
    assert all(p.read_bytes() == content for p, content in before.items())
    assert json.loads((out / 'report.json').read_text()) == report
    pairs, frames = (sum(s[k] for s in report['splits'].values()) for k in ('with_rgb', 'images'))
    assert cv2.imread(str(out / 'contact_sheet.png')).shape[1] == 960 * min(2, pairs or frames)
    for split, numbers in report['splits'].items():
        coco = load_coco(out / f'{split}_thermal.json')
        records = coco.images
        assert numbers['images'] == len(records)
        assert numbers['with_rgb'] == sum(r.rgb_path is not None for r in records)
        assert numbers['ignored'] == sum(int(r.crowd.sum()) for r in records)
        for i, name in enumerate(coco.classes):
            assert numbers[name] == sum(
                int(((r.labels == i) & (r.crowd == 0)).sum()) for r in records)


def test_output_elsewhere_needs_images(tmp_path: Path) -> None:
    folder = llvip(tmp_path / 'set')
    run('llvip', folder, tmp_path / 'out')
    path = tmp_path / 'out' / 'train_thermal.json'
    assert len(load_coco(path, folder).images) == 2
    with pytest.raises(UserError, match='move train_thermal.json to where its file names lead'):
        load_coco(path)
    run('llvip', folder, folder)
    assert len(load_coco(folder / 'train_thermal.json').images) == 2


def test_records_name_their_source(tmp_path: Path) -> None:
    run('msrs', LAYOUTS['msrs'](tmp_path))
    content = json.loads((tmp_path / 'annotations' / 'test_thermal.json').read_text())
    assert content['images'] == [{
        'id': 1, 'file_name': 'test/ir/00004N.png', 'rgb_file_name': 'test/vi/00004N.png',
        'width': 64, 'height': 48, 'source': 'msrs', 'time_of_day': 'night'}]
    assert content['categories'] == [{'id': 1, 'name': 'person'}, {'id': 2, 'name': 'bicycle'},
                                     {'id': 3, 'name': 'car'}]
    assert content['annotations'][0] == {
        'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [8, 12, 16, 24], 'area': 384,
        'iscrowd': 0}


def test_boxes_are_clipped_dropped_and_counted(tmp_path: Path) -> None:
    m3fd(tmp_path)
    for path in list((tmp_path / 'Annotation').iterdir())[1:]:
        path.unlink()
    path = next((tmp_path / 'Annotation').iterdir())
    voc(path, ('People', -5, -5, 10, 20), ('People', 60, 40, 70, 90), ('Car', 5, 5, 5, 15),
        ('Car', 20, 15, 10, 5), ('Car', 70, 5, 90, 15), ('Car', 5, 5, 9, 9), ('Car', 5, 5, 9, 9))
    report = run('m3fd', tmp_path)
    boxes = load_coco(tmp_path / 'annotations' / 'all_thermal.json').images[0].boxes
    assert boxes.tolist() == [[0, 0, 10, 20], [60, 40, 64, 48], [5, 5, 9, 9]]
    assert report['boxes'] == {'clipped to the picture': 2, 'degenerate or outside, dropped': 3,
                               'repeated, dropped': 1}


def test_images_of_one_name_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    yolo(tmp_path)
    cv2.imwrite(str(tmp_path / 'images/train/a.jpg'), np.zeros((20, 30), np.uint8))
    before = run('yolo', tmp_path)['splits']['train']['images']
    assert before == sum(1 for _ in (tmp_path / 'images/train').glob('*.png'))
    assert '1 left out' in caplog.text and 'the first is a.jpg, for a.png' in caplog.text


def test_text_that_is_no_label_is_left_out_and_counted(tmp_path: Path) -> None:
    yolo(tmp_path)
    expected = run('yolo', tmp_path)['splits']
    for name, content in (('._a.txt', b'\0\5\x16\7\xff'), ('README.txt', b'Exported by a tool\n'),
                          ('.DS_Store', b'\0'), ('__MACOSX/._a.txt', b'\0')):
        path = tmp_path / 'labels/train' / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / 'images/train/._a.png').write_bytes(b'\0\5\x16\7')
    report = run('yolo', tmp_path, overwrite=True)
    assert report['splits'] == expected
    assert report['left_out']['text files without an image that are not labels, left out'] == 1
    (tmp_path / 'labels/train/a.txt').write_bytes(b'Exported by a tool\n')  # of an image
    with pytest.raises(UserError, match=r'a\.txt, line 1'):
        run('yolo', tmp_path, overwrite=True)


def test_damaged_images_cost_the_exit_status(
    tmp_path: Path, run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    yolo(tmp_path)
    (tmp_path / 'images/train/b.png').write_bytes(b'no picture')
    result = run_cgdet('data', 'convert', 'yolo', tmp_path)
    assert result.returncode == 1 and '1 thermal image could not be read' in result.stderr
    assert (tmp_path / 'annotations' / 'train_thermal.json').is_file()


def test_images_in_a_format_that_is_not_read_are_named(tmp_path: Path) -> None:
    yolo(tmp_path)
    for path in (tmp_path / 'images').glob('*/*.png'):
        path.rename(path.with_suffix('.webp'))
        path.with_suffix('.txt').touch()  # labels are no images in another format
    with pytest.raises(UserError, match=r'convert a.webp and the others to PNG'):
        run('yolo', tmp_path)


def test_missing_and_damaged_images_are_left_out(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / 'images/train/a.png').unlink()
    (tmp_path / 'images/train/b.png').write_bytes(b'no picture')
    (tmp_path / 'visible/val/d.jpg').unlink()
    report = run('yolo', tmp_path, options=Options(rgb=Path('visible')))
    assert report['missing'] == {
        'thermal': {'count': 1, 'examples': ['images/train/a.png']},
        'rgb': {'count': 1, 'examples': ['visible/val/d.jpg']},
        'unreadable': {'count': 1, 'examples': ['images/train/b.png']}}
    assert report['splits']['train']['images'] == report['splits']['val']['images'] == 1
    (tmp_path / 'visible/train/c.jpg').write_bytes(b'no picture')
    assert run('yolo', tmp_path, options=Options(rgb=Path('visible')), overwrite=True)[
        'alignment']['pairs'] == 0


def test_all_images_missing(tmp_path: Path) -> None:
    flir_v2(tmp_path)
    for folder in ('data', 'analyticsData'):
        for path in tmp_path.glob(f'*/{folder}'):
            shutil.rmtree(path)
    with pytest.raises(UserError, match='None of the 3 thermal images'):
        run('flir-adas-v2', tmp_path)
    assert not (tmp_path / 'annotations').exists()


@pytest.mark.parametrize('name', LAYOUTS)
def test_wrong_and_empty_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match='expected .*found an empty folder'):
        run(name, tmp_path)
    (tmp_path / 'holiday').mkdir()
    with pytest.raises(UserError, match='expected .*found holiday/'):
        run(name, tmp_path)
    with pytest.raises(UserError, match='does not exist'):
        run(name, tmp_path / 'nowhere')


BNDBOX = '<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>8</ymax></bndbox>'
VOC = '<annotation><object><name>car</name>' + BNDBOX + '</object></annotation>'
TWO = VOC.format(1, 2).replace('</object>', BNDBOX.format(3, 4) + '</object>')
DIFFICULT = VOC.format(1, 2).replace('<bndbox>', '<difficult>{}</difficult><bndbox>')


@pytest.mark.parametrize(('name', 'file', 'content', 'words'), [
    ('llvip', 'Annotations_v2/010001.xml', '<annotation><object>', '010001.xml is not a readable'),
    ('llvip', 'Annotations_v2/010001.xml', '', '010001.xml is not a readable XML'),
    ('voc', 'Annotations/a.xml', '<annotation><object><name>car</name></object></annotation>',
     'a.xml: object 0 has no valid name and box'),
    ('m3fd', 'Annotation/00001.xml', VOC.format('x', 2), '00001.xml: object 0 has no valid'),
    ('flir-adas-v1', 'train/thermal_annotations.json', '{"images": [', 'not a readable JSON'),
    ('flir-adas-v1', 'train/thermal_annotations.json', '[]', 'no list "images"'),
    ('flir-adas-v1', 'train/thermal_annotations.json', '{"images": [{"id": 1}]}', "'file_name'"),
    ('flir-adas-v2', 'images_thermal_val/coco.json', '{"images": [], "annotations": '
     '[{"image_id": 1, "bbox": [1, 2, 3], "category_id": 1}]}', 'annotation 0 is not valid'),
    ('flir-adas-v2', 'rgb_to_thermal_vid_map.json', '[]', 'not a table'),
    ('kaist', 'annotations_KAIST_test_set/set06_V000_I00019.txt', 'person 1 2\n', 'line 1'),
    ('msrs', 'MSRS-detection-label-main/infrared/test/00004N.txt', '0 16 12 32 24\n',
     'line 1: "0 16 12 32 24"'),
    ('yolo', 'labels/train/a.txt', '9 0.1 0.1 0.1 0.1\n', 'class 9 has no name'),
    ('yolo', 'labels/train/a.txt', 'car\n', 'line 1'),
    ('yolo', 'labels/train/a.txt', 'inf 0.5 0.5 0.5 0.5\n', 'line 1'),
    ('yolo', 'labels/train/a.txt', '0.5 0.5 0.5 0.5 0.5\n', 'line 1'),
    ('voc', 'Annotations/a.xml', '<?xml version="1.0" encoding="GBK"?><a/>', 'not a readable XML'),
    ('flir-adas-v2', 'images_thermal_val/coco.json', '{"images": [], "categories": [{"id": "x", '
     '"name": "car"}]}', 'not a valid COCO'),
    ('yolo', 'labels/train/a.txt', '0 nan 0.5 0.5 0.5\n', 'line 1'),
    ('yolo', 'data.yaml', 'names: {a: b}\n', 'no list "names"'),
    ('yolo', 'labels/train/a.txt', '0 .1 .1 .2 .1 .2 .2 .1 .2\n', 'polygons and rotated boxes'),
    ('voc', 'Annotations/a.xml', VOC.format(1, 2).replace('bndbox', 'robndbox'),
     'a.xml: object 0 has a rotated box'),
    ('yolo', 'data.yaml', 'names: [', 'not a readable YAML'),
    ('yolo', 'data.yaml', 'names: [car, deer, car]', 'names the class car twice'),
    ('yolo', 'data.yaml', 'nc: 5\nnames: [car, deer]', 'has 5 classes (nc), but names 2'),
    ('yolo', 'labels/train/a.txt', '0 .6 .6 .9 .9\n' * 9, 'reach beyond their images; the labels'),
    ('yolo', 'labels/train/a.txt', '0 1.5 .5 .2 .2\n' * 9, 'are outside of their images or have'),
    ('voc', 'Annotations/a.xml', VOC.format('nan', 2), 'object 0 has no valid name and box'),
    ('voc', 'Annotations/a.xml', VOC.format('1_0', 2), 'object 0 has no valid name and box'),
    ('voc', 'Annotations/a.xml', TWO, 'a.xml: object 0 has 2 elements "bndbox"; write an object'),
    ('voc', 'Annotations/a.xml', DIFFICULT.format('maybe'),
     'a.xml: "difficult" of object 0 is not a whole number such as 0 or 1, but \'maybe\''),
    ('voc', 'Annotations/a.xml', DIFFICULT.format('1_0'), '"difficult" of object 0 is not'),
    ('voc', 'Annotations/a.xml', VOC.format(1, 2).replace('object>', 'Object>'),
     'a.xml: the element "Object" seems to be an object; name it "object"'),
    ('voc', 'Annotations/a.xml', VOC.format(1, 2).replace('object>', 'item>'),
     'a.xml: the element "item" seems to be an object'),
    ('voc', 'Annotations/a.xml', VOC.format(1, 2).replace('annotation>', 'Labels>'),
     'a.xml is not a VOC file, as its root is "Labels", not "annotation"'),
    ('kaist', 'annotations_KAIST_test_set/set06_V000_I00019.txt', 'person 1_0 2 9 9\n', 'line 1'),
    ('yolo', 'labels/train/a.txt', '0 0_1.0 0.5 0.2 0.2\n', 'line 1: "0 0_1.0 0.5 0.2 0.2"'),
    ('yolo', 'data.yaml', 'names: [no, yes, car]\n', 'data.yaml names class 0 False, which is not '
     'text to YAML; write the name in quotes'),
    ('yolo', 'data.yaml', 'names: [car, [a], {b: c}]\n', "names class 1 ['a'], which is not text"),
    ('yolo', 'data.yaml', 'names: [car, dog, ~]\n', 'names class 2 None, which is not text'),
    ('yolo', 'data.yaml', 'names: {no: car, yes: dog}\n', 'no list "names"'),
])
def test_damaged_labels_are_named(
    tmp_path: Path, name: str, file: str, content: str, words: str,
) -> None:
    folder = LAYOUTS[name](tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(UserError) as caught:
        run(name, folder)
    assert words in str(caught.value) and '\n' not in str(caught.value)
    assert not (folder / 'annotations').exists()


@pytest.mark.parametrize(('content', 'kind'), [
    (b'\xff\xfe\x00', 'another encoding'), ('Fußgänger'.encode('latin-1'), 'another encoding'),
    (b'\x89PNG\r\n\x1a\n', 'a PNG image')])
def test_labels_in_another_encoding_are_named(tmp_path: Path, content: bytes, kind: str) -> None:
    yolo(tmp_path)
    (tmp_path / 'labels/train/a.txt').write_bytes(content)
    with pytest.raises(UserError, match=rf'a\.txt is not a text file in UTF-8 .*{kind}; save'):
        run('yolo', tmp_path)


def test_labels_may_be_in_utf_16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yolo(tmp_path)
    path = tmp_path / 'labels/train/a.txt'
    before = run('yolo', tmp_path)
    path.write_text(path.read_text(), encoding='utf-16')
    for _ in range(2):
        assert run('yolo', tmp_path, overwrite=True) == before
    assert caplog.text.count(f'{path.parent} has text in UTF-16, which is read') == 1


def declare(path: Path, width: object, height: object) -> None:
    path.write_text(path.read_text().replace(
        '</annotation>',
        f'<size><width>{width}</width><height>{height}</height></size></annotation>'))


def test_labels_of_resized_images_are_left_out_or_refused(tmp_path: Path) -> None:
    folder = LAYOUTS['voc'](tmp_path)
    labels = sorted((folder / 'Annotations').glob('*.xml'))
    for path, size in zip(labels, ((64, 48), (0, 0), (32, 24))):
        declare(path, *size)
    report = run('voc', folder)
    assert report['missing']['resized'] == {'count': 1, 'examples': ['JPEGImages/c.png']}
    assert sum(split['images'] for split in report['splits'].values()) == 2
    for path in labels[:2]:
        path.write_text(path.read_text().replace('<size>', '<old>').replace('</size>', '</old>'))
        declare(path, 128, 96)
    with pytest.raises(UserError, match='3 of the 3 thermal images have another size than their'):
        run('voc', folder, overwrite=True)


def test_a_coco_file_that_declares_another_size_is_refused(tmp_path: Path) -> None:
    folder = flir_v2(tmp_path)
    for path in folder.glob('*/coco.json'):
        path.write_text(path.read_text().replace('"width": 64', '"width": 640'))
    with pytest.raises(UserError, match='3 of the 3 thermal images have another size'):
        run('flir-adas-v2', folder)


def test_the_reason_why_images_cannot_be_read_is_stated(tmp_path: Path) -> None:
    Image = pytest.importorskip('PIL.Image', reason='training is not installed')
    yolo(tmp_path)
    for name in 'ab':
        (tmp_path / f'images/train/{name}.png').unlink()
    Image.fromarray(np.zeros((48, 64), np.float32)).save(tmp_path / 'images/train/a.tif')
    report = run('yolo', tmp_path)
    assert any('a.tif has floats as pixels (float32' in note for note in report['notes'])
    for path in [*(tmp_path / 'images').rglob('*.png'), *(tmp_path / 'images').rglob('*.jpg')]:
        path.unlink()
        Image.fromarray(np.zeros((48, 64), np.float32)).save(path.with_suffix('.tif'))
    for path in (tmp_path / 'labels').rglob('b.txt'):
        path.unlink()
    with pytest.raises(UserError, match='None of the .* can be used: .*floats as pixels .float32'):
        run('yolo', tmp_path, overwrite=True)


def test_labels_in_folders_of_cameras_are_read(tmp_path: Path) -> None:
    for name in ('day/front', 'night'):
        thermal(tmp_path / 'images' / name / 'a.png')
        text(tmp_path / 'labels' / name / 'a.txt', '0 0.25 0.5 0.25 0.5\n')
    thermal(tmp_path / 'images' / 'unlabeled' / 'a.png')
    text(tmp_path / 'classes.txt', 'person\n')
    text(tmp_path / 'labels' / 'README.txt', 'labels of day and night\n')
    report = run('yolo', tmp_path)
    assert report['splits']['all'] == {
        'images': 2, 'with_rgb': 0, 'empty': 0, 'person': 2, 'ignored': 0}
    assert report['read'] == ('images/day/front/ with labels/day/front/, '
                              'images/night/ with labels/night/')
    assert report['left_out'] == {
        'frames without labels, left out': 1,
        'text files without an image that are not labels, left out': 1}
    for path in (tmp_path / 'labels').rglob('a.txt'):
        path.unlink()
    with pytest.raises(UserError, match='labels has no label files'):
        run('yolo', tmp_path, overwrite=True)


@pytest.mark.parametrize(('name', 'options', 'words'), [
    ('nothing', {}, "format 'nothing' is not one of .* COCO files, .*, are read"),
    ('lvip', {}, "did you mean 'llvip'"),
    ('llvip', {'options': Options(bits=8)}, 'llvip sets have no bits'),
    ('llvip', {'options': Options(labels=Path('no'))}, 'has no XML'),
    ('llvip', {'options': Options(unregistered_rgb=True)}, 'have no unregistered rgb'),
    ('yolo', {'options': Options(rgb=Path('no'))}, 'RGB folder no does not exist'),
    ('msrs', {'options': Options(labels=Path('no'))}, 'label folder no does not exist'),
    ('flir-adas-v2', {'options': Options(bits=12)}, 'must be 8 or 16'),
    ('llvip', {'mapping': {'person': ''}}, "'person' is mapped to an empty name"),
    ('llvip', {'mapping': {'person': 'ignore-'}}, "'person' is mapped to an empty name"),
    ('llvip', {'mapping': {'person': 'drop'}}, 'None of the classes'),
    ('llvip', {'chosen': ('person', 'cat')}, "no class 'cat', but bicycle, car, person"),
    ('llvip', {'chosen': ('person', 'person')}, 'must be different names'),
    ('llvip', {'chosen': ('',)}, 'must be different names'),
    ('llvip', {'chosen': ('bicycle',)}, 'has no box of bicycle, but of person'),
    ('llvip', {'hold_out': 0.2}, 'without a split'),
    ('m3fd', {'hold_out': 1.5}, 'between 0 and 1'),
    ('m3fd', {'hold_out': 0.05}, 'of 5 frames leaves none for val'),
    ('m3fd', {'hold_out': 0.95}, 'of 5 frames leaves none for train'),
])
def test_wrong_options(tmp_path: Path, name: str, options: dict, words: str) -> None:
    folder = LAYOUTS.get(name, llvip)(tmp_path)
    with pytest.raises(UserError, match=words):
        run(name, folder, **options)
    assert not (folder / 'annotations').exists()


def test_nothing_is_overwritten_without_the_option(tmp_path: Path) -> None:
    llvip(tmp_path)
    out = tmp_path / 'annotations'
    text(out / 'report.json', 'mine')
    with temporary_for(tmp_path / 'new' / 'report.json'):
        with pytest.raises(UserError, match='Another process writes .*new/report.json; wait'):
            run('llvip', tmp_path, tmp_path / 'new', progress=pytest.fail)
    with pytest.raises(UserError, match='report.json already exists'):
        run('llvip', tmp_path)
    assert [p.name for p in out.iterdir()] == ['report.json']
    run('llvip', tmp_path, overwrite=True)
    assert json.loads((out / 'report.json').read_text())['format'] == 'llvip'
    with pytest.raises(UserError, match='already exists'):
        run('llvip', tmp_path)


def test_repeated_ids_and_frames(tmp_path: Path) -> None:
    flir_v1(tmp_path)
    names = [f'thermal_8_bit/FLIR_{i:05d}.jpeg' for i in (1, 2, 3)]
    coco(tmp_path / 'train' / 'thermal_annotations.json',
         [(0, names[0], {}), (0, names[0], {}), (1, names[1], {}), (1, names[2], {})],
         [(0, 1, [1, 2, 10, 20]), (1, 1, [1, 2, 10, 20]), (7, 1, [1, 2, 10, 20])], {1: 'person'})
    report = run('flir-adas-v1', tmp_path)
    assert report['left_out'] == {
        'frames listed twice': 1, 'boxes of pictures that are not listed': 1,
        'frames that share an id, left out': 2, 'frames without labels, left out': 2}
    assert report['splits']['train']['images'] == report['splits']['train']['person'] == 1


def test_frames_in_two_splits_are_noted(tmp_path: Path) -> None:
    folder = LAYOUTS['voc'](tmp_path)
    text(folder / 'ImageSets' / 'Main' / 'val.txt', 'a\nc\n')
    assert run('voc', folder)['notes'] == ['In more than one split: 1 frame.']


def test_command_line(run_cgdet: Run, program: Run, tmp_path: Path) -> None:
    flir_v1(tmp_path)
    result = program('data', 'convert', 'flir-adas-v1', tmp_path, '--map', 'dog=ignore-person',
                     '--unregistered-rgb')
    assert result.returncode == 0, result.stderr
    for words in ('8-bit, stretched by the camera', 'uint16 4 (up to', '2 RGB images are missing',
                  'dog -> ignore-person 2', 'bicycle 1 1', 'with RGB 2 2',
                  'train_thermal.json, val_thermal.json'):
        assert words in ' '.join(result.stdout.replace('│', '').split())
    path = tmp_path / 'annotations' / 'train_thermal.json'
    for arguments, files in (
            (('--output', tmp_path / 'sheet.png'), ['sheet.png']),
            (('--output', tmp_path / 'many', '--match', '*2.tiff'),
             ['many/000002_FLIR_00002.png'])):
        result = run_cgdet('data', 'show', path, *arguments)
        assert result.returncode == 0, result.stderr
        assert all((tmp_path / f).is_file() for f in files)
    assert len(list((tmp_path / 'many').iterdir())) == 1
    picture = cv2.imread(str(tmp_path / 'many' / '000002_FLIR_00002.png'))
    assert picture.shape == (48, 128, 3)
    for half in (picture[:, :64], picture[:, 64:]):  # a bicycle is drawn on both
        assert (half == COLORS[1]).all(axis=2).sum() > 20


@pytest.mark.parametrize(('arguments', 'words'), [
    (('convert', 'lvip', 'SET'), "did you mean 'llvip'"),
    (('convert', 'llvip', 'SET', '--map', 'person'), '--map requires NATIVE=CLASS'),
    (('convert', 'kaist', 'SET'), 'does not have the layout of KAIST'),
    (('show', 'no.json'), 'no.json does not exist'),
    (('show', 'SCENES', '--match', 'x*', '--output', 'SET/a.png'), 'No frame of'),
    (('show', 'SCENES', '--output', 'SET/a.jpg'), 'must end in .png'),
    (('show', 'SCENES', '--output', 'SET/old.png'), 'old.png already exists'),
])
def test_bad_input_is_one_sentence(
    run_cgdet: Run, scenes: Path, tmp_path: Path, arguments: tuple[str, ...], words: str,
) -> None:
    llvip(tmp_path)
    text(tmp_path / 'old.png', 'mine')
    before = sorted(tmp_path.rglob('*'))
    result = run_cgdet('data', *(
        a.replace('SET', str(tmp_path)).replace('SCENES', str(scenes)) for a in arguments))
    assert result.returncode == 1 and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob('*')) == before


def test_a_killed_conversion_can_be_repeated(
    tmp_path: Path, killed: Callable[..., bool],
) -> None:
    """Whenever it is killed: before its files are complete, while they are moved, or after it."""
    folder = yolo(tmp_path)
    expected = run('yolo', folder)
    out = folder / 'annotations'
    names = sorted(p.name for p in out.iterdir())
    for renames in range(50):
        shutil.rmtree(out)
        if not killed(lambda: run('yolo', folder), renames):
            break
        assert run('yolo', folder) == expected
        assert sorted(p.name for p in out.iterdir()) == names
    assert renames > len(names)


def test_files_of_others_are_not_replaced_after_a_kill(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / 'annotations').mkdir()
    mine = folder / 'annotations' / 'report.json'
    mine.write_text('mine')
    (folder / 'annotations' / '.report.json.0.tmp').mkdir()
    with pytest.raises(UserError, match='already exists'):
        run('yolo', folder)
    assert mine.read_text() == 'mine'
