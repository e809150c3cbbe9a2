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

"""Measure what follows a target on sequences, as a benchmark counts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Many
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.tracking import metrics
from cgdet_core.tracking.attributes import find_attributes
from cgdet_core.tracking.benchmarks import Benchmark, PLAIN
from cgdet_core.tracking.following import follow_sequence, Follower, Run
from cgdet_core.tracking.metrics import compare, Curves, curves_of, Errors, score
from cgdet_core.tracking.pictures import open_target_video
from cgdet_core.tracking.sequences import Entry, Sequence
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Result:
    """
    What was measured of one target.

    errors: of the frames that count; attributes: those of them (N,) that have each attribute.
    fps: frames followed per second, without reading them. with_rgb: see `Run`.
    """

    name: str
    errors: Errors
    curves: Curves
    attributes: dict[str, NDArray[np.bool_]]
    fps: float | None
    with_rgb: bool = False


def evaluate(
    make: Callable[[], Follower], sequences: Iterable[Sequence], benchmark: Benchmark = PLAIN,
    videos: Path | None = None, progress: Callable[[int], None] = lambda frames: None,
    unreadable: Callable[[UserError], None] | None = None,
) -> Iterator[tuple[Sequence, Result | UserError]]:
    """
    Follow the target of each sequence with a new follower, and yield what was measured.

    In place of the result of a sequence that cannot be read or followed, the UserError that
    names it. videos: a folder for a video of each, see `video_of`. unreadable: see
    `follow_sequence`.
    """
    for sequence in sequences:
        found: Result | UserError
        try:
            with ExitStack() as stack:
                show = None if videos is None else stack.enter_context(
                    open_target_video(video_of(videos, sequence.entry), sequence.rate))
                marked = find_attributes(sequence.entry, benchmark, len(sequence.names))
                run = follow_sequence(make(), sequence, show, progress, unreadable)
            found = measure(sequence.entry, run, benchmark, marked)
        except UserError as error:
            found = error
        yield sequence, found


def video_of(folder: Path, entry: Entry) -> Path:
    """Return the video of a target in a folder of videos."""
    return folder / f'{entry.name}.mp4'


def measure(entry: Entry, run: Run, benchmark: Benchmark = PLAIN,
            attributes: Mapping[str, NDArray[np.bool_]] = {}) -> Result:
    """
    Count the frames of a target that was followed; attributes: the frames (N,) that have each.

    Of plain folders, the frames count whose truth has a box with an area; of a benchmark, those
    that have a row, whatever it says.
    """
    counted = run.truths[0].visible if benchmark is PLAIN else run.truths[0].annotated
    errors = compare(run.boxes[counted], [t.boxes[counted] for t in run.truths], benchmark)
    marked = {name: frames[:len(counted)][counted] for name, frames in attributes.items()}
    marked = {name: frames for name, frames in marked.items() if frames.any()}
    return Result(entry.name, errors, curves_of(errors, benchmark), marked, run.fps,
                  run.with_rgb)


def summarize(results: Many[Result], benchmark: Benchmark = PLAIN) -> dict[str, Any]:
    """
    Return the numbers of each sequence, their mean, and those of each attribute.

    The means are at the top level as well, and the mean curves for plots.
    """
    mean = metrics.join([r.curves for r in results], benchmark)
    numbers = _numbers(results, mean, benchmark)
    named = sorted({name for r in results for name in r.attributes})
    return {
        'benchmark': benchmark.title,
        **{k: v for k, v in numbers.items() if k != 'fps'},
        'mean': numbers,
        'sequences': {r.name: _numbers([r], r.curves, benchmark) for r in results},
        'attributes': {name: _of_attribute(results, name, benchmark) for name in named},
        'curves': {'success': mean.success.tolist(), 'precision': mean.precision.tolist(),
                   'normalized_precision': mean.relative.tolist()}}


def _numbers(results: Many[Result], curves: Curves, benchmark: Benchmark) -> dict[str, Any]:
    speeds = [r.fps for r in results if r.fps is not None]
    return {**score(curves, benchmark),
            'fps': round(float(np.mean(speeds)), 1) if speeds else None}


def _of_attribute(results: Many[Result], name: str, benchmark: Benchmark) -> dict[str, Any]:
    """Return the numbers of the frames that have an attribute."""
    curves = [curves_of(r.errors.only(r.attributes[name]), benchmark)
              for r in results if name in r.attributes]
    return {**score(metrics.join(curves, benchmark), benchmark), 'sequences': len(curves)}
