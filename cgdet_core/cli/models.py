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

"""Commands that compare, run and export models, and build and list their engines."""

from datetime import datetime
import logging
from pathlib import Path
from typing import Annotated

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    console,
    folder_option,
    Images,
    model_argument,
    Overwrite,
    say,
    show_table,
    Topic,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs
from cgdet_core.words import counted
from rich.table import Table
from rich.text import Text
import typer

engines_app = typer.Typer(no_args_is_help=True, help='List and clean the engine cache.')


def ablate(
    grid: Annotated[Path, typer.Argument(help='Grid of variants and seeds, a YAML file.')],
    overrides: Annotated[list[str] | None, typer.Argument(
        metavar='[KEY=VALUE]...', help='Changes to the base recipe.')] = None,
    output: Annotated[Path, folder_option(
        'Folder for the runs, the tables and the figures.')] = Path('runs/ablation'),
    only_report: Annotated[bool, typer.Option(
        '--report', help='Train nothing; write tables and figures of the finished runs.')] = False,
) -> None:
    """Train variants of a recipe over seeds and compare them; continues where it stopped."""
    from cgdet_core.experiments.ablation import report, run_ablation
    from cgdet_core.experiments.grid import load_ablation

    ablation = load_ablation(grid, output, overrides)
    try:
        busy = 0 if only_report else run_ablation(ablation, say)
        if busy:
            say(f'{busy} runs are still in progress in other processes')
        report(ablation)
    except KeyboardInterrupt:
        common.complain('interrupted; the same command continues from here.')
        raise typer.Exit(130) from None
    say(f'The tables and figures are in {output}')


def export(
    source: Annotated[Path, model_argument(
        'Checkpoint of "cgdet train", or its FP32 ONNX file', 'CHECKPOINT')],
    output: Annotated[Path, typer.Option(
        metavar='FILE', help='ONNX file to write, with its card next to it.')],
    precision: Annotated[str, typer.Option(help='fp32, fp16 or int8.')] = 'fp32',
    calibration: Annotated[Path | None, typer.Option(
        help='For int8: COCO file (.json) or bag of thermal frames other than the '
        'evaluation frames.')] = None,
    calibration_frames: Annotated[int, typer.Option(
        min=1, max=1000, help='Number of calibration frames, evenly spaced.')] = 200,
    images: Images = None, topic: Topic = None,
    dynamic_batch: Annotated[bool, typer.Option(
        '--dynamic-batch', help='Export with a dynamic batch size.')] = False,
    overwrite: Overwrite = False,
) -> None:
    """Export a checkpoint to ONNX with its model card."""
    from cgdet_core.deployment.calibration import load_frames
    from cgdet_core.deployment.export import check_request
    from cgdet_core.deployment.export import export as run
    from cgdet_core.runtime.inference.card import card_path

    check_request(source, output, precision, calibration is not None, dynamic_batch)
    check_outputs([output, card_path(output)], overwrite=overwrite)
    frames = (None if calibration is None
              else load_frames(calibration, calibration_frames, images, topic))
    with common.exit_on_sigterm(), console.status('exporting'):
        card = run(source, output, precision, frames, dynamic_batch)
    height, width = next(iter(card.inputs.values())).shape[2:]
    say(f'{output}: {card.precision}, {card.parameters / 1e6:.2f} M parameters, '
        f'{card.gflops:.2f} GFLOPs at {width}x{height}, '
        f'{output.stat().st_size / 1e6:.1f} MB')
    if frames is not None:
        found = card.training['calibration']
        say(f'Calibrated on {counted(found["frames"], "frame")} of {found["source"]} '
            f'({found["method"]}); kept in FP32: {", ".join(found["left_out"]) or "no layer"}')


