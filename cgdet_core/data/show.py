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

"""Drawings of annotated frames, thermal and RGB side by side."""

from collections.abc import Sequence
import fnmatch
import logging
from pathlib import Path
from typing import TypeVar

from cgdet_core.data.coco import CocoSet, ImageRecord, NO_CLASS
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs
from cgdet_core.runtime.imaging.drawing import (
    as_text,
    COLORS,
    contact_sheet,
    draw_boxes,
    save_picture,
    to_picture,
    WHITE,
)
from cgdet_core.runtime.imaging.frames import check_not_among, read_bgr, read_thermal
from cgdet_core.runtime.imaging.geometry import resize
from cgdet_core.runtime.imaging.normalization import Normalization
import cv2
import numpy as np
from numpy.typing import NDArray

Item = TypeVar('Item')
CROP = 320  # pixels of a window, each way
_log = logging.getLogger(__name__)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` evenly spaced items, or all if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def draw_record(
    record: ImageRecord, classes: tuple[str, ...], paired: bool = True,
) -> NDArray[np.uint8]:
    """
    Return BGR (H, 2W, 3): thermal and RGB with the same boxes; ignore regions dashed.

    paired: false leaves out RGB, (H, W, 3).
    """
    views = [_thermal_view(record)]
    if paired:
        views.append(_rgb_view(record, views[0].shape[:2]))
    names = [f'{"ignore " if crowd else ""}{"" if label == NO_CLASS else classes[label]}'.strip()
             for label, crowd in zip(record.labels, record.crowd)]
    colors = [None if crowd else COLORS[label % len(COLORS)]
              for label, crowd in zip(record.labels, record.crowd)]
    for view in views if record.rgb_path else views[:1]:
        draw_boxes(view, record.boxes, names, colors)
    return np.hstack(views)


def _thermal_view(record: ImageRecord) -> NDArray[np.uint8]:
    """Return the frame as BGR; a black one that says so if it cannot be read."""
    try:
        return to_picture(read_thermal(record.path), Normalization('plateau'))
    except UserError as error:
        _log.warning('%s', error)
        view = np.zeros((480, 640, 3), np.uint8)
        cv2.putText(view, 'cannot be read', (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, WHITE, 1)
        return view


def _rgb_view(record: ImageRecord, shape: tuple[int, int]) -> NDArray[np.uint8]:
    view, words = np.zeros((*shape, 3), np.uint8), 'no RGB'
    if record.rgb_path is not None:
        try:
            resize(read_bgr(record.rgb_path), view)
            return view
        except UserError:
            words = 'RGB cannot be read'
    cv2.putText(view, words, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, WHITE, 1)
    return view


def save_sheet(path: Path, records: list[ImageRecord], classes: tuple[str, ...]) -> None:
    """Write a contact sheet of frames, each with both modalities if any has RGB."""
    paired = any(r.rgb_path is not None for r in records)
    pictures = [draw_record(r, classes, paired) for r in records]
    narrow = not paired and len(records) >= 4
    save_picture(path, contact_sheet(pictures, *((4, 480) if narrow else (
        min(2, len(records)), 960))))


def save_crops(path: Path, crops: Sequence[tuple[ImageRecord, NDArray[np.float32]]]) -> None:
    """Write a sheet of square windows around boxes (4,) of frames, with their file names."""
    save_picture(path, contact_sheet([_crop(*crop) for crop in crops], min(6, len(crops)), CROP))


def _crop(record: ImageRecord, box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (CROP, CROP, 3): four times the box, and its surroundings."""
    thermal = _thermal_view(record)
    side = max(4 * float((box[2:] - box[:2]).max()), 64)
    corner = ((box[:2] + box[2:] - side) / 2).clip(
        0, [max(0, record.width - side), max(0, record.height - side)])
    zoom = CROP / side
    place = np.array([[zoom, 0, -corner[0] * zoom], [0, zoom, -corner[1] * zoom]], np.float32)
    picture = np.asarray(cv2.warpAffine(thermal, place, (CROP, CROP)), np.uint8)
    x1, y1, x2, y2 = np.rint((box - np.tile(corner, 2)) * zoom).astype(int).tolist()
    cv2.rectangle(picture, (x1, y1), (x2, y2), COLORS[0], 2)
    for color, thick in ((0, 3), (255, 1)):
        cv2.putText(picture, as_text(record.path.name)[-40:], (5, CROP - 8),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.4, (color,) * 3, thick, cv2.LINE_AA)
    return picture


def show(coco: CocoSet, output: Path, count: int, match: str, overwrite: bool) -> int:
    """
    Draw `count` evenly spaced frames whose file name matches the shell pattern `match`.

    output: a PNG file for one sheet, or a folder for one image per frame. Returns their number.
    """
    records = evenly([r for r in coco.images if fnmatch.fnmatch(r.path.name, match)], count)
    if not records:
        raise UserError(f'No frame of {coco.path} matches {match!r}.')
    files = [path for r in coco.images for path in (r.path, r.rgb_path) if path is not None]
    if output.suffix.lower() == '.png':
        check_outputs([output], overwrite=overwrite)
        check_not_among([output], files)
        save_sheet(output, records, coco.classes)
        return len(records)
    if output.suffix:
        raise UserError(f'{output} must end in .png for a sheet, or be a folder.')
    paths = [output / f'{r.image_id:06d}_{r.path.stem}.png' for r in records]
    paired = any(r.rgb_path is not None for r in coco.images)
    check_outputs(paths, overwrite=overwrite)
    check_not_among(paths, files)
    for path, record in zip(paths, records):
        save_picture(path, draw_record(record, coco.classes, paired))
    return len(records)
