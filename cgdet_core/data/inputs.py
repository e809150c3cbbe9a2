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

from collections.abc import Iterable
from glob import glob, has_magic
from itertools import count, groupby
from pathlib import Path, PurePosixPath
import re
from urllib.parse import unquote, urlsplit

from cgdet_core.data.sources import open_path, pictures, Source
from cgdet_core.data.streams import check_url, is_device, open_camera, open_url
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import ADDED, IMAGE_SUFFIXES

BOM = '\ufeff'  # that Windows writes before a text


def find_sources(
    texts: Iterable[str], standard_input: Iterable[str] = (), topic: str | None = None,
) -> list[Source]:
    """
    Return the sources of arguments; images that follow each other are one source.

    A text is a file, a folder, a pattern, a camera, a URL, or "-" for the lines of
    `standard_input`, each a text again. topic: of bags. UserError names the first that is not
    there or is not a source, and a file name that two frames would have.
    """
    listed = [found for text in texts for found in _expand(text, standard_input)]
    sources: list[Source] = []
    taken: set[str] = set()
    for alone, group in groupby(listed, _is_picture):
        if alone:
            sources.append(pictures([Path(text) for text in group]))
        else:
            sources += [_open(text, topic, _free_name(text, taken)) for text in group]
    names: set[str] = set()
    for name in (name for source in sources for name in source.names):
        if name in names:
            raise UserError(f'Two frames have the name {name}; detect in their sources '
                            'separately, with an output folder for each.')
        names.add(name)
    return sources


def _expand(text: str, standard_input: Iterable[str]) -> list[str]:
    """Return what a text stands for."""
    if text == '-':
        lines = [line.removeprefix(BOM).strip() for line in standard_input]
        found = [path for line in lines if line and line != '-' for path in _expand(line, ())]
        if not found:
            raise UserError('There are no paths on standard input.')
        return found
    if _is_url(text):
        check_url(text)
    elif has_magic(text) and not Path(text).exists():
        found = sorted(path for path in glob(text, recursive=True)
                       if not any(part in ADDED and part not in text for part in Path(path).parts))
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
    names = (f'{stem}_{n}' if n > 1 else str(stem or 'stream') for n in count(1))
    free = next(name for name in names if name not in taken)
    taken.add(free)
    return free
