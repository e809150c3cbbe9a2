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
Folders of sequences: thermal frames, maybe RGB images of each, and the truth of a target.

A folder has its frames in `thermal/`, `infrared/`, `img/` and so on, in a video of that name, or
in itself, and RGB images in `visual/`, `visible/`, `rgb/` and so on; the truth is
`gt_thermal.csv` (file, x, y, w, h), `gt_thermal_NAME.csv` for each of several targets, or the
files of a benchmark.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
import logging
import os
from pathlib import Path

from cgdet_core.data.sources import open_path, pictures, RATE, Source
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import free_name
from cgdet_core.runtime.imaging.frames import (
    files_below,
    IMAGE_SUFFIXES,
    natural,
    VIDEO_SUFFIXES,
)
from cgdet_core.tracking.benchmarks import Benchmark, BENCHMARKS, PLAIN
from cgdet_core.tracking.truth import place, read_rows, Truth
from cgdet_core.words import counted

THERMAL = ('thermal', 'infrared', 'ir', 'tir', 'lwir', 'i', 'img', 'imgs', 'images', 'frames')
COLOR = ('visual', 'visible', 'rgb', 'vis', 'v', 'color')
TARGETS = 'gt_thermal'
_log = logging.getLogger(__name__)
PAGES = ('.tif', '.tiff')
DEPTH = 3  # of folders that a named folder is searched in for sequences


@dataclass(frozen=True)
class Entry:
    """A target of a sequence that was found: its name, folder and truth files."""

    name: str
    folder: Path
    truths: tuple[Path, ...]


@dataclass(frozen=True)
class Sequence:
    """
    A target of a sequence, ready to be followed.

    source: the thermal frames, to be read once. names: of the frames. truths: thermal first, with
    the other modality if there are two. rate: in Hz. files: everything that is read. color: the
    folder of RGB images, or else what is named like one, if there is anything. rgb: the image of
    each frame (`rgb_of`), or none; only an RGB-T tracker reads them.
    """

    entry: Entry
    source: Source
    names: list[str]
    truths: tuple[Truth, ...]
    rate: float
    files: tuple[Path, ...]
    color: Path | None = None
    rgb: tuple[Path | None, ...] = ()


def find_sequences(
    folder: Path, benchmark: Benchmark = PLAIN, targets: Many[str] = (),
) -> list[Entry]:
    """
    Return the targets in a folder, or of the sequences in the folders below it.

    targets: only these, of the names in `gt_thermal_NAME.csv`. UserError for a folder that is
    none, or that has no truth in it or below.
    """
    folder = Path(os.path.abspath(folder))  # a sequence that is found twice is one
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder; name the folder of a sequence.' if
                        folder.exists() else f'The folder {folder} does not exist.')
    found = list(_below(folder, benchmark, targets, DEPTH))
    if not found:
        raise UserError(
            f'{folder} is not the folder of a sequence: {_lacks(folder, benchmark, targets)}',
            *(['target'] if targets else []))
    return found


def without_truth(folder: Path, benchmark: Benchmark = PLAIN) -> list[tuple[Path, UserError]]:
    """Return the folders below that have frames like a sequence, but no truth, with an error."""
    return [(place, UserError(f'{place} is not measured: {_lacks(place, benchmark)}'))
            for place in _unlabeled(Path(os.path.abspath(folder)), benchmark, DEPTH)]


def _unlabeled(folder: Path, benchmark: Benchmark, depth: int) -> Iterator[Path]:
    if any(_targets(folder, benchmark, ())):
        return
    frames = _find(_by_name(folder), THERMAL)
    own = folder if frames is None and depth < DEPTH else frames
    if own is not None and (own.is_file() or files_below(own, IMAGE_SUFFIXES, '*')) and not any(
            _below(folder, benchmark, (), depth)):
        yield folder
        return
    for inner in _folders(folder) if depth else ():
        yield from _unlabeled(inner, benchmark, depth - 1)


