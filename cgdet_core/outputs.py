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

"""What is said of an output before the work and not after it."""

from collections.abc import Iterable
import os
from pathlib import Path

from cgdet_core.errors import UserError


def check_outputs(
    files: Iterable[Path] = (), folders: Iterable[Path] = (), overwrite: bool = True,
    option: str = '--output',
) -> None:
    """UserError for what could not be written, or exists and may not be replaced."""
    wanted = [(path, False) for path in files] + [(path, True) for path in folders]
    for path, folder in wanted:
        if path.is_dir() and not folder:
            raise UserError(f'{path} is a folder; give {option} the name of a file.')
        if path.exists() and not (path.is_dir() if folder else path.is_file()):
            raise UserError(f'{path} is no {"folder" if folder else "file"}; choose another '
                            f'{option}.')
        if path.exists() and not overwrite:
            raise UserError(f'{path} exists already; choose another {option} or add --overwrite.')
        absolute = path.absolute()
        places = (absolute, *absolute.parents) if folder else absolute.parents
        inside = next(place for place in places if place.exists())
        if not inside.is_dir():
            raise UserError(f'{path} cannot be written: {inside} is no folder.')
        if not os.access(inside, os.W_OK | os.X_OK):
            raise UserError(f'{path} cannot be written: no right to write to {inside}.')
