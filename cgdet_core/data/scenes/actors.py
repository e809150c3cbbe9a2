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


"""Who is in a scene: people, riders, parked bicycles and cars, where they are and when."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import cos, pi, sin
from typing import Any

from cgdet_core.data.scenes import cars, people
from cgdet_core.data.scenes.drawing import (
    Array,
    draw_parts,
    Image,
    noise,
    Part,
    Place,
    Sprite,
    View,
)
from cgdet_core.data.scenes.street import Street
import cv2
import numpy as np

CLASSES = ('person', 'bicycle', 'car')
PERSON, BICYCLE, CAR = range(3)
KINDS = ('person', 'rider', 'bicycle', 'car')
REACH = {'person': 0.5, 'rider': 1.2, 'bicycle': 1.1, 'car': 2.9}  # meters around its middle
FOLDS = {PERSON: 2.0, BICYCLE: 0.3, CAR: 0.7}  # kelvin, deviations on a surface


@dataclass
class Actor:
    """
    Somebody on the ground who moves straight on: x to the right and z ahead at time 0, meters.

    heading: in radians, 0 is away from the camera; speed: meters per second; number: its track
    ids are 2 number and, of a rider's bicycle, 2 number + 1.
    """

    kind: str
    x: float
    z: float
    heading: float
    speed: float
    number: int
    dress: people.Dress
    body: cars.Body
    warm: float  # of a bicycle's tires above ambient
    folds: Image = field(repr=False)

    def place(self, seconds: float) -> Place:
        """Return where the actor is."""
        way = self.speed * seconds
        return Place(self.x + way * sin(self.heading), self.z + way * cos(self.heading),
                            self.heading)

    def way(self, times: Array) -> Array:
        """Return the places (T, 2), x and z, at times (T,)."""
        direction = np.array((sin(self.heading), cos(self.heading)))
        return np.array((self.x, self.z)) + self.speed * times[:, None] * direction

    def distance(self, view: View, seconds: float) -> float:
        """Return the distance from the camera in meters."""
        place = self.place(seconds)
        return float(np.hypot(place.x - view.x, place.z - view.z))

    def draw(self, view: View, seconds: float,
             ambient: float) -> Iterator[tuple[int, int, Sprite]]:
        """Yield the label, the track id and the picture of what the camera sees, in order."""
        place = self.place(seconds)
        way = abs(self.speed) * seconds + self.number  # not all in step
        drawn: list[tuple[int, list[Part]]] = []
        if self.kind == 'person':
            drawn.append((PERSON, people.person(self.dress, way, self.speed > 0)))
        if self.kind in ('rider', 'bicycle'):
            drawn.append((BICYCLE, people.bicycle(ambient, self.warm, way)))
        if self.kind == 'rider':
            drawn.append((PERSON, people.rider(self.dress, way)))
        if self.kind == 'car':
            drawn.append((CAR, self.body.seen(place.local(np.array((view.x, view.y, view.z))))))
        for label, parts in drawn:
            sprite = draw_parts(view, place, parts, FOLDS[label] * self.folds)
            if sprite is not None:
                yield label, 2 * self.number + (self.kind == 'rider' and label == BICYCLE), sprite

    def shadow(self, image: Image, view: View, seconds: float) -> None:
        """Warm the ground under a car that drives."""
        if self.kind != 'car' or self.body.warm < 0.3:
            return
        place = self.place(seconds)
        corners = place.world(np.array([(2.0, 0.7, 0), (2.0, -0.7, 0), (-2.2, -0.7, 0),
                                        (-2.2, 0.7, 0)]))
        pixels, depth = view.project(corners)
        if depth.min() < 1:
            return
        spread = 0.08 * view.focal / float(depth.mean())
        low = np.maximum(pixels.min(0) - 3 * spread, 0).astype(int)
        high = np.minimum(pixels.max(0) + 3 * spread + 1, (view.width, view.height)).astype(int)
        if (high - low < 2).any():
            return
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.float32)
        cv2.fillConvexPoly(mask, np.rint((pixels - low) * 16).astype(np.int32),
                           5.0 * self.body.warm, cv2.LINE_8, 4)
        image[low[1]:high[1], low[0]:high[0]] += cv2.GaussianBlur(mask, (0, 0), max(spread, 0.5))


def _actor(rng: np.random.Generator, ambient: float, kind: str, number: int, x: float, z: float,
           heading: float, speed: float) -> Actor:
    """Return an actor with a random look."""
    return Actor(kind, float(x), float(z), float(heading), float(speed), number,
                 people.Dress.random(rng, ambient),
                 cars.Body.random(rng, ambient, speed > 0 or rng.random() < 0.3),
                 float(rng.uniform(1, 4.5) if speed > 0 else rng.uniform(-1, 1)),
                 0.5 * noise(rng, (48, 32), 16, 3))


def _meets(actor: Actor, others: list[Actor], times: Array, eyes: Array) -> bool:
    """Return whether an actor runs into another one or into the camera, at eyes (T, 2)."""
    way = actor.way(times)
    ways = [eyes, *(other.way(times) for other in others)]
    reach = REACH[actor.kind] + np.array([1.8, *(REACH[other.kind] for other in others)])
    apart = np.linalg.norm(way - np.stack(ways), axis=2).min(1)
    return bool((apart < 0.8 * reach).any())


def still_actors(rng: np.random.Generator, street: Street, eye: View) -> list[Actor]:
    """Return two to eight actors before a camera, anywhere, the farthest first."""
    actors: list[Actor] = []
    times = np.array((0.0, 0.5, 1.0))
    for number in range(int(rng.integers(2, 9))):
        kind = KINDS[int(rng.choice(4, p=(0.42, 0.15, 0.13, 0.3)))]
        speed = {'person': 1.3, 'rider': 4.0, 'bicycle': 0.0, 'car': 6.0}[kind] * (
            rng.uniform(0.6, 1.3) * (rng.random() < 0.75))
        for _ in range(8):
            z = float(rng.uniform(9 if kind == 'car' else 5, 45))
            x = eye.x + z * (np.tan(eye.yaw) + rng.uniform(-0.5, 0.5))
            heading = float(rng.choice((0, pi, pi / 2, -pi / 2)) + rng.normal(0, 0.25))
            if abs(x) > street.half + 4.5:
                continue
            actor = _actor(rng, street.ambient, kind, number, x, z, heading, speed)
            if not _meets(actor, actors, times, np.array([(eye.x, eye.z)] * len(times))):
                actors.append(actor)
                break
    return sorted(actors, key=lambda a: -a.z)


def traffic(rng: np.random.Generator, street: Street, seconds: float,
            view: Callable[[float], View]) -> list[Actor]:
    """Return who passes during some seconds: oncoming and crossing cars, riders, people."""
    actors: list[Actor] = []
    half, crossing = street.half, street.crossing
    times = np.arange(0, seconds + 0.1, 0.25)
    eyes = np.array([(v.x, v.z) for v in map(view, times)])

    def add(kind: str, **way: Any) -> None:
        """Add an actor if a place is free; way: functions that return x, z, heading, speed."""
        for _ in range(30):
            x, z, heading, speed = (float(way[k]()) for k in ('x', 'z', 'heading', 'speed'))
            when = float(way.get('when', lambda: 0.0)())  # the time at which it is there
            x, z = x - speed * when * sin(heading), z - speed * when * cos(heading)
            actor = _actor(rng, street.ambient, kind, len(actors), x, z, heading, speed)
            if not _meets(actor, actors, times, eyes):
                actors.append(actor)
                return

    def between(low: float, high: float) -> Callable[[], float]:
        return lambda: rng.uniform(low, high)

    def side() -> float:
        return float(rng.choice((-1, 1)))

    for start in np.arange(1.0, seconds, 4.5):  # oncoming, past the camera
        add('car', x=between(-0.6 * half, -0.4 * half), z=lambda: 12.0, heading=lambda: pi,
            speed=between(6, 10), when=between(start, start + 4))
    add('car', x=between(0.4 * half, 0.6 * half), z=between(11, 15), heading=lambda: 0.0,
        speed=between(4, 6))
    for start in np.arange(2.0, seconds, 5.0):  # on the side street
        for direction in (-1, 1):
            add('car', x=between(-3, 3), z=lambda d=direction: crossing - d * half / 2,
                heading=lambda d=direction: d * pi / 2, speed=between(5, 8),
                when=between(start, start + 5))
    for _ in range(4):  # parked beyond the curb
        add('car', x=lambda: side() * (half + 1.2), z=between(8, 32),
            heading=lambda: 0.0 if rng.random() < 0.6 else pi, speed=lambda: 0.0)
    for start in np.arange(0.0, seconds, 5.0):
        add('rider', x=lambda: -half + rng.uniform(0.5, 1.0), z=between(8, 20),
            heading=lambda: pi, speed=between(3, 4.5), when=between(start, start + 5))
        add('rider', x=lambda: half - rng.uniform(0.4, 0.9), z=between(8, 20),
            heading=lambda: 0.0, speed=between(3, 4.5), when=between(start, start + 4))
        add('person', x=between(-3, 3), z=between(crossing - half - 3.2, crossing - half - 1.2),
            heading=lambda: side() * pi / 2, speed=between(1.1, 1.5),
            when=between(start, start + 5))
    for _ in range(8):  # on the pavements
        add('person', x=lambda: side() * (half + rng.uniform(0.8, 3.0)), z=between(5, 40),
            heading=lambda: rng.choice((0, pi)) + rng.normal(0, 0.05), speed=between(1.0, 1.6),
            when=between(0, seconds))
    for _ in range(2):  # who wait
        add('person', x=lambda: side() * (half + rng.uniform(0.6, 1.5)), z=between(14, 34),
            heading=between(-pi, pi), speed=lambda: 0.0)
    add('bicycle', x=lambda: side() * (half + rng.uniform(2.0, 3.0)), z=between(9, 25),
        heading=between(-pi, pi), speed=lambda: 0.0)
    return actors
