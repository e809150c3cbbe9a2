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

"""INT8 calibration: ranges of tensors over real frames, and layers that stay FP32."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import logging
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.io import image_connections, open_bag
from cgdet_core.data.show import evenly
from cgdet_core.data.sources import bag_frames, Frame, read_frames
from cgdet_core.deployment.equalization import between, equalize
from cgdet_core.deployment.precisions import activations, layers, LEVELS, to_int8
from cgdet_core.detection.head import cell_centers, decode_boxes
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.detection.postprocess import iou
from cgdet_core.runtime.inference.session import cpu_threads
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto
import onnxruntime
import torch

SAMPLES = 2048  # values kept per tensor and frame, in addition to the largest
CLIPS = np.linspace(0.1, 1, 46)  # fractions of the largest value to try
JUDGED = 8  # frames per trial
MINIMUM_GAIN = 0.1  # fraction of the difference that leaving out a layer must save
MAXIMUM_LEFT_OUT = 0.1  # fraction of the layers
_log = logging.getLogger(__name__)


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
    if path.suffix.lower() == '.json' and not path.is_dir():
        frames = _pixels(evenly(list(read_frames(path, images, topic=topic)), count))
    else:
        with open_bag(path) as reader:
            total = sum(c.msgcount for c in image_connections(reader, path, topic))
        chosen = set(evenly(range(total), count))
        frames = _pixels(f for i, f in enumerate(bag_frames(path, topic)) if i in chosen)
    if not frames:
        raise UserError(f'{path} has no frames to calibrate with.')
    return CalibrationFrames(path.name, frames)


def _pixels(frames: Iterable[Frame]) -> list[NDArray[Any]]:
    """Return the pixels of the frames that can be read."""
    found = []
    for frame in frames:
        try:
            found.append(frame.pixels.copy())
        except UserError as error:
            _log.warning('%s The frame is left out.', error)
    return found


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
    shown = ModelProto.FromString(model.SerializeToString())
    known = {o.name for o in shown.graph.output} | {i.name for i in shown.graph.input}
    shown.graph.output.extend(ValueInfoProto(name=name) for name in outputs if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = cpu_threads(0)
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
    found = {'minmax': largest,
             'percentile': {n: float(np.percentile(s, 99.99)) for n, s in samples.items()},
             'mse': {n: best_limit(s, largest[n]) for n, s in samples.items()}}
    # A tensor that is always 0 also needs a scale.
    return {method: {n: v or 1.0 for n, v in limits.items()} for method, limits in found.items()}


def magnitudes(
    model: ModelProto, names: Sequence[str], inputs: Iterable[NDArray[np.float32]],
) -> dict[str, NDArray[np.float32]]:
    """Return the largest magnitude (C,) of each channel of tensors (1, C, H, W)."""
    if not names:  # which ONNX Runtime takes for all outputs
        return {}
    session = open_session(model, names)
    entry = session.get_inputs()[0].name
    found = [[np.abs(array).max((0, 2, 3)) for array in session.run(names, {entry: images})]
             for images in inputs]
    return {name: np.max(arrays, 0) for name, *arrays in zip(names, *found)}


def best_limit(values: NDArray[np.float32], largest: float) -> float:
    """Return the limit, at most `largest`, with the smallest error of rounding and clipping."""
    values = values[:: 1 + len(values) // 50_000]
    steps = CLIPS * largest / LEVELS
    errors = [np.square(np.minimum(np.rint(values / s), LEVELS) * s - values).mean()
              for s in steps] if largest > 0 else [0.0]
    return float(CLIPS[int(np.argmin(errors))] * largest)


def quantize(
    model: ModelProto, detector: Detector, calibration: CalibrationFrames,
) -> tuple[ModelProto, dict[str, Any]]:
    """
    Quantize an exported FP32 graph with the smallest change in its detections; return a record.

    Channels are equalized first. The calibration method with the smallest difference from FP32 is
    used. Then each layer is tried in FP32, and the layers with the greatest effect are left out
    one after the other while each saves at least a tenth of the difference, up to a tenth of the
    layers.
    """
    model = equalize(model, magnitudes(
        model, between(model), network_inputs(detector, calibration)))
    found = ranges(model, activations(model), network_inputs(detector, calibration))
    judge = Judge(model, detector, calibration)
    by_method = {name: judge.difference(to_int8(model, limits)) for name, limits in found.items()}
    method = min(by_method, key=lambda name: by_method[name])
    left_out, difference = _leave_out(model, found[method], judge, by_method[method])
    return to_int8(model, found[method], left_out), {
        'source': calibration.source, 'frames': len(calibration.frames), 'method': method,
        'difference_by_method': {n: round(v, 4) for n, v in by_method.items()},
        'left_out': left_out, 'difference': round(difference, 4)}


def _leave_out(
    model: ModelProto, limits: Mapping[str, float], judge: 'Judge', everything: float,
) -> tuple[list[str], float]:
    names = layers(model)
    alone = {name: judge.difference(to_int8(model, limits, [name])) for name in names}
    left_out: list[str] = []
    difference = everything
    for name in sorted(names, key=lambda n: alone[n])[:int(MAXIMUM_LEFT_OUT * len(names))]:
        now = alone[name] if not left_out else judge.difference(
            to_int8(model, limits, [*left_out, name]))
        if difference - now < MINIMUM_GAIN * everything:
            break
        left_out.append(name)
        difference = now
    return left_out, difference


class Judge:
    """
    Compare models with the FP32 one on a few frames.

    The difference is the mean over the FP32 model's best cells, weighted with their scores, of
    the change of score plus 1 - IoU of the boxes: 0 for equal detections, at most 2. Models
    run in the int8 arithmetic of the file, which is that of TensorRT.
    """

    def __init__(
        self, model: ModelProto, detector: Detector, calibration: CalibrationFrames,
    ) -> None:
        # The deployed graph gathers the best cells of these two, logits and box distributions.
        self._cells = [n.input[0] for n in model.graph.node if n.op_type == 'GatherElements']
        if len(self._cells) != 2:
            raise UserError('The ONNX file was not written by "cgdet export"; use a '
                            'checkpoint or its FP32 file.')
        self._centers = cell_centers(*detector.card.input_size[::-1], torch.device('cpu'))
        self._top_k = detector.card.top_k
        self._inputs = [i.copy() for i in network_inputs(detector, calibration, JUDGED)]
        self._truth = list(self._run(model))

    def difference(self, model: ModelProto) -> float:
        differences = []
        for (scores, boxes), (other_scores, other_boxes) in zip(self._truth, self._run(model)):
            best = np.argsort(-scores.max(1))[:self._top_k]
            change = np.abs(other_scores[best] - scores[best]).max(1)
            moved = 1 - iou(boxes[best], other_boxes[best]).diagonal()
            differences.append(np.average(change + moved, weights=scores[best].max(1)))
        return float(np.mean(differences))

    def _run(self, model: ModelProto) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Yield scores (A, classes) and boxes (A, 4) of all cells for each frame."""
        session = open_session(model, self._cells)
        for images in self._inputs:
            logits, distributions = map(
                torch.from_numpy, session.run(self._cells, {'images': images}))
            yield (logits.sigmoid()[0].numpy(),
                   decode_boxes(distributions, *self._centers)[0].numpy())
