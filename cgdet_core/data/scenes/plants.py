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


"""What stands beside a street: trees, bushes, lamps and signs."""

from typing import Any

from cgdet_core.data.scenes.drawing import noise, Panel, pyramid
import cv2
import numpy as np
from numpy.typing import NDArray


def plants(rng: np.random.Generator, density: float, ambient: float, half: float,
            crossing: float) -> list[tuple[float, float, Panel]]:
    """Return trees, bushes, posts and signs with their x and z."""
    found = []
    for side in (-1, 1):
        z = float(rng.uniform(2, 10))
        while z < 95:
            x = side * (half + float(rng.uniform(2.4, 4.5)))
            kind = rng.random()
            if abs(z - crossing) > half + 3:
                if kind < 0.5:
                    panel = _tree(rng, density, ambient, x, z)
                elif kind < 0.65:
                    panel = _bush(rng, density, ambient, x + side * 1.5, z)
                else:
                    x = side * (half + 0.45)
                    panel = _post(rng, density, ambient, x, z, side, kind < 0.85)
                found.append((x, z, panel))
            z += float(rng.uniform(4, 13))
    return found


def _upright(x: float, z: float, size: tuple[float, float], kelvin: NDArray[Any],
             alpha: NDArray[Any]) -> Panel:
    """Return a panel that faces the camera, of size (width, height) in meters."""
    return Panel(np.array((x - size[0] / 2, size[1], z)), np.array((size[0], 0.0, 0.0)),
                 np.array((0.0, -size[1], 0.0)), pyramid(kelvin), pyramid(alpha))


def _canvas(size: tuple[float, float], density: float) -> tuple[int, int]:
    return max(8, round(size[1] * density)), max(8, round(size[0] * density))


def _tree(rng: np.random.Generator, density: float, ambient: float, x: float,
          z: float) -> Panel:
    size = (float(rng.uniform(3.5, 6.0)), float(rng.uniform(5.5, 9.0)))
    shape = _canvas(size, density)
    v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    crown = 1 - (u[None] ** 2 + ((v[:, None] + 0.35) / 0.62) ** 2)
    leaves = crown * 2.2 + 0.55 * noise(rng, shape, max(3.0, density * 0.9), 4)
    alpha = np.clip(leaves * 3 - 0.4, 0, 1)
    kelvin = ambient + float(rng.uniform(-0.5, 1.2)) + 0.45 * noise(
        rng, shape, max(3.0, density * 0.8), 3) + 0.6 * v[:, None]
    trunk = np.zeros(shape, np.uint8)
    foot, top = (shape[1] // 2, shape[0]), (shape[1] // 2, round(shape[0] * 0.35))
    wide = max(1, round(float(rng.uniform(0.18, 0.4)) * density))
    cv2.line(trunk, foot, top, 255, wide, cv2.LINE_AA)
    for _ in range(4):
        tip = (int(shape[1] * rng.uniform(0.2, 0.8)), int(shape[0] * rng.uniform(0.1, 0.4)))
        start = (shape[1] // 2, int(shape[0] * rng.uniform(0.4, 0.65)))
        cv2.line(trunk, start, tip, 255, max(1, wide // 2), cv2.LINE_AA)
    bark = trunk.astype(np.float32) / 255
    bare = bark * (alpha < 0.9)
    kelvin += bare * float(rng.uniform(0.8, 2.5))
    return _upright(x, z, size, kelvin, np.maximum(alpha, bark))


def _bush(rng: np.random.Generator, density: float, ambient: float, x: float,
          z: float) -> Panel:
    size = (float(rng.uniform(1.5, 4.0)), float(rng.uniform(0.8, 1.6)))
    shape = _canvas(size, density)
    v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    round_top = 1 - u[None] ** 4 - np.clip(-v[:, None] * 0.8, 0, 1) ** 2
    edge = 1.2 * noise(rng, shape, max(3.0, density * 0.4), 3)
    alpha = np.clip(round_top * 4 + edge - 0.6, 0, 1)
    kelvin = ambient + 0.3 + 0.5 * noise(rng, shape, max(3.0, density * 0.5), 3)
    return _upright(x, z, size, kelvin, alpha)


def _post(rng: np.random.Generator, density: float, ambient: float, x: float, z: float,
          side: int, lamp: bool) -> Panel:
    size = (4.0, 6.5) if lamp else (1.0, 2.9)
    fine = density * 2
    shape = _canvas(size, fine)
    mask = np.zeros(shape, np.uint8)
    kelvin = np.full(shape, ambient - float(rng.uniform(0, 3)), np.float32)
    middle = shape[1] // 2
    cv2.line(mask, (middle, shape[0]), (middle, round(0.1 * fine)), 255,
             max(1, round((0.16 if lamp else 0.07) * fine)), cv2.LINE_AA)
    if lamp:
        tip = middle - side * round(1.7 * fine), round(0.15 * fine)
        cv2.line(mask, (middle, round(0.1 * fine)), tip, 255, max(1, round(0.09 * fine)),
                 cv2.LINE_AA)
        head = (tip[0] + side * round(0.5 * fine), tip[1] + round(0.05 * fine))
        cv2.line(mask, tip, head, 255, max(1, round(0.2 * fine)), cv2.LINE_AA)
        warm = np.zeros(shape, np.float32)
        cv2.line(warm, tip, head, 1.0, max(1, round(0.2 * fine)))
        kelvin += warm * float(rng.uniform(2, 14))
    else:
        cv2.circle(mask, (middle, round(0.35 * fine)), max(1, round(0.32 * fine)), 255, -1,
                   cv2.LINE_AA)
        cv2.circle(kelvin, (middle, round(0.35 * fine)), max(1, round(0.33 * fine)),
                   ambient - float(rng.uniform(2, 8)), -1)
    return _upright(x, z, size, kelvin, mask.astype(np.float32) / 255)
