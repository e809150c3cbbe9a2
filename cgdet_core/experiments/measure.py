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

"""Compute all numbers of an ablation for one checkpoint, in one pass over the frames."""

from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.data.sources import coco_frames
from cgdet_core.detection import analysis
from cgdet_core.detection.metrics import curves, evaluate, Report
from cgdet_core.detection.predict import detect
from cgdet_core.detection.student import detector_of, load_student, Student
from cgdet_core.distillation.rois import pool_rois
from cgdet_core.runtime.detection.detector import EVALUATION_THRESHOLD
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.geometry import Letterbox
import numpy as np
from numpy.typing import NDArray
import torch

VERSION = 3  # of the definition of the numbers; results of another version are measured again
ROI_SIZE = 3  # side of a pooled region in cells, as in RCS
Arrays = dict[str, NDArray[Any]]


def measure(checkpoint: Path, coco: CocoSet) -> tuple[Report, Arrays]:
    """
    Evaluate a checkpoint in its deployed form.

    The report has the metrics of `evaluate`, `curves` (precision at 101 recalls, IoU 0.5), and
    `duplicates`, `duplicates_at_recall`, `confusion`, `separability` (see `analysis`). The arrays
    are what the figures need in addition: `frame`, `boxes`, `scores`, `labels` of detections (D,)
    with scores of at least 0.3, and `features` (M, C), `feature_labels`, `feature_frames` of
    objects (M,).
    """
    student, card = load_student(checkpoint)
    detector = detector_of(student, card)
    all_found: list[Detections] = []
    counts: dict[str, list[analysis.Ints]] = {
        'before_nms': [], 'before_nms_relative': [], 'after_nms': []}
    by_score: dict[str, list[tuple[analysis.Floats, analysis.Doubles]]] = {
        'before_nms': [], 'after_nms': []}
    confusion = np.zeros((len(card.classes) + 1,) * 2, np.int64)
    features: list[NDArray[np.float32]] = []
    frames = coco_frames(coco, '*', card.channels, card.polarity)
    for record, (frame, found) in zip(coco.images, detect(
            detector, frames, EVALUATION_THRESHOLD)):
        box = Letterbox(frame.pixels.shape[1::-1], card.input_size)
        raw, scores = box.to_source(detector.boxes[0]), detector.scores[0]
        dense = analysis.candidates(raw, scores, EVALUATION_THRESHOLD)
        counts['before_nms_relative'].append(
            analysis.boxes_per_object(dense, record, analysis.DUPLICATE_SHARE))
        for where, boxes in (('before_nms', dense), ('after_nms', found)):
            counts[where].append(analysis.boxes_per_object(
                boxes.above(analysis.DUPLICATE_SCORE), record))
            by_score[where].append(analysis.scores_of_objects(boxes, record))
        confusion += analysis.confusion(
            found.above(analysis.MATCH_SCORE), record, len(card.classes))
        features.append(_features(student, detector.input, record, box))
        all_found.append(found)
    arrays = {**_detections(all_found), **_objects(features, coco)}
    report = {
        **evaluate(all_found, coco), 'curves': curves(all_found, coco.images, card.classes),
        'duplicates': {k: analysis.duplicates(v) for k, v in counts.items()},
        'duplicates_at_recall': {
            k: analysis.duplicates_at_recall(v) for k, v in by_score.items()},
        'confusion': {'classes': [*card.classes, 'background'], 'matrix': confusion.tolist(),
                      'confused': analysis.confused(confusion)},
        'separability': analysis.separability(
            arrays['features'], arrays['feature_labels'], arrays['feature_frames'])}
    return report, arrays


def detections_of(arrays: Arrays, frame: int) -> Detections:
    """Return the detections that `measure` kept of the frame with this index."""
    mine = arrays['frame'] == frame
    return Detections(arrays['boxes'][mine], arrays['scores'][mine], arrays['labels'][mine])


@torch.inference_mode()
def _features(
    student: Student, images: NDArray[np.float32], record: ImageRecord, box: Letterbox,
) -> NDArray[np.float32]:
    """Return the features (M, C) of objects: the means of their pyramid regions, as in RCS."""
    boxes = torch.from_numpy(record.boxes[record.crowd == 0])
    scale = [f / s for f, s in zip(box.fitted, box.source)] * 2
    pyramid = student.pyramid(torch.from_numpy(images))
    regions = pool_rois(
        pyramid, boxes * torch.tensor(scale), torch.zeros(len(boxes), dtype=torch.long), ROI_SIZE)
    return regions.mean((2, 3)).numpy()


def _detections(all_found: list[Detections]) -> Arrays:
    kept = [found.above(analysis.MATCH_SCORE) for found in all_found]
    return {'frame': np.repeat(np.arange(len(kept)), [len(k) for k in kept]),
            **{name: np.concatenate([getattr(k, name) for k in kept])
               for name in ('boxes', 'scores', 'labels')}}


def _objects(features: list[NDArray[np.float32]], coco: CocoSet) -> Arrays:
    labels = [r.labels[r.crowd == 0] for r in coco.images]
    return {'features': np.concatenate(features).astype(np.float32),
            'feature_labels': np.concatenate(labels),
            'feature_frames': np.repeat(np.arange(len(labels)), [len(x) for x in labels])}
