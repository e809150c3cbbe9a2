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
Measure how lost targets are found: `python -m cgdet_core.experiments.refinding MODEL.onnx`.

In synthetic traffic a target is followed, hidden for two seconds and shown again where it is then.
An event counts as found if the tracker tracks it again within a second, and as false if it tracks
something else at any time from the hiding on, or still the place where it was 0.3 s after that.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
import json
from typing import Any, NamedTuple

from cgdet_core.data.synthetic import record, Scene, SceneFrame
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector, finder
from cgdet_core.runtime.files import model_file
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.search import Detect
from cgdet_core.runtime.tracking.target import State
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_core.tracking.overlap import overlap_and_error
import numpy as np
from numpy.typing import NDArray

RATE = 10.0  # Hz
SEEN_S, HIDDEN_S, AFTER_S = 1.5, 2.0, 1.0
NOTICE_S = 0.3  # in which a tracker may notice that its target is hidden
SMALLEST = 16.0  # pixels, root of the area of a target
ON, OFF = 0.3, 0.1  # overlaps from which a box is on the target, and below which on another
PER_SCENE = 4  # events

Frames = list[tuple[SceneFrame, NDArray[np.uint16]]]


class Event(NamedTuple):
    """What became of a hidden target; seconds from its return until it was tracked, or None."""

    found: float | None
    false: bool


def measure(model: TrackingModel, detect: Detect | None, events: int,
            seed: int) -> dict[str, Any]:
    """Return the share of targets that are found again within a second, and of false ones."""
    found = [*islice(_events(model, detect, seed), events)]
    again = [e.found for e in found if e.found is not None and not e.false]
    return {'events': len(found), 'found_within_1_s': len(again) / len(found),
            'false': sum(e.false for e in found) / len(found),
            'median_seconds': float(np.median(again)) if again else None}


def _events(model: TrackingModel, detect: Detect | None, seed: int) -> Iterator[Event]:
    while True:
        frames = draw(seed)
        for track in targets(frames)[:PER_SCENE]:
            yield follow(Tracker(model, detect), frames, track)
        seed += 1


def draw(seed: int) -> Frames:
    """Return the frames of a scene, as its camera records them."""
    # Scenes of training have other seeds: those are drawn from a SeedSequence.
    scene = Scene.traffic(900_000 + seed)
    start = float(np.random.default_rng(seed).uniform(1, 12))
    count = round((SEEN_S + HIDDEN_S + AFTER_S) * RATE)
    times = (start + n / RATE for n in range(count))
    return [(frame, counts) for frame, counts, _ in record(map(scene.frame, times), seed)]


def targets(frames: Frames) -> list[int]:
    """Return the track ids of objects that are seen well in all frames."""
    seen = []
    for frame, _ in frames:
        size = frame.boxes[:, 2:] - frame.boxes[:, :2]
        good = (frame.visible > 0.7) & (size.prod(1) > SMALLEST ** 2)
        seen.append(set(frame.track_ids[good].tolist()))
    return sorted(set.intersection(*seen))


def follow(tracker: Tracker, frames: Frames, track: int) -> Event:
    """Return what becomes of a target that is hidden."""
    first = frames[0][0].stamp
    back = first + SEEN_S + HIDDEN_S
    found, false = None, False
    for number, (frame, counts) in enumerate(frames):
        row = int(np.flatnonzero(frame.track_ids == track)[0])
        box, stamp = frame.boxes[row].astype(np.float64), frame.stamp
        hidden = first + SEEN_S <= stamp < back - 1e-6
        image = hide(counts, box) if hidden else counts
        if number == 0:
            tracker.start(image, box, stamp, int(frame.labels[row]))
            continue
        target = tracker.follow(image, stamp)
        if target.state is not State.TRACKED or stamp < first + SEEN_S:
            continue
        overlap, _ = overlap_and_error(target.box.astype(np.float64), box)
        if not hidden and overlap > ON and found is None:
            found = stamp - back
        false = false or overlap < OFF or hidden and stamp >= first + SEEN_S + NOTICE_S
    return Event(found, false)


def hide(frame: NDArray[np.uint16], box: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return a frame without what is in a box: its rows continue from left to right."""
    height, width = frame.shape
    margin = 0.15 * (box[2:] - box[:2]) + 2
    x1, y1 = np.maximum(box[:2] - margin, 0).astype(int)
    x2, y2 = np.minimum(box[2:] + margin, (width, height)).astype(int)
    left, right = (frame[y1:y2, max(0, a):b].astype(np.float64).mean(1, keepdims=True)
                   if b > max(0, a) else None for a, b in ((x1 - 6, x1), (x2, min(x2 + 6, width))))
    left = right if left is None else left
    right = left if right is None else right
    if left is None or right is None:
        return frame
    share = np.linspace(0, 1, x2 - x1)
    hidden = frame.copy()
    noise = np.random.default_rng(int(x1)).normal(0, 2, (y2 - y1, x2 - x1))
    hidden[y1:y2, x1:x2] = np.clip((1 - share) * left + share * right + noise, 0, 65535)
    return hidden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', type=model_file)
    parser.add_argument('--detector', type=model_file,
                        help='ONNX file of classes person, bicycle, car')
    parser.add_argument('--events', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    try:
        detect = finder(Detector.load(options.detector)) if options.detector else None
        model = TrackingModel.load(options.model)
        print(json.dumps(measure(model, detect, options.events, options.seed), indent=2))
    except UserError as error:
        parser.exit(1, f'{error}\n')


if __name__ == '__main__':
    main()
