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

"""Reading frames: names, stamps, truth, and when pixels are read."""

import json
from pathlib import Path

from cgdet_core.data.bags import io
from cgdet_core.data.bags.io import IMAGE_TYPE, open_bag, TOPIC, write_bag
from cgdet_core.data.coco import ImageRecord, load_coco
from cgdet_core.data.sources import coco_frames, Frame, open_path, read_frames
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.drawing import save_frame, save_picture
from cgdet_core.runtime.imaging.frames import read_image, read_thermal
import cv2
import numpy as np
import pytest


def test_every_source_has_the_same_frames(scenes: Path, tmp_path: Path) -> None:
    coco = load_coco(scenes)
    write_bag(tmp_path / 'bag', coco_frames(coco, 'scene_0000[0-2]*'), 10.0)
    expected = [read_thermal(r.path) for r in coco.images[:3]]
    for source in (scenes, scenes.parent / 'thermal', tmp_path / 'bag'):
        for frame, pixels in zip(read_frames(source), expected):
            np.testing.assert_array_equal(frame.pixels, pixels)
    picture, = read_frames(coco.images[1].path)
    np.testing.assert_array_equal(picture.pixels, expected[1])
    assert picture.name == coco.images[1].path.name and picture.truth is None
    assert [f.truth for f in coco_frames(coco)] == coco.images
    stamps = [f.stamp_ns for f in read_frames(tmp_path / 'bag')]
    assert len(stamps) == 3 and np.all(np.diff(stamps) == 10**8)


