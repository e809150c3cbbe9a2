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

"""Sets collected from images and videos: what is chosen, how it is stored, what is refused."""

from dataclasses import replace
from functools import partial
import json
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.cli.collect import data_collect
from cgdet_core.data import collect, plans
from cgdet_core.data.bags.pairing import Choice
from cgdet_core.data.coco import load_coco
from cgdet_core.data.inputs import find_recordings
from cgdet_core.data.relabel import relabel
from cgdet_core.data.sources import Frame, Source
from cgdet_core.data.split import split
from cgdet_core.errors import UserError
from cgdet_core.runtime import Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.detection.postprocess import Detections
import cv2
import numpy as np
import pytest
import typer


def scene(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Return 14-bit counts that differ from one number to the next."""
    noise = np.random.default_rng(number).integers(0, 1000, size[::-1])
    return (7000 + noise).astype(np.uint16)


class FakeDetector:
    """Find a car of score 0.9 and a person of 0.4 in each frame."""

    card = detection_card('fake', ('person', 'car'), (64, 64), Normalization())

    def detect(self, frame: np.ndarray, score: float) -> Detections:
        assert frame.dtype == np.uint16
        scores = np.array([0.9, 0.4], np.float32)
        boxes = np.array([[1, 2, 21, 32], [30, 5, 40, 25]], np.float32)
        kept = scores >= score
        return Detections(boxes[kept], scores[kept], np.array([1, 0])[kept])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of six 16-bit images, two of them deeper, in three formats."""
    made = tmp_path / 'night'
    (made / 'b').mkdir(parents=True)
    for number, name in enumerate(('0.png', '1.tiff', '2.pgm', '3.png', 'b/0.png', 'b/1.png')):
        cv2.imwrite(str(made / name), scene(number))
    return made


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a video of 20 frames at 10 Hz with the counts of 16 bits."""
    av = pytest.importorskip('av', reason='PyAV writes the video')
    path = tmp_path / 'drive.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', 10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'gray16le'
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(scene(number), 'gray16le')
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make(sources: list[Any], output: Path, detector: Any = None, score: float = 0.3,
         **options: Any) -> dict[str, Any]:
    choice = Choice(**options)
    found = [s if isinstance(s, Source) else find_recordings([str(s)])[0] for s in sources]
    return collect.collect(
        plans.make_plans(found, choice), output, choice, detector, score)


def test_images_keep_their_depth_and_their_places(folder: Path, tmp_path: Path) -> None:
    report = make([folder], tmp_path / 'set')
    coco = load_coco(tmp_path / 'set' / 'annotations.json')
    assert [r.file_name for r in coco.images] == [
        f'thermal/night/{name}.png' for name in ('0', '1', '2', '3', 'b/0', 'b/1')]
    for number, record in enumerate(coco.images):
        stored = cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16 and np.array_equal(stored, scene(number))
        assert (record.source, record.bag, record.video) == ('night', None, None)
    assert report['bit_depth'] == {'uint16': 6} and coco.prelabels == 0
    assert json.loads((tmp_path / 'set' / 'report.json').read_text()) == report
    assert cv2.imread(str(tmp_path / 'set' / 'contact_sheet.png')) is not None


def test_images_of_one_stem_and_folders_of_one_name(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / '3.png', folder / '0.PNG')
    again = tmp_path / 'later' / 'night'
    shutil.copytree(folder / 'b', again)
    make([folder, again], tmp_path / 'set')
    names = [r.file_name for r in load_coco(tmp_path / 'set' / 'annotations.json').images]
    assert len(set(names)) == len(names) == 9
    assert {'thermal/night/0.png', 'thermal/night_2/0.png', 'thermal/night_2/1.png'} < {*names}


def test_a_video_gives_counts_and_times(video: Path, tmp_path: Path) -> None:
    for name, options, numbers in (
            ('all', {}, range(20)), ('third', {'every': 3}, range(0, 20, 3)),
            ('slow', {'rate': 2.0}, range(0, 20, 5)), ('few', {'max_frames': 3}, (0, 9, 19))):
        report = make([video], tmp_path / name, **options)
        coco = load_coco(tmp_path / name / 'annotations.json')
        assert [r.file_name for r in coco.images] == [
            f'thermal/drive_{n:06d}.png' for n in numbers]
        for number, record in zip(numbers, coco.images):
            stored = cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(stored, scene(number)) and record.video == 'drive'
        part, = report['sources']
        assert (part['images'], part['chosen'], part['frames']) == (
            20, len(numbers), len(numbers))


def test_near_duplicates_of_videos_are_left_out_and_those_of_images_stay(
    tmp_path: Path,
) -> None:
    def source(rate: float) -> Source:
        frames = (Frame(f'{i}.png', partial(scene, i // 2), f'still, {i}') for i in range(6))
        return Source(frames, 'still', 6, 'still', rate, [f'{i}.png' for i in range(6)])

    for rate, options, kept in ((10.0, {}, 3), (0.0, {}, 6), (0.0, {'min_change': 0.01}, 3),
                                (10.0, {'min_change': 0.0}, 6)):
        part, = make([source(rate)], tmp_path / f'{rate}{options}', **options)['sources']
        assert (part['frames'], part['near_duplicates']) == (kept, 6 - kept)


def test_frames_of_all_sources_are_spread_evenly(
    folder: Path, video: Path, tmp_path: Path,
) -> None:
    report = make([video, folder], tmp_path / 'set', max_frames=13)
    assert [part['frames'] for part in report['sources']] == [10, 3]
    how, numbers = split(tmp_path / 'set' / 'annotations.json', 0.3)
    assert how == 'by bag or video, other frames by near-duplicates'
    assert sorted(part['frames'] for part in numbers.values()) == [3, 10]


def test_boxes_of_a_model_are_no_truth_until_they_are_replaced(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    report = make([folder], tmp_path / 'set', FakeDetector(), 0.5)
    path = tmp_path / 'set' / 'annotations.json'
    data = json.loads(path.read_text())
    made = {'model': 'fake', 'score_threshold': 0.5}
    assert data['info']['prelabels'] == made
    assert report['prelabels'] == {**made, 'boxes': {'person': 0, 'car': 6}}
    assert {a['score'] for a in data['annotations']} == {0.9} and len(data['annotations']) == 6
    assert data['annotations'][0]['bbox'] == [1, 2, 20, 30]
    assert not caplog.text
    coco = load_coco(path)
    assert coco.prelabels == 6
    coco.warn_of_prelabels()
    assert '6 boxes were made by a model (with a score) and not checked' in caplog.text
    corrected = tmp_path / 'export.json'
    for annotation in data['annotations']:
        del annotation['score']  # as the export of an annotation tool
    corrected.write_text(json.dumps(data))
    relabel(path, corrected, tmp_path / 'set' / 'labelled.json', False)
    labelled = json.loads((tmp_path / 'set' / 'labelled.json').read_text())
    assert load_coco(tmp_path / 'set' / 'labelled.json').prelabels == 0
    assert 'prelabels' not in labelled['info'] and len(labelled['annotations']) == 6


def live(frames: int, hertz: float) -> Source:
    """Return a stream of some frames, whose number is not known."""
    come = (Frame(f'live_{i:06d}.png', partial(scene, i), f'live, {i}', round(i * 1e9 / hertz))
            for i in range(frames))
    return Source(come, 'rtsp://camera/live', None, 'live', 25.0)


def test_a_stream_ends_by_itself_or_by_the_number_of_frames(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='has no end; limit the number of frames') as error:
        make([live(3, 10)], tmp_path / 'none')
    assert error.value.fields == ('max_frames',)
    for name, frames, options, numbers in (
            ('enough', 100, {'max_frames': 4}, (0, 1, 2, 3)),
            ('ended', 3, {'max_frames': 9}, (0, 1, 2)),
            ('second', 100, {'max_frames': 3, 'rate': 2.0}, (0, 5, 10))):
        part, = make([live(frames, 10)], tmp_path / name, **options)['sources']
        images = json.loads((tmp_path / name / 'annotations.json').read_text())['images']
        assert [i['stamp_ns'] for i in images] == [n * 10**8 for n in numbers]
        assert part['frames'] == part['chosen'] == len(numbers)
        assert part['images'] == numbers[-1] + 1
    with pytest.raises(UserError, match='must be the only source'):
        make([live(3, 10), replace(live(3, 10), name='b')], tmp_path / 'two', max_frames=2)


def test_what_cannot_be_read_is_left_out_and_named(
    folder: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / '1.tiff').write_bytes(b'damaged')
    content = video.read_bytes()
    video.write_bytes(content[:len(content) // 2])
    with pytest.raises(typer.Exit) as status:
        data_collect([str(folder), str(video)], tmp_path / 'set')
    said = capsys.readouterr()
    assert status.value.exit_code == 1 and '2 images could not be read.' in said.err
    report = json.loads((tmp_path / 'set' / 'report.json').read_text())
    images, cut = report['sources']
    assert images['frames'] == 5 and str(folder / '1.tiff') in images['unreadable'][0]
    assert 0 < cut['frames'] < 20 and 'ends early' in cut['unreadable'][0]
    assert 'night, left out: ' in said.out and 'drive, left out: ' in said.out


def test_photos_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = np.zeros((48, 64, 3), np.uint8)
    photo[:20] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / 'photo.png'), photo)
    data_collect([str(tmp_path / 'photo.png')], tmp_path / 'set')
    said = capsys.readouterr().out
    assert 'photo.png is in color' in said and 'There are no boxes yet' in said
    name = f'thermal/{tmp_path.name}/photo.png'
    assert cv2.imread(str(tmp_path / 'set' / name), cv2.IMREAD_UNCHANGED).ndim == 2


def test_an_error_or_a_signal_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error in (KeyboardInterrupt, OSError):
        def fail(*_: object, error: type[BaseException] = error) -> None:
            raise error

        monkeypatch.setattr(collect, 'save_frame', fail)
        with pytest.raises(error):
            make([folder], tmp_path / 'set')
        assert [path.name for path in tmp_path.iterdir()] == ['night']


@pytest.mark.parametrize(('arguments', 'options', 'words'), [
    (['night', 'night'], {}, 'night/0.png is named twice; name each source once'),
    (['night', 'night/b/*.png'], {}, 'night/b/0.png is named twice'),
    (['drive.mkv', './drive.mkv'], {}, 'drive.mkv is named twice'),
    (['empty'], {}, r'empty has no images \(.*\) and is not a bag'),
    (['nothing'], {}, 'nothing does not exist'),
    (['no*.png'], {}, 'No file matches no'),
    (['none.mp4'], {}, 'none.mp4 .*(as it is empty|has no frames)'),
    (['set.json'], {}, 'set.json is a set already'),
    (['night'], {'rate': 2.0}, 'images have no times for a rate'),
    (['night'], {'rate': 0.0}, 'The rate must be positive'),
    (['drive.mkv'], {'rate': 2.0, 'every': 2}, 'by their number or by a rate, not both'),
    (['drive.mkv'], {'rgb_topic': '/rgb'}, 'is not a bag and has no RGB topic'),
    (['night'], {'classes': 'dog,cat,dog'}, 'The class dog is named twice'),
    (['night'], {'classes': 'dog,'}, 'has an empty class name'),
    (['night'], {'classes': 'dog,Dog'}, "new lists the categories 'dog' and 'Dog'"),
    (['.'], {}, 'new would be in ., whose images are read'),
    (['bad'], {}, r'None of the frames \(1\) can be read, first: .*x.png is not an image'),
    (['night'], {'model': 'night/0.png'}, 'is an image, not a model'),
])
def test_what_cannot_become_a_set_is_one_sentence(
    folder: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], options: dict[str, Any], words: str,
) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad' / 'x.png').write_text('text')
    (tmp_path / 'none.mp4').write_bytes(b'')
    make([folder], tmp_path / 'other')
    (tmp_path / 'other' / 'annotations.json').rename(tmp_path / 'set.json')
    shutil.rmtree(tmp_path / 'other')
    shutil.copytree(folder, tmp_path / 'thermal' / 'night')
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError, match=words):
        data_collect(arguments, Path('new'), **options)
    assert sorted(tmp_path.rglob('*')) == before
    with pytest.raises(UserError, match='night already exists; choose another name or remove'):
        data_collect(arguments, Path('night'), **options)
