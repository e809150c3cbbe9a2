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

"""Bags that a crash or a tool left: what is completed, what is refused, and what expands."""

from collections.abc import Callable
from contextlib import closing
import logging
import os
from pathlib import Path
import re
import shutil
import sqlite3

from cgdet_core.data.bags import storage
from cgdet_core.data.bags.io import image_messages, IMAGE_TYPE, open_bag, write_bag
from cgdet_core.data.inputs import find_bags
from cgdet_core.data.sources import bag_frames, Frame, open_path
from cgdet_core.errors import UserError
import numpy as np
import pytest
import yaml

rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')
FRAMES = [np.random.default_rng(i).integers(0, 2**14, (24, 32)).astype(np.uint16)
          for i in range(4)]


def write(path: Path, kind: str = 'sqlite3') -> Path:
    write_bag(path, (Frame(f'{i}.png', lambda frame=frame: frame)  # type: ignore[misc]
                     for i, frame in enumerate(FRAMES)), 10.0, storage=kind)
    return path


def edit(bag: Path, **values: object) -> None:
    """Change entries of a bag's metadata."""
    path = bag / 'metadata.yaml'
    metadata = yaml.safe_load(path.read_text())
    metadata['rosbag2_bagfile_information'].update(values)
    path.write_text(yaml.safe_dump(metadata))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check(bag: Path, frames: list[np.ndarray] = FRAMES) -> None:
    for found, frame in zip(bag_frames(bag), frames, strict=True):
        np.testing.assert_array_equal(found.pixels, frame)


@pytest.mark.parametrize('mode', ['wal', 'delete'])
@pytest.mark.parametrize('alone', [False, True])
def test_messages_that_sqlite_has_not_merged_are_read(
    tmp_path: Path, mode: str, alone: bool,
) -> None:
    """A recorder that is killed leaves x.db3-wal (profile "resilient") or x.db3-journal."""
    whole, killed = write(tmp_path / 'whole'), tmp_path / 'killed'
    file = next(whole.glob('*.db3'))
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute(f'PRAGMA journal_mode={mode}')
        database.execute('PRAGMA cache_size=1')  # pages are written before the end
        rows = database.execute('SELECT topic_id, timestamp, data FROM messages').fetchall()
        database.execute('BEGIN')
        if mode == 'wal':  # the last two frames are in the log only
            database.execute('DELETE FROM messages WHERE id > 2')
            database.execute('COMMIT')
            database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
            database.executemany(
                'INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)', rows[2:])
        else:  # an unfinished transaction has damaged the file
            database.execute('UPDATE messages SET data = zeroblob(1600)')
        shutil.copytree(whole, killed)
    assert (killed / f'{file.name}-{"wal" if mode == "wal" else "journal"}').stat().st_size
    before = content(killed)
    check(killed / file.name if alone else killed)
    assert content(killed) == before


@pytest.mark.parametrize('kind', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('wrong', [
    {'storage_identifier': ''},  # as "ros2 bag reindex" of Humble writes it
    {'storage_identifier': 'other'}, {'topics_with_message_count': []}, {'version': 99},
    {'relative_file_paths': ['bag_0.mcap', './bag_0.mcap', 'bag/bag_0.mcap']},
    {'duration': None}, {'compression_mode': None}, {'compression_mode': 'message',
                                                     'compression_format': 'zstd'}])
def test_what_is_in_a_file_the_file_itself_says(
    tmp_path: Path, kind: str, wrong: dict[str, object],
) -> None:
    bag = write(tmp_path / 'bag', kind)
    if 'relative_file_paths' in wrong and kind == 'sqlite3':
        wrong = {'relative_file_paths': ['bag_0.db3', 'bag/bag_0.db3']}
    edit(bag, **wrong)
    check(bag)


def test_a_topic_of_the_metadata_that_is_not_in_the_file(tmp_path: Path) -> None:
    """Without a word there were no images."""
    bag = write(tmp_path / 'bag', 'mcap')
    path = bag / 'metadata.yaml'
    path.write_text(path.read_text().replace('/image_raw', '/cam').replace('Image', 'Other'))
    check(bag)


@pytest.mark.parametrize(('old', 'new'), [
    (b'ros2msg', b'ros2idl'), (b'ros2msg', b'jsonsch'), (b'uint32 height', b'uint32 4eight'),
    (b'std_msgs/Header header', b'std_msgs/Heeder header')])
def test_definitions_that_cannot_be_read_cost_nothing(
    tmp_path: Path, old: bytes, new: bytes,
) -> None:
    """They may be of a topic that is not read; an image is what ROS 2 defines."""
    file = write(tmp_path / 'bag', 'mcap') / 'bag_0.mcap'
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))
    check(file)


