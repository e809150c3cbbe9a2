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

"""Images of files and messages: what they claim, the depth they keep, and how they end."""

from collections.abc import Iterator
import importlib.util
from io import BytesIO
import os
from pathlib import Path
import re
from resource import getrusage, RUSAGE_SELF
import struct
from time import process_time

from cgdet_core.data.sources import open_path
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.result import to_frame
from cgdet_core.runtime.imaging.decoding import claim_of, MAX_PIXELS
from cgdet_core.runtime.imaging.frames import (
    files_below,
    find_pages,
    is_gray,
    read_image,
    read_rgb,
    read_thermal,
)
from cgdet_core.runtime.imaging.message import decode_image
import cv2
import numpy as np
import pytest

Image = pytest.importorskip('PIL.Image', reason='Pillow writes the images that OpenCV cannot')
_SPEC = importlib.util.spec_from_file_location(
    'image_bombs', Path(__file__).resolve().parents[2] / 'dev' / 'image_bombs.py')
bombs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(bombs)
BOMBS, encoded, saved, tiff = bombs.BOMBS, bombs.encoded, bombs.saved, bombs.tiff


def counts(shape: tuple[int, ...] = (24, 32), dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


# --- What an image claims, in tricky ways


@pytest.fixture()
def bounded() -> Iterator[None]:
    """Fail a test whose code takes 2 s of the processor or 300 MB of memory more than before."""
    start, before = process_time(), getrusage(RUSAGE_SELF).ru_maxrss
    yield
    assert process_time() - start < 2
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize('name', BOMBS)
@pytest.mark.usefixtures('bounded')
def test_a_bomb_is_refused_from_a_message_and_from_a_file(name: str, tmp_path: Path) -> None:
    words = 'claims .* pixels|is damaged|is truncated|is an animation'
    with pytest.raises(ValueError, match=f'^the compressed image ({words})'):
        decode_image('', BOMBS[name])
    path = tmp_path / 'a.png'  # OpenCV goes by the content
    path.write_bytes(BOMBS[name])
    for read in (read_image, read_rgb):
        with pytest.raises(UserError, match=rf'a\.png ({words})'):
            read(path)


def test_scans_without_end_are_not_decoded() -> None:
    data = bombs.many_scans(400)
    assert len(data) < 2**24
    before = getrusage(RUSAGE_SELF).ru_maxrss
    start = process_time()
    with pytest.raises(ValueError, match='claims 406 scans of 5000x5000 pixels'):
        decode_image('', data)
    assert process_time() - start < 2 and getrusage(RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'TIFF', 'BMP', 'PPM'])
def test_pixels_up_to_the_limit_are_read(kind: str) -> None:
    claim = claim_of(saved(np.zeros((480, 640, 3), np.uint8), kind))
    assert (claim.width, claim.height, claim.bits, claim.whole) == (640, 480, 24, True)
    assert MAX_PIXELS > 8000 * 6000  # of a drone's camera


def test_scans_in_a_tiff_count_by_their_strip() -> None:
    strips = saved(np.zeros((4000, 4000), np.uint8), 'TIFF', compression='jpeg',
                   tiffinfo={278: 16})
    assert strips.count(b'\xff\xda') >= 250 and claim_of(strips).scans <= 2
    one = saved(np.zeros((4000, 4000), np.uint8), 'TIFF', compression='jpeg', tiffinfo={278: 4000})
    claim_of(one)
    with pytest.raises(ValueError, match='claims .* scans'):
        claim_of(one + b'\xff\xda' * 50)


def test_a_marker_without_length_hides_nothing() -> None:
    data = encoded('.jpg', counts(dtype=np.uint8))
    np.testing.assert_array_equal(decode_image('', data[:2] + b'\xff\x01\xff\xff' + data[2:]),
                                  decode_image('', data))


# --- What is kept

GRAY, PALETTE = counts(dtype=np.uint8), [v for i in range(256) for v in (i, 255 - i, 0)]
FILES = {
    'gray palette.png': saved(GRAY, 'PNG', 'P'), 'gray palette.bmp': saved(GRAY, 'BMP', 'P'),
    'gray palette.tif': saved(GRAY, 'TIFF', 'P'), '16 bits.png': encoded('.png', counts()),
    '16 bits.tif': saved(counts(), 'TIFF', compression='tiff_lzw'),
    'big.tif': saved(counts(), 'TIFF', big_tiff=True),
    'deflated.tif': saved(counts(), 'TIFF', compression='tiff_adobe_deflate'),
    'jpeg.tif': saved(GRAY, 'TIFF', compression='jpeg'),
    '12 bits.pgm': b'P5\n# camera\n32 24\n4095\n' + (counts() >> 4).astype('>u2').tobytes(),
    'alpha.png': saved(np.dstack([GRAY, GRAY]), 'PNG'),
    'alpha 16.png': encoded('.png', np.dstack([counts()] * 4)),
    'mask.png': saved(GRAY > 99, 'PNG'), 'mask.tif': saved(GRAY > 99, 'TIFF'),
    'mask.bmp': saved(GRAY > 99, 'BMP'), 'color.bmp': saved(np.dstack([GRAY] * 3), 'BMP'),
    'color.jpg': saved(counts((24, 32, 3), np.uint8), 'JPEG', progressive=True),
    'text.pgm': b'P2\n2 2\n255\n1 20 200 4\n'}


