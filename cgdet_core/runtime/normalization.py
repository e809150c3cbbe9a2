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
Normalisation of raw thermal frames: the part of the model that every camera changes.

Cameras deliver 8-bit pictures after their own automatic gain, 14- or 16-bit counts, or
temperatures in hundredths of a kelvin. A street scene of 10 to 40 degrees C covers a few
hundred counts, so scaling 65536 counts to [0, 1] leaves about 12 of 256 grey levels. One
function with a named specification is used in training, evaluation and on the robot.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

KINDS = ('none', 'window', 'percentile', 'plateau')
BINS = 64  # of the plateau histogram
LARGE = 2**17  # pixels from which on the histogram is of every fourth row

try:
    cv2.LUT(np.zeros((1, 1), np.uint16), np.zeros(65536, np.float32))
    LUT_16_BIT = True
except cv2.error:  # OpenCV 4
    LUT_16_BIT = False


@dataclass(frozen=True)
class Normalization:
    """
    Say how a raw frame becomes values in [0, 1].

    kind:
      none        divide by the largest value of the integer type (float frames: clip)
      window      low_kelvin -> 0, high_kelvin -> 1, for radiometric cameras
      percentile  the low and high percentile of each frame -> 0 and 1
      plateau     the same stretch, then histogram equalisation with bins clipped at
                  `plateau_limit` times the mean bin: detail in the crowded grey levels (cars,
                  bicycles) without giving up the hot ones (people)
    min_span_8bit, min_span_16bit: the least range in grey levels or counts that is stretched
    to [0, 1], so that a flat frame stays flat instead of showing its noise; float frames
    (kelvin) use min_span_16bit * kelvin_per_count.
    kelvin_per_count, kelvin_offset: temperature = count * kelvin_per_count + kelvin_offset;
    the default is hundredths of a kelvin.
    """

    kind: str = 'plateau'
    low_kelvin: float = 268.15
    high_kelvin: float = 313.15
    low_percentile: float = 0.5
    high_percentile: float = 99.9
    plateau_limit: float = 3.0
    min_span_8bit: float = 12.0
    min_span_16bit: float = 100.0
    kelvin_per_count: float = 0.01
    kelvin_offset: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'normalization kind {self.kind!r} is not one of {", ".join(KINDS)}')
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError('normalization needs 0 <= low_percentile < high_percentile <= 100')
        if not self.low_kelvin < self.high_kelvin:
            raise ValueError('normalization needs low_kelvin < high_kelvin')
        if min(self.kelvin_per_count, self.plateau_limit,
               self.min_span_8bit, self.min_span_16bit) <= 0:
            raise ValueError('normalization: kelvin_per_count, plateau_limit and min_span_* '
                             'must be positive')

    @staticmethod
    def from_dict(values: dict[str, Any]) -> 'Normalization':
        """Build from a model card's or recipe's entry; an unknown key is a ValueError."""
        unknown = set(values) - {f.name for f in fields(Normalization)}
        if unknown:
            raise ValueError(f'normalization has no setting {sorted(unknown)[0]!r}')
        return Normalization(**values)

    def to_dict(self) -> dict[str, Any]:
        """Give the values for a model card."""
        return asdict(self)


def normalize(
    frame: NDArray[Any], spec: Normalization, out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """
    Map a raw thermal frame to float32 in [0, 1]; brighter stays brighter (monotone).

    frame (H, W), uint8, uint16, or float32 in kelvin; may be a strided view, is not changed.
    out: (H, W) float32 to write into. Raises ValueError for an empty frame, another shape or
    type, or values that are not finite.
    """
    _check(frame)
    if out is None:
        out = np.empty(frame.shape, np.float32)
    if spec.kind == 'plateau':
        return _plateau(frame, spec, out)
    low, high = _window(frame, spec)
    scale = np.float32(1.0 / (high - low))
    np.multiply(frame, scale, out=out, dtype=np.float32, casting='unsafe')
    np.subtract(out, np.float32(low * scale), out=out)
    return np.clip(out, 0.0, 1.0, out=out)


def _check(frame: NDArray[Any]) -> None:
    if frame.ndim != 2 or frame.size == 0:
        raise ValueError(f'a thermal frame must have two dimensions and pixels, '
                         f'this one has shape {frame.shape}')
    if frame.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f'a thermal frame must be uint8, uint16 or float32, '
                         f'this one is {frame.dtype}')
    if frame.dtype == np.float32 and not np.isfinite(frame).all():
        raise ValueError('the float frame holds NaN or infinite values')


