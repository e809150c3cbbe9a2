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

"""The command line: `cgdet train | ablate | evaluate | detect | export | bag | data`."""

from collections.abc import Callable
from dataclasses import replace
import functools
import importlib.util
import json
import os
from pathlib import Path
import sys
from typing import Annotated, Any, NoReturn, TYPE_CHECKING

from cgdet_core.errors import UserError
from rich.console import Console
from rich.progress import track
from rich.table import Table
import typer

if TYPE_CHECKING:
    from cgdet_core.runtime.detector import Detector

# Heavy modules are imported inside the commands: `cgdet --help` answers at once, and a robot
# without torch can still run `cgdet detect` and `cgdet bag`.

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help='Train, evaluate and deploy small thermal object detectors.')
bag = typer.Typer(no_args_is_help=True, help='Make, play and evaluate ROS 2 bags.')
app.add_typer(bag, name='bag')
data_app = typer.Typer(no_args_is_help=True, help='Convert data sets to COCO, and look at them.')
app.add_typer(data_app, name='data')
console = Console()

Images = Annotated[Path | None, typer.Option(
    help='Folder that the file names in the COCO file are relative to.')]
Json = Annotated[Path | None, typer.Option('--json', help='Write the numbers to this file.')]
Data = Annotated[Path, typer.Option('--data', help='COCO annotation file.')]
Match = Annotated[str, typer.Option(
    help='Only pictures whose name fits this shell pattern.')]
Overwrite = Annotated[bool, typer.Option('--overwrite', help='Replace existing files.')]
Topic = Annotated[str | None, typer.Option(help='Image topic, where a bag has several.')]


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit status 1."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f'{error.strerror or error}: {error.filename}.' if error.filename else str(error))


def _fail(sentence: str) -> NoReturn:
    Console(stderr=True).print(f'cgdet: {sentence}', style='red', highlight=False, markup=False,
                               soft_wrap=True)
    sys.exit(1)


