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
Draw boxes and labels on thermal frames for display.

Line widths and letters grow with the image, so that boxes are readable at 160x120 and 1280x1024.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.frames import as_drawn
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import cv2
import numpy as np
from numpy.typing import NDArray

# BGR; distinguishable with color blindness (Okabe and Ito, 2008). Black text is readable on each.
COLORS = ((0, 94, 213), (115, 158, 0), (233, 180, 86), (66, 228, 240), (167, 121, 204))
BLACK = (0, 0, 0)
WHITE = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
Color = tuple[int, int, int]
Picture = NDArray[np.uint8]  # (H, W, 3) BGR


def as_seen(frame: NDArray[Any], normalization: Normalization) -> NDArray[np.uint8]:
    """Return a thermal frame as the network sees it, (H, W) uint8."""
    frame, _ = fill_dead_pixels(frame)
    return (normalize(frame, normalization, finite=True) * 255).astype(np.uint8)


def to_picture(frame: NDArray[Any], normalization: Normalization) -> Picture:
    """Return a thermal frame (H, W) as the network sees it, or an RGB frame (H, W, 3) as it is."""
    if frame.ndim == 3:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), np.uint8)
    return np.asarray(cv2.cvtColor(as_seen(frame, normalization), cv2.COLOR_GRAY2BGR), np.uint8)


def draw(frame: NDArray[Any], normalization: Normalization, boxes: NDArray[np.float32],
         texts: Sequence[str], colors: Sequence[Color],
         truth: NDArray[np.float32] | None = None) -> Picture:
    """Return a frame as an image with boxes (D, 4), and below them truth (M, 4), dashed."""
    picture = to_picture(frame, normalization)
    if truth is not None:
        draw_truth(picture, truth)
    draw_boxes(picture, boxes, texts, colors)
    return picture


def draw_boxes(picture: Picture, boxes: NDArray[np.float32], texts: Sequence[str],
               colors: Sequence[Color | None]) -> None:
    """
    Draw boxes (D, 4) and their labels into an image, the most important ones first.

    A color of None: dashed, as `draw_truth`. Labels neither overlap each other nor leave the
    image: one without room is left out.
    """
    shown, corners = _visible(boxes, picture)
    for box, i in zip(corners.tolist(), shown):
        if (color := colors[i]) is None:
            draw_truth(picture, boxes[[i]])
        else:
            cv2.rectangle(picture, box[:2], box[2:], color, line_width(picture))
    scale, pad = _letters(picture)
    lines = max(1, round(scale))
    texts = [as_text(text) for text in texts]
    extents = [cv2.getTextSize(texts[i], FONT, scale, lines) for i in shown]
    below = max((extent[1] for extent in extents), default=0)
    sizes = [(width + 2 * pad, height + below + pad) for (width, height), _ in extents]
    places = place_labels(corners, sizes, (picture.shape[1], picture.shape[0]))
    for place, (width, height), i in zip(places, sizes, shown):
        if place is not None:
            x, y = place
            corner = x + width - 1, y + height - 1
            cv2.rectangle(picture, place, corner, colors[i] or WHITE, cv2.FILLED)
            cv2.putText(picture, texts[i], (x + pad, y + height - below), FONT, scale, BLACK,
                        lines, cv2.LINE_AA)


def as_text(name: str) -> str:
    """Return a name for OpenCV, which ends the process for one that is not valid text."""
    return name.encode('utf-8', 'replace').decode()


def place_labels(boxes: NDArray[np.int64], sizes: Sequence[tuple[int, int]],
                 limits: tuple[int, int]) -> list[tuple[int, int] | None]:
    """
    Return the upper left corner of each box's label, or None if there is no room for it.

    boxes (N, 4) in an image of `limits` (width, height), in order of importance; sizes: width and
    height of the labels. A label touches its box and hides as few boxes as possible.
    """
    if not len(boxes):
        return []
    x1, y1, x2, y2 = boxes.T[:, :, None]
    width, height = extent = np.array(sizes).T[:, :, None]
    left, right, above, below, bottom = x1, x2 - width + 1, y1 - height, y2 + 1, y2 - height + 1
    x = np.hstack([left, left, right, right, x2 + 1, x1 - width, x2 + 1, x1 - width,
                   left, right, left, right])
    y = np.hstack([above, below, above, below, y1, y1, bottom, bottom, y1, y1, bottom, bottom])
    room = np.array(limits)[:, None, None] - extent
    corners = np.clip(np.array([x, y]), 0, np.maximum(room, 0))  # (2, N, candidates)
    labels = np.concatenate([corners, corners + extent]).transpose(1, 2, 0)
    hidden = _overlaps(labels, boxes).sum(-1)  # boxes, by each candidate
    places: list[tuple[int, int] | None] = []
    taken = np.empty((0, 4), np.int64)
    for candidates, cost, fits in zip(labels, hidden, (room >= 0).all(0)[:, 0]):
        free = ~_overlaps(candidates, taken).any(-1)
        if not (fits and free.any()):
            places.append(None)
            continue
        best = candidates[np.where(free, cost, len(boxes) + 1).argmin()]
        taken = np.vstack([taken, best])
        places.append((int(best[0]), int(best[1])))
    return places


