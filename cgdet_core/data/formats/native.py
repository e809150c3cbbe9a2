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

"""What the readers of native layouts share: frames as found, and access to files."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import IMAGE_SUFFIXES

CLASSES = ('person', 'bicycle', 'car')
# What a native class may become beside a class: nothing, or, before the name of a class, a region
# where evaluation neither expects that class nor counts a detection as wrong (COCO's iscrowd).
DROP, IGNORE = 'drop', 'ignore-'
COMMON = {
    'person': 'person', 'people': 'person', 'pedestrian': 'person', 'bicycle': 'bicycle',
    'bike': 'bicycle', 'car': 'car'}

UNLABELLED = 'frames without labels, left out'


class Item(NamedTuple):
    """One annotated object: native class name, box x1, y1, x2, y2, and whether to ignore it."""

    name: str
    box: tuple[float, float, float, float]
    ignore: bool = False


@dataclass
class Frame:
    """One frame as annotated; boxes in pixels, or in fractions of the picture's size."""

    split: str
    thermal: Path
    rgb: Path | None = None
    items: list[Item] = field(default_factory=list)
    time_of_day: str = 'unknown'
    fractions: bool = False


@dataclass
class Listing:
    """
    All a reader found.

    classes maps native names in lower case to what they become: a class, IGNORE and a class, or
    DROP, as do names that are not listed. categories are classes of the set whether or not one
    becomes them. counts are things worth a line in the report, by their description; layout names
    what was read.
    """

    frames: list[Frame]
    classes: dict[str, str]
    layout: str
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    categories: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class Options:
    """
    What the user may choose about a layout.

    RGB folder, label folder, twin by bit depth, and whether to pair RGB that is not registered.
    """

    rgb: Path | None = None
    labels: Path | None = None
    bits: int | None = None
    unregistered_rgb: bool = False

    def allow(self, name: str, *known: str) -> None:
        """Refuse an option that means nothing for the format `name`."""
        for option, value in vars(self).items():
            if value is not None and value is not False and option not in known:
                raise UserError(f'--{option.replace("_", "-")} means nothing for {name}; leave it '
                                'out.')


def own_classes(names: Iterable[str]) -> dict[str, str]:
    """Map a set's own names to classes: what is COMMON to ours, others to themselves."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.lower(), COMMON.get(name.lower(), name))
    return found


def wrong_layout(folder: Path, name: str, expected: str) -> UserError:
    """Return the error that says what a layout looks like and what the folder holds instead."""
    entries = sorted(p.name + '/' * p.is_dir() for p in folder.iterdir())
    found = ', '.join(entries[:8]) + (', ...' if len(entries) > 8 else '')
    return UserError(f'{folder} is not laid out like {name}: expected {expected}, '
                     f'found {found or "an empty folder"}.')


class Pictures(dict[str, Path]):
    """The pictures of a folder by stem, in order; an absent one has the path it should have."""

    def __init__(self, folder: Path, suffix: str = '.jpg') -> None:
        # Archives made on a Mac bring a hidden "._name" beside each picture.
        found = sorted(p for p in folder.glob('*')
                       if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.'))
        super().__init__((p.stem, p) for p in found)
        self.folder = folder
        self.suffix = found[0].suffix if found else suffix

    def __missing__(self, stem: str) -> Path:
        return self.folder / f'{stem}{self.suffix}'


def rgb_folder(folder: Path, rgb: Path) -> Path:
    """Find the user's RGB folder, named from the data set or from here."""
    place = folder / rgb if (folder / rgb).is_dir() else rgb
    if not place.is_dir():
        raise UserError(f'The RGB folder {rgb} does not exist.')
    return place


def read_text(path: Path) -> str:
    """Read a text file; UserError if it is none."""
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError:
        raise UserError(f'{path} is not a text file; fetch it again.') from None


def read_json(path: Path) -> Any:
    """Read a JSON file; UserError if it is damaged."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path} is not a readable JSON file: {error}.') from None


def read_names(path: Path) -> list[str]:
    """Read a list of frames: the first word of each line, without folders and picture suffix."""
    words = (line.split()[0] for line in read_text(path).splitlines() if line.strip())
    return [re.sub(r'\.(jpe?g|png|tiff?|bmp|xml|txt)$', '', w.replace('\\', '/').split('/')[-1],
                   flags=re.IGNORECASE) for w in words]


def unique(names: Iterable[str], counts: Counter[str]) -> list[str]:
    """Drop names already seen, and count them."""
    names = list(names)
    kept = list(dict.fromkeys(names))
    counts['frames listed twice'] += len(names) - len(kept)
    return kept
