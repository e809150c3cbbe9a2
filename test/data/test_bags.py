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

"""Reading bags: raw and compressed topics, and which of several is meant."""

from pathlib import Path
from typing import Any

from cgdet_core.data.bags import COMPRESSED_TYPE, is_compressed, read_frames, write_bag
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from two_cameras import RGB, THERMAL, write_two_cameras

FRAMES = [np.random.default_rng(i).integers(0, 2**14, (24, 32)).astype(np.uint16)
          for i in range(3)]


def png(frame: np.ndarray) -> np.ndarray:
    return cv2.imencode('.png', frame)[1].ravel()


def write_compressed(path: Path, topics: dict[str, list[np.ndarray]]) -> Path:
    """Write CompressedImage messages of encoded data, 100 ms apart."""
    store = get_typestore(Stores.ROS2_JAZZY)
    t: dict[str, Any] = store.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        for topic, pictures in topics.items():
            connection = bag.add_connection(topic, COMPRESSED_TYPE, typestore=store)
            for i, data in enumerate(pictures):
                stamp = t['builtin_interfaces/msg/Time'](sec=7, nanosec=i * 10**8)
                message = t[COMPRESSED_TYPE](
                    header=t['std_msgs/msg/Header'](stamp=stamp, frame_id='cam'),
                    format='mono16; png compressed ', data=data)
                bag.write(connection, 7 * 10**9 + i * 10**8,
                          store.serialize_cdr(message, COMPRESSED_TYPE))
    return path


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_raw_frames_come_back(tmp_path: Path, storage: str) -> None:
    assert write_bag(tmp_path / 'b', ((f, None) for f in FRAMES), 10.0, storage=storage) == 3
    for found, frame in zip(read_frames(tmp_path / 'b'), FRAMES, strict=True):
        np.testing.assert_array_equal(found.frame, frame)


def test_compressed_frames_come_back_at_full_depth(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/t/compressed': [png(f) for f in FRAMES]})
    found = list(read_frames(bag))
    assert [f.stamp_ns for f in found] == [7 * 10**9 + i * 10**8 for i in range(3)]
    for f, frame in zip(found, FRAMES, strict=True):
        np.testing.assert_array_equal(f.frame, frame)


def test_a_choice_of_topics_is_asked_for(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/a': [png(FRAMES[0])], '/b': [png(FRAMES[1])]})
    with pytest.raises(UserError, match='found: /a, /b; choose one with --topic'):
        list(read_frames(bag))
    frame, = read_frames(bag, '/b')
    np.testing.assert_array_equal(frame.frame, FRAMES[1])
    with pytest.raises(UserError, match='found: none'):
        list(read_frames(bag, '/c'))


def test_a_compressed_topic_is_a_copy_of_its_own_raw_one_alone(tmp_path: Path) -> None:
    """A raw colour topic does not hide the compressed thermal one."""
    frames = {0: FRAMES[0], 10**8: FRAMES[1]}
    bag = write_two_cameras(tmp_path / 'b', frames, {0: np.zeros((4, 4, 3), np.uint8)},
                            compressed=('.png', ''))
    with pytest.raises(UserError, match='found: /rgb/image_raw, /thermal/image_raw/compressed'):
        is_compressed(bag)
    assert is_compressed(bag, THERMAL + '/compressed') and not is_compressed(bag, RGB)
    assert len(list(read_frames(bag, THERMAL + '/compressed'))) == 2
    assert not is_compressed(write_two_cameras(tmp_path / 'c', frames, {}))


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    bag = write_compressed(tmp_path / 'b', {'/t': [png(FRAMES[0]), png(FRAMES[1])[:300]]})
    with pytest.raises(UserError, match='image 1: the compressed image is truncated'):
        list(read_frames(bag))
