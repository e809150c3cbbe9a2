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

"""Engines ahead of a model's first start: built, verified, listed, removed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cgdet_core.data.sources import read_frames
from cgdet_core.deployment.verify import failure, NothingFound, scenes, verify
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.tensorrt import building
from cgdet_core.runtime.tensorrt.building import (
    check_targets,
    FLAVORS,
    load_tensorrt,
    TensorRT,
    Unavailable,
)
from cgdet_core.runtime.tensorrt.cache import EngineCache, obtain, Progress
from cgdet_core.runtime.tensorrt.engine_file import Damaged, EngineKey, read_engine
from cgdet_core.runtime.tensorrt.session import check_device

TURING = 'sm75'  # left out unless named: engines for it and for later GPUs are slower on those


@dataclass(frozen=True)
class Engine:
    """An engine that was built or found in the cache; path: None where it is in memory alone."""

    tensorrt: TensorRT
    key: EngineKey
    targets: tuple[str, ...]
    payload: bytes
    path: Path | None


@dataclass(frozen=True)
class CachedEngine:
    """A file of the cache: its size in bytes, and its key or what is wrong with it."""

    path: Path
    size: int
    used: datetime
    model: str = ''
    key: EngineKey | None = None
    damage: str = ''


class NotVerified(UserError):
    """An engine cannot be compared with its ONNX file here; the message says why."""


def build(
    model: Path, backend: str, targets: tuple[str, ...], progress: Progress,
) -> Engine:
    """Return the engine of the cache for this model and GPU, built where there is none."""
    card = load_card(model)
    tensorrt, chosen, gpu = choose_device(backend, targets)
    key = building.engine_key(tensorrt, card, chosen, gpu)
    payload, path = obtain(
        EngineCache(), key, model,
        lambda: building.build_engine(tensorrt, model, chosen, progress), bytes, progress)
    return Engine(tensorrt, key, chosen, payload, path)


def choose_device(
    backend: str = 'auto', targets: tuple[str, ...] = (),
) -> tuple[TensorRT, tuple[str, ...], str]:
    """Choose what to build with and for: flavor, targets, and the GPU's name if one is needed."""
    if backend not in ('auto', *FLAVORS):
        raise UserError(f'The backend must be auto, {" or ".join(FLAVORS)}, not {backend!r}.',
                        'backend')
    if targets and backend == 'tensorrt':
        raise UserError('TensorRT builds for the GPU in this machine; a target needs the backend '
                        'tensorrt_rtx.', 'target', 'backend')
    missing: Unavailable | None = None
    if backend != 'tensorrt_rtx' and not targets:
        try:
            tensorrt, _, gpu = check_device('tensorrt')
            return tensorrt, (gpu.target,), gpu.name
        except Unavailable as error:
            if backend == 'tensorrt':
                raise
            missing = error
    try:
        tensorrt = load_tensorrt('tensorrt_rtx')
    except Unavailable as error:
        if missing is None:
            raise
        raise UserError(f'{missing} {error}') from None
    if not targets:
        try:
            targets = (check_device('tensorrt_rtx')[2].target,)
        except Unavailable:
            targets = tuple(t for t in tensorrt.targets() if t != TURING)
    check_targets(tensorrt, targets)
    return tensorrt, targets, ''


def verify_engine(
    model: Path, backend: str, targets: tuple[str, ...], engine: Path | None,
    data: Path | None = None,
) -> dict[str, Any]:
    """
    Compare an engine with its ONNX file on ONNX Runtime and return the report.

    data: frames, by default synthetic scenes. NotVerified where that is not possible here;
    UserError for an engine that differs, which is removed from the cache.
    """
    try:
        gpu = check_device(backend)[2]
        # Another engine would be built for this GPU, and that one verified.
        why = ('' if gpu.target in targets
               else f'it is not for the {gpu.name} ({gpu.target}) in this machine')
    except Unavailable as error:
        why = error.why
    if engine is None and not why:  # what was built is gone, and would be built once more
        why = 'the engine could not be kept in the cache'
    if why:
        raise NotVerified(
            f'Not verified, as {why}: run "cgdet verify" where the engine will run.')
    against = Detector.load(model, backend='onnxruntime')
    frames = scenes(against.card) if data is None else read_frames(
        data, None, against.card.classes)
    try:
        report = verify(Detector.load(model, backend=backend), against, frames)
    except NothingFound as error:
        if data is not None:
            raise
        raise NotVerified(f'Not verified on synthetic scenes: {error} Choose real frames.',
                          'data') from None
    if not report['passed']:
        assert engine is not None
        EngineCache().remove(engine)
        # Beside the model, where the user put it, it stays.
        raise UserError(failure(report) + (f' Remove {engine}.' if engine.exists() else ''))
    return report


def cached_engines(cache: EngineCache) -> Iterator[CachedEngine]:
    """Return the files of a cache, sound or damaged."""
    for path in cache.files():
        try:
            status = path.stat()
            size, used = status.st_size, datetime.fromtimestamp(status.st_mtime)
            found = read_engine(path)
        except Damaged as error:
            yield CachedEngine(path, size, used, damage=str(error))
        except OSError:
            continue  # removed meanwhile
        else:
            yield CachedEngine(path, size, used, found.model, found.key)


def clean(
    cache: EngineCache, model: str | None = None, everything: bool = False,
) -> tuple[int, int, int]:
    """
    Remove the engines of a model, or all, and always damaged files and what killed writers left.

    Returns the files removed, their bytes and the files left. UserError if the model has none.
    """
    removed, freed, left = 0, 0, 0
    for path in cache.files() + cache.leftovers():
        try:
            size = path.stat().st_size
            wanted = model is not None and read_engine(path).model == Path(model).stem
            if model is None and not everything:
                read_engine(path)
        except Damaged:
            wanted = True
        except OSError:
            continue
        if not (wanted or everything):
            left += 1
            continue
        path.unlink(missing_ok=True)
        removed, freed = removed + 1, freed + size
    if model is not None and not removed:
        raise UserError(
            f'The cache has no engine of {Path(model).stem}; see "cgdet engines list".')
    return removed, freed, left
