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

"""Pixels of messages: five encodings of our own, all others through cv_bridge."""

from pathlib import Path
import sys
from typing import Any

from cgdet_core.runtime.imaging.frames import to_gray
from cgdet_core.runtime.imaging.message import decode_image
from cgdet_ros.node import bridge
from cgdet_ros.node.bridge import OWN, read_pixels
import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

GRAY = np.arange(32 * 40, dtype=np.int64).reshape(32, 40) % 251


@pytest.fixture(autouse=True)
def fresh() -> Any:
    """Import cv_bridge again in each test."""
    bridge._bridge.cache_clear()
    sys.modules.pop('cv_bridge', None)
    yield
    bridge._bridge.cache_clear()
    sys.modules.pop('cv_bridge', None)


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    made = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                 step=rows.shape[1])
    made.data = rows.tobytes()
    return made


def with_alpha(gray: np.ndarray) -> np.ndarray:
    return np.dstack([gray] * 3 + [np.full_like(gray, 255)])


def yuv(gray: np.ndarray, luminance: int) -> np.ndarray:
    """Return packed 4:2:2 without color; luminance: the byte of a pixel that has it."""
    packed = np.full((*gray.shape, 2), 128, np.uint8)
    packed[..., luminance] = np.rint(16 + gray * (219 / 255))
    return packed


U8, U16 = GRAY.astype(np.uint8), (GRAY * 200).astype(np.uint16)
FLAT = np.full((32, 40), 77, np.uint8)  # demosaicing changes any other picture
SAME = {  # each with the gray frame that is expected
    'bgr8': (np.dstack([U8] * 3), U8), 'rgb8': (np.dstack([U8] * 3), U8),
    'bgra8': (with_alpha(U8), U8), 'rgba8': (with_alpha(U8), U8),
    '8UC3': (np.dstack([U8] * 3), U8), '8UC4': (with_alpha(U8), U8),
    'rgb16': (np.dstack([U16] * 3), U16), 'bgra16': (with_alpha(U16), U16),
    '16UC3': (np.dstack([U16] * 3), U16),
    'yuv422': (yuv(U8, 1), U8), 'yuv422_yuy2': (yuv(U8, 0), U8),
    'uyvy': (yuv(U8, 1), U8), 'yuyv': (yuv(U8, 0), U8),
    'bayer_rggb8': (FLAT, FLAT), 'bayer_gbrg8': (FLAT, FLAT),
    'bayer_bggr16': (FLAT.astype(np.uint16) * 99, FLAT.astype(np.uint16) * 99),
    '8SC1': ((GRAY - 125).astype(np.int8), (GRAY - 125).astype(np.float32)),
    '16SC1': ((GRAY - 125).astype(np.int16), (GRAY - 125).astype(np.float32)),
    '32SC1': ((GRAY - 125).astype(np.int32), (GRAY - 125).astype(np.float32)),
    '64FC1': (GRAY + 250.25, (GRAY + 250.25).astype(np.float32)),
    '32FC3': (np.dstack([GRAY + 0.5] * 3).astype(np.float32), (GRAY + 0.5).astype(np.float32))}


@pytest.mark.parametrize('encoding', SAME)
@pytest.mark.parametrize('padding', [0, 24])
def test_each_encoding_becomes_the_gray_frame(
    encoding: str, padding: int, cv_bridge: None,
) -> None:
    pixels, expected = SAME[encoding]
    found = to_gray(read_pixels(message(pixels, encoding, padding)))
    assert found.dtype == expected.dtype and found.shape == expected.shape
    tolerance = 1.01 if 'y' in encoding and not encoding.startswith('bayer') else 0.01
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=tolerance)


@pytest.mark.parametrize('encoding', ['bgr8', 'bgra8', 'rgb16', '8UC3', '32FC3', '64FC1', 'uyvy'])
@pytest.mark.parametrize('width', [37, 38, 39])
def test_rows_are_aligned_to_any_number_of_bytes(
    encoding: str, width: int, cv_bridge: None,
) -> None:
    """Drivers align rows to 4 bytes, which is no whole number of pixels."""
    width -= width % 2 if encoding == 'uyvy' else 0
    pixels, expected = SAME[{'uyvy': 'yuv422'}.get(encoding, encoding)]
    for padding in (1, 2, 3, 4):
        found = to_gray(read_pixels(message(pixels[:, :width], encoding, padding)))
        np.testing.assert_allclose(found.astype(float), expected[:, :width].astype(float),
                                   atol=1.01 if encoding == 'uyvy' else 0.01)


