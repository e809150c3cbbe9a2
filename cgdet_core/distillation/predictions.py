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
Predictions of RGB teachers: boxes, scores and classes in whole pictures, computed once and stored.

A teacher that gives features (`teachers`) may also give predictions. Pseudo-labels are made of
them: `cgdet distill` (docs/training.md).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.distillation.layout import Layout
from cgdet_core.distillation.store import PictureStore
from cgdet_core.distillation.teachers import cache_folder, OnnxNetwork, torchvision_detector
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
import torch
from torch import Tensor
from torchvision.ops import batched_nms

VERSION = 1  # changes when predictions are computed differently
FLOOR = 0.05  # score below which nothing is stored
IOU = 0.6  # of non-maximum suppression
MAXIMUM = 100  # boxes of a picture or sample
COLUMNS = 6  # of a stored box: x1, y1, x2, y2, score, class
COCO: tuple[str, ...] = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich',
    'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote',
    'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book',
    'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush')


class Predictions(NamedTuple):
    """Boxes (M, 4) x1, y1, x2, y2, scores (M,) and classes (M,), float32 and int64."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Predictor(Protocol):
    """A frozen detector of pictures."""

    input_size: tuple[int, int]  # width, height
    pad: int  # gray level of the letterbox's padding
    classes: tuple[str, ...]

    def predict(self, pixels: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return boxes (A, 4) in input pixels and scores (A, C) for RGB uint8 (1, 3, H, W)."""


