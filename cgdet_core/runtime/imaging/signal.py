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

"""What the pixels of a thermal camera mean: their unit, and whether hot is white or black."""

from typing import Any

from cgdet_core.errors import UserError
import numpy as np
from numpy.typing import NDArray

CARD = 'card'  # the unit of the model's card
# Kelvin per step, and the temperature of 0 in kelvin; None: no temperature.
UNITS: dict[str, tuple[float, float] | None] = {
    'counts': None,
    'fraction': None,  # 0 to 1 in float images
    'centikelvin': (0.01, 0.0),
    'decikelvin': (0.1, 0.0),
    'u10.6': (1 / 64, 273.15),  # Seek: 1/64 degree Celsius
    'optris': (0.1, 173.15),  # 0.1 degree Celsius above -100
    'kelvin': (1.0, 0.0),
    'celsius': (1.0, 273.15)}
NO_TEMPERATURE = tuple(unit for unit, scale in UNITS.items() if scale is None)
STEPS = {'counts': 1.0, 'fraction': 65535.0}  # of float images, as 16-bit integers
POLARITIES = ('white_hot', 'black_hot')
BLACK_HOT = POLARITIES[1:]  # of pixels that are not proportional to a temperature


def to_kelvin(frame: NDArray[Any], unit: str) -> NDArray[Any]:
    """
    Return a thermal frame (H, W) of a unit, one of UNITS, as float32 kelvin.

    Integers that are counts or fractions, 8-bit frames (which have no unit after a camera's gain
    control) and frames of the unit CARD are returned as they are. Floats that are counts or
    fractions become uint16, because float frames are normalized as kelvin.
    """
    if unit == CARD or frame.dtype == np.uint8:
        return frame
    scale = UNITS[unit]
    if scale is None:
        return to_steps(frame, unit)[0] if frame.dtype == np.float32 else frame
    step, zero = scale
    return np.asarray(frame * np.float32(step) + np.float32(zero), np.float32)


def to_steps(frame: NDArray[np.float32], unit: str) -> tuple[NDArray[np.uint16], int]:
    """Return float counts or fractions as uint16, and the number of values that are clipped."""
    values = np.rint(frame * np.float32(STEPS[unit]))
    stored = values.clip(0, 65535)
    return stored.astype(np.uint16), int(np.count_nonzero(values != stored))


def check_unit(unit: object, where: str) -> str:
    """Return a unit that is known; UserError names where another one was found."""
    if not isinstance(unit, str) or unit not in (CARD, *UNITS):
        raise UserError(f'{where}: the unit must be one of {", ".join(UNITS)}, not {unit!r}.')
    return unit


def check_polarity(polarity: object, where: str) -> str:
    """Return a polarity that is known; UserError names where another one was found."""
    if not isinstance(polarity, str) or polarity not in POLARITIES:
        raise UserError(f'{where}: the polarity must be {" or ".join(POLARITIES)}, not '
                        f'{polarity!r}.')
    return polarity


def check_signal(kind: str, unit: str, polarity: str, model: str, of: str = '') -> None:
    """Raise UserError if a kind of normalization needs temperatures and the frames have none."""
    for name, value, wrong in (('unit', unit, NO_TEMPERATURE), ('polarity', polarity, BLACK_HOT)):
        if kind == 'window' and value in wrong:
            raise UserError(f'{name}{of} is {value}, but {model} is normalized by temperature '
                            '("window"); choose a model with plateau normalization.')


def seen(frame: NDArray[Any], unit: str, polarity: str, expected: str) -> NDArray[Any]:
    """
    Return a frame of a unit in kelvin, see `to_kelvin`, in the polarity that a model expects.

    polarity: the frame's, '' if it is not known and the frame is taken as it is.
    """
    frame = to_kelvin(frame, unit)
    return frame if polarity in ('', expected) else inverted(frame)


def inverted(frame: NDArray[Any]) -> NDArray[Any]:
    """
    Return a frame with the other polarity: black hot of white hot and vice versa.

    Fractions stay from 0 to 1, as `normalize` knows them by these values.
    """
    if frame.dtype != np.float32:
        return np.invert(frame)
    some = frame[::8, ::8]
    some = some[np.isfinite(some)]  # dead pixels are filled later
    fractions = some.size > 0 and some.min() >= 0 and some.max() <= 1
    return np.float32(fractions) - frame
