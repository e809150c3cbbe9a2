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

"""Truth files: what they may look like, and the sentences for what cannot be understood."""

from pathlib import Path

from cgdet_core.errors import UserError
from cgdet_core.tracking.truth import place, read_rows
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

NAMES = [f'{i:04d}.jpg' for i in range(1, 7)]


@pytest.fixture()
def table(tmp_path: Path) -> Path:
    return tmp_path / 'gt_thermal.csv'


def test_a_table_may_be_sparse_and_have_more_columns(table: Path) -> None:
    table.write_bytes(b'\xef\xbb\xbfkeyframe, File,x,y,w,h\r\n1,0002.jpg,1,2,3,4\r\n\r\n'
                      b'0,0005.jpg,5.5,6,7,8\r\n')
    truth = place(read_rows(table), NAMES, table, numbered=False)
    assert truth.annotated.tolist() == [False, True, False, False, True, False]
    assert truth.boxes[[1, 4]].tolist() == [[1, 2, 3, 4], [5.5, 6, 7, 8]]
    assert np.isnan(truth.boxes[0]).all()


def test_a_box_of_nan_or_without_area_is_a_target_that_is_not_visible(table: Path) -> None:
    table.write_text('file,x,y,w,h\n0001.jpg,nan,NaN,nan,nan\n0002.jpg,0,0,0,0\n'
                     '0003.jpg,0,0,9,9\n')
    truth = place(read_rows(table), NAMES, table, numbered=False)
    assert truth.annotated[:4].tolist() == [True, True, True, False]
    assert truth.visible.tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize(('text', 'sentence'), [
    ('', 'has no column x; its first line must be file,x,y,w,h.'),
    ('name,x,y,w,h\n', 'has no column file;'), ('file,x,y,w\n', 'has no column h;'),
    ('file,x,y,w,h\n', 'has no boxes; a truth needs at least one.'),
    ('file,x,y,w,h\n0001.jpg,1,2\n', 'line 2: has 3 values, but the first line has 5.'),
    ('file,x,y,w,h\n0001.jpg,1,2,3,four\n', "line 2: '1,2,3,four' is not 4 numbers."),
    ('file,x,y,w,h\n0001.jpg,1,2,nan,4\n', 'line 2: some values are not finite;'),
    ('file,x,y,w,h\n0001.jpg,1,2,inf,4\n', 'line 2: some values are not finite;'),
    ('file,x,y,w,h\n' + 'a' * 200_000 + ',1,2,3,4\n', 'cannot be read as a table: field larger'),
    ('file,x,y,w,h\n0009.jpg,1,2,3,4\n',
     'names 0009.jpg, which is not among the 6 frames (0001.jpg to 0006.jpg).'),
    ('file,x,y,w,h\n0001.jpg,1,2,3,4\n0001.jpg,1,2,3,4\n',
     'has two boxes for 0001.jpg; of several targets, each has a table of its own.'),
    ('file,x,y,w,h\n0001.jpg,0,0,0,0\n0002.jpg,nan,nan,nan,nan\n',
     'has no box with an area; a truth needs at least one.')])
def test_what_a_table_lacks_is_one_sentence(table: Path, text: str, sentence: str) -> None:
    table.write_text(text)
    with pytest.raises(UserError, match='gt_thermal.csv') as caught:
        place(read_rows(table), NAMES, table, numbered=False)
    assert sentence in str(caught.value) and '\n' not in str(caught.value)


def test_a_file_that_is_no_text(table: Path) -> None:
    table.write_bytes(b'x\xff\xfe\x81')
    with pytest.raises(UserError, match='is not a text file in UTF-8 or UTF-16'):
        read_rows(table)
    table.unlink()
    with pytest.raises(UserError, match='gt_thermal.csv cannot be read: No such file'):
        read_rows(table)


@pytest.mark.parametrize('text', [
    '1,2,3,4\n5,6,7,8\n', '1 2 3 4\r\n5 6 7 8', '1\t2\t3\t4\n5,6,7,8\n\n',
    '1.0;2;3;4\n 5 , 6 , 7 , 8 \n', '1,2,3,4;\n5,6 7,8 ;\n'])
