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

"""`cgdet track`: follow one target, train what follows it, and measure that."""

from collections.abc import Callable
from collections.abc import Sequence as Many
from pathlib import Path
import sys
from typing import Annotated, Any, TYPE_CHECKING

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    Backend,
    cell,
    check_plot,
    complain,
    ending,
    Json,
    model_of,
    Overwrite,
    say,
    sentence_of,
    show_table,
    Topic,
    write_report,
)
from cgdet_core.cli.train import Overrides, RecipeArgument, Resume, run_recipe
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_not_inputs, check_outputs
from cgdet_core.words import counted
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
import typer

if TYPE_CHECKING:
    from cgdet_core.tracking.benchmarks import Benchmark
    from cgdet_core.tracking.evaluation import Result
    from cgdet_core.tracking.following import Follower
    from cgdet_core.tracking.sequences import Sequence

track_app = typer.Typer(no_args_is_help=True, help='Follow one target, and measure how well.')
FinderOption = Annotated[str | None, typer.Option(
    '--detector', metavar='MODEL', help='Detector that finds a lost target: an ONNX file, or '
    '"shipped" for that of the package.')]


@track_app.command()
def train(recipe: RecipeArgument, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a tracker from a recipe."""
    run_recipe(recipe, overrides, resume, task='tracking')


@track_app.command()
def run(
    model: Annotated[Path, typer.Argument(help='ONNX file of a tracker.')],
    source: Annotated[str, typer.Argument(
        help='Video, folder of images, bag, camera or address.')],
    box: Annotated[str, typer.Option(
        metavar='X,Y,W,H', help='The target: left, top, width and height in pixels.')],
    output: Annotated[Path, typer.Option(
        help='A video (.mp4), or a folder for a video and a table of the boxes.')],
    frame: Annotated[int, typer.Option(
        min=0, help='Number of the frame that the box is in; earlier ones are skipped.')] = 0,
    detector: FinderOption = None,
    topic: Topic = None,
    backend: Backend = 'auto',
    overwrite: Overwrite = False,
) -> None:
    """
    Follow one target; write a video with its box.

    After Ctrl-C the files contain what was done.
    """
    from cgdet_core.data.inputs import find_sources
    from cgdet_core.tracking.one_source import follow_source, outputs_of, parse_box

    corners = parse_box(box)
    found = find_sources([source], sys.stdin, topic)
    if len(found) > 1:
        raise UserError(f'{source} is {len(found)} sources; name one.')
    files = outputs_of(output, found[0])
    check_outputs(files, overwrite=overwrite)
    check_not_inputs(files, found[0].files)
    follower = _tracker(model, detector, backend)()
    seen: list[str] = []

    def work() -> None:
        with common.counting('following', found[0].total) as advance:
            for target in follow_source(follower, found[0], corners, output, frame):
                seen.append(target.state.value)
                advance(1)

    reason, status = ending(work)
    if reason and not seen:
        raise UserError(f'{reason}.')
    counts = ', '.join(f'{seen.count(state)} {state}' for state in dict.fromkeys(seen))
    say(f'{counted(len(seen), "frame")}: {counts}')
    say(f'Written: {", ".join(str(path) for path in files)}')
    if reason:
        complain(f'{reason}; {counted(len(seen), "frame")} done.')
        raise typer.Exit(status)


@track_app.command()
def evaluate(
    paths: Annotated[list[Path], typer.Argument(
        metavar='MODEL FOLDER...', help='ONNX file of a tracker, not with --baseline; then '
        'folders of sequences, or folders with such folders in them.')],
    benchmark: Annotated[str, typer.Option(
        help='Which files have the truth, and how frames are counted: plain, lsotb-tir, ptb-tir, '
        'gtot, rgbt210, rgbt234, lasher or vtuav.')] = 'plain',
    baseline: Annotated[str | None, typer.Option(
        help='Measure this instead of a model: static, mil, kcf, csrt (the last two require '
        'opencv-contrib) or detector.')] = None,
    target: Annotated[list[str] | None, typer.Option(
        metavar='NAME', help='Only the target of gt_thermal_NAME.csv; may be repeated.')] = None,
    detector: FinderOption = None,
    rate: Annotated[float, typer.Option(
        min=0, help="Frames per second; by default a video's own, or 25.")] = 0.0,
    backend: Backend = 'auto',
    json_path: Json = None,
    plot_path: Annotated[Path | None, typer.Option(
        '--plot', help='Write a plot to this file; an existing file is replaced.')] = None,
    video: Annotated[Path | None, typer.Option(
        help='Folder for a video of each sequence, with the target and the truth.')] = None,
    overwrite: Overwrite = False,
) -> None:
    """
    Measure a tracker on sequences: success, precision and normalized precision.

    A sequence that cannot be read is reported and left out; the exit status is then 1. After
    Ctrl-C the files contain what was done.
    """
    from cgdet_core.tracking.benchmarks import BENCHMARKS
    from cgdet_core.tracking.evaluation import video_of

    if benchmark not in BENCHMARKS:
        raise UserError(f'There is no benchmark {benchmark!r}; choose from '
                        f'{", ".join(BENCHMARKS)}.', 'benchmark')
    if plot_path is not None:
        check_plot(plot_path)
    model, folders = _model_first(paths, baseline)
    work = _Evaluation(BENCHMARKS[benchmark], video)
    work.open(folders, target or (), rate)
    videos = [video_of(video, s.entry) for s in work.sequences] if video else []
    check_outputs(videos, overwrite=overwrite)
    check_not_inputs([*videos, *filter(None, (json_path, plot_path))],
                     [file for s in work.sequences for file in s.files])
    make = _tracker(model, detector, backend) if model else _baseline(
        str(baseline), detector, backend)
    reason, status = ending(lambda: work.run(make))
    if not work.results:
        raise UserError(f'{reason or "no sequence could be followed"}; nothing was measured.')
    about = {'model': model.name if model else None, 'baseline': baseline, 'detector': detector,
             'interrupted': bool(reason)}
    report = work.report(about)
    _show(report)
    write_report(report, json_path)
    if plot_path is not None:
        from cgdet_core.tracking.plots import draw_report
        from cgdet_core.training.figures import save_figure

        save_figure(draw_report(report, model.stem if model else str(baseline)), plot_path)
    if reason:
        complain(f'{reason}; {counted(len(work.results), "sequence")} done.')
    elif work.failed:
        complain(f'{counted(len(work.failed), "sequence")} could not be measured.')
    if status or work.failed:
        raise typer.Exit(status or 1)


class _Evaluation:
    """Sequences, and what became of them."""

    def __init__(self, benchmark: 'Benchmark', videos: Path | None) -> None:
        self.benchmark, self.videos = benchmark, videos
        self.sequences: list[Sequence] = []
        self.results: list[Result] = []
        self.failed: dict[str, str] = {}  # name or folder -> sentence

    def open(self, folders: Many[Path], targets: Many[str], rate: float) -> None:
        """Open what is in folders; report what cannot be opened."""
        from cgdet_core.tracking.sequences import find_sequences, named_apart, open_sequence

        entries = []
        for folder in folders:
            try:
                entries += find_sequences(folder, self.benchmark, targets)
            except UserError as error:
                self._fail(str(folder), error)
        for entry in named_apart(entries):
            try:
                self.sequences.append(open_sequence(entry, self.benchmark, rate))
            except UserError as error:
                self._fail(entry.name, error)

    def run(self, make: 'Callable[[], Follower]') -> None:
        """Follow the targets with a new follower each."""
        from cgdet_core.tracking.evaluation import evaluate

        total = sum(len(sequence.names) for sequence in self.sequences)
        with common.counting('following', total) as advance:
            for sequence, found in evaluate(make, self.sequences, self.benchmark, self.videos,
                                            advance):
                if isinstance(found, UserError):
                    self._fail(sequence.entry.name, found)
                else:
                    self.results.append(found)

    def report(self, about: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers with what they are of."""
        from cgdet_core.machine import describe_machine
        from cgdet_core.tracking.evaluation import summarize

        return {**about, **summarize(self.results, self.benchmark), 'failed': self.failed,
                'machine': describe_machine()}

    def _fail(self, name: str, error: UserError) -> None:
        self.failed[name] = str(error)
        complain(sentence_of(error))


def _model_first(paths: list[Path], baseline: str | None) -> tuple[Path | None, list[Path]]:
    """Return the model, None with a baseline, and the folders."""
    from cgdet_core.data.sources import MODEL_SUFFIXES
    from cgdet_core.detection.predict import check_model

    if baseline is not None:
        models = [path for path in paths if path.suffix.lower() in MODEL_SUFFIXES]
        if models:
            raise UserError(f'{models[0]} is a model, and a baseline is measured instead of one; '
                            'name only folders.', 'baseline')
        return None, paths
    check_model(paths[0])
    if len(paths) == 1:
        raise UserError(f'Name the folders of sequences after the model {paths[0]}.')
    return paths[0], paths[1:]


def _baseline(name: str, detector: str | None, backend: str) -> 'Callable[[], Follower]':
    """Return the function that opens a baseline; UserError if there is none of the name."""
    from cgdet_core.detection.predict import open_detector
    from cgdet_core.tracking.baselines import open_baseline

    if detector is not None and name != 'detector':
        raise UserError(f'The baseline {name} does not use a detector.', 'detector')
    opened = open_detector(model_of(detector or 'shipped'), backend) if name == 'detector' else (
        None)
    open_baseline(name, opened)
    return lambda: open_baseline(name, opened)


def _tracker(model: Path, detector: str | None, backend: str) -> 'Callable[[], Follower]':
    """Return the function that makes a tracker of a model for a target."""
    from cgdet_core.detection.predict import check_model, open_detector
    from cgdet_core.runtime.tracking.tracker import Tracker, TrackingModel
    from cgdet_core.tracking.baselines import finder

    check_model(model, backend)
    loaded = TrackingModel.load(model, backend=backend)
    find = None if detector is None else finder(open_detector(model_of(detector), backend))
    return lambda: Tracker(loaded, find)


def _show(report: dict[str, Any]) -> None:
    """Print the numbers of the sequences, of the attributes, and the means."""
    near = [f'precision {key.removeprefix("precision_")}' for key in report['mean']
            if key.startswith('precision_')]
    table = Table(report['benchmark'], 'success', *near, 'normalized', 'frames', 'frames/s',
                  box=SIMPLE)
    rows = {**report['sequences'], **report['attributes'], 'mean': report['mean']}
    for name, numbers in rows.items():
        table.add_row(Text(name), *(cell(value) for key, value in numbers.items() if (
            key.startswith(('success', 'precision', 'normalized')))),
            str(numbers['frames']), cell(numbers.get('fps'), 1))
    show_table(table)
