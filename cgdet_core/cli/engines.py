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

"""`cgdet build-engine` and `cgdet engines`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, TYPE_CHECKING

from cgdet_core.cli.common import console, Overwrite
from cgdet_core.cli.models import app
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs
from rich.console import Console
from rich.table import Table
from rich.text import Text
import typer

if TYPE_CHECKING:
    from cgdet_core.runtime.tensorrt.building import TensorRT

TURING = 'sm75'  # left out unless named: engines for it and for later GPUs are slower on those

engines_app = typer.Typer(no_args_is_help=True, help='Look at and clean the engine cache.')


@app.command('build-engine')
def build_engine(
    model: Annotated[Path, typer.Argument(help='ONNX file with its card beside it.')],
    backend: Annotated[str, typer.Option(help='auto, tensorrt or tensorrt_rtx.')] = 'auto',
    targets: Annotated[list[str] | None, typer.Option(
        '--target', metavar='smNN', help=(
            'GPU to build for with tensorrt_rtx, may be repeated; by default the one here, '
            'or without one every GPU from Ampere on.'))] = None,
    output: Annotated[Path | None, typer.Option(help=(
        'Write the engine to this file too; beside the ONNX file it is found on the robot.'
    ))] = None,
    data: Annotated[Path | None, typer.Option(help=(
        'Frames to verify the engine on: COCO file, folder, bag or video; by default synthetic '
        'scenes.'))] = None,
    no_verify: Annotated[bool, typer.Option(
        '--no-verify', help='Do not compare the engine with the ONNX file.')] = False,
    overwrite: Overwrite = False,
) -> None:
    """
    Compile a model for a GPU ahead of its first start; keep it in the engine cache.

    Where the GPU is here, the engine is verified against the ONNX file on ONNX Runtime.
    """
    from cgdet_core.runtime.detection.card import DetectionCard
    from cgdet_core.runtime.inference.card import load_card
    from cgdet_core.runtime.tensorrt import building
    from cgdet_core.runtime.tensorrt.cache import EngineCache, obtain
    from cgdet_core.runtime.tensorrt.engine_file import SUFFIX, write_engine

    if output is not None:
        if output.suffix != SUFFIX:
            raise UserError(f'--output must end in {SUFFIX}, or the engine is not found.')
        check_outputs([output], overwrite=overwrite)
    card = load_card(model, DetectionCard)
    tensorrt, chosen, gpu = _device(backend, tuple(dict.fromkeys(targets or ())))
    key = building.engine_key(tensorrt, card, chosen, gpu)
    with console.status('') as status:
        def report(what: str, seconds: float) -> None:
            status.update(Text(f'{what}: {seconds:.0f} s'))

        try:
            engine, path = obtain(
                EngineCache(), key, model,
                lambda: building.build_engine(tensorrt, model, chosen, report),
                bytes, report)
        except KeyboardInterrupt:
            Console(stderr=True).print('cgdet: interrupted; no engine was written.')
            raise typer.Exit(130) from None
    if not no_verify:
        _verify(model, tensorrt.name, chosen, path, data)
    if output is not None:
        write_engine(output, key, model.stem, engine)
    elif path is None:
        raise UserError('The engine could not be kept; write it to a file with --output.')
    console.print(f'{output or path}: {tensorrt.title}, {gpu or "+".join(chosen)}, '
                  f'{card.precision}, {len(engine) / 1e6:.1f} MB', highlight=False, soft_wrap=True)


@engines_app.command('list')
def engines_list() -> None:
    """List the engines in the cache."""
    from cgdet_core.runtime.tensorrt.cache import EngineCache
    from cgdet_core.runtime.tensorrt.engine_file import Damaged, read_engine

    cache = EngineCache()
    table = Table('model', 'backend', 'for', 'precision', 'MB', 'last used')
    total = 0
    for path in cache.files():
        try:
            size, used = path.stat().st_size, datetime.fromtimestamp(path.stat().st_mtime)
            found = read_engine(path)
        except Damaged as error:
            cells = [path.name, str(error), '-', '-']
        except OSError:
            continue  # removed meanwhile
        else:
            key = found.key
            kind = '' if key.kind == 'engine' else f' ({key.kind})'
            cells = [found.model, f'{key.backend} {key.version}{kind}',
                     key.gpu or ' '.join(key.targets), key.precision]
        total += size
        table.add_row(*cells, f'{size / 1e6:.1f}', f'{used:%Y-%m-%d %H:%M}')
    if table.row_count:
        console.print(table)
    console.print(f'Files: {table.row_count}, {total / 1e6:.1f} MB of '
                  f'{cache.limit / 1e6:.0f} MB in {cache.folder}', highlight=False,
                  soft_wrap=True)


@engines_app.command('clean')
def engines_clean(
    model: Annotated[str | None, typer.Argument(
        help='Remove the engines of this model; without it only damaged files.')] = None,
    everything: Annotated[bool, typer.Option('--all', help='Remove all engines.')] = False,
) -> None:
    """Remove engines from the cache; they are built again when needed."""
    from cgdet_core.runtime.tensorrt.cache import EngineCache
    from cgdet_core.runtime.tensorrt.engine_file import Damaged, read_engine

    cache = EngineCache()
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
    console.print(f'Files removed: {removed}, {freed / 1e6:.1f} MB; left: {left}, in '
                  f'{cache.folder}', highlight=False, soft_wrap=True)


def _device(backend: str, targets: tuple[str, ...]) -> 'tuple[TensorRT, tuple[str, ...], str]':
    """Choose what to build with and for: flavor, targets, and the GPU's name if one is needed."""
    from cgdet_core.runtime.tensorrt.building import (
        check_targets,
        FLAVORS,
        load_tensorrt,
        Unavailable,
    )
    from cgdet_core.runtime.tensorrt.session import check_device

    if backend not in ('auto', *FLAVORS):
        raise UserError(f'--backend must be auto, {" or ".join(FLAVORS)}, not {backend!r}.')
    if targets and backend == 'tensorrt':
        raise UserError('TensorRT builds for the GPU in this machine; --target needs '
                        '--backend tensorrt_rtx.')
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


