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

"""Bags as rosbags can read them: what a crash left is completed, and what expands is bounded."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
import logging
from pathlib import Path, PurePath
import re
import shutil
import sqlite3
import struct
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import bag_suffix, ZSTD
import yaml

METADATA = 'metadata.yaml'
# What metadata must have. A recorder writes them when it ends, and `files`, since version 5, last.
KEYS = ('version', 'storage_identifier', 'duration', 'starting_time', 'message_count',
        'topics_with_message_count', 'relative_file_paths')
LOGS = ('-wal', '-journal')  # what SQLite has not merged yet, in a file next to its own
REPAIRS = {'.mcap': '"mcap recover"', '.db3': '"sqlite3 FILE .recover | sqlite3 REPAIRED"'}
LARGEST_PART = 2**29  # bytes of a message, or of a chunk of several, after decompression
# A compressed file may expand by this factor, and always to this size.
LARGEST_RATIO, ALWAYS_FINE = 100, 2**30
BLOCK = 2**20
MAGIC = b'\x28\xb5\x2f\xfd'  # the start of compressed data
# The first bytes of a file -> its suffix; what wrote it may have given it another, or none.
KINDS = {MAGIC: ZSTD, b'\x89MCAP': '.mcap', b'SQLite format 3': '.db3'}
# Characters of a path that SQLite takes for parts of a URI, and bytes that are not UTF-8.
URI = re.compile('[?#%\udc80-\udcff]')
_log = logging.getLogger(__name__)


@contextmanager
def readable(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """
    Yield the folder or file that is read, and its files, each as rosbags can read it.

    They are the bag's, or all in a temporary folder if one must be completed: logs that SQLite has
    not merged, compressed files, names. The bag remains as it is. Only the list of files is taken
    from the metadata: what is in a file, the file itself says. UserError if that is not possible,
    or metadata are missing or incomplete.
    """
    if not path.exists():
        raise UserError(f'The bag {path} does not exist.')
    if path.suffix.lower() == '.bag' and path.is_file():
        raise UserError(f'{path} is a ROS 1 bag; convert it with "rosbags-convert --src {path} '
                        f'--dst {path.with_suffix("")}".')
    files = files_of(path) if path.is_dir() else [path]
    if not any(map(_needs_copy, files)):
        yield path, files
        return
    with TemporaryDirectory(prefix='cgdet_bag_') as folder:
        yield Path(folder), [_provide(file, Path(folder)) for file in files]


def files_of(path: Path) -> list[Path]:
    """Return the files that the metadata of a bag's folder list, each once."""
    return list(dict.fromkeys(
        path / PurePath(name).name for name in read_metadata(path)['relative_file_paths']))


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a bag's folder; UserError states what its recorder did not write."""
    small = any(file.suffix == ZSTD for file in path.iterdir())
    advice = _reindex(path, True) if small else (
        f'{_reindex(path, False)}, or pass its .mcap or .db3 file')
    if not (path / METADATA).is_file():
        raise UserError(f'{path} has no {METADATA}, as if its recorder was killed: {advice}.')
    try:
        found = yaml.safe_load((path / METADATA).read_text(encoding='utf-8'))
        metadata: Any = found['rosbag2_bagfile_information']
        whole = all(key in metadata for key in KEYS) and (
            int(metadata['version']) < 5 or 'files' in metadata)
        names = metadata['relative_file_paths']
        files = [path / PurePath(name).name for name in names]
        whole &= isinstance(names, list)
    except OSError as error:
        raise UserError(f'{path / METADATA} cannot be read: {error.strerror}.') from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        whole = False
    if not whole or not files:
        raise UserError(f'The {METADATA} of {path} is incomplete, as if its recorder was killed: '
                        f'{advice}.')
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f'{path} lacks {", ".join(missing)}, which its {METADATA} lists; copy '
                        f'the files into it, or {advice}.')
    ends = {bag_suffix(file) for file in files} - {''}
    # A player of rosbag2 leaves x.mcap, which it has decompressed, next to x.mcap.zstd.
    listed = {file.name.removesuffix(ZSTD) for file in files}
    if more := sorted(file.name for file in path.iterdir()
                      if bag_suffix(file) in ends and file.name.removesuffix(ZSTD) not in listed
                      and not file.name.startswith('.')):
        _log.warning('%s has files that its %s does not list and that are not read: %s; %s.', path,
                     METADATA, ', '.join(more),
                     _reindex(path, any(name.endswith(ZSTD) for name in more)))
    mode = str(metadata.get('compression_mode') or '').lower()
    kind = metadata.get('compression_format')
    if mode in ('file', 'message') and kind != 'zstd':
        raise UserError(f'{path} is compressed as {kind}, which cannot be read; decompress it '
                        'with "ros2 bag convert".')
    return dict(metadata)


def _reindex(path: Path, small: bool) -> str:
    """Return how to make the metadata of a bag; rosbag2 lists no compressed files."""
    first = f'decompress its files with "zstd -d {path}/*.zstd" and ' if small else ''
    return f'{first}run "ros2 bag reindex {path}"'


