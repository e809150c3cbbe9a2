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
A street at night: sky, hills, road, pavements, buildings, trees, posts and their temperatures.

The street runs ahead (z), with a side street across it. A clear sky is colder than the air; what
sees much of it (roofs, grass) is colder than what does not; asphalt keeps the warmth of the day.
"""

from dataclasses import dataclass
from functools import partial
from math import hypot

from cgdet_core.data.scenes.drawing import (
    Array,
    FOCAL,
    HORIZON,
    Image,
    noise,
    Panel,
    pyramid,
    SHIFT,
    View,
)
from cgdet_core.data.scenes.plants import plants
import cv2
import numpy as np

BEHIND, AHEAD, SIDE = 8.0, 110.0, 24.0  # extent of the ground's texture, meters
BANDS = (0.0, 7.0, 18.0, 45.0, 110.0)  # meters from the camera, drawn at one resolution each
SWING = 0.25  # radians to which the camera may turn


@dataclass
class Street:
    """What stands still. half: of the road's width; crossing: z of the side street's axis."""

    ambient: float
    half: float
    crossing: float
    sky: float
    ground: list[Image]
    backdrop: Image
    marks: list[tuple[float, list[Array]]]
    buildings: list[Panel]
    plants: list[tuple[float, float, Panel]]

    @staticmethod
    def random(rng: np.random.Generator, size: tuple[int, int], ambient: float) -> 'Street':
        """Return a street for images of size (width, height)."""
        half = float(rng.uniform(3.6, 5.5))
        crossing = float(rng.uniform(38, 50))
        sky = ambient - float(rng.uniform(25, 42))
        density = size[0] / 40  # texels per meter
        ground = _ground(rng, density, ambient, half, crossing)
        return Street(
            ambient, half, crossing, sky, pyramid(ground, 5),
            _backdrop(rng, size, ambient, sky),
            [(float(rng.uniform(-1.6, 0.7)), _marks(half, crossing)),
             (float(rng.uniform(-2.5, 1.0)), _covers(rng, half))],
            _buildings(rng, density, ambient, half, crossing),
            plants(rng, density, ambient, half, crossing))

    def background(self, view: View) -> Image:
        """Return sky, ground and buildings (height, width) in kelvin."""
        width, height = view.width, view.height
        focal = view.focal
        move = np.array(((1, 0, -focal * (SWING + view.yaw)),
                         (0, 1, -focal * view.pitch - 0.3 * HORIZON * height)))
        horizon = HORIZON * height - focal * view.pitch
        first = int(np.clip(horizon + 1, 1, height))
        image = np.full((height, width), self.ambient - 3, np.float32)
        cv2.warpAffine(self.backdrop, move, (width, first), image[:first], cv2.INTER_LINEAR,
                       cv2.BORDER_REPLICATE)
        for near, far in reversed(list(zip(BANDS, BANDS[1:]))):
            panel = self._band(view.z + 0.85 * near, view.z + far)
            sprite = panel.draw(view) if panel else None
            if sprite:
                sprite.onto(image)
        for warmer, marks in self.marks:
            mask = np.zeros((height - first, width), np.uint8)
            for mark in marks:
                outline = view.outline(mark)
                if outline is not None:
                    cv2.fillConvexPoly(mask, outline - np.array((0, first << SHIFT), np.int32),
                                       255, cv2.LINE_AA, SHIFT)
            image[first:] += mask.astype(np.float32) * (warmer / 255)
        # At a grazing angle the ground reflects the sky (Fresnel).
        below = np.maximum(np.arange(first, height) + 0.5 - horizon, 0.5) / focal
        mirror = 0.26 * (1 - below / np.sqrt(1 + below ** 2)) ** 7
        image[first:] += (mirror * (self.sky - self.ambient)).astype(np.float32)[:, None]
        walls: list[tuple[float, Panel]] = []
        for wall in self.buildings:
            (x, _, z), (right_x, _, right_z) = wall.origin.tolist(), wall.right.tolist()
            if right_z * (view.x - x) > right_x * (view.z - z):  # it faces the camera
                walls.append((hypot(x + right_x / 2 - view.x, z + right_z / 2 - view.z), wall))
        for _, wall in sorted(walls, key=lambda item: -item[0]):
            sprite = wall.draw(view)
            if sprite:
                sprite.onto(image)
        return image

    def _band(self, near: float, far: float) -> Panel | None:
        """Return the ground between two z in meters."""
        rows = self.ground[0].shape[0]
        density = rows / (BEHIND + AHEAD)
        step = 1 << (len(self.ground) - 1)
        first = max(0, int((near + BEHIND) * density) // step * step)
        last = min(rows // step * step, int((far + BEHIND) * density) // step * step)
        if last - first < 2 * step:
            return None
        levels = [level[first >> i:last >> i] for i, level in enumerate(self.ground)]
        return Panel(np.array((-SIDE, 0, first / density - BEHIND)),
                     np.array((2 * SIDE, 0.0, 0.0)),
                     np.array((0, 0, (last - first) / density)), lambda: levels)


def _ground(rng: np.random.Generator, density: float, ambient: float, half: float,
            crossing: float) -> Image:
    """Return the temperatures of the ground, seen from above; row 0 is the nearest."""
    step = 16  # rows and columns divide by the levels' steps
    rows = round((BEHIND + AHEAD) * density) // step * step
    columns = round(2 * SIDE * density) // step * step
    road = ambient + float(rng.uniform(1.5, 5.0))
    grass = ambient - float(rng.uniform(1.0, 4.0))
    walk = ambient + float(rng.uniform(0.0, 3.0))
    x = (np.arange(columns) + 0.5) / columns * 2 * SIDE - SIDE
    z = (np.arange(rows) + 0.5) / rows * (BEHIND + AHEAD) - BEHIND
    image = np.full((rows, columns), grass, np.float32)
    image += noise(rng, image.shape, density * 6, 3) * 0.6
    across = np.abs(z - crossing)
    wide = half + float(rng.uniform(2.2, 3.5))
    image[:, np.abs(x) < wide] = walk
    image[across < wide] = walk
    on_road = (np.abs(x) < half)[None] | (across < half)[:, None]
    lane = half / 2
    # Tires warm their tracks, and oil and shade darken the middle of a lane.
    tracks = sum(np.exp(-((np.abs(x) - lane + s * 0.8) / 0.28) ** 2) for s in (-1, 1))
    profile = road + 0.7 * tracks - 0.5 * np.exp(-((np.abs(x) - half) / 0.5) ** 2)
    image = np.where(on_road, profile.astype(np.float32)[None], image)
    image += noise(rng, image.shape, density * 9, 2) * 0.35
    # Streaks along the road, and patches.
    streaks = noise(rng, (max(2, rows // 24), columns), 3)
    image += cv2.resize(streaks, (columns, rows), interpolation=cv2.INTER_LINEAR) * 0.18
    for _ in range(8):
        cx, cz = rng.uniform(-half, half), rng.uniform(0, AHEAD * 0.6)
        x1, z1 = int((cx + SIDE) * density), int((cz + BEHIND) * density)
        x2, z2 = (int(v + rng.uniform(*span) * density) for v, span in (
            (x1, (0.8, 3)), (z1, (1, 6))))
        image[z1:z2, x1:x2] += rng.uniform(-0.9, 0.6)
    curb = np.abs(np.abs(x) - half) < 0.12
    image[np.ix_(across > half, curb)] += float(rng.uniform(-2.0, 2.0))
    return image + 0.12 * rng.standard_normal(image.shape, np.float32)


def _marks(half: float, crossing: float) -> list[Array]:
    """Return the road's markings as polygons on the ground."""
    def box(x1: float, x2: float, z1: float, z2: float) -> Array:
        return np.array(((x1, 0, z1), (x2, 0, z1), (x2, 0, z2), (x1, 0, z2)))

    stop = crossing - half - 4.0
    marks = [box(-0.07, 0.07, z, z + 3) for z in np.arange(-6, stop - 4, 7.5)]
    marks += [box(-0.07, 0.07, z, z + 3) for z in np.arange(crossing + half + 5, 110, 7.5)]
    for side in (-1, 1):
        x = side * (half - 0.35)
        marks += [box(x - 0.06, x + 0.06, -8, stop), box(x - 0.06, x + 0.06, crossing + half, 110)]
    marks += [box(0.2, half - 0.4, stop - 0.5, stop)]
    marks += [box(x, x + 0.45, stop + 0.7, stop + 3.2) for x in np.arange(-half + 0.3, half, 0.95)]
    return marks