def test_images_of_a_bag_with_one_stamp_have_their_own_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A driver that leaves the stamp as it was."""
    image = io._image
    monkeypatch.setattr(io, '_image', lambda types, frame, stamp: image(types, frame, 5))
    frames = (Frame(f'{i}.png', lambda i=i: np.full((4, 4), i, np.uint8)) for i in range(3))
    write_bag(tmp_path / 'bag', frames, 10)
    found = list(read_frames(tmp_path / 'bag'))
    stamp = found[0].stamp_ns
    assert [f.name for f in found] == [
        f'bag_{stamp}.png', f'bag_{stamp}_2.png', f'bag_{stamp}_3.png']
    assert [f.pixels[0, 0] for f in found] == [0, 1, 2]


def test_frames_of_a_set_have_its_file_names(tmp_path: Path) -> None:
    names = ['day/0.png', 'night/0.png']
    for name in names:
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4), np.uint8))
    (tmp_path / 'set.json').write_text(json.dumps({'images': [
        {'id': i, 'file_name': name, 'width': 4, 'height': 4} for i, name in enumerate(names)]}))
    assert [frame.name for frame in read_frames(tmp_path / 'set.json')] == names
    source = open_path(tmp_path / 'set.json')
    assert list(source.names) == names and source.files[1:] == [tmp_path / n for n in names]


def test_a_video_is_gray(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / 'clip.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (160, 128))
    for level in (0, 200):
        writer.write(np.full((128, 160, 3), level, np.uint8))
    writer.release()
    found = list(read_frames(tmp_path / 'clip.avi'))
    assert [f.name for f in found] == ['clip_000000.png', 'clip_000001.png']
    assert [f.pixels.shape for f in found] == [(128, 160)] * 2
    assert found[0].pixels.mean() < 10 and found[1].pixels.mean() > 190


def test_each_page_of_a_tiff_is_a_frame_with_a_name(tmp_path: Path) -> None:
    Image = pytest.importorskip('PIL.Image')  # noqa: N806
    pages = [Image.fromarray(np.full((8, 8), 30_000 + i, np.uint16)) for i in range(3)]
    (tmp_path / 'in').mkdir()
    pages[0].save(tmp_path / 'in' / 'rec.tif', save_all=True, append_images=pages[1:])
    pages[2].save(tmp_path / 'one.tif')
    source = open_path(tmp_path)
    assert source.total == 4 and list(source.names) == [
        'in/rec_000000.tif', 'in/rec_000001.tif', 'in/rec_000002.tif', 'one.tif']
    found = list(source.frames)
    assert [int(frame.pixels[0, 0]) for frame in found] == [30_000, 30_001, 30_002, 30_002]
    assert found[1].where == f'{tmp_path}/in/rec.tif, page 1'
    assert open_path(tmp_path / 'in' / 'rec.tif').total == 3


def test_files_of_other_systems_are_no_frames(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 4), np.uint8))
    for name in ('._a.png', '__MACOSX/a.png', '.trash/b.jpg', '._b.mcap'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'\0\5\x16\7')
    assert list(open_path(tmp_path).names) == ['a.png']


def test_a_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    for name in ('drive.mp4', 'drive.json', 'drive.onnx'):
        save_frame(tmp_path / name / 'a.png', np.zeros((4, 4), np.uint8))
        assert list(open_path(tmp_path / name).names) == ['a.png']
        assert [frame.name for frame in read_frames(tmp_path / name)] == ['a.png']


def test_what_was_drawn_is_no_frame_of_a_folder(tmp_path: Path) -> None:
    save_frame(tmp_path / 'thermal' / 'a.png', np.zeros((4, 4), np.uint8))
    for name in ('contact_sheet.png', 'thermal/0_a.png'):
        save_picture(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
        assert cv2.imread(str(tmp_path / name)) is not None
    figures = pytest.importorskip('cgdet_core.training.figures')
    figures.save_figure(figures.draw_results([], ''), tmp_path / 'results.png')
    assert list(open_path(tmp_path).names) == ['thermal/a.png']
    # Of a set of an earlier version, without the mark.
    save_frame(tmp_path / 'set' / 'contact_sheet.png', np.zeros((4, 4), np.uint8))
    assert list(open_path(tmp_path).names) == ['set/contact_sheet.png', 'thermal/a.png']
    (tmp_path / 'set' / 'report.json').touch()
    assert list(open_path(tmp_path).names) == ['thermal/a.png']
    assert read_image(tmp_path / 'contact_sheet.png').shape == (4, 4, 3)  # by its name
    (tmp_path / 'thermal' / 'a.png').unlink()
    with pytest.raises(UserError, match='not a bag, but pictures that cgdet drew'):
        open_path(tmp_path)


def test_a_damaged_message_costs_its_frame_only(tmp_path: Path) -> None:
    rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')
    frames = (Frame(f'{i}.png', lambda i=i: np.full((4, 4), i, np.uint8)) for i in range(4))
    write_bag(tmp_path / 'whole', frames, 1.0)
    with open_bag(tmp_path / 'whole') as reader, rosbag2.Writer(
            tmp_path / 'bag', version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as bag:
        connection = bag.add_connection(TOPIC, IMAGE_TYPE, typestore=reader.typestore)
        for number, (_, received, raw) in enumerate(reader.messages()):
            bag.write(connection, received, raw[:30] if number == 1 else raw)
    found = list(read_frames(tmp_path / 'bag'))
    assert [int(frame.pixels[0, 0]) for frame in (found[0], *found[2:])] == [0, 2, 3]
    assert len({frame.name for frame in found}) == 4
    with pytest.raises(UserError, match='bag, image 1: the message is damaged '):
        found[1].pixels  # noqa: B018


def test_a_frame_of_a_set_has_the_size_that_its_boxes_are_for(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 8), np.uint8))
    for size, fits in (((8, 4), True), ((4, 8), False), ((16, 8), False)):
        record = ImageRecord(1, tmp_path / 'a.png', *size)
        if fits:
            assert record.read().shape == (4, 8) and record.read(3).shape == (4, 8, 3)
        else:
            with pytest.raises(UserError, match=f'has 8x4 pixels, .* lists {size[0]}x{size[1]}'):
                record.read()


def test_pixels_are_read_once_on_first_access() -> None:
    reads = []

    def read() -> np.ndarray:
        reads.append(1)
        return np.zeros((4, 4), np.uint8)

    frame = Frame('a.png', read)
    assert not reads
    assert frame.pixels is frame.pixels and len(reads) == 1


@pytest.mark.parametrize(('name', 'words'), [
    ('nothing', 'nothing does not exist'), ('empty', 'has no images'),
    ('text.mp4', 'not a video'), ('text.png', 'not an image')])
def test_an_invalid_source_is_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / 'empty').mkdir()
    for file in ('text.mp4', 'text.png'):
        (tmp_path / file).write_text('no pixels')
    with pytest.raises(UserError, match=words):
        for frame in read_frames(tmp_path / name):
            assert frame.pixels.size


def test_an_error_names_the_origin_of_the_frame() -> None:
    def read() -> np.ndarray:
        raise ValueError('it is torn')

    with pytest.raises(UserError, match=r'^bag, image 3: it is torn\.$'):
        Frame('bag_7.png', read, 'bag, image 3').pixels  # noqa: B018


@pytest.mark.parametrize(('name', 'content', 'words'), [
    ('x.seq', b'FFF\0' + bytes(99), r'a radiometric file of FLIR .*; convert it to images'),
    ('a.m4v', bytes(99), r'is no source of frames; convert it .* a video \(\.mp4, '),
    ('page.mp4', b'<html>', 'is not a video that OpenCV can read, it seems to be a web page'),
    ('none.mkv', b'', 'is not a video that OpenCV can read, as it is empty'),
    ('cut.mp4', b'\0\0\0\x10ftypisom\0\0\0\1\0\1\0\0mdat' + bytes(99),
     r'as it has no index \(moov\): its recording or copy was cut off'),
    ('x.sqlite3', b'SQLite format 3\0', r'seems to be a ROS 2 bag or .*; rename a bag to x\.db3'),
    ('x.bin', b'\x89MCAP0\r\n', r'seems to be a ROS 2 bag; rename a bag to x\.mcap, or name'),
    ('notes.txt', b'hello', 'is no source of frames; convert')])
def test_a_file_of_another_kind_is_named(
    tmp_path: Path, name: str, content: bytes, words: str,
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        open_path(tmp_path / name)


@pytest.mark.parametrize(('content', 'kind'), [
    (b'<!DOCTYPE html>', 'a web page'), (b'version https://git-lfs', 'a pointer of Git LFS'),
    (b'GIF89a', 'a GIF image')])
def test_what_an_image_is_instead_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / 'a.png').write_bytes(content)
    frame, = open_path(tmp_path / 'a.png').frames
    with pytest.raises(UserError, match=f'a.png is not an image, it seems to be {kind}'):
        frame.pixels  # noqa: B018


def test_an_image_with_another_suffix_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'frame.raw'
    path.write_bytes(cv2.imencode('.png', np.full((4, 5), 7, np.uint16))[1].tobytes())
    frame, = open_path(path).frames
    assert frame.pixels.dtype == np.uint16 and frame.pixels.shape == (4, 5)
