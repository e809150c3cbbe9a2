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

"""Read thermal frames from files without changing their depth."""

from collections.abc import Collection
from contextlib import suppress
from mmap import ACCESS_COPY, mmap
from os import fstat
from pathlib import Path, PurePath
import re
from typing import Any
from zlib import crc32

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_not_inputs, file_kind
from cgdet_core.runtime.imaging.decoding import (
    decode,
    format_of,
    MAX_BYTES,
    tiff_pages,
    tiff_start,
)
import cv2
import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.pgm')
BAG_SUFFIXES = ('.mcap', '.db3')  # of bags that are single files
SHEET = 'contact_sheet.png'  # of a set
ZSTD = '.zstd'  # the end of a compressed bag file's name
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mkv', '.mov', '.webm')
ADDED = ('__MACOSX', '@eaDir')  # folders that archives and servers add
TIFF_SUFFIXES = ('.tif', '.tiff')
LARGEST = 2 * MAX_BYTES  # bytes of a file
STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH  # without alpha
HEADER = 33  # bytes of a PNG's signature and first chunk
_TEXT = b'tEXtSoftware\0cgdet drawing'
MARK = (len(_TEXT) - 4).to_bytes(4, 'big') + _TEXT + crc32(_TEXT).to_bytes(4, 'big')


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag, a folder or a single file."""
    return bag_suffix(path) in BAG_SUFFIXES or (path / 'metadata.yaml').is_file()


def bag_suffix(path: Path) -> str:
    """Return the suffix of a bag's file, in front of that of its compression."""
    return PurePath(path.name.removesuffix(ZSTD)).suffix.lower()


def lacks_metadata(path: Path) -> bool:
    """Return whether a folder contains bag files but no metadata, as after a killed recorder."""
    return path.is_dir() and not (path / 'metadata.yaml').is_file() and any(
        bag_suffix(file) in BAG_SUFFIXES
        for file in files_below(path, (*BAG_SUFFIXES, ZSTD), '*'))


def files_below(folder: Path, suffixes: Collection[str], pattern: str = '**/*') -> list[Path]:
    """
    Return the files with these suffixes in a folder and below, or only in it with pattern '*'.

    They are in natural order, 2 before 10. Hidden files are left out, and what archives and
    servers add: macOS writes a "._name" for each file. So are pictures that were drawn.
    """
    return sorted((path for path in folder.glob(pattern) if path.suffix.lower() in suffixes
                   and not is_stray(path.relative_to(folder)) and not path.is_dir()
                   and not is_drawn(path)), key=natural)


def as_drawn(content: bytes) -> bytes:
    """Return an encoded picture; a PNG has the mark that it is no frame of a folder."""
    png = content.startswith(b'\x89PNG')
    return content[:HEADER] + MARK + content[HEADER:] if png else content


def is_drawn(path: Path) -> bool:
    """Return whether a file is a PNG that was drawn, by any command of this package."""
    if path.name == SHEET and path.with_name('report.json').is_file():
        return True  # of a set of a version that did not mark it
    if path.suffix.lower() == '.png' and path.is_file():  # opening a pipe would wait
        with suppress(OSError), path.open('rb') as file:
            return file.read(HEADER + len(MARK)).endswith(MARK)
    return False


def check_not_among(outputs: Collection[Path], frames: Collection[Path]) -> None:
    """Raise UserError for an output that is a frame, or a picture or video beside one."""
    check_not_inputs(outputs, frames)
    parents = {frame.parent for frame in frames if frame.suffix.lower() in IMAGE_SUFFIXES}
    folders = {parent.resolve() for parent in parents}
    for path in outputs:
        if (path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
                and path.parent.resolve() in folders):
            raise UserError(f'{path} would be one of the frames in its folder; choose another '
                            'folder.', 'output')


def natural(path: Path | str) -> list[tuple[list[tuple[int, Any]], str]]:
    """
    Return a key that sorts the numbers in names by value, folder by folder.

    Digits after the point of a number are text, as of a stamp: 12.1234 comes before 12.4.
    """
    key = []
    for name in Path(path).parts:
        values: list[tuple[int, Any]] = []  # numbers before text
        for text, number in re.findall(r'(\D*)(\d*)', name):
            fraction = text == '.' and bool(values)  # of the number before
            if text:
                values.append((1, text))
            if number:
                values.append((1, number) if fraction else (0, int(number)))
        key.append((values, name))
    return key


