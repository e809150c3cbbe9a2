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

"""LLVIP: night street scenes, people only; VOC labels shared by both modalities."""

from pathlib import Path
import re

from cgdet_core.data.formats.native import (
    Listing,
    NativeFrame,
    Options,
    Pictures,
    UNLABELLED,
    wrong_layout,
)
from cgdet_core.data.formats.voc import parse_voc
from cgdet_core.errors import UserError

LAYOUT = 'infrared/{train,test}/, visible/{train,test}/ and Annotations/*.xml'


def read_llvip(folder: Path, options: Options) -> Listing:
    """
    Read infrared/ and visible/ with their train and test folders.

    There are also corrected labels: of several Annotations* folders, the last one in natural
    order is read (Annotations_v2, not Annotations), or `options.labels`.
    """
    options.allow('llvip', 'labels')
    versions = _versions(folder)
    if not (folder / 'infrared').is_dir() or not (versions or options.labels):
        raise wrong_layout(folder, 'LLVIP', LAYOUT)
    labels = _chosen(folder, options.labels) if options.labels else versions[-1]
    listing = Listing([], {'person': 'person'}, f'labels of {labels.name}/')
    files = {p.stem: p for p in labels.glob('*.xml') if not p.name.startswith('.')}
    pictured: set[str] = set()
    for split in ('train', 'test'):
        thermal = Pictures(folder / 'infrared' / split)
        rgb = Pictures(folder / 'visible' / split)
        pictured |= thermal.keys()
        for stem, path in thermal.items():
            if stem in files:
                listing.frames.append(NativeFrame(
                    split, path, rgb[stem], parse_voc(files[stem]), 'night'))
            else:
                listing.counts[UNLABELLED] += 1
    # The first release had more images than the current one; their labels are still there.
    listing.counts['labels without a picture'] += len(files.keys() - pictured)
    for other in versions:
        if other != labels:
            listing.notes.append(_difference(other, files))
    return listing


def _versions(folder: Path) -> list[Path]:
    def natural(path: Path) -> str:
        return re.sub(r'\d+', lambda digits: digits[0].zfill(9), path.name.lower())
    # The lower-case folder is our output, unless it contains the labels.
    return sorted((p for p in folder.glob('[Aa]nnotation*') if p.is_dir()
                   and any(p.glob('*.xml'))), key=natural)


def _chosen(folder: Path, labels: Path) -> Path:
    place = folder / labels if (folder / labels).is_dir() else labels
    if not any(place.glob('*.xml')):
        raise UserError(f'The label folder {labels} has no XML files.')
    return place


def _difference(other: Path, files: dict[str, Path]) -> str:
    theirs = {p.stem: p for p in other.glob('*.xml')}
    differ = sum(stem not in theirs or parse_voc(theirs[stem]) != parse_voc(path)
                 for stem, path in files.items())
    return f'{other.name}/ has different labels for {differ} of {len(files)} frames; not read.'
