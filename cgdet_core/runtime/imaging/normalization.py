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
Normalization of raw thermal frames, which is part of the model.

Cameras deliver 8-bit images after their own automatic gain, 14- or 16-bit counts, or
temperatures in hundredths of a kelvin. A street scene of 10 to 40 degrees C covers a few
hundred counts, so scaling 65536 counts to [0, 1] leaves about 12 of 256 gray levels. One
function with a named specification is used in training, evaluation and on the robot.
"""

from dataclasses import asdict, dataclass, fields
import math
from typing import Any

from cgdet_core.runtime.imaging.signal import UNITS
import cv2
import numpy as np
from numpy.typing import NDArray

KINDS = ('none', 'window', 'percentile', 'plateau')
BINS = 64  # of the plateau histogram
LARGE = 2**17  # pixels; from this size, statistics use every fourth row
STEPS = 2**14  # levels of a float frame between its percentiles

try:
    cv2.LUT(np.zeros((1, 1), np.uint16), np.zeros(65536, np.float32))
    LUT_16_BIT = True
except cv2.error:  # OpenCV 4
    LUT_16_BIT = False


@dataclass(frozen=True)
class Normalization:
    """
    The mapping of a raw frame to values in [0, 1].

    kind::

      none        divide by the largest value of the integer type (float frames: clip)
      window      low_kelvin -> 0, high_kelvin -> 1, for radiometric cameras
      percentile  the low and high percentile of each frame -> 0 and 1
      plateau     the same stretch, then histogram equalization with bins clipped at
                  `plateau_limit` times the mean bin: detail in the crowded gray levels (cars,
                  bicycles) without losing the hot ones (people)

    min_span_8bit, min_span_16bit: the smallest range in gray levels or counts that is stretched
    to [0, 1], so that a flat frame stays flat instead of showing its noise; float frames
    (kelvin) use min_span_16bit * kelvin_per_count, and fractions, from 0 to 1, 65535ths.
    kelvin_per_count, kelvin_offset: temperature = count * kelvin_per_count + kelvin_offset;
    the default is hundredths of a kelvin. In a recipe, `unit` names both (see `signal.UNITS`).
    """

    kind: str = 'plateau'  # none, window, percentile or plateau
    low_kelvin: float = 268.15  # window: temperature of 0
    high_kelvin: float = 313.15  # window: temperature of 1
    low_percentile: float = 0.5  # of a frame, for 0
    high_percentile: float = 99.9  # of a frame, for 1
    plateau_limit: float = 3.0  # plateau: largest bin, in mean bins
    min_span_8bit: float = 12.0  # smallest range that is stretched, in gray levels
    min_span_16bit: float = 100.0  # the same in counts
    kelvin_per_count: float = 0.01  # of 16-bit frames
    kelvin_offset: float = 0.0  # temperature of count 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'normalization kind {self.kind!r} is not one of {", ".join(KINDS)}')
        for name, value in self.to_dict().items():
            if name != 'kind' and not is_number(value):
                raise ValueError(f'normalization: {name} must be a finite number, not {value!r}')
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
        """Build from a model card's or recipe's entry; ValueError names a wrong key."""
        values = _with_unit(values)
        unknown = set(values) - {f.name for f in fields(Normalization)}
        if unknown:
            raise ValueError(f'normalization has no setting {sorted(unknown)[0]!r}')
        return Normalization(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the values for a model card."""
        return asdict(self)


