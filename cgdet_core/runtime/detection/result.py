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

"""The detections of one frame for Python programs and notebooks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.drawing import save_picture
from cgdet_core.runtime.imaging.frames import read_image, read_rgb, to_gray
from cgdet_core.runtime.imaging.message import is_false_color
import cv2
import numpy as np
from numpy.typing import NDArray


class Detection(NamedTuple):
    """One object: class, score in [0, 1], x1, y1, x2, y2 in pixels, and index of the class."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int


@dataclass(frozen=True, repr=False, eq=False)
class Result(Detections):
    """
    The objects detected in one frame, best first; iterating yields each as a `Detection`.

    boxes (N, 4) float32 x1, y1, x2, y2 in pixels of the frame; scores (N,) float32 in [0, 1];
    labels (N,) int64, indices into card.classes. frame: the raw pixels, (H, W), or (H, W, 3) RGB
    of an RGB model. A notebook shows the frame with its boxes.
    """

    frame: NDArray[Any]
    card: DetectionCard

    @property
    def names(self) -> list[str]:
        """Return the class of each detection."""
        return [self.card.classes[label] for label in self.labels]

    def __getitem__(self, index: int) -> Detection:
        label = int(self.labels[index])
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Detection(self.card.classes[label], float(self.scores[index]), (x1, y1, x2, y2),
                         label)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    def __str__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.card.classes))
        return objects_text(dict(zip(self.card.classes, counts.tolist())))

    def __repr__(self) -> str:
        return f'<Result: {self}>'

    def _repr_png_(self) -> bytes:
        return bytes(cv2.imencode('.png', self.draw())[1])

    def draw(self) -> NDArray[np.uint8]:
        """Return the frame with its boxes, (H, W, 3) BGR."""
        return draw_detections(self.frame, self, self.card)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the frame with its boxes to an image file and return its path."""
        return save_picture(Path(path), self.draw())

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict per detection: name, score, x1, y1, x2, y2; pandas.DataFrame takes it."""
        return [{'name': name, 'score': score, **dict(zip(('x1', 'y1', 'x2', 'y2'), box))}
                for name, score, box, _ in self]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return COCO results, as pycocotools' loadRes takes them; category_id = label + 1."""
        return [{'image_id': image_id, 'category_id': label + 1, 'score': score,
                 'bbox': [x1, y1, x2 - x1, y2 - y1]}
                for _, score, (x1, y1, x2, y2), label in self]

    def to_supervision(self) -> Any:
        """Return supervision.Detections; requires the package supervision."""
        try:
            from supervision import Detections as Supervised
        except ModuleNotFoundError as error:
            raise UserError(f'The module {error.name} is missing; install it with '
                            '"pip install supervision".') from None
        return Supervised(self.boxes, confidence=self.scores, class_id=self.labels,
                          data={'class_name': np.array(self.names, str)})


def objects_text(counts: Mapping[str, int]) -> str:
    """Return numbers of objects by class as text, for example 2 person, 1 car."""
    return ', '.join(f'{count} {name}' for name, count in counts.items() if count) or 'no objects'


def to_frame(image: str | os.PathLike[str] | NDArray[Any], channels: int) -> NDArray[Any]:
    """
    Return the frame of an image file or an array, for a model with 1 (thermal) or 3 channels.

    Thermal arrays are (H, W), (H, W, 1), or color (H, W, 3 or 4), BGR, which is converted to gray;
    three equal channels keep their values. TypeError and ValueError for anything else.
    """
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        return to_gray(read_image(path)) if channels == 1 else read_rgb(path)
    if not isinstance(image, np.ndarray):
        raise TypeError(f'An image must be a file or a numpy array, not {type(image).__name__}.')
    if channels == 3 or image.ndim == 2:
        return image
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ValueError('An array must be (H, W), or (H, W, C) with 1, 3 or 4 channels, this one '
                         f'has shape {image.shape}.')
    equal = image.shape[2] > 1 and not is_false_color(image)
    return image[..., 0] if equal else to_gray(image)
