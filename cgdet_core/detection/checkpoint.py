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

"""Checkpoints of a student, and detectors that run them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgdet_core.detection.student import DeployedStudent, Student, StudentConfig
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.inference.card import ModelCard, read_card
from cgdet_core.runtime.inference.session import OPEN_BATCH
from cgdet_core.training.checkpoints import fits, KEY, read_checkpoint, student_weights
from numpy.typing import NDArray
import torch
from torch import nn


def load_student(path: str | Path) -> tuple[Student, DetectionCard]:
    """Build the student of a checkpoint, with its averaged weights, and its card."""
    data = read_checkpoint(path)
    card = read_card(data[KEY].get('card'), DetectionCard, path)
    with fits(path):
        student = Student(len(card.classes), StudentConfig.model_validate(data[KEY]['model']))
        student.load_state_dict(student_weights(data))
    return student.eval(), card


class TorchSession:
    """Run a network in PyTorch, for evaluation during and after training."""

    max_batch = OPEN_BATCH

    def __init__(self, model: nn.Module, card: ModelCard) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card = card
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def run(
        self, inputs: Mapping[str, NDArray[Any]], out: dict[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        arguments = (torch.from_numpy(inputs[name]).to(self.device) for name in self.card.inputs)
        # Full precision, even if a validation runs inside a trainer's autocast.
        with torch.autocast(self.device.type, enabled=False):
            found = dict(zip(self.card.outputs, self.model(*arguments)))
        if out is None:
            return {name: tensor.cpu().numpy() for name, tensor in found.items()}
        for name, tensor in found.items():
            torch.from_numpy(out[name]).copy_(tensor)
        return out

    def describe(self) -> str:
        return f'PyTorch {torch.__version__} {self.device}'

    def close(self) -> None:
        self.__dict__.pop('model', None)


def detector_of(student: Student, card: DetectionCard) -> Detector:
    """Return a detector that runs a student's deployed form, thermal or RGB, in PyTorch."""
    return Detector(card, TorchSession(
        DeployedStudent(student, card.input_size, card.top_k), card))
