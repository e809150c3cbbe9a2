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

"""Every native layout with its difficult cases: exact frames, pairs, boxes and splits."""

from pathlib import Path
from typing import Any

from cgdet_core.data.coco import classes_with_boxes, CocoSet, ImageRecord, load_coco
from cgdet_core.data.formats import FORMATS
from cgdet_core.data.formats.convert import convert
from cgdet_core.data.formats.native import Options
from cgdet_core.errors import UserError
from native_layouts import (
    flir_aligned,
    flir_v1,
    flir_v1_first,
    flir_v2,
    kaist,
    kaist_tree,
    LAYOUTS,
    llvip,
    m3fd,
    msrs,
    text,
    thermal,
    voc,
    voc_set,
    yolo,
)
import pytest

PERSON, BICYCLE, CAR = OURS = 'person', 'bicycle', 'car'
ONE = (1, 2, 11, 22)  # the box of most frames


def boxes(coco: CocoSet, record: ImageRecord, crowd: int) -> list[tuple]:
    return [(coco.classes[label], *map(float, box)) for label, box, flag in zip(
        record.labels, record.boxes, record.crowd) if flag == crowd]


def converted(
    name: str, folder: Path, classes: tuple[str, ...] = OURS, **options: Any,
) -> tuple[dict, dict]:
    """Return per split and frame (RGB name, boxes, ignored boxes), and the report."""
    output, report = convert(name, folder, **options)
    found: dict[str, dict] = {}
    for path in sorted(output.glob('*_thermal.json')):
        coco = load_coco(path)
        assert coco.classes == classes
        assert [r.image_id for r in coco.images] == list(range(1, len(coco.images) + 1))
        found[path.stem.removesuffix('_thermal')] = {
            r.path.stem: (r.rgb_path.name if r.rgb_path else None,
                          boxes(coco, r, 0), boxes(coco, r, 1))
            for r in coco.images}
        assert all(r.rgb_path is None or r.rgb_path.is_file() for r in coco.images)
    return found, report


def times(folder: Path, split: str) -> dict[str, str]:
    coco = load_coco(folder / 'annotations' / f'{split}_thermal.json')
    return {r.path.stem: r.time_of_day for r in coco.images}


def test_every_format_has_a_layout() -> None:
    assert set(LAYOUTS) == set(FORMATS)


def test_flir_v1_reads_16_bit_images_and_warns_of_8_bit_ones(tmp_path: Path) -> None:
    found, report = converted(
        'flir-adas-v1', flir_v1(tmp_path), (*OURS, 'dog'), options=Options(unregistered_rgb=True))
    assert found['train'] == {
        'FLIR_00001': (None, [(PERSON, *ONE), (CAR, 5, 5, 25, 15)], []),
        'FLIR_00002': ('FLIR_00002.jpg', [(BICYCLE, 3, 3, 12, 12), ('dog', 1, 1, 6, 6)], []),
        'FLIR_00003': ('FLIR_00003.jpg', [], [(CAR, 4, 4, 34, 24)])}
    assert list(found['val']) == ['FLIR_08863', 'FLIR_08864', 'FLIR_08865']
    assert report['bit_depth'] == {'uint16': 4, 'uint8': 2}
    assert report['notes'] == ['2 of 6 thermal images are 8-bit, stretched by the camera, unlike '
                               'the 16-bit ones.']
    assert report['classes']['dog -> dog'] == 2
    assert report['missing']['rgb'] == {
        'count': 2, 'examples': ['train/RGB/FLIR_00001.jpg', 'val/RGB/FLIR_08863.jpg']}


def test_flir_v1_with_8_bit_images(tmp_path: Path) -> None:
    found, report = converted(
        'flir-adas-v1', flir_v1(tmp_path), (*OURS, 'dog'), options=Options(bits=8))
    assert report['bit_depth'] == {'uint8': 6}
    assert report['read'] == 'train/thermal_8_bit, val/thermal_8_bit'


