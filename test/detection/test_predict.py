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

"""The one loop that reads, detects and yields, and what it leaves behind."""

from collections.abc import Callable, Iterator
import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

from cgdet_core.data.coco import load_coco
from cgdet_core.data.inputs import find_sources
from cgdet_core.data.sources import coco_frames, Frame, Source
from cgdet_core.data.synthetic import write_coco
from cgdet_core.data.video import open_video
from cgdet_core.detection import predict
from cgdet_core.detection.evaluation import detect_all
from cgdet_core.detection.outputs import FORMATS, Outputs
from cgdet_core.detection.predict import check_model, detect, detect_sources, restrict
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.imaging.normalization import normalize
import cv2
import numpy as np
import pytest


def test_the_loop_finds_what_the_detector_finds(detector: Detector, scenes: Path) -> None:
    coco = load_coco(scenes)
    found = list(detect(detector, coco_frames(coco), 0.001))
    assert [frame.truth for frame, _ in found] == coco.images
    for frame, detections in found:
        expected = detector.detect(read_thermal(frame.where), 0.001)
        np.testing.assert_array_equal(detections.boxes, expected.boxes)
        np.testing.assert_array_equal(detections.scores, expected.scores)


def frames_with_a_bad_one() -> Iterator[Frame]:
    """Yield frames, one that cannot be used and one with a dead pixel, which is filled."""
    dead = np.full((128, 160), 290, np.float32)
    dead[3, 3] = np.nan
    yield Frame('good.png', lambda: np.zeros((128, 160), np.uint16))
    yield Frame('bad.png', lambda: np.full((128, 160), np.nan, np.float32), 'folder/bad.png')
    yield Frame('last.png', lambda: dead)


def test_a_frame_that_cannot_be_normalized_is_named(detector: Detector) -> None:
    results = detect(detector, frames_with_a_bad_one())
    assert next(results)[0].name == 'good.png'
    with pytest.raises(UserError, match=r'^folder/bad\.png: '):
        next(results)


def test_the_rest_is_done_without_a_bad_frame(detector: Detector, tmp_path: Path) -> None:
    with Outputs(tmp_path / 'out') as outputs:
        found = list(detect_sources(
            detector, [Source(frames_with_a_bad_one(), 'folder')], outputs))
    assert [outcome.name for outcome in found] == ['good.png', 'bad.png', 'last.png']
    assert 'folder/bad.png: ' in str(found[1].found)
    data = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert [image['file_name'] for image in data['images']] == ['good.png', 'last.png']
    assert {p.name for p in (tmp_path / 'out' / 'pictures').iterdir()} == {'good.png', 'last.png'}