def problem(path: Path, error: Exception, place: Path) -> UserError:
    """Return an error of rosbags as a sentence with what to do; place: what it has read."""
    reason = ' '.join(str(error).replace(str(place), str(path)).split()).rstrip('.')
    reason = reason.removesuffix('; please report issue') or type(error).__name__
    if isinstance(error, TypeError | LookupError | AttributeError | AssertionError | struct.error):
        reason = 'its file is cut or damaged'  # which rosbags did not expect
    if 'nindexed' in reason:  # of the profile "fastwrite", with several topics
        advice = '; "ros2 bag convert" writes one'
    elif any(word in reason for word in ('ermission', 'supported', 'rofile', 'expands')):
        advice = ''
    else:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        repair = next((REPAIRS[bag_suffix(f)] for f in files if bag_suffix(f) in REPAIRS), '')
        advice = f'; if the recording was interrupted, repair its file with {repair}' * bool(
            repair)
    return UserError(f'{path} cannot be read as a ROS 2 bag: {reason}{advice}.')


def prepare_rosbags() -> None:
    """
    Make rosbags decompress no chunk of an mcap file to more than it states.

    It also fails for definitions in other languages, and is made to read none of either storage.
    """
    import apsw
    from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]
    from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
    from rosbags.rosbag2 import storage_mcap, storage_sqlite3

    def lz4(data: bytes, size: int) -> bytes:
        return _within(size, lambda most: LZ4FrameDecompressor().decompress(data, most))

    storage_mcap.DECOMPRESSORS.update(
        lz4=lz4, zstd=lambda data, size: decompress(data, size))
    vars(storage_mcap)['get_msgdef'] = lambda schema: MessageDefinition(
        MessageDefinitionFormat.NONE, '')

    def connect(*args: Any, **kwargs: Any) -> Any:
        database = apsw.Connection(*args, **kwargs)
        database.authorizer = lambda action, table, *_: apsw.SQLITE_IGNORE if (  # reads NULL
            action == apsw.SQLITE_READ and table == 'message_definitions') else apsw.SQLITE_OK
        return database

    vars(storage_sqlite3)['apsw'] = SimpleNamespace(**{**vars(apsw), 'Connection': connect})


def message_of(data: bytes) -> bytes:
    """Return the data of a message, which may be compressed; no other one starts like this."""
    return decompress(data) if data[:4] == MAGIC else data


def decompress(data: bytes, size: int = LARGEST_PART) -> bytes:
    """Return Zstandard data of at most `size` bytes; ValueError if there are more."""
    return _within(size, lambda most: bytes(_zstd().ZstdDecompressor().decompress(data, most)))


def _within(size: int, decompressed: Callable[[int], bytes]) -> bytes:
    data = decompressed(min(size, LARGEST_PART) + 1)
    if len(data) > min(size, LARGEST_PART):
        raise ValueError(f'a part of it expands to more than {min(size, LARGEST_PART)} bytes')
    return data


def _zstd() -> Any:
    """Return the module that rosbags uses."""
    from rosbags.rosbag2 import reader

    return vars(reader)['zstd']


def _kind(file: Path) -> str:
    """Return the suffix that a file should have, by its first bytes, or else the one it has."""
    with file.open('rb') as content:
        start = content.read(16)
    return next((kind for mark, kind in KINDS.items() if start.startswith(mark)),
                file.suffix.lower())


def _needs_copy(file: Path) -> bool:
    """Return whether a file is compressed, has unmerged logs, or a name that rosbags refuses."""
    kind = _kind(file)
    return kind == ZSTD or kind != file.suffix or kind == '.db3' and (
        URI.search(str(file)) is not None or any(map(_has_messages, _logs(file))))


def _with_suffix(path: Path, kind: str) -> Path:
    return path if path.suffix == kind else path.with_name(path.name + kind)


def _logs(file: Path) -> list[Path]:
    return [file.with_name(file.name + end) for end in LOGS]


def _has_messages(log: Path) -> bool:
    return log.is_file() and log.stat().st_size > 0


def _provide(file: Path, folder: Path) -> Path:
    """Link a bag's file into a folder, or write it there complete; return where."""
    kind, target = _kind(file), folder / URI.sub('_', file.name.removesuffix(ZSTD))
    if kind == ZSTD:
        with _zstd().open(file, 'rb') as source, target.open('xb') as out:
            most = min(max(LARGEST_RATIO * file.stat().st_size, ALWAYS_FINE),
                       shutil.disk_usage(folder).free // 2)
            while block := source.read(BLOCK):
                if out.tell() + len(block) > most:
                    raise UserError(f'{file} expands to more than {most >> 20} MiB; decompress '
                                    'it with "zstd -d", and run "ros2 bag reindex".')
                out.write(block)
        return target.rename(_with_suffix(target, _kind(target)))
    target = _with_suffix(target, kind)
    logs = [log for log in _logs(file) if kind == '.db3' and _has_messages(log)]
    if not logs:
        target.symlink_to(file.absolute())
        return target
    size = sum(part.stat().st_size for part in (file, *logs))
    if size > shutil.disk_usage(folder).free:
        raise UserError(f'{file} has messages in {logs[0].name}; merge them with "sqlite3 {file} '
                        f'\'PRAGMA wal_checkpoint\'", as {folder.parent} has no space for a copy '
                        f'of {size >> 20} MiB.')
    target.touch(exist_ok=False)  # no link to another file of the bag
    for part, end in ((file, ''), *((log, log.name.removeprefix(file.name)) for log in logs)):
        shutil.copyfile(part, target.with_name(target.name + end))
    with closing(sqlite3.connect(target)) as database:
        database.execute('PRAGMA journal_mode=DELETE').fetchall()  # merges the log
    return target
