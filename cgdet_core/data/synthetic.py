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
Synthetic thermal road scenes in kelvin, with boxes, for the demo, tests and additional data.

Simple radiometry, not photorealism: a cold sky, a road warmer than its surroundings, facades with
warm windows, and people, bicycles and cars drawn from warm parts, attenuated by distance.
"""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ('person', 'bicycle', 'car')
FOCAL = 0.9  # focal length as a fraction of the image width
MIN_BOX = 6  # pixels; smaller objects are not drawn


@dataclass
class Actor:
    """An object on the ground plane: x in meters to the right, z in meters ahead."""

    label: int
    x: float
    z: float
    speed: float  # meters per frame, to the right
    seed: int


@dataclass
class Scene:
    """A road with actors, seen by a camera 1.6 m above it."""

    width: int
    height: int
    seed: int
    actors: list[Actor]

    @staticmethod
    def random(seed: int, width: int = 640, height: int = 512) -> 'Scene':
        """Return a random scene; the same seed returns the same scene."""
        rng = np.random.default_rng(seed)
        actors = []
        for i in range(int(rng.integers(2, 9))):
            label = int(rng.choice(3, p=(0.45, 0.25, 0.3)))
            z = float(rng.uniform(6, 45))
            side = rng.uniform(-0.42, 0.42) * width / (FOCAL * width) * z
            step = {0: 0.05, 1: 0.15, 2: 0.3}[label] * rng.choice((-1, 1))
            actors.append(Actor(label, float(side), z, float(step * rng.uniform(0.5, 1.5)), i))
        return Scene(width, height, seed, sorted(actors, key=lambda a: -a.z))

    def render(
        self, frame: int = 0,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """
        Render frame number `frame` of the scene.

        Returns temperatures (height, width) in kelvin, boxes (M, 4) x1, y1, x2, y2 in pixels
        and labels (M,), indices into CLASSES. Objects that are more than 70 % hidden have no box.
        """
        rng = np.random.default_rng(self.seed)
        image, owner, areas = self._compose(rng, frame)
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.1)))
        noise = np.random.default_rng((self.seed, frame))
        image += noise.normal(0, rng.uniform(0.03, 0.25), image.shape).astype(np.float32)
        boxes, labels = [], []
        for i, (actor, area) in enumerate(zip(self.actors, areas)):
            ys, xs = np.nonzero(owner == i)
            if not len(xs) or len(xs) < 0.3 * area:
                continue
            x1, y1, x2, y2 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
            if min(x2 - x1, y2 - y1) >= MIN_BOX // 2 and max(x2 - x1, y2 - y1) >= MIN_BOX:
                boxes.append((x1, y1, x2, y2))
                labels.append(actor.label)
        return (image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))

    def paint(self, frame: int = 0) -> NDArray[np.uint8]:
        """
        Return the same frame as an RGB camera sees it, (height, width, 3) uint8.

        Cold objects are bright, every actor has a color, and two of five scenes are at night.
        """
        image, owner, _ = self._compose(np.random.default_rng(self.seed), frame)
        rng = np.random.default_rng((self.seed, 1 << 20))
        light = 0.2 if rng.random() < 0.4 else 1.0
        colors = rng.uniform(0.1, 1.0, (len(self.actors) + 1, 3))
        colors[-1] = 0.9, 1.0, 1.1  # of the background, whose owner is -1
        shade = cv2.normalize(-image, None, 50, 230, cv2.NORM_MINMAX)[..., None]
        picture = light * shade * colors[owner] + rng.normal(0, 4, (*image.shape, 3))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _compose(
        self, rng: np.random.Generator, frame: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int16], list[int]]:
        """Return temperatures, the actor of each pixel (-1: none), and each actor's pixels."""
        ambient = float(rng.uniform(265, 303))
        image = _background(rng, self.width, self.height, ambient)
        owner = np.full(image.shape, -1, np.int16)
        areas = []
        for i, actor in enumerate(self.actors):
            mask = _draw(image, actor, frame, ambient, self.seed)
            owner[mask] = i
            areas.append(int(mask.sum()))
        return image, owner, areas


