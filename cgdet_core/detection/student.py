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

"""The student: a small thermal detector, its checkpoints, its deployed form and detector."""

from collections.abc import Mapping
import copy
from pathlib import Path
from typing import Any

from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.head import cell_centers, decode_boxes, DecoupledHead
from cgdet_core.nets.blocks import fold_norms
from cgdet_core.nets.pyramid import FeaturePyramid
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.inference.card import ModelCard
from cgdet_core.runtime.inference.session import OPEN_BATCH
from cgdet_core.training.checkpoints import load_network
from numpy.typing import NDArray
import torch
from torch import nn, Tensor


class Student(FeaturePyramid):
    """
    Detect objects in one-channel thermal images in [0, 1].

    Input (N, in_channels, H, W), H and W multiples of 32. `forward` returns the training
    outputs: class logits (N, A, num_classes) and box distributions (N, A, 4, bins).
    """

    def __init__(self, num_classes: int, config: StudentConfig | None = None) -> None:
        config = config or StudentConfig()
        super().__init__(config)
        self.head = DecoupledHead(
            num_classes, config.neck_channels, config.head_channels, config.bins,
            config.head_depth, config.one_to_one)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.pyramid(images))


class DeployedStudent(nn.Module):
    """
    The deployed form of a student, which is exported and evaluated: final boxes and scores.

    Normalization layers are folded into the convolutions; decoding and the selection of the
    `top_k` best cells happen inside. Input (N, C, H, W) of exactly `input_size` = (W, H);
    output boxes (N, K, 4) x1, y1, x2, y2 in input pixels and scores (N, K, num_classes) in
    [0, 1], ordered by each box's best score. The runtime does the non-maximum suppression.
    """

    centers: Tensor
    strides: Tensor

    def __init__(self, student: Student, input_size: tuple[int, int], top_k: int = 300) -> None:
        super().__init__()
        width, height = input_size
        if width % 32 or height % 32:
            raise ValueError(f'input size {width}x{height} is not a multiple of 32')
        self.student = copy.deepcopy(student).eval()
        self.student.head.keep_one_to_one()
        fold_norms(self.student)
        centers, strides = cell_centers(height, width, next(student.parameters()).device)
        self.register_buffer('centers', centers)
        self.register_buffer('strides', strides)
        self.top_k = min(top_k, len(centers))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, distributions = self.student(images)
        # Select before decoding: the softmax over bins then runs on top_k cells only.
        _, index = logits.amax(-1).topk(self.top_k, dim=1)
        logits = logits.gather(1, index[..., None].expand(-1, -1, logits.shape[2]))
        picked = index[..., None, None].expand(-1, -1, 4, distributions.shape[3])
        boxes = decode_boxes(
            distributions.gather(1, picked), self.centers[index], self.strides[index])
        return boxes, torch.sigmoid(logits)


def load_student(path: str | Path) -> tuple[Student, DetectionCard]:
    """Build the student of a checkpoint, with its averaged weights, and its card."""
    return load_network(path, DetectionCard, lambda card, model: Student(
        len(card.classes), StudentConfig.model_validate(model)))


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
        found = self.run_tensors({name: torch.from_numpy(inputs[name]) for name in inputs})
        if out is None:
            return {name: tensor.cpu().numpy() for name, tensor in found.items()}
        for name, tensor in found.items():
            torch.from_numpy(out[name]).copy_(tensor)
        return out

    @torch.inference_mode()
    def run_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the card's inputs, on any device, and return its outputs on the network's."""
        arguments = (inputs[name].to(self.device) for name in self.card.inputs)
        # Full precision, even if a validation runs inside a trainer's autocast.
        with torch.autocast(self.device.type, enabled=False):
            return dict(zip(self.card.outputs, self.model(*arguments)))

    def describe(self) -> str:
        return f'PyTorch {torch.__version__} {self.device}'

    def close(self) -> None:
        self.__dict__.pop('model', None)


def detector_of(student: Student, card: DetectionCard) -> Detector:
    """Return a detector that runs a student's deployed form, thermal or RGB, in PyTorch."""
    return Detector(card, TorchSession(
        DeployedStudent(student, card.input_size, card.top_k), card))
