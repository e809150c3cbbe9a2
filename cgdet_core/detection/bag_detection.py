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

"""Detect in the annotated frames of bags, also in parallel with Ray; torch only if needed."""

import atexit
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
import functools
import logging
import os
from pathlib import Path
import shutil
import signal
import tempfile
from typing import Any

from cgdet_core.data.sources import bag_frames, Frame
from cgdet_core.detection.predict import attempt, open_detector
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector, evaluation_threshold
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.signal import CARD
from cgdet_core.runtime.processor import available_cores

# Ray's socket paths are about 70 characters longer than its folder's, and Linux allows 107.
LONGEST_FOLDER = 24
STORE_BYTES = 128 * 2**20  # for detections only; a larger result is written to disk
LOOPBACK = '127.0.0.2'  # Ray replaces 127.0.0.1 by the address in the network
# Set before Ray is imported. Ray must not change CUDA_VISIBLE_DEVICES: workers without their own
# share of a GPU use the one that a single process would. Workers have normal priority.
SETTINGS = {'RAY_USAGE_STATS_ENABLED': '0', 'RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO': '0',
            'RAY_DISABLE_IMPORT_WARNING': '1', 'RAY_worker_niceness': '0'}


@dataclass
class Job:
    """
    A bag to detect in, and the stamps of its annotated frames.

    unit, polarity: of the frames, see `signal.seen`.
    """

    bag: Path
    stamps: frozenset[int]
    topic: str | None = None
    unit: str = CARD
    polarity: str = ''


@dataclass
class BagDetections:
    """
    The detections in a bag, in the order of recording, or the error message.

    This is all that a worker sends back: frames are not sent between processes.
    """

    found: list[tuple[int, Detections]]  # stamp in nanoseconds, scores of at least 0.001
    error: str | None = None
    unknown: int = 0  # frames without annotation
    repeated: int = 0  # frames with annotations and the stamp of an earlier one, not read
    unreadable: list[str] = field(default_factory=list)  # why annotated frames cannot be read


def detect_bag(
    detector: Detector, job: Job, progress: Callable[[int], None] = lambda frames: None,
) -> BagDetections:
    """
    Detect in a bag's annotated frames, each once; an exception becomes the bag's error.

    Frames that cannot be read are left out and named.
    """
    result, seen = BagDetections([]), Counter[int | None]()

    def annotated() -> Iterator[Frame]:
        for frame in bag_frames(job.bag, job.topic):
            seen[frame.stamp_ns] += 1
            if frame.stamp_ns not in job.stamps:
                result.unknown += 1
            elif seen[frame.stamp_ns] == 1:
                yield frame.seen(job.unit, job.polarity, detector.card.polarity)
            else:
                result.repeated += 1

    try:
        for frame, found in attempt(
                detector, annotated(), evaluation_threshold(detector.card)):
            assert frame.stamp_ns is not None
            progress(1)
            if isinstance(found, UserError):
                result.unreadable.append(str(found))
            else:
                result.found.append((frame.stamp_ns, found))
    except Exception as error:  # of storages and sessions; the other bags' results must be kept
        return _failed(job, error)
    if len(seen) == 1 and seen.total() > 1:
        return BagDetections([], f'All {seen.total()} images of {job.bag} have the same stamp; '
                             'the camera driver must set header.stamp.')
    if not result.found:
        return BagDetections([], result.unreadable[0] if result.unreadable else (
            f'No frame of {job.bag} has annotations.'))
    return result


def _failed(job: Job, error: Exception) -> BagDetections:
    reason = ' '.join(str(error).split()).rstrip('.')
    return BagDetections([], str(error) if isinstance(error, UserError) else (
        f'{job.bag}: {type(error).__name__}: {reason}.'))


@functools.lru_cache(maxsize=1)
def _detector(model: Path, threads: int) -> Detector:
    return open_detector(model, 'onnxruntime', threads)


def detect_in_worker(model: Path, threads: int, job: Job) -> BagDetections:
    """Detect in a bag in a worker process; an exception becomes the bag's error."""
    try:
        return detect_bag(_detector(model, threads), job)
    except Exception as error:  # of the session, while it opens the model
        return _failed(job, error)


class RayFailed(UserError):
    """Ray is installed but cannot be started or reached."""


def import_ray() -> Any:
    """Import Ray with its statistics off; UserError if it is missing."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError('Several workers need Ray; install it with "pip install .[parallel]", '
                        'or evaluate with one worker.', 'workers') from None
    return ray


def detect_in_parallel(
    model: Path, jobs: list[tuple[int, Job]], workers: int, address: str | None,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, BagDetections]]:
    """
    Detect in bags in at most `workers` processes; yield (number, result) of each finished bag.

    workers: 0 for one per core. address: of a cluster, on whose machines model and bags have the
    same paths and this package is installed; by default Ray is started here and stopped after the
    last bag. The largest bags are processed first. RayFailed is raised before any result.
    """
    ray = import_ray()
    temporary = None
    try:
        if address is None:
            place = tempfile.gettempdir()
            temporary = Path(tempfile.mkdtemp(
                prefix='ray_', dir=place if len(place) <= LONGEST_FOLDER else '/tmp'))
            cores = available_cores()
            workers = min(workers or cores, len(jobs))
            # Again at exit, as Ray's processes may outlive a failed start.
            atexit.register(shutil.rmtree, temporary, ignore_errors=True)
            _start(ray, num_cpus=workers, include_dashboard=False,
                   object_store_memory=STORE_BYTES, _temp_dir=str(temporary),
                   _node_ip_address=LOOPBACK)
            threads, share = max(1, cores // workers), 1
        else:
            _start(ray, address=address)
            nodes = [n['Resources'].get('CPU', 0) for n in ray.nodes() if n['Alive']]
            of_nodes = [int(n) for n in nodes if int(n)]
            if not of_nodes:
                raise UserError('The Ray cluster has no CPUs.')
            workers = min(workers or sum(of_nodes), len(jobs))
            # A worker fits on the smallest machine.
            share = threads = max(1, min(min(of_nodes), sum(of_nodes) // workers))
        remote = ray.remote(num_cpus=share, max_retries=0)(detect_in_worker)
        yield from _collect(ray, remote, model.resolve(), threads, jobs, workers, progress)
    finally:
        ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _start(ray: Any, **options: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except Exception as error:  # Ray raises its own, those of gRPC, and bare Exception
        where = f' at {options["address"]}' if 'address' in options else ''
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip('.')
        raise RayFailed(f'Ray{where} cannot be {"reached" if where else "started"}: {reason}.'
                        ) from None
    finally:
        # Ray's own handler dumps the stack and does not remove its folder.
        signal.signal(signal.SIGTERM, before)


def _collect(
    ray: Any, remote: Any, model: Path, threads: int, jobs: list[tuple[int, Job]], workers: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, BagDetections]]:
    waiting = sorted(jobs, key=lambda item: len(item[1].stamps))
    running: dict[Any, tuple[int, Job]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            number, job = waiting.pop()
            running[remote.remote(model, threads, job)] = number, job
        # Short waits, so that Ctrl-C is handled.
        for reference in ray.wait(list(running), timeout=1.0)[0]:
            number, job = running.pop(reference)
            try:
                # A copy, as Ray's arrays are read-only views of its store.
                result = deepcopy(ray.get(reference))
            except ray.exceptions.RayError as error:
                result = BagDetections(
                    [], f'The worker that read {job.bag} died ({type(error).__name__}).')
            progress(len(job.stamps))
            yield number, result
