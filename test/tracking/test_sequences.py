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

"""Folders of sequences as people and benchmarks have them."""

from fractions import Fraction
from pathlib import Path
import shutil
from types import SimpleNamespace
from typing import Any

from cgdet_core.cli.track import colors_of
from cgdet_core.data.sources import open_path
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import natural
from cgdet_core.tracking.attributes import find_attributes
from cgdet_core.tracking.benchmarks import BENCHMARKS
from cgdet_core.tracking.sequences import (
    different,
    find_sequences,
    named_apart,
    open_sequence,
    rgb_of,
    without_truth,
)
import cv2
from drawn import boxes, frames, SHAPE, write_frames, write_sequence, write_table, write_video
import numpy as np
import pytest


def test_a_plain_folder_keeps_the_depth_of_its_frames(tmp_path: Path) -> None:
    write_sequence(tmp_path / 'walk', dtype=np.uint16)
    [entry] = find_sequences(tmp_path / 'walk')
    sequence = open_sequence(entry)
    assert (entry.name, sequence.rate, len(sequence.names)) == ('walk', 25.0, 8)
    assert {frame.pixels.dtype for frame in sequence.source.frames} == {np.dtype(np.uint16)}
    assert sequence.truths[0].boxes.tolist() == boxes(8).tolist()
    assert len(sequence.files) == 9 and tmp_path / 'walk' / 'gt_thermal.csv' in sequence.files


@pytest.mark.parametrize('place', ['thermal', 'infrared', 'img', 'ir', '.'])
def test_where_the_frames_are(tmp_path: Path, place: str) -> None:
    names = write_frames(tmp_path / 'walk' / 'new', 4)
    for name in names:
        (tmp_path / 'walk' / place).mkdir(exist_ok=True)
        (tmp_path / 'walk' / 'new' / name).rename(tmp_path / 'walk' / place / name)
    (tmp_path / 'walk' / 'new').rmdir()
    np.savetxt(tmp_path / 'walk' / 'groundtruth_rect.txt', boxes(4), delimiter=',')
    sequence = open_sequence(*find_sequences(tmp_path / 'walk'))
    assert sequence.names == names and sequence.truths[0].visible.all()


def test_a_video_states_its_rate(tmp_path: Path) -> None:
    write_video(tmp_path / 'walk' / 'thermal.mp4', 6, rate=20)
    write_table(tmp_path / 'walk' / 'gt_thermal.csv', ['0', '5'], boxes(2))
    [entry] = find_sequences(tmp_path / 'walk')
    sequence = open_sequence(entry)
    assert sequence.rate == pytest.approx(20) and len(sequence.names) == 6
    assert np.flatnonzero(sequence.truths[0].annotated).tolist() == [0, 5]
    assert len(list(sequence.source.frames)) == 6
    assert open_sequence(entry, rate=9).rate == 9


def test_the_frames_of_a_video_are_counted(tmp_path: Path) -> None:
    """MKV states seconds, which a recorder that drops frames has more of than frames."""
    av = pytest.importorskip('av', reason='PyAV writes the video')
    path = tmp_path / 'walk' / 'thermal.mkv'
    path.parent.mkdir()
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', 30)
        stream.width, stream.height, stream.pix_fmt = *SHAPE[::-1], 'gray'
        for time, frame in zip((0, 1, 2, 10, 11, 40), frames(6)):
            image = av.VideoFrame.from_ndarray(frame, 'gray')
            image.pts, image.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    write_table(tmp_path / 'walk' / 'gt_thermal.csv', ['1', '5'], boxes(2))
    sequence = open_sequence(*find_sequences(tmp_path / 'walk'))
    assert len(sequence.names) == len(list(sequence.source.frames)) == 6
    assert np.flatnonzero(sequence.truths[0].annotated).tolist() == [1, 5], 'from 0 on'
    names, source = write_frames(tmp_path / 'rgb', 6), open_path(path)
    assert source.total != 6, 'its header counts others'
    card: Any = SimpleNamespace(inputs={'rgb': None})
    assert colors_of(tmp_path / 'rgb', source, card) == tuple(
        tmp_path / 'rgb' / name for name in names)


def test_several_targets_of_one_folder(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'drive')
    for name in ('car', 'person'):
        (folder / f'gt_thermal_{name}.csv').write_text((folder / 'gt_thermal.csv').read_text())
    (folder / 'gt_thermal.csv').unlink()
    assert [e.name for e in find_sequences(folder)] == ['drive/car', 'drive/person']
    assert [e.name for e in find_sequences(folder, targets=['person'])] == ['drive/person']
    with pytest.raises(UserError, match='is not the folder of a sequence') as caught:
        find_sequences(folder, targets=['dog'])
    assert caught.value.fields == ('target',)


