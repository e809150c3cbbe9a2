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

"""Detect in the annotated frames of bags; requires torch only for checkpoints."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import functools
import glob
import os
from pathlib import Path

from cgdet_core.data.sources import bag_frames, Frame
from cgdet_core.detection.predict import detect, open_detector
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector, EVALUATION_THRESHOLD
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.frames import is_bag


@dataclass
class Job:
    """A bag to detect in, and the stamps of its annotated frames."""

    bag: Path
    stamps: frozenset[int]
    topic: str | None = None


@dataclass
class BagDetections:
    """
    The detections in a bag, in the order of recording, or the error message.

    This is all that a worker sends back: frames are not sent between processes.
    """

    found: list[tuple[int, Detections]]  # stamp in nanoseconds, scores of at least 0.001
    unknown: int = 0  # frames without annotation
    error: str | None = None


def find_bags(sources: Sequence[str]) -> list[Path]:
    """
    Find bags by paths, folders that contain bags at any depth, and shell patterns.

    Every bag is returned once, in the order of the sources, then of names. A source without any
    bag is returned unchanged: opening it raises the error.
    """
    found: dict[str, Path] = {}
    for source in sources:
        paths = [Path(source)]
        if glob.has_magic(source) and not paths[0].exists():
            paths = [Path(p) for p in sorted(glob.glob(source, recursive=True))]
        for path in [b for p in paths for b in _bags_in(p, set())] or [Path(source)]:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _bags_in(path: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(path)  # links may form a loop
    if real in seen:
        return
    seen.add(real)
    if is_bag(path):
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if not inner.name.startswith('.'):
                yield from _bags_in(inner, seen)


def detect_bag(
    detector: Detector, job: Job, progress: Callable[[int], None] = lambda frames: None,
) -> BagDetections:
    """Detect in a bag's annotated frames, each once; an exception becomes the bag's error."""
    result = BagDetections([])

    def annotated() -> Iterator[Frame]:
        left = set(job.stamps)
        for frame in bag_frames(job.bag, job.topic):
            if frame.stamp_ns in left:
                left.remove(frame.stamp_ns)
                yield frame
            elif frame.stamp_ns not in job.stamps:
                result.unknown += 1

    try:
        for frame, found in detect(detector, annotated(), EVALUATION_THRESHOLD):
            assert frame.stamp_ns is not None
            result.found.append((frame.stamp_ns, found))
            progress(1)
    except Exception as error:  # of storages and sessions; the other bags' results must be kept
        return _failed(job, error)
    if not result.found:
        return BagDetections([], error=f'No frame of {job.bag} has annotations.')
    return result


def _failed(job: Job, error: Exception) -> BagDetections:
    reason = ' '.join(str(error).split()).rstrip('.')
    return BagDetections([], error=str(error) if isinstance(error, UserError) else (
        f'{job.bag}: {type(error).__name__}: {reason}.'))


@functools.lru_cache(maxsize=1)
def _detector(model: Path, threads: int) -> Detector:
    """Open a worker's detector, once for all its bags."""
    return open_detector(model, threads=threads)


def detect_in_worker(model: Path, threads: int, job: Job) -> BagDetections:
    """Detect in a bag in a worker process; an exception becomes the bag's error."""
    try:
        return detect_bag(_detector(model, threads), job)
    except Exception as error:  # of the session, while it opens the model
        return _failed(job, error)
