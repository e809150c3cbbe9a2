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

"""`cgdet bag`."""

import importlib.util
import os
from pathlib import Path
import sys
from typing import Annotated, Any, TYPE_CHECKING

from cgdet_core.cli.bag_dataset import bag_to_dataset
from cgdet_core.cli.common import (
    cell,
    complain,
    console,
    counting,
    exit_on_sigterm,
    Images,
    Json,
    Match,
    needs,
    Overwrite,
    say,
    show_report,
    Topic,
    TRAINING_MODULES,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs
from rich.table import Table
from rich.text import Text
import typer

if TYPE_CHECKING:
    from cgdet_core.detection.bag_evaluation import Bag
    from cgdet_core.runtime.detection.detector import Detector

bag_app = typer.Typer(
    no_args_is_help=True, help='Make, play and evaluate ROS 2 bags; make data sets of them.')
bag_app.command('to-dataset')(bag_to_dataset)


@bag_app.command('from-coco')
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
    from cgdet_core.data.bags.io import fingerprint, write_bag
    from cgdet_core.data.coco import load_coco
    from cgdet_core.data.sources import coco_frames

    coco = load_coco(data, images)
    with exit_on_sigterm():
        count = write_bag(path, coco_frames(coco, match), rate, encoding, storage,
                          source=fingerprint(coco))
    say(f'{path}: {count} frames, {count / rate:.1f} s')


@bag_app.command('play', context_settings={
    'allow_extra_args': True, 'ignore_unknown_options': True})
def bag_play(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar='BAG')],
    rate: Annotated[float, typer.Option(help='Speed relative to the recording.')] = 1.0,
    loop: Annotated[bool, typer.Option('--loop', help='Start again at the end.')] = False,
    clock: Annotated[bool, typer.Option('--clock', help='Publish its time on /clock.')] = False,
) -> None:
    """Publish a bag's messages over ROS 2 (for machines without rosbag2); takes --ros-args."""
    if importlib.util.find_spec('rclpy') is None:
        raise UserError(
            'Playing a bag needs ROS 2: source a distribution or .venv/bin/ros_env.sh.')
    # A process of its own: cgdet_core never imports ROS.
    command = [sys.executable, '-m', 'cgdet_ros.tools.play', str(path), '--rate', str(rate)]
    flags = [flag for flag, on in (('--loop', loop), ('--clock', clock)) if on]
    os.execv(sys.executable, command + flags + context.args)


@bag_app.command('evaluate')
@needs(*TRAINING_MODULES)
def bag_evaluate(
    model: Annotated[Path, typer.Argument(help='Checkpoint or ONNX file.')],
    sources: Annotated[list[str], typer.Argument(
        metavar='BAG...', help='Bags, folders that hold bags, or shell patterns.')],
    data: Annotated[list[Path], typer.Option(
        '--data', help='COCO annotation file; several where the truth is in several.')],
    images: Images = None, json_path: Json = None, topic: Topic = None,
    output: Annotated[Path | None, typer.Option(
        help='Folder for report.json, pr_curve.png and the worst frames.')] = None,
    workers: Annotated[int | None, typer.Option(
        min=1, help='Processes; as many as cores by default. More than one need Ray.')] = None,
    address: Annotated[str | None, typer.Option(
        help='Ray cluster to work on; by default this machine.')] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure average precision on the frames of bags, repeatably, without DDS."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.detection import bag_evaluation as evaluation
    from cgdet_core.detection.bag_detection import find_bags
    from cgdet_core.detection.predict import open_detector

    if output is not None:
        check_outputs([output / 'report.json', output / 'pr_curve.png'], [output / 'worst'],
                      overwrite)
    detector = open_detector(model)
    card = detector.card
    sets = [load_coco(path, images, card.classes) for path in dict.fromkeys(data)]
    bags = evaluation.open_bags(find_bags(sources), sets)
    if len(bags) == 1 and bags[0].error:
        raise UserError(bags[0].error)
    _detect(bags, detector, model, topic, workers, address)
    if len(bags) == 1 and bags[0].error:
        raise UserError(bags[0].error)
    report = {'model': model.name, 'data': [c.path.name for c in sets],
              **evaluation.score_bags(bags, card.classes, sets[0].path)}
    _show_bags(report, card.classes)
    show_report(report, json_path)
    if output is not None:
        evaluation.write_results(bags, report, card, topic, output)
        say(f'{output}: report.json, pr_curve.png, worst/ '
            f'({len(report["worst_frames"])} frames)')
    if report['failed']:
        raise UserError(f'{len(report["failed"])} of {len(bags)} bags could not be evaluated; '
                        'the numbers are those of the others.')


def _detect(
    bags: 'list[Bag]', detector: 'Detector', model: Path, topic: str | None,
    workers: int | None, address: str | None,
) -> None:
    """Detect behind a progress bar; with several bags each bad one is reported at once."""
    from cgdet_core.detection.bag_evaluation import detect_bags

    if workers is None and address is None and importlib.util.find_spec('ray') is None:
        workers = 1
        if len(bags) > 1:
            say('Ray is not installed: one bag after the other ("pip install .[parallel]" for '
                'all cores).', 'dim')
    total = sum(len(b.truth) for b in bags)
    with exit_on_sigterm(), counting('detecting', total) as progress:
        detect_bags(bags, detector, model, topic, workers, address, progress,
                    complain if len(bags) > 1 else lambda sentence: None)


def _show_bags(report: dict[str, Any], classes: tuple[str, ...]) -> None:
    """Print a line per bag, where there are several."""
    if len(report['bags']) < 2:
        return

    table = Table('bag', 'frames', 'AP', 'AP50', *(f'{c} AP50' for c in classes))
    for name, part in [(p['bag'], p) for p in report['bags']] + [('all frames', report)]:
        table.add_row(Text(name), str(part['images']), cell(part['AP']), cell(part['AP50']),
                      *(cell(part['per_class'][c]['AP50']) for c in classes))
    console.print(table)
