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

"""Build tiny data sets in their native layouts, including the difficult cases."""

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = 64, 48  # width, height


def thermal(path: Path, bits: int = 8, seed: int = 0) -> None:
    """Write blocks of different temperatures."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(20, 250, (6, 8)).astype(np.uint8)
    frame = cv2.resize(blocks, SIZE, interpolation=cv2.INTER_NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), frame if bits == 8 else frame.astype(np.uint16) * 60)


def rgb(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> None:
    """Write the same blocks in color, at any size."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(20, 250, (6, 8)).astype(np.uint8)
    picture = cv2.resize(blocks, size, interpolation=cv2.INTER_NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.merge([picture, 255 - picture, picture]))


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def voc(path: Path, *objects: tuple, extra: str = '') -> None:
    """Write a VOC file; objects are (name, xmin, ymin, xmax, ymax)."""
    text(path, '<annotation><filename>wrong.png</filename>' + ''.join(
        f'<object><name>{name}</name>{extra}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin>'
        f'<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>'
        for name, a, b, c, d in objects) + '</annotation>')


def coco(path: Path, images: list, annotations: list, categories: dict) -> None:
    """Write a COCO file; images are (id, name, more), annotations (image, category, box)."""
    text(path, json.dumps({
        'images': [{'id': i, 'file_name': n, 'width': 64, 'height': 48, **more}
                   for i, n, more in images],
        'annotations': [{'id': k, 'image_id': i, 'category_id': c, 'bbox': b, 'iscrowd': 0}
                        for k, (i, c, b) in enumerate(annotations)],
        'categories': [{'id': i, 'name': n} for i, n in categories.items()]}))


def flir_v1(root: Path) -> Path:
    """Version 1.3: JSON tables, 16-bit TIFF (one of them 8-bit) and 8-bit JPEG."""
    for split, first in (('train', 1), ('val', 8863)):
        place = root / split
        for i in range(3):
            stem = f'FLIR_{first + i:05d}'
            thermal(place / 'thermal_16_bit' / f'{stem}.tiff', 8 if i == 2 else 16, i)
            thermal(place / 'thermal_8_bit' / f'{stem}.jpeg', 8, i)
            if i:
                rgb(place / 'RGB' / f'{stem}.jpg', (160, 180), i)
        coco(place / 'thermal_annotations.json',
             [(i, f'thermal_8_bit/FLIR_{first + i:05d}.jpeg', {}) for i in range(3)],
             [(0, 1, [1, 2, 10, 20]), (0, 3, [5, 5, 20, 10]), (1, 2, [3, 3, 9, 9]),
              (1, 18, [1, 1, 5, 5]), (2, 91, [4, 4, 30, 20])],
             {1: 'person', 2: 'bicycle', 3: 'car', 18: 'dog', 91: 'other vehicle'})
    return root


def flir_v1_first(root: Path) -> Path:
    """Version 1.0: a JSON file per frame with other keys, and other folder names."""
    for split, stem in (('training', 'FLIR_00001'), ('validation', 'FLIR_08863')):
        place = root / split
        thermal(place / 'Data' / f'{stem}.tiff', 16)
        thermal(place / 'PreviewData' / f'{stem}.jpeg')
        rgb(place / 'RGB' / f'{stem}.jpg', (80, 60))
        text(place / 'Annotations' / f'{stem}.json', json.dumps({
            'annotation': [{'bbox': [1, 2, 10, 20], 'category_id': '1', 'iscrowd': 0,
                            'image_id': stem, 'id': '1', 'area': 200, 'segmentation': []}],
            'image': {'file_name': stem, 'width': 640, 'height': 512}}))
    return root


