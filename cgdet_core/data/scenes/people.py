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
People and bicycles as parts in the world, with the temperatures that a thermal camera sees.

Local coordinates: forward, left, up, in meters, from the ground point of the figure.
"""

from dataclasses import dataclass
from math import cos, pi, sin, sqrt

from cgdet_core.data.scenes.drawing import Part
import numpy as np

SKIN = 304.0
STRIDE = 1.4  # meters that a walker of 1.75 m covers in two steps
WHEEL = 0.34  # radius of a bicycle's wheels


def spheres(points: list[tuple[float, float, float, float]], kelvin: float) -> Part:
    """Return the hull of spheres: forward, left, up, radius."""
    values = np.array(points)
    return Part(values[:, :3], kelvin, values[:, 3])


def line(points: list[tuple[float, float, float]], radius: float, kelvin: float) -> Part:
    """Return a line through points: forward, left, up."""
    return Part(np.array(points), kelvin, radius)


@dataclass(frozen=True)
class Dress:
    """What a person looks like: height in meters, temperatures in kelvin."""

    height: float
    torso: float
    legs: float
    shoes: float
    hair: float
    skin: float = SKIN
    build: float = 1.0

    @staticmethod
    def random(rng: np.random.Generator, ambient: float) -> 'Dress':
        """Return clothes that are the colder the thicker they are."""
        warm = max(SKIN - ambient, 3.0)
        torso, legs, shoes, hair = (ambient + warm * rng.uniform(*span) for span in (
            (0.4, 0.75), (0.45, 0.8), (0.2, 0.45), (0.5, 0.85)))
        return Dress(float(rng.uniform(1.55, 1.92)), torso, legs, shoes, hair,
                     ambient + warm * float(rng.uniform(0.92, 1.05)),
                     float(rng.uniform(0.9, 1.25)))


def _joint(start: tuple[float, float], angle: float, length: float) -> tuple[float, float]:
    """Return the end of a limb, (forward, up), that hangs at an angle from the vertical."""
    return start[0] + length * sin(angle), start[1] - length * cos(angle)


def _limb(side: float, a: tuple[float, float], b: tuple[float, float],
          radii: tuple[float, float], kelvin: float, side_b: float | None = None) -> Part:
    return spheres([(a[0], side, a[1], radii[0]),
                          (b[0], side if side_b is None else side_b, b[1], radii[1])], kelvin)


def _upper_body(dress: Dress, hip: tuple[float, float], lean: float) -> list[Part]:
    """Return torso, neck and head."""
    k, b = dress.height / 1.75, dress.build
    chest = _shoulder(dress, hip, lean)
    neck = chest[0] + 0.10 * k * sin(lean), chest[1] + 0.10 * k * cos(lean)
    head = neck[0] + 0.04 * k, neck[1] + 0.09 * k
    crown = head[0] - 0.01 * k, head[1] + 0.07 * k
    half, hips = 0.145 * k * b, 0.08 * k * b
    return [
        spheres([(hip[0], -hips, hip[1], 0.10 * k * b), (hip[0], hips, hip[1], 0.10 * k * b),
                 (chest[0], -half, chest[1] - 0.08 * k, 0.07 * k * b),
                 (chest[0], half, chest[1] - 0.08 * k, 0.07 * k * b),
                 (chest[0], 0, chest[1] - 0.02 * k, 0.085 * k)], dress.torso),
        spheres([(chest[0], 0, chest[1], 0.06 * k), (neck[0], 0, neck[1] + 0.02 * k, 0.052 * k)],
                dress.skin),
        spheres([(head[0] + 0.025 * k, 0, head[1] - 0.02 * k, 0.06 * k),
                 (crown[0] + 0.01 * k, 0, crown[1], 0.075 * k)], dress.skin),
        spheres([(crown[0] - 0.02 * k, 0, crown[1] + 0.02 * k, 0.078 * k),
                 (head[0] - 0.05 * k, 0, head[1] + 0.01 * k, 0.06 * k)], dress.hair)]


def _shoulder(dress: Dress, hip: tuple[float, float], lean: float) -> tuple[float, float]:
    return _joint(hip, pi - lean, 0.52 * dress.height / 1.75)


def person(dress: Dress, walked: float, moving: bool = True) -> list[Part]:
    """Return a person who has walked a distance in meters; not moving: who stands."""
    k = dress.height / 1.75
    phase = 2 * pi * walked / (STRIDE * k)
    swing = 0.42 if moving else 0.06
    parts: list[Part] = []
    legs = []
    for side, shift in ((-1, 0.0), (1, pi)):
        thigh = swing * sin(phase + shift)
        flex = 0.10 + (0.85 if moving else 0.0) * max(0.0, cos(phase + shift + 0.3)) ** 2
        knee = _joint((0, 0), thigh, 0.43 * k)
        ankle = _joint(knee, thigh - flex, 0.42 * k)
        legs.append((side, thigh, flex, knee, ankle))
    lowest = min(ankle[1] for *_, ankle in legs)
    hip = (0.0, 0.08 * k - lowest)
    lean = 0.06 if moving else 0.0
    chest = _shoulder(dress, hip, lean)
    for side, thigh, flex, knee, ankle in legs:
        y = 0.09 * k * side
        knee, ankle = (knee[0], knee[1] + hip[1]), (ankle[0], ankle[1] + hip[1])
        toe = _joint(ankle, thigh - flex + 1.35, 0.16 * k)
        parts += [
            _limb(y, hip, knee, (0.085 * k * dress.build, 0.06 * k), dress.legs),
            _limb(y, knee, ankle, (0.058 * k, 0.042 * k), dress.legs - 1),
            _limb(y, (ankle[0] - 0.03 * k, ankle[1] - 0.03 * k),
                  (toe[0], max(toe[1], 0.03 * k)), (0.045 * k, 0.035 * k), dress.shoes)]
        arm = -0.9 * thigh
        shoulder = chest[0], chest[1] - 0.07 * k
        elbow = _joint(shoulder, arm, 0.29 * k)
        wrist = _joint(elbow, arm + 0.35 + 0.3 * max(0.0, arm), 0.25 * k)
        hand = _joint(wrist, arm + 0.4, 0.06 * k)
        y = 0.2 * k * dress.build * side
        parts += [_limb(y, shoulder, elbow, (0.055 * k, 0.045 * k), dress.torso - 0.5),
                  _limb(y, elbow, wrist, (0.045 * k, 0.035 * k), dress.torso - 1),
                  _limb(y, wrist, hand, (0.035 * k, 0.04 * k), dress.skin - 1.5)]
    return parts + _upper_body(dress, hip, lean)


def bicycle(ambient: float, warm: float, ridden: float = 0.0) -> list[Part]:
    """Return a bicycle; warm: of its tires above ambient; ridden: meters, turn the pedals."""
    frame, tire = ambient - 3.0, ambient + warm
    rear, front, crank, seat, head = (
        (-0.5, WHEEL), (0.54, WHEEL), (-0.05, 0.29), (-0.2, 0.88), (0.36, 0.88))
    turn = np.linspace(0, 2 * pi, 25)
    parts = [line([(x + WHEEL * cos(a), 0, y + WHEEL * sin(a)) for a in turn], 0.019, tire)
             for x, y in (rear, front)]
    tubes = ((rear, seat), (seat, head), (head, crank), (crank, seat), (rear, crank),
             (head, front))
    parts += [line([(a[0], 0, a[1]), (b[0], 0, b[1])], 0.02, frame) for a, b in tubes]
    parts += [spheres([(-0.32, 0, 0.95, 0.06), (-0.08, 0, 0.94, 0.035)], ambient + warm / 2),
              line([(0.34, 0, 0.88), (0.37, 0, 1.0)], 0.02, frame),
              line([(0.37, -0.28, 1.0), (0.42, 0, 1.02), (0.37, 0.28, 1.0)], 0.02, frame)]
    for side, pedal in _pedals(ridden):
        parts.append(line([(crank[0], side * 0.06, crank[1]), (pedal[0], side * 0.1,
                                                                     pedal[1])], 0.018, frame))
    return parts


def _pedals(ridden: float) -> list[tuple[int, tuple[float, float]]]:
    angle = 2 * pi * ridden / 5.0  # meters per turn of the pedals
    return [(side, (-0.05 + 0.17 * sin(angle + shift), 0.29 + 0.17 * cos(angle + shift)))
            for side, shift in ((-1, 0.0), (1, pi))]


def rider(dress: Dress, ridden: float) -> list[Part]:
    """Return the person on a bicycle."""
    k = dress.height / 1.75
    hip = (-0.18, 0.98)
    lean = 0.55
    chest = _shoulder(dress, hip, lean)
    parts = []
    for side, pedal in _pedals(ridden):
        foot = pedal[0] - 0.04, pedal[1] + 0.06
        knee = _bend(hip, foot, 0.44 * k, 0.43 * k)
        y = 0.1 * side
        parts += [_limb(y, hip, knee, (0.085 * k, 0.06 * k), dress.legs),
                  _limb(y, knee, foot, (0.058 * k, 0.042 * k), dress.legs - 1),
                  _limb(y, foot, (foot[0] + 0.17, foot[1] - 0.03), (0.045, 0.035),
                        dress.shoes)]
        shoulder, grip = (chest[0], chest[1] - 0.05), (0.36, 1.03)
        elbow = _bend(shoulder, grip, 0.31 * k, 0.3 * k, -1)
        y = 0.2 * k * dress.build * side
        parts += [_limb(y, shoulder, elbow, (0.055 * k, 0.045 * k), dress.torso - 0.5),
                  _limb(y, elbow, grip, (0.045 * k, 0.035 * k), dress.torso - 1,
                        0.26 * side),
                  _limb(0.27 * side, grip, (0.4, 1.03), (0.04, 0.04), dress.skin - 2)]
    return parts + _upper_body(dress, hip, lean)


def _bend(start: tuple[float, float], end: tuple[float, float], first: float, second: float,
          side: int = 1) -> tuple[float, float]:
    """Return the joint between two limbs from start to end, (forward, up); side 1: forward."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    reach = min(sqrt(dx * dx + dy * dy), 0.999 * (first + second))
    along = (first ** 2 - second ** 2 + reach ** 2) / (2 * reach)
    off = side * sqrt(max(first ** 2 - along ** 2, 0.0))
    ux, uy = dx / sqrt(dx * dx + dy * dy), dy / sqrt(dx * dx + dy * dy)
    return start[0] + along * ux - off * uy, start[1] + along * uy + off * ux