def test_flir_v1_first_release(tmp_path: Path) -> None:
    found, report = converted('flir-adas-v1', flir_v1_first(tmp_path))
    assert found == {'train': {'FLIR_00001': (None, [(PERSON, *ONE)], [])},
                     'val': {'FLIR_08863': (None, [(PERSON, *ONE)], [])}}
    assert report['read'] == 'training/Data, validation/Data'


def test_flir_v1_is_paired_only_on_request(tmp_path: Path) -> None:
    found, report = converted('flir-adas-v1', flir_v1_first(tmp_path))
    assert found['train']['FLIR_00001'][0] is None
    assert 'another field of view' in report['notes'][0]
    found, report = converted('flir-adas-v1', tmp_path, overwrite=True,
                              options=Options(unregistered_rgb=True))
    assert found['train']['FLIR_00001'][0] == 'FLIR_00001.jpg' and not report['notes']


@pytest.mark.parametrize(('bits', 'depth'), [(None, 'uint16'), (8, 'uint8'), (16, 'uint16')])
def test_flir_v2(tmp_path: Path, bits: int | None, depth: str) -> None:
    found, report = converted(
        'flir-adas-v2', flir_v2(tmp_path), (*OURS, 'light'), options=Options(bits=bits))
    boxes = [(PERSON, *ONE), (BICYCLE, 3, 3, 12, 12), ('light', 1, 1, 4, 4)]
    ignored = [(BICYCLE, 30, 3, 39, 12), (CAR, 4, 4, 34, 24)]
    assert found == {
        'train': {'video-aa-frame-000001-xaa': (None, boxes, ignored)},
        'val': {'video-bb-frame-000001-xbb': (None, boxes, ignored)},
        'test': {'video-cc-frame-000001-xcc': ('video-dd-frame-000001-y.jpg', boxes, ignored)}}
    assert report['bit_depth'] == {depth: 3}
    assert report['classes']['bike -> bicycle'] == 3 and report['classes']['light -> light'] == 3
    assert list(times(tmp_path, 'val').values()) == ['night']


def test_flir_aligned(tmp_path: Path) -> None:
    found, report = converted('flir-aligned', flir_aligned(tmp_path), (*OURS, 'dog'))
    boxes = [(PERSON, *ONE), (BICYCLE, 3, 3, 12, 12), ('dog', 1, 1, 6, 6)]
    assert found == {
        'train': {'FLIR_00002_PreviewData': ('FLIR_00002_RGB.jpg', boxes, []),
                  'FLIR_00005_PreviewData': ('FLIR_00005_RGB.jpg', boxes, [])},
        'val': {'FLIR_08864_PreviewData': ('FLIR_08864_RGB.jpg', boxes, [])}}
    assert report['left_out'] == {'frames listed twice': 1}
    assert times(tmp_path, 'val') == {'FLIR_08864_PreviewData': 'night'}
    text(tmp_path / 'align' / 'align_train.txt', 'FLIR_00002_PreviewData\n')
    _, report = converted('flir-aligned', tmp_path, (*OURS, 'dog'), overwrite=True)
    assert report['left_out'] == {'labeled frames in no list of train, val or test, left out': 1}


def test_llvip_reads_the_corrected_labels(tmp_path: Path) -> None:
    found, report = converted('llvip', llvip(tmp_path))
    assert found == {
        'train': {'010001': ('010001.jpg', [(PERSON, *ONE)], []),
                  '010002': ('010002.jpg', [(PERSON, 1, 2, 21, 22)], [])},
        'test': {'190001': ('190001.jpg', [(PERSON, *ONE)], [])}}
    assert report['left_out'] == {'frames without labels, left out': 1,
                                  'labels without a picture': 1}
    assert report['notes'] == ['Annotations/ has different labels for 1 of 4 frames; not read.']


def test_llvip_with_the_first_labels(tmp_path: Path) -> None:
    options = Options(labels=Path('Annotations'))
    found, report = converted('llvip', llvip(tmp_path), options=options)
    assert found['train']['010002'][1] == [(PERSON, *ONE)]
    assert report['read'] == 'labels of Annotations/'