@pytest.mark.parametrize('value', ["'unknown'", "CAST(x'ff' AS TEXT)"])
def test_definitions_of_an_sqlite_file_cost_nothing(tmp_path: Path, value: str) -> None:
    """A recorder states "unknown" if it finds no definition of a topic."""
    file = write(tmp_path / 'bag') / 'bag_0.db3'
    with closing(sqlite3.connect(file)) as database, database:
        database.execute('UPDATE message_definitions SET '
                         f'encoding = {value}, encoded_message_definition = {value}')
    check(file)


def test_messages_of_another_serialization_are_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / 'bag', 'mcap') / 'bag_0.mcap'
    file.write_bytes(file.read_bytes().replace(b'\3\0\0\0cdr', b'\3\0\0\0xml'))
    with pytest.raises(UserError, match='no image topic of ROS 2; .* serialized as xml, convert'):
        open_path(file)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def without_files(path: Path) -> None:
    """Cut in front of the list of files, where the text is valid."""
    path.write_text(path.read_text().partition('  files:')[0])


@pytest.mark.parametrize('damage', [
    Path.unlink, half, without_files, lambda path: path.write_bytes(b''),
    lambda path: path.write_text('[1, 2]'), lambda path: path.write_text('[' * 5000),
    lambda path: path.write_bytes(b'\xff\xfe\0')])
def test_missing_or_incomplete_metadata_are_an_error_with_the_fix(
    tmp_path: Path, damage: Callable[[Path], object],
) -> None:
    bag = write(tmp_path / 'bag', 'mcap')
    damage(bag / 'metadata.yaml')
    with pytest.raises(UserError, match=f'killed: run "ros2 bag reindex {bag}", or pass its'):
        open_path(bag)
    check(bag / 'bag_0.mcap')