def _with_unit(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose `unit`, of 16-bit frames, is replaced by its scale."""
    if 'unit' not in values:
        return values
    values = dict(values)
    unit = values.pop('unit')
    if not isinstance(unit, str) or unit not in UNITS:
        raise ValueError(f'normalization: unit must be one of {", ".join(UNITS)}, not {unit!r}')
    if not values.keys().isdisjoint(('kelvin_per_count', 'kelvin_offset')):
        raise ValueError('normalization: set unit or kelvin_per_count and kelvin_offset, not both')
    scale = UNITS[unit]
    if scale is None:
        if values.get('kind') == 'window':
            raise ValueError('normalization "window" needs temperatures, and the unit '
                             f'{unit} has none; use "percentile", "plateau" or "none"')
        return values
    return {**values, 'kelvin_per_count': scale[0], 'kelvin_offset': scale[1]}


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; True and False are not."""
    try:
        return (isinstance(value, int | float) and not isinstance(value, bool)
                and math.isfinite(value))
    except OverflowError:  # an integer beyond all floats
        return False


def normalize(frame: NDArray[Any], spec: Normalization, out: NDArray[np.float32] | None = None,
              finite: bool = False) -> NDArray[np.float32]:
    """
    Map a raw thermal frame to float32 in [0, 1]; brighter stays brighter (monotone).

    frame (H, W), uint8, uint16, or float32 in kelvin; may be a strided view, is not modified.
    out: (H, W) float32 to write into. finite: the frame is known to be, and is not searched for
    other values. Raises ValueError for an empty frame, another shape or type, or values that are
    not finite.
    """
    _check(frame)
    if not finite and frame.dtype == np.float32 and not np.isfinite(frame).all():
        raise ValueError('the float frame contains NaN or infinite values')
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


def _window(frame: NDArray[Any], spec: Normalization) -> tuple[float, float]:
    """Return the values that map to 0 and 1, in units of the frame."""
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
    shares = spec.low_percentile, spec.high_percentile
    low, high = np.percentile(_counted_rows(frame), shares)
    # No scene is within 1 K of absolute zero: these are fractions, whose unit was not stated.
    count = 1 / 65535 if 0 <= low and high <= 1 else spec.kelvin_per_count
    return _widened(float(low), float(high), spec.min_span_16bit * count)


def _stretch(first: int, cumulative: NDArray[np.float64], dtype: 'np.dtype[Any]',
             spec: Normalization) -> tuple[float, float]:
    """Return the two percentiles of a histogram, moved apart to the minimum span."""
    shares = np.array((spec.low_percentile, spec.high_percentile)) / 100 * cumulative[-1]
    low, high = first + np.searchsorted(cumulative[1:], shares)
    minimum = spec.min_span_8bit if dtype == np.uint8 else spec.min_span_16bit
    return _widened(float(low), float(high), minimum)


def _widened(low: float, high: float, minimum: float) -> tuple[float, float]:
    missing = max(0.0, minimum - (high - low))
    return low - missing / 2, high + missing / 2


def _counted_rows(frame: NDArray[Any]) -> NDArray[Any]:
    # The percentiles barely change, and rows, unlike columns, have no fixed-pattern noise on an
    # uncooled sensor.
    return frame[::4] if frame.size >= LARGE else frame


def _histogram(frame: NDArray[Any]) -> tuple[int, NDArray[np.float64]]:
    """Return the lowest level and the pixels below each, from it to one past the highest."""
    rows = _counted_rows(frame)
    first, last = int(rows.min()), int(rows.max())
    counts = cv2.calcHist([np.ascontiguousarray(rows)], [0], None,
                          [last - first + 1], [first, last + 1])
    cumulative = np.zeros(len(counts) + 1)
    np.cumsum(counts, out=cumulative[1:])
    return first, cumulative


def _plateau(frame: NDArray[Any], spec: Normalization,
             out: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Equalize with the histogram clipped at a plateau (Vickers, Opt. Eng. 35(7), 1996).

    The curve is the cumulative sum of 64 bins between the two percentiles, linear inside a
    bin, so that counts of any depth keep their steps and the curve does not depend on the
    unit. Half a mean bin is added to every bin, which bounds the gain of a nearly flat frame.
    """
    if frame.dtype == np.float32:
        frame = _levels(frame, _stretch_floats(frame, spec), out)
        first, below = _histogram(frame)
        low, high = 1.0, STEPS + 1.0
    else:
        first, below = _histogram(frame)
        low, high = _stretch(first, below, frame.dtype, spec)
    edges = np.linspace(low, high, BINS + 1)
    index = np.ceil(edges).astype(np.int64)
    index[-1] = int(high) + 1  # the last bin includes its upper edge
    counts = np.diff(below[np.clip(index - first, 0, len(below) - 1)]).astype(np.float32)
    mean = int(below[-1]) / BINS
    weights = np.minimum(counts, spec.plateau_limit * mean) + 0.5 * mean
    curve = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])  # at the edges
    return _look_up(frame, _table(first, first + len(below) - 2, edges, curve, frame.dtype), out)


def _levels(frame: NDArray[np.float32], window: tuple[float, float],
            scratch: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Quantize a float frame to levels 1 to STEPS + 1 of its window; others are outside it."""
    low, high = window
    np.subtract(frame, np.float32(low), out=scratch)
    np.multiply(scratch, np.float32(STEPS / (high - low)), out=scratch)
    np.add(scratch, np.float32(1.5), out=scratch)
    return np.clip(scratch, 0, STEPS + 2, out=scratch).astype(np.uint16)


def _table(first: int, last: int, edges: NDArray[np.float64], curve: NDArray[np.float64],
           dtype: 'np.dtype[Any]') -> NDArray[np.float32]:
    """
    Return the output value of each level of an integer type.

    The curve is evaluated only between the edges: with one dead pixel at 0 or 65535 that would
    be the whole table. Levels beyond the first and last counted one have their values.
    """
    start, stop = max(first, math.ceil(edges[0])), min(last, math.floor(edges[-1])) + 1
    table = np.empty(np.iinfo(dtype).max + 1, np.float32)
    table[start:stop] = np.interp(np.arange(start, stop), edges, curve)
    table[:start], table[stop:] = np.interp((first, last), edges, curve)
    return table


def _look_up(frame: NDArray[Any], table: NDArray[np.float32],
             out: NDArray[np.float32]) -> NDArray[np.float32]:
    if frame.dtype == np.uint16 and not LUT_16_BIT:
        # mode='clip' avoids a buffered copy; every level is in range.
        return np.take(table, frame, out=out, mode='clip')
    result = cv2.LUT(frame, table, out)
    if result is not out:
        out[...] = result
    return out
