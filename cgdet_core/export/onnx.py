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

"""Write a checkpoint's student as one ONNX file with its model card."""

from dataclasses import replace
import logging
import os
from pathlib import Path
import warnings

from cgdet_core.errors import UserError
from cgdet_core.models.checkpoint import load_student
from cgdet_core.models.student import DeployedStudent
from cgdet_core.runtime.card import card_path, file_sha256, ModelCard, save_card
import torch

OPSET = 18  # read by ONNX Runtime since 1.14 and by TensorRT since 8.6


def export(checkpoint: str | Path, output: str | Path, precision: str = 'fp32') -> ModelCard:
    """
    Export for deployment: normalisation folded, decoding and top-k inside, static shape.

    Input `images` (1, 1, H, W) float32 in [0, 1]; outputs `boxes` (1, K, 4) x1, y1, x2, y2 in
    input pixels and `scores` (1, K, classes). Both files appear whole or not at all.
    """
    output = Path(output)
    if output.suffix.lower() != '.onnx':
        raise UserError(f'The output {output} must end in .onnx.')
    if precision != 'fp32':
        raise UserError(f'Export in {precision} is not built yet; use --precision fp32.')
    student, card = load_student(checkpoint)
    if card.channels != 1:
        raise UserError(f'{checkpoint} looks at RGB pictures; it is a teacher and needs no '
                        'export. Deploy a thermal student.')
    deployed = DeployedStudent(student, card.input_size, card.top_k)
    width, height = card.input_size
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f'.{output.name}.{os.getpid()}.tmp')
    try:
        _write(deployed, torch.zeros(1, card.channels, height, width), temporary)
        card = replace(card, precision=precision, onnx_sha256=file_sha256(temporary))
        # The old card first: a kill between the two leaves no pair that seems to fit.
        card_path(output).unlink(missing_ok=True)
        os.replace(temporary, output)
        save_card(card, output)
    finally:
        temporary.unlink(missing_ok=True)
    return card


def _write(model: DeployedStudent, example: torch.Tensor, path: Path) -> None:
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            model, (example,), str(path), dynamo=True, opset_version=OPSET, verbose=False,
            external_data=False, input_names=['images'], output_names=['boxes', 'scores'])
