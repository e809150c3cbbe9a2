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
Synthetic thermal street scenes in kelvin, with boxes: for the demo, tests, training and tracking.

`Scene.random` draws single scenes, `sequence` minutes of traffic before a moving camera. Boxes are
of the visible extent, as in COCO and FLIR's sets; `visible` is the share of the object that is
neither hidden nor outside of the image. A bicycle and its rider have a box each.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import Any

from cgdet_core.data.scenes.actors import Actor, still_actors, traffic
from cgdet_core.data.scenes.actors import CLASSES as CLASSES
from cgdet_core.data.scenes.drawing import Image, Sprite, View
from cgdet_core.data.scenes.sensor import Sensor
from cgdet_core.data.scenes.street import Street
from cgdet_core.runtime.imaging.drawing import save_frame
import cv2
import numpy as np
from numpy.typing import NDArray

MIN_BOX = 6  # pixels; smaller objects have no box
MIN_VISIBLE = 0.3  # share of what is in the image; an object that is hidden more has no box
MIN_INSIDE = 0.1  # share of an object; one of which less is in the image has no box
STILL_RATE = 10.0  # Hz, of `Scene.render`
# Scenes of single frames and of sequences never have the same random numbers.
STILL, SEQUENCE = 1, 2


@dataclass(frozen=True)
class SceneFrame:
    """
    A drawn frame and its truth.

    stamp: seconds; kelvin: (height, width) float32; boxes: (M, 4) x1, y1, x2, y2 in pixels;
    labels: (M,), indices into CLASSES; track_ids: (M,), the same for an object in all frames;
    visible: (M,), share of each object that is seen, MIN_INSIDE to 1.
    """

    stamp: float
    kelvin: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    visible: NDArray[np.float32]


