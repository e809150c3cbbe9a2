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

"""Types and file access shared by the readers of native layouts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
import logging
from pathlib import Path
import re
from typing import NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import read_text
from cgdet_core.runtime.imaging.frames import files_below, IMAGE_SUFFIXES

CLASSES = ('person', 'bicycle', 'car')
# A native class may also be dropped, or (prefix IGNORE) become a region where evaluation neither
# requires the class nor counts a detection as wrong (iscrowd of COCO).
DROP, IGNORE = 'drop', 'ignore-'
COMMON = {'person': 'person', 'people': 'person', 'pedestrian': 'person', 'bicycle': 'bicycle',
          'bike': 'bicycle', 'car': 'car'}
SPLITS = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}
UNLABELLED = 'frames without labels, left out'
UNLISTED = 'labeled frames in no list of train, val or test, left out'
_log = logging.getLogger(__name__)


class Item(NamedTuple):
    """An annotated object: native class name, box x1, y1, x2, y2, and whether to ignore it."""

    name: str
    box: tuple[float, float, float, float]
    ignore: bool = False


@dataclass
class NativeFrame:
    """A frame as annotated; boxes in pixels, or in fractions of the image size."""

    split: str
    thermal: Path
    rgb: Path | None = None
    items: list[Item] = field(default_factory=list)
    time_of_day: str = 'unknown'
    fractions: bool = False
    declared: tuple[int, int] | None = None  # width and height of the image, if labels state them


@dataclass
class Listing:
    """
    The result of a reader.

    classes: native name in lower case -> class, IGNORE and a class, or DROP; names that are not
    listed are classes of their own. categories: classes of the set even if no native class is
    mapped to them.
    counts: numbers for the report, by description. layout: what was read.
    """

    frames: list[NativeFrame]
    classes: dict[str, str]
    layout: str
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    categories: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class Options:
    """The user's RGB folder, label folder, bit depth, and whether to pair unregistered RGB."""

    rgb: Path | None = None
    labels: Path | None = None
    bits: int | None = None
    unregistered_rgb: bool = False

    def allow(self, name: str, *known: str) -> None:
        """Raise UserError for an option that the format `name` does not have, or wrong bits."""
        for option, value in vars(self).items():
            if value is not None and value is not False and option not in known:
                raise UserError(f'{name} sets have no {option.replace("_", " ")} to choose; leave '
                                'it out', option)
        if self.bits not in (None, 8, 16):
            raise UserError(f'The bits must be 8 or 16, not {self.bits}', 'bits')


def own_classes(names: Iterable[str]) -> dict[str, str]:
    """Map a set's class names: those in COMMON to our classes, others to themselves."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.lower(), COMMON.get(name.lower(), name))
    return found


def wrong_layout(folder: Path, name: str, expected: str) -> UserError:
    """Return an error with the expected layout and the contents of the folder."""
    entries = sorted(p.name + '/' * p.is_dir() for p in folder.iterdir())
    found = ', '.join(entries[:8]) + (', ...' if len(entries) > 8 else '')
    return UserError(f'{folder} does not have the layout of {name}: expected {expected}, '
                     f'found {found or "an empty folder"}.')


def files_in(folder: Path, *suffixes: str) -> dict[str, Path]:
    """Return the files of a folder with these suffixes by stem, in order."""
    return {p.stem: p for p in files_below(folder, suffixes, '*') if p.name != 'classes.txt'}


class Pictures(dict[str, Path]):
    """The images of a folder by stem, in order; a missing one has its expected path."""

    def __init__(self, folder: Path, suffix: str = '.jpg') -> None:
        files = files_below(folder, IMAGE_SUFFIXES, '*')
        super().__init__((path.stem, path) for path in files)
        self.folder = folder
        over = [path for path in files if self[path.stem] != path]
        if over:
            _log.warning('%s: %d left out, as images of the same name with another suffix are '
                         'used; the first is %s, for %s.', folder, len(over), over[0].name,
                         self[over[0].stem].name)
        self.suffix = next(iter(self.values())).suffix if self else suffix

    def __missing__(self, stem: str) -> Path:
        return self.folder / f'{stem}{self.suffix}'


def resolve(folder: Path, path: Path) -> Path:
    """Return a folder that the user chose, relative to the data set or the working directory."""
    return folder / path if (folder / path).is_dir() else path


def existing(folder: Path, path: Path, kind: str) -> Path:
    """Return the same; UserError if it does not exist."""
    place = resolve(folder, path)
    if not place.is_dir():
        raise UserError(f'The {kind} folder {path} does not exist.')
    return place


def number(text: str) -> float:
    """Return the number that a text is; ValueError if it is none."""
    if '_' in text:  # to Python a part of a number
        raise ValueError
    return float(text)


def read_names(path: Path) -> list[str]:
    """Read a list of frames: the first word of each line, without folders and suffix."""
    words = (line.split()[0] for line in read_text(path).splitlines() if line.strip())
    return [re.sub(r'\.(jpe?g|png|tiff?|bmp|xml|txt)$', '', w.replace('\\', '/').split('/')[-1],
                   flags=re.IGNORECASE) for w in words]


def unique(names: Iterable[str], counts: Counter[str]) -> list[str]:
    """Return names without repetitions, and count those."""
    names = list(names)
    kept = list(dict.fromkeys(names))
    counts['frames listed twice'] += len(names) - len(kept)
    return kept
