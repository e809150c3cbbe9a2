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

"""Read JSON, write files and folders atomically, and find the files of the package."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
import csv
import difflib
import errno
import fcntl
from functools import cache
from io import StringIO
from itertools import chain, count
import json
import logging
import os
from pathlib import Path, PurePath
import re
import shutil
from typing import Any, IO

from cgdet_core.errors import UserError

_log = logging.getLogger(__name__)
SHIPPED_MODEL = 'models/thermal_small.onnx'  # see `share_file`
SHIPPED_INT8 = 'models/thermal_int8.onnx'
SHIPPED_TRACKER = 'models/thermal_tracker.onnx'
# What files start with, and what they seem to be.
SIGNATURES = {
    b'PK\x03\x04': 'a ZIP archive', b'\x1f\x8b': 'a gzip archive',
    b'\x89PNG': 'a PNG image', b'\xff\xd8\xff': 'a JPEG image', b'BM': 'a BMP image',
    b'II*\0': 'a TIFF image', b'MM\0*': 'a TIFF image', b'%PDF': 'a PDF document',
    b'\x89MCAP': 'a ROS 2 bag', b'SQLite format 3': 'a ROS 2 bag or another SQLite database',
    b'#ROSBAG': 'a ROS 1 bag', b'FFF\0': 'a radiometric file of FLIR (.seq, .fff)',
    b'GIF8': 'a GIF image', b'\x93NUMPY': 'a NumPy array', b'\x89HDF': 'an HDF5 file',
    b'\x80\x02': 'a Python pickle', b'\x80\x03': 'a Python pickle', b'\x80\x04': 'a Python pickle',
    b'\x7fELF': 'a program',
    b'ftrt': 'a TensorRT engine', b'ptrt': 'a TensorRT engine', b'CGDETENG': 'an engine',
    b'version https://git-lfs': 'a pointer of Git LFS, whose file "git lfs pull" downloads',
    b'<?xml': 'an XML file', b'<!doctype html': 'a web page', b'<html': 'a web page'}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of failed writes, whose OSError names no file


@contextmanager
def temporary_for(path: Path, alone: bool = True) -> Iterator[Path]:
    """
    Yield a path in a hidden folder next to `path`, which the caller renames when it is complete.

    The folder is locked and has the same name each time, so a process that writes `path` again
    removes what a killed one left there. An OSError from writing names `path` instead.
    alone: UserError while another process writes `path`; otherwise a second folder is used.
    """
    hidden = path.with_name(f'.{path.name}')
    descriptor = -1
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden, descriptor = next(_free(path, alone))
        yield hidden / path.name
    except OSError as error:
        written = error.filename2 or error.filename or hidden  # a copy names its source first
        ours = error.errno in FULL and str(hidden) in str(written)
        if not ours and str(hidden) not in str(error.filename):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if descriptor >= 0:
            shutil.rmtree(hidden, ignore_errors=True)
            os.close(descriptor)
        with suppress(OSError):  # the path is in it
            for folder in missing:
                folder.rmdir()


def _free(path: Path, alone: bool) -> Iterator[tuple[Path, int]]:
    """Yield hidden folders for `path`, empty and locked, with the descriptor of the lock."""
    for number in count():
        folder = path.with_name(f'.{path.name}.{number}.tmp')
        made = False
        with suppress(FileExistsError):
            folder.mkdir(0o700)
            made = True
        try:
            descriptor = _lock(folder, made)
        except BlockingIOError:
            if alone:
                raise UserError(f'Another process writes {path}; wait until it is finished, or '
                                'choose another output.') from None
            continue
        if descriptor is not None:
            for old in folder.iterdir() if not made else ():
                remove(old)
            yield folder, descriptor


def _lock(folder: Path, made: bool) -> int | None:
    """
    Lock a folder of this user until the descriptor is closed; None if that is not possible.

    BlockingIOError: another process has locked it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # removed by its writer, or somebody else's
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks
        locked = made
    status = os.fstat(descriptor)
    private = status.st_uid == os.geteuid() and not status.st_mode & 0o022
    with suppress(FileNotFoundError):  # its writer has removed it
        if locked and private and os.path.samestat(status, folder.lstat()):
            return descriptor
    os.close(descriptor)
    return None