def _window(frame: NDArray[Any], spec: Normalization) -> tuple[float, float]:
    """Give the values that map to 0 and 1, in units of the frame."""
    if spec.kind == 'none':
        return 0.0, 1.0 if frame.dtype == np.float32 else float(np.iinfo(frame.dtype).max)
    if spec.kind == 'window':
        if frame.dtype == np.uint8:
            raise ValueError('normalization "window" needs temperatures; this frame is 8-bit, '
                             'use "percentile", "plateau" or "none"')
        if frame.dtype == np.float32:
            return spec.low_kelvin, spec.high_kelvin
        return ((spec.low_kelvin - spec.kelvin_offset) / spec.kelvin_per_count,
                (spec.high_kelvin - spec.kelvin_offset) / spec.kelvin_per_count)
    if frame.dtype == np.float32:
        return _stretch_floats(frame, spec)
    return _stretch(*_histogram(frame), frame.dtype, spec)


def _stretch_floats(frame: NDArray[np.float32], spec: Normalization) -> tuple[float, float]:
    low, high = np.percentile(frame, (spec.low_percentile, spec.high_percentile))
    return _widened(float(low), float(high), spec.min_span_16bit * spec.kelvin_per_count)


def _stretch(
    first: int, counts: NDArray[np.float32], dtype: 'np.dtype[Any]', spec: Normalization,
) -> tuple[float, float]:
    """Give the two percentiles of a histogram of levels, moved apart if too near."""
    cumulative = np.cumsum(counts, dtype=np.float64)
    shares = np.array((spec.low_percentile, spec.high_percentile)) / 100 * cumulative[-1]
    low, high = first + np.searchsorted(cumulative, shares)
    least = spec.min_span_8bit if dtype == np.uint8 else spec.min_span_16bit
    return _widened(float(low), float(high), least)


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    missing = max(0.0, least - (high - low))
    return low - missing / 2, high + missing / 2


def _histogram(frame: NDArray[Any]) -> tuple[int, NDArray[np.float32]]:
    """
    Count the levels of an integer frame; gives the lowest and one count a level from it.

    Of large frames every fourth row is counted: the percentiles barely move, and rows, unlike
    columns, carry no fixed pattern of an uncooled sensor.
    """
    rows = frame[::4] if frame.size >= LARGE else frame
    first, last = int(rows.min()), int(rows.max())
    counts = cv2.calcHist([np.ascontiguousarray(rows)], [0], None,
                          [last - first + 1], [first, last + 1])
    return first, counts.ravel()


def _plateau(
    frame: NDArray[Any], spec: Normalization, out: NDArray[np.float32],
) -> NDArray[np.float32]:
    """
    Equalise with the histogram clipped at a plateau (Vickers, Opt. Eng. 35(7), 1996).

    The curve is the cumulative sum of 64 bins between the two percentiles, linear inside a
    bin, so that counts of any depth keep their steps and the curve does not depend on the
    unit. Every bin gets half a mean bin on top: the gain of a nearly flat frame is bounded.
    """
    if frame.dtype == np.float32:
        edges = np.linspace(*_stretch_floats(frame, spec), BINS + 1)
        counts, _ = np.histogram(frame, edges)
        out[...] = np.interp(frame, edges, _curve(counts, frame.size, spec))
        return out
    first, fine = _histogram(frame)
    edges = np.linspace(*_stretch(first, fine, frame.dtype, spec), BINS + 1)
    levels = np.arange(first, first + len(fine))
    counts, _ = np.histogram(levels, edges, weights=fine)
    lut = np.empty(np.iinfo(frame.dtype).max + 1, np.float32)
    lut[levels] = np.interp(levels, edges, _curve(counts, int(fine.sum()), spec))
    lut[:first], lut[first + len(fine):] = lut[first], lut[levels[-1]]
    if frame.dtype == np.uint16 and not LUT_16_BIT:
        # mode='clip' spares numpy a buffered copy; every level is in range.
        return np.take(lut, frame, out=out, mode='clip')
    result = cv2.LUT(frame, lut, out)
    if result is not out:
        out[...] = result
    return out


def _curve(counts: NDArray[Any], pixels: int, spec: Normalization) -> NDArray[np.float64]:
    """Give the output value at each of the BINS + 1 edges."""
    mean = pixels / BINS
    weights = np.minimum(counts, spec.plateau_limit * mean) + 0.5 * mean
    return np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
