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
from pathlib import Path
from typing import TypeVar

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs
from cgdet_core.runtime.imaging.drawing import (
    COLORS,
    contact_sheet,
    draw_boxes,
    save_picture,
    WHITE,
)
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal
from cgdet_core.runtime.imaging.geometry import resize
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import cv2
import numpy as np
from numpy.typing import NDArray

Item = TypeVar('Item')


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return `count` evenly spaced items, or all if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def draw_record(record: ImageRecord, classes: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return BGR (H, 2W, 3): thermal and RGB with the same boxes; ignore regions dashed."""
    raw = read_thermal(record.path)
    gray = (normalize(raw, Normalization('plateau')) * 255).astype(np.uint8)
    views = [cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), _rgb_view(record, gray.shape)]
    names = [f'{"ignore " if crowd else ""}{classes[label]}'
             for label, crowd in zip(record.labels, record.crowd)]
    colors = [None if crowd else COLORS[label % len(COLORS)]
              for label, crowd in zip(record.labels, record.crowd)]
    for view in views if record.rgb_path else views[:1]:
        draw_boxes(view, record.boxes, names, colors)
    return np.hstack(views)


def _rgb_view(record: ImageRecord, shape: tuple[int, int]) -> NDArray[np.uint8]:
    view, words = np.zeros((*shape, 3), np.uint8), 'no RGB'
    if record.rgb_path is not None:
        try:
            resize(cv2.cvtColor(read_rgb(record.rgb_path), cv2.COLOR_RGB2BGR), view)
            return view
        except UserError:
            words = 'RGB cannot be read'
    cv2.putText(view, words, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, WHITE, 1)
    return view


def save_sheet(path: Path, records: list[ImageRecord], classes: tuple[str, ...]) -> None:
    """Write a contact sheet of frames, each with both modalities."""
    sheet = contact_sheet([draw_record(r, classes) for r in records], min(2, len(records)), 960)
    save_picture(path, sheet)


def show(coco: CocoSet, output: Path, count: int, match: str, overwrite: bool) -> int:
    """
    Draw `count` evenly spaced frames whose file name matches the shell pattern `match`.

    output: a PNG file for one sheet, or a folder for one image per frame. Returns their number.
    """
    if count < 1:
        raise UserError(f'The count must be positive, not {count}.')
    records = evenly([r for r in coco.images if fnmatch.fnmatch(r.path.name, match)], count)
    if not records:
        raise UserError(f'No frame of {coco.path} matches {match!r}.')
    if output.suffix.lower() == '.png':
        check_outputs([output], overwrite=overwrite)
        save_sheet(output, records, coco.classes)
        return len(records)
    if output.suffix:
        raise UserError(f'{output} must end in .png for a sheet, or be a folder.')
    paths = [output / f'{r.image_id:06d}_{r.path.stem}.png' for r in records]
    check_outputs(paths, overwrite=overwrite)
    for path, record in zip(paths, records):
        save_picture(path, draw_record(record, coco.classes))
    return len(records)
