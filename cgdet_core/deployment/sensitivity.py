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

"""Choice of INT8 ranges and FP32 layers by the change in the detections."""

from collections.abc import Iterator, Mapping
from typing import Any

from cgdet_core.deployment.calibration import (
    CalibrationFrames,
    network_inputs,
    open_session,
    ranges,
)
from cgdet_core.deployment.int8 import activations, layers, to_int8
from cgdet_core.detection.analysis import overlaps
from cgdet_core.detection.head import cell_centers, decode_boxes
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
import torch

JUDGED = 8  # frames per trial
MINIMUM_GAIN = 0.1  # fraction of the difference that leaving out a layer must save
MAXIMUM_LEFT_OUT = 0.1  # fraction of the layers


def quantize(
    model: ModelProto, detector: Detector, calibration: CalibrationFrames,
) -> tuple[ModelProto, dict[str, Any]]:
    """
    Quantize an exported FP32 graph with the smallest change in its detections; return a record.

    The calibration method with the smallest difference from FP32 is used. Then each layer is
    tried in FP32, and the layers with the greatest effect are left out one after the other while
    each saves at least a tenth of the difference, up to a tenth of the layers.
    """
    found = ranges(model, activations(model), network_inputs(detector, calibration))
    judge = Judge(model, detector, calibration)
    by_method = {name: judge.difference(to_int8(model, limits))
                 for name, limits in found.items()}
    method = min(by_method, key=lambda name: by_method[name])
    everything = by_method[method]
    left_out, difference = _leave_out(model, found[method], judge, everything)
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
        width, height = detector.card.input_size
        self._centers = cell_centers(height, width, torch.device('cpu'))
        self._top_k = detector.card.top_k
        self._inputs = [i.copy() for i in network_inputs(detector, calibration, JUDGED)]
        self._truth = list(self._run(model))

    def difference(self, model: ModelProto) -> float:
        """Return the mean difference of a model's detections."""
        return float(np.mean([
            self._differ(*truth, *found) for truth, found in zip(self._truth, self._run(model))]))

    def _run(
        self, model: ModelProto,
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        session = open_session(model, self._cells)
        for images in self._inputs:
            logits, distributions = map(
                torch.from_numpy, session.run(self._cells, {'images': images}))
            yield (logits.sigmoid()[0].numpy(),
                   decode_boxes(distributions, *self._centers)[0].numpy())

    def _differ(
        self, scores: NDArray[np.float32], boxes: NDArray[np.float32],
        other_scores: NDArray[np.float32], other_boxes: NDArray[np.float32],
    ) -> float:
        best = np.argsort(-scores.max(1))[:self._top_k]
        change = np.abs(other_scores[best] - scores[best]).max(1)
        moved = 1 - overlaps(boxes[best], other_boxes[best]).diagonal()
        return float(np.average(change + moved, weights=scores[best].max(1)))
