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

from collections import Counter
from dataclasses import replace
import importlib.util
import os
from pathlib import Path
import sys
from typing import Annotated, Any, TYPE_CHECKING

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    Backend,
    cell,
    ending,
    folder_option,
    Images,
    Json,
    Match,
    model_argument,
    model_option,
    Overwrite,
    Polarity,
    say,
    show_table,
    Topic,
    Unit,
)
from cgdet_core.cli.report import check_page, command, Page, show_page
from cgdet_core.cli.track import as_seen, Box, Finder, open_tracker, say_color
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import (
    check_new,
    check_not_inputs,
    check_once,
    check_outputs,
    share_file,
    SHIPPED_TRACKER,
)
from cgdet_core.runtime.imaging.signal import CARD, check_signal
from cgdet_core.words import counted
from rich.table import Table
from rich.text import Text
import typer

if TYPE_CHECKING:
    from cgdet_core.detection.bag_evaluation import Bag

bag_app = typer.Typer(
    no_args_is_help=True, help='Make, play and evaluate ROS 2 bags, and follow targets in them.')


@bag_app.command('from-coco')
def bag_from_coco(
    data: Annotated[Path, typer.Argument(metavar='COCO.json', help='Set of frames.')],
    path: Annotated[Path, typer.Argument(metavar='BAG', help='Bag to create.')],
    images: Images = None,
    rate: Annotated[float, typer.Option(help='Frames per second.')] = 10.0,
    encoding: Annotated[str | None, typer.Option(
        help="mono8 or mono16; the images' own depth by default.")] = None,
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap',
    match: Match = '*',
) -> None:
    """
    Write the frames of a COCO set to a bag, and their annotations by stamp next to it.

    A frame that cannot be read is reported and left out; the exit status is then 1.
    """
    from cgdet_core.data.bags.io import write_bag
    from cgdet_core.data.bags.truth import fingerprint, truth_file, write_truth
    from cgdet_core.data.coco import load_coco
    from cgdet_core.data.sources import coco_frames

    check_new(path)
    check_outputs([truth_file(path)], overwrite=False)
    coco = load_coco(data, images)
    failed = common.Complaints()
    with common.exit_on_sigterm():
        # As they are stored, not in kelvin.
        stored = [replace(record, unit=CARD, polarity='') for record in coco.images]
        frames = coco_frames(replace(coco, images=stored), match)
        count = write_bag(path, frames, rate, encoding, storage, fingerprint(coco), failed)
        truth = write_truth(path, coco)
    say(f'{path}: {counted(count, "frame")}, {(count + len(failed)) / rate:.1f} s; its '
        f'annotations by stamp: {truth}')
    if failed:
        raise UserError(f'{len(failed)} of {count + len(failed)} frames could not be read; their '
                        'times in the bag are empty.')


@bag_app.command('play', context_settings={
    'allow_extra_args': True, 'ignore_unknown_options': True})
def bag_play(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar='BAG', help='Bag to play.')],
    rate: Annotated[float, typer.Option(help='Speed relative to the recording.')] = 1.0,
    loop: Annotated[bool, typer.Option('--loop', help='Start again at the end.')] = False,
    clock: Annotated[bool, typer.Option('--clock', help='Publish bag time on /clock.')] = False,
) -> None:
    """Publish a bag's messages over ROS 2, without rosbag2; accepts --ros-args."""
    if importlib.util.find_spec('rclpy') is None:
        raise UserError(
            'Playing a bag needs ROS 2: source a distribution or .venv/bin/ros_env.sh.')
    # A separate program, as cgdet_core never imports ROS.
    command = [sys.executable, '-m', 'cgdet_ros.tools.play', str(path), '--rate', str(rate)]
    flags = [flag for flag, on in (('--loop', loop), ('--clock', clock)) if on]
    os.execv(sys.executable, command + flags + context.args)