def in_use(file: int | IO[Any]) -> bool:
    """Return whether another process has locked a file; lock it otherwise, until it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    return False


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove hidden folders that killed processes left; those in use stay."""
    for path in paths:
        if not path.is_dir():  # of earlier releases
            remove(path)
            continue
        with suppress(BlockingIOError):
            if (descriptor := _lock(path, False)) is not None:
                remove(path)
                os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder, or what of it can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def together(target: Path, names: Sequence[str]) -> Iterator[Path]:
    """
    Yield a temporary folder for files of these names, which then replace those beside `target`.

    All of them do or none, also if the process is killed: from the moment that the folder has its
    final name, `finish` moves what was not moved.
    """
    with temporary_for(target) as folder:
        folder.mkdir()
        yield folder
        finish(target, names)
        remove(_complete(target))  # with files of other names
        os.replace(folder, _complete(target))
    finish(target, names)


def finish(target: Path, names: Sequence[str]) -> bool:
    """Move the files that a killed `together` did not move; return whether there were any."""
    folder = _complete(target)
    if not folder.is_dir() or folder.is_symlink():  # a link could lead to files of others
        return False
    for name in names:
        with suppress(FileNotFoundError):  # it was moved
            os.replace(folder / name, target.with_name(name))
    with suppress(OSError):  # another process has removed it, or there are other files in it
        folder.rmdir()
    return True


def _complete(target: Path) -> Path:
    return target.with_name(f'.{target.name}.complete')


