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

"""Outputs that appear whole or not at all, and are checked before the work."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
import json
import os
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.errors import UserError


def check_outputs(paths: Iterable[Path], overwrite: bool = True) -> None:
    """UserError for what exists, unless `overwrite`, and for what could not be written."""
    for path in paths:
        if path.exists() and not overwrite:
            raise UserError(f'{path} exists already; choose another name or add --overwrite.')
        if path.suffix and path.is_dir():
            raise UserError(f'{path} is a folder; give the name of a file.')
        folder = next(p for p in path.absolute().parents if p.exists())
        if not folder.is_dir():
            raise UserError(f'{path} cannot be written: {folder} is a file.')
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f'{path} cannot be written: no right to write to {folder}.')


@contextmanager
def temporary_for(path: Path) -> Iterator[Path]:
    """
    Give a name beside `path` for a file or folder, which the caller renames when it is whole.

    What is left under that name is removed; an OSError names `path` instead.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        if error.filename is None or str(temporary) in str(error.filename):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: str | Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file so that nobody sees half of it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with temporary_for(Path(path)) as temporary:
        with os.fdopen(os.open(temporary, flags, mode), 'wb') as file:
            file.write(content)
        os.replace(temporary, path)


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write a report."""
    write_atomically(path, (json.dumps(values, indent=2) + '\n').encode())
