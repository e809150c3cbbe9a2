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

"""Pixels of image messages: every encoding, byte order and padding, and invalid messages."""

from dataclasses import dataclass
import struct
from typing import Any

from cgdet_core.runtime.imaging.decoding import MAX_PIXELS
from cgdet_core.runtime.imaging.message import (
    decode_image,
    is_false_color,
    view_image,
    view_message,
    view_pixels,
)
import cv2
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


@dataclass
class Compressed:
    """Stand in for sensor_msgs/CompressedImage."""

    format: str
    data: Any


def message(frame: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Message:
    rows = frame.astype(frame.dtype.newbyteorder('>' if big else '<'))
    data = b''.join(row.tobytes() + b'\xff' * padding for row in rows)
    step = frame[0].nbytes + padding
    return Message(*frame.shape[:2], encoding, int(big), step, data)


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
    ({'encoding': '64FC1'}, "'64FC1' is not supported, .*; set the driver to one and record"),
    ({'height': 0}, 'empty'), ({'width': 0}, 'empty'), ({'step': 3}, 'step'),
    ({'data': b'abc'}, 'truncated'), ({'height': 4000}, 'truncated'), ({'data': b''}, 'truncated'),
])
def test_bad_messages_are_refused_with_a_reason(change: dict, words: str) -> None:
    bad = message(np.ones((3, 4), np.uint8), 'mono8')
    for key, value in change.items():
        setattr(bad, key, value)
    with pytest.raises(ValueError, match=words):
        view_image(bad)


@pytest.mark.parametrize(('encoding', 'change'), [
    ('mono8', {'encoding': 'mono8', 'step': 5}), ('mono8', {'width': 2, 'step': 4}),
    ('mono16', {'height': 6}), ('bgr8', {'step': 15, 'height': 6})])
def test_more_data_than_rows_is_an_error(encoding: str, change: dict) -> None:
    """Such as counts under mono8, which would be read as a picture of half the height."""
    frame = np.ones((7, 5, 3) if encoding == 'bgr8' else (7, 5), np.uint16 if (
        encoding == 'mono16' or 'encoding' in change) else np.uint8)
    good = message(frame, encoding)
    if 'encoding' not in change:
        assert view_image(good).shape[:2] == (7, 5)
    for key, value in change.items():
        setattr(good, key, value)
    with pytest.raises(ValueError, match='bytes, but height and step say'):
        view_image(good)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_counts_under_an_encoding_of_8_bits_are_an_error(encoding: str, big: bool) -> None:
    """With the step of the counts, so that all sizes agree."""
    scene = 28_000 + np.random.default_rng(0).normal(0, 300, (40, 64)).cumsum(1) / 10
    wrong = message(scene.astype(np.uint16), 'mono16', big=big)
    wrong.encoding = encoding
    with pytest.raises(ValueError, match=f'as those of 16-bit pixels, .* encoding {encoding} is'):
        view_image(wrong)


@pytest.mark.parametrize('picture', [
    np.random.default_rng(1).integers(0, 256, (40, 64)), np.zeros((40, 64)),
    np.add.outer(np.arange(40), 3 * np.arange(64)), np.full((40, 64), 200)])
def test_rows_of_8_bits_may_be_padded_to_twice_their_length(picture: np.ndarray) -> None:
    frame = picture.astype(np.uint8)
    np.testing.assert_array_equal(view_image(message(frame, 'mono8', padding=64)), frame)


def counts(shape: tuple[int, ...] = (24, 32), top: int = 2**14) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(np.uint16)


def encoded(suffix: str, picture: np.ndarray) -> bytes:
    good, data = cv2.imencode(suffix, picture)
    assert good
    return data.tobytes()


@pytest.mark.parametrize('encoding', ['bgr8', 'rgb8', 'bgra8', 'rgba8', '8UC3'])
@pytest.mark.parametrize('padding', [0, 5])
def test_gray_in_color_channels_is_unchanged(encoding: str, padding: int) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(8, 32)
    channels = 4 if 'a' in encoding else 3
    picture = np.dstack([gray] * 3 + [np.full_like(gray, 9)])[..., :channels]
    bad = message(picture, encoding, padding)
    np.testing.assert_array_equal(view_message(bad), gray)
    assert not is_false_color(view_pixels(bad))


@pytest.mark.parametrize(('encoding', 'red'), [
    ('bgr8', 2), ('8UC3', 2), ('bgra8', 2), ('rgb8', 0), ('rgba8', 0)])
def test_false_color_is_recognized_with_channels_in_order(encoding: str, red: int) -> None:
    picture = np.zeros((3, 4, 4 if 'a' in encoding else 3), np.uint8)
    picture[..., red] = 200
    pixels = view_pixels(message(picture, encoding, padding=3))
    assert pixels.shape == (3, 4, 3) and is_false_color(pixels)
    np.testing.assert_array_equal(pixels[..., 2], 200)
    np.testing.assert_array_equal(view_message(message(picture, encoding)), 60)  # 0.299 of red


@pytest.mark.parametrize(('suffix', 'kind'), [
    ('.png', '16UC1; png compressed '), ('.tiff', 'mono16; tiff compressed '), ('.png', 'png')])
def test_compressed_counts_survive(suffix: str, kind: str) -> None:
    found = view_message(Compressed(kind, encoded(suffix, counts())))
    np.testing.assert_array_equal(found, counts())
    assert found.dtype == np.uint16


def test_compressed_kelvin_survives() -> None:
    kelvin = counts().astype(np.float32) / 50
    np.testing.assert_array_equal(
        view_message(Compressed('32FC1; tiff compressed ', encoded('.tiff', kelvin))), kelvin)