@pytest.mark.parametrize('encoding', ['rgb16', 'bgra16', '16UC3', '16SC1', '32FC3', '64FC1'])
def test_the_other_byte_order(encoding: str, cv_bridge: None) -> None:
    pixels, expected = SAME[encoding]
    swapped = message(pixels.byteswap(), encoding)
    swapped.is_bigendian = 1
    np.testing.assert_allclose(to_gray(read_pixels(swapped)), expected, atol=0.01)


@pytest.mark.parametrize('encoding', OWN)
def test_our_own_encodings_never_see_cv_bridge(
    encoding: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(bridge.importlib, 'import_module', refuse)
    kind = {'m': 'u' + encoding[-2:].strip('o'), '8': 'u8', '1': 'u16', '3': 'f32'}[encoding[0]]
    frame = GRAY.astype({'u8': 'u1', 'u16': 'u2', 'f32': 'f4'}[kind])
    np.testing.assert_array_equal(read_pixels(message(frame, encoding)), frame)


@pytest.mark.parametrize('encoding', ['bgr8', 'yuv422', 'bayer_rggb8', '64FC1', 'bgra8', '8UC3'])
def test_without_cv_bridge_a_sentence_names_it(
    encoding: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)  # as if it were not installed
    with pytest.raises(ValueError, match=f"encoding '{encoding}' requires cv_bridge, which is "
                       'missing: install it .* or set the driver to one of mono8'):
        read_pixels(message(SAME[encoding][0], encoding))


@pytest.mark.parametrize('encoding', ['Y16', '16UC1 ', 'MONO16', ''])
def test_what_cv_bridge_does_not_know_either_is_no_reason_to_install_it(
    encoding: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    with pytest.raises(ValueError, match=f"encoding '{encoding}' is none of ROS; set the driver"):
        read_pixels(message(U16, encoding))


@pytest.mark.parametrize(('source', 'words'), [
    ('raise AttributeError("_ARRAY_API not found")', 'cannot be loaded'),
    ('class CvBridge:\n    def imgmsg_to_cv2(self, *a):\n        raise ImportError("boost")',
     r'cannot be loaded with numpy .*boost')])
def test_a_cv_bridge_of_another_numpy_is_named(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / 'cv_bridge.py').write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=f'requires cv_bridge, which {words}'):
        read_pixels(message(np.dstack([U8] * 3), 'bgr8'))


@pytest.mark.parametrize(('change', 'words'), [
    ({'height': 0}, 'empty'), ({'data': b'12'}, 'truncated'),
    ({'data': bytes(9999)}, 'height and step say 3840'),
    ({'encoding': 'jpeg2000'}, "encoding 'jpeg2000' is none of ROS; set the driver"),
    ({'encoding': 'nv21'}, "cannot convert the image encoding 'nv21': .*; set the driver to one"),
    ({'encoding': '8UC2', 'width': 60}, '2 channels')])
def test_bad_messages_are_refused_with_a_reason(
    change: dict, words: str, cv_bridge: None,
) -> None:
    bad = message(np.dstack([U8] * 3), 'bgr8')
    for name, value in change.items():
        setattr(bad, name, value)
    with pytest.raises(ValueError, match=words):
        read_pixels(bad)


def test_a_node_reads_smaller_images_than_a_file_may_be() -> None:
    large = cv2.imencode('.png', np.zeros((4100, 4100), np.uint8))[1].tobytes()
    assert decode_image('', large).shape == (4100, 4100)
    with pytest.raises(ValueError, match='claims 4100x4100 .* the maximum is 16777216 pixels'):
        read_pixels(CompressedImage(data=large))


def test_the_package_depends_on_cv_bridge() -> None:
    text = (Path(__file__).resolve().parents[2] / 'package.xml').read_text()
    assert '<exec_depend>cv_bridge</exec_depend>' in text