def flir_v2(root: Path) -> Path:
    """Version 2: renamed classes, pairs in the test video only."""
    names = {1: 'person', 2: 'bike', 3: 'car', 4: 'motor', 6: 'bus', 10: 'light',
             79: 'other vehicle'}
    for folder, video in (('images_thermal_train', 'aa'), ('images_thermal_val', 'bb'),
                          ('video_thermal_test', 'cc')):
        stem = f'video-{video}-frame-000001-x{video}'
        thermal(root / folder / 'data' / f'{stem}.jpg')
        thermal(root / folder / 'analyticsData' / f'{stem}.tiff', 16)
        coco(root / folder / 'coco.json',
             [(0, f'data/{stem}.jpg', {'extra_info': {'hours': 'night' if video == 'bb'
                                                      else 'day'}})],
             [(0, 1, [1, 2, 10, 20]), (0, 2, [3, 3, 9, 9]), (0, 4, [30, 3, 9, 9]),
              (0, 6, [4, 4, 30, 20]), (0, 10, [1, 1, 3, 3])], names)
    rgb(root / 'video_rgb_test' / 'data' / 'video-dd-frame-000001-y.jpg', (120, 90))
    text(root / 'rgb_to_thermal_vid_map.json', json.dumps(
        {'video-dd-frame-000001-y.jpg': 'video-cc-frame-000001-xcc.jpg'}))
    return root


def flir_aligned(root: Path) -> Path:
    """Both modalities in one folder; lists with and without the suffix, one name twice."""
    for i in (2, 5, 8864):
        stem = f'FLIR_{i:05d}'
        thermal(root / 'align' / 'JPEGImages' / f'{stem}_PreviewData.jpeg', 8, i)
        rgb(root / 'align' / 'JPEGImages' / f'{stem}_RGB.jpg', SIZE, i)
        voc(root / 'align' / 'Annotations' / f'{stem}_PreviewData.xml',
            ('person', 1, 2, 11, 22), ('bicycle', 3, 3, 12, 12), ('dog', 1, 1, 6, 6))
    text(root / 'align' / 'align_train.txt',
         'FLIR_00002_PreviewData\nFLIR_00005_PreviewData\nFLIR_00002_PreviewData\n')
    text(root / 'align' / 'align_validation.txt', 'FLIR_08864\n')
    text(root / 'align' / 'align_validation_night.txt', 'FLIR_08864\n')
    return root


def llvip(root: Path) -> Path:
    """Two label versions; one label without image, one image without label."""
    for split, stem in (('train', '010001'), ('train', '010002'), ('test', '190001')):
        thermal(root / 'infrared' / split / f'{stem}.jpg')
        rgb(root / 'visible' / split / f'{stem}.jpg')
    thermal(root / 'infrared' / 'test' / '190002.jpg')
    for folder in ('Annotations', 'Annotations_v2'):
        for stem in ('010001', '010002', '190001', '999999'):
            corrected = folder == 'Annotations_v2' and stem == '010002'
            voc(root / folder / f'{stem}.xml', ('person', 1, 2, 21 if corrected else 11, 22))
    return root


def kaist(root: Path) -> Path:
    """Sanitized text for training, improved text for the test, both flat; an old tree."""
    for key in ('set00/V000/I00001', 'set00/V000/I00002', 'set03/V001/I00003',
                'set06/V000/I00019', 'set09/V000/I00039'):
        video, name = key.rsplit('/', 1)
        thermal(root / 'images' / video / 'lwir' / f'{name}.jpg')
        rgb(root / 'images' / video / 'visible' / f'{name}.jpg')
        voc(root / 'annotations-xml' / f'{key}.xml', ('person', 0, 0, 64, 48))
    head = '% bbGt version=3\n'
    rest = '0 0 0 0 0 0 0'
    for folder, content in (
            ('sanitized_annotations/sanitized_annotations/set00_V000_I00001',
             f'person 1 2 10 20 {rest}\npeople 30 5 20 10 {rest}\nperson? 5 5 5 9 {rest}\n'
             f'person 40 20 9 20 2 0 0 0 0 0 0\ncyclist 50 20 9 20 {rest}\n'
             'person 20 20 9 20 1 0 0 0 0 1 0\n'),
            ('sanitized_annotations/sanitized_annotations/set03_V001_I00003', ''),
            ('annotations_KAIST_test_set/set06_V000_I00019', f'person 1 2 10 20 {rest}\n'),
            ('annotations_KAIST_test_set/set09_V000_I00039', f'person?a 1 2 10 20 {rest}\n')):
        text(root / f'{folder}.txt', head + content)
    return root


