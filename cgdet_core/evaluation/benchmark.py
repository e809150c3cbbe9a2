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
Time a model on this machine's CPU: `python -m cgdet_core.evaluation.benchmark MODEL.onnx`.

Milliseconds depend on the machine, so a plain stack of 3x3 convolutions is timed before and
after: the ratio of the times per GFLOP says how well the model uses the machine. Not
interleaved: the waiting threads of one ONNX Runtime session would slow the other down.
"""

import argparse
import json
import os
from pathlib import Path
import platform
from time import perf_counter
from typing import Any

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.runtime import Detector, load_card
import numpy as np
import onnx
from onnx import helper, numpy_helper
import onnxruntime

PLAIN_LAYERS, PLAIN_CHANNELS, PLAIN_SIZE = 4, 64, (128, 160)


def plain_convolutions() -> tuple[bytes, float]:
    """Give an ONNX of 3x3 convolutions with ReLU, 64 channels at 160x128, and its GFLOPs."""
    rng = np.random.default_rng(0)
    shape = [1, PLAIN_CHANNELS, *PLAIN_SIZE]
    nodes, weights, name = [], [], 'x0'
    for i in range(PLAIN_LAYERS):
        kernel = rng.normal(0, 0.04, (PLAIN_CHANNELS, PLAIN_CHANNELS, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f'w{i}'))
        nodes.append(helper.make_node('Conv', [name, f'w{i}'], [f'c{i}'], pads=[1, 1, 1, 1]))
        name = f'x{i + 1}'
        nodes.append(helper.make_node('Relu', [f'c{i}'], [name]))
    graph = helper.make_graph(
        nodes, 'plain', [helper.make_tensor_value_info('x0', onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    gflops = 2e-9 * PLAIN_LAYERS * PLAIN_CHANNELS ** 2 * 9 * PLAIN_SIZE[0] * PLAIN_SIZE[1]
    return model.SerializeToString(), gflops


def benchmark(model: str | Path, frames: int = 200, threads: int = 0) -> dict[str, Any]:
    """Give percentiles in milliseconds of `frames` 16-bit frames, and the plain stack's."""
    threads = threads or len(os.sched_getaffinity(0))
    card = load_card(model)
    width, height = card.input_size
    raw = [to_counts(Scene.random(i, width, height).render()[0]) for i in range(8)]
    content, plain_gflops = plain_convolutions()
    plain = _time_plain(content, frames // 2, threads)
    detector = Detector.load(model, threads)
    rows = []
    for i in range(frames + 10):
        start = perf_counter()
        detector.detect(raw[i % len(raw)])
        times = detector.last_timings
        rows.append((perf_counter() - start, times.pre, times.infer, times.post))
    backend = detector.backend.describe()
    del detector
    plain += _time_plain(content, frames // 2, threads)
    columns = dict(zip(('end to end', 'pre', 'infer', 'post'), np.array(rows[10:]).T))
    columns['plain convolutions'] = np.array(plain)
    report: dict[str, Any] = {}
    for name, seconds in columns.items():
        p50, p95 = np.percentile(seconds * 1e3, (50, 95))
        report[f'{name} ms'] = {'p50': round(float(p50), 2), 'p95': round(float(p95), 2)}
    per_gflop = report['infer ms']['p50'] / card.gflops
    plain_per_gflop = report['plain convolutions ms']['p50'] / plain_gflops
    return {
        'model': card.name, 'input': f'{width}x{height}, 16-bit',
        'gflops': card.gflops, 'parameters': card.parameters,
        'backend': backend, 'threads': threads,
        'machine': f'{platform.machine()}, {_processor()}', 'frames': frames, **report,
        'ms per GFLOP': round(per_gflop, 2), 'plain ms per GFLOP': round(plain_per_gflop, 2),
        'ratio to plain convolutions': round(per_gflop / plain_per_gflop, 2),
        'end to end / infer': round(
            report['end to end ms']['p50'] / report['infer ms']['p50'], 3)}


def _time_plain(content: bytes, runs: int, threads: int) -> list[float]:
    """Time runs of the plain stack in a session of its own, in seconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    images = np.random.default_rng(0).normal(
        size=(1, PLAIN_CHANNELS, *PLAIN_SIZE)).astype(np.float32)
    times = []
    for _ in range(runs + 10):
        start = perf_counter()
        session.run(None, {'x0': images})
        times.append(perf_counter() - start)
    return times[10:]


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return 'unknown processor'
    return next((x.split(':', 1)[1].strip() for x in lines if x.startswith('model name')),
                'unknown processor')


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model')
    parser.add_argument('--frames', type=int, default=200)
    parser.add_argument('--threads', type=int, default=0, help='0: all cores of this process')
    options = parser.parse_args()
    print(json.dumps(benchmark(options.model, options.frames, options.threads), indent=2))


if __name__ == '__main__':
    main()
