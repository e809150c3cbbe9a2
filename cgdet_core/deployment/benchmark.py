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

"""Time models and peers on this machine, interleaved: `cgdet benchmark`."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

from cgdet_core.deployment.contestants import ask, Contestant, GFLOPS, Seconds, write_yardstick
from cgdet_core.deployment.load import busy_machine, DUTY
from cgdet_core.errors import UserError
from cgdet_core.machine import clock, describe_machine
from cgdet_core.processes import FreshProcess
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.inference.session import cpu_threads
import numpy as np
from numpy.typing import NDArray

REST = 0.1  # seconds between turns, until the spinning threads of the last turn are asleep
MINIMUM_CALLS = 3  # per batch size and round
COLORS = {'pre': '#56b4e9', 'infer': '#0072b2', 'post': '#e69f00'}
SHARES = {'p50': 50, 'p95': 95, 'p99': 99, 'max': 100}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """The settings of a benchmark: models, backends, frames per contestant and rounds."""

    models: Sequence[Path]
    peers: Sequence[Path] = ()
    backends: Sequence[str] = ('auto',)
    batches: Sequence[int] = (1,)
    frames: int = 200
    rounds: int = 5
    threads: int = 0  # 0: all cores of this process
    source: tuple[int, int] | None = None  # width, height; the model's input by default
    yardstick: bool = False  # also time a stack of plain convolutions
    hertz: float | None = None  # also time frames at this rate, on a quiet and a busy machine

    def __post_init__(self) -> None:
        if not self.models:
            raise UserError('There is no model to measure.')
        if min((self.frames, self.rounds, *self.batches)) < 1 or self.threads < 0:
            raise UserError('Frames, rounds and batch sizes must be at least 1, and threads '
                            'must not be negative.')
        if self.hertz is not None and not 0 < self.hertz <= 1000:
            raise UserError('The rate must be above 0 and at most 1000 Hz.')

    @property
    def frames_a_round(self) -> int:
        return -(-self.frames // self.rounds)  # rounded up: all turns have at least `frames`

    def contestants(self, folder: Path) -> list[Contestant]:
        """Return each model on each backend, the peers, and the yardstick (written to folder)."""
        threads = cpu_threads(self.threads)
        size = load_card(self.models[0], DetectionCard).input_size
        chosen = [Contestant(m, b, threads, size=self.source)
                  for m in self.models for b in self.backends]
        chosen += [Contestant(p, 'onnxruntime', threads, True, size) for p in self.peers]
        if self.yardstick:
            plain = write_yardstick(folder / 'plain_convolutions.onnx')
            chosen.append(Contestant(plain, 'onnxruntime', threads, True, gflops=GFLOPS))
        return chosen


@dataclass
class Seat:
    """A contestant's process and its measurements so far."""

    contestant: Contestant
    process: FreshProcess
    facts: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    frames: list[Seconds] = field(default_factory=list)
    batches: dict[int, list[Seconds]] = field(default_factory=dict)
    paced: dict[str, list[Seconds]] = field(default_factory=lambda: {'quiet': [], 'busy': []})

    def ask(self, method: str, *arguments: float) -> Any:
        return self.process.call(ask, self.contestant, method, *arguments)


def benchmark(plan: Plan, progress: Progress | None = None) -> dict[str, Any]:
    """
    Measure all contestants in turns; the order alternates from round to round.

    progress: called with the number of turns done and the total. The report has `machine`,
    `settings` and `results`, a list in the order of the plan; all times are in milliseconds.
    UserError: a file is missing or does not load, or a process died.
    """
    machine = describe_machine()
    seats: list[Seat] = []
    with ExitStack() as processes, TemporaryDirectory() as folder:
        for contestant in plan.contestants(Path(folder)):
            process = processes.enter_context(FreshProcess(f'measured {contestant.path}'))
            seats.append(Seat(contestant, process))
            seats[-1].facts = seats[-1].ask('describe')
        _play(seats, plan, progress)
    machine['mhz_after'] = clock()
    return {'machine': machine,
            'settings': {'frames': plan.frames_a_round * plan.rounds, 'rounds': plan.rounds,
                         'threads': seats[0].contestant.threads, 'batches': list(plan.batches),
                         'hertz': plan.hertz, 'duty': DUTY if plan.hertz else None},
            'results': [{'label': name, **_result(seat, plan)}
                        for name, seat in zip(_labels(seats), seats)]}