def test_a_text_has_a_row_for_each_frame(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'groundtruth.txt'
    path.write_text(text)
    truth = place(read_rows(path), NAMES, path, numbered=False)
    assert truth.boxes[:2].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert truth.annotated.tolist() == [True, True, False, False, False, False]


def test_a_mask_of_vot_begins_with_its_box(tmp_path: Path) -> None:
    path = tmp_path / 'groundtruth.txt'
    path.write_text('m210,155,3,2,1,2,1,2\nm0,0,0,0,0\n')
    assert [row.box.tolist() for row in read_rows(path)] == [[210, 155, 3, 2], [0, 0, 0, 0]]
    for text, words in (('m210,155,3', '210,155,3'), ('missing', 'missing')):
        path.write_text(f'{text}\n')
        with pytest.raises(UserError, match=f"line 1: '{words}' is not 4 or 8 numbers"):
            read_rows(path)


def test_polygons_corners_and_every_tenth_frame(tmp_path: Path) -> None:
    path = tmp_path / 'groundtruth.txt'
    path.write_text('10,40,10,20,30,20,30,40\nnan,nan,nan,nan,nan,nan,nan,nan\n')
    first, second = read_rows(path)
    assert first.box.tolist() == [10, 20, 20, 20] and np.isnan(second.box).all()
    path.write_text('210 155 314 214\n')
    assert read_rows(path, corners=True)[0].box.tolist() == [210, 155, 104, 59]
    path.write_text('1 2 3 4\n' * 3)
    assert [row.frame for row in read_rows(path, every=10)] == [0, 10, 20]


def test_a_text_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / 'groundtruth.txt'
    path.write_text('1,2,3,4\n' * 7)
    with pytest.raises(UserError, match='has a row for frame 6, but there are only 6 frames'):
        place(read_rows(path), NAMES, path, numbered=False)
    path.write_text('1,2,3,4\n1,2,3\n1,2,3,4\n')
    with pytest.raises(UserError, match="line 2: '1,2,3' is not 4 or 8 numbers"):
        read_rows(path)
    path.write_text('1,2,3\n')
    with pytest.raises(UserError, match="line 1: '1,2,3' is not 4 or 8 numbers"):
        read_rows(path)


def test_names_without_suffix_and_numbers_find_their_frames(table: Path) -> None:
    """The images may have been converted since the truth was made."""
    table.write_text('frame,x,y,w,h\n0001.bmp,1,1,1,1\n2,2,2,2,2\n')
    truth = place(read_rows(table), NAMES, table, numbered=False)
    assert truth.boxes[:2, 0].tolist() == [1, 2]


@pytest.mark.parametrize(('frames', 'indices'), [
    (('0', '3'), [0, 3]), (('000001.jpg', '000003.jpg'), [1, 3]),
    (('1', '4'), [0, 3]),  # the last frame would be missing, so they are counted from 1
    (('clip_000002.png', '3'), [2, 3]), (('1', '3'), [1, 3]),
    (('frame_1', 'frame_2'), [0, 1])])  # sparse, and counted from 1
def test_frames_of_a_video_are_numbers(
    table: Path, frames: tuple[str, ...], indices: list[int],
) -> None:
    table.write_text('file,x,y,w,h\n' + ''.join(f'{frame},1,2,3,4\n' for frame in frames))
    names = [f'clip_{i:06d}.png' for i in range(4)]
    truth = place(read_rows(table), names, table, numbered=True)
    assert np.flatnonzero(truth.annotated).tolist() == indices
    table.write_text('file,x,y,w,h\n0,1,2,3,4\n4,1,2,3,4\n')
    with pytest.raises(UserError, match='names 4, which is not among the 4 frames'):
        place(read_rows(table), names, table, numbered=True)


@given(content=st.one_of(
    st.binary(max_size=200),
    st.text('0123456789.,-einfa \t\r\n;"', max_size=200).map(str.encode),
    st.text('0123456789.,-n\n"', max_size=100).map(lambda text: f'file,x,y,w,h\n{text}'.encode())))
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize('name', ['gt.csv', 'gt.txt'])
def test_any_content_is_a_truth_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes,
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    for numbered in (False, True):
        try:
            truth = place(read_rows(path), NAMES, path, numbered)
        except UserError as error:
            assert '\n' not in str(error)
        else:
            assert truth.boxes.shape == (6, 4) and truth.visible.any()


@pytest.mark.parametrize('row', [
    '257,5;159,0;55,8;59,9', '257,5 159,0 55,8 59,9', '1,5\t2,5\t3,5\t4,5', '1_0,2,3,4',
    '1,2,3,1e300'])
def test_numbers_that_may_mean_something_else_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / 'groundtruth.txt'
    path.write_text(f'{row}\n')
    with pytest.raises(UserError, match='line 1: .*(write decimals with points|4 or 8 numbers|'
                                        'is not in pixels)'):
        read_rows(path)


def test_a_line_without_numbers_is_a_target_that_is_not_visible(tmp_path: Path) -> None:
    path = tmp_path / 'groundtruth.txt'
    path.write_text('1,2,3,4\n\n , \n5,6,7,8\n')
    truth = place(read_rows(path), NAMES[:4], path, numbered=False)
    assert truth.visible.tolist() == [True, False, False, True] and truth.annotated.all()


def test_too_few_rows_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / 'groundtruth.txt'
    path.write_text('1,2,3,4\n' * 5)
    place(read_rows(path), NAMES, path, numbered=False)
    assert 'groundtruth.txt has 5 rows for 6 frames' in caplog.text
    caplog.clear()
    place(read_rows(path, every=2), NAMES + NAMES[:4], path, numbered=False, every=2)
    assert not caplog.text
    with pytest.raises(UserError, match='frame 6, but .* It has one row for every 2 frames'):
        place(read_rows(path, every=2), NAMES, path, numbered=False, every=2)


@pytest.mark.parametrize(('text', 'encoding'), [
    ('file;x;y;w;h\n0002.jpg;1,5;2;3,0;4\n0003.jpg;;;;\n', 'utf-8'),
    ('file\tx\ty\tw\th\n0002.jpg\t1.5\t2\t3\t4\n0003.jpg\t\t\t\t\n', 'utf-16'),
    ('file,x,y,w,h\nC:\\data\\thermal\\0002.jpg,1.5,2,3,4\nthermal/0003.jpg,,,,\n', 'utf-8')])
def test_tables_of_spreadsheets_and_other_systems(table: Path, text: str, encoding: str) -> None:
    table.write_text(text, encoding=encoding)
    truth = place(read_rows(table), NAMES, table, numbered=False)
    assert truth.boxes[1].tolist() == [1.5, 2, 3, 4]
    assert truth.annotated.tolist() == [False, True, True, False, False, False]
    assert not truth.visible[2]


def placed(table: Path, frames: list[str], names: list[str], numbered: bool,
           more: str = '') -> list[int]:
    head = 'file,x,y,w,h' + (',score,state' if more else '')
    table.write_text('\n'.join([head, *(f'{f},1,2,3,4{more}' for f in frames)]))
    return np.flatnonzero(place(read_rows(table), names, table, numbered).annotated).tolist()


def test_stamps_as_names_are_not_cut_off(table: Path) -> None:
    names = [f'3.{i:02d}.jpg' for i in range(1, 7)]
    assert placed(table, ['3.01', '3.04.jpg'], names, False) == [0, 3]
    with pytest.raises(UserError, match='names 3.20, which is not among'):
        placed(table, ['3.20'], names, False)
    with pytest.raises(UserError, match='names 0.1, which is not among'):
        placed(table, ['0.1'], [f'drive_{i:06d}.png' for i in range(6)], True)


def test_frames_of_a_video_have_one_rule_however_they_are_named(table: Path) -> None:
    names = [f'thermal_{i:06d}.png' for i in range(12)]
    for form in ('{}', '{}.0', '{:06d}.png', 'thermal_{:06d}.png', 'other_{:06d}'):
        assert placed(table, [form.format(i) for i in range(1, 13)], names, True) == [*range(12)]
        assert placed(table, [form.format(i) for i in range(1, 10)], names, True) == [*range(9)]
        assert placed(table, [form.format(i) for i in range(10)], names, True) == [*range(10)]
    own = [f'drive_{i:06d}.png' for i in range(1, 10)]
    found = placed(table, own, names, True, more=',0.9,tracked')
    assert found == [*range(1, 10)], 'a table of ours'


def test_empty_lines_before_a_table_are_skipped(table: Path) -> None:
    table.write_text('\n ; ;;;\nfile;x;y;w;h\n\n0002.jpg;1,5;2;3;4\n')
    truth = place(read_rows(table), NAMES, table, numbered=False)
    assert truth.boxes[1].tolist() == [1.5, 2, 3, 4]
    table.write_text('\n\nfile,x,y,w,h\n0002.jpg,1,2,3\n')
    with pytest.raises(UserError, match='line 4: has 4 values'):
        read_rows(table)


def test_frames_of_the_same_name_in_several_folders(table: Path) -> None:
    names = [f'{folder}/{n}.png' for folder in ('a', 'b', 'b/a') for n in range(2)]
    for form in ('/data/walk/thermal/{}', 'D:\\thermal\\{}', './{}'):
        for folder in ('a', 'b', 'b/a'):
            first = names.index(f'{folder}/0.png')
            written = form.format(f'{folder}/0.png')
            for frame in (written, written.replace('.png', '.tiff')):
                assert placed(table, [frame], names, False) == [first]
    with pytest.raises(UserError, match='names 1.jpg, which may be a/1.png or b/1.png; name it'):
        placed(table, ['1.jpg'], names, False)
    both = ['0.png', '0.tif', '1.png']
    assert placed(table, ['thermal/0.tif', '1'], both, False) == [1, 2]
    with pytest.raises(UserError, match='names 0, which may be 0.png or 0.tif'):
        placed(table, ['0'], both, False)