def test_a_folder_of_sequences_at_any_depth(tmp_path: Path) -> None:
    for place in ('set/b', 'set/a', 'other/deep/b', 'set/.hidden'):
        write_sequence(tmp_path / place)
    (tmp_path / 'set' / 'notes').mkdir()
    found = named_apart([*find_sequences(tmp_path / 'set'), *find_sequences(tmp_path / 'other')])
    assert [e.name for e in found] == ['a', 'b', 'b_2']
    assert found[2].folder == tmp_path / 'other' / 'deep' / 'b'


LAYOUTS = {  # files of truth, folder of the frames, the line of a box at 10, 30 of 20x20
    'lsotb-tir': (('groundtruth_rect.txt',), 'img', '10,30,20,20'),
    'ptb-tir': (('groundtruth_rect.txt',), 'img', '10\t30\t20\t20'),
    'gtot': (('groundTruth_i.txt', 'groundTruth_v.txt'), 'i', '10 30 30 50'),
    'rgbt210': (('init.txt',), 'infrared', '10,30,20,20'),
    'rgbt234': (('infrared.txt', 'visible.txt'), 'infrared', '10,30,20,20'),
    'lasher': (('init.txt',), 'infrared', '10,30,20,20'),
    'vtuav': (('ir.txt', 'rgb.txt'), 'ir', '10 30 20 20')}


@pytest.mark.parametrize('name', LAYOUTS)
def test_the_layout_of_each_benchmark(tmp_path: Path, name: str) -> None:
    files, place, line = LAYOUTS[name]
    folder, count = tmp_path / 'walk', 12
    write_frames(folder / place, count)
    rows = 2 if name == 'vtuav' else count
    for file in files:
        (folder / file).write_text(f'{line}\n' * rows)
    sequence = open_sequence(*find_sequences(folder, BENCHMARKS[name]), BENCHMARKS[name])
    assert len(sequence.truths) == len(files) and len(sequence.names) == count
    assert sequence.truths[0].boxes[0].tolist() == [10, 30, 20, 20]
    assert np.flatnonzero(sequence.truths[0].annotated).tolist() == (
        [0, 10] if name == 'vtuav' else list(range(count)))
    if 'groundtruth_rect.txt' not in files:
        title = BENCHMARKS[name].title
        with pytest.raises(UserError, match=rf'truth of .*{title}.*; use --benchmark .*{name}'):
            find_sequences(folder)


def test_rgb_that_is_no_folder_of_images_is_found(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk', 3)
    (folder / 'Visible.mp4').touch()
    sequence = open_sequence(find_sequences(folder)[0])
    assert sequence.color == folder / 'Visible.mp4'
    with pytest.raises(UserError, match='Visible.mp4 is not a folder with images.'):
        rgb_of(sequence.color, sequence.names)


def test_all_benchmarks_that_a_folder_may_be_of_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path / 'walk' / 'infrared', 3)
    for name in ('init.txt', 'infrared.txt', 'visible.txt'):
        (tmp_path / 'walk' / name).write_text('1,2,3,4\n' * 3)
    with pytest.raises(UserError, match='it has the truth of RGBT210 or RGBT234 or LasHeR; use '
                                        '--benchmark rgbt210 or rgbt234 or lasher.'):
        find_sequences(tmp_path)


def test_two_truths_of_different_lengths(tmp_path: Path) -> None:
    write_frames(tmp_path / 'walk' / 'infrared', 3)
    (tmp_path / 'walk' / 'infrared.txt').write_text('1,2,3,4\n' * 3)
    (tmp_path / 'walk' / 'visible.txt').write_text('1,2,3,4\n' * 2)
    benchmark = BENCHMARKS['rgbt234']
    [entry] = find_sequences(tmp_path / 'walk', benchmark)
    with pytest.raises(UserError, match='infrared.txt has 3 rows and visible.txt 2'):
        open_sequence(entry, benchmark)


def test_folders_that_are_no_sequences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='The folder .*none does not exist'):
        find_sequences(tmp_path / 'none')
    with pytest.raises(UserError, match=r'it has no truth \(gt_thermal.csv with file,x,y,w,h or '
                                        'groundtruth.txt or groundtruth_rect.txt'):
        find_sequences(tmp_path)
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file is not a folder; name the folder of a sequence'):
        find_sequences(tmp_path / 'file')
    folder = write_sequence(tmp_path / 'walk')
    for path in (folder / 'thermal').iterdir():
        path.unlink()
    with pytest.raises(UserError, match='thermal has no images'):
        open_sequence(*find_sequences(folder))
    (folder / 'thermal').rmdir()
    with pytest.raises(UserError, match='walk has no frames: no folder or video named thermal'):
        open_sequence(*find_sequences(folder))


