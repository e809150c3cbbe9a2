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

"""A folder of what a teacher computed from whole pictures: a file and its checksum each."""

import hashlib
from pathlib import Path

from cgdet_core.distillation.views import AS_A_PICTURE, View
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_atomically


class PictureStore:
    """Store bytes by the picture of a view and the size at which the teacher saw it."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self._suffix = suffix

    def path(self, view: View, size: tuple[int, int]) -> Path:
        """Return the file of a view's picture, which changes with the picture."""
        state, (width, height) = view.picture.stat(), size
        name = f'{view.picture.resolve()} {state.st_size} {state.st_mtime_ns} {width}x{height}'
        if view.thermal:
            name += f' {AS_A_PICTURE.to_dict()}{view.polarity}'
        if view.black_hot:
            name += ' black hot'
        return self.folder / f'{hashlib.sha256(name.encode()).hexdigest()[:24]}{self._suffix}'

    def read(self, path: Path) -> bytes | None:
        """Return what was written to a file; None if it is missing or was changed since."""
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        content, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
        return content if checksum == _checksum(path, content) else None

    def write(self, path: Path, content: bytes) -> None:
        """Write a file and its checksum; UserError if the folder cannot be written."""
        try:
            write_atomically(path, content + _checksum(path, content))
        except OSError as error:
            raise UserError(
                f'The cache of a teacher {self.folder} cannot be written ({error.strerror}); set '
                'teacher.cache to another folder.') from None


CHECKSUM = 16  # bytes


def _checksum(path: Path, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=path.name.encode(), digest_size=CHECKSUM).digest()
