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

"""Figures and annotated frames of known detections."""

from pathlib import Path

from cgdet_core.data.coco import CocoSet, load_coco
from cgdet_core.detection.analysis import choose
from cgdet_core.detection.curves import draw_curves
from cgdet_core.experiments.figures import (
    draw_claims,
    draw_confusions,
    write_failures,
    write_triptychs,
)
from cgdet_core.runtime import Normalization
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.drawing import COLORS
import cv2
import numpy as np
import pytest

PLAIN = Normalization('percentile')
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@pytest.fixture
def coco(scenes: Path) -> CocoSet:
    return load_coco(scenes)


@pytest.fixture
def perfect(coco: CocoSet) -> list[Detections]:
    """Return the truth as detections."""
    return [Detections(r.boxes, np.ones(len(r.labels), np.float32), r.labels)
            for r in coco.images]


def colored(picture: np.ndarray) -> int:
    """Return the number of pixels in the color of a class."""
    return sum(int((picture == color).all(2).sum()) for color in COLORS)


def test_choose_the_greatest_far_apart() -> None:
    values = np.array([3, 9, 8, 0, 0, 0, 5, 0, 0, 0, 0, 4, -2])
    assert choose(values, 3) == [1, 6, 11]
    assert choose(values, 2) == [1, 6]
    assert choose(-values, 3) == [12]
    assert choose(np.zeros(4, int), 2) == []


def test_triptychs_show_both_sides(
    coco: CocoSet, perfect: list[Detections], tmp_path: Path,
) -> None:
    # One detects everything in the first half of the frames, the other in the second.
    sides = [[p if (i < 6) == first else NOTHING for i, p in enumerate(perfect)]
             for first in (True, False)]
    path = write_triptychs(sides, ('a', 'b'), coco, PLAIN, tmp_path / 't.png')
    picture = cv2.imread(str(path))
    rows = len(choose(np.array([len(p) for p in perfect[:6]]), 3)) + len(
        choose(np.array([len(p) for p in perfect[6:]]), 3))
    assert picture.shape == (rows * (384 + 24), 3 * (480 + 4), 3)
    for row in np.split(picture, rows):
        left, right, truth = (colored(part[:384]) for part in np.split(row, 3, 1))
        assert truth > 0 and sorted((left, right)) == [0, truth]
    first, last = (np.split(picture, rows)[i][:, 484:968] for i in (0, -1))
    assert colored(first[:384]) > 0 and colored(last[:384]) == 0


def test_triptychs_of_equals_and_failures_of_the_perfect(
    coco: CocoSet, perfect: list[Detections], tmp_path: Path,
) -> None:
    same = write_triptychs([perfect, perfect], ('a', 'b'), coco, PLAIN, tmp_path / 't.png')
    assert cv2.imread(str(same)).shape[0] == 3 * 408
    none = write_failures(perfect, 'a', coco, PLAIN, tmp_path / 'f.png')
    assert cv2.imread(str(none)).shape == (2 * 408, 484, 3)


def test_failures_are_above_their_truth(
    coco: CocoSet, perfect: list[Detections], tmp_path: Path,
) -> None:
    found = [NOTHING if i == 7 else p for i, p in enumerate(perfect)]
    picture = cv2.imread(str(write_failures(found, 'a', coco, PLAIN, tmp_path / 'f.png')))
    assert picture.shape == (2 * 408, 484, 3)
    assert colored(picture[:384]) == 0 and colored(picture[408:792]) > 0


def test_charts_of_missing_numbers() -> None:
    count = {'duplicates': None, 'found': 0, 'objects': 0}
    by_recall = {'0.1': None}
    result = {
        'variant': 'a', 'seed': 0, 'AP': None, 'AP50': None, 'AP75': None, 'per_class': {},
        'duplicates': {'before_nms': count, 'before_nms_relative': count, 'after_nms': count},
        'duplicates_at_recall': {'before_nms': by_recall, 'after_nms': by_recall},
        'confusion': {'confused': None, 'matrix': [[0, 0], [0, 0]], 'classes': ['x', 'nothing']},
        'separability': {'silhouette': None, 'neighbours': None}, 'curves': {'x': None}}
    for figure in (draw_curves([result], ['a'], ('x',)), draw_claims([result], ['a'], None),
                   draw_claims([result], ['a'], 0.1),
                   draw_confusions([result], ('a', 'a'))):
        figure.canvas.draw()
