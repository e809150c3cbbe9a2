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

"""Measure once whether ONNX Runtime or OpenVINO runs a file faster on this CPU."""

from contextlib import suppress
import json
import logging
from pathlib import Path
from time import perf_counter

from cgdet_core.runtime.inference.card import ModelCard
from cgdet_core.runtime.inference.onnxruntime import load_onnxruntime, OnnxRuntimeSession
from cgdet_core.runtime.inference.openvino import openvino_version, OpenVinoSession
from cgdet_core.runtime.inference.session import cpu_threads, Session
from cgdet_core.runtime.processor import processor
from cgdet_core.runtime.tensorrt.cache import EngineCache, log_progress, Progress
from cgdet_core.runtime.tensorrt.engine_file import EngineKey
import numpy as np

ONNXRUNTIME, OPENVINO = 'onnxruntime', 'openvino_fp32'  # names of backends
GAIN = 0.9  # OpenVINO is used if it takes at most this share of the time: less may be chance
WARM, RUNS = 2, 7
Times = dict[str, float]  # seconds of a run, by the name of the backend
_log = logging.getLogger(__name__)


def open_faster(model: Path, card: ModelCard, threads: int,
                cache: EngineCache | None = None, progress: Progress | None = None,
                ) -> tuple[Session, str]:
    """
    Open a model in the faster of two sessions on this CPU; also return why, a clause.

    The times are cached, for the file, the processor, the threads and both libraries' versions.
    Both sessions compute in the file's precision. A failure of OpenVINO is logged.
    """
    def default() -> Session:
        return OnnxRuntimeSession(model, card, threads)

    if not openvino_version():
        return default(), 'OpenVINO is not installed'
    if 'CUDAExecutionProvider' in load_onnxruntime().get_available_providers():
        return default(), 'this ONNX Runtime is for GPUs'
    try:
        cache, progress = cache or EngineCache(), progress or log_progress()
        key = comparison_key(card, threads)
        times = recorded(cache, key, model)
        if times and not is_faster(times):
            return default(), _words(times)
        other = OpenVinoSession(model, card, OPENVINO, threads, cache, progress)
        if times:
            return other, _words(times)
        sessions = {ONNXRUNTIME: default(), OPENVINO: other}
        times = _compare(cache, key, model, card, sessions, progress)
    except Exception as error:  # the libraries raise anything
        session = default()  # raises what is wrong with the file, if it is that
        _log.warning('OpenVINO is skipped: %s', str(error) or type(error).__name__)
        return session, 'OpenVINO failed'
    chosen = sessions.pop(OPENVINO if is_faster(times) else ONNXRUNTIME)
    for session in sessions.values():
        session.close()
    return chosen, _words(times)


def comparison_key(card: ModelCard, threads: int) -> EngineKey:
    """Return the key that a comparison is cached with; its targets state the threads."""
    versions = f'onnxruntime {load_onnxruntime().__version__}, openvino {openvino_version()}'
    return EngineKey(
        card.onnx_sha256, 'auto', versions, (f'{cpu_threads(threads)} threads',), processor(),
        card.precision, {name: spec.shape for name, spec in card.inputs.items()},
        kind='comparison')


def recorded(cache: EngineCache, key: EngineKey, model: Path) -> Times | None:
    """Return the cached times; None if there are none, or they cannot be used."""
    for found in cache.matching(key, model):
        with suppress(ValueError, TypeError, KeyError):
            times = {name: float(json.loads(found.payload)[name])
                     for name in (ONNXRUNTIME, OPENVINO)}
            if min(times.values()) > 0:
                cache.mark_used(found.path)
                return times
    return None


def is_faster(times: Times) -> bool:
    """Return whether OpenVINO is faster by more than chance."""
    return times[OPENVINO] <= GAIN * times[ONNXRUNTIME]


def _compare(cache: EngineCache, key: EngineKey, model: Path, card: ModelCard,
             sessions: dict[str, Session], progress: Progress) -> Times:
    """Measure the sessions and cache their times, while no other process measures or builds."""
    with cache.lock(progress) as locked:
        # Another process may have measured them while this one waited.
        times = (recorded(cache, key, model) if locked else None) or measure(sessions, card)
        if locked:
            cache.keep(key, model, json.dumps(times).encode())
    return times


def measure(sessions: dict[str, Session], card: ModelCard) -> Times:
    """Return the shortest of a few runs of each session, in turns, on one row of zeros."""
    inputs = {name: np.zeros([n if isinstance(n, int) else 1 for n in spec.shape], spec.dtype)
              for name, spec in card.inputs.items()}
    times = dict.fromkeys(sessions, float('inf'))
    for number in range(WARM + RUNS):
        for name, session in sessions.items():
            start = perf_counter()
            session.run(inputs)
            if number >= WARM:
                times[name] = min(times[name], perf_counter() - start)
    return times


def _words(times: Times) -> str:
    used, other = (OPENVINO, ONNXRUNTIME) if is_faster(times) else (ONNXRUNTIME, OPENVINO)
    chance = ', which may be chance' if times[other] < times[used] else ''
    return (f'{used} took {times[used] * 1e3:.1f} ms and {other} {times[other] * 1e3:.1f} ms'
            f'{chance}')
