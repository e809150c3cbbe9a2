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
What average precision does not show: duplicate boxes, confused classes, separable features.

The first two are the paper's claims about contrast and guidance (fewer duplicate boxes, fewer
class confusions), the third is how it explains them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
import math

from cgdet_core.data.coco import ImageRecord
from cgdet_core.runtime.detection.postprocess import Detections, iou
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
IOU = 0.5  # minimum overlap of a box with the object it belongs to
DUPLICATE_SCORE = 0.25  # minimum score of a box that counts as a duplicate
DUPLICATE_SHARE = 0.5  # the same relative to the object's best box, whatever the calibration
RECALLS = tuple(i / 10 for i in range(1, 10))  # at which duplicates are compared
MATCH_SCORE = 0.3  # minimum score of a detection, as in deployment (card.score_threshold)
BAD_BOX = 0.1  # minimum overlap of a badly placed box (TIDE, Bolya et al., 2020, t_b)
NEIGHBORS = 5  # whose classes are compared in the feature space
APART = 5  # frames; neighbors in a sequence show the same
MAX_OBJECTS = 2000  # for separability, whose memory grows with the square


def candidates(boxes: Floats, scores: Floats, minimum: float) -> Detections:
    """Return boxes (K, 4) with scores (K, classes) as detections, without suppressing any."""
    cells, labels = np.nonzero(scores >= minimum)
    return Detections(boxes[cells], scores[cells, labels], labels)


def boxes_per_object(found: Detections, truth: ImageRecord, share: float | None = None) -> Ints:
    """
    Count the boxes of each object (M,), without crowds.

    A box belongs to the object of its class that it overlaps most, if IoU >= 0.5: a neighbor's
    box in a dense group is not a duplicate. share: count only boxes of at least this share of
    the object's best score, if that is at least DUPLICATE_SCORE.
    """
    owner, best = _owners(found, truth)
    scores, owner = found.scores[owner >= 0], owner[owner >= 0]
    if share is not None:
        owner = owner[(scores >= share * best[owner]) & (best[owner] >= DUPLICATE_SCORE)]
    return np.bincount(owner, minlength=len(best))


def _owners(found: Detections, truth: ImageRecord) -> tuple[Ints, Doubles]:
    """Return the object of each box (D,), -1 for none, and each object's best score (M,) or 0."""
    real = truth.crowd == 0
    objects, labels = truth.boxes[real], truth.labels[real]
    best = np.zeros(len(objects))
    if not len(objects) or not len(found):
        return np.full(len(found), -1, np.int64), best
    shared = np.where(found.labels[:, None] == labels[None], iou(found.boxes, objects), 0)
    owner = np.where(shared.max(1) >= IOU, shared.argmax(1), -1)
    np.maximum.at(best, owner[owner >= 0], found.scores[owner >= 0])
    return owner, best


def scores_of_objects(found: Detections, truth: ImageRecord) -> tuple[Floats, Doubles]:
    """Return the scores of the boxes of objects, and each object's best score (M,), 0 for none."""
    owner, best = _owners(found, truth)
    return found.scores[owner >= 0], best


def duplicates(counts: list[Ints]) -> dict[str, float | int | None]:
    """Sum up the frames' `boxes_per_object`; duplicates: mean of boxes - 1 of found objects."""
    boxes = np.concatenate([np.zeros(0, np.int64), *counts])
    found = int((boxes > 0).sum())
    return {'objects': len(boxes), 'found': found, 'boxes': int(boxes.sum()),
            'duplicates': float(boxes.sum() - found) / found if found else None}