def _needs(*modules: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn a missing training module into a sentence."""
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                command(*args, **kwargs)
            except ModuleNotFoundError as error:
                if error.name is None or error.name.split('.')[0] not in modules:
                    raise
                raise UserError(f'The module {error.name} is missing; install what training '
                                'needs with "pip install .[train]".') from None
        return run
    return decorate


TRAINING_MODULES = ('torch', 'torchvision', 'lightning', 'torchmetrics', 'faster_coco_eval',
                    'pydantic', 'onnx', 'onnxscript', 'tensorboard', 'matplotlib')


@app.command()
@_needs(*TRAINING_MODULES)
def train(
    recipe: Annotated[Path, typer.Argument(help='Recipe, a YAML file.')],
    overrides: Annotated[list[str] | None, typer.Argument(
        metavar='[KEY=VALUE]...', help='Changes to it.')] = None,
    resume: Annotated[bool, typer.Option('--resume', help='Go on from last.ckpt.')] = False,
) -> None:
    """Train a detector as a recipe says."""
    from cgdet_core.training.recipe import load_recipe
    from cgdet_core.training.train import train as run
    from lightning.pytorch.utilities import rank_zero_only

    try:
        best = run(load_recipe(recipe, overrides), resume)
    except KeyboardInterrupt:
        Console(stderr=True).print('cgdet: interrupted; go on with --resume.')
        raise typer.Exit(130) from None
    rank_zero_only(console.print)(
        f'The best checkpoint is {best}', highlight=False, soft_wrap=True)


@app.command()
@_needs(*TRAINING_MODULES)
def ablate(
    grid: Annotated[Path, typer.Argument(help='Grid of variants and seeds, a YAML file.')],
    overrides: Annotated[list[str] | None, typer.Argument(
        metavar='[KEY=VALUE]...', help='Changes to the base recipe.')] = None,
    output: Annotated[Path, typer.Option(
        help='Folder for the runs, the tables and the figures.')] = Path('runs/ablation'),
    only_report: Annotated[bool, typer.Option(
        '--report', help='Train nothing; write tables and figures of what is finished.')] = False,
) -> None:
    """Train variants of a recipe over seeds and compare them; goes on where it stopped."""
    from cgdet_core.training.ablation import report, run_ablation
    from cgdet_core.training.grid import load_ablation

    ablation = load_ablation(grid, output, overrides)
    try:
        busy = 0 if only_report else run_ablation(ablation, console)
        if busy:
            console.print(f'{busy} runs are still being trained by other processes')
        report(ablation)
    except KeyboardInterrupt:
        Console(stderr=True).print('cgdet: interrupted; the same command goes on from here.')
        raise typer.Exit(130) from None
    console.print(f'The tables and figures are in {output}', highlight=False, soft_wrap=True)


@app.command()
@_needs(*TRAINING_MODULES)
def evaluate(
    model: Annotated[Path, typer.Argument(help='Checkpoint or ONNX file.')],
    data: Data, images: Images = None, json_path: Json = None,
    update_card: Annotated[bool, typer.Option(
        '--update-card', help='Record the numbers in the card of an ONNX file.')] = False,
) -> None:
    """Measure COCO average precision on annotated frames."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.evaluation.coco import evaluate as score
    from cgdet_core.evaluation.detect import detect_named
    from cgdet_core.runtime.detector import EVALUATION_THRESHOLD
    from cgdet_core.runtime.frames import read_frame

    detector = _open(model)
    coco = load_coco(data, images, detector.card.classes, detector.card.channels)
    found = [detect_named(detector, read_frame(r.path, detector.card.channels), r.path,
                          EVALUATION_THRESHOLD)
             for r in track(coco.images, 'evaluating', console=console, transient=True)]
    report = {'model': model.name, 'data': data.name, 'backend': detector.backend.describe(),
              **score(found, coco)}
    _show(report, json_path)
    if update_card:
        _record(model, detector, report)


@app.command()
def detect(
    model: Annotated[Path, typer.Argument(help='Checkpoint or ONNX file.')],
    sources: Annotated[list[str], typer.Argument(
        metavar='SOURCE...', help='Pictures, folders, videos or bags.')],
    output: Annotated[Path, typer.Option(help='Folder for the boxes and pictures.')],
    score_threshold: Annotated[float | None, typer.Option(
        min=0, max=1, help="Least score; the model card's by default.")] = None,
) -> None:
    """Detect objects; write detections.json (COCO) and pictures with boxes."""
    from cgdet_core.evaluation.detect import detect_sources

    detector = _open(model)
    images, boxes = detect_sources(detector, sources, output, score_threshold, console)
    console.print(f'{boxes} objects in {images} frames: {output / "detections.json"}, pictures '
                  f'in {output / "pictures"}', highlight=False, soft_wrap=True)


@app.command()
@_needs(*TRAINING_MODULES)
def export(
    checkpoint: Annotated[Path, typer.Argument(help='Checkpoint of "cgdet train".')],
    output: Annotated[Path, typer.Option(help='ONNX file to write, its card goes beside it.')],
    precision: Annotated[str, typer.Option(help='fp32, fp16 or int8.')] = 'fp32',
) -> None:
    """Write a checkpoint as ONNX with its model card."""
    from cgdet_core.export.onnx import export as run

    card = run(checkpoint, output, precision)
    console.print(
        f'{output}: {card.parameters / 1e6:.2f} M parameters, {card.gflops:.2f} GFLOPs at '
        f'{card.input_size[0]}x{card.input_size[1]}, {output.stat().st_size / 1e6:.1f} MB',
        highlight=False, soft_wrap=True)


@bag.command('from-coco')
def bag_from_coco(
    data: Annotated[Path, typer.Argument(metavar='COCO.json')],
    path: Annotated[Path, typer.Argument(metavar='BAG')],
    images: Images = None,
    rate: Annotated[float, typer.Option(help='Frames per second.')] = 10.0,
    encoding: Annotated[str | None, typer.Option(
        help="mono8 or mono16; the pictures' own depth by default.")] = None,
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap',
    match: Match = '*',
) -> None:
    """Turn the frames of a COCO set into a bag."""
    from cgdet_core.data.bags import coco_frames, write_bag
    from cgdet_core.data.coco import load_coco

    count = write_bag(path, coco_frames(load_coco(data, images), match), rate, encoding, storage)
    console.print(f'{path}: {count} frames, {count / rate:.1f} s', highlight=False, soft_wrap=True)


@bag.command('play', context_settings={
    'allow_extra_args': True, 'ignore_unknown_options': True})
def bag_play(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar='BAG')],
    rate: Annotated[float, typer.Option(help='Speed relative to the recording.')] = 1.0,
    loop: Annotated[bool, typer.Option('--loop', help='Start again at the end.')] = False,
) -> None:
    """Publish a bag's messages over ROS 2 (for machines without rosbag2); takes --ros-args."""
    if importlib.util.find_spec('rclpy') is None:
        raise UserError(
            'Playing a bag needs ROS 2: source a distribution or .venv/bin/ros_env.sh.')
    # A process of its own: cgdet_core never imports ROS.
    command = [sys.executable, '-m', 'cgdet_ros.play', str(path), '--rate', str(rate)]
    os.execv(sys.executable, command + (['--loop'] if loop else []) + context.args)


@bag.command('evaluate')
@_needs(*TRAINING_MODULES)
def bag_evaluate(
    model: Annotated[Path, typer.Argument(help='Checkpoint or ONNX file.')],
    path: Annotated[Path, typer.Argument(metavar='BAG')],
    data: Data, images: Images = None, json_path: Json = None, topic: Topic = None,
) -> None:
    """Measure average precision on a bag's frames, directly and repeatably, without DDS."""
    from cgdet_core.data.bags import read_frames, truth_by_stamp
    from cgdet_core.data.coco import load_coco
    from cgdet_core.evaluation.coco import evaluate as score
    from cgdet_core.evaluation.detect import detect_named
    from cgdet_core.runtime.detector import EVALUATION_THRESHOLD

    detector = _open(model)
    coco = load_coco(data, images, detector.card.classes)
    truth = truth_by_stamp(path, coco)
    found, records, unknown = [], [], 0
    for frame in read_frames(path, topic):
        record = truth.get(frame.stamp_ns)
        if record is None:
            unknown += 1
            continue
        found.append(detect_named(
            detector, frame.frame, f'{path} at {frame.stamp_ns} ns', EVALUATION_THRESHOLD))
        records.append(record)
    if not found:
        raise UserError(f'No frame of {path} has annotations in {data}.')
    report = {'model': model.name, 'bag': path.name, 'data': data.name,
              'frames_without_annotation': unknown,
              **score(found, replace(coco, images=records))}
    _show(report, json_path)


