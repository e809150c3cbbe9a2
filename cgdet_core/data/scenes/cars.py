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


"""Cars as surfaces in the world: warm tires, engine and exhaust, cold glass and roof."""

from dataclasses import dataclass
from functools import cached_property
from math import pi

from cgdet_core.data.scenes.drawing import Array, Part
import numpy as np

# Profiles of cars from the front's underside over the roof to the rear's: forward and up in
# meters, half of the width, kelvin above ambient when cold, and when the engine has run.
# A value belongs to the surface from its point to the next one.
Profile = list[tuple[float, float, float, float, float]]
Point = tuple[float, float, float]
TIRE = 0.33  # meters, its radius
SEDAN: Profile = [
    (2.15, 0.24, 0.80, 0.0, 5.0), (2.22, 0.50, 0.86, -0.5, 4.0), (2.08, 0.76, 0.86, -4.0, 3.0),
    (1.00, 0.94, 0.86, -5.0, -3.0), (0.30, 1.40, 0.64, -8.0, -7.0),
    (-0.85, 1.42, 0.64, -5.0, -3.0),
    (-1.60, 1.00, 0.80, -5.0, -4.0), (-2.15, 0.96, 0.84, -1.0, 0.0),
    (-2.20, 0.55, 0.86, 0.0, 3.0), (-2.12, 0.27, 0.80, 0.0, 0.0)]
WAGON: Profile = [
    (2.15, 0.26, 0.82, 0.0, 5.0), (2.22, 0.60, 0.88, -0.5, 4.0), (2.10, 0.90, 0.88, -4.0, 3.0),
    (1.15, 1.05, 0.88, -5.0, -3.0), (0.50, 1.62, 0.72, -8.0, -7.0),
    (-1.90, 1.64, 0.72, -4.0, -2.5), (-2.12, 1.08, 0.86, -1.0, 0.0), (-2.20, 0.60, 0.88, 0.0, 3.0),
    (-2.14, 0.30, 0.82, 0.0, 0.0)]
VAN: Profile = [
    (2.35, 0.28, 0.88, 0.0, 5.0), (2.42, 0.62, 0.94, -0.5, 4.0), (2.25, 1.05, 0.94, -4.0, 2.0),
    (1.75, 1.18, 0.94, -5.0, -3.0), (1.00, 1.92, 0.84, -8.0, -7.0),
    (-2.35, 1.98, 0.84, -3.0, -2.0), (-2.42, 1.15, 0.92, -1.0, 0.0), (-2.46, 0.60, 0.94, 0.0, 3.0),
    (-2.40, 0.32, 0.88, 0.0, 0.0)]


@dataclass(frozen=True)
class Surface:
    """A part of a car, seen from the side to which its normal (3,) points."""

    part: Part
    normal: Array


