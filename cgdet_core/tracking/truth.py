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

"""Read the truth of a sequence: CSV files that name frames, and text files with a row a frame."""

from collections.abc import Callable, Iterator
import csv
from functools import partial
import logging
from pathlib import Path
import re
from typing import Any, NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import read_text
from cgdet_core.words import counted
import numpy as np
from numpy.typing import NDArray

NAMES = ('file', 'frame')  # of the column that names the frame
SIDES = ('x', 'y', 'w', 'h')
OURS = ('score', 'state')  # columns of a table of "cgdet track run", which numbers from 0
LARGEST = 1e6  # pixels
_log = logging.getLogger(__name__)
_FOLDERS = re.compile(r'[/\\]')  # also those of Windows
_SUFFIX = re.compile(r'\.[A-Za-z][A-Za-z0-9]*$')  # of an image; .25 is of a stamp


class Row(NamedTuple):
    """
    A row of a truth file.

    frame: the name of an image, the number of a frame in a video, or the index as an int. box
    (4,): x, y, w, h, NaN or without area if the target is not visible. ours: of a table that
    "cgdet track run" wrote.
    """

    frame: str | int
    box: NDArray[np.float64]
    ours: bool = False


class Truth(NamedTuple):
    """Boxes (N, 4) x, y, w, h, NaN in frames without a row, and which frames (N,) have a row."""

    boxes: NDArray[np.float64]
    annotated: NDArray[np.bool_]

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Return the frames (N,) whose box has an area."""
        return np.asarray((self.boxes[:, 2:] > 0).all(1) & np.isfinite(self.boxes).all(1))


def read_rows(path: Path, corners: bool = False, every: int = 1) -> list[Row]:
    """
    Return the rows of a truth file; UserError names the line that cannot be understood.

    corners: text files have x1, y1, x2, y2. every: their rows are of frames 0, `every` and so on.
    """
    lines = read_text(path).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    rows = list(_csv_rows(path, lines)) if path.suffix.lower() == '.csv' else [
        Row(number * every, _text_box(path, number, line, corners))
        for number, line in enumerate(lines)]
    if not any(np.isfinite(row.box).all() for row in rows):
        raise UserError(f'{path} has no boxes; a truth needs at least one.')
    return rows


def _csv_rows(path: Path, lines: list[str]) -> Iterator[Row]:
    separator = max(',;\t', key=next(filter(str.strip, lines), ',').count)
    try:
        yield from _cells_of(path, csv.reader(lines, delimiter=separator), separator)
    except csv.Error as error:
        raise UserError(f'{path} cannot be read as a table: {error}.') from None


def _cells_of(path: Path, table: Any, separator: str) -> Iterator[Row]:
    filled = (cells for cells in table if any(cell.strip() for cell in cells))
    head = [name.strip().lower() for name in next(filled, [])]
    name = next((name for name in NAMES if name in head), None)
    missing = [side for side in SIDES if side not in head]
    if name is None or missing:
        raise UserError(f'{path} has no column {missing[0] if missing else NAMES[0]}; its first '
                        f'line must be {NAMES[0]},{",".join(SIDES)}.')
    places, ours = [head.index(side) for side in SIDES], {*OURS} <= {*head}
    for cells in filled:
        if len(cells) <= max(*places, head.index(name)):
            raise UserError(f'{path}, line {table.line_num}: has {counted(len(cells), "value")}, '
                            f'but the first line has {len(head)}.')
        sides = [cells[i].strip() for i in places]
        if separator != ',':  # a comma is that of a decimal
            sides = [re.sub(r'^([^,.]*),([^,.]*)$', r'\1.\2', side) for side in sides]
        box = _box(path, table.line_num, sides if any(sides) else ['nan'] * 4)
        yield Row(cells[head.index(name)].strip(), box, ours)


def _text_box(path: Path, number: int, line: str, corners: bool) -> NDArray[np.float64]:
    if not (text := line.strip(' \t,;')):
        return np.full(4, np.nan)
    if re.match(r'm-?\d', text):  # a mask of VOT: its box, and lengths of its runs of pixels
        text = ','.join(text[1:].split(',')[:4])
    cells = [cell.strip(',') for cell in re.split(r'[;\s]+', re.sub(r'\s*,\s*', ',', text))]
    if len(cells) in (4, 8) and any(',' in cell for cell in cells):
        raise UserError(f'{path}, line {number + 1}: in {line.strip()!r} a comma may be that of a '
                        'decimal or separate numbers; write decimals with points, and one kind '
                        'of separator.')
    values = _box(path, number + 1, [c for cell in cells for c in cell.split(',') if c], (4, 8))
    if len(values) == 8:  # the corners of a polygon
        x, y = values[::2], values[1::2]
        return np.array([x.min(), y.min(), np.ptp(x), np.ptp(y)])
    if corners:
        values[2:] -= values[:2]
    return values


def _box(path: Path, line: int, cells: list[str],
         sizes: tuple[int, ...] = (4,)) -> NDArray[np.float64]:
    """Return numbers; all of them NaN, as of a target that is not visible, are good as well."""
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        values = np.empty(0)
    if any('_' in cell for cell in cells):  # to Python a part of a number
        values = np.empty(0)
    if len(values) not in sizes:
        wanted = ' or '.join(map(str, sizes))
        raise UserError(f'{path}, line {line}: {",".join(cells)!r} is not {wanted} numbers.')
    if not np.isfinite(values).all() and not np.isnan(values).all():
        raise UserError(f'{path}, line {line}: some values are not finite; all four are NaN if '
                        'the target is not visible.')
    if (np.abs(values) > LARGEST).any():
        raise UserError(f'{path}, line {line}: {",".join(cells)!r} is not in pixels.')
    return values


def place(rows: list[Row], names: list[str], path: Path, numbered: bool,
          every: int = 1) -> Truth:
    """
    Return the truth of frames with these names; UserError for a row of no frame, or for two.

    numbered: the frames are those of a video; rows name them by numbers from 0 on, or from 1 on,
    see `_first`. every: rows of a text are of so many frames; if it has too few, that is logged.
    """
    if isinstance(rows[0].frame, int) and len(rows) < (expected := -(-len(names) // every)):
        _log.warning('%s has %s for %s%s; the frames after them are not counted. If one between '
                     'is missing, later boxes are of wrong frames.', path,
                     counted(len(rows), 'row'), counted(len(names), 'frame'),
                     f', and {expected} are expected' if every > 1 else '')
    boxes = np.full((len(names), 4), np.nan)
    annotated = np.zeros(len(names), bool)
    find = _finder(rows, names, path, numbered)
    for frame, box, _ in rows:
        index = find(frame)
        if index is None:
            if isinstance(frame, int):
                only = f' It has one row for every {every} frames.' if every > 1 else ''
                raise UserError(f'{path} has a row for frame {frame}, but there are only '
                                f'{counted(len(names), "frame")}.{only}')
            raise UserError(f'{path} names {frame}, which is not among the '
                            f'{counted(len(names), "frame")} ({names[0]} to {names[-1]}).')
        if annotated[index]:
            raise UserError(f'{path} has two boxes for {frame}; of several targets, each has a '
                            'table of its own.')
        boxes[index], annotated[index] = box, True
    truth = Truth(boxes, annotated)
    if not truth.visible.any():
        raise UserError(f'{path} has no box with an area; a truth needs at least one.')
    return truth


def _finder(
    rows: list[Row], names: list[str], path: Path, numbered: bool,
) -> Callable[[str | int], int | None]:
    """Return the function from a row's frame to its index, or None if there is no such frame."""
    known = {name: i for i, name in enumerate(names)}
    stems: dict[str, list[int]] = {}
    numbers: dict[int, int] = {}
    if numbered:
        used = [n for row in rows if (n := _number(row.frame, numbered)) is not None]
        first = 0 if rows[0].ours else _first(used, len(names))
        numbers = {i: i - first for i in range(len(names) + 1)}
        numbers = {number: i for number, i in numbers.items() if 0 <= i < len(names)}
    else:
        for i, name in enumerate(names):
            stems.setdefault(_stem(name), []).append(i)
        ends = [re.search(r'\d+$', _stem(name)) for name in names]
        found = {int(end[0]): i for i, end in enumerate(ends) if end}
        numbers = found if len(found) == len(names) else {}

    def find(frame: str | int) -> int | None:
        if isinstance(frame, int):
            return frame if frame < len(names) else None
        index = None if numbered else known.get(frame)
        if index is None and (same := stems.get(_stem(frame))):
            index = same[0] if len(same) == 1 else _ending(frame, {i: names[i] for i in same})
            if index is None:
                raise UserError(f'{path} names {frame}, which may be {names[same[0]]} or '
                                f'{names[same[1]]}; name it as one of them.')
        number = _number(frame, numbered)
        return index if index is not None or number is None else numbers.get(number)

    return find


