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

"""
Corruptions of raw thermal frames in five strengths, to measure robustness.

A frame is corrupted before its normalization, in units of its span, the range between its 0.5th
and 99.9th percentile, so that 8-bit frames and counts of any camera are treated alike.
"""

from collections.abc import Callable
from typing import Any
import zlib

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Values = NDArray[np.float32]  # (H, W), 0 and 1 at the ends of the span
Raw = NDArray[Any]  # (H, W) uint8, uint16 or float32


def gain(x: Values, contrast: float, rng: Generator, fixed: Generator) -> Values:
    """Reduce the contrast about the median, as a camera of a lower gain does."""
    middle = np.median(x)
    return (middle + contrast * (x - middle)).astype(np.float32)


def offset(x: Values, shift: float, rng: Generator, fixed: Generator) -> Values:
    """Shift the frame up or down; what leaves the range of the type is saturated."""
    return x + np.float32(rng.choice((-shift, shift)))


def fixed_pattern(x: Values, deviation: float, rng: Generator, fixed: Generator) -> Values:
    """Add the same noise of pixels and columns to all frames."""
    noise = fixed.standard_normal(x.shape, np.float32)
    noise += fixed.standard_normal((1, x.shape[1]), np.float32)
    return x + np.float32(deviation / 2**0.5) * noise


def row_noise(x: Values, deviation: float, rng: Generator, fixed: Generator) -> Values:
    """Add noise of rows, another in each frame."""
    return x + np.float32(deviation) * rng.standard_normal((x.shape[0], 1), np.float32)


def blur(x: Values, pixels: float, rng: Generator, fixed: Generator) -> Values:
    """Blur with a standard deviation in pixels, as an unfocused lens does."""
    return np.asarray(cv2.GaussianBlur(x, (0, 0), pixels), np.float32)


def fog(x: Values, transmission: float, rng: Generator, fixed: Generator) -> Values:
    """
    Reduce the contrast with the distance, while the sensor's noise stays.

    The upper half has the transmission, the bottom row 1: there is no depth, and on the ground
    the distance grows with the height in the image.
    """
    height = x.shape[0]
    near = np.clip(2 * np.arange(height, dtype=np.float32) / height - 1, 0, 1)[:, None]
    share = transmission ** (1 - near)
    middle = np.median(x)
    noise = 0.01 * rng.standard_normal(x.shape, np.float32)
    return np.asarray(middle + share * (x - middle) + noise, np.float32)


def dead_pixels(x: Values, share: float, rng: Generator, fixed: Generator) -> Values:
    """Set the same pixels of all frames to the lowest or the highest value of the type."""
    draw = fixed.random(x.shape, np.float32)
    x = np.where(draw < share / 2, np.float32(-np.inf), x)
    return np.where(draw > 1 - share / 2, np.float32(np.inf), x)


def polarity(x: Values, share: float, rng: Generator, fixed: Generator) -> Values:
    """Invert this share of the frames: black hot."""
    return 1 - x if rng.random() < share else x


def jpeg(x: Values, quality: float, rng: Generator, fixed: Generator) -> Values:
    """Compress the span as 8-bit JPEG."""
    levels = np.clip(np.rint(255 * x), 0, 255).astype(np.uint8)
    _, data = cv2.imencode('.jpg', levels, (cv2.IMWRITE_JPEG_QUALITY, int(quality)))
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255


Corruption = Callable[[Values, float, Generator, Generator], Values]
# Each with its amounts in strengths 1 to 5.
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, float, float, float, float]]] = {
    'gain': (gain, (0.7, 0.5, 0.35, 0.2, 0.1)),
    'offset': (offset, (0.1, 0.2, 0.35, 0.5, 0.7)),
    'fixed-pattern noise': (fixed_pattern, (0.02, 0.04, 0.08, 0.12, 0.2)),
    'row noise': (row_noise, (0.02, 0.04, 0.08, 0.12, 0.2)),
    'blur': (blur, (0.7, 1.0, 1.5, 2.5, 4.0)),
    'fog': (fog, (0.7, 0.5, 0.35, 0.2, 0.1)),
    'dead pixels': (dead_pixels, (0.0005, 0.002, 0.005, 0.02, 0.05)),
    'polarity': (polarity, (0.2, 0.4, 0.6, 0.8, 1.0)),
    'JPEG': (jpeg, (60, 40, 25, 15, 8)),
}
STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(frame: Raw, name: str, strength: int, number: int = 0, seed: int = 0) -> Raw:
    """
    Return a corrupted copy of a raw frame, of the same type.

    name: one of CORRUPTIONS; strength: one of STRENGTHS; number: of the frame, which with the seed
    decides the random numbers. Fixed patterns are those of the seed.
    """
    function, amounts = CORRUPTIONS[name]
    key = seed, zlib.crc32(name.encode())
    low, high = np.percentile(frame, (0.5, 99.9))
    span = max(float(high - low), 1.0)
    values = (frame.astype(np.float32) - np.float32(low)) / np.float32(span)
    changed = function(values, amounts[strength - 1], np.random.default_rng((*key, number)),
                       np.random.default_rng(key))
    if frame.dtype == np.float32:  # dead pixels have a value as well
        return (low + span * np.clip(changed, -9, 9)).astype(np.float32)
    top = np.iinfo(frame.dtype).max
    # In float64, which has all integers of the type.
    return np.rint(np.clip(low + span * changed.astype(np.float64), 0, top)).astype(frame.dtype)