def test_kaist_reads_the_corrected_labels(tmp_path: Path) -> None:
    found, report = converted('kaist', kaist(tmp_path))
    assert found == {
        'train': {
            'I00001': ('I00001.jpg', [(PERSON, *ONE)], [
                (PERSON, 30, 5, 50, 15), (PERSON, 5, 5, 10, 14), (PERSON, 40, 20, 49, 40),
                (PERSON, 50, 20, 59, 40), (PERSON, 20, 20, 29, 40)]),
            'I00003': ('I00003.jpg', [], [])},
        'test': {'I00019': ('I00019.jpg', [(PERSON, *ONE)], []),
                 'I00039': ('I00039.jpg', [], [(PERSON, *ONE)])}}
    assert times(tmp_path, 'train') == {'I00001': 'day', 'I00003': 'night'}
    assert times(tmp_path, 'test') == {'I00019': 'day', 'I00039': 'night'}
    assert report['read'] == ('2 from annotations_KAIST_test_set, 2 from '
                              'sanitized_annotations/sanitized_annotations')
    assert report['left_out'] == {
        'frames outside the selection or without labels, left out': 1}


def test_kaist_tree_is_thinned_out(tmp_path: Path) -> None:
    found, _ = converted('kaist', kaist_tree(tmp_path))
    boxes = [(PERSON, *ONE)], [(PERSON, 20, 2, 30, 22)]
    assert found == {'train': {n: (f'{n}.jpg', *boxes) for n in ('I00001', 'I00003', 'I00019')},
                     'test': {'I00019': ('I00019.jpg', *boxes)}}


def test_kaist_prefers_the_improved_test_labels(tmp_path: Path) -> None:
    kaist(tmp_path)
    (tmp_path / 'annotations-xml').rename(tmp_path / 'annotations-xml-new-sanitized')
    _, report = converted('kaist', tmp_path)
    assert report['read'] == ('2 from annotations-xml-new-sanitized, 2 from '
                              'annotations_KAIST_test_set')


def test_kaist_with_chosen_labels(tmp_path: Path) -> None:
    found, _ = converted('kaist', kaist(tmp_path), options=Options(labels=Path('annotations-xml')))
    assert {s: list(f) for s, f in found.items()} == {'train': ['I00001', 'I00003'],
                                                      'test': ['I00019', 'I00039']}
    assert found['train']['I00003'][1] == [(PERSON, 0, 0, 64, 48)]


def test_m3fd(tmp_path: Path) -> None:
    found, report = converted('m3fd', m3fd(tmp_path), (*OURS, 'Lamp'))
    assert list(found) == ['all'] and len(found['all']) == 5
    assert found['all']['00000'] == (
        '00000.png', [(PERSON, *ONE), (CAR, 5, 5, 25, 15), ('Lamp', 1, 1, 4, 4)],
        [(CAR, 20, 5, 50, 25), (CAR, 30, 20, 60, 40), (BICYCLE, 3, 30, 13, 40)])
    assert report['classes']['Lamp -> Lamp'] == 5
    assert report['notes'] == ['The set has no split; "cgdet data split" makes one.']


def test_m3fd_splits(tmp_path: Path) -> None:
    folder = m3fd(tmp_path / 'a')
    found, _ = converted('m3fd', folder, (*OURS, 'Lamp'), hold_out=0.4)
    assert [list(found[s]) for s in ('train', 'val')] == [['00000', '00001', '00002'],
                                                          ['00003', '00004']]
    folder = m3fd(tmp_path / 'b')
    text(folder / 'meta' / 'train.txt', '00003.png\n')
    text(folder / 'meta' / 'val.txt', '00001.png\n')
    found, report = converted('m3fd', folder, (*OURS, 'Lamp'))
    assert {s: list(f) for s, f in found.items()} == {'train': ['00003'], 'val': ['00001']}
    assert report['left_out'] == {'labeled frames in no list of train, val or test, left out': 3}