def kaist_tree(root: Path) -> Path:
    """XML for every frame, with x, y, w, h and occlusion."""
    for video in ('set00/V000', 'set06/V000'):
        for i in (0, 1, 2, 3, 19, 20):
            name = f'I{i:05d}'
            thermal(root / 'images' / video / 'lwir' / f'{name}.jpg')
            rgb(root / 'images' / video / 'visible' / f'{name}.jpg')
            text(root / 'annotations-xml-new' / video / f'{name}.xml', '<annotation>' + ''.join(
                f'<object><name>person</name><bndbox><x>{x}</x><y>2</y><w>10</w><h>20</h>'
                f'</bndbox><occlusion>{occlusion}</occlusion></object>'
                for x, occlusion in ((1, 1), (20, 2))) + '</annotation>')
    return root


def m3fd(root: Path) -> Path:
    for i in range(5):
        thermal(root / 'Ir' / f'{i:05d}.png', 8, i)
        rgb(root / 'Vis' / f'{i:05d}.png', SIZE, i)
        voc(root / 'Annotation' / f'{i:05d}.xml', ('People', 1, 2, 11, 22),
            ('Car', 5, 5, 25, 15), ('Bus', 20, 5, 50, 25), ('Truck', 30, 20, 60, 40),
            ('Motorcycle', 3, 30, 13, 40), ('Lamp', 1, 1, 4, 4))
    return root


def msrs(root: Path) -> Path:
    """Labels separate from the images; one frame without labels."""
    for split, stem in (('train', '00001D'), ('train', '00002D'), ('test', '00004N')):
        thermal(root / split / 'ir' / f'{stem}.png')
        rgb(root / split / 'vi' / f'{stem}.png')
        if stem != '00002D':
            text(root / 'MSRS-detection-label-main' / 'infrared' / split / f'{stem}.txt',
                 '0 0.25 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.25\n2 0.75 0.5 0.5 0.25\n')
    return root


def yolo(root: Path) -> Path:
    """Another class order, an empty frame, a frame without file, RGB in a separate folder."""
    text(root / 'data.yaml', 'names: [car, deer, person]\nnc: 3\n')
    for split, stem in (('train', 'a'), ('train', 'b'), ('train', 'c'), ('val', 'd')):
        thermal(root / 'images' / split / f'{stem}.png', 16)
        rgb(root / 'visible' / split / f'{stem}.jpg')
    for split, stem, content in (('train', 'a', '2 0.25 0.5 0.25 0.5\n1 0.5 0.5 0.1 0.1 0.9\n'),
                                 ('train', 'b', ''), ('val', 'd', '0 0.5 0.5 0.5 0.5\n\n')):
        text(root / 'labels' / split / f'{stem}.txt', content)
    return root


def voc_set(root: Path) -> Path:
    for stem in ('a', 'b', 'c'):
        thermal(root / 'JPEGImages' / f'{stem}.png')
        rgb(root / 'RGB' / f'{stem}.png')
        voc(root / 'Annotations' / f'{stem}.xml', ('Pedestrian', 1, 2, 11, 22),
            extra='<difficult>1</difficult>' if stem == 'c' else '')
    text(root / 'ImageSets' / 'Main' / 'train.txt', 'a\nb\n')
    text(root / 'ImageSets' / 'Main' / 'val.txt', 'c 1\n')
    return root


LAYOUTS = {
    'flir-adas-v1': flir_v1, 'flir-adas-v2': flir_v2, 'flir-aligned': flir_aligned,
    'llvip': llvip, 'kaist': kaist, 'm3fd': m3fd, 'msrs': msrs, 'yolo': yolo, 'voc': voc_set}