def write_atomically(path: str | Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file atomically: readers see the old one or the whole new one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with temporary_for(Path(path), alone=False) as temporary:
        with os.fdopen(os.open(temporary, flags, mode), 'wb') as file:
            file.write(content)
        os.replace(temporary, path)


def write_json(path: str | Path, values: dict[str, Any], indent: int | None = 2) -> None:
    """Write a report as JSON; indent None writes it compactly."""
    write_atomically(path, (json.dumps(values, indent=indent) + '\n').encode())


def write_table(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a table as CSV, with empty cells where a row lacks a column."""
    text = StringIO()
    table = csv.DictWriter(text, columns, lineterminator='\n')
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, text.getvalue().encode('utf-8', 'surrogateescape'))


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or UTF-16 with a byte order mark; UserError if it is none."""
    try:
        content = path.read_bytes()
        if wide := content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            _say_utf_16(path.parent)
        return content.decode('utf-16' if wide else 'utf-8-sig')
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from None
    except UnicodeDecodeError:
        kind = file_kind(path) or 'another encoding'
        raise UserError(f'{path} is not a text file in UTF-8 or UTF-16 but seems to be {kind}; '
                        'save or download it again, as UTF-8.') from None


@cache
def _say_utf_16(folder: Path) -> None:  # once for all its files
    _log.warning('%s has text in UTF-16, which is read; other tools may expect UTF-8.', folder)


def read_json(path: Path) -> Any:
    """
    Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    UserError: it cannot be read, is something else or damaged, or has an entry twice.
    """
    try:
        content = path.read_bytes()
        return json.loads(content, object_pairs_hook=_different)
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeDecodeError:
        reason = 'it is not text in UTF-8 or UTF-16; save it as UTF-8'
    except RecursionError:
        reason = 'its values are nested too deeply'
    except ValueError as error:
        reason = str(error) if content.strip() else 'it is empty'
    kind = file_kind(path)
    raise UserError(f'{path} is not a readable JSON file: '
                    + (f'it seems to be {kind}.' if kind else f'{reason}.'))


def _different(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError if a name is there twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the entry {twice[:60]!r} is there twice in one object')
    return values


def file_kind(path: Path) -> str:
    """Return what a file seems to be by its first bytes, for example "a PNG image", or ''."""
    try:
        with path.open('rb') as file:
            start = file.read(64)
    except OSError:
        return ''
    text = start.removeprefix(b'\xef\xbb\xbf').lstrip().lower()
    if start[:1] == b'\x08' and start[1:2] < b'\x20':  # the version of ONNX's format
        return 'an ONNX file'
    return next((kind for mark, kind in SIGNATURES.items()
                 if start.startswith(mark) or mark.startswith(b'<') and text.startswith(mark)), '')


def check_not_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise UserError if a file that will be written is also read, by any name."""
    existing = [path for path in outputs if path.is_file()]
    for other in inputs if existing else ():
        for path in existing:
            if os.path.isfile(other) and path.samefile(other):
                raise UserError(f'{path} is an input and would be replaced; choose another '
                                'output.', 'output')


def check_once(paths: Iterable[Path]) -> None:
    """Raise UserError for a file that is named twice, by any of its names."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UserError(f'{path} is named twice; name each file once.')
        seen.add(path.resolve())


def check_outputs(files: Iterable[Path] = (), folders: Iterable[Path] = (),
                  overwrite: bool = True) -> None:
    """Raise UserError for outputs that cannot be written, or exist and may not be replaced."""
    wanted = [(path, False) for path in files] + [(path, True) for path in folders]
    for name, times in Counter(os.path.abspath(path) for path, _ in wanted).items():
        if times > 1:
            raise UserError(f'{name} would be written twice; choose different names.')
    for path, folder in wanted:
        if path.is_dir() and not folder:
            raise UserError(f'{path} is a folder; name a file.')
        if path.exists() and not (path.is_dir() if folder else path.is_file()):
            kind = 'folder' if folder else 'file'
            raise UserError(f'{path} is not a {kind}; choose another name.')
        if path.exists() and not overwrite:
            raise UserError(f'{path} already exists; choose another name or have it replaced.',
                            'overwrite')
        absolute = path.absolute()
        places = (absolute, *absolute.parents) if folder else absolute.parents
        inside = next(place for place in places if place.exists())
        if not inside.is_dir():
            raise UserError(f'{path} cannot be written: {inside} is not a folder.')
        if not os.access(inside, os.W_OK | os.X_OK):
            raise UserError(f'{path} cannot be written: no permission to write to {inside}.')


def check_json(path: Path) -> None:
    """Raise UserError for an output that is named like something else than a JSON file."""
    if path.suffix.lower() != '.json':
        raise UserError(f'{path} must end with .json.', 'output')


def free_folder(path: Path) -> Path:
    """Return a path at which there is nothing: `path`, or it with _2, _3 and so on."""
    paths = (path if n == 1 else path.with_name(f'{path.name}_{n}') for n in count(1))
    return next(free for free in paths if not free.exists())


def free_name(name: str, taken: set[str]) -> str:
    """Return a name, with _2, _3 and so on if it is taken; add it."""
    names = (name if n == 1 else f'{name}_{n}' for n in count(1))
    free = next(free for free in names if free not in taken)
    taken.add(free)
    return free


def free_stem(name: str, taken: set[str]) -> str:
    """Return a relative path for a frame's files, without suffix unless that is taken; add it."""
    path = PurePath(*(part for part in PurePath(name).parts if part not in ('/', '..')))
    stems = chain([str(path.with_suffix(''))], (f'{path}{"_" * n}' for n in count()))
    stem = next(stem for stem in stems if stem not in taken)
    taken.add(stem)
    return stem


def check_new(folder: Path) -> None:
    """Raise UserError for a folder that is there, or that cannot be made."""
    if folder.exists():
        raise UserError(f'{folder} already exists; choose another name or remove it.')
    check_outputs(folders=[folder])


def check_outside(output: Path, sources: Iterable[Path]) -> None:
    """Raise UserError for an output in a folder that is read, as it would be read with it."""
    for source in sources:
        if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
            raise UserError(f'{output} would be in {source}, whose images are read, and be read '
                            'with them the next time; choose another folder.', 'output')


def share_file(pattern: str) -> Path:
    """Return the first file of the package that matches, see `share_files`."""
    return share_files(pattern)[0]


def share_files(pattern: str) -> list[Path]:
    """
    Return the files of the package that match, for example SHIPPED_MODEL.

    The share folders of sourced workspaces (colcon) are searched, then the source checkout or the
    prefix of the pip installation that this file is in. UserError if it is in none of them.
    """
    prefixes = map(Path, filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)))
    root, *above = Path(__file__).resolve().parents[2:]
    # pip installs below sys.prefix, but elsewhere with --user, with --target and on Debian.
    here = [root] if (root / 'package.xml').is_file() else [
        prefix / 'share' / 'cgdet_ros' for prefix in (root, *above)]
    found = [path for folder in [*(prefix / 'share' / 'cgdet_ros' for prefix in prefixes), *here]
             for path in sorted(folder.glob(pattern))]
    if not found:
        raise UserError(f'{pattern} is missing in the installed package; install it again.')
    return found


def no_model(path: Path, kind: str = 'checkpoint') -> UserError:
    """Return the error for a model's file that does not exist, or a name that is misspelled."""
    if not re.fullmatch(r'[\w-]+', str(path)):
        return UserError(f'The {kind} {path} does not exist.')
    names = [file.stem for file in share_files('models/*.onnx')]
    near = difflib.get_close_matches(str(path), names, 1)
    return UserError(f'{path} is neither a file nor a model of this package'
                     + (f'; did you mean {near[0]}?' if near else
                        f', which has {", ".join(dict.fromkeys(names))}.'))


def model_file(model: str | Path) -> Path:
    """
    Return the file of a model.

    Names without suffix or folder are those of the package's own models, for example "thermal";
    "shipped" is its default detector.
    """
    if str(model) == 'shipped':
        return share_file(SHIPPED_MODEL)
    if re.fullmatch(r'\w+', str(model)):
        with suppress(UserError):
            return share_file(f'models/{model}.onnx')
    return Path(model)