def test_msrs_leaves_out_what_has_no_labels(tmp_path: Path) -> None:
    found, report = converted('msrs', msrs(tmp_path))
    boxes = [(PERSON, 8, 12, 24, 36), (BICYCLE, 24, 18, 40, 30), (CAR, 32, 18, 64, 30)]
    assert found == {'train': {'00001D': ('00001D.png', boxes, [])},
                     'test': {'00004N': ('00004N.png', boxes, [])}}
    assert times(tmp_path, 'train') == {'00001D': 'day'}
    assert times(tmp_path, 'test') == {'00004N': 'night'}
    assert report['left_out'] == {'frames without labels, left out': 1}


def test_msrs_with_the_80_frames_of_detection(tmp_path: Path) -> None:
    thermal(tmp_path / 'detection' / 'ir' / '1.png')
    text(tmp_path / 'detection' / 'labels' / '1.txt', '2 0.5 0.5 0.5 0.5\n')
    found, report = converted('msrs', tmp_path)
    assert found == {'test': {'1': (None, [(CAR, 16, 12, 48, 36)], [])}}
    assert report['missing']['rgb']['examples'] == ['detection/vi/1.png']


def test_yolo(tmp_path: Path) -> None:
    found, report = converted('yolo', yolo(tmp_path), ('car', 'deer', 'person'),
                              options=Options(rgb=Path('visible')))
    deer = 'deer', 28.8, 21.6, 35.2, 26.4
    train = found['train']['a'][1]
    assert [box[0] for box in train] == ['person', 'deer']
    assert train[1][1:] == pytest.approx(deer[1:], abs=0.01)
    assert found == {
        'train': {'a': ('a.jpg', [(PERSON, 8, 12, 24, 36), train[1]], []), 'b': ('b.jpg', [], []),
                  'c': ('c.jpg', [], [])},
        'val': {'d': ('d.jpg', [(CAR, 16, 12, 48, 36)], [])}}
    assert report['left_out'] == {'frames without a label file, taken as empty': 1}
    assert report['classes']['deer -> deer'] == 1


def test_voc_labels_in_inner_folders_are_counted(tmp_path: Path) -> None:
    for stem in ('a', 'night/b'):
        thermal(tmp_path / 'JPEGImages' / f'{stem}.png')
        voc(tmp_path / 'Annotations' / f'{stem}.xml', ('person', 1, 2, 11, 22))
    found, report = converted('voc', tmp_path, (PERSON,))
    assert list(found['all']) == ['a']
    assert report['left_out'] == {'label files in folders of Annotations/, left out': 1}


@pytest.mark.parametrize('layout', ['{}/night', 'night/{}', '{}'])
def test_labeled_frames_beside_the_splits_of_yolo_are_counted(
    layout: str, tmp_path: Path,
) -> None:
    yolo(tmp_path)
    thermal(tmp_path / layout.format('images') / 'n.png')
    text(tmp_path / layout.format('labels') / 'n.txt', '0 0.5 0.5 0.5 0.5\n')
    text(tmp_path / layout.format('labels') / 'README.txt', 'no labels\n')
    found, report = converted('yolo', tmp_path, ('car', 'deer', 'person'))
    assert found.keys() == {'train', 'val'}
    assert report['left_out']['labeled frames in no folder of train, val or test, left out'] == 1


def test_yolo_flat_with_class_list_and_mapping(tmp_path: Path) -> None:
    for stem in ('a', 'b'):
        thermal(tmp_path / 'images' / f'{stem}.png')
        text(tmp_path / 'labels' / f'{stem}.txt', '0 0.25 0.5 0.25 0.5\n1 0.5 0.5 0.5 0.5\n')
    text(tmp_path / 'classes.txt', '0 Deer\n1 Van\n')
    found, _ = converted('yolo', tmp_path, (PERSON, CAR), hold_out=0.5,
                         mapping={'deer': 'ignore-person', 'Van': 'car'})
    frame = (None, [(CAR, 16, 12, 48, 36)], [(PERSON, 8, 12, 24, 36)])
    assert found == {'train': {'a': frame}, 'val': {'b': frame}}