def test_a_measurement_leaves_out_what_cannot_be_read(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_coco(tmp_path, 3, 1, 3, (160, 128))
    coco = load_coco(path)
    whole = detect_all(detector, load_coco(path))
    coco.images[0].path.write_bytes(b'damaged')
    cv2.imwrite(str(coco.images[2].path), np.zeros((64, 80), np.uint16))  # of another size
    found = detect_all(detector, coco)
    np.testing.assert_array_equal(found[0].boxes, whole[1].boxes)
    assert len(found) == len(coco.images) == 1 and coco.images[0].image_id == 2
    assert caplog.text.count('The frame is left out.') == 2 and 'scene_00000.png' in caplog.text
    coco.images[0].path.write_bytes(b'damaged')
    with pytest.raises(UserError, match='scene_00001.png is not an image'):
        detect_all(detector, coco)


def test_all_formats_have_the_same_detections(
    detector: Detector, scenes: Path, tmp_path: Path,
) -> None:
    folder = scenes.parent / 'thermal'
    with Outputs(tmp_path, ('coco', 'jsonl', 'yolo', 'csv'), normalized=True) as outputs:
        done = list(detect_sources(detector, find_sources([str(folder)]), outputs, 0.001))
    assert outputs.frames == len(done) == 12
    coco = json.loads((tmp_path / 'detections.json').read_text())
    lines = [json.loads(x) for x in (tmp_path / 'detections.jsonl').read_text().splitlines()]
    with (tmp_path / 'detections.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(coco['annotations']) == len(rows) == sum(outputs.objects.values()) > 12
    assert [a['id'] for a in coco['annotations']] == list(range(1, len(rows) + 1))
    names = [category['name'] for category in coco['categories']]
    assert (tmp_path / 'classes.txt').read_text().split() == names
    for image, line in zip(coco['images'], lines):
        name = image['file_name']
        assert name == line['file_name'] and (line['width'], line['height']) == (160, 128)
        boxes = [a for a in coco['annotations'] if a['image_id'] == image['id']]
        expected = detector.detect(read_thermal(folder / name), 0.001)
        labels = (tmp_path / 'labels' / name).with_suffix('.txt').read_text().splitlines()
        mine = [row for row in rows if row['file_name'] == name]
        assert len(boxes) == len(expected) == len(line['objects']) == len(labels) == len(mine)
        for i, (box, score, label) in enumerate(zip(
                expected.boxes, expected.scores, expected.labels)):
            x, y, width, height = boxes[i]['bbox']
            np.testing.assert_allclose([x, y, x + width, y + height], box, atol=0.011)
            assert boxes[i]['category_id'] == label + 1
            assert boxes[i]['score'] == line['objects'][i]['score'] == pytest.approx(
                score, abs=1e-5)
            assert line['objects'][i]['class'] == mine[i]['class'] == names[label]
            assert line['objects'][i]['bbox'] == boxes[i]['bbox']
            np.testing.assert_allclose(
                [float(mine[i][k]) for k in ('x1', 'y1', 'x2', 'y2')], box, atol=0.006)
            index, *yolo = map(float, labels[i].split())
            center = [(box[0] + box[2]) / 320, (box[1] + box[3]) / 256]
            np.testing.assert_allclose(yolo[:2], center, atol=1e-5)
            assert index == label and yolo[2] == pytest.approx(
                (box[2] - box[0]) / 160, abs=1e-5)
        picture = cv2.imread(str(tmp_path / 'normalized' / name), cv2.IMREAD_UNCHANGED)
        seen = normalize(read_thermal(folder / name), detector.card.normalization) * 255
        np.testing.assert_array_equal(picture, seen.astype(np.uint8))


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_second_run_leaves_the_folder_of_the_first_alone(
    detector: Detector, scenes: Path, tmp_path: Path, overwrite: bool,
) -> None:
    def sources() -> list[Source]:
        return find_sources([str(scenes.parent / 'thermal')])

    with Outputs(tmp_path / 'out') as first, Outputs(tmp_path / 'out') as second:
        first.check(sources(), overwrite)
        second.check(sources(), overwrite)  # nothing is there yet
        done = detect_sources(detector, sources(), first, 0.001)
        next(done)
        with pytest.raises(UserError, match='Another run has begun to write to'):
            next(detect_sources(detector, sources(), second, 0.001))
        second.close()
        assert len(list(done)) == 11
    coco = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert len(coco['images']) == len(list((tmp_path / 'out' / 'pictures').iterdir())) == 12
    if not overwrite:  # also if the first is finished meanwhile
        with pytest.raises(UserError, match='Another run has begun to write to'), \
                Outputs(tmp_path / 'out') as third:
            next(detect_sources(detector, sources(), third, 0.001))
        assert (tmp_path / 'out' / 'detections.json').is_file()


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_was_done_is_kept(
    detector: Detector, scenes: Path, tmp_path: Path, error: type[BaseException],
) -> None:
    sources = find_sources([str(scenes.parent / 'thermal')])
    with pytest.raises(error), Outputs(tmp_path / 'out') as outputs:
        for number, _ in enumerate(detect_sources(detector, sources, outputs, 0.001)):
            lines = (tmp_path / 'out' / 'detections.jsonl').read_text().splitlines()
            assert len(lines) == number + 1  # even a power cut would leave these
            if number == 4:
                raise error
    data = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert len(data['images']) == outputs.frames == 5 and data['annotations']
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {'detections.json', 'pictures'}


@pytest.mark.parametrize('place', ['new/deep', 'there'])
@pytest.mark.parametrize('rate', [0.0, 10.0])
def test_an_interruption_in_the_first_frame_leaves_nothing(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, place: str,
) -> None:
    """The image, the label and the video are written before the line of the frame."""
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / 'there').mkdir()
    (tmp_path / 'there' / 'note.txt').touch()
    before = sorted(tmp_path.rglob('*'))
    monkeypatch.setattr(Outputs, '_append', interrupt)
    source = Source(frames_with_a_bad_one(), 'folder', name='clip', rate=rate)
    outputs = Outputs(tmp_path / place, ('coco', 'yolo'), normalized=True)
    with pytest.raises(KeyboardInterrupt), outputs:
        list(detect_sources(detector, [source], outputs))
    outputs.close()
    assert sorted(tmp_path.rglob('*')) == before


def test_a_video_lasts_as_long_as_its_frames(detector: Detector, tmp_path: Path) -> None:
    """A gap stays, shortened to a second; frames without stamps follow each other."""
    stamps = (0.0, 0.1, 0.5, 0.6, 60.0)
    for name, times, length in (('a', stamps, 1 + 1 + 4 + 1 + 11), ('b', (None,) * 5, 5)):
        frames = (Frame(f'{name}{i}.png', lambda: np.zeros((128, 160), np.uint16),
                        stamp_ns=None if t is None else round(t * 1e9))
                  for i, t in enumerate(times))
        with Outputs(tmp_path / name) as outputs:
            list(detect_sources(detector, [Source(frames, name, 5, name, 10.0)], outputs))
        capture = cv2.VideoCapture(str(tmp_path / name / f'{name}.mp4'))
        assert sum(iter(lambda capture=capture: capture.read()[0], False)) == length


def test_images_with_one_stem_have_their_own_files(
    detector: Detector, tmp_path: Path,
) -> None:
    for name in ('a.png', 'a.bmp'):
        cv2.imwrite(str(tmp_path / name), np.zeros((128, 160), np.uint8))
    with Outputs(tmp_path / 'out', ('yolo',)) as outputs:
        list(detect_sources(detector, find_sources([str(tmp_path)]), outputs))
    assert len(list((tmp_path / 'out' / 'pictures').iterdir())) == 2
    assert len(list((tmp_path / 'out' / 'labels').iterdir())) == 2


def test_images_are_never_written_into_a_source(tmp_path: Path) -> None:
    (tmp_path / 'pictures').mkdir()
    cv2.imwrite(str(tmp_path / 'pictures' / 'a.png'), np.zeros((128, 160), np.uint8))
    for source in (tmp_path, tmp_path / 'pictures', tmp_path / 'pictures' / 'a.png'):
        with pytest.raises(UserError, match='would be written into') as caught:
            Outputs(tmp_path).check(find_sources([str(source)]), overwrite=True)
        assert caught.value.fields == ('output',)
    with open_video(tmp_path / 'clip.mp4', 10) as write:
        write(np.zeros((60, 80, 3), np.uint8))
    for source in ('clip.mp4', 'pictures/../clip.mp4'):
        with pytest.raises(UserError, match='would be written into'):
            Outputs(tmp_path).check(find_sources([f'{tmp_path}/{source}']), overwrite=True)


@pytest.mark.parametrize('formats', [('coco', 'yolo'), ('jsonl', 'csv')])
def test_a_killed_run_can_be_repeated(
    formats: tuple[str, ...], detector: Detector, tmp_path: Path, killed: Callable[..., bool],
) -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32),
                         np.zeros(0, np.int64))

    def write(*names: str) -> None:
        with Outputs(tmp_path / 'out', formats) as outputs:
            outputs.check([], overwrite=True)
            for name in names:
                frame = Frame(name, lambda: np.zeros((12, 16), np.uint16))
                outputs.write(Source(iter(()), 'x'), frame, nothing, detector.card,
                              np.zeros((12, 16, 3), np.uint8), 1.0)

    write('z.png')
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    unlinks = 0
    while True:
        write('a.png', 'b.png')
        ended = killed(lambda: write('c.png'), unlinks, 'unlink')
        write('d.png')
        assert {path.name for path in (tmp_path / 'out').iterdir()} == names
        assert [p.stem for p in (tmp_path / 'out' / 'pictures').iterdir()] == ['d']
        if not ended:
            break
        unlinks += 1
    assert unlinks >= 7  # labels and two kinds of images of two frames, and their list


