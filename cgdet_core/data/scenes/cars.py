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

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin

from cgdet_core.data.scenes.drawing import Array, Part
from cgdet_core.data.scenes.people import Place
import numpy as np

# Profiles of cars from the front's underside over the roof to the rear's: forward and up in
# meters, half of the width, kelvin above ambient when cold, and when the engine has run.
# A value belongs to the surface from its point to the next one.
Profile = list[tuple[float, float, float, float, float]]
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
class Body:
    """What a car looks like; warm: 0 (parked for hours) to 1 (has driven)."""

    profile: Profile
    warm: float
    paint: float  # kelvin above ambient
    size: float = 1.0

    @staticmethod
    def random(rng: np.random.Generator, driven: bool) -> 'Body':
        """Return a car."""
        return Body((SEDAN, WAGON, VAN)[int(rng.choice(3, p=(0.5, 0.35, 0.15)))],
                    float(rng.uniform(0.6, 1.0) if driven else rng.uniform(0.0, 0.25)),
                    float(rng.uniform(-1.5, 1.5)), float(rng.uniform(0.93, 1.06)))


def car(place: Place, body: Body, ambient: float, camera: Array) -> list[Part]:
    """Return the surfaces of a car that face a camera at a world point (3,)."""
    s, paint, profile = body.size, ambient + body.paint, body.profile
    toward = place.world(np.array([(0.0, 0.0, 0.0)]))[0] - camera
    forward = -(toward[0] * sin(place.heading) + toward[2] * cos(place.heading))
    left = -(-toward[0] * cos(place.heading) + toward[2] * sin(place.heading))
    eye = np.array((forward, left, camera[1]))
    parts: list[Part] = []

    def face(points: list[tuple[float, float, float]], kelvin: float, lift: float = 0.0) -> None:
        """Add a surface, counterclockwise seen from outside, if the eye is before it."""
        p = np.array(points) * s
        normal = np.cross(p, np.roll(p, -1, 0)).sum(0)
        if normal @ (eye - p[0]) > 0:
            anchor = p.mean(0) + lift * (eye - p.mean(0)) / np.linalg.norm(eye - p.mean(0))
            parts.append(Part(place.world(p), kelvin, None, place.world(anchor[None])[0]))

    for (x, y, w, cold, hot), (x2, y2, w2, *_) in zip(profile, profile[1:]):
        face([(x, -w, y), (x, w, y), (x2, w2, y2), (x2, -w2, y2)],
             paint + cold + body.warm * (hot - cold))
    for side in (1, -1):
        outline = [(x, side * w, y) for x, y, w, *_ in profile]
        face(outline[::-side], paint + 2.5 * body.warm * 0.6)
        _details(face, body, side, ambient)
    for x in (0.62 * profile[0][0], -0.62 * profile[0][0]):
        for side in (1, -1):
            parts.extend(_wheel(place, body, x, side, ambient, eye))
    return parts


def _details(face: Callable[..., None], body: Body, side: int, ambient: float) -> None:
    """Add the windows of a side, and lamps, plate and exhaust of front and rear."""
    profile = body.profile
    cowl, roof, back = profile[3], profile[4], profile[5]
    belt = cowl[1] + 0.03
    low, high = cowl[2] * side * 1.0, roof[2] * side * 1.01
    rear = back[0] - 0.45 if profile is SEDAN else back[0] + 0.12
    window = [(cowl[0] - 0.25, low, belt), (roof[0] - 0.1, high, roof[1] - 0.09),
              (back[0] + 0.12, high, back[1] - 0.09), (rear, low, belt)]
    if profile is VAN:
        window = window[:2] + [(0.25, high, roof[1] - 0.25), (0.25, low, belt)]
    face(window[::-side], ambient - 4.0, 0.3)
    lamp, nose, tail = 9.0 * body.warm, profile[1], profile[-3]
    for x, y, w, kelvin, turn in (
            (nose[0] + 0.005, nose[1] + 0.14, nose[2], ambient + 2 + lamp, 1),
            (tail[0] - 0.04, tail[1] - 0.16, tail[2], ambient + 0.5 + lamp / 4, -1)):
        a, b = side * (w - 0.05), side * (w - 0.36)
        face([(x, a, y - 0.07), (x, b, y - 0.07), (x - 0.03 * turn, b, y + 0.08),
              (x - 0.03 * turn, a, y + 0.08)][::-side * turn], kelvin, 0.3)


def _wheel(place: Place, body: Body, x: float, side: int, ambient: float,
           eye: Array) -> list[Part]:
    """Return a tire, warm from rolling, with its rim where the eye sees it."""
    radius, outer = 0.33 * body.size, side * (body.profile[0][2] + 0.05) * body.size
    inner = outer - side * 0.2
    turn = np.arange(16) * pi / 8
    tire = ambient + 1 + 19 * body.warm

    def ring(y: float, r: float) -> Array:
        return np.stack((x * body.size + r * np.cos(turn), np.full(16, y),
                         radius + r * np.sin(turn)), 1)

    toward = (eye - (x, outer, radius)) / np.linalg.norm(eye - (x, outer, radius))
    seen = side * (eye[1] - outer) > 0
    lift = 0.25 if seen else -0.6
    anchor = place.world((np.array((x * body.size, outer, radius)) + lift * toward)[None])[0]
    # The tread between both circles, then the side wall and the rim.
    both = np.concatenate((ring(outer, radius), ring(inner, radius)))
    parts = [Part(place.world(both), tire, np.full(32, 0.01), anchor)]
    if seen:
        for r, kelvin, ahead in ((0.97, tire - 3 * body.warm, 0.05),
                                 (0.62, ambient + 1 + 8 * body.warm, 0.1)):
            parts.append(Part(place.world(ring(outer, r * radius)), kelvin, None,
                              anchor + ahead * (place.world((np.array((x, outer, radius))
                                                             + toward)[None])[0]
                                                - place.world(np.array([(x, outer, radius)]))[0])))
    return parts
