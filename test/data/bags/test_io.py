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

"""Reading bags: raw and compressed topics, and the choice of several."""

import json
import math
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.data.bags.io import (
    COMPRESSED_TYPE,
    IMAGE_TYPE,
    is_compressed,
    open_bag,
    write_bag,
)
from cgdet_core.data.bags.truth import fingerprint, truth_by_stamp
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.data.sources import bag_frames, Frame
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, storage_mcap, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from two_cameras import RGB, THERMAL, write_two_cameras
import yaml

FRAMES = [np.random.default_rng(i).integers(0, 2**14, (24, 32)).astype(np.uint16)
          for i in range(3)]


def framed(pixels: np.ndarray, truth: ImageRecord | None = None) -> Frame:
    return Frame('frame.png', lambda: pixels, truth=truth)


def png(frame: np.ndarray) -> np.ndarray:
    return cv2.imencode('.png', frame)[1].ravel()


def write_compressed(path: Path, topics: dict[str, list[np.ndarray]], empty: str = '') -> Path:
    """Write CompressedImage messages of encoded data, 100 ms apart; empty: a raw topic."""
    store = get_typestore(Stores.ROS2_JAZZY)
    t: dict[str, Any] = store.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        if empty:
            bag.add_connection(empty, IMAGE_TYPE, typestore=store)
        for topic, pictures in topics.items():
            connection = bag.add_connection(topic, COMPRESSED_TYPE, typestore=store)
            for i, data in enumerate(pictures):
                stamp = t['builtin_interfaces/msg/Time'](sec=7, nanosec=i * 10**8)
                message = t[COMPRESSED_TYPE](
                    header=t['std_msgs/msg/Header'](stamp=stamp, frame_id='cam'),
                    format='mono8; png compressed ', data=data)
                bag.write(connection, 7 * 10**9 + i * 10**8,
                          store.serialize_cdr(message, COMPRESSED_TYPE))
    return path


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_raw_frames_come_back(tmp_path: Path, storage: str) -> None:
    assert write_bag(tmp_path / 'b', map(framed, FRAMES), 10.0, storage=storage) == 3
    for found, frame in zip(bag_frames(tmp_path / 'b'), FRAMES, strict=True):
        np.testing.assert_array_equal(found.pixels, frame)


@pytest.mark.parametrize(('rate', 'words'), [
    *((rate, 'The rate must be positive and finite') for rate in (0.0, math.inf, math.nan)),
    (1e10, 'at most 1e9, as stamps are in nanoseconds'),
    (1e-9, 'the stamp of frame 1 is later than any of ROS 2')])
