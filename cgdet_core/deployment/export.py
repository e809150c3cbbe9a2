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

"""Export a checkpoint's network to one ONNX file with its model card, in FP32, FP16 or INT8."""

from dataclasses import replace
import logging
from pathlib import Path
import shutil
import warnings

from cgdet_core.deployment.calibration import CalibrationFrames, quantize
from cgdet_core.deployment.networks import card_of, deployed, try_out
from cgdet_core.deployment.precisions import to_half
from cgdet_core.errors import UserError
from cgdet_core.nets.exported import keep_names
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.files import together
from cgdet_core.runtime.inference import card as cards
from cgdet_core.runtime.inference.onnxruntime import OnnxRuntimeSession
from cgdet_core.runtime.inference.session import OPEN_BATCH
import onnx
import torch

OPSET = 18  # read by ONNX Runtime since 1.14 and by TensorRT since 8.6


def export(
    source: str | Path, output: str | Path, precision: str = 'fp32',
    calibration: CalibrationFrames | None = None, dynamic_batch: bool = False,
) -> cards.ModelCard:
    """
    Export for deployment: batch normalization folded, top-k and decoding in the graph.

    source: a checkpoint, or its FP32 ONNX file, which keeps its batch size. A detector's input is
    `images` (N, 1, H, W) float32 in [0, 1], its outputs `boxes` (N, K, 4) x1, y1, x2, y2 in input
    pixels and `scores` (N, K, classes), float32 in every precision; those of a tracker are in
    `runtime.tracking.card`. N is 1 unless dynamic_batch. int8 needs `calibration`. Both files are
    written completely or not at all.
    """
    source, output = Path(source), Path(output)
    check_request(source, output, precision, calibration is not None, dynamic_batch)
    kind = card_of(source) if precision == 'int8' else DetectionCard
    if kind is not DetectionCard:
        raise UserError(f'{source} is a {kind.TASK} model, which is exported in fp32 and fp16 '
                        'only.')
    files = (output.name, cards.card_path(output).name)
    with together(output, files) as folder:
        temporary = folder / output.name
        card = _write_fp32(source, temporary, dynamic_batch)
        if precision != 'fp32':
            card = replace(card, accuracy={})  # which is FP32's
            model = onnx.load(temporary)
            if calibration is None:
                model = to_half(model)
            else:
                assert isinstance(card, DetectionCard)
                detector = Detector(card, OnnxRuntimeSession(temporary, card))
                model, record = quantize(model, detector, calibration)
                card = replace(card, training={**card.training, 'calibration': record})
            onnx.save(model, temporary)
        try_out(card, OnnxRuntimeSession(temporary, card), output)
        card = replace(card, precision=precision, onnx_sha256=cards.file_sha256(temporary))
        cards.save_card(card, temporary)
    return card


def check_request(
    source: Path, output: Path, precision: str, calibrated: bool, dynamic_batch: bool,
) -> None:
    """Raise UserError for a request that cannot be exported, before anything is read."""
    if output.suffix.lower() != '.onnx':
        raise UserError(f'The output {output} must end in .onnx.')
    if precision not in cards.PRECISIONS:
        raise UserError(
            f'The precision {precision!r} is not one of {", ".join(cards.PRECISIONS)}.')
    if (precision == 'int8') != calibrated:
        raise UserError('int8 requires real thermal frames for calibration, a COCO file or a bag.'
                        if not calibrated else
                        f'Calibration frames are only for int8, not for {precision}.',
                        'calibration')
    if source.suffix.lower() == '.onnx':
        if source.resolve() == output.resolve():
            raise UserError(f'The output {output} is the source itself; choose another name.')
        if dynamic_batch:
            raise UserError('An ONNX file keeps its batch size; export the checkpoint for a '
                            'dynamic one.', 'dynamic_batch')


def _write_fp32(source: Path, path: Path, dynamic_batch: bool) -> cards.ModelCard:
    if source.suffix.lower() == '.onnx':
        held = cards.load_card(source, card_of(source))
        if held.precision != 'fp32':
            raise UserError(f'{source} is already in {held.precision}; '
                            'export the checkpoint or the FP32 file.')
        shutil.copyfile(source, path)
        return held
    network, card, trunk = deployed(source)
    # The example has a batch of 2, as 1 would be taken as fixed.
    inputs = card.with_batch(2 if dynamic_batch else 1).inputs
    example = tuple(torch.zeros([int(n) for n in spec.shape]) for spec in inputs.values())
    batch = torch.export.Dim('batch', min=1, max=OPEN_BATCH)
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            torch.onnx.export(
                network, example, str(path),
                dynamo=True, opset_version=OPSET, verbose=False, external_data=False,
                input_names=[*card.inputs], output_names=[*card.outputs],
                dynamic_shapes=tuple({0: batch} for _ in example) if dynamic_batch else None)
        except torch.onnx.OnnxExporterError as error:
            raise UserError(
                f'ONNX cannot hold the trunk {trunk} of {source}: '
                f'{type(error).__name__}. Train with another model.trunk.') from error
    model = onnx.load(path)
    keep_names(model, network)
    onnx.save(model, path)
    return card if dynamic_batch else card.with_batch(1)
