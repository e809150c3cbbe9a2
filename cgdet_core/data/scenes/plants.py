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

from collections.abc import Callable
from functools import partial
from typing import Any

from cgdet_core.data.scenes.drawing import noise, Panel, pyramid
import cv2
import numpy as np
from numpy.typing import NDArray


def plants(rng: np.random.Generator, density: float, ambient: float, half: float,
           crossing: float) -> list[tuple[float, float, Panel]]:
    """Return trees, bushes, lamps and signs with their x and z; density: texels per meter."""
    found = []
    for side in (-1, 1):
        z = float(rng.uniform(2, 10))
        while z < 95:
            x, kind = side * (half + float(rng.uniform(2.4, 4.5))), rng.random()
            paint: Callable[..., tuple[NDArray[Any], NDArray[Any]]]
            if kind < 0.5:
                size, paint = (rng.uniform(3.5, 6.0), rng.uniform(5.5, 9.0)), _tree
            elif kind < 0.65:
                size, paint = (rng.uniform(1.5, 4.0), rng.uniform(0.8, 1.6)), _bush
            elif kind < 0.85:
                x, size, paint = side * (half + 0.45), (4.0, 6.5), partial(_lamp, side)
            else:
                x, size, paint = side * (half + 0.45), (1.0, 2.9), _sign
            if abs(z - crossing) > half + 3:
                seed = int(rng.integers(1 << 32))
                found.append((x, z, _upright(
                    x, z, size, partial(_picture, seed, size, density, ambient, paint))))
            z += float(rng.uniform(4, 13))
    return found


def _upright(x: float, z: float, size: tuple[float, float],
             paint: Callable[[], NDArray[Any]]) -> Panel:
    """Return a panel that faces the camera, of size (width, height) in meters."""
    return Panel(np.array((x - size[0] / 2, size[1], z)), np.array((size[0], 0.0, 0.0)),
                 np.array((0.0, -size[1], 0.0)), lambda: pyramid(paint()))


def _picture(seed: int, size: tuple[float, float], density: float, ambient: float,
             paint: Callable[..., tuple[NDArray[Any], NDArray[Any]]]) -> NDArray[Any]:
    """Return temperatures and opacity (h, w, 2) of a plant or post, as `paint` draws it."""
    density = 2 * density if paint is not _tree else density
    shape = max(8, round(size[1] * density)), max(8, round(size[0] * density))
    kelvin, alpha = paint(np.random.default_rng(seed), shape, density, ambient)
    return np.dstack((kelvin, alpha)).astype(np.float32)


def _tree(rng: np.random.Generator, shape: tuple[int, int], density: float,
          ambient: float) -> tuple[NDArray[Any], NDArray[Any]]:
    v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    crown = 1 - (u[None] ** 2 + ((v[:, None] + 0.35) / 0.62) ** 2)
    leaves = crown * 1.6 + 0.5 * noise(rng, shape, max(3.0, density * 1.1), 5)
    alpha = np.clip(leaves * 5 - 0.6, 0, 1)
    kelvin = ambient + rng.uniform(-0.8, 0.8) + 0.5 * noise(
        rng, shape, max(3.0, density * 0.8), 5) + 0.6 * v[:, None]
    trunk = np.zeros(shape, np.uint8)
    middle, wide = shape[1] // 2, max(1, round(rng.uniform(0.18, 0.4) * density))
    cv2.line(trunk, (middle, shape[0]), (middle, round(shape[0] * 0.35)), 255, wide, cv2.LINE_AA)
    for _ in range(6):
        tip = (int(shape[1] * rng.uniform(0.15, 0.85)), int(shape[0] * rng.uniform(0.05, 0.4)))
        start = (middle, int(shape[0] * rng.uniform(0.4, 0.65)))
        cv2.line(trunk, start, tip, 255, max(1, wide // 2), cv2.LINE_AA)
    bark = trunk.astype(np.float32) / 255
    kelvin += bark * (alpha < 0.9) * rng.uniform(0.8, 2.5)
    return kelvin, np.maximum(alpha, bark)


def _bush(rng: np.random.Generator, shape: tuple[int, int], density: float,
          ambient: float) -> tuple[NDArray[Any], NDArray[Any]]:
    v, u = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    form = 1 - u[None] ** 4 - np.clip(-v[:, None] * 0.8, 0, 1) ** 2
    alpha = np.clip(form * 4 + 1.2 * noise(rng, shape, max(3.0, density * 0.4), 4) - 0.6, 0, 1)
    return ambient + 0.3 + 0.5 * noise(rng, shape, max(3.0, density * 0.5), 4), alpha


def _lamp(side: int, rng: np.random.Generator, shape: tuple[int, int], density: float,
          ambient: float) -> tuple[NDArray[Any], NDArray[Any]]:
    mask, warm = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    middle, top = shape[1] // 2, round(0.1 * density)
    tip = middle - side * round(1.7 * density), round(0.15 * density)
    head = tip[0] + side * round(0.5 * density), tip[1] + round(0.05 * density)
    for a, b, wide in (((middle, shape[0]), (middle, top), 0.16), ((middle, top), tip, 0.09),
                       (tip, head, 0.2)):
        cv2.line(mask, a, b, 255, max(1, round(wide * density)), cv2.LINE_AA)
    cv2.line(warm, tip, head, 1.0, max(1, round(0.2 * density)))
    kelvin = ambient - rng.uniform(0, 3) + warm * rng.uniform(2, 14)
    return kelvin, mask.astype(np.float32) / 255


def _sign(rng: np.random.Generator, shape: tuple[int, int], density: float,
          ambient: float) -> tuple[NDArray[Any], NDArray[Any]]:
    mask = np.zeros(shape, np.uint8)
    kelvin = np.full(shape, ambient - rng.uniform(0, 2), np.float32)
    middle, center = shape[1] // 2, (shape[1] // 2, round(0.36 * density))
    cv2.line(mask, (middle, shape[0]), center, 255, max(1, round(0.07 * density)), cv2.LINE_AA)
    # A disk, a triangle, a square or a diamond.
    corners, turn = ((16, 0.0), (3, -np.pi / 2), (4, np.pi / 4), (4, 0.0))[int(rng.integers(4))]
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    outline = np.rint(16 * (np.array(center) + 0.34 * density * np.stack(
        (np.cos(angles), np.sin(angles)), 1))).astype(np.int32)
    cv2.fillConvexPoly(mask, outline, 255, cv2.LINE_AA, 4)
    cv2.fillConvexPoly(kelvin, outline, ambient - rng.uniform(2, 7), cv2.LINE_8, 4)
    return kelvin, mask.astype(np.float32) / 255