def is_stray(path: Path) -> bool:
    """Return whether a path in a folder is hidden, or of what archives and servers add."""
    return any(part.startswith('.') or part in ADDED for part in path.parts)


def to_gray(image: NDArray[Any]) -> NDArray[Any]:
    """Return gray (H, W) from gray or BGR (H, W, C); three equal channels keep their values."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 1:
        return image[:, :, 0]
    return cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2GRAY)


def read_bgr(path: str | Path) -> NDArray[np.uint8]:
    """Read a color image as (H, W, 3) uint8, BGR; UserError if it cannot be read."""
    return np.asarray(_read(path, cv2.IMREAD_COLOR), np.uint8)


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read a color image as (H, W, 3) uint8, RGB; UserError if it cannot be read."""
    return np.asarray(cv2.cvtColor(read_bgr(path), cv2.COLOR_BGR2RGB), np.uint8)


def is_gray(path: str | Path) -> bool:
    """Return whether an image file has one channel, or three equal ones."""
    try:
        image = _read(path)
    except UserError:
        return False
    return image.ndim == 2 or not np.ptp(image, axis=2).any()


def read_image(path: str | Path, place: int | None = None) -> NDArray[Any]:
    """
    Read an image as it is stored: 8- or 16-bit, gray or BGR; or floats, gray, as float32.

    place: of a page of a TIFF (`find_pages`); without, one with several is an error. The
    orientation that EXIF states is applied, as in programs that show or annotate images. UserError
    if it cannot be read.
    """
    image = _read(path, place=place)
    if image.dtype in (np.uint8, np.uint16):
        return image
    if image.ndim != 2:
        raise UserError(f'{path} has {image.dtype} pixels in {image.shape[2]} channels; a thermal '
                        'image has one.')
    return np.asarray(image, np.float32)


def read_thermal(path: str | Path) -> NDArray[Any]:
    """Read a thermal image of a set as (H, W) uint8 or uint16; UserError if it cannot be read."""
    image = read_image(path)
    if image.dtype == np.float32:
        raise UserError(f'{path} has floats as pixels (float32 when read), and the images of a '
                        'set have 8 or 16 bits; "cgdet data collect" stores temperatures in 16.')
    return to_gray(image)


def read_frame(path: str | Path, channels: int) -> NDArray[Any]:
    """Read a frame for a model with 1 (thermal) or 3 (RGB) input channels."""
    return read_thermal(path) if channels == 1 else read_rgb(path)


def find_pages(path: Path) -> list[int]:
    """Return the places of a TIFF's images, for `read_image`; none of another or a damaged one."""
    try:
        data = _bytes(path) if path.suffix.lower() in TIFF_SUFFIXES else b''
        return tiff_pages(data) if isinstance(data, mmap) else []
    except (OSError, ValueError):
        return []  # reading it raises the error


def _read(path: str | Path, flags: int = STORED, place: int | None = None) -> NDArray[Any]:
    """Decode a file; UserError names it."""
    try:
        data = _bytes(Path(path))
        if isinstance(data, mmap):
            pages = tiff_pages(data) if place is None else [place]
            if len(pages) > 1:
                raise ValueError(f'has {len(pages)} pages; save each as a file of its own')
            start = tiff_start(data, pages[0])
            data[:len(start)] = start
        return decode(data, flags)
    except OSError as error:
        reason = f'cannot be read: {error.strerror}'
    except IndexError:
        reason = 'has no images'
    except ValueError as error:
        kind = file_kind(Path(path)) if str(error).startswith('is not an image in one') else ''
        reason = f'is not an image, it seems to be {kind}' if kind else str(error)
    raise UserError(f'{path} {reason}.')


def _bytes(path: Path) -> bytes | mmap:
    """
    Return the content of an image file, of a TIFF as a map that is copied on write.

    Paths are opened here, by Python, as OpenCV ends the process for those that are not UTF-8.
    """
    if not path.is_file():  # opening a pipe would wait
        raise ValueError('is not an image file' if path.exists() else 'does not exist')
    with path.open('rb') as file:
        size = fstat(file.fileno()).st_size
        if format_of(file.read(8)) == 'TIFF':
            return mmap(file.fileno(), 0, access=ACCESS_COPY)
        if size > LARGEST:
            raise ValueError(f'has {size} bytes, the maximum is {LARGEST}')
        file.seek(0)
        return file.read()
