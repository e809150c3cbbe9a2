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

"""Checkpoints: weights and card of a student, loaded without executing anything."""

from pathlib import Path
import pickle
from typing import Any

from cgdet_core.detection.student import DeployedStudent, Student, StudentConfig
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.imaging.geometry import Letterbox
from cgdet_core.runtime.inference.card import ModelCard
from cgdet_core.runtime.inference.onnxruntime import DYNAMIC_BATCH
import numpy as np
from numpy.typing import NDArray
import torch

KEY = 'cgdet'  # the checkpoint's entry with the card and the model's sizes


def checkpoint_entry(card: ModelCard, config: StudentConfig) -> dict[str, Any]:
    """Return what a checkpoint must hold beside its weights, as plain values."""
    return {'card': card.to_dict(), 'model': config.model_dump(mode='json')}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint's dictionary, tensors and plain values only; UserError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f'The checkpoint {path} does not exist.')
    try:
        data = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError(f'{path} is not a checkpoint that can be loaded safely: '
                        f'{type(error).__name__}.') from None
    if not isinstance(data, dict) or KEY not in data or 'state_dict' not in data:
        raise UserError(f'{path} is not a checkpoint of "cgdet train".')
    return data


def load_student(path: str | Path) -> tuple[Student, ModelCard]:
    """Build the student of a checkpoint, with its averaged weights, and its card."""
    data = read_checkpoint(path)
    try:
        card = ModelCard.from_dict(data[KEY]['card'])
        student = Student(len(card.classes), StudentConfig.model_validate(data[KEY]['model']))
        prefix = 'student.'
        weights = {k.removeprefix(prefix): v for k, v in data['state_dict'].items()
                   if k.startswith(prefix)}
        student.load_state_dict(weights)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f'The checkpoint {path} does not fit this version: '
                        f'{str(error).splitlines()[0]}') from None
    return student.eval(), card


class TorchBackend:
    """Run the deployed form of a student in PyTorch, for evaluation while training."""

    def __init__(self, student: Student, card: ModelCard) -> None:
        self.model = DeployedStudent(student, card.input_size, card.top_k)
        self.model.to(memory_format=torch.channels_last)
        self.device = self.model.centers.device
        self.max_batch = DYNAMIC_BATCH
        self.rows = self.model.top_k

    @torch.inference_mode()
    def infer(
        self, images: NDArray[np.float32],
        boxes: NDArray[np.float32], scores: NDArray[np.float32],
    ) -> None:
        # Full precision, also when a validation runs inside a trainer's autocast.
        with torch.autocast(self.device.type, enabled=False):
            found = self.model(torch.from_numpy(images).to(self.device))
        for array, tensor in zip((boxes, scores), found):
            torch.from_numpy(array).copy_(tensor)

    def describe(self) -> str:
        return f'PyTorch {torch.__version__} {self.device}'

    def close(self) -> None:
        self.__dict__.pop('model', None)


class RgbDetector(Detector):
    """Detect in RGB pictures (H, W, 3) uint8: how a teacher is trained and judged."""

    def preprocess(self, frame: NDArray[Any], row: int = 0) -> Letterbox:
        """Letterbox a picture into a row of the input buffer, in [0, 1]."""
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f'an RGB picture must be (H, W, 3) uint8, this one is {frame.shape}')
        box = Letterbox((frame.shape[1], frame.shape[0]), self.card.input_size)
        for channel in range(3):
            plane = frame[..., channel].astype(np.float32) / np.float32(255)
            box.apply(plane, self.input[row, channel])
        return box


def detector_of(student: Student, card: ModelCard) -> Detector:
    """Wrap a student, thermal or RGB, for evaluation."""
    kind = RgbDetector if card.channels == 3 else Detector
    return kind(card, TorchBackend(student, card))