def _covers(rng: np.random.Generator, half: float) -> list[Array]:
    """Return manhole covers as polygons on the ground."""
    turn = np.arange(16) * np.pi / 8
    circle = 0.33 * np.stack((np.cos(turn), 0 * turn, np.sin(turn)), 1)
    return [circle + (x, 0, z) for x, z in zip(rng.uniform(-half, half, 8), rng.uniform(3, 70, 8))]


def _backdrop(rng: np.random.Generator, size: tuple[int, int], ambient: float,
              sky: float) -> Image:
    """Return sky, clouds, hills and far trees, wider than the image by twice SWING."""
    width, height = size
    focal = FOCAL * width
    wide, horizon = round(width + 2 * SWING * focal), round(HORIZON * height * 1.3)
    tall = horizon + round(0.1 * height)
    elevation = np.maximum(horizon - np.arange(tall), 0) / focal
    column = sky + (ambient - 6 - sky) * np.exp(-elevation / 0.10)
    image = np.repeat(column.astype(np.float32)[:, None], wide, 1)
    clouds = np.clip(noise(rng, (tall, wide), width / 3, 4) - rng.uniform(-0.3, 1.5), 0, 2)
    image += clouds * float(rng.uniform(0.5, 4.0)) * cv2.resize(
        np.array([[1.0], [0.3]], np.float32), (wide, tall))
    x = np.arange(wide)
    for tallness, kelvin, cell, rough in ((0.055, 0.5, 0.5, 2), (0.032, -0.8, 0.12, 4)):
        line = noise(rng, (2, wide), cell * width, rough)[0]
        tallness *= focal * rng.uniform(0.5, 1.2)
        top = horizon - np.maximum(line * 0.5 + 1.0, 0.1) * tallness
        outline = np.concatenate((np.stack((x, top), 1), [(wide, tall), (0, tall)]))
        mask = np.zeros(image.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        level = ambient + kelvin + float(rng.uniform(-1, 1)) + 0.35 * noise(
            rng, image.shape, max(4.0, width / 40), 2)
        image += mask.astype(np.float32) / 255 * (level - image)
    return image


def _buildings(rng: np.random.Generator, density: float, ambient: float, half: float,
               crossing: float) -> list[Panel]:
    """Return the walls of the buildings on both sides."""
    panels = []
    for side in (-1, 1):
        z = -BEHIND + float(rng.uniform(0, 6))
        while z < 100:
            length, back = float(rng.uniform(9, 20)), half + float(rng.uniform(5.0, 9.0))
            if abs(z + length / 2 - crossing) < length / 2 + half + 4:
                z = crossing + half + 4
                continue
            floors = int(rng.integers(1, 5))
            base = ambient + float(rng.uniform(-1.5, 3.0))
            top = floors * 3.1 + 0.8
            # Each wall's right is to the right of who stands before it.
            x1, x2 = sorted((side * back, side * (back + 11.0)))
            near, far = (z, z + length) if side < 0 else (z + length, z)
            for origin, right in (
                    ((side * back, top, near), (0.0, 0.0, far - near)),
                    ((x1, top, z), (x2 - x1, 0.0, 0.0)),
                    ((x2, top, z + length), (x1 - x2, 0.0, 0.0))):
                wide = float(np.abs(right).max())
                panels.append(Panel(
                    np.array(origin), np.array(right), np.array((0, -top, 0.0)),
                    partial(_wall, int(rng.integers(1 << 32)), (wide, top), floors,
                            density * 0.7, base)))
            z += length + float(rng.choice((0.6, 6.0, 14.0)) * rng.uniform(0.7, 1.5))
    return panels


def _wall(seed: int, size: tuple[float, float], floors: int, density: float,
          base: float) -> list[Image]:
    """Return a wall of size (width, height) in meters with windows and a roof's edge."""
    rng = np.random.default_rng(seed)
    columns, rows = (max(8, round(v * density)) for v in size)
    image = np.full((rows, columns), base, np.float32)
    image += 0.3 * noise(rng, image.shape, max(4.0, 4 * density), 2)
    image += np.linspace(-0.8, 0.9, rows, dtype=np.float32)[:, None]
    image[:max(1, round(0.35 * density))] -= 3.0
    gap = float(rng.uniform(2.2, 3.6))
    for floor in range(floors):
        y = (size[1] - 3.1 * floor - 2.4) * density
        for x in np.arange(0.8, size[0] - 1.4, gap):
            a = (round(x * density), round(y))
            b = (round((x + 1.1) * density), round(y + 1.4 * density))
            glass = base + float(rng.uniform(-4, -0.5) if rng.random() < 0.6
                                 else rng.uniform(0.5, 4))
            cv2.rectangle(image, a, b, base + 0.8, -1)
            inset = max(1, round(0.1 * density))
            cv2.rectangle(image, (a[0] + inset, a[1] + inset), (b[0] - inset, b[1] - inset),
                          glass, -1)
    return pyramid(image)