def test_labels_of_somebody_else_are_not_replaced(detector: Detector, tmp_path: Path) -> None:
    """As in a YOLO set, whose images are detected in with its folder as the output."""
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), np.zeros((128, 160), np.uint8))
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels' / 'a.txt').write_text('0 .5 .5 .1 .1')
    found = find_sources([str(tmp_path / 'images')])
    with pytest.raises(UserError, match='labels is not a result of "cgdet detect"') as caught:
        Outputs(tmp_path, ('yolo',)).check(found, overwrite=True)
    assert caught.value.fields == ('output',)
    with pytest.raises(UserError, match='already exists'):
        Outputs(tmp_path, ('yolo',)).check(found, overwrite=False)


def test_names_that_are_not_text_are_written(detector: Detector, tmp_path: Path) -> None:
    name = os.fsdecode(b'caf\xe9')
    for write in (0, 1):  # again, over the first
        frames = (Frame(f'{name}{i}.png', lambda: np.zeros((128, 160), np.uint16))
                  for i in range(2))
        video = (Frame(f'{name}_{i}.png', lambda: np.zeros((128, 160), np.uint16))
                 for i in range(2))
        with Outputs(tmp_path, FORMATS) as outputs:
            outputs.check([], overwrite=bool(write))
            list(detect_sources(detector, [
                Source(frames, 'folder'), Source(video, 'video', name=name, rate=10.0)], outputs,
                0.0))
    assert outputs.frames == 4
    assert (tmp_path / f'{name}.mp4').is_file()
    assert (tmp_path / 'labels' / f'{name}0.txt').is_file()
    data = json.loads((tmp_path / 'detections.json').read_text())
    assert data['images'][0]['file_name'] == f'{name}0.png'


