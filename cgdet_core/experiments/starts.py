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

"""
Measure a tracker from many starts: `python -m cgdet_core.experiments.starts MODEL.onnx FOLDER...`.

A target may be lost by chance from one start. Here each is followed from its first frame and from
those after a quarter, a half and three quarters of its sequence, forward and backward, similar to
the temporal robustness evaluation of OTB (Wu et al., 2013), which has 20 starts, forward. With
--boxes, it is followed from the first frame only, from each box of OTB's spatial evaluation: the
true one, moved or scaled. RGB-T trackers follow in thermal alone.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
import json
from pathlib import Path

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import model_file
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_core.tracking.benchmarks import PLAIN
from cgdet_core.tracking.evaluation import measure
from cgdet_core.tracking.following import follow_sequence
from cgdet_core.tracking.metrics import score
from cgdet_core.tracking.sequences import find_sequences, named_apart, open_sequence, Sequence
import numpy as np

SHARES = 0.0, 0.25, 0.5, 0.75
# First boxes: moved by shares of their width and height (x, y), and scaled.
DRAWN = [(x / 10, y / 10, 1.0) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y] + [
    (0.0, 0.0, scale) for scale in (0.8, 0.9, 1.1, 1.2)]


def parts(sequence: Sequence) -> Iterator[Sequence]:
    """Yield a sequence from each start to its end, and the same of the reversed one."""
    frames = list(sequence.source.frames)
    for step in (1, -1):
        for share in SHARES:
            kept = range(len(frames))[::step][int(share * len(frames)):]
            yield replace(
                sequence, source=replace(sequence.source, frames=(frames[i] for i in kept)),
                names=[sequence.names[i] for i in kept],
                truths=tuple(t._replace(boxes=t.boxes[kept], annotated=t.annotated[kept])
                             for t in sequence.truths))


def drawn(sequence: Sequence) -> Iterator[Sequence]:
    """Yield a sequence with each of DRAWN in place of its first box."""
    frames = list(sequence.source.frames)
    for x, y, scale in DRAWN:
        truths = []
        for truth in sequence.truths:
            boxes = truth.boxes.copy()
            first = boxes[truth.visible.argmax()]  # x, y, w, h
            first[:2] += first[2:] * (np.array([x, y]) + (1 - scale) / 2)
            first[2:] *= scale
            truths.append(truth._replace(boxes=boxes))
        yield replace(sequence, truths=tuple(truths),
                      source=replace(sequence.source, frames=iter(frames)))


def areas(model: TrackingModel, variants: Iterable[Sequence]) -> list[float]:
    """Return the success AUC of each variant of a sequence that has two boxes or more."""
    found = []
    for variant in variants:
        if variant.truths[0].visible.sum() > 1:
            run = follow_sequence(Tracker(model), variant)
            found.append(score(measure(variant.entry, run).curves, PLAIN)['success_auc'])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', type=model_file)
    parser.add_argument('folders', type=Path, nargs='+', help='of sequences')
    parser.add_argument('--rate', type=float, default=0.0,
                        help="frames per second; 0: a video's own, or 25")
    parser.add_argument('--boxes', action='store_true',
                        help='start from 12 boxes, moved by a tenth or scaled by 0.8 to 1.2')
    options = parser.parse_args()
    variants = drawn if options.boxes else parts
    try:
        model = TrackingModel.load(options.model)
        entries = named_apart([e for folder in options.folders for e in find_sequences(folder)])
        report = {entry.name: areas(model, variants(open_sequence(entry, rate=options.rate)))
                  for entry in entries}
    except UserError as error:
        parser.exit(1, f'{error}\n')
    means = {name: float(np.mean(values)) for name, values in report.items()}
    print(json.dumps({'mean': float(np.mean([*means.values()])), 'means': means,
                      'success_auc': report}, indent=2))


if __name__ == '__main__':
    main()
