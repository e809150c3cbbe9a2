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

"""`cgdet verify`, `cgdet benchmark` and `cgdet doctor`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from cgdet_core.cli.common import (
    Backend,
    cell,
    check_plot,
    console,
    counting,
    Images,
    Json,
    model_argument,
    model_option,
    say,
    show_table,
    Topic,
    tracked,
    write_report,
)
from cgdet_core.doctor import Check
from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.choice import BACKENDS
from cgdet_core.words import counted
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
import typer

STYLES = {'OK': 'green', 'WARN': 'yellow', 'FAIL': 'bold red'}


def verify(
    model: Annotated[Path, model_argument('ONNX file or checkpoint')],
    against: Annotated[Path, model_option(
        'What MODEL was made from: ONNX file or checkpoint', 'SOURCE')],
    data: Annotated[Path, typer.Option(
        help='COCO annotation file; or a folder, bag or video, without AP.')],
    images: Images = None, topic: Topic = None, json_path: Json = None,
    backend: Backend = 'auto',
    score_threshold: Annotated[float | None, typer.Option(
        min=0, max=1, help="Minimum score of detections; the cards' by default.")] = None,
    corner: Annotated[float | None, typer.Option(
        help='Pixels that a corner may move; the default of all four tolerances depends on '
        "the precision of MODEL's card.")] = None,
    score: Annotated[float | None, typer.Option(help='Maximum change of a score.')] = None,
    off: Annotated[float | None, typer.Option(
        help='Fraction of detections that may differ more or have no counterpart.')] = None,
    ap_drop: Annotated[float | None, typer.Option(help='Maximum drop of AP, a fraction.')] = None,
) -> None:
    """Compare a model with its source, frame by frame; the exit status is 1 if they differ."""
    from cgdet_core.data.sources import read_frames
    from cgdet_core.deployment.verify import failure, TOLERANCES
    from cgdet_core.deployment.verify import verify as run
    from cgdet_core.detection.predict import open_detector
    from cgdet_core.runtime.detection.card import FITTED

    first, second = open_detector(model, backend), open_detector(against, 'onnxruntime')
    card = first.card
    if against.suffix.lower() != '.onnx' and second.card.classes == card.classes:
        # A checkpoint's card has no fitted scores and the default suppression.
        second.card = replace(second.card, **{name: getattr(card, name) for name in FITTED})
    given = {'corner': corner, 'score': score, 'off': off, 'ap_drop': ap_drop}
    tolerances = replace(TOLERANCES[card.precision],
                         **{k: v for k, v in given.items() if v is not None})
    with counting('comparing') as advance:
        frames = read_frames(data, images, card.classes, card.channels, topic, card.polarity)
        report = run(first, second, tracked(frames, advance), tolerances, score_threshold)
    report = {'file': model.name, 'against_file': against.name, 'data': data.name, **report}
    _show_differences(report)
    write_report(report, json_path)
    if not report['passed']:
        raise UserError(failure(report))
    limits = report['tolerances']
    say(f'{model.name} agrees with {against.name}: of the detections, at most {limits["off"]:.1%} '
        f'have no counterpart or differ by more than {limits["corner"]:g} px or '
        f'{limits["score"]:g} in score'
        + (f', and AP drops by at most {limits["ap_drop"]:g}.' if report['AP'] else '.'), 'green')
    if report['unreadable']:
        raise UserError(f'{counted(report["unreadable"], "frame")} could not be read; the numbers '
                        'are those of the others.')


def benchmark(
    models: Annotated[list[Path], model_argument('ONNX files', 'MODEL...')],
    peer: Annotated[list[Path] | None, typer.Option(
        help='Any other ONNX file, inference only; may be repeated.')] = None,
    backend: Annotated[list[str] | None, typer.Option(
        help=f'{", ".join(BACKENDS)}; auto by default; may be repeated.')] = None,
    batch: Annotated[str, typer.Option(
        help='Batch sizes for the throughput, for example 1,2,4,8.')] = '1',
    frames: Annotated[int, typer.Option(help='Number of frames per model.')] = 200,
    rounds: Annotated[int, typer.Option(help='Number of turns to split the frames into.')] = 5,
    threads: Annotated[int, typer.Option(help='CPU threads; 0: all cores.')] = 0,
    source: Annotated[str | None, typer.Option(
        metavar='WIDTHxHEIGHT', help="Size of the 16-bit frames; the model's by default.")] = None,
    yardstick: Annotated[bool, typer.Option(
        '--yardstick', help='Also time a stack of plain 3x3 convolutions.')] = False,
    busy: Annotated[bool, typer.Option(
        '--busy', help='Also time frames that arrive at --rate, on a quiet machine and beside '
        'other programs that compute.')] = False,
    rate: Annotated[float, typer.Option(help='Frames per second with --busy.')] = 10.0,
    json_path: Json = None,
    plot_path: Annotated[Path | None, typer.Option(
        '--plot', metavar='FILE', help='Write a plot to this file; an existing file is '
        'replaced.')] = None,
) -> None:
    """Time models, in turns, on synthetic frames: latency, throughput, CPU time, memory."""
    from cgdet_core.deployment.benchmark import benchmark as run
    from cgdet_core.deployment.benchmark import Plan, plot

    if plot_path is not None:
        check_plot(plot_path, json_path)
    plan = Plan(models, peer or (), backend or ('auto',),
                [_whole(b, '--batch') for b in batch.split(',')], frames, rounds, threads,
                _size(source), yardstick, rate if busy else None)
    with counting('measuring', noun='turn') as advance:
        report = run(plan, lambda done, total: advance(1, total))
    _show_times(report)
    write_report(report, json_path)
    if plot_path is not None:
        plot(report, plot_path)


def doctor(
    model: Annotated[Path | None, model_argument(
        'ONNX file to check (the shipped model by default)', '[MODEL]')] = None,
    seconds: Annotated[float, typer.Option(
        min=0.5, max=60.0, help='Seconds to send test images, and to listen.')] = 2.0,
    json_path: Json = None,
) -> None:
    """
    Check versions, GPU, model, transport and the ROS graph, and advise what to do.

    Run it in the shell that starts the camera driver, as it tests that environment. The exit
    status is 1 if a check fails.
    """
    from cgdet_core.doctor.machine import checks

    made: list[Check] = []
    for check in checks(model, seconds):
        _show_check(check, made[-1].section if made else '')
        made.append(check)
    counts = {level: sum(c.level == level for c in made) for level in STYLES}
    say(f'{counts["OK"]} fine, {counted(counts["WARN"], "warning")}, '
        f'{counted(counts["FAIL"], "failure")}')
    write_report({'checks': [asdict(c) for c in made], **counts}, json_path)
    if counts['FAIL']:
        raise typer.Exit(1)


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f'{option} requires integers, not {text!r}.') from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.partition('x')
    size = _whole(width, '--source'), _whole(height, '--source')
    if min(size) < 1:
        raise UserError(f'--source requires WIDTHxHEIGHT, for example 1280x1024, not {text!r}.')
    return size


def _show_differences(report: dict[str, Any]) -> None:
    from cgdet_core.deployment.verify import threshold_words

    say(f'{report["file"]} ({report["precision"]}, {report["backend"]}) against '
        f'{report["against_file"]} ({report["against_precision"]}, '
        f'{report["against_backend"]}), {counted(report["frames"], "frame")}, minimum '
        f'score {threshold_words(report["score_threshold"])}')
    say(f'{counted(report["detections"], "detection")}: {report["matched"]} in both, '
        f'{report["missing"]} missing, {report["extra"]} extra, {report["off"]} outside the '
        'tolerances')
    table = Table('difference', 'p50', 'p99', 'max')
    for key, name, digits in (('corner_px', 'corner, pixels', 4), ('score', 'score', 6)):
        table.add_row(name, *(cell(report[key][p], digits) for p in ('p50', 'p99', 'max')))
    show_table(table)
    if report['AP'] is None:
        say(f'AP was not measured: {report["why_no_AP"]}.')
    else:
        table = Table('', 'against', 'model', 'drop')
        for name in ('AP', 'AP50'):
            table.add_row(name, *(cell(report[name][k], 4) for k in ('against', 'model', 'drop')))
        show_table(table)
    table = Table('worst frames', 'off', 'missing', 'extra', 'corner', 'score')
    for frame in report['worst_frames'][:5]:
        table.add_row(frame['name'], *(str(frame[k]) for k in ('off', 'missing', 'extra')),
                      cell(frame['corner_px'], 3), cell(frame['score'], 4))
    show_table(table)


def _show_times(report: dict[str, Any]) -> None:
    """Print machine, latency and, for several batch sizes, throughput."""
    machine, settings = report['machine'], report['settings']
    say(f'{machine["cpu"]}, {settings["threads"]} threads of {machine["cores"]} cores, '
        f'governor {machine["governor"] or "unknown"}, {machine["mhz"]} MHz before and '
        f'{machine["mhz_after"]} after, load {machine["load"]}, {machine["date"]}, '
        f'commit {machine["commit"] or "unknown"}; {counted(settings["frames"], "frame")} in '
        f'{counted(settings["rounds"], "round")}')
    if machine['busy']:
        say(f'The machine was busy at the start (load {machine["load"]} on '
            f'{machine["cores"]} cores): times are too high, and percentiles too wide.', 'yellow')
    for backend in dict.fromkeys(r['backend'] for r in report['results']):
        say(backend)
    table = Table('ms', box=SIMPLE, padding=0, caption=(
        'pre, infer, post, all (end to end), CPU (all threads): p50. p95, p99, max: end to end, '
        'for peers inference only. MB: resident.'))
    for column in ('pre', 'infer', 'post', 'all', 'p95', 'p99', 'max', 'CPU', 'all/infer', 'MB'):
        table.add_column(column, justify='right', no_wrap=True)
    for result in report['results']:
        table.add_row(result['label'], *_latency(result))
    show_table(table)
    _show_throughput(report)
    _show_paced(report)


def _latency(result: dict[str, Any]) -> list[str]:
    ms = result['ms']
    whole = ms.get('total', ms['infer'])
    cells = [ms[n]['p50'] if n in ms else None for n in ('pre', 'infer', 'post', 'total')]
    cells += [whole['p95'], whole['p99'], whole['max'], ms['cpu']['p50'],
              result.get('total_over_infer'), result['memory_mb']['resident']]
    return [cell(c, 2 if c is not None and c < 10 else 1) for c in cells]


def _show_paced(report: dict[str, Any]) -> None:
    """Print the latency of frames at a rate, on a quiet and on a busy machine."""
    settings = report['settings']
    if not settings['hertz']:
        return
    table = Table(f'{settings["hertz"]:g} Hz', box=SIMPLE, padding=0, caption=(
        'ms from arrival to result; CPU: p50 of all threads. Busy: beside a program on each core '
        f'that computes {settings["duty"]:.0%} of the time.'))
    for column in ('p50', 'p95', 'p99', 'CPU', 'replaced', 'against quiet'):
        table.add_column(column, justify='right')
    for result in report['results']:
        quiet = result['paced']['quiet']['ms']['p50']
        for state, found in result['paced'].items():
            ms = found['ms']
            table.add_row(f'{result["label"]} {state}', *(
                cell(v, 1) for v in (ms['p50'], ms['p95'], ms['p99'], found['cpu_ms'])),
                str(found['replaced']), cell(ms['p50'] / quiet, 2))
    show_table(table)


def _show_throughput(report: dict[str, Any]) -> None:
    """Print images per second by batch size; print nothing if only batch 1 was measured."""
    sizes = [str(s) for s in report['settings']['batches']]
    if sizes == ['1']:
        return
    table = Table('images per second, inference only', box=SIMPLE, padding=0)
    for size in sizes:
        table.add_column(f'batch {size}', justify='right')
    for result in report['results']:
        found = result['batches']
        table.add_row(result['label'], *(
            f'{found[s]["images_per_s"]:.1f}' if s in found else '-' for s in sizes))
    show_table(table)
    for result in report['results']:
        if result['skipped_batches']:
            skipped = ', '.join(map(str, result['skipped_batches']))
            say(f'{result["label"]}: batch {skipped} skipped; the maximum of the file is '
                f'{result["max_batch"]}.')


def _show_check(check: Check, section: str) -> None:
    if check.section != section:
        console.print(Text(check.section, style='bold'))
    line = Text.assemble('  ', (f'{check.level:<5}', STYLES[check.level]), f'{check.name}: ',
                         check.found)
    console.print(line, soft_wrap=True)
    if check.advice:
        console.print(Text(f'       -> {check.advice}'), soft_wrap=True)