@pytest.mark.parametrize(('names', 'words'), [
    ('', 'names no class'), ('\n', 'names no class'),
    ('\nperson\n', 'has an empty line'), ('person\n\ncar\n', 'has an empty line')])
def test_lines_of_yolo_names_are_class_numbers(tmp_path: Path, names: str, words: str) -> None:
    thermal(tmp_path / 'images' / 'a.png')
    text(tmp_path / 'labels' / 'a.txt', '0 0.25 0.5 0.25 0.5\n')
    text(tmp_path / 'classes.txt', names)
    with pytest.raises(UserError, match=words):
        converted('yolo', tmp_path, (PERSON,))
    text(tmp_path / 'classes.txt', 'person\n\n\n')
    assert list(converted('yolo', tmp_path, (PERSON,))[0]['all']) == ['a']


@pytest.mark.parametrize('place', ['', 'labels/', 'labels/train/', 'train/labels/'])
def test_names_of_yolo_classes_that_contradict_each_other(tmp_path: Path, place: str) -> None:
    thermal(tmp_path / 'images' / 'train' / 'a.png')
    text(tmp_path / 'labels' / 'train' / 'a.txt', '0 0.25 0.5 0.25 0.5\n')
    text(tmp_path / 'data.yaml', 'names: [Person]\n')
    text(tmp_path / place / 'classes.txt', 'person\ncar\n')
    assert list(converted('yolo', tmp_path, (PERSON,))[0]['train']) == ['a']
    text(tmp_path / place / 'classes.txt', 'dog\ndog\n\n' if place else '')
    text(tmp_path / 'dataset.yaml', 'path: .\n')  # no list of names
    if not place:
        assert converted('yolo', tmp_path, (PERSON,), overwrite=True)
    text(tmp_path / place / 'classes.txt', 'dog\nperson\n')
    with pytest.raises(UserError, match=r'Class 0 is Person in .*data.yaml and dog in .*classes'):
        converted('yolo', tmp_path, (PERSON,))


def test_voc(tmp_path: Path) -> None:
    options = Options(rgb=tmp_path / 'RGB')
    found, _ = converted('voc', voc_set(tmp_path), (PERSON,), options=options)
    assert found == {'train': {'a': ('a.png', [(PERSON, *ONE)], []),
                               'b': ('b.png', [(PERSON, *ONE)], [])},
                     'val': {'c': ('c.png', [], [(PERSON, *ONE)])}}


@pytest.mark.parametrize(('lists', 'splits', 'left_out'), [
    ({'trainval': 'a\nb\n', 'test': 'c\n'}, {'train': 'ab', 'test': 'c'}, 0),
    ({'train': 'a\n', 'valid': 'b\n'}, {'train': 'a', 'val': 'b'}, 1),
    ({'trainval': 'a\nb\n'}, {'train': 'ab'}, 1),
    ({'trainval': 'a\nb\nc\n', 'val': 'b\n'}, {'train': 'ac', 'val': 'b'}, 0),
    ({'trainval': 'a\nb\n', 'train': 'a\n', 'val': 'b\n'}, {'train': 'a', 'val': 'b'}, 1),
    ({'test': 'c\n'}, {'test': 'c'}, 2)])
def test_voc_lists_with_other_names_are_read_and_the_rest_is_counted(
    tmp_path: Path, lists: dict[str, str], splits: dict[str, str], left_out: int,
) -> None:
    place = voc_set(tmp_path) / 'ImageSets' / 'Main'
    for path in place.iterdir():
        path.unlink()
    for name, content in lists.items():
        text(place / f'{name}.txt', content)
    found, report = converted('voc', tmp_path, (PERSON,))
    assert {split: ''.join(frames) for split, frames in found.items()} == splits
    rest = {'labeled frames in no list of train, val or test, left out': left_out}
    assert report['left_out'] == (rest if left_out else {})