@pytest.mark.parametrize('name', FILES)
def test_depth_and_values_are_those_that_the_file_stores(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    expected = cv2.imdecode(np.frombuffer(FILES[name], np.uint8), cv2.IMREAD_UNCHANGED)
    found = read_image(path)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected[..., :3] if expected.ndim == 3 else expected)
    gray = read_thermal(path)
    if 'color.jpg' not in name:
        assert is_gray(path)
        np.testing.assert_array_equal(gray, expected if expected.ndim == 2 else expected[..., 0])


@pytest.mark.parametrize('name', FILES)
def test_a_file_that_was_cut_is_refused_as_the_message_is(name: str, tmp_path: Path) -> None:
    path, data = tmp_path / name, FILES[name]
    path.write_bytes(data)
    whole, refused, tried = read_image(path), 0, range(0, len(data) - 4, max(1, len(data) // 30))
    for length in tried:
        path.write_bytes(data[:length])
        try:  # the end of a file may be what is not read
            np.testing.assert_array_equal(read_image(path), whole)
        except UserError as error:
            refused += 1
            assert name in str(error) and '\n' not in str(error)
    assert refused > 0.85 * len(tried)


def test_palette_of_colors_is_color(tmp_path: Path) -> None:
    image = Image.fromarray(GRAY).convert('P')
    image.putpalette(PALETTE)
    for name in ('a.png', 'a.bmp', 'a.tif'):
        image.save(tmp_path / name)
        assert read_image(tmp_path / name).shape == (24, 32, 3) and not is_gray(tmp_path / name)


def test_floats_of_a_tiff_are_a_frame_but_none_of_a_set(tmp_path: Path) -> None:
    kelvin = np.linspace(280, 310, 24 * 32).reshape(24, 32)
    kelvin[5, 5] = np.nan
    for name, values in (('32.tif', np.float32(kelvin)), ('64.tif', kelvin)):
        assert cv2.imwrite(str(tmp_path / name), values)
        [frame] = open_path(tmp_path / name).frames
        np.testing.assert_array_equal(frame.pixels, np.float32(kelvin))
        assert frame.pixels.dtype == to_frame(tmp_path / name, 1).dtype == np.float32
        counts = frame.seen('counts', '', 'white_hot').pixels
        assert counts.dtype == np.uint16 and counts[5, 5] == pytest.approx(kelvin[5, 4], abs=1)
        with pytest.raises(UserError, match='has floats as pixels .float32.*"cgdet data collect"'):
            read_thermal(tmp_path / name)
    assert cv2.imwrite(str(tmp_path / 'c.tif'), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(UserError, match='float32 pixels in 3 channels'):
        read_image(tmp_path / 'c.tif')


@pytest.mark.parametrize('turned', [3, 6, 8])
def test_a_file_is_read_as_its_exif_shows_it(turned: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    stored = cv2.GaussianBlur(GRAY, (0, 0), 3)
    for name in ('a.jpg', 'a.png'):
        Image.fromarray(stored).save(tmp_path / name, exif=exif, quality=100)
        times = {3: 2, 6: 3, 8: 1}[turned]
        for found in (read_thermal(tmp_path / name), read_rgb(tmp_path / name)[..., 0]):
            assert np.abs(found.astype(int) - np.rot90(stored, times)).max() < 6
        message = decode_image('', (tmp_path / name).read_bytes())
        assert message.shape == stored.shape  # as the camera's calibration has it


# --- What OpenCV refuses or reads wrongly


def stored(*planes: np.ndarray, bits: int = 16, kind: int = 1, shown: int = 1,
           planar: int = 1) -> bytes:
    """Return a TIFF of planes, of which values of other than whole bytes are packed."""
    values = np.stack(planes, 0 if planar == 2 else -1)
    if bits % 8:
        values = np.unpackbits(values.astype('>u2').view(np.uint8).reshape(24, -1, 2), axis=2)
        values = np.packbits(values[:, :, 16 - bits:].reshape(24, -1), axis=1)
    n, size = len(planes), values.nbytes
    tags = {256: [32], 257: [24], 258: [bits] * n, 259: [1], 262: [shown], 277: [n], 278: [24],
            284: [planar], 339: [kind] * n}
    strips = n if planar == 2 else 1
    tags[273] = [512 + i * size // strips for i in range(strips)]
    tags[279] = [size // strips] * strips
    place, entries, more = 10 + 12 * len(tags) + 4, b'', b''
    for tag, numbers in sorted(tags.items()):
        data = struct.pack(f'<{len(numbers)}H', *numbers)
        if len(data) > 4:
            data, more = struct.pack('<I', place + len(more)), more + data
        entries += struct.pack('<HHI4s', tag, 3, len(numbers), data)
    head = b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + bytes(4) + more
    return head.ljust(512, b'\0') + values.tobytes()


HALF = counts() >> 2
REFUSED = {
    'gray and alpha.tif': (stored(HALF, HALF), 'has 2 samples of 16 bits a pixel, of which 8'),
    'planar.tif': (stored(HALF, HALF, HALF, shown=2, planar=2), r'one after the other \(tag 284'),
    'half.tif': (stored(HALF.astype(np.float16), kind=3), 'has floats of 16 bits .tags 258 and'),
    'undefined.tif': (stored(HALF, kind=4), 'has values of an undefined kind of 16 bits'),
    'signed.tif': (stored(HALF.astype(np.int16), kind=2), 'has signed integers of 16 bits'),
    '4 bits.tif': (stored(HALF >> 10, bits=4), 'has unsigned integers of 4 bits'),
    '32 bits.tif': (stored(HALF.astype(np.uint32), bits=32), 'has unsigned integers of 32 bits'),
    '5 samples.tif': (stored(*[HALF] * 5), 'has 5 samples a pixel'),
    'two.pgm': (2 * (b'P5\n32 24\n255\n' + GRAY.tobytes()), 'has another image after its pixels'),
    'two texts.pgm': (2 * b'P2\n2 2\n255\n1 20 200 4\n', 'has several images'),
    'above.pgm': (b'P2\n2 2\n255\n1 20 6240 4\n', 'has values above 255'),
    'just above.pgm': (b'P2\n2 2\n4095\n1 20 4096 4\n', 'has values above 4095')}


def test_padding_after_the_pixels_of_a_pgm_is_no_image(tmp_path: Path) -> None:
    for padding in (b'\n', bytes(64)):
        (tmp_path / 'a.pgm').write_bytes(b'P5\n32 24\n255\n' + GRAY.tobytes() + padding)
        np.testing.assert_array_equal(read_image(tmp_path / 'a.pgm'), GRAY)


@pytest.mark.parametrize('name', REFUSED)
def test_what_would_be_read_wrongly_is_refused(
        name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, words = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf'{name} .*{words}.*; save (it|each) .*\.$'):
        read_image(tmp_path / name)
    if name.endswith('.tif'):
        with pytest.raises(ValueError, match=f'^the compressed image .*{words}'):
            decode_image('', data)
    assert capfd.readouterr() == ('', '')


def test_text_of_zeros_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / 'a.pgm').write_bytes(b'P2\n# 999 P5\n2 2\n255\n1 # 256 P2 \n020 00255 '
                                     + b'0' * 1_000_000 + b'\n \n')
    start = process_time()
    assert read_image(tmp_path / 'a.pgm').tolist() == [[1, 20], [255, 0]]
    assert process_time() - start < 2
    (tmp_path / 'b.pgm').write_bytes(b'P5\n2 2\n255\n \n \n\n \r\n')  # blanks, in and after
    assert read_image(tmp_path / 'b.pgm').tolist() == [[32, 10], [32, 10]]


@pytest.mark.parametrize('bits', [10, 12, 14])
def test_packed_values_keep_their_scale(bits: int, tmp_path: Path) -> None:
    path, values = tmp_path / 'a.tif', counts() >> (16 - bits)
    path.write_bytes(stored(values, bits=bits))
    np.testing.assert_array_equal(read_image(path), values)
    np.testing.assert_array_equal(decode_image('', path.read_bytes()), values)
    path.write_bytes(stored(values, values, values, bits=bits, shown=2))
    np.testing.assert_array_equal(read_thermal(path), values)
    with pytest.raises(UserError, match=f'its samples of {bits} bits cannot be read so'):
        read_rgb(path)


@pytest.mark.parametrize('bits', [8, 14, 16])
def test_counts_do_not_depend_on_how_they_are_shown(bits: int, tmp_path: Path) -> None:
    path, values = tmp_path / 'a.tif', GRAY if bits == 8 else counts() >> (16 - bits)
    path.write_bytes(stored(values, bits=bits, shown=0))  # 0 is white
    np.testing.assert_array_equal(read_image(path), 255 - values if bits == 8 else values)


def test_warnings_of_opencv_are_not_printed(
        tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tiff((317, 3, 2))
    (tmp_path / 'a.tif').write_bytes(data)
    assert read_image(tmp_path / 'a.tif').shape == (8, 8)
    (tmp_path / 'a.tif').write_bytes(data[:-9])
    with pytest.raises(UserError, match='a.tif is damaged'):
        read_image(tmp_path / 'a.tif')
    assert not re.search('WARN|ERROR', capfd.readouterr().err)


# --- Pages


def pages(number: int, **options: object) -> bytes:
    first, *more = (Image.fromarray(counts() // 8 + i) for i in range(number))
    file = BytesIO()
    first.save(file, 'TIFF', save_all=True, append_images=more, **options)
    return file.getvalue()


@pytest.mark.parametrize('options', [{}, {'compression': 'tiff_lzw'}, {'big_tiff': True}])
def test_each_page_of_a_tiff_is_an_image(options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / 'recording.tif'
    path.write_bytes(pages(3, **options))
    for i, place in enumerate(find_pages(path)):
        np.testing.assert_array_equal(read_image(path, place), counts() // 8 + i)
    assert i == 2
    with pytest.raises(UserError, match='recording.tif has 3 pages'):
        read_image(path)
    assert path.read_bytes() == pages(3, **options)


def test_a_message_with_several_pages_is_refused() -> None:
    assert decode_image('', pages(1)).shape == (24, 32)
    with pytest.raises(ValueError, match='compressed image has 3 pages, and a message is one im'):
        decode_image('16UC1; tiff compressed ', pages(3))


@pytest.mark.parametrize(('kind', 'found'), [(0, 2), (1, 1), (2, 2), (4, 1)])
def test_a_thumbnail_is_not_a_page(kind: int, found: int, tmp_path: Path) -> None:
    data = bytearray(tiff())
    data[10 + 12 * 9:14 + 12 * 9] = struct.pack('<I', len(data))  # the place of the next
    entries = [(254, kind), (256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (273, 200), (277, 1),
               (278, 4), (279, 16)]
    data += struct.pack('<H', len(entries)) + b''.join(
        struct.pack('<HHII', tag, 4, 1, value) for tag, value in entries) + b'\0' * 4
    (tmp_path / 'a.tif').write_bytes(data)
    places = find_pages(tmp_path / 'a.tif')
    assert [read_image(tmp_path / 'a.tif', place).shape for place in places] == [
        (8, 8), (4, 4)][:found]
    if found == 1:
        assert read_image(tmp_path / 'a.tif').shape == (8, 8)


def test_directories_that_form_a_loop_are_damage(tmp_path: Path) -> None:
    data = bytearray(tiff())
    data[10 + 12 * 9:14 + 12 * 9] = struct.pack('<I', 8)
    (tmp_path / 'a.tif').write_bytes(data)
    assert not find_pages(tmp_path / 'a.tif')
    with pytest.raises(UserError, match='a.tif is truncated'):
        read_image(tmp_path / 'a.tif')


# --- Paths and folders


def test_a_name_that_is_not_text_is_a_file_like_others(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.png'))
    with pytest.raises(UserError, match='does not exist'):
        read_image(path)
    path.write_bytes(encoded('.png', counts()))
    np.testing.assert_array_equal(read_thermal(path), counts())
    assert read_rgb(path).shape == (24, 32, 3) and is_gray(path)
    path.write_bytes(b'')
    with pytest.raises(UserError, match='is empty'):
        read_image(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'a.png')
    with pytest.raises(UserError, match='a.png is not an image file'):
        read_image(tmp_path / 'a.png')


def test_a_folder_has_no_files_of_other_systems(tmp_path: Path) -> None:
    for name in ('b.PNG', 'a.png', 'in/c.png', '._a.png', '.DS_Store', '__MACOSX/._a.png',
                 '__MACOSX/in/a.png', '.cache/a.png', 'in/@eaDir/c.png', 'Thumbs.db'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'folder.png').mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, ('.png',))]
    assert found == ['a.png', 'b.PNG', 'in/c.png']
    assert [path.name for path in files_below(tmp_path / '.cache', ('.png',), '*')] == ['a.png']