@dataclass(frozen=True)
class Body:
    """What a car looks like; warm: 0 (parked for hours) to 1 (has driven)."""

    profile: Profile
    warm: float
    ambient: float  # kelvin
    paint: float  # kelvin above ambient
    size: float = 1.0

    @staticmethod
    def random(rng: np.random.Generator, ambient: float, driven: bool) -> 'Body':
        """Return a car."""
        return Body((SEDAN, WAGON, VAN)[int(rng.choice(3, p=(0.5, 0.35, 0.15)))],
                    float(rng.uniform(0.6, 1.0) if driven else rng.uniform(0.0, 0.25)),
                    ambient, float(rng.uniform(-1.5, 1.5)), float(rng.uniform(0.93, 1.06)))

    def seen(self, eye: Array) -> list[Part]:
        """Return the surfaces that face an eye at a local point (3,)."""
        before, normals = self._planes
        facing = ((eye - before) * normals).sum(1) > 0
        return [surface.part for surface, seen in zip(self.surfaces, facing) if seen]

    @cached_property
    def _planes(self) -> tuple[Array, Array]:
        return (np.stack([s.part.points[0] for s in self.surfaces]),
                np.stack([s.normal for s in self.surfaces]))

    @cached_property
    def surfaces(self) -> list[Surface]:
        """All surfaces."""
        paint, profile, found = self.ambient + self.paint, self.profile, []
        for (x, y, w, cold, hot), (x2, y2, w2, *_) in zip(profile, profile[1:]):
            found.append(self._face([(x, -w, y), (x, w, y), (x2, w2, y2), (x2, -w2, y2)],
                                    paint + cold + self.warm * (hot - cold)))
        for side in (1, -1):
            outline = [(x, side * w, y) for x, y, w, *_ in profile]
            found.append(self._face(outline[::-side], paint + 1.5 * self.warm))
            found += self._window(side), *self._lamps(side)
            sill = [(2.1, side * profile[0][2], 0.25), (2.1, side * profile[1][2], 0.5),
                    (-2.1, side * profile[1][2], 0.5), (-2.1, side * profile[0][2], 0.25)]
            found.append(self._face(sill[::-side], paint + 1 + 3 * self.warm, 1))
            for x in (0.62 * profile[0][0], -0.62 * profile[0][0]):
                found += self._wheel(x, side)
        return found + self._trim()

    def _face(self, points: list[Point], kelvin: float, layer: int = 0) -> Surface:
        """Return a polygon whose points run counterclockwise, seen from outside."""
        p = np.array(points) * self.size
        # The sum of the cross products of successive points.
        m = p.T @ p[np.arange(1, len(p) + 1) % len(p)]
        normal = np.array((m[1, 2] - m[2, 1], m[2, 0] - m[0, 2], m[0, 1] - m[1, 0]))
        return Surface(Part(p, kelvin, None, layer), normal)

    def _window(self, side: int) -> Surface:
        cowl, roof, back = self.profile[3:6]
        belt, low, high = cowl[1] + 0.03, cowl[2] * side, roof[2] * side * 1.01
        rear = back[0] - 0.45 if self.profile is SEDAN else back[0] + 0.12
        points = [(cowl[0] - 0.25, low, belt), (roof[0] - 0.1, high, roof[1] - 0.09),
                  (back[0] + 0.12, high, back[1] - 0.09), (rear, low, belt)]
        if self.profile is VAN:
            points[2:] = [(0.25, high, roof[1] - 0.25), (0.25, low, belt)]
        return self._face(points[::-side], self.ambient - 4.0, 1)

    def _lamps(self, side: int) -> list[Surface]:
        """Return the head lamp and the tail lamp of a side."""
        nose, tail = self.profile[1], self.profile[-3]
        found = []
        for x, y, w, kelvin, turn in (
                (nose[0] + 0.005, nose[1] + 0.14, nose[2], 2 + 9 * self.warm, 1),
                (tail[0] - 0.04, tail[1] - 0.16, tail[2], 0.5 + 2 * self.warm, -1)):
            a, b, x2 = side * (w - 0.05), side * (w - 0.36), x - 0.03 * turn
            found.append(self._face(
                [(x, a, y - 0.07), (x, b, y - 0.07), (x2, b, y + 0.08),
                 (x2, a, y + 0.08)][::-side * turn], self.ambient + kelvin, 1))
        return found

    def _trim(self) -> list[Surface]:
        """Return the grille before the engine, the plate and the exhaust."""
        nose, tail = self.profile[1], self.profile[-2]
        return [self._face([(nose[0] + 0.01, a, nose[1] + low), (nose[0] + 0.01, b, nose[1] + low),
                            (nose[0] - 0.02, b, nose[1] + high),
                            (nose[0] - 0.02, a, nose[1] + high)], self.ambient + kelvin, 1)
                for a, b, low, high, kelvin in (
                    (-0.45, 0.45, 0.07, 0.17, 1 + 8 * self.warm),
                    (-0.26, 0.26, -0.10, 0.02, -1.0))] + [
                self._face([(tail[0] - 0.02, a, y1), (tail[0] - 0.02, b, y1),
                            (tail[0] - 0.02, b, y2), (tail[0] - 0.02, a, y2)],
                           self.ambient + kelvin, 1)
                for a, b, y1, y2, kelvin in (
                    (0.26, -0.26, tail[1] + 0.08, tail[1] + 0.2, -1.5),
                    (0.58, 0.48, tail[1] - 0.3, tail[1] - 0.22, 28 * self.warm))]

    def _wheel(self, x: float, side: int) -> list[Surface]:
        """Return a tire, warm from rolling, and its rim; over the body on the near side."""
        outer = side * (self.profile[0][2] + 0.05)
        tire = self.ambient + 1 + 19 * self.warm
        turn = np.arange(16) * pi / 8
        normal = np.array((0.0, side, 0.0))

        def ring(y: float, radius: float) -> Array:
            return self.size * np.stack((x + radius * np.cos(turn), np.full(16, y),
                                         TIRE + radius * np.sin(turn)), 1)

        both = np.concatenate((ring(outer, TIRE), ring(outer - side * 0.2, TIRE)))
        thin = np.full(32, 0.01)
        arch = ring(outer - side * 0.04, 1.2 * TIRE)
        return [Surface(Part(both, tire, thin, -1), -normal),
                Surface(Part(arch, self.ambient, None, 2), normal),
                Surface(Part(both, tire, thin, 3), normal),
                Surface(Part(ring(outer, 0.97 * TIRE), tire - 3 * self.warm, None, 4), normal),
                Surface(Part(ring(outer, 0.6 * TIRE), self.ambient + 1 + 8 * self.warm, None, 5),
                        normal)]
