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

"""What a check of a set finds, and splits that keep scenes together."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import subprocess
from types import SimpleNamespace
from typing import Any

from cgdet_core.data.check import ALIKE, check, save_findings, thumbnail
from cgdet_core.data.coco import load_coco
from cgdet_core.data.show import show
from cgdet_core.data.split import _scenes, split
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.postprocess import Detections
import cv2
import numpy as np
import pytest

SIZE = 96, 80  # width, height
Boxes = dict[str, list[tuple[int, list[float]]]]  # category and bbox by file name


def frame(scene: int, shift: int = 0) -> np.ndarray:
    """Return blocks of different temperatures, 16-bit; a scene at other times is moved a bit."""
    blocks = np.random.default_rng(scene).integers(20, 250, (10, 12)).astype(np.uint16)
    picture = cv2.resize(blocks, SIZE, interpolation=cv2.INTER_CUBIC) * 60
    return np.roll(picture, shift, 1)


def write(folder: Path, name: str, frames: dict[str, np.ndarray], boxes: Boxes,
          **fields: Any) -> Path:
    for file, picture in frames.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / file), picture)
    ids = {file: i for i, file in enumerate(frames, 1)}
    path = folder / name
    path.write_text(json.dumps({
        'images': [{'id': i, 'file_name': file, 'width': SIZE[0], 'height': SIZE[1], **{
            key: value(file) for key, value in fields.items()}} for file, i in ids.items()],
        'categories': [{'id': 1, 'name': 'person'}, {'id': 2, 'name': 'dog'}],
        'annotations': [
            {'id': k, 'image_id': ids[file], 'category_id': c, 'bbox': b} for k, (file, c, b) in
            enumerate((f, c, b) for f, found in boxes.items() for c, b in found)]}))
    return path


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """Write four scenes, one of them twice, with a box of each kind to look at."""
    return write(tmp_path, 'train.json', {
        'a.png': frame(1), 'b.png': frame(2), 'b2.png': frame(2, 1), 'c.png': frame(3),
        'd.png': frame(4)}, {
        'a.png': [(1, [10, 10, 20, 30]), (2, [50, 40, 5, 6])],
        'b.png': [(1, [20, 0, 20, 30]), (1, [30, 40, 20, 20]), (2, [30, 40, 20, 21])],
        'c.png': [(2, [10, 10, 70, 8]), (2, [60, 50, 15, 15])]})


def test_what_stands_out_is_found(training: Path, tmp_path: Path) -> None:
    val = write(tmp_path, 'val.json', {'e.png': frame(3, 1), 'f.png': frame(9)},
                {'e.png': [(2, [10, 10, 20, 20])]})
    sets = [load_coco(training), load_coco(val)]
    seen = []
    report, findings = check(sets, progress=seen.append)
    assert {f.kind: [r.path.name for r, _, _ in f.places] for f in findings} == {
        'leak': ['e.png'], 'alike': ['b2.png'], 'empty': ['b2.png', 'd.png', 'f.png'],
        'tiny': ['a.png'], 'cut': ['b.png'], 'double': ['b.png'], 'odd': ['c.png']}
    assert [f.count for f in findings] == [1, 1, 3, 1, 1, 1, 1]
    assert report['findings']['tiny']['frames'] == [
        {'file': 'a.png', 'boxes': [[50, 40, 55, 46]], 'like': None}]
    assert report['findings']['leak']['frames'][0]['like'] == 'c.png'
    first, second = report['sets']
    assert first['classes']['dog'] == {'boxes': 4, 'frames': 3, 'median_size': [17.5, 11.5],
                                       'tiny': 1}
    assert second['classes']['person'] == {'boxes': 0, 'frames': 0, 'median_size': None,
                                           'tiny': 0}
    assert first['depth'] == {'16-bit': 5} and first['sizes'] == {'96x80': 5}
    assert not first['color'] and sum(seen) == 7
    json.dumps(report)
    save_findings(tmp_path / 'sheets', findings, sets[0].classes)
    made = {p.stem: cv2.imread(str(p)).shape for p in (tmp_path / 'sheets').iterdir()}
    assert made.keys() == {f.kind for f in findings}
    assert made['tiny'] == (320, 320, 3)


def test_a_set_without_faults_has_no_findings(tmp_path: Path) -> None:
    path = write(tmp_path, 'x.json', {'a.png': frame(1), 'b.png': frame(2)},
                 {name: [(1, [10, 10, 20, 30])] for name in ('a.png', 'b.png')})
    assert check([load_coco(path)])[1] == []


def test_damaged_images_are_named(training: Path) -> None:
    (training.parent / 'd.png').write_bytes(b'no picture')
    report, findings = check([load_coco(training)])
    assert [r.path.name for r, _, _ in findings[0].places] == ['d.png']
    assert report['sets'][0]['depth'] == {'16-bit': 4}
    assert not [f.kind for f in findings[1:] for r, _, _ in f.places if r.path.name == 'd.png']
    save_findings(training.parent / 'sheets', findings[:1], ('person', 'dog'))


def test_an_unreadable_image_does_not_lose_the_check(
    training: Path, run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    (training.parent / 'a.png').write_bytes(b'no picture')
    sheets, report = training.parent / 'sheets', training.parent / 'report.json'
    sheets.mkdir()
    for name in ('tiny.png', 'mine.png'):
        (sheets / name).touch()
    result = run_cgdet('data', 'check', training, '--output', sheets, '--json', report,
                       '--overwrite')
    assert result.returncode == 0, result.stderr
    assert f'images that cannot be read: 1, {training.parent}/a.png' in result.stdout
    findings = json.loads(report.read_text())['findings']
    assert findings['unreadable']['count'] == 1 and not findings['tiny']['count']
    assert {path.name for path in sheets.iterdir()} == {
        'mine.png', 'alike.png', 'empty.png', 'cut.png', 'double.png', 'odd.png'}


def test_rgb_images_that_cannot_be_read_are_named(
    training: Path, run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    content = json.loads(training.read_text())
    content['images'][0]['rgb_file_name'] = 'gone.png'
    training.write_text(json.dumps(content))
    result = run_cgdet('data', 'check', training, '--output', training.parent / 'sheets')
    assert ('RGB images that are missing or cannot be read: 1, '
            f'{training.parent}/gone.png') in result.stdout, result.stderr


def test_a_frame_that_a_model_cannot_normalize_is_named(training: Path) -> None:
    def detect(_: np.ndarray, threshold: float) -> Detections:
        raise ValueError('the window is of 16-bit counts')

    # Chosen: a model with a window that refuses the frames.
    card = SimpleNamespace(classes=('person',), polarity='white_hot')
    detector: Any = SimpleNamespace(card=card, detect=detect)
    with pytest.raises(UserError, match=r'a\.png: the window is of 16-bit counts\.$'):
        check([load_coco(training)], detector)


def test_frames_without_rgb_are_shown_alone(training: Path, tmp_path: Path) -> None:
    coco = load_coco(training)
    assert show(coco, tmp_path / 'shown', 2, '*', False) == 2
    assert {cv2.imread(str(p)).shape for p in (tmp_path / 'shown').iterdir()} == {(80, 96, 3)}
    show(coco, tmp_path / 'sheets' / 'sheet.png', 4, '*', False)
    assert cv2.imread(str(tmp_path / 'sheets' / 'sheet.png')).shape == (400, 1920, 3)
    paired = write(tmp_path, 'paired.json', {'a.png': frame(1), 'b.png': frame(2)}, {},
                   rgb_file_name=lambda name: 'c.png' if name == 'a.png' else None)
    show(load_coco(paired), tmp_path / 'pairs', 2, '*', False)
    assert {cv2.imread(str(p)).shape for p in (tmp_path / 'pairs').iterdir()} == {(80, 192, 3)}


def test_thumbnails_ignore_gain_and_separate_scenes() -> None:
    one, other = thumbnail(frame(1)), thumbnail(frame(2))
    assert one @ thumbnail(frame(1) // 2 + 500) > 0.99
    assert one @ thumbnail(frame(1, 1)) > 0.8 > 0.7 > one @ other
    assert np.isfinite(thumbnail(np.zeros((1, 1), np.uint8))).all()


def test_labels_that_the_model_contradicts(training: Path) -> None:
    names = ('person', 'bicycle', 'car')
    found = {
        'a.png': [((10, 10, 30, 40), 0.9, 'person'), ((60, 10, 80, 40), 0.7, 'person'),
                  ((60, 50, 80, 70), 0.5, 'person'), ((80, 10, 90, 40), 0.9, 'car')],
        'b.png': [((20, 0, 40, 30), 0.3, 'person'), ((30, 40, 50, 60), 0.8, 'car')]}
    order = iter(sorted(found) + ['b2.png', 'c.png', 'd.png'])

    def detect(_: np.ndarray, threshold: float) -> Detections:
        here = found.get(next(order), [])
        assert all(score >= threshold for _, score, _ in here)
        return Detections(np.array([b for b, _, _ in here], np.float32).reshape(-1, 4),
                          np.array([s for _, s, _ in here], np.float32),
                          np.array([names.index(n) for _, _, n in here], np.int64))

    # Chosen detections: no small model makes those that are to be compared here.
    card = SimpleNamespace(classes=names, polarity='white_hot')
    detector: Any = SimpleNamespace(card=card, detect=detect)
    findings = {f.kind: [(r.path.name, boxes.tolist()) for r, boxes, _ in f.places]
                for f in check([load_coco(training)], detector)[1]}
    assert findings['unlabeled'] == [('a.png', [[60, 10, 80, 40]])]  # no car is labeled here
    assert findings['contradicted'] == [('b.png', [[30, 40, 50, 60]])]
    assert 'unseen' not in findings


def test_a_split_keeps_scenes_together(tmp_path: Path) -> None:
    frames = {f'{scene}_{k}.png': frame(scene, k) for scene in range(10) for k in (0, 1)}
    path = write(tmp_path, 'all.json', frames, {
        name: [(1 + int(name[0]) % 2, [10, 10, 20, 30])] for name in frames})
    how, numbers = split(path, 0.2)
    assert how == 'by near-duplicates'
    assert numbers == {
        'all_train.json': {'frames': 16, 'groups': 8, 'boxes': {'person': 8, 'dog': 8}},
        'all_val.json': {'frames': 4, 'groups': 2, 'boxes': {'person': 2, 'dog': 2}}}
    train, val = (load_coco(tmp_path / name) for name in numbers)
    assert not {r.path.name[0] for r in train.images} & {r.path.name[0] for r in val.images}
    assert len(train.images) + len(val.images) == 20 and val.classes == ('person', 'dog')
    assert not any(f.kind == 'leak' for f in check([train, val])[1])
    one = write(tmp_path, 'one.json', {'0_0.png': frame(0)}, {})
    with pytest.raises(UserError, match='one.json lists one frame, which cannot be split'):
        split(one, 0.2)
    with pytest.raises(UserError, match='all_train.json already exists'):
        split(path, 0.2)
    assert split(path, 0.2, overwrite=True) == (how, numbers)  # the same seed, the same split
    how, numbers = split(path, 0.5, pattern=r'_\d', overwrite=True)
    assert how == "by '_\\\\d' in the file name" and numbers['all_val.json']['frames'] == 10


@pytest.mark.parametrize(('share', 'held'), [(0.2, 1), (0.8, 9)])
def test_a_split_of_two_groups_is_the_nearer_one(
    tmp_path: Path, share: float, held: int,
) -> None:
    path = write(tmp_path, 'all.json', {f'{i}.png': frame(i) for i in range(10)}, {},
                 bag=lambda file: 'short' if file == '3.png' else 'long')
    _, numbers = split(path, share)
    assert numbers['all_val.json']['frames'] == held


def test_a_damaged_image_does_not_end_a_split_or_a_sheet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(tmp_path, 'set.json', {f'{i}.png': frame(i) for i in range(6)},
                 {f'{i}.png': [(1, [5, 5, 20, 20])] for i in range(6)})
    (tmp_path / '3.png').write_bytes(b'damaged')
    _, numbers = split(path, 0.5)
    assert sum(part['frames'] for part in numbers.values()) == 6
    assert show(load_coco(path), tmp_path / 'shown' / 'sheet.png', 6, '*', False) == 6
    assert caplog.text.count('3.png is not an image') == 2


def test_a_sheet_never_replaces_an_image_of_the_set(tmp_path: Path) -> None:
    path = write(tmp_path, 'set.json', {'0.png': frame(0)}, {})
    before = (tmp_path / '0.png').read_bytes()
    for name in ('0.png', f'../{tmp_path.name}/0.png'):
        with pytest.raises(UserError, match='is an input and would be replaced'):
            show(load_coco(path), tmp_path / name, 1, '*', True)
    assert (tmp_path / '0.png').read_bytes() == before
    for output in (tmp_path / 'sheet.png', tmp_path):
        with pytest.raises(UserError, match='would be one of the frames in its folder; choose an'):
            show(load_coco(path), output, 1, '*', True)


def test_scenes_are_linked_by_their_frames(tmp_path: Path) -> None:
    """Frames of a slow pan: only neighbors are alike, also across the rows of a block."""
    wide = cv2.resize(np.random.default_rng(0).integers(20, 250, (10, 80)).astype(np.uint16),
                      (640, 80), interpolation=cv2.INTER_CUBIC) * 60
    order = np.random.default_rng(1).permutation(300).tolist()
    frames = {f'{i:03d}.png': wide[:, k:k + SIZE[0]] if k < 299 else frame(7)
              for i, k in enumerate(order)}
    values = {k: thumbnail(frames[f'{i:03d}.png']) for i, k in enumerate(order)}
    assert values[0] @ values[1] > ALIKE > values[0] @ values[100]
    scenes = _scenes(load_coco(write(tmp_path, 'pan.json', frames, {})).images, lambda _: None)
    assert sorted(np.bincount(scenes).tolist()) == [1, 299]
    assert (scenes == scenes[order.index(299)]).sum() == 1


def test_bags_and_single_scenes_are_split_too(tmp_path: Path) -> None:
    boxes = {f'{k}.png': [(1, [10.0, 10, 20, 30])] for k in range(12)}
    path = write(tmp_path, 'one.json', {name: frame(1, 0) for name in boxes}, boxes)
    how, numbers = split(path, 0.3)
    assert how.startswith('by blocks of consecutive')
    kept = sorted(int(r.path.stem) for r in load_coco(tmp_path / 'one_val.json').images)
    assert 3 <= len(kept) <= 5
    write(tmp_path, 'bags.json', {name: frame(1, 0) for name in boxes}, boxes,
          bag=lambda name: 'night' if int(name[:-4]) < 4 else 'day')
    how, numbers = split(tmp_path / 'bags.json', 0.3)
    assert how == 'by bag or video' and numbers['bags_val.json']['frames'] == 4


def test_frames_of_no_bag_are_no_bag_of_their_own(tmp_path: Path) -> None:
    scenes = {f'{k}.png': 0 if k < 4 else k // 2 for k in range(12)}
    path = write(tmp_path, 'mixed.json', {name: frame(scene) for name, scene in scenes.items()},
                 {}, bag=lambda name: 'night' if scenes[name] == 0 else None)
    how, numbers = split(path, 0.3)
    assert how == 'by bag or video, other frames by near-duplicates'
    assert [n['groups'] for n in numbers.values()] == [3, 2]
    parts = [{scenes[record.file_name] for record in load_coco(tmp_path / name).images}
             for name in numbers]
    assert not parts[0] & parts[1]


@pytest.mark.parametrize(('options', 'words'), [
    ({'share': 0}, 'between 0 and 1'), ({'share': 1.5}, 'between 0 and 1'),
    ({'share': 0.2, 'pattern': '('}, 'not a regular expression'),
    ({'share': 0.2, 'pattern': 'png'}, 'has one group of frames'),
    ({'share': 0.2, 'pattern': 'x(.)y'}, 'is in none of the file names'),
])
def test_splits_that_cannot_be(training: Path, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        split(training, **options)
    assert not training.with_name('train_val.json').exists()


def test_commands(
    training: Path, run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    folder = training.parent
    result = run_cgdet('data', 'split', training, '--val', '0.4')
    assert result.returncode == 0, result.stderr
    assert 'Split by near-duplicates:' in result.stdout and 'train_val.json: ' in result.stdout
    report = folder / 'report.json'
    arguments = ('data', 'check', folder / 'train_train.json', '--val', folder / 'train_val.json',
                 '--output', folder / 'sheets', '--json', report, '--model', 'shipped')
    result = run_cgdet(*arguments, env={**os.environ, 'COLUMNS': '60'})
    assert result.returncode == 0, result.stderr
    assert 'empty.png' in result.stdout and '…' not in result.stdout
    assert (folder / 'sheets' / 'tiny.png').is_file()
    assert json.loads(report.read_text())['findings']['tiny']['count'] == 1
    result = run_cgdet(*arguments)
    assert result.returncode == 1 and 'already exists' in result.stderr
    result = run_cgdet('data', 'check', folder)
    assert result.returncode == 1 and 'is a folder; a COCO annotation file' in result.stderr