def test_files_and_metadata_that_disagree(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    bag = write(tmp_path / 'bag', 'mcap')
    shutil.copy(bag / 'bag_0.mcap', bag / 'bag_1.mcap')
    with caplog.at_level(logging.WARNING, 'cgdet_core'):
        check(bag)
    assert 'are not read: bag_1.mcap; run "ros2 bag reindex' in caplog.text
    edit(bag, relative_file_paths=['bag_2.mcap'])
    with pytest.raises(UserError, match='lacks bag_2.mcap, which its metadata.yaml lists'):
        open_path(bag)


@pytest.mark.parametrize(('kind', 'repair'), [('mcap', 'mcap recover'), ('sqlite3', '.recover')])
def test_a_cut_file_is_an_error_with_the_fix(tmp_path: Path, kind: str, repair: str) -> None:
    bag = write(tmp_path / 'bag', kind)
    file = next(bag.glob('*_0.*'))
    whole = file.read_bytes()
    for size in (len(whole) * 9 // 10, len(whole) // 2, 1000, 8, 0):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match=re.escape(repair)) as error:
            list(bag_frames(bag))
        assert '\n' not in str(error.value)
        assert not re.search(r'report issue|ord\(\)', str(error.value))


def test_the_bag_of_another_system(tmp_path: Path) -> None:
    (tmp_path / 'x.bag').write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(UserError, match='x.bag is a ROS 1 bag; convert it with "rosbags-convert'):
        open_path(tmp_path / 'x.bag')
    check(write(tmp_path / 'y.bag'))


def test_a_path_is_not_a_uri(tmp_path: Path) -> None:
    bag = tmp_path / 'drive #1?%20' / 'bag'
    bag.parent.mkdir()
    with pytest.raises(UserError, match='cannot be written as an SQLite file'):
        write(bag)
    shutil.move(write(tmp_path / 'bag'), bag)
    check(bag)
    check(next(bag.glob('*.db3')))
    check(write(bag.parent / 'other', 'mcap'))


def compress(bag: Path, target: Path, mode: str, kind: str = 'MCAP') -> Path:
    """Copy a bag, compressed by file, message or storage (chunk)."""
    writer = rosbag2.Writer(target, version=9, storage_plugin=rosbag2.StoragePlugin[kind])
    writer.set_compression(rosbag2.CompressionMode[mode], rosbag2.CompressionFormat.ZSTD)
    with open_bag(bag) as reader, writer:
        connection = writer.add_connection(
            '/image_raw', IMAGE_TYPE, typestore=reader.typestore)
        for _, received, raw in reader.messages():
            writer.write(connection, received, raw)
    return target


@pytest.mark.parametrize(('mode', 'kind'), [
    ('FILE', 'MCAP'), ('MESSAGE', 'MCAP'), ('STORAGE', 'MCAP'), ('FILE', 'SQLITE3'),
    ('MESSAGE', 'SQLITE3')])
def test_compressed_bags_are_read(tmp_path: Path, mode: str, kind: str) -> None:
    small = compress(write(tmp_path / 'bag'), tmp_path / 'small', mode, kind)
    check(small)
    file = next(small.glob('small*'))
    check(file)
    check(file.rename(small / file.name.replace('mcap', 'MCAP').replace('db3', 'DB3')))


def test_a_compressed_file_is_a_source(tmp_path: Path) -> None:
    """Also one in a folder without metadata, next to what "zstd -d" has written."""
    for kind, suffix in (('MCAP', 'mcap'), ('SQLITE3', 'db3')):
        small = compress(write(tmp_path / kind), tmp_path / f'small_{suffix}', 'FILE', kind)
        file = next(small.glob(f'*.{suffix}.zstd'))
        source = open_path(file)
        assert source.total == len(FRAMES)
        assert [frame.name.rsplit('_', 1)[0] for frame in source.frames] == [small.name] * 4
        (small / 'metadata.yaml').unlink()
        assert find_bags([str(small)]) == [file]
        file.with_suffix('').touch()
        assert find_bags([str(small)]) == [file.with_suffix('')]


@pytest.mark.parametrize('name', ['data', 'data.sqlite3', 'data_0.5', 'data.bin.zstd', 'x.zst'])
@pytest.mark.parametrize('kind', ['MCAP', 'SQLITE3'])
@pytest.mark.parametrize('mode', ['FILE', 'NONE'])
def test_a_file_is_what_it_contains(tmp_path: Path, name: str, kind: str, mode: str) -> None:
    bag = compress(write(tmp_path / 'bag'), tmp_path / 'other', mode, kind)
    next(bag.glob('other*')).rename(bag / name)
    edit(bag, relative_file_paths=[name])
    (bag / 'notes').touch()
    before = content(bag)
    check(bag)
    assert content(bag) == before


def test_a_file_that_is_listed_twice_is_not_replaced(tmp_path: Path) -> None:
    bag = compress(write(tmp_path / 'bag'), tmp_path / 'small', 'FILE')
    (bag / 'small.mcap').write_bytes(b'another')
    edit(bag, relative_file_paths=['small.mcap', 'small.mcap.zstd'])
    with pytest.raises(UserError, match='File exists'):
        open_path(bag)
    assert (bag / 'small.mcap').read_bytes() == b'another'


@pytest.mark.parametrize('kind', ['MCAP', 'SQLITE3'])
def test_compressed_messages_are_read_without_the_metadata_of_the_recorder(
    tmp_path: Path, kind: str,
) -> None:
    """A killed recorder writes none; "ros2 bag reindex" writes some that state no compression."""
    bag = compress(write(tmp_path / 'bag'), tmp_path / 'small', 'MESSAGE', kind)
    edit(bag, compression_mode='', compression_format='', files=[])
    check(bag)
    (bag / 'metadata.yaml').unlink()
    check(next(bag.iterdir()))


def test_files_that_rosbag2_decompressed_are_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    """To play a compressed bag, "ros2 bag play" writes x.mcap next to x.mcap.zstd."""
    bag = compress(write(tmp_path / 'bag'), tmp_path / 'small', 'FILE')
    (bag / 'small.mcap').write_bytes(storage.decompress((bag / 'small.mcap.zstd').read_bytes()))
    check(bag)
    edit(bag, relative_file_paths=['small.mcap'], compression_mode='', compression_format='')
    check(bag)
    assert not caplog.text


def test_compressed_files_are_decompressed_before_reindex(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    """The reindexer of rosbag2 ignores x_0.mcap.zstd, which a killed recorder leaves."""
    small = compress(write(tmp_path / 'small_bag'), tmp_path / 'small', 'FILE')
    bag = write(tmp_path / 'bag', 'mcap')
    shutil.copy(small / 'small.mcap.zstd', bag / 'bag_1.mcap.zstd')
    advice = f'decompress its files with "zstd -d {bag}/*.zstd" and run "ros2 bag reindex {bag}"'
    check(bag)
    assert f'not read: bag_1.mcap.zstd; {advice}.' in caplog.text
    (bag / 'metadata.yaml').unlink()
    for name in ('bag_0.mcap', 'bag_1.mcap.zstd'):
        with pytest.raises(UserError, match=re.escape(f'was killed: {advice}.')):
            open_path(bag)
        (bag / name).unlink()


@pytest.mark.parametrize(('mode', 'limit'), [
    ('FILE', 'ALWAYS_FINE'), ('MESSAGE', 'LARGEST_PART'), ('STORAGE', 'LARGEST_PART')])
def test_what_expands_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, limit: str,
) -> None:
    bag = compress(write(tmp_path / 'bag'), tmp_path / 'small', mode)
    monkeypatch.setattr(storage, limit, 1000)
    monkeypatch.setattr(storage, 'LARGEST_RATIO', 0)
    with pytest.raises(UserError, match='expands to more than'):
        list(bag_frames(bag))


def test_a_chunk_expands_to_what_it_states_only() -> None:
    """Otherwise a few kilobytes fill the memory before rosbags compares the sizes."""
    import lz4.frame
    from rosbags.rosbag2 import storage_mcap

    storage.prepare_rosbags()
    zeros = bytes(2**24)
    for kind, small in (('lz4', lz4.frame.compress(zeros)),
                        ('zstd', storage_mcap.zstd.compress(zeros))):
        assert storage_mcap.decompress(small, kind, len(zeros), 0) == zeros
        with pytest.raises(ValueError, match='expands to more than 100 bytes'):
            storage_mcap.decompress(small, kind, 100, 0)


def test_an_unindexed_file_is_converted(tmp_path: Path) -> None:
    """Of the profile "fastwrite" of rosbag2; its topics are not in the order of their times."""
    bag = write(tmp_path / 'bag', 'mcap')
    error = storage.problem(bag, ValueError(
        'Unindexed MCAP messages are not in timestamp order. Use an indexed file.'), bag)
    assert str(error).endswith('Use an indexed file; "ros2 bag convert" writes one.')


def test_a_damaged_message_costs_itself(tmp_path: Path) -> None:
    bag, torn = write(tmp_path / 'bag'), tmp_path / 'torn'
    with open_bag(bag) as reader, rosbag2.Writer(
            torn, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/image_raw', IMAGE_TYPE, typestore=reader.typestore)
        for number, (_, received, raw) in enumerate(reader.messages()):
            writer.write(connection, received, raw[:[len(raw), 40, 5, len(raw)][number]])
    good, bad, worse, last = bag_frames(torn)
    stamps = [frame.stamp_ns for frame in bag_frames(bag)]
    assert [frame.stamp_ns for frame in (good, bad, worse, last)] == stamps
    np.testing.assert_array_equal(last.pixels, FRAMES[3])
    for number, frame in ((1, bad), (2, worse)):
        with pytest.raises(UserError, match=f'image {number}: the message is damaged'):
            assert frame.pixels.size
    with open_bag(torn) as reader:
        assert sum(isinstance(m, ValueError) for _, _, m in image_messages(reader, torn)) == 2


def test_reindex_finds_our_files(tmp_path: Path) -> None:
    """rosbag2's reindexer ignores files without a number (its `regex_bag_pattern_`)."""
    for kind in ('mcap', 'sqlite3'):
        bag = write(tmp_path / kind, kind)
        files = [path.name for path in bag.iterdir() if path.name != 'metadata.yaml']
        assert len(files) == 1 and re.fullmatch(r'.+_(\d+)\.([a-zA-Z0-9])+', files[0])
        assert yaml.safe_load((bag / 'metadata.yaml').read_text())[
            'rosbag2_bagfile_information']['relative_file_paths'] == files


def test_an_sqlite_bag_whose_path_is_not_utf8(tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9'))
    with pytest.raises(UserError, match='bytes that are not UTF-8 in it'):
        write(place)
    write(tmp_path / 'bag').rename(place)
    check(place)
    check(place / 'bag_0.db3')


def test_files_that_macos_adds_are_no_part_of_a_bag(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    bag = write(tmp_path / 'bag', 'mcap')
    (bag / '._bag_0.mcap').write_bytes(b'Mac OS X')
    check(bag)
    assert not caplog.text


def test_frames_have_the_name_of_their_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    bag = write(tmp_path / 'drive.2026.11', 'mcap')
    monkeypatch.chdir(bag)
    for path in (bag, Path('.')):
        assert next(iter(open_path(path).frames)).name.startswith('drive.2026.11_')