def duplicates_at_recall(frames: list[tuple[Floats, Doubles]]) -> dict[str, float | None]:
    """
    Return duplicates per found object at the score that finds a share of the objects, by share.

    frames: the `scores_of_objects` of each. This compares detectors of different confidence
    fairly: at a fixed score the more confident one has more boxes. None if that share is not
    found at any score.
    """
    boxes = np.sort(np.concatenate([np.zeros(0), *(scores for scores, _ in frames)]))
    objects = np.sort(np.concatenate([np.zeros(0), *(best for _, best in frames)]))
    found: dict[str, float | None] = {}
    for recall in RECALLS:
        wanted = math.ceil(recall * len(objects) - 1e-9)
        minimum = objects[-wanted] if wanted else 0
        counts = [len(x) - int(np.searchsorted(x, minimum)) for x in (boxes, objects)]
        found[f'{recall:.1f}'] = counts[0] / counts[1] - 1 if minimum > 0 else None
    return found


def match(found: Detections, truth: ImageRecord) -> Ints:
    """
    Return the object of each detection (D,), -1 for none and -2 for a crowd's.

    Classes are ignored, so that confusions are found. In the order of their scores, detections
    are matched with the free object that they overlap most, if IoU >= 0.5.
    """
    objects = np.full(len(found), -1, np.int64)
    if not len(truth.boxes):
        return objects
    shared = iou(found.boxes, truth.boxes)
    crowd = truth.crowd != 0
    free = ~crowd
    for i in np.argsort(-found.scores, kind='stable'):
        choice = np.where(free, shared[i], 0)
        best = int(choice.argmax())
        if choice[best] >= IOU:
            objects[i], free[best] = best, False
        elif (shared[i] * crowd).max() >= IOU:
            objects[i] = -2
    return objects


def match_by_class(found: Detections, truth: ImageRecord) -> Ints:
    """Return what `match` does, for each class alone: objects of other classes are not there."""
    objects = np.full(len(found), -1, np.int64)
    for label in np.unique(found.labels):
        mine, theirs = (np.flatnonzero(x.labels == label) for x in (found, truth))
        own = match(
            Detections(found.boxes[mine], found.scores[mine], found.labels[mine]),
            replace(truth, boxes=truth.boxes[theirs], crowd=truth.crowd[theirs]))
        objects[mine] = own
        objects[mine[own >= 0]] = theirs[own[own >= 0]]
    return objects


def confusion(found: Detections, truth: ImageRecord, classes: int) -> Ints:
    """
    Count detections (classes + 1, classes + 1): rows are the truth, the last is background.

    The last column counts missed objects, the last row false detections, including further boxes
    of an object.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    objects = match(found, truth)
    hit = objects >= 0
    np.add.at(counts, (truth.labels[objects[hit]], found.labels[hit]), 1)
    np.add.at(counts[classes], found.labels[objects == -1], 1)
    missed = truth.crowd == 0
    missed[objects[hit]] = False
    np.add.at(counts[:, classes], truth.labels[missed], 1)
    return counts


@dataclass(frozen=True)
class Mistakes:
    """
    What is wrong in a frame, after TIDE (Bolya et al., 2020).

    objects: `missed`, `confused` or `bad box` for each object (M,), '' if it is found or a crowd.
    detections: `false`, `confused` or `bad box` for each detection (D,), '' if it is right.
    """

    objects: list[str]
    detections: list[str]


def mistakes(found: Detections, truth: ImageRecord) -> Mistakes:
    """
    Say what is wrong with the detections of a frame, all of which are counted.

    Right and missed are those of `match_by_class`. confused: a missed object and the detection of
    another class that `match` assigns to it. bad box: a missed object and the best detection of
    its class that overlaps it by 0.1 <= IoU < 0.5.
    """
    owners = match_by_class(found, truth)
    objects = np.where(truth.crowd == 0, 'missed', '').astype(object)
    objects[owners[owners >= 0]] = ''
    detections = np.where(owners == -1, 'false', '').astype(object)
    for i, owner in enumerate(match(found, truth)):
        if owner >= 0 and objects[owner] == 'missed' and detections[i] == 'false':
            objects[owner] = detections[i] = 'confused'
    shared = iou(found.boxes, truth.boxes) * (found.labels[:, None] == truth.labels[None])
    for i in np.argsort(-found.scores, kind='stable'):
        near = np.where(objects == 'missed', shared[i], 0)
        if detections[i] == 'false' and near.max(initial=0) >= BAD_BOX:
            objects[near.argmax()] = detections[i] = 'bad box'
    return Mistakes(objects.tolist(), detections.tolist())


def confusions(
    found: Iterable[Detections], records: Iterable[ImageRecord], classes: int,
) -> Ints:
    """Return the sum of the frames' `confusion`."""
    return sum((confusion(f, r, classes) for f, r in zip(found, records)),
               np.zeros((classes + 1,) * 2, np.int64))


