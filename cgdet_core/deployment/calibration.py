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

"""INT8 calibration: real frames, and the range of every tensor over them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.io import image_connections, open_bag
from cgdet_core.data.show import evenly
from cgdet_core.data.sources import bag_frames, read_frames
from cgdet_core.deployment.int8 import LEVELS
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto
import onnxruntime

SAMPLES = 2048  # values kept per tensor and frame, in addition to the largest
CLIPS = np.linspace(0.1, 1, 46)  # fractions of the largest value to try


@dataclass(frozen=True)
class CalibrationFrames:
    """Raw frames, evenly spaced over a set; `source` is the name of the set's file."""

    source: str
    frames: list[NDArray[Any]]


def load_frames(
    path: str | Path, count: int, images: str | Path | None = None, topic: str | None = None,
) -> CalibrationFrames:
    """
    Read up to `count` evenly spaced frames of a COCO file (.json) or a bag.

    images: folder of the COCO file's images. topic: the bag's image topic, if it has several.
    UserError if there are no frames.
    """
    path = Path(path)
    if path.suffix.lower() == '.json':
        frames = [f.pixels for f in evenly(list(read_frames(path, images)), count)]
    else:
        with open_bag(path) as reader:
            total = sum(c.msgcount for c in image_connections(reader, path, topic))
        chosen = set(evenly(range(total), count))
        frames = [f.pixels.copy() for i, f in enumerate(bag_frames(path, topic)) if i in chosen]
    if not frames:
        raise UserError(f'{path} has no frames to calibrate with.')
    return CalibrationFrames(path.name, frames)


def network_inputs(
    detector: Detector, calibration: CalibrationFrames, maximum: int | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield network inputs (1, 1, H, W): of all frames, or of `maximum` evenly spaced ones."""
    frames = calibration.frames
    for frame in frames if maximum is None else evenly(frames, maximum):
        try:
            detector.preprocess(frame)
        except ValueError as error:
            raise UserError(f'A frame of {calibration.source} cannot be used: {error}.') from None
        yield detector.input


def open_session(model: ModelProto, outputs: Iterable[str]) -> onnxruntime.InferenceSession:
    """
    Open a model in ONNX Runtime with inner tensors as additional outputs.

    Quantized values are computed in FP32: the results are those of int8 kernels, also of
    TensorRT's, and single trials are faster than with the int8 kernels of ONNX Runtime.
    """
    shown = ModelProto()
    shown.CopyFrom(model)
    known = {o.name for o in shown.graph.output} | {i.name for i in shown.graph.input}
    shown.graph.output.extend(ValueInfoProto(name=name) for name in outputs if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry('session.disable_quant_qdq', '1')
    return onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=['CPUExecutionProvider'])


def ranges(
    model: ModelProto, names: list[str], inputs: Iterator[NDArray[np.float32]],
) -> dict[str, dict[str, float]]:
    """
    Return, for each method, the largest magnitude that each named tensor keeps.

    minmax keeps all values, percentile clips 0.01 % of them, and mse minimizes the square error
    after rounding. Samples are drawn with a fixed seed.
    """
    session = open_session(model, names)
    entry = session.get_inputs()[0].name
    inner = [name for name in names if name != entry]
    rng = np.random.default_rng(0)
    largest = dict.fromkeys(names, 0.0)
    kept: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for images in inputs:
        for name, array in zip([entry, *inner], [images, *session.run(inner, {entry: images})]):
            if name in largest:
                values = np.abs(array).ravel()
                largest[name] = max(largest[name], float(values.max()))
                kept[name].append(values[rng.integers(0, len(values), SAMPLES)])
    samples = {name: np.concatenate(arrays) for name, arrays in kept.items()}
    found = {
        'minmax': largest,
        'percentile': {n: float(np.percentile(s, 99.99)) for n, s in samples.items()},
        'mse': {n: best_limit(s, largest[n]) for n, s in samples.items()},
    }
    # A tensor that is always 0 also needs a scale.
    return {method: {n: v or 1.0 for n, v in limits.items()} for method, limits in found.items()}


def best_limit(values: NDArray[np.float32], largest: float) -> float:
    """Return the limit, at most `largest`, with the smallest error of rounding and clipping."""
    values = values[:: 1 + len(values) // 50_000]
    steps = CLIPS * largest / LEVELS
    errors = [np.square(np.minimum(np.rint(values / s), LEVELS) * s - values).mean()
              for s in steps] if largest > 0 else [0.0]
    return float(CLIPS[int(np.argmin(errors))] * largest)