def _play(seats: list[Seat], plan: Plan, progress: Progress | None) -> None:
    count, done = plan.frames_a_round, 0
    for number in range(plan.rounds):
        for seat in seats if number % 2 == 0 else seats[::-1]:
            sleep(REST)
            seat.frames.append(seat.ask('frames', count))
            if not seat.memory:  # before larger batches allocate more
                seat.memory = seat.ask('memory')
            for size in plan.batches:
                if size <= seat.facts['max_batch']:
                    calls = max(MINIMUM_CALLS, count // size)
                    seat.batches.setdefault(size, []).append(seat.ask('batches', size, calls))
            if plan.hertz:
                seat.paced['quiet'].append(seat.ask('paced', count, plan.hertz))
                with busy_machine():
                    seat.paced['busy'].append(seat.ask('paced', count, plan.hertz))
            done += 1
            if progress:
                progress(done, plan.rounds * len(seats))


def _labels(seats: list[Seat]) -> list[str]:
    """Return a label for each contestant: its file name and what else distinguishes it."""
    several = len({s.contestant.backend for s in seats if not s.contestant.peer}) > 1
    stems = [s.contestant.path.stem for s in seats]
    labels = []
    for seat in seats:
        path = seat.contestant.path
        same_file = sum(s.contestant.path == path for s in seats)
        words = [path.stem if stems.count(path.stem) == same_file else str(path.with_suffix(''))]
        precision = seat.facts['precision']
        words += [precision] if precision and precision not in words[0] else []
        words += [seat.contestant.backend] if several and not seat.contestant.peer else []
        labels.append(' '.join(words))
    return labels


def _result(seat: Seat, plan: Plan) -> dict[str, Any]:
    times = _joined(seat.frames)
    result = {
        'file': seat.contestant.path.name, 'peer': seat.contestant.peer, **seat.facts,
        'ms': {name: percentiles(values) for name, values in times.items()},
        'memory_mb': seat.memory, 'batches': {},
        'skipped_batches': [s for s in plan.batches if s > seat.facts['max_batch']]}
    infer = result['ms']['infer']['p50']
    if 'total' in times:
        result['total_over_infer'] = round(result['ms']['total']['p50'] / infer, 3)
    if seat.facts.get('gflops'):
        result['ms_per_gflop'] = round(infer / seat.facts['gflops'], 3)
    for size, parts in seat.batches.items():
        values = _joined(parts)
        ms = percentiles(values['infer'])
        result['batches'][str(size)] = {
            'images_per_s': round(1e3 * size / ms['p50'], 2), 'ms': ms,
            'cpu_ms_per_image': round(float(np.median(values['cpu'])) * 1e3 / size, 3)}
    if plan.hertz:
        result['paced'] = {state: _paced(_joined(parts), plan)
                           for state, parts in seat.paced.items()}
    return result


def _paced(values: Seconds, plan: Plan) -> dict[str, Any]:
    processed = len(values['total'])
    return {'ms': percentiles(values['total']), 'cpu_ms': percentiles(values['cpu'])['p50'],
            'replaced': plan.frames_a_round * plan.rounds - processed}


def percentiles(seconds: NDArray[np.float64]) -> dict[str, float]:
    """Return p50, p95, p99 and maximum of seconds, in milliseconds."""
    found = np.percentile(seconds * 1e3, list(SHARES.values()))
    return {name: round(float(value), 3) for name, value in zip(SHARES, found)}


def _joined(parts: list[Seconds]) -> Seconds:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw latency as bars and, with several batch sizes, throughput as lines (PNG, SVG, PDF)."""
    from cgdet_core.detection.curves import row_of, save_figure
    from matplotlib.figure import Figure

    results = report['results']
    lines = any(len(r['batches']) > 1 for r in results)
    figure = Figure((12 if lines else 7, 1.6 + 0.6 * len(results)), layout='constrained')
    axes = row_of(figure, 2 if lines else 1)
    names = [r['label'] for r in results]
    for row, result in enumerate(results):
        left = 0.0
        for part, color in COLORS.items():
            if part in result['ms']:
                width = result['ms'][part]['p50']
                axes[0].barh(row, width, left=left, color=color, label=part)
                left += width
        whole = result['ms'].get('total', result['ms']['infer'])
        axes[0].plot([whole['p50'], whole['p95']], [row, row], color='black', marker='|',
                     label='p50 to p95')
    axes[0].set_yticks(range(len(results)), names)
    axes[0].invert_yaxis()
    axes[0].set_xlabel('milliseconds per frame')
    handles = dict(zip(*axes[0].get_legend_handles_labels()[::-1]))
    axes[0].legend(handles.values(), handles.keys(), fontsize='small')
    if lines:
        for result, name in zip(results, names):
            found = result['batches']
            axes[1].plot([int(s) for s in found], [b['images_per_s'] for b in found.values()],
                         marker='o', label=name)
        axes[1].set(xlabel='batch size', ylabel='images per second, inference', ylim=(0, None))
        axes[1].legend(fontsize='small')
    machine = report['machine']
    figure.suptitle(f'{machine["cpu"]}, {report["settings"]["threads"]} threads, '
                    f'{machine["date"][:10]}', fontsize='medium')
    save_figure(figure, path)