@pytest.mark.parametrize(('word', 'ignored'), [
    ('True', True), ('1.0', True), (' 1 ', True), ('false', False), ('0.0', False), ('', False)])
def test_voc_files_of_other_tools(tmp_path: Path, word: str, ignored: bool) -> None:
    path = voc_set(tmp_path) / 'Annotations' / 'a.xml'
    voc(path, (PERSON, *ONE), extra=f'<difficult>{word}</difficult>')
    path.write_text(path.read_text().replace('<annotation>', '<annotation xmlns="http://x.y">'))
    found, _ = converted('voc', tmp_path, (PERSON,))
    box = [(PERSON, *ONE)]
    assert found['train']['a'] == ((None, [], box) if ignored else (None, box, []))


def test_voc_without_lists(tmp_path: Path) -> None:
    thermal(tmp_path / 'images' / 'a.png')
    thermal(tmp_path / 'images' / 'b.png')
    voc(tmp_path / 'Annotations' / 'a.xml', ('person', 1, 2, 11, 22))
    voc(tmp_path / 'Annotations' / 'c.xml', ('person', 1, 2, 11, 22))
    found, report = converted('voc', tmp_path, (PERSON,))
    assert found == {'all': {'a': (None, [(PERSON, *ONE)], [])}}
    assert report['left_out'] == {'frames without labels, left out': 1}
    assert report['missing']['thermal'] == {'count': 1, 'examples': ['images/c.png']}


def test_hidden_folders_have_no_labels(tmp_path: Path) -> None:
    thermal(tmp_path / 'images' / 'a.png')
    text(tmp_path / 'classes.txt', 'person\n')
    for folder in ('', '.ipynb_checkpoints/', '__MACOSX/'):
        text(tmp_path / 'labels' / f'{folder}a.txt', '0 0.25 0.5 0.25 0.5\n')
    found, report = converted('yolo', tmp_path, (PERSON,))
    assert list(found['all']) == ['a'] and report['missing']['thermal']['count'] == 0


def test_a_yolo_set_keeps_its_dogs(tmp_path: Path) -> None:
    for stem in ('a', 'b'):
        thermal(tmp_path / 'images' / f'{stem}.png')
        text(tmp_path / 'labels' / f'{stem}.txt',
             '0 0.25 0.5 0.25 0.5\n1 0.5 0.5 0.5 0.5\n2 0.25 0.25 0.25 0.25\n')
    text(tmp_path / 'classes.txt', 'Dog\npedestrian\nlight pole\nnever seen\n')
    found, report = converted('yolo', tmp_path, ('Dog', PERSON, 'never seen'),
                              mapping={'Light Pole': 'drop'})
    frame = (None, [('Dog', 8, 12, 24, 36), (PERSON, 16, 12, 48, 36)], [])
    assert found == {'all': {'a': frame, 'b': frame}}
    assert report['classes'] == {'Dog -> Dog': 2, 'light pole -> drop': 2,
                                 'pedestrian -> person': 2}
    assert report['splits']['all'] == {'images': 2, 'with_rgb': 0, 'empty': 0, 'Dog': 2,
                                       'person': 2, 'never seen': 0, 'ignored': 0}


def test_a_voc_set_keeps_its_dogs(tmp_path: Path) -> None:
    for stem in ('a', 'b'):
        thermal(tmp_path / 'JPEGImages' / f'{stem}.png')
    voc(tmp_path / 'Annotations' / 'a.xml', ('dog', 1, 2, 11, 22), ('cat', 5, 5, 25, 15))
    voc(tmp_path / 'Annotations' / 'b.xml', ('Dog', 1, 2, 11, 22), ('van', 5, 5, 25, 15))
    found, report = converted('voc', tmp_path, ('Dog', 'cat', 'truck'), mapping={
        'van': 'ignore-truck'})
    assert found == {'all': {
        'a': (None, [('Dog', *ONE), ('cat', 5, 5, 25, 15)], []),
        'b': (None, [('Dog', *ONE)], [('truck', 5, 5, 25, 15)])}}
    assert report['classes'] == {'Dog -> Dog': 1, 'cat -> cat': 1, 'dog -> Dog': 1,
                                 'van -> ignore-truck': 1}


