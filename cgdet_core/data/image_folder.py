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

"""Where the images of a COCO file are."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
import re

from cgdet_core.errors import UserError

TRIED = 10  # names of images, of which some may be missing


def find_folder(
    path: Path, images: str | Path | None, names: Sequence[str],
) -> tuple[Path, str]:
    """
    Return the folder that file names are relative to, and the start of the names to leave out.

    path: the COCO file; images: the folder that the user names; names: those of images; of the
    first TRIED, the first that leads to a file decides. The start is that of absolute names that
    lead nowhere here, as they are of another machine. UserError if the user's folder does not
    exist.
    """
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise UserError(f'The image folder {images} does not exist.')
    found = (_start(folder, images is None, name) for name in names[:TRIED])
    return next(filter(None, found), (folder, ''))


def _start(folder: Path, search: bool, name: str) -> tuple[Path, str] | None:
    """Return where an image is, and the start of its name to leave out; search: see `_place`."""
    if found := _place(folder, search, name):
        return found, ''
    parts = PurePosixPath(name).parts
    if name.startswith('/') or re.match('[A-Za-z]:/', name):
        for number in range(1, len(parts)):
            rest = '/'.join(parts[number:])
            if found := _place(folder, search, rest):
                return found, name.removesuffix(rest)
    return None


def _place(folder: Path, search: bool, name: str) -> Path | None:
    """Return the folder with an image; search: also the only one in `folder` that has it."""
    # Both the folder `thermal` itself and file names that start with `thermal/` are common.
    places = [folder, folder.parent, folder / 'images', folder.parent / 'images']
    found = next((place for place in places if (place / name).is_file()), None)
    if found is None and search:
        inner = [p for p in folder.iterdir() if (p / name).is_file()]
        found = inner[0] if len(inner) == 1 else None
    return found
