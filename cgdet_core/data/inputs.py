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

"""What a person names as sources: files, patterns, standard input, cameras and URLs."""

from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from itertools import groupby
import logging
import os
from pathlib import Path, PurePosixPath
import re
from urllib.parse import unquote, urlsplit

from cgdet_core.data.sources import open_path, pictures, Source, warn_of_topic
from cgdet_core.data.streams import check_url, is_device, open_camera, open_url, shown
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import free_name
from cgdet_core.runtime.imaging.frames import (
    ADDED,
    files_below,
    IMAGE_SUFFIXES,
    is_bag,
    natural,
    ZSTD,
)

BOM = '\ufeff'  # that Windows writes before a text
_log = logging.getLogger(__name__)


def find_sources(
    texts: Iterable[str], standard_input: Iterable[str] = (), topic: str | None = None,
) -> list[Source]:
    """
    Return the sources of arguments; images that follow each other are one source.

    A text is a file, a folder, a pattern, a camera, a URL, or "-" for the lines of
    `standard_input`, each a text again, or several, separated by zeros. topic: of bags. UserError
    names the first that is not there, is not a source, or is named twice, and a file name that two
    frames would have.
    """
    listed = [found for text in texts for found in _expand(text, standard_input)]
    _check_different(shown(t) if _is_url(t) else os.path.abspath(t) for t in listed)
    sources = _open_all(listed, topic, set())
    names: set[str] = set()
    for name in (name for source in sources for name in source.names):
        if name in names:
            raise UserError(f'Two frames have the name {name}; detect in their sources '
                            'separately, with an output folder for each.')
        names.add(name)
    return sources


def find_recordings(
    texts: Iterable[str], standard_input: Iterable[str] = (), topic: str | None = None,
) -> list[Path | Source]:
    """
    Return the bags of arguments as paths, and other sources, see `find_sources`.

    A folder stands for the bags in it and below, or for its images if there is none. UserError
    also for what is named twice, and for a COCO set.
    """
    listed = [found for text in texts for found in _expand(text, standard_input)]
    for text in listed:
        if text.lower().endswith('.json') and not Path(text).with_suffix('.onnx').is_file() and (
                Path(text).is_file()):
            raise UserError(f'{text} is a set already, or another file of JSON; "cgdet data '
                            'merge" joins sets.')
    bags = [[] if _is_url(text) else [*_bags_in(Path(text), set())] for text in listed]
    found: list[Path | Source] = []
    taken: set[str] = set()
    for has_bags, group in groupby(zip(listed, bags), lambda entry: bool(entry[1])):
        if has_bags:
            for text, inner in group:
                found += inner
                images = [] if inner == [Path(text)] else files_below(
                    Path(text), IMAGE_SUFFIXES, '*')
                if images:
                    _log.warning('%s: only the bags are read; name its images, such as %s.', text,
                                 images[0])
        else:
            found += _open_all([text for text, _ in group], topic, taken)
    _check_different(place for source in found for place in (
        [os.path.realpath(source)] if isinstance(source, Path) else
        [os.path.realpath(file) for file in source.files] or [source.where]))
    return found


def find_bags(sources: Sequence[str]) -> list[Path]:
    """
    Find bags by paths, folders that contain bags at any depth, and shell patterns.

    Every bag is returned once, in the order of the sources, then of names. A source without any
    bag is returned unchanged: opening it raises the error.
    """
    found: dict[str, Path] = {}
    for source in sources:
        paths = [Path(source)]
        if has_magic(source) and not paths[0].exists():
            paths = [Path(p) for p in sorted(glob(source, recursive=True))]
        for path in [b for p in paths for b in _bags_in(p, set())] or [Path(source)]:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _check_different(places: Iterable[str]) -> None:
    """Raise UserError for a place that is there twice."""
    seen: set[str] = set()
    for place in places:
        if place in seen:
            raise UserError(f'{place} is named twice; name each source once.')
        seen.add(place)


def _bags_in(path: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(path)  # links may form a loop
    if real in seen:
        return
    seen.add(real)
    if is_bag(path):
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if not inner.name.startswith('.') and not (  # x.mcap is the same as x.mcap.zstd
                    inner.suffix == ZSTD and inner.with_suffix('').exists()):
                yield from _bags_in(inner, seen)


def _open_all(listed: Sequence[str], topic: str | None, taken: set[str]) -> list[Source]:
    """Open sources; images that follow each other are one. taken: names of other sequences."""
    sources: list[Source] = []
    for alone, group in groupby(listed, _is_picture):
        if alone:
            sources.append(pictures([Path(text) for text in group]))
        else:
            sources += [_open(text, topic, _free_name(text, taken)) for text in group]
    warn_of_topic(topic, map(shown, listed))
    return sources


def _expand(text: str, standard_input: Iterable[str]) -> list[str]:
    """Return what a text stands for."""
    if text == '-':
        # "find -print0" ends names with a zero.
        lines = [part.removeprefix(BOM).strip() for line in standard_input
                 for part in line.split('\0')]
        found = [path for line in lines if line and line != '-' for path in _expand(line, ())]
        if not found:
            raise UserError('There are no paths on standard input.')
        return found
    if _is_url(text):
        check_url(text)
    elif has_magic(text) and not Path(text).exists():
        found = sorted((path for path in glob(text, recursive=True) if not any(
            part in ADDED and part not in text for part in Path(path).parts)), key=natural)
        if not found:
            raise UserError(f'No file matches {text}.')
        return found
    return [text]


def _is_url(text: str) -> bool:
    return re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text) is not None


def _is_picture(text: str) -> bool:
    return Path(text).suffix.lower() in IMAGE_SUFFIXES and not _is_url(text) and (
        Path(text).is_file())


def _open(text: str, topic: str | None, name: str) -> Source:
    if _is_url(text):
        return open_url(text, name)
    path = Path(text)
    return open_camera(path, name) if is_device(path) else open_path(path, topic, name)


def _free_name(text: str, taken: set[str]) -> str:
    """Return the last part of a path or URL without suffix, with a number if it is taken."""
    path = PurePosixPath(unquote(urlsplit(text).path)) if _is_url(text) else Path(text)
    stem = path.stem or (urlsplit(text).hostname if _is_url(text) else Path(text).resolve().stem)
    return free_name(str(stem or 'stream'), taken)
