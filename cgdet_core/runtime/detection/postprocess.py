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

"""From the network's boxes and scores to detections."""

from dataclasses import dataclass
from typing import Any

from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.imaging.geometry import Letterbox
import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """
    The objects detected in one frame, best first.

    boxes (D, 4) float32 x1, y1, x2, y2 in pixels of the source frame; scores (D,) float32 in
    [0, 1]; labels (D,) int64, indices into the model card's classes.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float | NDArray[np.float32]) -> 'Detections':
        """Return the detections that reach the threshold, a number or (num_classes,)."""
        minimum = threshold[self.labels] if isinstance(threshold, np.ndarray) else threshold
        keep = self.scores >= minimum
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])


def iou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Return the intersection over union (A, B) of boxes (A, 4) and (B, 4), x1, y1, x2, y2."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-9))


def select(boxes: NDArray[np.float32], scores: NDArray[np.float32],
           score_threshold: float | NDArray[np.float32], iou_threshold: float,
           max_detections: int) -> Detections:
    """
    Select the best boxes per class by non-maximum suppression.

    boxes (K, 4) x1, y1, x2, y2 and scores (K, num_classes); score_threshold is a number or
    (num_classes,). Every class of a box that reaches its threshold is a candidate, as COCO
    evaluation expects.
    """
    cells, labels = np.nonzero(scores >= score_threshold)
    candidates, confidence = boxes[cells], scores[cells, labels]
    if not len(cells):
        return Detections(candidates, confidence, labels)
    # Move each class to its own area, so that one call suppresses per class (OpenCV 4.5 has no
    # batched version).
    sides = candidates.astype(np.float64)
    sides[:, 2:] -= sides[:, :2]
    sides[:, 0] += labels * (np.ptp(candidates) + 1.0)
    # The kept indices are sorted by descending score.
    keep = cv2.dnn.NMSBoxes(sides, confidence, 0.0, iou_threshold)
    kept = np.asarray(keep, np.int64).ravel()[:max_detections]
    return Detections(candidates[kept], confidence[kept], labels[kept])


def decode(boxes: NDArray[np.float32], scores: NDArray[np.float32], box: Letterbox,
           card: DetectionCard, score_threshold: float | NDArray[np.float32]) -> Detections:
    """
    Return the detections of one image in pixels of its frame, clipped to it.

    boxes (K, 4) in input pixels and scores (K, num_classes) are the network's outputs;
    score_threshold is a number or (num_classes,).
    """
    found = select(boxes, scores, score_threshold, card.iou_threshold, card.max_detections)
    corners = box.to_source(found.boxes)
    # Boxes entirely in the padding have no area in the frame.
    real = (corners[:, 2:] > corners[:, :2]).all(1)
    return Detections(corners[real], found.scores[real], found.labels[real])
