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

"""From a raw frame to the network's input."""

from typing import Any

from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.imaging.geometry import Letterbox
from cgdet_core.runtime.imaging.normalization import normalize
import numpy as np
from numpy.typing import NDArray


def prepare(
    frame: NDArray[Any], card: DetectionCard, out: NDArray[np.float32],
    scratch: NDArray[np.float32] | None = None,
) -> Letterbox:
    """
    Normalize and letterbox a raw frame into `out` (C, H, W).

    frame: (H, W) thermal, or (H, W, 3) RGB uint8 if the card has three channels. scratch: a
    buffer (H, W) of the frame's size, as allocating a large array is slower. ValueError for a
    frame that cannot be normalized.
    """
    if card.channels == 3:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f'an RGB image must be (H, W, 3) uint8, this one is {frame.shape}')
    elif frame.ndim != 2 or frame.size == 0:
        raise ValueError(f'a thermal frame must be two-dimensional and not empty, '
                         f'this one has shape {frame.shape}')
    box = Letterbox((frame.shape[1], frame.shape[0]), card.input_size)
    if card.channels == 3:
        for channel in range(3):
            box.apply(frame[..., channel].astype(np.float32) / np.float32(255), out[channel])
    elif box.fitted == box.source:
        normalize(frame, card.normalization, box.window(out[0]))
    else:
        box.apply(normalize(frame, card.normalization, scratch), out[0])
    return box
