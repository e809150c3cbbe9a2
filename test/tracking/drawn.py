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

"""Drawn sequences: a warm square that moves over a rough background."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = 20  # pixels, of the square
SHAPE = (96, 128)


def boxes(count: int, step: float = 3.0) -> NDArray[np.float64]:
    """Return x, y, w, h (count, 4) of a square that moves `step` pixels a frame to the right."""
    x = 10 + step * np.arange(count)
    return np.stack([x, np.full(count, 30.0), *np.full((2, count), SIZE)], axis=1)


def frames(count: int, dtype: type = np.uint8, step: float = 3.0) -> list[NDArray[np.generic]]:
    """Return raw frames (H, W) with the square of `boxes`."""
    rng = np.random.default_rng(0)
    rough = cv2.GaussianBlur(rng.uniform(0, 255, SHAPE), (0, 0), 2)
    texture = rng.uniform(180, 250, (SIZE, SIZE))
    drawn = []
    for x, y, w, h in boxes(count, step).round().astype(int):
        frame = rough.copy()
        frame[y:y + h, x:x + w] = texture
        drawn.append((frame * (1 if dtype == np.uint8 else 8) + (0, 7000)[dtype != np.uint8])
                     .astype(dtype))
    return drawn


def write_frames(folder: Path, count: int, dtype: type = np.uint8, first: int = 0) -> list[str]:
    """Write the frames as images and return their names."""
    folder.mkdir(parents=True)
    names = []
    for i, frame in enumerate(frames(count, dtype)):
        names.append(f'{first + i:06d}.png')
        cv2.imwrite(str(folder / names[-1]), frame)
    return names


def write_video(path: Path, count: int, rate: float = 20.0) -> None:
    """Write the frames as a video of OpenCV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), rate, SHAPE[::-1], False)
    for frame in frames(count):
        writer.write(frame)
    writer.release()


def write_table(path: Path, names: list[str], truth: NDArray[np.float64]) -> None:
    """Write a truth as CSV."""
    lines = ['file,x,y,w,h', *(f'{name},{",".join(map(str, box))}'
                               for name, box in zip(names, truth.tolist()))]
    path.write_text('\n'.join(lines) + '\n')


def write_sequence(folder: Path, count: int = 8, dtype: type = np.uint8) -> Path:
    """Write a plain sequence with a box in every frame."""
    names = write_frames(folder / 'thermal', count, dtype)
    write_table(folder / 'gt_thermal.csv', names, boxes(count))
    return folder
