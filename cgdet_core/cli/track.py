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

"""`cgdet track train`, `fit-scores` and `run`; what these and `track evaluate` share."""

from collections.abc import Callable
from pathlib import Path
import sys
from typing import Annotated, TYPE_CHECKING

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    Backend,
    check_not_shipped,
    COLORED,
    complain,
    console,
    ending,
    Json,
    model_argument,
    Overwrite,
    Polarity,
    say,
    Topic,
    Unit,
)
from cgdet_core.cli.train import Overrides, RecipeArgument, Resume, run_recipe
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_not_inputs, check_outputs, model_file
from cgdet_core.runtime.imaging.signal import CARD, check_signal, POLARITIES
from cgdet_core.words import counted
import typer

if TYPE_CHECKING:
    from cgdet_core.data.sources import Source
    from cgdet_core.runtime.inference.card import ModelCard
    from cgdet_core.tracking.following import Follower

track_app = typer.Typer(no_args_is_help=True, help='Follow one target, and measure how well.')
Make = Callable[[], 'Follower']
Box = Annotated[str, typer.Option(
    metavar='X,Y,W,H', help='The target: left, top, width and height in pixels.')]
Finder = Annotated[str | None, typer.Option(
    '--detector', metavar='MODEL', help='Detector that finds a lost target: an ONNX file '
    'or a name such as "shipped".')]