@pytest.mark.parametrize('kind', ['16UC1; compressedDepth png', 'mono16; compressedDepth'])
def test_compressed_depth_survives(kind: str) -> None:
    header = struct.pack('<iff', 0, 0.0, 0.0)
    found = view_message(Compressed(kind, header + encoded('.png', counts())))
    np.testing.assert_array_equal(found, counts())


@pytest.mark.parametrize(('kind', 'suffix', 'refused'), [
    ('mono16; jpeg compressed ', '.jpg', True), ('16UC1; png compressed ', '.png', True),
    ('16UC1; jpeg compressed bgr8', '.jpg', True), ('rgb16; jpeg compressed bgr8', '.jpg', True),
    ('32FC1; tiff compressed ', '.tiff', True), ('bayer_rggb16; png compressed ', '.png', True),
    ('16UC1; compressedDepth png', '.png', True), (' MONO16; png', '.png', True),
    ('mono8; jpeg compressed ', '.jpg', False),
    ('8UC1; png compressed ', '.png', False), ('bayer_rggb8; png compressed ', '.png', False),
    ('yuv422; jpeg compressed bgr8', '.jpg', False), ('jpeg', '.jpg', False),
    ('', '.png', False)])
def test_an_image_with_less_depth_than_its_format_states_is_an_error(
    kind: str, suffix: str, refused: bool,
) -> None:
    data = bytes(12 if 'compressedDepth' in kind else 0) + encoded(
        suffix, (counts() >> 6).astype(np.uint8))
    if refused:
        with pytest.raises(ValueError, match='has 8-bit pixels, but its format is'):
            decode_image(kind, data)
    else:
        assert decode_image(kind, data).dtype == np.uint8


def test_jpeg_of_gray_and_of_color() -> None:
    gray = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
    found = view_message(Compressed('mono8; jpeg compressed ', encoded('.jpg', gray)))
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - gray).max() <= 4
    color = cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO)
    pixels = view_pixels(Compressed('rgb8; jpeg compressed bgr8', encoded('.jpg', color)))
    assert is_false_color(pixels)
    assert np.abs(pixels.astype(int) - color).mean() < 8  # the right way round
    assert view_message(Compressed('jpeg', encoded('.jpg', color))).shape == gray.shape


def test_alpha_is_dropped() -> None:
    picture = np.dstack([counts()] * 3 + [np.zeros_like(counts())])
    np.testing.assert_array_equal(view_message(Compressed('png', encoded('.png', picture))),
                                  counts())


def png_claiming(width: int, height: int) -> bytes:
    data = encoded('.png', counts())
    return data[:16] + struct.pack('>II', width, height) + data[24:]


def jpeg_claiming(width: int, height: int) -> bytes:
    data = encoded('.jpg', counts().astype(np.uint8))
    at = data.index(b'\xff\xc0') + 5
    return data[:at] + struct.pack('>HH', height, width) + data[at + 4:]


def tiff_claiming(width: int, height: int) -> bytes:
    return (b'II*\0' + struct.pack('<IH', 8, 2) + struct.pack('<HHII', 256, 4, 1, width)
            + struct.pack('<HHII', 257, 3, 1, height) + b'\0' * 4)


@pytest.mark.parametrize('data', [
    png_claiming(2**31 - 1, 2**31 - 1), png_claiming(MAX_PIXELS, 2), png_claiming(0, 5),
    jpeg_claiming(65000, 65000), tiff_claiming(2**31, 60000), tiff_claiming(2**32 - 1, 1)])
def test_no_image_of_absurd_size_is_decoded(data: bytes) -> None:
    with pytest.raises(ValueError, match='claims .* pixels'):
        view_message(Compressed('', data))


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tiff'])
def test_no_truncated_image_is_accepted(suffix: str) -> None:
    data = encoded(suffix, counts((48, 64), 256).astype(np.uint8))
    whole = view_message(Compressed('', data))
    refused = 0
    for length in range(0, len(data) - 2, 13):
        try:  # the end of a TIFF lists what OpenCV does not read
            np.testing.assert_array_equal(view_message(Compressed('', data[:length])), whole)
        except ValueError:
            refused += 1
    assert refused > 0.95 * len(data) / 13


def test_random_damage_only_raises_value_error() -> None:
    rng = np.random.default_rng(1)
    good = [encoded(s, counts((16, 16), 256).astype(np.uint8)) for s in ('.png', '.jpg', '.tiff')]
    refused = 0
    for i in range(600):
        data = np.frombuffer(good[i % 3], np.uint8).copy()
        data[rng.integers(0, len(data), 5)] = rng.integers(0, 256, 5)
        try:
            assert view_message(Compressed('', data)).ndim == 2
        except ValueError as error:
            refused += 1
            assert '\n' not in str(error) and len(str(error)) < 250
    assert refused > 200


@pytest.mark.parametrize(('kind', 'data', 'words'), [
    ('jpeg', b'', 'empty'), ('jpeg', b'hello world', 'not PNG, JPEG or TIFF'),
    ('png', encoded('.bmp', np.zeros((4, 4), np.uint8)), 'not PNG'),
    ('32FC1; compressedDepth png', encoded('.png', counts()), 'publish 16UC1'),
    ('16UC1; compressedDepth rvl', b'abc' * 20, 'compressedDepth must be 16-bit PNG'),
    ('16UC1; compressedDepth', b'abc', 'empty'),
    ('tiff', encoded('.tiff', np.zeros((4, 4), np.float64)), 'float64 pixels'),
])
def test_bad_compressed_messages_are_refused_with_a_reason(
    kind: str, data: bytes, words: str,
) -> None:
    with pytest.raises(ValueError, match=words):
        decode_image(kind, data)