def test_the_current_folder_is_a_source(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its results are not detected in again, also if they are written right into it."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('a.png', np.zeros((128, 160), np.uint8))
    for folder in (None, None, Path(), Path()):
        found = find_sources(['.'])
        with Outputs(folder) as outputs:
            outputs.check(found, overwrite=folder is not None)
            assert [o.name for o in detect_sources(detector, found, outputs)] == ['a.png']
    assert {path.name for path in tmp_path.iterdir()} == {
        'a.png', 'detections', 'detections_2', 'detections.json', 'pictures'}


def test_overwriting_removes_earlier_results_and_no_other_files(
    detector: Detector, tmp_path: Path,
) -> None:
    def run(names: list[str], *formats: str) -> set[str]:
        frames = (Frame(name, lambda: np.zeros((128, 160), np.uint16), f'in/{name}')
                  for name in names)
        with Outputs(tmp_path, formats, normalized='yolo' in formats) as outputs:
            outputs.check([], overwrite=True)
            list(detect_sources(detector, [Source(frames, 'folder')], outputs))
        return {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file()}

    run(['a.png', 'a.bmp', 'day/b.png'], 'coco', 'jsonl', 'yolo')
    lines = (tmp_path / 'detections.jsonl').read_text().splitlines()
    assert [json.loads(line)['source'] for line in lines] == [
        'in/a.png', 'in/a.bmp', 'in/day/b.png']
    for name in ('mine.txt', 'pictures/mine.png'):
        (tmp_path / name).touch()
    mine = {'mine.txt', 'pictures/mine.png', 'classes.txt'}
    assert run(['c.png'], 'csv') == mine | {'detections.csv', 'pictures/c.png'}
    assert not (tmp_path / 'labels').exists() and not (tmp_path / 'pictures' / 'day').exists()
    assert run(['d.png'], 'coco') >= mine | {'detections.json', 'pictures/d.png'}


def test_file_names_lead_nowhere_else(detector: Detector, tmp_path: Path) -> None:
    """Those of a COCO set may be absolute, or begin with the folder above."""
    names = ['../a.png', f'{tmp_path}/b.png', 'a.png', 'a.bmp']
    frames = (Frame(name, lambda: np.zeros((128, 160), np.uint16)) for name in names)
    with Outputs(tmp_path / 'out') as outputs:
        list(detect_sources(detector, [Source(frames, 'set')], outputs))
    assert [path.name for path in tmp_path.iterdir()] == ['out']
    assert len(list((tmp_path / 'out' / 'pictures').rglob('*.png'))) == 4
    data = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert [image['file_name'] for image in data['images']] == names


def test_a_name_twice_does_not_end_the_other_sources(detector: Detector, tmp_path: Path) -> None:
    sources = [Source(iter([Frame(name, lambda: np.zeros((128, 160), np.uint16))
                            for name in names]), 'x') for names in (['a', 'a'], ['b'])]
    with Outputs(tmp_path) as outputs:
        found = list(detect_sources(detector, sources, outputs))
    assert [isinstance(o.found, UserError) for o in found] == [False, True, False]
    assert outputs.frames == 2


def test_classes_restrict_the_detections(detector: Detector, scenes: Path) -> None:
    frame = read_thermal(next((scenes.parent / 'thermal').iterdir()))
    every = detector.detect(frame, 0.001)
    classes = detector.card.classes
    for wanted in (['car'], ['person', 'bicycle']):
        found = detector.detect(frame, restrict(classes, wanted, 0.001))
        keep = [i for i, label in enumerate(every.labels) if classes[label] in wanted]
        assert {classes[label] for label in found.labels} <= set(wanted)
        # Boxes of the other classes no longer count towards the card's max_detections.
        np.testing.assert_array_equal(found.boxes[:len(keep)], every.boxes[keep])
    with pytest.raises(UserError, match="no class 'dog'; its classes are person, bicycle, car"):
        restrict(classes, ['car', 'dog'], 0.5)


@pytest.mark.parametrize(('name', 'words'), [
    ('thermal.json', 'a JSON file, not a model; .*, such as .*thermal.onnx'),
    ('', 'a folder, not a model; .*, such as .*thermal.onnx'), ('a.png', 'an image, not a model'),
    ('clip.mp4', 'a video'), ('junk.ckpt', 'neither an ONNX file nor a checkpoint'),
    ('none.ckpt', 'none.ckpt does not exist'),
    ('none.onnx', 'none.onnx does not exist'), ('https://host/a.onnx', 'is a URL; download')])
def test_what_is_not_a_model_is_said(tmp_path: Path, name: str, words: str) -> None:
    for file in ('thermal.json', 'thermal.onnx', 'a.png', 'junk.ckpt'):
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=words):
        check_model(name if '://' in name else tmp_path / name)


def test_a_checkpoint_of_rgb_is_refused_for_thermal_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its ONNX file is refused by the detector itself."""
    teacher = SimpleNamespace(card=SimpleNamespace(channels=3))
    monkeypatch.setattr(predict, 'open_detector', lambda model, backend: teacher)
    with pytest.raises(UserError, match='x.ckpt is an RGB model; choose a thermal model'):
        predict.open_thermal('x.ckpt')
