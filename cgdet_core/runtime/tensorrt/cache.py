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
from contextlib import contextmanager, suppress
import fcntl
import logging
import os
from pathlib import Path
import re
from time import monotonic, sleep
from typing import TypeVar

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import remove_leftovers
from cgdet_core.runtime.tensorrt import engine_file
from cgdet_core.runtime.tensorrt.engine_file import Damaged, EngineFile, EngineKey, Foreign, SUFFIX

VARIABLE = 'CGDET_ENGINE_CACHE'
LOCK = 'build.lock'
LIMIT = 2 << 30  # bytes
OWN_NAME = re.compile(rf'-[0-9a-f]{{16}}{re.escape(SUFFIX)}$')
_log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]  # called every second with the activity and its seconds
Item = TypeVar('Item')


class Rejected(Exception):
    """TensorRT cannot load an engine; the message states why."""


def default_folder() -> Path:
    """Return the folder set by CGDET_ENGINE_CACHE, or the one in the user's cache folder."""
    if named := os.environ.get(VARIABLE):
        return Path(os.path.expanduser(named))  # in a service or container, no shell replaces ~
    try:
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError:  # a user without a home, in a container
        raise UserError(f'This user has no home folder for engines; set {VARIABLE} to one.'
                        ) from None
    return home / 'cgdet_ros' / 'engines'


def log_progress(interval: float = 10.0) -> Progress:
    """Return a Progress that warns at the start of each activity and every `interval` seconds."""
    latest, due = '', 0.0

    def report(what: str, seconds: float) -> None:
        nonlocal latest, due
        if what != latest or seconds >= due:
            latest, due = what, seconds + interval
            _log.warning('%s: %.0f s so far', what, seconds)

    return report


class EngineCache:
    """
    Store engines in a folder of this user and remove the least recently used ones.

    A folder that cannot be written, or that other users can write, is not an error: engines then
    stay in memory, and a warning is logged.
    """

    def __init__(self, folder: str | Path | None = None, limit: int = LIMIT) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self.limit = limit
        self._reported: set[str] = set()

    def files(self) -> list[Path]:
        """Return the engines that the cache wrote, by their names, intact or not."""
        return [path for path in _engines_in(self.folder) if OWN_NAME.search(path.name)]

    def leftovers(self) -> list[Path]:
        """Return the hidden folders of processes that write, or were killed while writing."""
        return sorted(self.folder.glob(f'.*{SUFFIX}.*.tmp'))

    def matching(self, key: EngineKey, model: Path) -> Iterator[EngineFile]:
        """Yield intact engines for this key, of the cache first, then of the model's folder."""
        here = [] if self._unsafe() else _engines_in(self.folder)
        for path in [*here, *_engines_in(model.absolute().parent)]:
            try:
                yield engine_file.read_engine(path, key)
            except (Damaged, OSError) as error:
                self._report_unused(path, error)
            except Foreign as error:
                if (error.key.onnx_sha256, error.key.kind) == (key.onnx_sha256, key.kind):
                    self._report_unused(path, error)

    def keep(self, key: EngineKey, model: Path, payload: bytes) -> Path | None:
        """Store an engine within the limit; None, after a warning, if it cannot be stored."""
        path = self.folder / key.file_name(model.stem)
        try:
            if why := self._unsafe():
                raise OSError(why)
            engine_file.write_engine(path, key, model.stem, payload, 0o600)
        except OSError as error:
            _log.warning(
                'The %s of %s cannot be stored in %s (%s); it is used now and built again at the '
                'next start.', key.kind, model.name, self.folder, error.strerror or error)
            return None
        self._make_room(path)
        return path

    def mark_used(self, path: Path) -> None:
        """Record that an engine is used now."""
        if path.parent == self.folder:
            with suppress(OSError):  # a read-only cache
                os.utime(path)

    def remove(self, path: Path) -> None:
        """Remove an engine of the cache; files elsewhere are never removed."""
        if path.parent == self.folder:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.info('%s cannot be removed: %s', path, error.strerror)

    @contextmanager
    def lock(self, progress: Progress) -> Iterator[bool]:
        """
        Lock the cache for one build at a time; the kernel releases the lock of a dead process.

        One lock for all engines: simultaneous builds distort each other's timing of kernels.
        Yields False, after a warning, if the folder cannot be used.
        """
        why = self._unsafe()
        try:
            if not why:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
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
            remove_leftovers(self.leftovers())
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
            return engine_file.untrusted(self.folder.stat())
        except OSError:
            return ''  # it does not exist yet, or `lock` reports why it cannot be read

    def _make_room(self, latest: Path) -> None:
        entries = []
        for path in self.files():
            with suppress(OSError):
                status = path.stat()
                entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                return
            if path != latest:
                _log.info('%s is removed: the cache exceeds %d MB', path, self.limit >> 20)
                self.remove(path)
                total -= size


def obtain(cache: EngineCache, key: EngineKey, model: Path, build: Callable[[], bytes],
           accept: Callable[[bytes], Item], progress: Progress) -> tuple[Item, Path | None]:
    """
    Return what `accept` makes of a matching engine, and its file; build one if there is none.

    accept: raises Rejected for an engine that TensorRT cannot load; it is then built again.
    The file is None if the engine is only in memory. Rejected if a new one cannot be loaded.
    """
    rejected: set[Path] = set()
    if found := _accepted(cache, key, model, accept, rejected):
        return found
    with cache.lock(progress) as locked:
        # Another process may have built it while this one waited.
        if locked and (found := _accepted(cache, key, model, accept, rejected)):
            return found
        start = monotonic()
        payload = build()
        _log.info('The %s engine of %s for %s was built in %.1f s: %.1f MB', key.backend,
                  model.name, key.gpu or '+'.join(key.targets), monotonic() - start,
                  len(payload) / 1e6)
        item = accept(payload)
        # Not before: a rejected engine may be intact, and the GPU out of memory.
        for path in rejected:
            cache.remove(path)
        return item, cache.keep(key, model, payload) if locked else None


def _accepted(cache: EngineCache, key: EngineKey, model: Path, accept: Callable[[bytes], Item],
              rejected: set[Path]) -> tuple[Item, Path | None] | None:
    for found in cache.matching(key, model):
        try:
            item = accept(found.payload)
            cache.mark_used(found.path)
            return item, found.path
        except Rejected as error:
            _log.info('%s is not used: %s', found.path, error)
            rejected.add(found.path)
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