def test_attributes_of_sequences_and_of_frames(tmp_path: Path) -> None:
    for place in ('sequences/walk', 'sequences/run'):
        write_sequence(tmp_path / place, 4)
        (tmp_path / place / 'groundtruth_rect.txt').write_text('1,2,3,4\n' * 4)
    [walk, run] = find_sequences(tmp_path / 'sequences')[::-1]
    ptb = BENCHMARKS['ptb-tir']
    assert find_attributes(walk, ptb, 4) == {}
    (tmp_path / 'tiranno' / 'att').mkdir(parents=True)
    (tmp_path / 'tiranno' / 'att' / 'walk.txt').write_text('1,0,0,0,0,0,0,0,0,1\n')
    found = find_attributes(walk, ptb, 4)
    assert list(found) == ['deformation', 'thermal crossover'] and found['deformation'].all()
    assert find_attributes(run, ptb, 4) == {}
    with pytest.raises(UserError, match='walk.txt has 10 flags, but LSOTB-TIR has 16 attributes'):
        find_attributes(walk, BENCHMARKS['lsotb-tir'], 4)
    (walk.folder / 'size_change.label').write_text('0\n1\n1\n0\n')
    assert find_attributes(walk, ptb, 4)['size change'].tolist() == [False, True, True, False]
    with pytest.raises(UserError, match='size_change.label has 4 flags, but there are 5 frames'):
        find_attributes(walk, ptb, 5)
    (walk.folder / 'size_change.label').write_text('0\nx\n')
    with pytest.raises(UserError, match='cannot be read as flags, 0 or 1'):
        find_attributes(walk, ptb, 2)


def test_attributes_listed_for_all_sequences(tmp_path: Path) -> None:
    rgbt = BENCHMARKS['rgbt234']
    folder = write_sequence(tmp_path / 'set' / 'walk', 3)
    lists = tmp_path / 'attr_txt'
    lists.mkdir()
    (lists / 'SequencesName.txt').write_text('run\nwalk\n')
    for name in rgbt.attributes:
        (lists / f'{name}.txt').write_text('1\n1\n' if name == 'LI' else '1\n0\n')
    [entry] = find_sequences(folder)
    assert list(find_attributes(entry, rgbt, 3)) == ['LI']


def test_rgb_images_belong_to_frames_by_name_or_by_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    write_sequence(tmp_path / 'walk')
    assert open_sequence(*find_sequences(tmp_path / 'walk')).color is None
    (tmp_path / 'walk' / 'visual').mkdir()
    folder = tmp_path / 'walk' / 'rgb'
    names = write_frames(folder, 8)
    sequence = open_sequence(*find_sequences(tmp_path / 'walk'))
    assert sequence.color == folder and sequence.rgb == (), 'an empty folder hides none'
    rgb = rgb_of(folder, [f'{n}.jpg' for n in range(8)])
    assert [path.name for path in rgb if path] == names, 'in the order of the frames'
    assert set(rgb) <= set(sequence.files), 'outputs never replace them'
    (folder / names[3]).rename(folder / '999.png')
    expected = [folder / name if i != 3 else None for i, name in enumerate(names)]
    thermal = [f'{Path(n).stem}.tiff' for n in names]
    assert list(rgb_of(folder, thermal)) == expected
    assert 'rgb: 7 of 8 images with the name of one of the 8 frames' in caplog.text
    assert [p and p.name for p in rgb_of(folder, thermal, by_order=True)] == [
        *names[:3], *names[4:], '999.png'], 'as toolkits do'
    (folder / '999.png').unlink()
    assert list(rgb_of(folder, thermal)) == expected
    with pytest.raises(UserError, match='rgb has 7 images for 8 frames, and none has the name'):
        rgb_of(folder, [f'frame{n}.png' for n in range(8)])
    with pytest.raises(UserError, match='is not a folder with images'):
        rgb_of(tmp_path, names)
    first = Path(names[0]).stem
    with pytest.raises(UserError, match=f'has 1 image named {first} for 2 frames of this name'):
        rgb_of(folder, [f'{drive}/{name}' for drive in 'ab' for name in names])
    (folder / f'{first}.jpg').write_bytes((folder / names[0]).read_bytes())
    with pytest.raises(UserError, match=f'has 2 images named {first} for 1 frame of this name'):
        rgb_of(folder, thermal[:7])


