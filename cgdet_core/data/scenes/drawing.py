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
Pinhole projection, and drawing into an image in kelvin.

World: x to the right, y up, z ahead, in meters; the ground is y = 0. Everything is drawn from far
to near (painter's order), with soft edges.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import cos, log2, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FOCAL = 0.9  # focal length as a fraction of the image width
HORIZON = 0.42  # row of the horizon as a fraction of the image height, without pitch
NEAR = 0.6  # meters; what is nearer to the camera is not drawn
HAZE = 400.0  # meters in which contrast falls to 1/e
RIM = 3.0  # kelvin by which round parts look colder at their edges, seen at a grazing angle
SHIFT = 4  # fractional bits of OpenCV's coordinates
CIRCLE = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], 1)

Array = NDArray[np.float64]
Image = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A camera in the world. yaw: to the right, pitch: down, in radians; y: its height."""

    width: int
    height: int
    x: float = 0.0
    y: float = 1.6
    z: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0

    @property
    def focal(self) -> float:
        """The focal length in pixels."""
        return FOCAL * self.width

    @cached_property
    def matrix(self) -> Array:
        """The projection (3, 4) of homogeneous world points to pixels."""
        ahead = np.array((sin(self.yaw), 0, cos(self.yaw)))
        down = np.array((0.0, -1.0, 0.0))
        rotation = np.stack((
            np.array((cos(self.yaw), 0, -sin(self.yaw))),
            down * cos(self.pitch) - ahead * sin(self.pitch),
            ahead * cos(self.pitch) + down * sin(self.pitch)))
        intrinsics = np.array(((self.focal, 0, self.width / 2),
                               (0, self.focal, self.height * HORIZON), (0, 0, 1)))
        return intrinsics @ np.column_stack((rotation, -rotation @ (self.x, self.y, self.z)))

    def project(self, points: Array) -> tuple[Array, Array]:
        """Return pixels (N, 2) and depths (N,) of world points (N, 3)."""
        found = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        depth = found[:, 2]
        return found[:, :2] / np.maximum(depth, NEAR)[:, None], depth

    def outline(self, corners: Array) -> NDArray[np.int32] | None:
        """Return the part of a polygon (N, 3) before the camera, with SHIFT bits, if any."""
        found = corners @ self.matrix[:, :3].T + self.matrix[:, 3]
        depth = found[:, 2] - NEAR
        if (depth <= 0).any():
            if (depth <= 0).all():
                return None
            kept = []
            for i in range(len(found)):
                j = i - 1
                if (depth[i] > 0) != (depth[j] > 0):
                    share = depth[j] / (depth[j] - depth[i])
                    kept.append(found[j] + share * (found[i] - found[j]))
                if depth[i] > 0:
                    kept.append(found[i])
            found = np.array(kept)
        pixels = np.clip(found[:, :2] / found[:, 2:], -20000, 20000)
        return np.rint(pixels * (1 << SHIFT)).astype(np.int32)


@dataclass(frozen=True)
class Part:
    """
    A part of an object: the hull of spheres, a flat polygon, or a line of given width.

    points: (N, 3), forward, left and up of its place, in meters. radius: (N,) of spheres, one
    number for a line, None for a polygon. layer: a part of a higher one is drawn over the others.
    """

    points: Array
    kelvin: float
    radius: Array | float | None = None
    layer: int = 0


@dataclass(frozen=True)
class Place:
    """A point on the ground and a direction in radians (0: away, to +z)."""

    x: float
    z: float
    heading: float = 0.0

    def world(self, points: Array) -> Array:
        """Return local points (N, 3) in world coordinates."""
        s, c = sin(self.heading), cos(self.heading)
        return points @ ((s, 0, c), (-c, 0, s), (0, 1, 0)) + (self.x, 0, self.z)

    def local(self, point: Array) -> Array:
        """Return a world point (3,) in local coordinates."""
        s, c = sin(self.heading), cos(self.heading)
        return np.array(((s, 0, c), (-c, 0, s), (0, 1, 0))) @ (point - (self.x, 0, self.z))


@dataclass(frozen=True)
class Sprite:
    """A drawn object: temperatures and alpha (h, w) at x, y; inside: its share in the image."""

    x: int
    y: int
    kelvin: NDArray[Any]
    alpha: NDArray[Any]
    inside: float = 1.0

    @property
    def where(self) -> tuple[slice, slice]:
        """Its rows and columns of the image."""
        height, width = self.alpha.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def onto(self, image: Image) -> None:
        """Draw the object into an image."""
        part = image[self.where]
        part += self.alpha * (self.kelvin - part)


def draw_parts(
    view: View, place: Place, parts: list[Part], texture: Image | None = None,
) -> Sprite | None:
    """
    Draw an object at twice the image's resolution; None where the camera does not see it.

    texture: deviations in kelvin that are stretched over the object.
    """
    points = np.concatenate([part.points for part in parts])
    pixels, depth = view.project(place.world(points))
    if depth.min() < NEAR:
        return None
    scale = view.focal / float(depth.mean())  # pixels per meter
    margin = 2 + 0.25 * scale
    low, high = pixels.min(0) - margin, pixels.max(0) + margin
    x1, y1 = (int(v) for v in np.maximum(low, 0))
    x2, y2 = (int(v) for v in np.minimum(np.ceil(high), (view.width, view.height)))
    if x2 - x1 < 2 or y2 - y1 < 2:
        return None
    fine = 2 if (x2 - x1) * (y2 - y1) < 60000 else 1
    layer = np.zeros(((y2 - y1) * fine, (x2 - x1) * fine), np.float32)
    lengths = [len(part.points) for part in parts]
    starts = np.cumsum([0, *lengths])
    middles = np.add.reduceat(points, starts[:-1]) / np.array(lengths)[:, None]
    far = np.linalg.norm(middles - place.local(np.array((view.x, view.y, view.z))), axis=1)
    fixed, scales = (pixels - (x1, y1)) * fine, fine * view.focal / depth
    for i in sorted(range(len(parts)), key=lambda i: (parts[i].layer, -far[i])):
        a, b = starts[i], starts[i + 1]
        _draw_part(layer, parts[i], fixed[a:b], scales[a:b])
    mask = (layer > 0).astype(np.float32)
    # Temperatures are smooth within an object, and its edge is sharp.
    sigma = max(0.4, 0.015 * scale * fine)
    soft = cv2.GaussianBlur(layer, (0, 0), sigma) / np.maximum(
        cv2.GaussianBlur(mask, (0, 0), sigma), 1e-3)
    if texture is not None:
        soft += cv2.resize(texture, layer.shape[::-1], interpolation=cv2.INTER_LINEAR)
    size = (x2 - x1, y2 - y1)
    alpha = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    kelvin = cv2.resize(soft * mask, size, interpolation=cv2.INTER_AREA) / np.maximum(alpha, 1e-3)
    extent = np.minimum(pixels.max(0), (view.width, view.height)) - np.maximum(pixels.min(0), 0)
    inside = float(np.prod(np.maximum(extent, 0) / np.maximum(np.ptp(pixels, 0), 1e-3)))
    return Sprite(x1, y1, kelvin, alpha, min(1.0, inside))


def _draw_part(layer: Image, part: Part, pixels: Array, scale: Array) -> None:
    """Draw a part at pixels (N, 2), where a meter has `scale` (N,) pixels."""
    if part.radius is None:
        cv2.fillPoly(layer, [_fixed(pixels)], part.kelvin, cv2.LINE_8, SHIFT)
    elif isinstance(part.radius, float):
        width = max(1, round(2 * part.radius * float(scale.mean())))
        cv2.polylines(layer, [_fixed(pixels)], False, part.kelvin, width, cv2.LINE_8, SHIFT)
    else:
        radii = np.maximum(part.radius * scale, 0.6)
        for share, kelvin in ((1.0, part.kelvin - RIM), (0.62, part.kelvin)):
            circles = (pixels[:, None] + share * radii[:, None, None] * CIRCLE).reshape(-1, 2)
            hull = cv2.convexHull(circles.astype(np.float32))
            cv2.fillConvexPoly(layer, _fixed(hull), kelvin, cv2.LINE_8, SHIFT)


def _fixed(pixels: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.rint(pixels * (1 << SHIFT)).astype(np.int32)


@dataclass(frozen=True)
class Panel:
    """
    A flat, textured rectangle in the world: a wall, a tree, a piece of ground.

    origin: the world point (3,) of the texture's upper left corner; right, down: (3,) meters
    along its sides. paint: returns the texture (h, w) in kelvin, or [kelvin, opacity] (h, w, 2),
    as a pyramid; called when it is first seen.
    """

    origin: Array
    right: Array
    down: Array
    paint: Callable[[], list[Image]]

    @cached_property
    def levels(self) -> list[Image]:
        """The texture's pyramid."""
        return self.paint()

    def draw(self, view: View) -> Sprite | None:
        """Return it as the camera sees it; None if it does not."""
        corners = self.origin + np.stack((
            0 * self.right, self.right, self.right + self.down, self.down))
        outline = view.outline(corners)
        if outline is None:
            return None
        low = np.maximum(outline.min(0) >> SHIFT, 0)
        high = np.minimum((outline.max(0) >> SHIFT) + 1, (view.width, view.height))
        width, height = (int(v) for v in high - low)
        if width < 1 or height < 1:
            return None
        depth = np.maximum(view.project(corners)[1], NEAR)
        middle = float(np.sqrt(depth.min() * depth.max()))
        texels = self.levels[0].shape[1] / float(np.linalg.norm(self.right))
        level = round(log2(max(1.0, texels * middle / view.focal)))
        texture = self.levels[min(level, len(self.levels) - 1)]
        rows, columns = texture.shape[:2]
        to_world = np.column_stack((self.right / columns, self.down / rows, self.origin))
        center = np.array(((1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)))  # of a texel
        shift = np.array(((1, 0, -low[0] - 0.5), (0, 1, -low[1] - 0.5), (0, 0, 1)))
        transform = shift @ view.matrix @ np.vstack((to_world, (0, 0, 1))) @ center
        found = cv2.warpPerspective(texture, transform, (width, height), flags=cv2.INTER_LINEAR,
                                    borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(mask, outline - (low << SHIFT).astype(np.int32), 255, cv2.LINE_AA,
                           SHIFT)
        alpha = mask.astype(np.float32) / 255
        if found.ndim == 3:
            found, alpha = found[..., 0], alpha * found[..., 1]
        return Sprite(int(low[0]), int(low[1]), found, alpha)


def pyramid(texture: Image, levels: int = 4) -> list[Image]:
    """Return a texture and its halves."""
    found = [texture]
    while len(found) < levels and min(found[-1].shape[:2]) >= 8:
        height, width = found[-1].shape[:2]
        found.append(cv2.resize(found[-1], (width // 2, height // 2),
                                interpolation=cv2.INTER_AREA))
    return found


def noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int = 1,
) -> Image:
    """Return smooth noise of about unit deviation; cell: pixels of its largest spots."""
    total = np.zeros((2, 2), np.float32)
    for i in range(octaves):
        rows, columns = (min(n, max(2, round(n / cell * 2 ** i))) for n in shape)
        total = cv2.resize(total, (columns, rows), interpolation=cv2.INTER_CUBIC)
        total += rng.standard_normal(total.shape, np.float32) * 0.6 ** i
    return cv2.resize(total, shape[::-1], interpolation=cv2.INTER_CUBIC)