def decode_yolox(output: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """
    Decode YOLOX (arXiv 2107.08430) as its authors export it: (A, 5 + C), strides 8, 16 and 32.

    Per cell (x, y) offset in cells, log of (w, h) in strides, objectness and class scores.
    """
    grid, strides = _cells(input_size, (8, 16, 32))
    if len(output) != len(grid):
        raise ValueError(f'{len(output)} rows instead of {len(grid)}')
    center, size = (output[:, :2] + grid) * strides, output[:, 2:4].exp() * strides
    return torch.cat([center - size / 2, center + size / 2], 1), output[:, 4:5] * output[:, 5:]


def decode_nanodet(output: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """
    Decode NanoDet-Plus (Apache-2.0): (A, C + 4 bins), strides 8, 16, 32 and 64.

    Per cell class scores and, for left, top, right and bottom, the logits of 8 distances in
    strides (GFL, arXiv 2006.04388).
    """
    grid, strides = _cells(input_size, (8, 16, 32, 64))
    if len(output) != len(grid):
        raise ValueError(f'{len(output)} rows instead of {len(grid)}')
    scores, bins = output[:, :-32], output[:, -32:].reshape(-1, 4, 8)
    distances = (bins.softmax(-1) * torch.arange(8.0)).sum(-1) * strides
    center = grid * strides
    return torch.cat([center - distances[:, :2], center + distances[:, 2:]], 1), scores


def _cells(input_size: tuple[int, int], strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return (x, y) and stride of all cells, (A, 2) and (A, 1), rows of the finest level first."""
    grids = []
    for stride in strides:
        y, x = torch.meshgrid(*(torch.arange(-(-side // stride)).float()
                                for side in input_size[::-1]), indexing='ij')
        grids.append(torch.stack([x, y], -1).reshape(-1, 2))
    steps = [torch.full((len(g), 1), float(s)) for g, s in zip(grids, strides)]
    return torch.cat(grids), torch.cat(steps)


DECODERS: dict[str, Callable[[Tensor, tuple[int, int]], tuple[Tensor, Tensor]]] = {
    'yolox': decode_yolox, 'nanodet': decode_nanodet}


class OnnxPredictor:
    """An ONNX detector of COCO's classes, run by ONNX Runtime."""

    classes = COCO

    def __init__(self, config: TeacherConfig) -> None:
        assert config.decoder is not None
        self._network = OnnxNetwork(config)
        self._decode = DECODERS[config.decoder]
        self._path = config.path
        self.input_size = self._network.input_size
        self.pad = config.pad

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        output = self._network.run(pixels)[0][0].float().cpu()
        try:
            boxes, scores = self._decode(output, self.input_size)
            if scores.shape[1] != len(COCO):
                raise ValueError(f'{scores.shape[1]} classes instead of {len(COCO)}')
        except (ValueError, RuntimeError) as error:
            raise UserError(f'The output of the teacher {self._path} is none that its '
                            f'teacher.decoder reads: {error}.') from None
        return boxes, scores


class TorchvisionPredictor:
    """A torchvision COCO detector."""

    pad = 0

    def __init__(self, config: TeacherConfig) -> None:
        from torchvision.models import get_model_weights

        self._network = torchvision_detector(config).eval().requires_grad_(False)
        self.input_size = config.input_size or (640, 512)
        self.classes = tuple(get_model_weights(config.model).DEFAULT.meta['categories'])

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self._network.to(pixels.device)(pixels.float() / 255)[0]
        scores = pixels.new_zeros(len(found['scores']), len(self.classes), dtype=torch.float)
        scores[torch.arange(len(scores), device=scores.device), found['labels']] = found['scores']
        return found['boxes'], scores


Kinds = dict[str, Callable[[TeacherConfig], Predictor]]
KINDS: Kinds = {
    'onnx': OnnxPredictor, 'torchvision': TorchvisionPredictor}


def suppress(
    boxes: Tensor, scores: Tensor, minimum: float = FLOOR, iou: float = IOU,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return boxes (M, 4), scores (M,) and classes (M,) after suppression, the best first.

    boxes (A, 4) and scores (A, C); those below the minimum are left out.
    """
    cells, labels = (scores >= minimum).nonzero(as_tuple=True)
    boxes, scores = boxes[cells], scores[cells, labels]
    kept = batched_nms(boxes, scores, labels, iou)[:MAXIMUM]
    return boxes[kept], scores[kept], labels[kept]


class TeacherPredictions:
    """Predictions of a teacher in whole pictures, stored beside its features."""

    def __init__(self, config: TeacherConfig, more: Kinds | None = None) -> None:
        """more: kinds of predictors in addition to KINDS."""
        self.predictor = (KINDS | (more or {}))[config.kind](config)
        self._layout = Layout(self.predictor.input_size, self.predictor.pad, (1, 1, 1))
        folder = cache_folder(config)
        self._store = None if folder is None else PictureStore(
            folder, f'.{config.decoder or "boxes"}{VERSION}')

    def of(self, views: Sequence[View], device: torch.device, progress: bool,
           ) -> list[Predictions]:
        """Return the predictions in each view's whole picture, in pixels of the thermal frame."""
        return [self._of(view, device) for view in track(
            views, 'teacher', disable=not progress, transient=True)]

    def _of(self, view: View, device: torch.device) -> Predictions:
        fitted, rows = self._layout.fitted(view.size), None
        if self._store is not None:
            rows = _rows(self._store.read(path := self._store.path(view, fitted)))
        if rows is None:
            rows = self._compute(view, device)
            if self._store is not None:
                self._store.write(path, rows.tobytes())
        sides = np.array([*view.size] * 2, np.float32)
        boxes = rows[:, :4] * (sides / np.array([*fitted] * 2, np.float32))
        return Predictions(np.clip(boxes, 0, sides), rows[:, 4], rows[:, 5].astype(np.int64))

    def _compute(self, view: View, device: torch.device) -> NDArray[np.float32]:
        """Return boxes, score and class of what the teacher finds, (M, 6), in its pixels."""
        pixels = self._layout.pixels([view], view.size)[None].to(device)
        boxes, scores = self.predictor.predict(pixels)
        found, certain, kinds = suppress(boxes, scores)
        if scores.isnan().any() or found.isnan().any():
            raise UserError(f'The teacher finds objects in {view.picture} whose boxes or scores '
                            'are no numbers (NaN); its weights are damaged, or its precision is '
                            'too low.')
        table = torch.cat([found, certain[:, None], kinds[:, None].float()], 1)
        return np.asarray(table.cpu().numpy(), np.float32)


def _rows(content: bytes | None) -> NDArray[np.float32] | None:
    """Return stored rows (M, 6); None if there are none, or they are none that are stored."""
    if content is None or len(content) % (4 * COLUMNS) or len(content) > 4 * COLUMNS * MAXIMUM:
        return None
    rows = np.frombuffer(bytearray(content), np.float32).reshape(-1, COLUMNS)
    return None if np.isnan(rows).any() else rows
