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

"""`cgdet track evaluate`."""

from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TYPE_CHECKING

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    Backend,
    cell,
    check_plot,
    complain,
    ending,
    Json,
    Overwrite,
    Polarity,
    sentence_of,
    show_table,
    Unit,
    write_report,
)
from cgdet_core.cli.track import (
    as_seen,
    Finder,
    Make,
    open_baseline,
    open_tracker,
    say_color,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs, model_file
from cgdet_core.words import counted
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
import typer

if TYPE_CHECKING:
    from cgdet_core.tracking.benchmarks import Benchmark
    from cgdet_core.tracking.evaluation import Result
    from cgdet_core.tracking.sequences import Sequence


def track_evaluate(
    paths: Annotated[list[Path], typer.Argument(
        metavar='MODEL FOLDER...', help='ONNX file or name of a tracker, not with --baseline; '
        'then folders of sequences, or folders with such folders in them.')],
    benchmark: Annotated[str, typer.Option(
        help='Which files have the truth, and how frames are counted: plain, lsotb-tir, ptb-tir, '
        'gtot, rgbt210, rgbt234, lasher or vtuav.')] = 'plain',
    baseline: Annotated[str | None, typer.Option(
        help='Measure this instead of a model: static, mil, kcf, csrt (these two require '
        'opencv-contrib), nano, vit (these two require --files) or detector, the nearest '
        'detection.')] = None,
    files: Annotated[Path | None, typer.Option(
        help="Folder of the networks of OpenCV's trackers nano and vit.")] = None,
    target: Annotated[list[str] | None, typer.Option(
        metavar='NAME', help='Only the target of gt_thermal_NAME.csv; may be repeated.')] = None,
    detector: Finder = None,
    rate: Annotated[float, typer.Option(
        min=0, help="Frames per second; 0: a video's own, or 25.")] = 0.0,
    unit: Unit = None,
    polarity: Polarity = None,
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

    if benchmark not in BENCHMARKS:
        raise UserError(f'There is no benchmark {benchmark!r}; choose from '
                        f'{", ".join(BENCHMARKS)}.', 'benchmark')
    if plot_path is not None:
        check_plot(plot_path, json_path)
    model, folders = _model_first(paths, baseline)
    work = _Evaluation(BENCHMARKS[benchmark], video)
    work.open(folders, target or (), rate)
    work.check(filter(None, (json_path, plot_path)), overwrite)
    make, card = open_baseline(baseline, detector, files, backend) if baseline else open_tracker(
        model, detector, backend)
    work.sequences = [replace(s, source=as_seen(s.source, card, unit, polarity))
                      for s in work.sequences]
    if not baseline and card is not None and 'rgb' in card.inputs:
        work.pair()
    reason, status = ending(lambda: work.run(make))
    if not work.results:
        complain(f'{reason or "no sequence could be followed"}; nothing was measured.')
        raise typer.Exit(status or 1)
    report = work.report({
        'model': None if baseline else str(model), 'baseline': baseline, 'detector': detector,
        'with_rgb': [result.name for result in work.results if result.with_rgb],
        'onnx_sha256': None if card is None else card.onnx_sha256, 'interrupted': bool(reason)})
    _show(report)
    write_report(report, json_path)
    if plot_path is not None:
        from cgdet_core.tracking.plots import draw_report
        from cgdet_core.training.figures import save_figure

        save_figure(draw_report(report, baseline or model.stem), plot_path)
    if reason:
        complain(f'{reason}; {counted(len(work.results), "sequence")} done.')
    elif work.failed:
        complain(f'{counted(len(work.failed), "sequence or folder", "sequences or folders")} '
                 'could not be measured.')
    if work.unreadable:
        complain(f'{counted(len(work.unreadable), "image")} could not be read; without a thermal '
                 'frame, the target counts as where it was before.')
    if status or work.failed or work.unreadable:
        raise typer.Exit(status or 1)


class _Evaluation:
    """Sequences, and what became of them."""

    def __init__(self, benchmark: 'Benchmark', videos: Path | None) -> None:
        self.benchmark, self.videos = benchmark, videos
        self.sequences: list[Sequence] = []
        self.results: list[Result] = []
        self.failed: dict[str, str] = {}  # name or folder -> sentence
        self.unreadable = common.Complaints()  # of frames

    def open(self, folders: Many[Path], targets: Many[str], rate: float) -> None:
        """Open what is in folders; report what cannot be opened."""
        from cgdet_core.tracking.sequences import (
            different,
            find_sequences,
            named_apart,
            open_sequence,
            without_truth,
        )

        entries = []
        for folder in folders:
            try:
                entries += find_sequences(folder, self.benchmark, targets)
            except UserError as error:
                self._fail(str(folder), error)
                continue
            for place, lack in without_truth(folder, self.benchmark) if not targets else ():
                self._fail(str(place), lack)
        for entry in named_apart(different(entries)):
            try:
                self.sequences.append(open_sequence(entry, self.benchmark, rate))
            except UserError as error:
                self._fail(entry.name, error)

    def pair(self) -> None:
        """Find the RGB images of the sequences that have some; report what is not paired."""
        from cgdet_core.tracking.benchmarks import PLAIN
        from cgdet_core.tracking.sequences import rgb_of

        for number, sequence in enumerate(self.sequences):
            if sequence.color is None:
                continue
            try:
                self.sequences[number] = replace(sequence, rgb=rgb_of(
                    sequence.color, sequence.names, self.benchmark is not PLAIN))
            except UserError as error:
                complain(f'{error} The target is followed in thermal alone.')

    def check(self, files: Iterable[Path], overwrite: bool) -> None:
        """Raise UserError for files, or videos, that cannot be written or are read."""
        from cgdet_core.runtime.imaging.frames import check_not_among
        from cgdet_core.tracking.evaluation import video_of

        videos = [] if self.videos is None else [
            video_of(self.videos, sequence.entry) for sequence in self.sequences]
        read = [file for sequence in self.sequences for file in sequence.files]
        check_not_among([*files, *videos], read)
        check_outputs(videos, overwrite=overwrite)

    def run(self, make: Make) -> None:
        """Follow the targets with a new follower each."""
        from cgdet_core.tracking.evaluation import evaluate

        total = sum(len(sequence.names) for sequence in self.sequences)
        with common.counting('following', total) as advance:
            for sequence, found in evaluate(make, self.sequences, self.benchmark, self.videos,
                                            advance, self.unreadable):
                say_color(sequence.source)
                if isinstance(found, UserError):
                    self._fail(sequence.entry.name, found)
                else:
                    self.results.append(found)

    def report(self, about: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers with what they are of."""
        from cgdet_core.machine import describe_machine
        from cgdet_core.tracking.evaluation import summarize

        return {**about, **summarize(self.results, self.benchmark), 'failed': self.failed,
                'unreadable': [str(error) for error in self.unreadable],
                'machine': describe_machine()}

    def _fail(self, name: str, error: UserError) -> None:
        self.failed[name] = str(error)
        complain(sentence_of(error))


def _model_first(paths: list[Path], baseline: str | None) -> tuple[Path, list[Path]]:
    """Return the model, which is not used with a baseline, and the folders."""
    from cgdet_core.data.sources import MODEL_SUFFIXES
    from cgdet_core.detection.predict import check_model

    if baseline is not None:
        models = [path for path in paths if path.suffix.lower() in MODEL_SUFFIXES]
        if models:
            raise UserError(f'{models[0]} is a model, and a baseline is measured instead of one; '
                            'name only folders.', 'baseline')
        return Path(), paths
    model = model_file(paths[0])
    check_model(model)
    if len(paths) == 1:
        raise UserError(f'Name the folders of sequences after the model {paths[0]}.')
    return model, paths[1:]


def _show(report: dict[str, Any]) -> None:
    """Print the numbers of the sequences, of the attributes, and the means."""
    near = [key for key in report['mean'] if key.startswith('precision_')]
    table = Table(report['benchmark'], 'success', *(
        key.replace('_', ' ').replace('px', ' px') for key in near), 'normalized', 'frames', 'fps',
        box=SIMPLE, padding=(0, 1, 0, 0))
    keys = ('success_auc', *near, 'normalized_precision')
    for name, numbers in report['sequences'].items():
        table.add_row(Text(name), *_cells(numbers, keys))
    table.add_section()
    for name, numbers in report['attributes'].items():
        table.add_row(Text(name), *_cells(numbers, keys))
    table.add_section()
    table.add_row('mean', *_cells(report['mean'], keys))
    show_table(table)


def _cells(numbers: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [*(cell(numbers[key]) for key in keys), str(numbers['frames']),
            cell(numbers.get('fps'), 1)]