def different(places: Many[Entry]) -> list[Entry]:
    """Return targets without those that are there twice, also through a link."""
    found: dict[tuple[str, ...], Entry] = {}
    for entry in places:
        found.setdefault(tuple(map(os.path.realpath, (entry.folder, *entry.truths))), entry)
    return list(found.values())


def _below(folder: Path, benchmark: Benchmark, targets: Many[str],
           depth: int) -> Iterator[Entry]:
    own = list(_targets(folder, benchmark, targets))
    yield from own
    if not own and depth:
        for inner in _folders(folder):
            yield from _below(inner, benchmark, targets, depth - 1)


def _folders(folder: Path) -> list[Path]:
    return sorted((inner for inner in folder.iterdir()
                   if inner.is_dir() and not inner.name.startswith('.')), key=natural)


def _targets(folder: Path, benchmark: Benchmark, targets: Many[str]) -> Iterator[Entry]:
    """Yield the targets of one folder."""
    name = folder.resolve().name
    if benchmark is PLAIN:
        several = sorted((path for path in folder.glob(f'{TARGETS}_*.csv') if path.is_file()),
                         key=natural)
        for path in several:
            target = path.stem.removeprefix(f'{TARGETS}_')
            if not targets or target in targets:
                yield Entry(f'{name}/{target}', folder, (path,))
        one = folder / f'{TARGETS}.csv'
        if one.is_file() and not targets:
            yield Entry(name, folder, (one,))
        if several or one.is_file():
            return
    if targets:
        return
    for names in benchmark.truths:
        paths = tuple(folder / name for name in names)
        if all(path.is_file() for path in paths):
            yield Entry(name, folder, paths)
            return


def _lacks(folder: Path, benchmark: Benchmark, targets: Many[str] = ()) -> str:
    """Return what a folder lacks, and the benchmarks that it may be of."""
    if targets:
        known = sorted({path.stem.removeprefix(f'{TARGETS}_') for path in folder.glob(
            f'**/{TARGETS}_*.csv')})
        wanted = ' or '.join(f'{TARGETS}_{target}.csv' for target in targets)
        return f'it has no {wanted}' + (f'; its targets are {", ".join(known)}.' if known else '.')
    fitting = {key: other.title for key, other in BENCHMARKS.items()
               if other is not benchmark and any(_below(folder, other, (), DEPTH))}
    if fitting:
        return (f'it has the truth of {" or ".join(fitting.values())}; use --benchmark '
                f'{" or ".join(fitting)}.')
    names = [' and '.join(names) for names in benchmark.truths]
    if benchmark is PLAIN:
        names = [f'{TARGETS}.csv with file,x,y,w,h', *names]
    return f'it has no truth ({" or ".join(names)}), and no folder in it has.'


def named_apart(places: Many[Entry]) -> list[Entry]:
    """Return targets whose names differ: the second of a name gets _2, and so on."""
    taken: set[str] = set()
    return [replace(entry, name=free_name(entry.name, taken)) for entry in places]


def open_sequence(entry: Entry, benchmark: Benchmark = PLAIN, rate: float = 0.0) -> Sequence:
    """
    Return a sequence that was found; UserError if it has no frames, or no truth that fits them.

    rate: of its frames, in Hz; 0 for that of the video, or 25.
    """
    rows = [read_rows(path, benchmark.corners, benchmark.every) for path in entry.truths]
    if len({len(of_one) for of_one in rows}) > 1:
        raise UserError(f'{entry.truths[0]} has {len(rows[0])} rows and {entry.truths[1].name} '
                        f'{len(rows[1])}; both must have one for each frame.')
    there = _by_name(entry.folder)
    source = _open_frames(entry.folder, there)
    names = list(source.names) or [
        f'{source.name}_{number:06d}.png' for number in range(source.total or 0)]
    numbered = bool(source.rate) or len(source.files) == 1 < len(names)  # a video, or pages
    truths = tuple(place(of_one, names, path, numbered, benchmark.every)
                   for of_one, path in zip(rows, entry.truths))
    if benchmark is PLAIN and truths[0].visible.sum() < 2:
        raise UserError(f'{entry.truths[0]} has a box in one frame only, in which the target '
                        'starts; to measure anything, a later frame must have one as well.')
    color, pictures = next(
        ((folder, found) for name in COLOR if (folder := there.get(name)) and folder.is_dir()
         and (found := files_below(folder, IMAGE_SUFFIXES, '*'))),
        (_find(there, COLOR), []))
    return Sequence(entry, source, names, truths, rate or source.rate or RATE,
                    (*source.files, *entry.truths, *pictures), color)


