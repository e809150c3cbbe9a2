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
An uncooled thermal camera: blur, noise, fixed pattern, drift, shutter, counts and gain control.

NETD, the temperature difference that equals the noise, is 40 to 80 mK as in data sheets.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

COUNTS_PER_KELVIN = 25  # 14 bits of 0.04 K, the high resolution of radiometric cameras
FREEZE_S = (0.3, 0.5)  # how long a flat-field correction repeats the last frame
PERIOD_S = 90.0  # between two flat-field corrections
# Of the gain control: the largest share of the pixels that counts as one level's; the share of a
# straight curve, for detail in the warmest objects; that of the previous frame's curve, so that a
# warm object that enters does not flash; the enhancement of small differences, noise included.
PLATEAU, LINEAR, DAMPING, DETAIL = 0.003, 0.35, 0.85, 1.0

Kelvin = NDArray[np.float32]


@dataclass
class Sensor:
    """
    A camera of size (width, height) in pixels; the same seed is the same camera.

    A flat-field correction (shutter) measures the fixed pattern and subtracts it: what remains
    differs after each, and grows until the next. The first one comes within 4 to 12 s.
    """

    seed: int
    size: tuple[int, int]
    netd: float = field(init=False)  # kelvin
    blur: float = field(init=False)  # pixels, the optics' standard deviation
    shutter: float = field(init=False)  # seconds at which the first correction begins
    freeze: float = field(init=False)  # seconds that a correction lasts

    def __post_init__(self) -> None:
        rng = np.random.default_rng((self.seed, 1))
        self.netd = float(rng.uniform(0.04, 0.08))
        self.blur = float(rng.uniform(0.55, 0.95))
        self.shutter = float(rng.uniform(4.0, 12.0))
        self.freeze = float(rng.uniform(*FREEZE_S))
        shape = self.size[1], self.size[0]
        # Pixels that a camera has not found and replaced; they are too warm or too cold.
        self._error = np.zeros(shape, np.float32)
        bad = rng.integers(0, self._error.size, int(rng.poisson(3e-5 * self._error.size)))
        self._error.flat[bad] = rng.uniform(-6, 6, len(bad))
        v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
        self._shade = (u[None] ** 2 + v[:, None] ** 2) * float(rng.uniform(-0.35, 0.35))
        self._corrections = -1
        self._levels: NDArray[np.float64] | None = None
        self._correct(0)

    def _correct(self, number: int) -> None:
        """Set the fixed pattern after correction `number`."""
        if number == self._corrections:
            return
        rng = np.random.default_rng((self.seed, 2, number))
        height, width = self.size[1], self.size[0]
        self._pattern = 0.025 * rng.standard_normal((height, width), np.float32)
        self._pattern += 0.035 * rng.standard_normal((1, width), np.float32)
        self._pattern += 0.015 * rng.standard_normal((height, 1), np.float32)
        self._offset = float(rng.normal(0, 0.1))
        self._corrections = number

    def corrections(self, seconds: float) -> int:
        """Return the number of corrections that have begun."""
        return max(0, int((seconds - self.shutter) // PERIOD_S) + 1)

    def closed(self, seconds: float) -> bool:
        """Return whether the shutter is closed, and the last frame is repeated."""
        return 0 <= seconds - self.shutter and (
            (seconds - self.shutter) % PERIOD_S < self.freeze)

    def expose(self, kelvin: Kelvin, seconds: float, frame: int) -> Kelvin:
        """Return the temperatures (height, width) that are measured; frame: seed of the noise."""
        number = self.corrections(seconds)
        self._correct(number)
        since = seconds - (self.shutter + (number - 1) * PERIOD_S if number else -20.0)
        rng = np.random.default_rng((self.seed, 3, frame))
        image = cv2.GaussianBlur(kelvin, (0, 0), self.blur)
        image += self.netd * rng.standard_normal(kelvin.shape, np.float32)
        image += rng.normal(0, 0.2 * self.netd, (kelvin.shape[0], 1)).astype(np.float32)
        grown = min(1.0, since / PERIOD_S)
        image += (1 + grown) * self._pattern + grown * self._shade + self._offset + self._error
        return image

    def counts(self, kelvin: Kelvin) -> NDArray[np.uint16]:
        """Return the 14-bit counts of measured temperatures, 0.04 K each."""
        return np.clip(np.rint(kelvin * COUNTS_PER_KELVIN), 0, (1 << 14) - 1).astype(np.uint16)

    def agc(self, counts: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return the 8-bit output of a sequence's next frame: plateau equalization and damping."""
        histogram = np.bincount(counts.ravel() >> 1, minlength=1 << 13).astype(np.float64)
        clipped = np.minimum(histogram, PLATEAU * counts.size)
        curve = np.cumsum(clipped) - clipped / 2
        curve = (curve - curve[0]) / max(curve[-1] - curve[0], 1.0)
        low, high = np.searchsorted(np.cumsum(histogram), np.array((0.001, 0.999)) * counts.size)
        straight = np.clip((np.arange(len(curve)) - low) / max(high - low, 1), 0, 1)
        curve = 255 * ((1 - LINEAR) * curve + LINEAR * straight)
        if self._levels is not None:
            curve = DAMPING * self._levels + (1 - DAMPING) * curve
        self._levels = curve
        levels = curve.astype(np.float32)[counts >> 1]
        levels += DETAIL * (levels - cv2.GaussianBlur(levels, (0, 0), 2.0))
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
