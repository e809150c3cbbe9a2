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
    folders = list(folders)
    for path in [*files, *folders]:
        absolute = path.absolute()
        if path.is_dir() and path not in folders:
            raise UserError(f'{path} is a folder; give {option} the name of a file.')
        if path.exists() and not (path.is_dir() if path in folders else path.is_file()):
            raise UserError(f'{path} is no {"folder" if path in folders else "file"}; choose '
                            f'another {option}.')
        if path.exists() and not overwrite:
            raise UserError(f'{path} exists already; choose another {option} or add --overwrite.')
        inside = next(p for p in (absolute, *absolute.parents)
                      if p.exists() and (p != absolute or path in folders))
        if not inside.is_dir():
            raise UserError(f'{path} cannot be written: {inside} is no folder.')
        if not os.access(inside, os.W_OK | os.X_OK):
            raise UserError(f'{path} cannot be written: no right to write to {inside}.')
