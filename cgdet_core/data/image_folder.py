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

from pathlib import Path, PurePosixPath
import re

from cgdet_core.errors import UserError


def find_folder(path: Path, images: str | Path | None, first: str) -> tuple[Path, str]:
    """
    Return the folder that file names are relative to, and the start of the names to leave out.

    path: the COCO file; images: the folder that the user names; first: the name of an image. The
    start is that of absolute names that lead nowhere here, as they are of another machine.
    UserError if the user's folder does not exist.
    """
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise UserError(f'The image folder {images} does not exist.')
    if found := _place(folder, images is None, first):
        return found, ''
    parts = PurePosixPath(first).parts
    if first.startswith('/') or re.match('[A-Za-z]:/', first):
        for number in range(1, len(parts)):
            rest = '/'.join(parts[number:])
            if found := _place(folder, images is None, rest):
                return found, first.removesuffix(rest)
    return folder, ''


def _place(folder: Path, search: bool, first: str) -> Path | None:
    """Return the folder with an image; search: also the only one in `folder` that has it."""
    # Both the folder `thermal` itself and file names that start with `thermal/` are common.
    places = [folder, folder.parent, folder / 'images', folder.parent / 'images']
    found = next((place for place in places if (place / first).is_file()), None)
    if found is None and search:
        inner = [p for p in folder.iterdir() if (p / first).is_file()]
        found = inner[0] if len(inner) == 1 else None
    return found