@dataclass
class Scene:
    """A street with actors; path: meters that the camera drives in `seconds`, and how it turns."""

    width: int
    height: int
    seed: int
    actors: list[Actor]
    street: Street
    eye: View
    path: float = 0.0
    turn: float = 0.0
    seconds: float = 20.0

    @staticmethod
    def random(seed: int, width: int = 640, height: int = 512) -> 'Scene':
        """Return a random scene before a camera that stands; the same seed, the same scene."""
        rng = np.random.default_rng((seed, STILL))
        ambient = float(rng.uniform(264, 298))
        street = Street.random(rng, (width, height), ambient)
        eye = View(width, height, float(rng.uniform(-2.5, 2.5)), float(rng.uniform(1.2, 2.2)), 0.0,
                   float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.03, 0.06)))
        return Scene(width, height, seed, still_actors(rng, street, eye), street, eye)

    @staticmethod
    def traffic(seed: int, seconds: float = 20.0, width: int = 640, height: int = 512) -> 'Scene':
        """Return a street at night with traffic for some seconds, before a camera that drives."""
        rng = np.random.default_rng((seed, SEQUENCE))
        street = Street.random(rng, (width, height), float(rng.uniform(274, 279)))
        eye = View(width, height, float(rng.uniform(0.4, 0.6)) * street.half, 1.6)
        path = max(0.0, street.crossing - street.half - 7.0) * float(rng.uniform(0.5, 1.0))
        scene = Scene(width, height, seed, [], street, eye, path,
                      float(rng.uniform(0.02, 0.05)), seconds)
        scene.actors = traffic(rng, street, seconds, scene.view)
        return scene

    def view(self, seconds: float) -> View:
        """Return the camera's pose: it drives, then stops before the crossing and looks around."""
        share = min(max(seconds, 0.0) / (0.6 * self.seconds), 1.0)
        driven = self.path * (share - np.sin(2 * np.pi * share) / (2 * np.pi))
        speed = 1 - np.cos(2 * np.pi * share)
        bounce = 0.0006 * speed * np.sin(11 * seconds) if self.path else 0.0
        return replace(self.eye, z=self.eye.z + float(driven), pitch=self.eye.pitch + bounce,
                       yaw=self.eye.yaw + self.turn * float(np.sin(2 * np.pi * seconds / 13)))

    def frame(self, seconds: float) -> SceneFrame:
        """Return the scene at a time, as it is before any camera: without blur and noise."""
        kelvin, owner, drawn = self._compose(seconds)
        rows: list[tuple[tuple[int, int, int, int], int, int, float]] = []
        for number, (label, track, sprite, pixels) in enumerate(drawn):
            seen = owner[sprite.where] == number
            xs, ys = np.flatnonzero(seen.any(0)) + sprite.x, np.flatnonzero(seen.any(1)) + sprite.y
            if not len(xs):
                continue
            x1, y1, x2, y2 = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
            unhidden = np.count_nonzero(seen) / pixels
            visible = sprite.inside * unhidden
            size = sorted((x2 - x1, y2 - y1))
            if (unhidden >= MIN_VISIBLE and visible >= MIN_INSIDE
                    and size[0] >= MIN_BOX // 2 and size[1] >= MIN_BOX):
                rows.append(((x1, y1, x2, y2), label, track, visible))
        boxes, labels, tracks, visible_ = zip(*rows) if rows else ((), (), (), ())
        return SceneFrame(
            seconds, kelvin, np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64), np.array(tracks, np.int64),
            np.array(visible_, np.float32))

    def render(
        self, frame: int = 0,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """
        Render frame number `frame` of the scene as a camera of its own sees it.

        Returns temperatures (height, width) in kelvin, boxes (M, 4) x1, y1, x2, y2 in pixels
        and labels (M,), indices into CLASSES.
        """
        found = self.frame(frame / STILL_RATE)
        sensor = Sensor(self.seed, (self.width, self.height))
        return sensor.expose(found.kelvin, 0.0, frame), found.boxes, found.labels

    def paint(self, frame: int = 0) -> NDArray[np.uint8]:
        """
        Return the same frame as an RGB camera sees it, (height, width, 3) uint8.

        Cold objects are bright, every actor has a color, and two of five scenes are at night.
        """
        image, owner, drawn = self._compose(frame / STILL_RATE)
        rng = np.random.default_rng((self.seed, 1 << 20))
        light = 0.2 if rng.random() < 0.4 else 1.0
        colors = rng.uniform(0.1, 1.0, (len(drawn) + 1, 3))
        colors[-1] = 0.9, 1.0, 1.1  # of the background, whose owner is -1
        shade = cv2.normalize(-image, None, 50, 230, cv2.NORM_MINMAX)[..., None]
        picture = light * shade * colors[owner] + rng.normal(0, 4, (*image.shape, 3))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _compose(
        self, seconds: float,
    ) -> tuple[Image, NDArray[np.int16], list[tuple[int, int, Sprite, int]]]:
        """Return temperatures, the object of each pixel (-1: none), and the objects."""
        view = self.view(seconds)
        image = self.street.background(view)
        owner = np.full(image.shape, -1, np.int16)
        drawn: list[tuple[int, int, Sprite, int]] = []
        things: list[tuple[float, Any]] = [
            (float(np.hypot(x - view.x, z - view.z)), panel)
            for x, z, panel in self.street.plants if z > view.z]
        things += [(actor.distance(view, seconds), actor) for actor in self.actors]
        for _, thing in sorted(things, key=lambda t: -t[0]):
            if not isinstance(thing, Actor):
                sprite = thing.draw(view)
                if sprite:
                    sprite.onto(image)
                    owner[sprite.where][sprite.alpha > 0.5] = -1
                continue
            thing.shadow(image, view, seconds)
            for label, track, sprite in thing.draw(view, seconds, self.street.ambient):
                mask = sprite.alpha > 0.5
                sprite.onto(image)
                owner[sprite.where][mask] = len(drawn)
                drawn.append((label, track, sprite, max(1, int(mask.sum()))))
        return image, owner, drawn


def sequence(
    seed: int, seconds: float = 20.0, rate: float = 20.0, size: tuple[int, int] = (640, 512),
) -> Iterator[SceneFrame]:
    """Yield the frames of a street with traffic; rate: Hz; size: (width, height) in pixels."""
    scene = Scene.traffic(seed, seconds, *size)
    for number in range(round(seconds * rate)):
        yield scene.frame(number / rate)


def record(
    frames: Iterator[SceneFrame], seed: int, size: tuple[int, int] = (640, 512),
) -> Iterator[tuple[SceneFrame, NDArray[np.uint16], NDArray[np.uint8]]]:
    """
    Yield frames as a camera records them, with 14-bit counts and the 8-bit output.

    The kelvin of a frame are those that the camera measures. While its shutter is closed a camera
    repeats the last frame: with the truth of the picture that is shown, and a new stamp.
    """
    sensor = Sensor(seed, size)
    held: tuple[SceneFrame, NDArray[np.uint16], NDArray[np.uint8]] | None = None
    for number, frame in enumerate(frames):
        if held is None or not sensor.closed(frame.stamp):
            kelvin = sensor.expose(frame.kelvin, frame.stamp, number)
            counts = sensor.counts(kelvin)
            held = replace(frame, kelvin=kelvin), counts, sensor.agc(counts)
        yield replace(held[0], stamp=frame.stamp), held[1], held[2]


def to_counts(kelvin: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return a radiometric camera's 16-bit counts, hundredths of a kelvin."""
    return np.clip(np.rint(kelvin * 100), 0, 65535).astype(np.uint16)


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
        save_frame(folder / name, to_counts(kelvin))
        images.append({'id': i + 1, 'file_name': name, 'width': size[0], 'height': size[1]})
        if rgb and i % rgb == 0:
            images[-1]['rgb_file_name'] = f'rgb/scene_{i:05d}.png'
            move = np.array([(1, 0, shift[0]), (0, 1, shift[1])], np.float32)
            picture = cv2.warpAffine(scene.paint(i % frames_per_scene), move, size,
                                     borderMode=cv2.BORDER_REPLICATE)
            save_frame(folder / images[-1]['rgb_file_name'], picture[..., ::-1])
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist()):
            annotations.append({
                'id': len(annotations) + 1, 'image_id': i + 1, 'category_id': label + 1,
                'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': (x2 - x1) * (y2 - y1), 'iscrowd': 0})
    path = folder / 'annotations.json'
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(CLASSES)]
    path.write_text(json.dumps(
        {'images': images, 'annotations': annotations, 'categories': categories}))
    return path