@data_app.command('convert')
def data_convert(
    name: Annotated[str, typer.Argument(metavar='FORMAT', help=(
        'flir-adas-v1, flir-adas-v2, flir-aligned, llvip, kaist, m3fd, msrs, yolo or voc.'))],
    folder: Annotated[Path, typer.Argument(metavar='DATASET', help="The set's own folder.")],
    output: Annotated[Path | None, typer.Option(
        help='Folder to write to; DATASET/annotations by default.')] = None,
    rgb: Annotated[Path | None, typer.Option(
        help='RGB pictures of the same names (yolo, voc).')] = None,
    labels: Annotated[Path | None, typer.Option(
        help='Label folder, where there are several (llvip, kaist, msrs).')] = None,
    bits: Annotated[int | None, typer.Option(
        help='8 or 16, where a set has both (flir-adas); 16 by default.')] = None,
    unregistered_rgb: Annotated[bool, typer.Option(
        '--unregistered-rgb', help='Pair RGB of another field of view (flir-adas-v1).')] = False,
    renames: Annotated[list[str] | None, typer.Option(
        '--map', metavar='NATIVE=CLASS',
        help='CLASS: person, bicycle, car, ignore-person ..., drop.')] = None,
    hold_out: Annotated[float | None, typer.Option(
        help='Share of the last frames for val, where a set has no split.')] = None,
    frames: Annotated[int, typer.Option(min=1, help='Frames on the contact sheet.')] = 12,
    overwrite: Overwrite = False,
) -> None:
    """Write a data set's labels as COCO, with a report and a contact sheet."""
    from cgdet_core.data.formats.convert import convert
    from cgdet_core.data.formats.native import Options
    from cgdet_core.data.formats.report import print_report

    mapping = {}
    for rename in renames or []:
        native, equals, target = rename.rpartition('=')
        if not equals:
            raise UserError(f'--map needs NATIVE=CLASS, such as truck=car, not {rename!r}.')
        mapping[native.strip()] = target.strip()
    options = Options(rgb, labels, bits, unregistered_rgb)
    place, report = convert(
        name, folder, output, console, options, mapping, hold_out, frames, overwrite)
    print_report(report, place, console)


@data_app.command('show')
def data_show(
    path: Annotated[Path, typer.Argument(metavar='COCO.json')],
    images: Images = None,
    output: Annotated[Path, typer.Option(
        help='PNG file for a sheet, or folder for a picture a frame.')] = Path('show.png'),
    count: Annotated[int, typer.Option(min=1, help='Frames, evenly spaced.')] = 12,
    match: Match = '*',
    overwrite: Overwrite = False,
) -> None:
    """Draw boxes on thermal and RGB side by side."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.data.show import show

    shown = show(load_coco(path, images), output, count, match, overwrite)
    console.print(f'{output}: {shown} frames', highlight=False, soft_wrap=True)


def _open(model: Path) -> 'Detector':
    from cgdet_core.runtime.detector import Detector

    if model.suffix.lower() == '.onnx':
        return Detector.load(model)
    try:
        from cgdet_core.models.checkpoint import open_model
    except ModuleNotFoundError as error:
        raise UserError(f'A checkpoint needs the module {error.name}; install '
                        '".[train]" or give an ONNX file.') from None
    return open_model(model)


def _show(report: dict[str, Any], json_path: Path | None) -> None:
    from cgdet_core.runtime.card import write_atomically

    def cell(value: float | None) -> str:
        return '-' if value is None else f'{value:.3f}'

    table = Table('', 'AP', 'AP50', 'AP75', 'small', 'medium', 'large')
    table.add_row('all', *(cell(report[k]) for k in (
        'AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large')))
    for group in ('per_class', 'per_time_of_day'):
        for name, values in report.get(group, {}).items():
            table.add_row(name, cell(values['AP']), cell(values['AP50']))
    console.print(table)
    if json_path is not None:
        write_atomically(json_path, (json.dumps(report, indent=2) + '\n').encode())


def _record(model: Path, detector: 'Detector', report: dict[str, Any]) -> None:
    from cgdet_core.runtime.card import save_card

    if model.suffix.lower() != '.onnx':
        raise UserError('--update-card needs an ONNX file; export the checkpoint first.')
    accuracy = {**detector.card.accuracy, report['data']: report}
    save_card(replace(detector.card, accuracy=accuracy), model)