@track_app.command()
def train(recipe: RecipeArgument, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a tracker from a recipe."""
    run_recipe(recipe, overrides, resume, tasks=('tracking', 'rgbt_tracking'))


@track_app.command()
def fit_scores(
    model: Annotated[Path, typer.Argument(help='ONNX file of a tracker; its card is written.')],
    data: Annotated[list[Path], typer.Option(
        '--data', help='COCO file of frames that it was not trained on; may be repeated.')],
    objects: Annotated[int, typer.Option(
        min=20, help='Number of objects, evenly spaced.')] = 200,
    json_path: Json = None,
) -> None:
    """
    Fit a tracker's scores to annotated frames, and write them to the card.

    A score becomes the probability that the box is on the target.
    """
    from cgdet_core.runtime.inference.card import card_path
    from cgdet_core.tracking.calibration import calibrate

    check_not_shipped(model)
    check_outputs([card_path(model)])
    with console.status('following'):
        report = calibrate(model, data, objects)
    judged = report['cross_fitted']
    say(f'{counted(report["looks"], "look")}, fitted on one half and judged on the other: '
        f'{judged["right"]:.1%} decided right, AUROC {judged["AUROC"]:.3f}, calibration error '
        f'{judged["ECE"]:.3f}')
    common.write_report(report, json_path)


@track_app.command()
def run(
    model: Annotated[Path, model_argument('ONNX file of a tracker')],
    source: Annotated[str, typer.Argument(
        help='Video, folder of images, bag, camera or address.')],
    box: Box,
    output: Annotated[Path, typer.Option(
        help='A video (.mp4), or a folder for a video and a table of the boxes.')],
    frame: Annotated[int, typer.Option(
        min=0, help='Number of the frame that the box is in; earlier ones are skipped.')] = 0,
    rgb: Annotated[Path | None, typer.Option(
        metavar='FOLDER', help='RGB images for an RGB-T tracker, registered to the thermal '
        'pixels: one for each frame, or with the name of one.')] = None,
    detector: Finder = None,
    topic: Topic = None,
    unit: Unit = None,
    polarity: Polarity = None,
    backend: Backend = 'auto',
    overwrite: Overwrite = False,
) -> None:
    """
    Follow one target; write a video with its box.

    After Ctrl-C the files contain what was done.
    """
    from cgdet_core.data.inputs import find_sources
    from cgdet_core.runtime.imaging.frames import check_not_among, files_below, IMAGE_SUFFIXES
    from cgdet_core.tracking.following import Clock
    from cgdet_core.tracking.one_source import follow_source, outputs_of, parse_box
    from cgdet_core.tracking.sequences import check_no_rgb

    start = parse_box(box)
    check_no_rgb(source)
    found = find_sources([source], sys.stdin, topic)
    if len(found) > 1:
        raise UserError(f'{source} is {len(found)} sources; name one.')
    files = outputs_of(output, found[0])
    check_outputs(files, overwrite=overwrite)
    check_not_among(files, found[0].files)
    if rgb is not None and rgb.is_dir():
        check_not_inputs(files, files_below(rgb, IMAGE_SUFFIXES, '*'))
    make, card = open_tracker(model, detector, backend)
    colors = () if rgb is None else colors_of(rgb, found[0], card)
    frames = as_seen(found[0], card, unit, polarity)
    states: list[str] = []
    failed, clock = common.Complaints(), Clock()

    def work() -> None:
        with common.counting('following', frames.total) as advance:
            for target in follow_source(make(), frames, start, output, clock, frame, colors,
                                        failed):
                states.append(target.state.value)
                advance(1)

    reason, status = ending(work)
    if reason and not states:
        complain(f'{reason}; nothing was followed.')
        raise typer.Exit(status)
    counts = ', '.join(f'{states.count(state)} {state}' for state in dict.fromkeys(states))
    say(f'{counted(len(states), "frame")}: {counts}')
    say(f'Written: {", ".join(str(path) for path in files)}')
    if reason:
        complain(f'{reason}; {counted(len(states), "frame")} done.')
    say_color(frames)
    if clock.sentence:
        complain(f'{clock.sentence}.')
    if status or failed:
        raise typer.Exit(status or 1)


def say_color(source: 'Source') -> None:
    """Report a source whose frames were in color."""
    if source.colors.found:
        say(COLORED.format(source.colors.found), 'yellow')


def colors_of(folder: Path, source: 'Source', card: 'ModelCard') -> tuple[Path | None, ...]:
    """Return the RGB image of each frame of a source; UserError if there is no use for them."""
    from cgdet_core.tracking.sequences import counted_through, rgb_of

    if 'rgb' not in card.inputs:
        raise UserError(f'{card.name} follows in thermal images only; leave out the RGB images, '
                        'or choose an RGB-T model.', 'rgb')
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder of RGB images.', 'rgb')
    source = counted_through(source)
    if source.total is None:
        raise UserError(f'It is not known how many frames {source.where} has, so which RGB image '
                        'is of which; make a folder of images of them.', 'rgb')
    return rgb_of(folder, source.names or ('',) * source.total)


def open_tracker(model: Path, detector: str | None, backend: str) -> tuple[Make, 'ModelCard']:
    """Return the function that makes a tracker of a model, for one target, and its card."""
    from cgdet_core.detection.predict import check_model, open_thermal
    from cgdet_core.runtime.detection.detector import finder, LOST_THRESHOLD
    from cgdet_core.runtime.tracking.model import TrackingModel
    from cgdet_core.runtime.tracking.tracker import Tracker

    check_model(model, backend)
    loaded = TrackingModel.load(model, backend=backend)
    find = None if detector is None else finder(
        open_thermal(model_file(detector), backend), loaded.card.polarity, LOST_THRESHOLD)
    return lambda: Tracker(loaded, find), loaded.card


def open_baseline(name: str, detector: str | None, files: Path | None,
                  backend: str) -> tuple[Make, 'ModelCard | None']:
    """Return the function that makes a baseline, and the card of its detector, if it has one."""
    from cgdet_core.detection.predict import open_thermal
    from cgdet_core.tracking import baselines

    if name != 'detector':
        if detector is not None:
            raise UserError(f'The baseline {name} does not use a detector.', 'detector')
        baselines.open_baseline(name, files=files)  # the error, if there is none
        return lambda: baselines.open_baseline(name, files=files), None
    opened = open_thermal(model_file(detector or 'shipped'), backend)
    return lambda: baselines.open_baseline(name, opened), opened.card


def as_seen(source: 'Source', card: 'ModelCard | None', unit: str | None,
            polarity: str | None) -> 'Source':
    """Return a source of a unit and polarity as a model sees it; baselines see white hot."""
    from cgdet_core.data.sources import viewed

    if card is not None:
        check_signal(card.normalization.kind, unit or CARD, polarity or '', card.name)
    expected = POLARITIES[0] if card is None else card.polarity
    return viewed(source, unit or CARD, polarity or '', expected)