def rgb_of(folder: Path, names: Many[str], by_order: bool = False) -> tuple[Path | None, ...]:
    """
    Return the RGB images in a folder of frames with these names.

    They are those with a frame's name without its ending, None for frames that have none; if none
    has, and there are as many images as frames, they are in the same order. by_order: so they
    are in any case, as in benchmarks. UserError if there are no images, none of a frame, or two
    of one, or one of two.
    """
    found = files_below(folder, IMAGE_SUFFIXES, '*')
    if not found:
        raise UserError(f'{folder} is not a folder with images.')
    named = {path.stem: path for path in found}
    stems = [Path(name).stem for name in names]
    rgb = tuple(map(named.get, stems))
    if len(found) == len(names) and (by_order or not any(rgb)):
        return tuple(found)
    images, frames = Counter(path.stem for path in found), Counter(stems)
    for name in filter(named.get, stems):
        if images[name] > 1 or frames[name] > 1:
            raise UserError(f'{folder} has {counted(images[name], "image")} named {name} for '
                            f'{counted(frames[name], "frame")} of this name; each frame must '
                            'have one of its own.')
    if not any(rgb):
        raise UserError(
            f'{folder} has {counted(len(found), "image")} for {counted(len(names), "frame")}, and '
            'none has the name of a frame; there must be one for each frame, or of its name.')
    if (used := sum(picture is not None for picture in rgb)) < max(len(found), len(names)):
        _log.warning('%s: %s of %s with the name of one of the %s.', folder, used,
                     counted(len(found), 'image'), counted(len(names), 'frame'))
    return rgb


def _open_frames(folder: Path, there: Mapping[str, Path]) -> Source:
    found = _find(there, THERMAL)
    if found is not None:
        return counted_through(open_path(found))
    own = files_below(folder, IMAGE_SUFFIXES, '*')
    if not own:
        videos = files_below(folder, VIDEO_SUFFIXES, '*')
        raise UserError(f'{folder} has no frames: no folder or video named '
                        f'{", ".join(THERMAL)}, and no images.' + (
                            f' Name {videos[0].name} thermal{videos[0].suffix}.' if videos
                            else ''))
    return pictures(own, folder)


def counted_through(source: Source) -> Source:
    """Return a source with the frames that a video has; its header may count others."""
    if len(source.files) != 1 or source.files[0].suffix.lower() not in VIDEO_SUFFIXES:
        return source
    return replace(source, total=sum(1 for _ in open_path(source.files[0]).frames))


def check_no_rgb(source: str) -> None:
    """Raise UserError for a folder with thermal and RGB frames, which are not one recording."""
    if not os.path.isdir(source):  # an address may be too long for a Path to look
        return
    folder = Path(source)
    there = _by_name(folder)
    if (thermal := _find(there, THERMAL)) and (color := _find(there, COLOR)):
        raise UserError(f'{folder} has thermal frames and RGB, {thermal.name} and {color.name}; '
                        f'name {thermal}.')


def _find(there: Mapping[str, Path], names: Many[str]) -> Path | None:
    """Return the first folder, or video, of these names; there: see `_by_name`."""
    for name in names:
        if (found := there.get(name)) and found.is_dir():
            return found
        for suffix in VIDEO_SUFFIXES:
            if (found := there.get(f'{name}{suffix}')) and found.is_file():
                return found
    return next((found for name in names for suffix in PAGES
                 if (found := there.get(f'{name}{suffix}')) and found.is_file()), None)


def _by_name(folder: Path) -> dict[str, Path]:
    """Return what is in a folder by its name in lower case; of two, that is so named."""
    return {path.name.lower(): path for path in sorted(folder.iterdir())}
