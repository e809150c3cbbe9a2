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

"""Frames, some with a registered RGB image, as torchvision tensors."""

from dataclasses import dataclass, field
from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.data.synthetic import CLASSES, Scene, to_counts
from cgdet_core.distillation.config import Unpaired
from cgdet_core.distillation.views import View
from cgdet_core.runtime.imaging.geometry import Letterbox, resize
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import numpy as np
from numpy.typing import NDArray
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

Sample = dict[str, Any]
Drawn = tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.int64]]  # image, boxes, labels
IGNORED = -1  # label of a region that is neither object nor background (COCO's iscrowd)


def make_sample(
    image: NDArray[np.float32], boxes: NDArray[np.float32], labels: NDArray[np.int64],
    view: View | None = None, scores: NDArray[np.float32] | None = None,
) -> Sample:
    """
    Pack one frame.

    image (H, W) or (H, W, 3) in [0, 1] -> tv Image (C, H, W); boxes (M, 4) x1, y1, x2, y2 -> tv
    BoundingBoxes, labels (M,) among them IGNORED; view, which fills the frame -> one view of the
    image; scores (M,) of boxes that a detector found, by default 1.
    """
    height, width = image.shape[:2]
    tensor = torch.from_numpy(image)
    return {
        'image': tv_tensors.Image(tensor[None] if image.ndim == 2 else tensor.permute(2, 0, 1)),
        'boxes': tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            torch.from_numpy(boxes), format='XYXY', canvas_size=(height, width)),
        'labels': torch.from_numpy(labels),
        'scores': torch.ones(len(labels)) if scores is None else torch.from_numpy(scores),
        'views': [] if view is None else [view.moved(
            (width / view.size[0], height / view.size[1]), (0, 0), (width, height))],
    }


@dataclass(eq=False)
class CocoFrames(Dataset[Sample]):
    """
    Frames of a COCO set: thermal frames, normalized, or RGB images if `channels` = 3.

    Frames larger than `fit` = (width, height), the largest size that training uses, are shrunk
    into it. Every worker keeps the frames in memory, while `cache_bytes` last, as float16 in steps
    (0.0005 at most) far below any sensor's noise. unpaired: what the teacher sees if
    there is no RGB.
    """

    coco: CocoSet
    normalization: Normalization
    channels: int = 1
    fit: tuple[int, int] | None = None
    cache_bytes: float = 1e9
    unpaired: Unpaired = 'skip'
    _cache: dict[int, NDArray[np.float16]] = field(init=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.coco.images)

    def __getitem__(self, index: int) -> Sample:
        record = self.coco.images[index]
        image = self._cache.get(index)
        if image is None:
            image = self._read(record)
            if image.nbytes <= self.cache_bytes:
                self._cache[index] = image
                self.cache_bytes -= image.nbytes
        factor = np.array([image.shape[1] / record.width, image.shape[0] / record.height] * 2)
        return make_sample(
            image.astype(np.float32), (record.boxes * factor).astype(np.float32),
            np.where(record.crowd == 0, record.labels, IGNORED),
            View.of(record, self.unpaired), record.scores)

    def _read(self, record: ImageRecord) -> NDArray[np.float16]:
        raw = record.read(self.channels)
        image = (normalize(raw, self.normalization) if self.channels == 1
                 else raw.astype(np.float32) / np.float32(255))
        box = Letterbox((record.width, record.height), self.fit or (record.width, record.height))
        if box.scale < 1:
            shrunk = np.empty((*box.fitted[::-1], *image.shape[2:]), np.float32)
            resize(image, shrunk)
            image = shrunk
        return image.astype(np.float16)


@dataclass(eq=False)
class SyntheticFrames(Dataset[Sample]):
    """
    Synthetic scenes as 16-bit frames, `count` new ones in every epoch.

    A scene depends only on seed, epoch and index. An epoch shows a scene several times, as mosaics
    draw their tiles from all frames: every worker keeps those of the current epoch in memory,
    while `cache_bytes` last, as CocoFrames keeps its frames.
    """

    count: int
    normalization: Normalization
    classes: tuple[str, ...]
    seed: int = 0
    cache_bytes: float = 1e9
    _epoch: int = field(init=False, default=0)
    _cache: dict[int, Drawn] = field(init=False, default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the scenes."""
        if epoch != self._epoch:
            self._cache.clear()
        self._epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        kept = self._cache.get(index)
        if kept is None:
            kept = self._draw(index)
            if (len(self._cache) + 1) * kept[0].nbytes <= self.cache_bytes:
                self._cache[index] = kept
        image, boxes, labels = kept
        return make_sample(image.astype(np.float32), boxes.copy(), labels.copy())

    def _draw(self, index: int) -> Drawn:
        # Not consecutive numbers: those are the scenes of validation sets (`write_coco`).
        seed = np.random.SeedSequence((self.seed, self._epoch, index)).generate_state(1, np.uint64)
        kelvin, boxes, labels = Scene.random(int(seed[0])).render()
        known = np.array([self.classes.index(c) if c in self.classes else -1 for c in CLASSES])
        labels = known[labels]
        frame = normalize(to_counts(kelvin), self.normalization)
        return frame.astype(np.float16), boxes[labels >= 0], labels[labels >= 0]
