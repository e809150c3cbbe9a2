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

"""The engine cache: an engine is built once per model, GPU and TensorRT version."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import fcntl
import logging
import os
from pathlib import Path
import re
from time import monotonic, sleep
from typing import TypeVar

from cgdet_core.errors import UserError
from cgdet_core.runtime.tensorrt.engine_file import (
    Damaged,
    EngineFile,
    EngineKey,
    Foreign,
    read_engine,
    SUFFIX,
    untrusted,
    write_engine,
)

VARIABLE = 'CGDET_ENGINE_CACHE'
LIMIT = 2 << 30  # bytes
LOCK = 'build.lock'
OWN_NAME = re.compile(rf'-[0-9a-f]{{16}}{re.escape(SUFFIX)}$')
_log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]  # what is going on and for how many seconds, each second
Item = TypeVar('Item')


class Rejected(Exception):
    """TensorRT does not take an engine; the message says why."""


def default_folder() -> Path:
    """Return the folder named by CGDET_ENGINE_CACHE, or the one in the user's cache folder."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    try:
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError:  # a user without a home, in a container
        raise UserError(f'This user has no home folder for engines; name one in {VARIABLE}.'
                        ) from None
    return home / 'cgdet_ros' / 'engines'


def log_progress(interval: float = 10.0) -> Progress:
    """Return a Progress that warns at the start of each thing and every `interval` seconds."""
    latest, due = '', 0.0

    def report(what: str, seconds: float) -> None:
        nonlocal latest, due
        if what != latest or seconds >= due:
            latest, due = what, seconds + interval
            _log.warning('%s: %.0f s so far', what, seconds)

    return report


class EngineCache:
    """
    Keep engines in a folder, for this user alone, the least recently used going first.

    A folder that can't be written, or in which others could write, is no error: engines then
    stay in memory, and a warning says so.
    """

    def __init__(self, folder: str | Path | None = None, limit: int = LIMIT) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self.limit = limit
        self._reported: set[str] = set()

    def files(self) -> list[Path]:
        """List the cache's own engines, by their names, sound or not; others' are not touched."""
        return [path for path in _engines_in(self.folder) if OWN_NAME.search(path.name)]

    def leftovers(self) -> list[Path]:
        """List what processes that were killed while writing have left."""
        return sorted(self.folder.glob(f'.*{SUFFIX}.*.tmp'))

    def matching(self, key: EngineKey, model: Path) -> Iterator[EngineFile]:
        """Return sound engines for this key: of the cache first, then of the model's folder."""
        here = [] if self._unsafe() else _engines_in(self.folder)
        for path in [*here, *_engines_in(model.absolute().parent)]:
            try:
                yield read_engine(path, key)
            except (Damaged, OSError) as error:
                self._report_unused(path, error)
            except Foreign as error:
                if (error.key.onnx_sha256, error.key.kind) == (key.onnx_sha256, key.kind):
                    self._report_unused(path, error)

    def keep(self, key: EngineKey, model: Path, payload: bytes) -> Path | None:
        """Store an engine and make room for it; None, after a warning, if it can't be stored."""
        path = self.folder / key.file_name(model.stem)
        try:
            if why := self._unsafe():
                raise OSError(why)
            write_engine(path, key, model.stem, payload, 0o600)
        except OSError as error:
            _log.warning(
                'The %s of %s cannot be kept in %s (%s); it is used now and built again at the '
                'next start.', key.kind, model.name, self.folder, error.strerror or error)
            return None
        self._make_room(path)
        return path

    def mark_used(self, path: Path) -> None:
        """Remember when an engine was used last."""
        if path.parent == self.folder:
            try:
                os.utime(path)
            except OSError:
                pass  # a read-only cache

    def remove(self, path: Path) -> None:
        """Remove an engine of the cache; others are left alone."""
        if path.parent == self.folder:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.info('%s cannot be removed: %s', path, error.strerror)

    @contextmanager
    def lock(self, progress: Progress) -> Iterator[bool]:
        """
        Let one process build at a time; the kernel frees the lock of one that dies.

        One lock for all engines: builds beside each other spoil each other's timing of kernels.
        Yield False, after a warning, where the folder can't be used.
        """
        why = self._unsafe()
        try:
            if not why:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                descriptor = os.open(self.folder / LOCK, flags, 0o600)
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            _log.warning('The engine cache %s cannot be used (%s); engines stay in memory and '
                         'are built again at every start.', self.folder, why)
            yield False
            return
        try:
            try:
                _wait_for(descriptor, progress)
            except OSError as error:  # a network folder without locks
                _log.warning('The engine cache %s cannot be locked (%s); another process may '
                             'build the same engine.', self.folder, error.strerror)
            yield True
        finally:
            os.close(descriptor)

    def _report_unused(self, path: Path, why: Exception) -> None:
        text = f'{path} is not used: {why}'
        if text not in self._reported:
            self._reported.add(text)
            _log.info('%s', text)

    def _unsafe(self) -> str:
        try:
            return untrusted(self.folder.stat())
        except OSError:
            return ''  # it is not there yet, or the lock will say why it can't be reached

    def _make_room(self, latest: Path) -> None:
        entries = []
        for path in self.files():
            try:
                status = path.stat()
            except OSError:
                continue
            entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                return
            if path != latest:
                _log.info('%s is removed: the cache is over %d MB', path, self.limit >> 20)
                self.remove(path)
                total -= size


def obtain(
    cache: EngineCache, key: EngineKey, model: Path, build: Callable[[], bytes],
    accept: Callable[[bytes], Item], progress: Progress,
) -> tuple[Item, Path | None]:
    """
    Return what `accept` makes of a fitting engine, and its file; build one only if there is none.

    accept: raises Rejected for an engine that TensorRT does not load; it is then built again.
    The file is None if the engine is in memory alone. Rejected if a new one is not loaded.
    """
    rejected: set[Path] = set()
    found = _accepted(cache, key, model, accept, rejected)
    if found is not None:
        return found
    with cache.lock(progress) as locked:
        # Another process may have built it while this one waited.
        found = _accepted(cache, key, model, accept, rejected) if locked else None
        if found is not None:
            return found
        start = monotonic()
        payload = build()
        _log.info('The %s engine of %s for %s was built in %.1f s: %.1f MB', key.backend,
                  model.name, key.gpu or '+'.join(key.targets), monotonic() - start,
                  len(payload) / 1e6)
        item = accept(payload)
        # Not before: what was rejected may be good, and the GPU short of memory.
        for path in rejected:
            cache.remove(path)
        return item, cache.keep(key, model, payload) if locked else None


def _accepted(
    cache: EngineCache, key: EngineKey, model: Path, accept: Callable[[bytes], Item],
    rejected: set[Path],
) -> tuple[Item, Path | None] | None:
    for found in cache.matching(key, model):
        try:
            item = accept(found.payload)
        except Rejected as error:
            _log.info('%s is not used: %s', found.path, error)
            rejected.add(found.path)
            continue
        cache.mark_used(found.path)
        return item, found.path
    return None


def _engines_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob(f'*{SUFFIX}'))
    except OSError:
        return []


def _wait_for(descriptor: int, progress: Progress) -> None:
    start, reported = monotonic(), -1.0
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = monotonic() - start
            if waited >= reported + 1:
                reported = waited
                progress('Waiting for another process that builds an engine', waited)
            sleep(0.1)