def test_frames_are_in_natural_order(tmp_path: Path) -> None:
    names = write_frames(tmp_path / 'walk' / 'thermal', 12)
    for number, name in enumerate(names, 1):
        (tmp_path / 'walk' / 'thermal' / name).rename(
            tmp_path / 'walk' / 'thermal' / f'{number}.png')
    np.savetxt(tmp_path / 'walk' / 'groundtruth.txt', boxes(12), delimiter=',')
    sequence = open_sequence(*find_sequences(tmp_path / 'walk'))
    assert sequence.names == [f'{number}.png' for number in range(1, 13)]
    stamps = ['9.5.png', '12.1234.png', '12.123999.png', '12.25.png', '12.4.png', 'b/9', 'b/10']
    assert sorted({*stamps}, key=natural) == stamps


def test_what_has_frames_and_no_truth_is_named(tmp_path: Path) -> None:
    write_sequence(tmp_path / 'set' / 'a')
    write_frames(tmp_path / 'set' / 'b' / 'thermal', 3)
    write_frames(tmp_path / 'set' / 'c' / 'infrared', 3)
    (tmp_path / 'set' / 'c' / 'init.txt').write_text('1,2,3,4')
    assert [e.name for e in find_sequences(tmp_path / 'set')] == ['a']
    [(one, lack), (other, hint)] = without_truth(tmp_path / 'set')
    assert one.name == 'b' and 'b is not measured: it has no truth (gt_thermal.csv' in str(lack)
    assert other.name == 'c' and 'use --benchmark rgbt210' in str(hint)
    write_frames(tmp_path / 'set' / 'd', 3)  # in the folder itself
    assert [p.name for p, _ in without_truth(tmp_path / 'set')] == ['b', 'c', 'd']
    np.savetxt(tmp_path / 'set' / 'b' / 'thermal' / 'groundtruth.txt', boxes(3), delimiter=',')
    assert [p.name for p, _ in without_truth(tmp_path / 'set')] == ['c', 'd'], 'beside the images'
    (tmp_path / 'set' / 'd' / 'groundtruth.txt').symlink_to('../b/thermal/groundtruth.txt')
    assert [e.name for e in different(find_sequences(tmp_path / 'set'))] == ['a', 'thermal', 'd']
    shutil.rmtree(tmp_path / 'set' / 'b')
    shutil.rmtree(tmp_path / 'set' / 'd')
    (tmp_path / 'set' / 'link').symlink_to(tmp_path / 'set' / 'a')
    assert [e.name for e in different(find_sequences(tmp_path / 'set'))] == ['a']
    (tmp_path / 'set' / 'a' / 'gt_thermal.csv').rename(
        tmp_path / 'set' / 'a' / 'gt_thermal_car.csv')
    with pytest.raises(UserError, match='has no gt_thermal_foo.csv; its targets are car'):
        find_sequences(tmp_path / 'set', targets=['foo'])


def test_videos_of_other_names_and_pages(tmp_path: Path) -> None:
    folder = tmp_path / 'walk'
    write_video(folder / 'drive.mp4', 6)
    write_table(folder / 'gt_thermal.csv', ['1', '6'], boxes(2))
    with pytest.raises(UserError, match='has no frames: .* Name drive.mp4 thermal.mp4'):
        open_sequence(*find_sequences(folder))
    (folder / 'drive.mp4').rename(folder / 'thermal.MP4')
    sequence = open_sequence(*find_sequences(folder))
    assert np.flatnonzero(sequence.truths[0].annotated).tolist() == [0, 5]
    (folder / 'thermal.boxes.mp4').write_bytes(b'')
    assert len(open_sequence(*find_sequences(folder)).names) == 6
    (folder / 'thermal.MP4').unlink()
    cv2.imwritemulti(str(folder / 'thermal.tiff'), frames(6))
    sequence = open_sequence(*find_sequences(folder))
    assert np.flatnonzero(sequence.truths[0].annotated).tolist() == [0, 5], 'as of a video'
    assert len(list(sequence.source.frames)) == 6


def test_names_of_folders_in_capitals(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk')
    shutil.copytree(folder / 'thermal', folder / 'VIS')
    (folder / 'thermal').rename(folder / 'IR')
    sequence = open_sequence(*find_sequences(folder))
    assert len(sequence.names) == 8 and sequence.color == folder / 'VIS'


def test_a_box_of_the_first_frame_alone_measures_nothing(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk')
    write_table(folder / 'gt_thermal.csv', ['000002.png'], boxes(1))
    with pytest.raises(UserError, match='has a box in one frame only, in which the target starts'):
        open_sequence(*find_sequences(folder))
    np.savetxt(folder / 'groundtruth_rect.txt', boxes(8)[:1], delimiter=',')
    benchmark = BENCHMARKS['lsotb-tir']
    assert open_sequence(*find_sequences(folder, benchmark), benchmark), 'as its toolkit'
