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

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.imaging.geometry import Letterbox
import cv2
import numpy as np
from numpy.typing import NDArray

Found = TypeVar('Found', bound='Detections')


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

    def above(self: Found, threshold: float | NDArray[np.float32]) -> Found:
        """Return the detections that reach the threshold, a number or (num_classes,)."""
        keep = self.reaching(threshold)
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep],
                       labels=self.labels[keep])

    def reaching(self, threshold: float | NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return whether each detection (D,) reaches the threshold."""
        minimum = threshold[self.labels] if isinstance(threshold, np.ndarray) else threshold
        return np.asarray(self.scores >= minimum)


def iou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Return the intersection over union (A, B) of boxes (A, 4) and (B, 4), x1, y1, x2, y2."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-9))


def scale(scores: NDArray[np.float32], scaling: NDArray[np.float64]) -> NDArray[np.float32]:
    """
    Turn raw scores (..., num_classes) into probabilities that a detection is correct.

    sigmoid(slope * logit(score) + offset), with scaling (num_classes, 2), slope and offset (Platt,
    1999, "Probabilistic outputs for support vector machines", eq. 11, on the logit). Slopes are
    positive: the order within a class stays.
    """
    values = scores.astype(np.float64)
    with np.errstate(divide='ignore', over='ignore'):  # raw scores of 0 and 1 stay what they are
        logits = np.log(values) - np.log1p(-values)
        return (1 / (1 + np.exp(-(scaling[:, 0] * logits + scaling[:, 1])))).astype(np.float32)


def vote(
    kept: NDArray[np.float32], labels: NDArray[np.int64], boxes: NDArray[np.float32],
    scores: NDArray[np.float32], voting_iou: float,
) -> NDArray[np.float32]:
    """
    Return kept boxes (D, 4) averaged with all boxes (K, 4) that overlap them, IoU >= voting_iou.

    Box voting (Gidaris and Komodakis, 2015, arXiv 1505.01749, section 5.2); a box has the square
    of its score (K, num_classes) for the class of the kept box as its weight. Every box votes,
    whatever the score threshold: a detection does not depend on it.
    """
    near = iou(kept, boxes) >= voting_iou
    weights = np.where(near, scores.T[labels].astype(np.float64) ** 2, 0.0)
    total = weights.sum(1, keepdims=True)
    # Not a matrix product, which may round a row differently for other numbers of rows.
    mean = np.einsum('dk,kc->dc', weights, boxes.astype(np.float64)) / np.maximum(total, 1e-30)
    return np.where(total > 0, mean, kept).astype(np.float32)


def select(
    boxes: NDArray[np.float32], scores: NDArray[np.float32],
    score_threshold: float | NDArray[np.float32], iou_threshold: float, max_detections: int,
    voting_iou: float | None = None, scaling: NDArray[np.float64] | None = None,
) -> Detections:
    """
    Select the best boxes per class by non-maximum suppression.

    boxes (K, 4) x1, y1, x2, y2 and scores (K, num_classes); score_threshold is a number or
    (num_classes,). Every class of a box that reaches its threshold is a candidate, as COCO
    evaluation expects. voting_iou: see `vote`. scaling: see `scale`; thresholds are then of
    scaled scores, while raw scores order, limit and weigh the boxes, so that average precision
    does not depend on the scaling.
    """
    final = scores if scaling is None else scale(scores, scaling)
    cells, labels = np.nonzero(final >= score_threshold)
    candidates, confidence = boxes[cells], scores[cells, labels]
    if not len(cells):
        return Detections(candidates, confidence, labels)
    kept = _suppress(candidates, confidence, labels, iou_threshold)[:max_detections]
    if scaling is not None:
        kept = kept[np.argsort(-final[cells[kept], labels[kept]], kind='stable')]
    found = Detections(candidates[kept], final[cells[kept], labels[kept]], labels[kept])
    if voting_iou is None:
        return found
    return replace(found, boxes=vote(found.boxes, found.labels, boxes, scores, voting_iou))


def _suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64],
              iou_threshold: float) -> NDArray[np.int64]:
    """Return the indices of the boxes that non-maximum suppression keeps, best first."""
    if iou_threshold >= 1:
        return np.argsort(-scores, kind='stable')
    # Move each class to its own area, so that one call suppresses per class (OpenCV 4.5 has no
    # batched version).
    sides = boxes.astype(np.float64)
    sides[:, 2:] -= sides[:, :2]
    sides[:, 0] += labels * (np.ptp(boxes) + 1.0)
    # The kept indices are sorted by descending score.
    keep = cv2.dnn.NMSBoxes(sides, scores, 0.0, iou_threshold)
    return np.asarray(keep, np.int64).ravel()


def decode(boxes: NDArray[np.float32], scores: NDArray[np.float32], box: Letterbox,
           card: DetectionCard, score_threshold: float | NDArray[np.float32]) -> Detections:
    """
    Return the detections of one image in pixels of its frame, clipped to it.

    boxes (K, 4) in input pixels and scores (K, num_classes) are the network's outputs;
    score_threshold is a number or (num_classes,).
    """
    found = select(boxes, scores, score_threshold, card.iou_threshold, card.max_detections,
                   card.voting_iou, card.scaling)
    corners = box.to_source(found.boxes)
    # Boxes entirely in the padding have no area in the frame.
    real = (corners[:, 2:] > corners[:, :2]).all(1)
    return Detections(corners[real], found.scores[real], found.labels[real])
