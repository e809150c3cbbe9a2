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

from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
import cv2
import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.pgm')
BAG_SUFFIXES = ('.mcap', '.db3')  # of bags that are single files
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mkv', '.mov', '.webm')


def is_bag(path: Path) -> bool:
    """Return whether a path is a bag, a folder or a single file."""
    return path.suffix.lower() in BAG_SUFFIXES or (path / 'metadata.yaml').is_file()


def lacks_metadata(path: Path) -> bool:
    """Return whether a folder contains bag files but no metadata, as after a killed recorder."""
    return path.is_dir() and not (path / 'metadata.yaml').is_file() and any(
        p.suffix.lower() in BAG_SUFFIXES for p in path.iterdir())


def to_gray(image: NDArray[Any]) -> NDArray[Any]:
    """Return gray (H, W) from gray or BGR (H, W, C); three equal channels keep their values."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 1:
        return image[:, :, 0]
    return cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2GRAY)


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read a color image as (H, W, 3) uint8, RGB; UserError if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if Path(path).is_file() else None
    if image is None:
        reason = 'is not an image OpenCV can read' if Path(path).exists() else 'does not exist'
        raise UserError(f'The RGB image {path} {reason}.')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def is_gray(path: str | Path) -> bool:
    """Return whether an image file has one channel, or three equal ones."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return image is not None and (image.ndim == 2 or not np.ptp(image[..., :3], axis=2).any())


def read_image(path: str | Path) -> NDArray[Any]:
    """Read an 8- or 16-bit image as it is stored, gray or BGR; UserError if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if Path(path).is_file() else None
    if image is None:
        reason = 'is not an image OpenCV can read' if Path(path).exists() else 'does not exist'
        raise UserError(f'{path} {reason}.')
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f'{path} has {image.dtype} pixels; '
                        'a thermal image must be 8- or 16-bit.')
    return image


def read_thermal(path: str | Path) -> NDArray[Any]:
    """Read a thermal image as (H, W) uint8 or uint16; UserError if it cannot be read."""
    return to_gray(read_image(path))


def read_frame(path: str | Path, channels: int) -> NDArray[Any]:
    """Read a frame for a model with 1 (thermal) or 3 (RGB) input channels."""
    return read_thermal(path) if channels == 1 else read_rgb(path)
