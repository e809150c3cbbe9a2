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

"""Edges that thermal and RGB images have in common, as complex images."""

from collections.abc import Sequence

from cgdet_core.data.bags.registration import by_homography, Registration
import cv2
import numpy as np
from numpy.typing import NDArray

Edges = NDArray[np.complex64]
Gray = NDArray[np.uint8]
Floats = NDArray[np.float64]
NEIGHBORHOOD = 12  # of an image's width: one part is what the contrast of an edge is relative to
DARK_SPREAD = 10.0  # levels between the 5th and 95th percentile of an image that shows something
MAX_DARK = 0.5  # share of the pairs of a set, which is of no use with more
MIN_WON = 0.75  # share of comparisons in which a frame's own RGB image fits better than another
SMALL_WIDTH = 64  # pixels; noise is averaged out before an image is judged


def is_dark(gray: Gray) -> bool:
    """Return whether an 8-bit image is black or nearly uniform, except for some lamps."""
    height = max(1, round(gray.shape[0] * SMALL_WIDTH / gray.shape[1]))
    small = cv2.resize(gray, (SMALL_WIDTH, height), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, (5, 95))
    return bool(high - low < DARK_SPREAD)


def edges_of(gray: Gray) -> Edges:
    """
    Return the edges of an image (H, W): strength of 0 to 1, and twice their angle as the phase.

    Twice the angle, because a warm object may be darker or brighter in RGB. Strength is relative
    to the surroundings and saturates, so that a lamp does not outweigh all other edges.
    """
    picture = cv2.GaussianBlur(np.sqrt(gray.astype(np.float32) / 255), (0, 0), 1.0)
    x, y = (cv2.Sobel(picture, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    strength = cv2.magnitude(x, y)
    around = cv2.GaussianBlur(strength, (0, 0), gray.shape[1] / NEIGHBORHOOD)
    relative = strength / (around + np.median(strength) + 1e-3)
    turned = (x + 1j * y) ** 2 / np.maximum(strength ** 2, 1e-12)
    return np.asarray(turned * (relative / (1 + relative)), np.complex64)


def standardize(edges: Edges, seen: NDArray[np.bool_]) -> Edges:
    """
    Return edges (N, H, W) minus their mean over the frames, by their spread; 0 where not seen.

    What all frames have in common, such as the hood, the horizon and a sensor's pattern, would
    correlate at places that have nothing to do with the mounting. What remains of the correlation
    is the difference between the frames' own RGB images and those of other frames.
    """
    centered = (edges - edges.mean(0)) * seen
    spread = np.sqrt((np.abs(centered) ** 2).mean(0))
    return np.asarray(centered / (spread + spread[seen].mean() + 1e-6), np.complex64)


def against_others(
    thermal: Edges, rgb: Edges, seen: NDArray[np.bool_],
) -> tuple[float, float, float]:
    """
    Return the mean correlation of edges (N, H, W) of pairs in the order of time, and of others.

    Others are frames and RGB images at least a quarter of the sequence apart. Also returns won,
    the share of comparisons in which a frame's own RGB image correlates better than another.
    """
    a, b = (standardize(e, seen)[:, seen] for e in (thermal, rgb))
    a, b = (e / (np.linalg.norm(e, axis=1, keepdims=True) + 1e-9) for e in (a, b))
    found = (a @ b.conj().T).real
    apart = np.abs(np.subtract.outer(*[np.arange(len(a))] * 2))
    others = (apart >= len(a) / 4) & (apart <= 3 * len(a) / 4)
    own = np.diag(found)
    return (float(own.mean()), float(found[others].mean()),
            float((own[:, None] > found)[others].mean()))


def change_of(edges: Edges) -> float:
    """Return the share of the edges' energy that is not the same in all frames, 0 to 1."""
    total = float((np.abs(edges) ** 2).mean())
    return 1 - float((np.abs(edges.mean(0)) ** 2).mean()) / max(total, 1e-12)


def shrink(gray: Gray, width: int) -> Gray:
    """Return an image at most `width` pixels wide."""
    if gray.shape[1] <= width:
        return gray
    size = width, max(1, round(gray.shape[0] * width / gray.shape[1]))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)


def warped_edges(
    pictures: Sequence[Gray], matrix: Floats, size: tuple[int, int],
) -> tuple[Edges, NDArray[np.bool_]]:
    """Return the edges (N, H, W) of images under a homography, and where all of them are seen."""
    register = by_homography(matrix, size)
    seen = _seen(register, pictures[0].shape)
    return np.stack([edges_of(register.apply(p)) for p in pictures]) * seen, seen


def _seen(register: Registration, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) that show the image and not its border."""
    inside = register.apply(np.full(shape, 255, np.uint8)) > 254
    kernel = np.ones((7, 7), np.uint8)
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return cv2.erode(padded, kernel)[1:-1, 1:-1] > 0
