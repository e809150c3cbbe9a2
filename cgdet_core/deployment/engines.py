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

"""Build, verify, list and remove engines before a model's first start."""

from collections.abc import Iterable, Iterator
import os
from pathlib import Path
from typing import Any

from cgdet_core.data.sources import read_frames
from cgdet_core.deployment.verify import failure, NothingFound, scenes, verify
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.files import remove
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.tensorrt import building
from cgdet_core.runtime.tensorrt.building import FLAVORS, TensorRT, Unavailable
from cgdet_core.runtime.tensorrt.cache import EngineCache, obtain, Progress
from cgdet_core.runtime.tensorrt.engine_file import Damaged, EngineFile, EngineKey, read_engine
from cgdet_core.runtime.tensorrt.session import check_device

TURING = 'sm75'  # only built for on request: an engine that includes it is slower on later GPUs


class NotVerified(UserError):
    """An engine that cannot be compared with its ONNX file here; the message states why."""


def build(
    model: Path, backend: str, targets: tuple[str, ...], progress: Progress,
) -> tuple[EngineKey, bytes, Path | None]:
    """Return a cached or new engine: key, content, and file, None if it is in memory only."""
    card = load_card(model, DetectionCard)
    tensorrt, chosen, gpu = choose_device(backend, targets)
    key = building.engine_key(tensorrt, card, chosen, gpu)
    return key, *obtain(
        EngineCache(), key, model,
        lambda: building.build_engine(tensorrt, model, chosen, progress), bytes, progress)


def choose_device(
    backend: str = 'auto', targets: tuple[str, ...] = (),
) -> tuple[TensorRT, tuple[str, ...], str]:
    """Return the flavor, its targets, and the GPU's name if the flavor needs it."""
    if backend not in ('auto', *FLAVORS):
        raise UserError(f'The backend must be auto, {" or ".join(FLAVORS)}, not {backend!r}.',
                        'backend')
    if targets and backend == 'tensorrt':
        raise UserError('TensorRT builds for the GPU in this machine; targets require the backend '
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
        tensorrt = building.load_tensorrt('tensorrt_rtx')
    except Unavailable as error:
        if missing is None:
            raise
        raise UserError(f'{missing} {error}') from None
    if not targets:
        try:
            targets = (check_device('tensorrt_rtx')[2].target,)
        except Unavailable:
            targets = tuple(t for t in tensorrt.targets() if t != TURING)
    building.check_targets(tensorrt, targets)
    return tensorrt, targets, ''


def verify_engine(
    model: Path, backend: str, targets: tuple[str, ...], engine: Path | None,
    data: Path | None = None, topic: str | None = None,
) -> dict[str, Any]:
    """
    Compare an engine with its ONNX file on ONNX Runtime and return the report.

    data: frames, by default synthetic scenes; topic: of a bag. NotVerified if this machine cannot
    run it; UserError if the engine differs. It is then removed from the cache.
    """
    try:
        gpu = check_device(backend)[2]
        # Loading would build another engine for this GPU and verify that one.
        other = f'it is not for the {gpu.name} ({gpu.target}) in this machine'
        why = '' if gpu.target in targets else other
    except Unavailable as error:
        why = error.why
    if engine is None and not why:  # loading would build the engine again
        why = 'the engine could not be cached'
    if why:
        raise NotVerified(
            f'Not verified, as {why}: run "cgdet verify" where the engine will run.')
    against = Detector.load(model, backend='onnxruntime')
    card = against.card
    frames = scenes(card) if data is None else read_frames(
        data, None, card.classes, topic=topic, polarity=card.polarity)
    try:
        report = verify(Detector.load(model, backend=backend), against, frames)
    except NothingFound as error:
        if data is not None:
            raise
        raise NotVerified(f'Not verified on synthetic scenes: {error} Use real frames.',
                          'data') from None
    if not report['passed']:
        assert engine is not None
        EngineCache().remove(engine)
        # An engine that the user put next to the model is not removed.
        raise UserError(failure(report) + (f' Remove {engine}.' if engine.exists() else ''))
    return report


def inspect(
    paths: Iterable[Path],
) -> Iterator[tuple[Path, os.stat_result, EngineFile | Exception]]:
    """Yield files of the cache with their status and their engine, or the error in it."""
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue  # removed in the meantime
        try:
            yield path, status, read_engine(path)
        except (Damaged, OSError) as error:
            yield path, status, error


def clean(
    cache: EngineCache, model: str | None = None, everything: bool = False,
) -> tuple[int, int, int]:
    """
    Remove the engines of a model, or all; also damaged and incomplete files.

    Returns the number of files removed, their bytes and the number of files left. UserError if
    the model has no engine.
    """
    removed, freed, left = 0, 0, 0
    for path, status, found in inspect(cache.files() + cache.leftovers()):
        if everything or isinstance(found, Damaged) or (
                model and isinstance(found, EngineFile) and found.model == Path(model).stem):
            remove(path)
            removed, freed = removed + 1, freed + status.st_size
        else:
            left += 1
    if model is not None and not removed:
        raise UserError(
            f'The cache has no engine of {Path(model).stem}; see "cgdet engines list".')
    return removed, freed, left