def _verify(
    model: Path, backend: str, targets: tuple[str, ...], engine: Path | None, data: Path | None,
) -> None:
    """Compare an engine with its ONNX file; one in the cache that differs is removed."""
    from cgdet_core.deployment.verify import (
        failure,
        frames_of,
        NothingFound,
        scenes,
        verify,
    )
    from cgdet_core.runtime.detection.detector import Detector
    from cgdet_core.runtime.tensorrt.building import Unavailable
    from cgdet_core.runtime.tensorrt.cache import EngineCache
    from cgdet_core.runtime.tensorrt.session import check_device

    try:
        gpu = check_device(backend)[2]
        # Another engine would be built for this GPU, and that one verified.
        why = ('' if gpu.target in targets
               else f'it is not for the {gpu.name} ({gpu.target}) in this machine')
    except Unavailable as error:
        why = error.why
    if why:
        console.print(f'Not verified, as {why}: run "cgdet verify" where the engine will '
                      'run.', highlight=False, soft_wrap=True)
        return
    if engine is None:  # what was built is gone, and would be built once more
        console.print('Not verified, as the engine could not be kept in the cache: run "cgdet '
                      'verify" where it will run.', highlight=False, soft_wrap=True)
        return
    against = Detector.load(model, backend='onnxruntime')
    frames = scenes(against.card) if data is None else frames_of(data, None, against.card)
    try:
        report = verify(Detector.load(model, backend=backend), against, frames)
    except NothingFound as error:
        if data is not None:
            raise
        console.print(f'Not verified on synthetic scenes: {error} Give frames with --data.',
                      highlight=False, soft_wrap=True)
        return
    if report['passed']:
        console.print(f'Verified on {report["frames"]} frames: {report["matched"]} of '
                      f'{report["detections"]} detections in both', highlight=False,
                      soft_wrap=True)
        return
    EngineCache().remove(engine)
    if engine.exists():  # beside the model, where the user put it
        raise UserError(f'{failure(report)} Remove {engine}.')
    raise UserError(failure(report))
