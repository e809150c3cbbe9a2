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

"""Pixels of image messages: every encoding, byte order and padding, and every way to be bad."""

from dataclasses import dataclass
from typing import Any

from cgdet_core.runtime.image_message import view_image
import numpy as np
import pytest


@dataclass
class Message:
    """Stand in for sensor_msgs/Image; the ROS tests use the real one."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def message(frame: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Message:
    rows = frame.astype(frame.dtype.newbyteorder('>' if big else '<'))
    data = b''.join(row.tobytes() + b'\xff' * padding for row in rows)
    step = frame.shape[1] * frame.itemsize + padding
    return Message(*frame.shape, encoding, int(big), step, data)


@pytest.mark.parametrize(('encoding', 'dtype'), [
    ('mono8', np.uint8), ('8UC1', np.uint8), ('mono16', np.uint16), ('16UC1', np.uint16),
    ('32FC1', np.float32)])
@pytest.mark.parametrize('padding', [0, 1, 6])
@pytest.mark.parametrize('big', [False, True])
def test_pixels_survive(encoding: str, dtype, padding: int, big: bool) -> None:
    frame = np.random.default_rng(0).integers(0, 250, (7, 5)).astype(dtype) * 3
    found = view_image(message(frame, encoding, padding, big))
    assert found.dtype == dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, frame)


def test_little_endian_is_a_view() -> None:
    data = np.zeros(6 * 4 * 2, np.uint8)
    found = view_image(Message(6, 4, 'mono16', 0, 8, data))
    assert np.shares_memory(found, data)


def test_the_last_row_may_lack_its_padding() -> None:
    good = message(np.ones((3, 4), np.uint8), 'mono8', padding=4)
    good.data = good.data[:-4]
    assert view_image(good).sum() == 12


@pytest.mark.parametrize(('change', 'words'), [
    ({'encoding': 'yuv422'}, 'yuv422'), ({'encoding': ''}, 'not supported'),
    ({'height': 0}, 'empty'), ({'width': 0}, 'empty'), ({'step': 3}, 'step'),
    ({'data': b'abc'}, 'truncated'), ({'height': 4000}, 'truncated'), ({'data': b''}, 'truncated'),
])
def test_bad_messages_are_refused_in_words(change: dict, words: str) -> None:
    bad = message(np.ones((3, 4), np.uint8), 'mono8')
    for key, value in change.items():
        setattr(bad, key, value)
    with pytest.raises(ValueError, match=words):
        view_image(bad)
