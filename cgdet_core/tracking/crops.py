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

"""Crops of training samples: cut around an object, changed in shape, contrast and content."""

from dataclasses import dataclass

from cgdet_core.runtime.tracking.region import Region
from cgdet_core.tracking.config import CropConfig
import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Levels = NDArray[np.uint8]  # a normalized frame in 256 levels
Box = NDArray[np.float64]


@dataclass(frozen=True)
class Crop:
    """
    A square crop in [0, 1], and the box (4,) of the object in its pixels.

    (S, S) thermal, or (S, S, 4) thermal and RGB.
    """

    image: Image
    box: Box


def cut(image: Levels, box: Box, side: float, size: int, rng: np.random.Generator,
        shift: float = 0.0, scale: float = 0.0, stretch: float = 0.0) -> Crop:
    """
    Cut a crop (size, size) around a box of an image (H, W), or (size, size, C) of (H, W, C).

    side: relative to the root of the box's area; shift, scale, stretch: largest of the changes,
    see `CropConfig`.
    """
    root = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))
    length = side * root * float(np.exp(rng.uniform(-scale, scale)))
    dx, dy = rng.uniform(-shift, shift, 2) * root
    x, y = (box[0] + box[2]) / 2 + dx - length / 2, (box[1] + box[3]) / 2 + dy - length / 2
    region = Region(float(x), float(y), length, size)
    found = region.cut(image).astype(np.float32) / np.float32(255)
    mapped = region.to_input(box)
    if stretch:
        a = float(np.exp(rng.uniform(-stretch, stretch)))
        center = size / 2
        middle = center - 0.5  # as OpenCV counts from the center of the first pixel
        matrix = np.array([(a, 0, middle - a * middle), (0, 1 / a, middle - middle / a)])
        found = np.asarray(cv2.warpAffine(found, matrix, (size, size),
                                          borderMode=cv2.BORDER_REPLICATE), np.float32)
        factors = np.array([a, 1 / a] * 2)
        mapped = center + (mapped - center) * factors
    return Crop(found, mapped)


def mirror(crop: Crop) -> Crop:
    """Return a crop with left and right exchanged."""
    size = crop.image.shape[1]
    x1, y1, x2, y2 = crop.box
    return Crop(np.ascontiguousarray(crop.image[:, ::-1]),
                np.array([size - x2, y1, size - x1, y2]))


def paste(crop: Crop, patch: Levels, place: tuple[float, float],
          size: tuple[float, float]) -> Crop:
    """Return a crop with a patch, with soft edges, centered at `place`; size: width, height."""
    width, height = (max(2, round(v)) for v in size)
    pixels = cv2.resize(patch, (width, height)).astype(np.float32) / np.float32(255)
    rows, columns = (np.minimum(1, 4 * (0.5 - np.abs(np.linspace(-0.5, 0.5, n + 2)[1:-1])))
                     for n in (height, width))
    alpha = (rows[:, None] * columns).astype(np.float32)
    x, y = round(place[0] - width / 2), round(place[1] - height / 2)
    total = crop.image.shape[0]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, total), min(y + height, total)
    if right <= left or bottom <= top:
        return crop
    image = crop.image.copy()
    inner = (slice(top - y, bottom - y), slice(left - x, right - x))
    window = image[top:bottom, left:right]
    blend = alpha[inner].reshape(window.shape[:2] + (1,) * (window.ndim - 2))
    window += blend * (pixels[inner] - window)
    return Crop(image, crop.box)


def occlude(crop: Crop, other: Levels, rng: np.random.Generator) -> Crop:
    """Return a crop in which a part of another frame hides a part of the object."""
    width, height = crop.box[2] - crop.box[0], crop.box[3] - crop.box[1]
    share = rng.uniform(0.25, 0.6)
    if rng.random() < 0.5:  # a post
        size, place = (share * width, 1.6 * height), (rng.uniform(crop.box[0], crop.box[2]),
                                                      (crop.box[1] + crop.box[3]) / 2)
    else:  # a wall or hedge
        size = 2 * width, share * height
        place = ((crop.box[0] + crop.box[2]) / 2,
                 float(rng.choice((crop.box[1] + size[1] / 2, crop.box[3] - size[1] / 2))))
    rows, columns = (max(4, int(n * 0.15)) for n in other.shape[:2])
    y, x = rng.integers(other.shape[0] - rows), rng.integers(other.shape[1] - columns)
    return paste(crop, other[y:y + rows, x:x + columns], place, size)


def distract(crop: Crop, patch: Levels, rng: np.random.Generator) -> Crop:
    """Return a crop with another object beside the one of its box."""
    box = crop.box
    size = np.array((box[2] - box[0], box[3] - box[1])) * np.exp(rng.uniform(-0.25, 0.25))
    angle = rng.choice((0.0, np.pi)) + rng.normal(0, 0.6)
    center = (box[:2] + box[2:]) / 2
    move = np.array((np.cos(angle), np.sin(angle))) * rng.uniform(1.0, 1.8) * size
    return paste(crop, patch, (float(center[0] + move[0]), float(center[1] + move[1])),
                 (float(size[0]) * 1.2, float(size[1]) * 1.2))


def jitter(image: Image, config: CropConfig, rng: np.random.Generator) -> Image:
    """Return an image with another contrast, brightness, sharpness and noise, in [0, 1]."""
    gain = rng.uniform(1 - config.gain, 1 + config.gain)
    middle = float(image.mean())
    found = np.clip((image - middle) * gain + middle + rng.uniform(-1, 1) * config.offset, 0, 1)
    if config.gamma:
        cv2.pow(found, float(np.exp(rng.uniform(-config.gamma, config.gamma))), found)
    if rng.random() < config.blur:
        if rng.random() < 0.5:
            found = cv2.GaussianBlur(found, (0, 0), rng.uniform(0.5, 2.0))
        else:  # motion
            length = int(rng.integers(3, 9))
            found = cv2.blur(found, (length, 1) if rng.random() < 0.7 else (1, length))
    if config.noise:
        sigma = rng.uniform(0, config.noise)
        found = found + sigma * rng.standard_normal(found.shape, np.float32)
    return np.clip(found, 0, 1).astype(np.float32)