def _ending(frame: str, names: dict[int, str]) -> int | None:
    """Return the index of the longest of names that a path ends with, None if two are as long."""
    for bare in (str, partial(_SUFFIX.sub, '')):
        path = _FOLDERS.split(bare(frame))
        ends = sorted((len(parts), i) for i, name in names.items()
                      if path[-len(parts := _FOLDERS.split(bare(name))):] == parts)
        if ends and (len(ends) == 1 or ends[-1][0] > ends[-2][0]):
            return ends[-1][1]
    return None


def _first(used: list[int], count: int) -> int:
    """
    Return the number of a video's first frame, 0 or 1, by the numbers that a truth uses.

    It is 1 if the last number would be too large otherwise, or if the truth starts with 1 and
    leaves out the last frame, as a sparse one that is numbered from 1.
    """
    if not used or min(used) < 1:
        return 0
    return int(max(used) == count or min(used) == 1 and max(used) < count - 1)


def _number(frame: str | int, numbered: bool) -> int | None:
    """Return the number that a row names a frame by: 12, 000012.png; of a video also a_12.png."""
    stem = _stem(re.sub(r'^([0-9]+)\.0+$', r'\1', frame)) if isinstance(frame, str) else ''
    found = re.fullmatch(r'(?:.*[^0-9.])?([0-9]{1,9})' if numbered else '([0-9]{1,9})', stem)
    return int(found[1]) if found else None


def _stem(name: str) -> str:
    """Return a name without folders, and without the suffix of images."""
    return _SUFFIX.sub('', _FOLDERS.split(name)[-1])