@bag_app.command('evaluate')
def bag_evaluate(
    model: Annotated[Path, model_argument('Checkpoint or ONNX file')],
    sources: Annotated[list[str], typer.Argument(
        metavar='BAG...', help='Bags, folders that hold bags, or shell patterns.')],
    data: Annotated[list[Path], typer.Option(
        '--data', help='COCO annotation file; may be repeated.')],
    images: Images = None, json_path: Json = None, topic: Topic = None,
    output: Annotated[Path | None, folder_option(
        'Folder for report.json, the figures, the worst frames, and evaluation.json for '
        '"cgdet report".')] = None,
    page: Page = None,
    workers: Annotated[int | None, typer.Option(
        min=1, help='Number of processes, by default one per core. More than one requires '
        'Ray.')] = None,
    address: Annotated[str | None, typer.Option(
        help='Address of a Ray cluster; this machine by default.')] = None,
    unit: Unit = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure average precision on the frames of bags, repeatably, without DDS."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.data.inputs import find_bags
    from cgdet_core.detection import bag_evaluation as evaluation
    from cgdet_core.detection.predict import open_detector
    from cgdet_core.detection.report import write_page
    from cgdet_core.detection.results import describe, FILE, save

    check_once(data)
    if output is not None:
        files = 'report.json', 'pr_curve.png', 'reliability.png', FILE
        written = [output / name for name in files]
        check_outputs(written, [output / 'worst'], overwrite)
        check_outputs([*written, *filter(None, [json_path])])
    if page is not None:
        check_page(page, overwrite)
    # Accuracy is measured by ONNX Runtime: the same numbers on every machine.
    detector = open_detector(model, 'onnxruntime')
    card = detector.card
    sets = [load_coco(path, images, card.classes) for path in data]
    for coco in sets:
        coco.check_signal(card.normalization.kind, card.name)
    check_signal(card.normalization.kind, unit or CARD, '', card.name)
    bags = evaluation.open_bags(find_bags(sources), sets, unit)
    if workers is None and address is None and importlib.util.find_spec('ray') is None:
        workers = 1
        if len(bags) > 1:
            say('Ray is not installed, so bags are evaluated one by one; install it with '
                '"pip install .[parallel]" to use all cores.', 'dim')
    total = sum(len(bag.truth) for bag in bags)
    with common.exit_on_sigterm(), common.counting('detecting', total) as progress:
        # With several bags, each bad one is reported immediately.
        evaluation.detect_bags(bags, detector, model, topic, workers, address, progress,
                               common.complain if len(bags) > 1 else lambda sentence: None)
    if len(bags) == 1 and bags[0].error:
        raise UserError(bags[0].error)
    report = {'model': model.name, 'data': [c.path.name for c in sets],
              **evaluation.score_bags(bags, card.classes, sets[0].path),
              'other_classes': dict(sum((Counter(c.others) for c in sets), Counter())),
              'prelabels': sum(c.prelabels for c in sets)}
    for coco in sets:
        coco.warn_of_prelabels()
    for bag in bags:
        _show_left_out(bag)
    if missing := evaluation.without_frame(bags):
        say(f'Left out: {counted(missing, "annotated frame")} without an image in the bags.',
            'yellow')
    _show_bags(report, card.classes)
    common.show_report(report, json_path)
    results = evaluation.evaluation_of(
        bags, report, describe(model, detector.session.describe(), command()), card, sets, images,
        topic)
    if output is not None:
        evaluation.write_results(bags, results, output)
        save(results, output / FILE)
        say(f'{output}: {", ".join(files)}, worst/ '
            f'({counted(len(report["worst_frames"]), "frame")})')
    if page is not None:
        write_page(results, page)
        show_page(page)
    if report['failed']:
        raise UserError(f'{len(report["failed"])} of {len(bags)} bags could not be evaluated; '
                        'the numbers are those of the other bags.')
    if report['unreadable']:
        common.complain(f'{counted(report["unreadable"], "annotated frame")} could not be read; '
                        'the numbers are those of the others.')


@bag_app.command('track')
def bag_track(
    path: Annotated[Path, typer.Argument(metavar='BAG', help='Bag with thermal images.')],
    box: Box,
    model: Annotated[Path | None, model_option(
        'ONNX file of a tracker (the shipped one by default)')] = None,
    start: Annotated[str | None, typer.Option(
        metavar='STAMP', help='Stamp of the image that the box is in, in seconds; the first '
        'image by default.')] = None,
    output: Annotated[Path | None, typer.Option(
        help='Table to write, .csv or .json: stamp, box, score and state of each image.')] = None,
    video: Annotated[Path | None, typer.Option(help='Video to write, .mp4.')] = None,
    detector: Finder = None, topic: Topic = None,
    rgb_topic: Annotated[str | None, typer.Option(
        metavar='TOPIC', help='RGB images for an RGB-T tracker, registered to the thermal '
        'pixels.')] = None,
    max_gap_ms: Annotated[float, typer.Option(
        min=0, help='Maximum time between a thermal frame and its RGB image.')] = 50.0,
    unit: Unit = None, polarity: Polarity = None, backend: Backend = 'auto',
    overwrite: Overwrite = False,
) -> None:
    """
    Follow a target through the images of a bag, without DDS; write where it was.

    An image that cannot be read is reported and left out; the exit status is then 1. After Ctrl-C
    the files contain what was done.
    """
    from cgdet_core.data.inputs import find_bags
    from cgdet_core.data.sources import names_bag, open_path
    from cgdet_core.tracking import bag_tracking as tracking
    from cgdet_core.tracking.following import Clock
    from cgdet_core.tracking.one_source import parse_box

    corners, stamp = parse_box(box), None if start is None else tracking.parse_stamp(start)
    for name, file, kinds in (('output', output, tracking.FORMATS), ('video', video, ('.mp4',))):
        if file is not None and file.suffix.lower() not in kinds:
            raise UserError(f'{file} must end with {" or ".join(kinds)}.', name)
    files = [file for file in (output, video) if file is not None]
    bags = find_bags([str(path)])
    if len(bags) > 1:
        raise UserError(f'{path} holds {len(bags)} bags; name one, such as {bags[0]}.')
    if not names_bag(bags[0]):
        raise UserError(f'{bags[0]} is not a bag; cgdet track run follows in other sources.' if
                        bags[0].exists() else f'The bag {bags[0]} does not exist.')
    colors, clock = None, Clock()
    if rgb_topic is not None:
        topic = tracking.thermal_topic(bags[0], topic, rgb_topic)
        colors = tracking.ColorTopic(bags[0], rgb_topic, max_gap_ms)
    source = open_path(bags[0], topic)
    check_outputs(files, overwrite=overwrite)
    check_not_inputs(files, source.files)
    place = model or share_file(SHIPPED_TRACKER)
    make, card = open_tracker(place, detector, backend)
    if colors is not None and 'rgb' not in card.inputs:
        raise UserError(f'{card.name} follows in thermal images only; leave out the RGB topic, or '
                        'choose an RGB-T model.', 'rgb_topic')
    frames = as_seen(source, card, unit, polarity).frames
    rows: list[tracking.Row] = []
    failed = common.Complaints()

    def work() -> None:
        with common.counting('following', source.total) as advance:
            for row in tracking.follow_frames(
                    make(), tracking.from_stamp(frames, stamp), corners, failed, clock,
                    video, source.rate, colors):
                rows.append(row)
                advance(1)

    reason, status = ending(work)
    if not rows:
        raise UserError(f'{reason or f"{path} has no images"}.')
    if output is not None:
        tracking.write_rows(output, rows, {
            'bag': str(path), 'model': place.name, 'detector': detector,
            'rgb_topic': rgb_topic, 'with_rgb': colors.used if colors else 0,
            'box': [round(float(v), 2) for v in corners]})
    found = tracking.summary(rows)
    say(f'{counted(len(rows), "image")}: ' + ', '.join(
        f'{found[state]} {state}' for state in ('tracked', 'uncertain', 'lost')))
    say_color(source)
    if clock.sentence:
        common.complain(f'{clock.sentence}.')
    if colors is not None:
        say(f'RGB in {counted(colors.used, "image")}' + ''.join(
            f'; none in {count}, as {why}' for why, count in colors.missing.most_common(3)))
    if files:
        say(f'Written: {", ".join(map(str, files))}')
    if reason:
        common.complain(f'{reason}; {counted(len(rows), "image")} done.')
    if status or failed:
        raise typer.Exit(status or 1)


def _show_left_out(bag: 'Bag') -> None:
    """Report annotated frames of a bag that are not evaluated."""
    if unreadable := bag.result.unreadable:
        say(f'{bag.name}, left out: {counted(len(unreadable), "annotated frame")} that cannot be '
            f'read, first: {unreadable[0]}', 'yellow')
    if bag.result.repeated:
        say(f'{bag.name}, left out: {counted(bag.result.repeated, "frame")} with the stamp of an '
            'earlier one; the camera driver must set header.stamp.', 'yellow')


def _show_bags(report: dict[str, Any], classes: tuple[str, ...]) -> None:
    """Print one row per bag if there are several."""
    if len(report['bags']) < 2:
        return
    table = Table('bag', 'frames', 'AP', 'AP50', *(f'{c} AP50' for c in classes))
    for name, part in [(p['bag'], p) for p in report['bags']] + [('all frames', report)]:
        table.add_row(Text(name), str(part['images']), cell(part['AP']), cell(part['AP50']),
                      *(cell(part['per_class'][c]['AP50']) for c in classes))
    show_table(table)