def test_known_sets_take_new_classes_by_mapping(tmp_path: Path) -> None:
    found, report = converted(
        'm3fd', m3fd(tmp_path), (*OURS, 'truck', 'lamp post'),
        mapping={'Truck': 'truck', 'Lamp': 'lamp post', 'Bus': 'drop', 'tram': 'truck'})
    assert found['all']['00000'][1:] == (
        [(PERSON, *ONE), (CAR, 5, 5, 25, 15), ('truck', 30, 20, 60, 40),
         ('lamp post', 1, 1, 4, 4)], [(BICYCLE, 3, 30, 13, 40)])
    assert report['classes']['Bus -> drop'] == report['classes']['Truck -> truck'] == 5
    assert report['splits']['all']['truck'] == report['splits']['all']['lamp post'] == 5
    assert '"tram=truck": no box has the class \'tram\'.' in report['notes']


def test_chosen_classes_leave_ignore_regions_of_the_others(tmp_path: Path) -> None:
    for stem in ('a', 'b'):
        thermal(tmp_path / 'images' / f'{stem}.png')
    text(tmp_path / 'labels' / 'a.txt', '0 0.25 0.5 0.25 0.5\n1 0.5 0.5 0.5 0.5\n')
    text(tmp_path / 'labels' / 'b.txt', '0 0.25 0.5 0.25 0.5\n')
    text(tmp_path / 'classes.txt', 'dog\npeople\n')
    found, report = converted('yolo', tmp_path, (PERSON, 'dog'), chosen=('person',))
    dog = ('dog', 8, 12, 24, 36)
    assert found == {'all': {'a': (None, [(PERSON, 16, 12, 48, 36)], [dog]),
                             'b': (None, [], [dog])}}
    assert report['splits']['all'] == {'images': 2, 'with_rgb': 0, 'empty': 0, 'person': 1,
                                       'ignored': 2}
    assert 'Left out on request, as ignore regions: dog 2.' in report['notes']
    assert classes_with_boxes(tmp_path / 'annotations' / 'all_thermal.json') == (PERSON,)
    found, report = converted('yolo', tmp_path, ('people', 'dog'), chosen=('people', 'dog'),
                              overwrite=True)
    assert found['all']['b'] == (None, [dog], [])
    _, report = converted('yolo', tmp_path, (PERSON,), mapping={'Dog': 'drop'}, overwrite=True)
    assert any(note.startswith('Dropped on request, now background: dog 2. Frames')
               for note in report['notes'])


def test_known_sets_keep_chosen_classes_that_are_ignored_otherwise(tmp_path: Path) -> None:
    found, report = converted('m3fd', m3fd(tmp_path), ('Bus', PERSON, CAR, BICYCLE, 'Lamp'),
                              chosen=('Bus', 'person'))
    assert found['all']['00000'][1:] == (
        [(PERSON, *ONE), ('Bus', 20, 5, 50, 25)],
        [(CAR, 5, 5, 25, 15), (CAR, 30, 20, 60, 40), (BICYCLE, 3, 30, 13, 40),
         ('Lamp', 1, 1, 4, 4)])
    assert 'Left out on request, as ignore regions: car 10, bicycle 5, Lamp 5.' in report['notes']


def test_the_license_of_a_known_set_is_stated(tmp_path: Path) -> None:
    converted('llvip', llvip(tmp_path / 'llvip'))
    converted('msrs', msrs(tmp_path / 'msrs'))
    for name, license in (('llvip', 'LLVIP, see its terms'), ('msrs', 'unknown')):
        path = tmp_path / name / 'annotations' / 'train_thermal.json'
        assert load_coco(path).license == license
