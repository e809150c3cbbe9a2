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

"""Boxes, labels, truth and legend: where they are, and at and outside the borders."""

from itertools import combinations

from cgdet_core.runtime import Detections, Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.imaging.drawing import (
    BLACK,
    COLORS,
    draw_boxes,
    draw_legend,
    draw_truth,
    line_width,
    place_labels,
    WHITE,
)
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

SIZES = [(160, 120), (640, 512), (1280, 1024), (80, 60), (33, 200), (1, 1)]
CLASSES = ('person', 'bicycle', 'car')


def blank(size: tuple[int, int], value: int = 128) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


def colored(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Return where an image (H, W, 3) has a color."""
    return (picture == color).all(2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from([(160, 120), (640, 512)]))
def test_labels_of_crowded_boxes_neither_overlap_nor_leave_the_image(
    seed: int, count: int, limits: tuple[int, int],
) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(0, limits, (count, 2)) // random.integers(1, 4)  # some in a corner
    boxes = np.clip(np.hstack([first, first + random.integers(0, 60, (count, 2))]), 0,
                    np.array(limits * 2) - 1)
    sizes = list(map(tuple, random.integers((20, 8), (70, 14), (count, 2)).tolist()))
    places = place_labels(boxes, sizes, limits)
    labels = [(x, y, x + w, y + h) for (x, y), (w, h) in (
        (place, size) for place, size in zip(places, sizes) if place is not None)]
    for x1, y1, x2, y2 in labels:
        assert x1 >= 0 and y1 >= 0 and x2 <= limits[0] and y2 <= limits[1]
    for a, b in combinations(labels, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert len(places) == count and (count == 0 or places[0] is not None)
    for box, place, size in zip(boxes.tolist(), places, sizes):
        if place is not None:  # it touches its box
            assert place[0] <= box[2] + 1 and place[0] + size[0] >= box[0]
            assert place[1] <= box[3] + 1 and place[1] + size[1] >= box[1]


@pytest.mark.parametrize(('box', 'place'), [
    ((20, 40, 60, 80), (20, 30)),  # above
    ((20, 4, 60, 80), (20, 81)),  # below, at the upper border
    ((80, 40, 99, 80), (70, 30)),  # above, aligned at the right border
    ((20, 0, 60, 99), (61, 0)),  # beside a box of the whole height
    ((0, 0, 99, 99), (0, 0)),  # inside, if there is no room outside
])
def test_a_label_is_next_to_its_box(box: tuple, place: tuple[int, int]) -> None:
    assert place_labels(np.array([box]), [(30, 10)], (100, 100)) == [place]


def test_a_label_avoids_other_boxes_and_a_large_one_is_left_out() -> None:
    boxes = np.array([[20, 40, 60, 80], [20, 25, 60, 39]])
    assert place_labels(boxes, [(30, 10), (30, 10)], (100, 100)) == [(20, 81), (20, 15)]
    assert place_labels(boxes, [(101, 10), (30, 10)], (100, 100)) == [None, (20, 15)]


@pytest.mark.parametrize('size', SIZES[:3])
def test_text_is_black_on_the_color_of_its_box(size: tuple[int, int]) -> None:
    width, height = size
    picture = blank(size)
    box = np.array([[width // 2, height // 2, width // 2 + 20, height // 2 + 20]], np.float32)
    draw_boxes(picture, box, ['person 0.87'], [COLORS[1]])
    x, y = width // 2, height // 2
    assert tuple(picture[y + 10, x]) == tuple(picture[y + 20, x + 10]) == COLORS[1]
    assert tuple(picture[y + 10, x + 10]) == (128, 128, 128)
    label = picture[y - 12 * width // 640 - 5:y - line_width(picture)]
    rows, columns = np.nonzero(colored(label, COLORS[1]))
    text = label[rows.min():rows.max() + 1, columns.min():columns.max() + 1]
    assert columns.min() == x and (text < 100).all(2).sum() > 10  # letters
    assert (picture != 128).any(2).sum() < 0.15 * width * height


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('box', [
    (0, 0, 1, 1), (-5, -5, 3, 3), (-50, -50, 2000, 2000), (-50, 3, -10, 9), (0, 0, 0, 0),
    (3000, 3000, 3100, 3100), (-1e30, -1e30, 1e30, 1e30), (-np.inf, 0, np.inf, 5),
    (np.nan, 0, 9, 9)])
def test_boxes_at_and_outside_the_borders(
    size: tuple[int, int], box: tuple[float, float, float, float],
) -> None:
    picture, boxes = blank(size), np.array([box], np.float32)
    draw_truth(picture, boxes)
    draw_boxes(picture, boxes, ['person 1.00'], [COLORS[0]])
    draw_legend(picture, CLASSES, truth=True)
    untouched = blank(size)
    draw_boxes(untouched, boxes, ['person 1.00'], [COLORS[0]])
    outside = np.isnan(box[0]) or box[2] < 0 or box[0] > 2000
    assert (untouched == 128).all() == outside


def test_the_border_of_a_box_clipped_to_the_frame_is_visible() -> None:
    picture = blank((160, 120))
    draw_boxes(picture, np.array([[100, 80, 160, 120]], np.float32), [''], [COLORS[2]])
    assert tuple(picture[119, 130]) == tuple(picture[100, 159]) == COLORS[2]


@pytest.mark.parametrize('value', [0, 255])
@pytest.mark.parametrize('size', SIZES[:3])
def test_truth_is_visible_on_black_and_on_white(size: tuple[int, int], value: int) -> None:
    picture = blank(size, value)
    draw_truth(picture, np.array([[20, 30, 120, 100]], np.float32))
    for edge in (picture[30, 20:121], picture[100, 20:121], picture[30:101, 20],
                 picture[30:101, 120]):
        assert set(map(tuple, edge)) == {BLACK, WHITE}
        assert 0.3 < (edge == 255 - value).all(1).mean() < 0.7
    inner = picture[34:97, 24:117]
    assert (inner == value).all()


def test_an_image_with_truth_has_a_legend_below_and_detections_above() -> None:
    card = detection_card('m', CLASSES, (64, 64), Normalization('none'))
    boxes = np.array([[100, 50, 200, 150]], np.float32)
    found = Detections(boxes, np.array([0.9], np.float32), np.array([2]))
    frame = np.zeros((240, 320), np.uint8)
    plain, both = draw_detections(frame, found, card), draw_detections(frame, found, card, boxes)
    np.testing.assert_array_equal(plain[:200], both[:200])  # the detection hides equal truth
    assert (plain[220:] == 0).all() and (both[225:] > 0).any()
    for color in COLORS[:3]:
        assert colored(both[220:], color).any()
    missed = draw_detections(frame, found.above(1.0), card, boxes)
    assert (missed[50, 100:200] == 255).any() and not colored(missed[:220], COLORS[2]).any()