def test_a_rate_that_gives_no_stamps_is_refused(tmp_path: Path, rate: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        write_bag(tmp_path / 'bag', map(framed, FRAMES), rate)
    assert not [*tmp_path.iterdir()]


def test_compressed_frames_come_back_at_full_depth(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/t/compressed': [png(f) for f in FRAMES]})
    found = list(bag_frames(bag))
    assert [f.stamp_ns for f in found] == [7 * 10**9 + i * 10**8 for i in range(3)]
    for f, frame in zip(found, FRAMES, strict=True):
        np.testing.assert_array_equal(f.pixels, frame)


def test_several_topics_require_a_choice(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/a': [png(FRAMES[0])], '/b': [png(FRAMES[1])]})
    with pytest.raises(UserError, match=r'several image topics; .*: /a \(1\), /b \(1\); choose'):
        list(bag_frames(bag))
    frame, = bag_frames(bag, '/b')
    np.testing.assert_array_equal(frame.pixels, FRAMES[1])
    with pytest.raises(UserError, match=r'no images on /c; .*: /a \(1\), /b \(1\)'):
        list(bag_frames(bag, '/c'))


@pytest.mark.parametrize('picture', [
    '/debug_image', '/front/debug_image', '/debug_image/compressed'])
def test_the_pictures_of_our_node_are_no_input(tmp_path: Path, picture: str) -> None:
    """A bag of "ros2 bag record -a" beside the node has them too, as recording subscribes."""
    drawn = [png(np.zeros((9, 9, 3), np.uint8))]
    bag = write_compressed(tmp_path / 'b', {'/t': [png(FRAMES[0])], picture: drawn})
    frame, = bag_frames(bag)
    np.testing.assert_array_equal(frame.pixels, FRAMES[0])
    frame, = bag_frames(bag, picture)  # if somebody wants them
    assert frame.pixels.shape == (9, 9)
    bag = write_compressed(tmp_path / 'c', {picture: drawn})
    with pytest.raises(UserError, match=f'no images of a camera; .*: {picture} .1.; choose'):
        list(bag_frames(bag))
    bag = write_compressed(tmp_path / 'd', {'/debug_image_raw': [png(FRAMES[1])], '/empty': []})
    assert len(list(bag_frames(bag))) == 1


def test_a_topic_recorded_compressed_only_is_named_as_its_raw_one(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/t/compressed': [png(f) for f in FRAMES],
                                            '/u/compressed': [png(FRAMES[0])]})
    assert len(list(bag_frames(bag, '/t'))) == len(FRAMES)
    with pytest.raises(UserError, match='no images on /v;'):
        list(bag_frames(bag, '/v'))


def test_a_compressed_topic_is_only_a_copy_of_its_own_raw_topic(tmp_path: Path) -> None:
    """A raw color topic does not hide the compressed thermal one."""
    frames = {0: FRAMES[0], 10**8: FRAMES[1]}
    bag = write_two_cameras(tmp_path / 'b', frames, {0: np.zeros((4, 4, 3), np.uint8)},
                            compressed=('.png', ''))
    with pytest.raises(UserError, match='several .*/rgb/image_raw .*/image_raw/compressed'):
        is_compressed(bag)
    assert is_compressed(bag, THERMAL + '/compressed') and not is_compressed(bag, RGB)
    assert len(list(bag_frames(bag, THERMAL + '/compressed'))) == 2
    assert not is_compressed(write_two_cameras(tmp_path / 'c', frames, {}))


def test_a_compressed_topic_is_read_if_its_raw_topic_is_empty(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/t/compressed': [png(f) for f in FRAMES]}, '/t')
    assert is_compressed(bag) and len(list(bag_frames(bag))) == 3
    assert is_compressed(bag, '/t') and len(list(bag_frames(bag, '/t'))) == 3
    nothing = write_compressed(tmp_path / 'c', {'/t/compressed': []}, '/t')
    for topic in (None, '/t'):
        assert not is_compressed(nothing, topic) and not list(bag_frames(nothing, topic))


def test_a_damaged_image_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/t': [png(FRAMES[0]), png(FRAMES[1])[:300]]})
    good, bad = bag_frames(bag)
    np.testing.assert_array_equal(good.pixels, FRAMES[0])
    assert bad.stamp_ns == 7 * 10**9 + 10**8
    with pytest.raises(UserError, match='image 1: the compressed image is truncated'):
        assert bad.pixels.size


def annotated(name: str, *bags: str | None, stamp: int = 5) -> CocoSet:
    """Return a set with one image for each of these bags, all with the same stamp."""
    return CocoSet(Path(name), [
        ImageRecord(i, Path(f'{name}_{i}.png'), 32, 24, stamp_ns=stamp, bag=bag)
        for i, bag in enumerate(bags)], ('person',))


def test_bags_with_equal_clocks_do_not_share_annotations(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'drive', {'/t': [png(FRAMES[0])]})
    assert truth_by_stamp(bag, annotated('set', 'a', 'drive'))[5].image_id == 1
    for sets in ([annotated('set', 'a', 'b')], [annotated('one', 'a'), annotated('two', 'b')]):
        with pytest.raises(UserError, match='"stamp_ns" to each .*, and \'drive\' as its "bag"'):
            truth_by_stamp(bag, *sets)
    # A bag may be renamed, and annotations of users may name no bag.
    for sets in ([annotated('set', 'a')], [annotated('one', 'a'), annotated('two', None)]):
        truth = truth_by_stamp(bag, *sets)
        assert list(truth) == [5] and truth[5] is sets[-1].images[0]
    for sets in ([annotated('set', 'drive', 'drive')],
                 [annotated('one', 'drive'), annotated('two', 'drive')]):
        with pytest.raises(UserError, match='Two images match .* at 5 ns: .*remove one of them'):
            truth_by_stamp(bag, *sets)


def test_a_bag_identifies_the_images_it_was_made_from(tmp_path: Path) -> None:
    val, test = (CocoSet(Path(f'{name}.json'), [
        ImageRecord(i, Path(f'{name}_{i}.png'), 32, 24) for i in range(3)], ('person',))
        for name in ('val', 'test'))
    write_bag(tmp_path / 'drive', map(framed, FRAMES, val.images), 10.0,
              source=fingerprint(val))
    copy = CocoSet(Path('elsewhere/corrected.json'), [
        ImageRecord(r.image_id, Path('elsewhere') / r.path, 32, 24, boxes=np.ones((1, 4)))
        for r in reversed(val.images)], ('person',))
    for sets in ([val], [test, copy]):
        truth = truth_by_stamp(tmp_path / 'drive', *sets)
        assert [r.image_id for r in truth.values()] == [0, 1, 2]
        assert {id(r) for r in truth.values()} == {id(r) for r in sets[-1].images}
    with pytest.raises(UserError, match='test.json: it was made from other images'):
        truth_by_stamp(tmp_path / 'drive', test)


def test_annotations_outlive_a_conversion(run_cgdet: Any, tmp_path: Path) -> None:
    """`ros2 bag convert` writes the messages under another name, without our custom data."""
    for i, pixels in enumerate(FRAMES):
        (tmp_path / 'set').mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / 'set' / f'{i}.png'), pixels)
    data = {
        'images': [{'id': i + 5, 'file_name': f'{i}.png', 'width': 32, 'height': 24}
                   for i in range(3)],
        'annotations': [{'id': i, 'image_id': i + 5, 'category_id': 1, 'bbox': [i, 1, 9, 9]}
                        for i in range(3)],
        'categories': [{'id': 1, 'name': 'person'}], 'licenses': [{'id': 1, 'name': 'CC0'}]}
    source = tmp_path / 'set' / 'val.json'
    source.write_text(json.dumps(data))
    result = run_cgdet('bag', 'from-coco', source, tmp_path / 'drive', '--match', '[02].png')
    assert result.returncode == 0, result.stderr
    bag, converted = tmp_path / 'drive', tmp_path / 'other' / 'converted'
    coco = load_coco(tmp_path / 'drive_truth.json')
    assert [r.path.resolve().name for r in coco.images] == ['0.png', '2.png']
    assert coco.license == 'CC0' and {r.bag for r in coco.images} == {'drive'}
    shutil.copytree(bag, converted)
    metadata = yaml.safe_load((bag / 'metadata.yaml').read_text())
    metadata['rosbag2_bagfile_information']['custom_data'] = None
    (converted / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    stamps = [frame.stamp_ns for frame in bag_frames(bag)]
    for made in (bag, converted, next(converted.glob('*.mcap'))):
        truth = truth_by_stamp(made, coco)
        assert [(s, r.boxes[0, 0]) for s, r in truth.items()] == list(zip(stamps, (0, 2)))
    with pytest.raises(UserError, match='use the _truth.json that "cgdet bag from-coco" wrote'):
        truth_by_stamp(converted, load_coco(source))
    again = run_cgdet('bag', 'from-coco', source, tmp_path / 'drive')
    assert again.returncode == 1 and 'drive already exists; choose another' in again.stderr


def test_the_bag_of_a_killed_recorder_is_an_error_with_the_fix(tmp_path: Path) -> None:
    bag = tmp_path / 'drive'
    write_bag(bag, (framed(np.full((8, 8), i, np.uint16)) for i in range(3)), 10.0)
    with pytest.raises(UserError, match=r'no images on /nope; .*: /image_raw \(3\)'):
        list(bag_frames(bag, '/nope'))
    recording = next(bag.glob('*.mcap'))
    recording.write_bytes(recording.read_bytes()[:-20])
    with pytest.raises(UserError, match='mcap recover'):
        list(bag_frames(bag))
    (bag / 'metadata.yaml').unlink()
    with pytest.raises(UserError, match='ros2 bag reindex'):
        list(bag_frames(bag))


def test_a_bag_whose_metadata_counts_nothing_is_read(tmp_path: Path) -> None:
    write_bag(tmp_path / 'drive', (framed(f) for f in FRAMES), 10.0, storage='sqlite3')
    metadata = tmp_path / 'drive' / 'metadata.yaml'
    metadata.write_text(metadata.read_text().replace('message_count: 3', 'message_count: 0'))
    assert 'message_count: 0' in metadata.read_text()
    assert len(list(bag_frames(tmp_path / 'drive'))) == 3


def split(path: Path, *starts: int) -> list[Path]:
    """Write a bag of files with 8 messages each, 10 ns apart, in a compressed chunk per file."""
    store, files = get_typestore(Stores.ROS2_JAZZY), []
    path.mkdir()
    for number, start in enumerate(starts):
        writer = Writer(path / f'part_{number}', version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connection = writer.add_connection('/t', IMAGE_TYPE, typestore=store)
            for i in range(8):
                writer.write(connection, start + 10 * i, bytes(500))
        files.append((path / f'part_{number}' / f'part_{number}.mcap').rename(
            path / f'part_{number}.mcap'))
    metadata = yaml.safe_load((path / 'part_0' / 'metadata.yaml').read_text())
    metadata['rosbag2_bagfile_information']['relative_file_paths'] = [f.name for f in files]
    (path / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    return files


def times(path: Path) -> list[int]:
    with open_bag(path) as reader:
        return [received for _, received, _ in reader.messages()]


def test_a_damaged_file_costs_none_of_those_before(tmp_path: Path) -> None:
    last = split(tmp_path / 'b', 1000, 2000, 3000)[2]
    content = bytearray(last.read_bytes())
    start = content.index(b'\x28\xb5\x2f\xfd')
    content[start:start + 20] = bytes(20)
    last.write_bytes(content)
    found = []
    with open_bag(tmp_path / 'b') as reader, pytest.raises(UserError, match='cannot be read'):
        for _, received, _ in reader.messages():
            found.append(received)
    assert found == [start + 10 * i for start in (1000, 2000) for i in range(8)]


def test_a_file_is_read_when_its_time_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    split(tmp_path / 'b', 2000, 1000, 1035)
    read, decompress = [], storage_mcap.decompress
    monkeypatch.setattr(
        storage_mcap, 'decompress', lambda *args: read.append(1) or decompress(*args))
    with open_bag(tmp_path / 'b') as reader:
        found = [(received, len(read)) for _, received, _ in reader.messages()]
    assert [time for time, _ in found] == sorted(
        start + 10 * i for start in (1000, 1035, 2000) for i in range(8))
    assert [found[i] for i in (0, 3, 4, 15, 16)] == [
        (1000, 1), (1030, 1), (1035, 2), (1105, 2), (2000, 3)]


@pytest.mark.parametrize('wrong', [
    {'start_time': 5000}, {'message_count': 0}, {'start_time': 0}])
def test_files_whose_summary_is_wrong_are_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, int],
) -> None:
    split(tmp_path / 'b', 2000, 1000)
    made = storage_mcap.Statistics
    monkeypatch.setattr(storage_mcap, 'Statistics', lambda *args: made(*args)._replace(**wrong))
    assert times(tmp_path / 'b') == [start + 10 * i for start in (1000, 2000) for i in range(8)]