def choose(values: NDArray[np.float64], count: int) -> list[int]:
    """Return the indices of up to `count` largest positive values, at least 5 apart."""
    chosen: list[int] = []
    for i in np.argsort(-values, kind='stable').tolist():
        if len(chosen) == count or values[i] <= 0:
            break
        if all(abs(i - c) >= APART for c in chosen):
            chosen.append(i)
    return chosen


def confused(counts: Ints) -> float | None:
    """Return the share of matched objects whose detection has another class."""
    matched = counts[:-1, :-1]
    return float(1 - matched.trace() / matched.sum()) if matched.sum() else None


def separability(features: Floats, labels: Ints, frames: Ints) -> dict[str, float | None]:
    """
    Measure how well classes are separated among the objects' features (M, C).

    Distances are 1 - cosine, relative to the mean of all. silhouette: the mean over classes of the
    mean silhouette (Rousseeuw, 1987) of its objects, in [-1, 1]. neighbors: the mean over
    classes of the share of objects whose class is the most frequent one among the 5 nearest
    objects of other frames (M,). None with fewer than two classes of two objects each.
    """
    chosen = _sample(labels)
    features, labels, frames = features[chosen], labels[chosen], frames[chosen]
    kinds = np.unique(labels)
    if len(kinds) < 2:
        return {'silhouette': None, 'neighbours': None}
    unit = directions(features)
    distance = 1 - unit @ unit.T
    member = labels[:, None] == kinds[None]
    rows = np.arange(len(labels))
    own = np.searchsorted(kinds, labels)
    size = member.sum(0)
    mean = distance @ member / size
    inner = mean[rows, own] * size[own] / (size[own] - 1)  # the distance to itself is 0
    mean[rows, own] = np.inf
    outer = mean.min(1)
    silhouette = (outer - inner) / np.maximum(np.maximum(outer, inner), 1e-9)
    distance[frames[:, None] == frames[None]] = np.inf
    near = np.argsort(distance, 1, kind='stable')[:, :NEIGHBORS]
    real = np.isfinite(np.take_along_axis(distance, near, 1))
    votes = (member[near] * real[..., None]).sum(1)
    right = votes.argmax(1) == own
    balanced = [(float(silhouette[m].mean()), float(right[m].mean())) for m in member.T]
    return {'silhouette': float(np.mean([b[0] for b in balanced])),
            'neighbours': float(np.mean([b[1] for b in balanced]))}


def directions(features: Floats) -> Doubles:
    """Return the features (M, C) relative to their mean, as unit vectors."""
    values = features.astype(np.float64)
    values = values - values.mean(0)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def project(features: Floats) -> Doubles:
    """Return the two principal components (M, 2) of the objects' directions."""
    values = directions(features)
    values -= values.mean(0)
    _, _, axes = np.linalg.svd(values, full_matrices=False)
    return values @ axes[:2].T


def _sample(labels: Ints) -> Ints:
    """Return the indices of a fixed sample of the objects whose classes have at least two."""
    kinds, counts = np.unique(labels, return_counts=True)
    index = np.flatnonzero(np.isin(labels, kinds[counts > 1]))
    if len(index) <= MAX_OBJECTS:
        return index
    # Rare classes are kept whole: a large class is cut to what the smaller ones leave.
    order = np.random.default_rng(0).permutation(index)
    rank = np.zeros(len(order), np.int64)
    for kind in kinds:
        mine = labels[order] == kind
        rank[mine] = np.arange(mine.sum())
    return np.sort(order[np.argsort(rank, kind='stable')[:MAX_OBJECTS]])
