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

"""Thermal frames, some with an aligned RGB frame, as torchvision tensors."""

from typing import Any, Protocol

from cgdet_core.data.coco import CocoSet
from cgdet_core.data.synthetic import CLASSES, Scene, to_counts
from cgdet_core.errors import UserError
from cgdet_core.runtime.frames import read_thermal
from cgdet_core.runtime.normalization import Normalization, normalize
import cv2
import numpy as np
from numpy.typing import NDArray
import torch
from torchvision import tv_tensors

Sample = dict[str, Any]


class FrameSource(Protocol):
    """Anything with a length that gives samples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def make_sample(
    thermal: NDArray[np.float32], boxes: NDArray[np.float32], labels: NDArray[np.int64],
    rgb: NDArray[np.uint8] | None = None,
) -> Sample:
    """
    Pack one frame.

    thermal (H, W) in [0, 1] -> tv Image (1, H, W); boxes (M, 4) x1, y1, x2, y2 -> tv
    BoundingBoxes; rgb (H, W, 3) -> tv Image (3, H, W) in [0, 1], the key absent without RGB.
    """
    sample: Sample = {
        'thermal': tv_tensors.Image(torch.from_numpy(thermal)[None]),
        'boxes': tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            torch.from_numpy(boxes), format='XYXY', canvas_size=thermal.shape),
        'labels': torch.from_numpy(labels),
    }
    if rgb is not None:
        sample['rgb'] = tv_tensors.Image(
            torch.from_numpy(rgb).permute(2, 0, 1).float().div_(255))
    return sample


class CocoFrames:
    """Frames of a COCO set, normalised; raw pictures stay in memory once read (per worker)."""

    def __init__(
        self, coco: CocoSet, normalization: Normalization, with_rgb: bool = False,
    ) -> None:
        self.coco = coco
        self.normalization = normalization
        self.with_rgb = with_rgb
        self._cache: dict[int, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.coco.images)

    def __getitem__(self, index: int) -> Sample:
        record = self.coco.images[index]
        raw = self._cache.get(index)
        if raw is None:
            raw = self._cache[index] = read_thermal(record.path)
        if raw.shape != (record.height, record.width):
            raise UserError(f'{record.path} has {raw.shape[1]}x{raw.shape[0]} pixels, but '
                            f'{self.coco.path} says {record.width}x{record.height}.')
        rgb = None
        if self.with_rgb and record.rgb_path is not None:
            bgr = cv2.imread(str(record.rgb_path), cv2.IMREAD_COLOR)
            if bgr is None:
                raise UserError(f'The RGB picture {record.rgb_path} cannot be read.')
            rgb = cv2.cvtColor(cv2.resize(bgr, raw.shape[::-1]), cv2.COLOR_BGR2RGB)
        kept = record.crowd == 0
        return make_sample(normalize(raw, self.normalization),
                           record.boxes[kept], record.labels[kept], rgb)


class SyntheticFrames:
    """Synthetic scenes as 16-bit frames; number i of a seed is always the same."""

    def __init__(
        self, count: int, normalization: Normalization, classes: tuple[str, ...], seed: int = 0,
    ) -> None:
        self.count = count
        self.normalization = normalization
        self.seed = seed
        self._label = np.array([classes.index(c) if c in classes else -1 for c in CLASSES])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        kelvin, boxes, labels = Scene.random(self.seed * 1_000_003 + index).render()
        labels = self._label[labels]
        frame = normalize(to_counts(kelvin), self.normalization)
        return make_sample(frame, boxes[labels >= 0], labels[labels >= 0])
