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

"""Write COCO sets as YOLO text labels, boxes in fractions of the image size."""

from collections.abc import Callable, Mapping
import os
from pathlib import Path
import shutil

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_new, free_stem, temporary_for
from cgdet_core.runtime.imaging.frames import read_thermal
import numpy as np
from numpy.typing import NDArray
import yaml


def yolo_lines(boxes: NDArray[np.float32], labels: NDArray[np.int64], width: int,
               height: int) -> str:
    """Return a line for each box (N, 4): class, center, width and height, clipped to the frame."""
    sides = np.array([width, height] * 2, float)
    boxes = (boxes.astype(float) / sides).clip(0, 1)
    corner, opposite = boxes[:, :2], boxes[:, 2:]
    values = np.hstack([(corner + opposite) / 2, opposite - corner])
    return ''.join(f'{label} {" ".join(f"{v:.6f}" for v in row)}\n'
                   for label, row in zip(labels, values))


def write_yolo(
    sets: Mapping[str, CocoSet], output: Path, unreadable: Callable[[UserError], None],
    progress: Callable[[int], None] = lambda frames: None,
) -> dict[str, dict[str, int]]:
    """
    Write images/SPLIT, with copies of the images, labels/SPLIT and data.yaml; return the numbers.

    sets: of the same classes, by their split. The numbers of a split are its frames, its boxes,
    and what YOLO has no form for and is left out: ignore regions and RGB images. unreadable:
    called for each image that cannot be read, which is left out. The folder is written completely
    or not at all. UserError if it exists, or no image of a split can be read.
    """
    check_new(output)
    with temporary_for(output) as folder:
        folder.mkdir()
        numbers = {}
        for split, coco in sets.items():
            numbers[split] = dict.fromkeys(('frames', 'boxes', 'ignored', 'rgb'), 0)
            taken: set[str] = set()
            for record in coco.images:
                progress(1)
                try:
                    read_thermal(record.path)
                except UserError as error:
                    unreadable(error)
                    continue
                _write(record, folder, split, free_stem(record.file_name, taken), numbers[split])
            if not numbers[split]['frames']:
                raise UserError(f'None of the frames of {coco.path} can be read.')
        names = dict(enumerate(next(iter(sets.values())).classes))
        (folder / 'data.yaml').write_text(yaml.safe_dump(
            {**{split: f'images/{split}' for split in sets}, 'names': names},
            sort_keys=False, allow_unicode=True), encoding='utf-8')
        os.replace(folder, output)
    return numbers


def _write(record: ImageRecord, folder: Path, split: str, stem: str,
           numbers: dict[str, int]) -> None:
    image = folder / 'images' / split / f'{stem}{record.path.suffix}'
    labels = folder / 'labels' / split / f'{stem}.txt'
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(record.path, image)
    kept = record.crowd == 0
    labels.write_text(yolo_lines(record.boxes[kept], record.labels[kept], record.width,
                                 record.height))
    for name, number in (('frames', 1), ('boxes', kept.sum()), ('ignored', (~kept).sum()),
                         ('rgb', record.rgb_path is not None)):
        numbers[name] += int(number)
