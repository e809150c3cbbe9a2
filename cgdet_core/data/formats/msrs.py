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

"""MSRS: road scenes of one city; detection labels are separate from the images."""

from collections import Counter
from pathlib import Path

from cgdet_core.data.formats.native import (
    Listing,
    NativeFrame,
    Options,
    Pictures,
    UNLABELLED,
    wrong_layout,
)
from cgdet_core.data.formats.yolo import parse_yolo
from cgdet_core.errors import UserError

NAMES = {0: 'person', 1: 'bicycle', 2: 'car'}
TIMES = {'D': 'day', 'N': 'night'}  # the last letter of a frame's name
LAYOUT = ('{train,test}/{ir,vi}/ and labels in YOLO text in infrared/{train,test}/ or '
          'detection/{ir,vi,labels}/')


def _label_folders(folder: Path, labels: Path | None) -> list[Path]:
    """Return the folders that may contain train/ and test/ with labels, best first."""
    if labels is not None:
        place = folder / labels if (folder / labels).is_dir() else labels
        if not place.is_dir():
            raise UserError(f'The label folder {labels} does not exist.')
        return [place / 'infrared', place]
    # The labels are published as MSRS-detection-label; those of thermal are in infrared/.
    return [folder / 'infrared', *sorted(folder.glob('MSRS-detection-label*/infrared')),
            folder / 'labels']


def read_msrs(folder: Path, options: Options) -> Listing:
    """
    Read the frames that have a label file; the others are left out, not read as empty.

    Without labels for train and test, the 80 labeled frames of detection/ are the test set.
    """
    options.allow('msrs', 'labels')
    counts, frames, read = Counter[str](), [], []
    for split in ('train', 'test'):
        place = next((p / split for p in _label_folders(folder, options.labels)
                      if any((p / split).glob('*.txt'))), None)
        if place is not None:
            frames += _frames(split, folder / split, place, counts)
            read.append(_name(place, folder))
    own = folder / 'detection'
    if not frames and (own / 'labels').is_dir():
        frames = _frames('test', own, own / 'labels', counts)
        read.append('detection/labels')
    if not frames and not counts:
        raise wrong_layout(folder, 'MSRS', LAYOUT)
    return Listing(frames, {n: n for n in NAMES.values()}, f'labels of {", ".join(read)}', counts)


def _name(place: Path, folder: Path) -> str:
    return str(place.relative_to(folder) if place.is_relative_to(folder) else place)


def _frames(split: str, place: Path, labels: Path, counts: Counter[str]) -> list[NativeFrame]:
    thermal, rgb = Pictures(place / 'ir', '.png'), Pictures(place / 'vi', '.png')
    files = {p.stem: p for p in sorted(labels.glob('*.txt')) if p.name != 'classes.txt'}
    counts[UNLABELLED] += len(thermal.keys() - files.keys())
    return [NativeFrame(split, thermal[stem], rgb[stem], parse_yolo(path, NAMES),
                  TIMES.get(stem[-1], 'unknown'), fractions=True)
            for stem, path in files.items()]
