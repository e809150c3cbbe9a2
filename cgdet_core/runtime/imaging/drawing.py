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

"""Draw boxes on thermal frames for display."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import cv2
import numpy as np
from numpy.typing import NDArray

# BGR; distinguishable with color blindness (Okabe and Ito, 2008).
COLORS = ((0, 94, 213), (115, 158, 0), (233, 180, 86), (66, 228, 240), (167, 121, 204))
TRUTH_COLOR = (255, 255, 255)


def draw(frame: NDArray[Any], normalization: Normalization, boxes: NDArray[np.float32],
         texts: Sequence[str], colors: Sequence[tuple[int, int, int]],
         truth: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) BGR with boxes (D, 4); truth (M, 4): below them in thin white."""
    gray = (normalize(frame, normalization) * 255).astype(np.uint8)
    picture = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    for box in np.rint(truth).astype(int) if truth is not None else ():
        cv2.rectangle(picture, box[:2].tolist(), box[2:].tolist(), TRUTH_COLOR, 1)
    for box, text, color in zip(np.rint(boxes).astype(int), texts, colors):
        cv2.rectangle(picture, box[:2].tolist(), box[2:].tolist(), color, 2)
        above = int(box[0]), int(max(10, box[1] - 3))
        cv2.putText(picture, text, above, cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, 1, cv2.LINE_AA)
    return picture


def contact_sheet(pictures: list[NDArray[np.uint8]], columns: int = 4,
                  width: int = 480) -> NDArray[np.uint8]:
    """Arrange images (H, W, 3) in rows of `columns`, each scaled to `width` pixels."""
    tiles = [cv2.resize(p, (width, max(1, round(p.shape[0] * width / p.shape[1]))),
                        interpolation=cv2.INTER_AREA) for p in pictures]
    height = max(t.shape[0] for t in tiles)
    tiles = [cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, 0, cv2.BORDER_CONSTANT)
             for t in tiles]
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    return np.vstack([np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)])


def save_picture(path: Path, picture: NDArray[Any]) -> Path:
    """Write an image, gray or BGR, atomically in the format of its suffix, and return its path."""
    good, encoded = cv2.imencode(path.suffix, picture)
    if not good:
        raise UserError(f'The image {path.name} cannot be encoded.')
    write_atomically(path, encoded.tobytes())
    return path