def build_engine(
    model: Annotated[Path, model_argument('ONNX file, with its card in the same folder')],
    backend: Annotated[str, typer.Option(help='auto, tensorrt or tensorrt_rtx.')] = 'auto',
    targets: Annotated[list[str] | None, typer.Option(
        '--target', metavar='smNN', help=(
            'GPU to build for with tensorrt_rtx; may be repeated; by default the GPU of this '
            'machine, or without one every GPU since Ampere.'))] = None,
    output: Annotated[Path | None, typer.Option(metavar='FILE', help=(
        'Also write the engine to this file; next to the ONNX file the robot finds it.'
    ))] = None,
    data: Annotated[Path | None, typer.Option(help=(
        'Frames to verify the engine on: COCO file, folder, bag or video; synthetic scenes '
        'by default.'))] = None,
    topic: Topic = None,
    no_verify: Annotated[bool, typer.Option(
        '--no-verify', help='Do not compare the engine with the ONNX file.')] = False,
    overwrite: Overwrite = False,
) -> None:
    """
    Build the engine of a model for a GPU before its first start, and cache it.

    If this machine has the GPU, the engine is verified against the ONNX file on ONNX Runtime.
    """
    from cgdet_core.deployment import engines
    from cgdet_core.runtime.tensorrt.building import FLAVORS
    from cgdet_core.runtime.tensorrt.engine_file import SUFFIX, write_engine

    logging.getLogger('cgdet_core.runtime').setLevel(logging.INFO)  # what is built or found
    if output is not None:
        if output.suffix != SUFFIX:
            raise UserError(f'--output must end in {SUFFIX}, otherwise the engine is not found.')
        check_outputs([output], overwrite=overwrite)
    with console.status('') as status:
        try:
            key, engine, path = engines.build(
                model, backend, tuple(dict.fromkeys(targets or ())),
                lambda what, seconds: status.update(Text(f'{what}: {seconds:.0f} s')))
        except KeyboardInterrupt:
            common.complain('interrupted; no engine was written.')
            raise typer.Exit(130) from None
    if not no_verify:
        try:
            report = engines.verify_engine(model, key.backend, key.targets, path, data, topic)
            say(f'Verified on {counted(report["frames"], "frame")}: {report["matched"]} of '
                f'{report["detections"]} detections in both')
        except engines.NotVerified as why:
            say(common.sentence_of(why))
    if output is not None:
        write_engine(output, key, model.stem, engine)
    elif path is None:
        raise UserError('The engine could not be cached; write it to a file.', 'output')
    title, device = f'{FLAVORS[key.backend]} {key.version}', key.gpu or '+'.join(key.targets)
    say(f'{output or path}: {title}, {device}, {key.precision}, {len(engine) / 1e6:.1f} MB')


@engines_app.command('list')
def engines_list() -> None:
    """List the engines in the cache."""
    from cgdet_core.deployment.engines import inspect
    from cgdet_core.runtime.tensorrt.cache import EngineCache
    from cgdet_core.runtime.tensorrt.engine_file import EngineFile

    cache = EngineCache()
    table = Table('model', 'backend', 'for', 'precision', 'MB', 'last used')
    total = 0
    for path, status, found in inspect(cache.files()):
        if isinstance(found, EngineFile):
            key = found.key
            kind = '' if key.kind == 'engine' else f' ({key.kind})'
            cells = [found.model, f'{key.backend} {key.version}{kind}',
                     key.gpu or ' '.join(key.targets), key.precision]
        else:
            cells = [path.name, str(found), '-', '-']
        total += status.st_size
        table.add_row(*cells, f'{status.st_size / 1e6:.1f}',
                      f'{datetime.fromtimestamp(status.st_mtime):%Y-%m-%d %H:%M}')
    if table.row_count:
        show_table(table)
    say(f'Files: {table.row_count}, {total / 1e6:.1f} MB of {cache.limit / 1e6:.0f} MB in '
         f'{cache.folder}')


@engines_app.command('clean')
def engines_clean(
    model: Annotated[str | None, typer.Argument(
        help='Remove the engines of this model; by default only damaged files.')] = None,
    everything: Annotated[bool, typer.Option('--all', help='Remove all engines.')] = False,
) -> None:
    """Remove engines from the cache; they are built again when needed."""
    from cgdet_core.deployment.engines import clean
    from cgdet_core.runtime.tensorrt.cache import EngineCache

    cache = EngineCache()
    removed, freed, left = clean(cache, model, everything)
    say(f'Files removed: {removed}, {freed / 1e6:.1f} MB; left: {left}, in {cache.folder}')