def to_counts(kelvin: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return a radiometric camera's 16-bit counts, hundredths of a kelvin."""
    return np.clip(np.rint(kelvin * 100), 0, 65535).astype(np.uint16)


def _background(
    rng: np.random.Generator, width: int, height: int, ambient: float,
) -> NDArray[np.float32]:
    horizon = int(height * 0.45)
    image = np.empty((height, width), np.float32)
    sky = ambient - rng.uniform(8, 25)
    image[:horizon] = np.linspace(sky, ambient - 3, horizon, dtype=np.float32)[:, None]
    image[horizon:] = ambient + rng.uniform(-2, 2)
    x = 0
    while x < width:  # facades
        w = int(rng.integers(width // 12, width // 4))
        top = int(horizon * rng.uniform(0.1, 0.95))
        level = ambient + rng.uniform(-4, 3)
        cv2.rectangle(image, (x, top), (x + w, horizon), level, -1)
        for wy in range(top + 8, horizon - 10, 22):
            for wx in range(x + 6, x + w - 8, 20):
                if rng.random() < 0.4:
                    cv2.rectangle(image, (wx, wy), (wx + 8, wy + 11),
                                  level + rng.uniform(-2, 5), -1)
        x += w + int(rng.integers(0, width // 10))
    middle = width * rng.uniform(0.35, 0.65)
    road = np.array([(middle - 8, horizon), (middle + 8, horizon),
                     (middle + width * 0.8, height), (middle - width * 0.8, height)], np.int32)
    cv2.fillPoly(image, [road], ambient + rng.uniform(1, 6))
    for _ in range(int(rng.integers(0, 6))):  # trees, posts, lamps
        px = int(rng.integers(0, width))
        base = horizon + int(rng.integers(0, height // 6))
        cv2.line(image, (px, base), (px, base - int(rng.integers(40, 160))),
                 ambient + rng.uniform(-3, 4), int(rng.integers(2, 8)))
    small = rng.normal(0, 0.3, (height // 16, width // 16)).astype(np.float32)
    return image + cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _draw(
    image: NDArray[np.float32], actor: Actor, frame: int, ambient: float, seed: int,
) -> NDArray[np.bool_]:
    """Draw an actor into the image and return the mask of its pixels."""
    rng = np.random.default_rng((seed, actor.seed))
    height, width = image.shape
    scale = FOCAL * width / actor.z  # pixels per meter
    x = width / 2 + (actor.x + actor.speed * frame) * scale
    ground = height * 0.45 + 1.6 * scale
    fade = float(np.exp(-actor.z / 90))
    layer = np.zeros((height, width), np.float32)
    draw = (_person, _bicycle, _car)[actor.label]
    draw(_Pen(layer, x, ground, scale), rng, frame, 1 if actor.speed > 0 else -1)
    mask = layer > 0
    # `layer` is in degrees above ambient plus 20.
    image[mask] = ambient + (layer[mask] - 20) * fade
    return mask


class _Pen:
    """Drawing functions in meters relative to the ground point of an actor."""

    def __init__(self, layer: NDArray[np.float32], x: float, ground: float, scale: float):
        self.layer, self.x, self.ground, self.scale = layer, x, ground, scale

    def _at(self, x: float, y: float) -> tuple[int, int]:
        return round((self.x + x * self.scale) * 16), round((self.ground - y * self.scale) * 16)

    def _len(self, meters: float) -> int:
        return max(1, round(meters * self.scale))

    def line(self, a: tuple[float, float], b: tuple[float, float], w: float, warm: float) -> None:
        cv2.line(self.layer, self._at(*a), self._at(*b), warm + 20, self._len(w), cv2.LINE_8, 4)

    def ellipse(self, c: tuple[float, float], rx: float, ry: float, warm: float,
                thickness: float = -1) -> None:
        axes = round(rx * self.scale * 16), round(ry * self.scale * 16)
        cv2.ellipse(self.layer, self._at(*c), axes, 0, 0, 360, warm + 20,
                    -1 if thickness < 0 else self._len(thickness), cv2.LINE_8, 4)

    def polygon(self, points: list[tuple[float, float]], warm: float) -> None:
        cv2.fillPoly(self.layer, [np.array([self._at(*p) for p in points], np.int32)],
                     warm + 20, cv2.LINE_8, 4)


def _person(pen: _Pen, rng: np.random.Generator, frame: int, _: int) -> None:
    h = rng.uniform(1.5, 1.9)
    body, skin = rng.uniform(3, 9), rng.uniform(8, 15)
    stride = 0.25 * np.sin(frame * 0.7 + rng.uniform(0, 6))
    for s in (1, -1):
        pen.line((0, 0.5 * h), (s * stride, 0.02), 0.15, body - 1)
    pen.ellipse((0, 0.67 * h), 0.2, 0.21 * h, body)
    pen.line((0, 0.78 * h), (0.2 - stride, 0.5 * h), 0.1, body + 1)
    pen.line((0, 0.78 * h), (-0.2 + stride, 0.5 * h), 0.1, body)
    pen.ellipse((0, 0.92 * h), 0.1, 0.08 * h, skin)


def _bicycle(pen: _Pen, rng: np.random.Generator, frame: int, direction: int) -> None:
    d = direction
    frame_warm, tyre = rng.uniform(-4, 1), rng.uniform(1, 5)
    squash = rng.uniform(0.35, 1.0)  # seen from the side or at an angle
    for s in (-1, 1):
        pen.ellipse((s * 0.52 * squash, 0.34), 0.34 * squash, 0.34, tyre, 0.05)
    for a, b in (((-0.52, 0.34), (-0.15, 0.85)), ((-0.15, 0.85), (0.4, 0.85)),
                 ((0.4, 0.85), (0.52, 0.34)), ((-0.1, 0.34), (0.4, 0.85)),
                 ((-0.52, 0.34), (-0.1, 0.34)), ((0.4, 0.85), (0.38, 1.02))):
        pen.line((a[0] * squash * d, a[1]), (b[0] * squash * d, b[1]), 0.045, frame_warm)


def _car(pen: _Pen, rng: np.random.Generator, frame: int, direction: int) -> None:
    d = direction
    body, glass = rng.uniform(-3, 4), rng.uniform(-6, 1)
    engine = rng.uniform(0, 10) if rng.random() < 0.7 else 0.0
    if rng.random() < 0.5:  # from behind or in front
        w = rng.uniform(0.8, 0.95)
        pen.polygon([(-w, 0.3), (w, 0.3), (w, 0.9), (0.75 * w, 1.45), (-0.75 * w, 1.45),
                     (-w, 0.9)], body)
        pen.polygon([(-0.8 * w, 0.95), (0.8 * w, 0.95), (0.68 * w, 1.38), (-0.68 * w, 1.38)],
                    glass)
        pen.line((-w * 0.8, 0.28), (w * 0.8, 0.28), 0.18, body + engine)
        for s in (-1, 1):
            pen.line((s * w * 0.8, 0.08), (s * w * 0.8, 0.3), 0.2, rng.uniform(2, 9))
        return
    n = rng.uniform(1.9, 2.3)
    pen.polygon([(-n * d, 0.3), (n * d, 0.3), (n * d, 0.8), (0.55 * n * d, 0.9),
                 (0.25 * n * d, 1.4), (-0.6 * n * d, 1.42), (-0.95 * n * d, 0.95),
                 (-n * d, 0.85)], body)
    pen.polygon([(0.45 * n * d, 0.92), (0.22 * n * d, 1.32), (-0.55 * n * d, 1.34),
                 (-0.8 * n * d, 0.95)], glass)
    pen.ellipse((0.75 * n * d, 0.7), 0.45, 0.18, body + engine)
    for wheel in (-0.62, 0.62):
        pen.ellipse((wheel * n * d, 0.32), 0.33, 0.33, rng.uniform(2, 9))
        pen.ellipse((wheel * n * d, 0.32), 0.15, 0.15, body)


def write_coco(
    folder: str | Path, frames: int, seed: int = 0, frames_per_scene: int = 10,
    size: tuple[int, int] = (640, 512), rgb: int = 0, shift: tuple[int, int] = (0, 0),
) -> Path:
    """
    Write scenes as 16-bit PNG with a COCO file, and return the path of the file.

    Every scene is a short sequence of moving actors; size is (width, height) in pixels. Every
    rgb-th frame has an RGB image (0: none), shifted by `shift` = (x, y) pixels.
    """
    folder = Path(folder)
    for name in ('thermal', 'rgb') if rgb else ('thermal',):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(frames):
        scene = Scene.random(seed * 1_000_003 + i // frames_per_scene, *size)
        kelvin, boxes, labels = scene.render(i % frames_per_scene)
        name = f'thermal/scene_{i:05d}.png'
        cv2.imwrite(str(folder / name), to_counts(kelvin))
        images.append({'id': i + 1, 'file_name': name, 'width': size[0], 'height': size[1]})
        if rgb and i % rgb == 0:
            images[-1]['rgb_file_name'] = f'rgb/scene_{i:05d}.png'
            move = np.array([(1, 0, shift[0]), (0, 1, shift[1])], np.float32)
            picture = cv2.warpAffine(scene.paint(i % frames_per_scene), move, size,
                                     borderMode=cv2.BORDER_REPLICATE)
            cv2.imwrite(str(folder / images[-1]['rgb_file_name']), picture[..., ::-1])
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist()):
            annotations.append({
                'id': len(annotations) + 1, 'image_id': i + 1, 'category_id': label + 1,
                'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': (x2 - x1) * (y2 - y1), 'iscrowd': 0})
    path = folder / 'annotations.json'
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(CLASSES)]
    path.write_text(json.dumps(
        {'images': images, 'annotations': annotations, 'categories': categories}))
    return path