def draw_truth(picture: Picture, boxes: NDArray[np.float32], width: int = 0) -> None:
    """Draw annotated boxes (M, 4), dashed in black and white, `width` or one pixel thick."""
    width = width or max(1, line_width(picture) - 1)
    dash = 4 * line_width(picture)

    def dashes(start: int, stop: int) -> NDArray[np.uint8]:
        return (np.arange(stop + 1 - start) // dash % 2 * 255).astype(np.uint8)[:, None]

    for x1, y1, x2, y2 in _visible(boxes, picture)[1].tolist():
        for y in (y1, max(y1, y2 - width + 1)):
            picture[y:min(y + width, y2 + 1), x1:x2 + 1] = dashes(x1, x2)
        for x in (x1, max(x1, x2 - width + 1)):
            picture[y1:y2 + 1, x:min(x + width, x2 + 1)] = dashes(y1, y2)[:, None]


def draw_legend(picture: Picture, names: Sequence[str], truth: bool = False) -> None:
    """Draw the names of the classes 0, 1 ... in their colors at the bottom, and that of truth."""
    scale, pad = _letters(picture)
    entries = [*map(as_text, names), *(['truth'] if truth else [])]
    extents = [cv2.getTextSize(text, FONT, scale, 1) for text in entries]
    below = max(extent[1] for extent in extents)
    height = max(extent[0][1] for extent in extents) + below + 2 * pad
    places, x, row = [], 0, 0
    for (width, _), _ in extents:  # from left to right, in as many rows as necessary
        width += height + 2 * pad  # with the sample of the line
        if x and x + width > picture.shape[1]:
            x, row = 0, row + 1
        places.append((x, row))
        x += width
    top = picture.shape[0] - (row + 1) * height
    strip = picture[max(0, top):]
    strip[:] = strip // 4 + 48
    for i, (text, (x, row)) in enumerate(zip(entries, places)):
        y = top + row * height
        box = [x + pad, y + pad, x + height - 2 * pad, y + height - 2 * pad]
        if i < len(names):
            cv2.rectangle(picture, box[:2], box[2:], COLORS[i % len(COLORS)], line_width(picture))
        else:
            draw_truth(picture, np.array([box], np.float32))
        cv2.putText(picture, text, (x + height, y + height - below - pad // 2), FONT, scale, WHITE,
                    1, cv2.LINE_AA)


def line_width(picture: Picture) -> int:
    """Return the width of boxes in pixels: 1 at 160x120, 2 at 640x512, 3 at 1280x1024."""
    return max(1, min(4, round(max(picture.shape[:2]) / 400)))


def _letters(picture: Picture) -> tuple[float, int]:
    """Return the scale of the font and the margin of a label in pixels."""
    side = max(picture.shape[:2])
    return min(1.5, max(0.3, 0.45 * side / 640)), max(1, round(side / 320))


def _visible(boxes: NDArray[np.float32], picture: Picture) -> tuple[list[int], NDArray[np.int64]]:
    """Return the indices of the boxes in the image, and their corners (N, 4) clipped to it."""
    size = np.array([picture.shape[1], picture.shape[0]])
    shown = ((boxes[:, :2] < size) & (boxes[:, 2:] >= 0)).all(1)  # False for NaN
    corners = np.clip(np.rint(boxes[shown]), 0, np.tile(size - 1, 2))
    return np.flatnonzero(shown).tolist(), corners.astype(np.int64)


def _overlaps(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether rectangles (..., 4) and (B, 4) share pixels (..., B), x2, y2 excluded."""
    a = first[..., None, :]
    return np.asarray(((a[..., :2] < second[:, 2:]) & (second[:, :2] < a[..., 2:])).all(-1))


def contact_sheet(pictures: list[Picture], columns: int = 4, width: int = 480) -> Picture:
    """Arrange images (H, W, 3) in rows of `columns`, each scaled to `width` pixels."""
    tiles = [cv2.resize(p, (width, max(1, round(p.shape[0] * width / p.shape[1]))),
                        interpolation=cv2.INTER_AREA) for p in pictures]
    height = max(t.shape[0] for t in tiles)
    tiles = [cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, 0, cv2.BORDER_CONSTANT)
             for t in tiles]
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    return np.vstack([np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)])


def save_picture(path: Path, picture: NDArray[Any]) -> Path:
    """Write what was drawn as `save_frame` does; folders of frames do not have a PNG of it."""
    write_atomically(path, as_drawn(_encoded(path, picture)))
    return path


def save_frame(path: Path, frame: NDArray[Any]) -> Path:
    """Write an image, gray or BGR, atomically in the format of its suffix, and return its path."""
    write_atomically(path, _encoded(path, frame))
    return path


def _encoded(path: Path, image: NDArray[Any]) -> bytes:
    good, encoded = cv2.imencode(path.suffix, image)
    if not good:
        raise UserError(f'The image {path.name} cannot be encoded.')
    return bytes(encoded)
