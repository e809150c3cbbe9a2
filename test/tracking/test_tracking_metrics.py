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

"""Success and precision against values counted by hand, with the quirks of each toolkit."""

from typing import Any

from cgdet_core.tracking.benchmarks import Benchmark, BENCHMARKS
from cgdet_core.tracking.metrics import compare, curves_of, join, overlaps, score
import numpy as np
from numpy.typing import NDArray
import pytest

PLAIN, LASHER, LSOTB = (BENCHMARKS[name] for name in ('plain', 'lasher', 'lsotb-tir'))
TRUTH = np.array([[10.0, 10, 20, 20]])


def shifted(*pixels: float) -> NDArray[np.float64]:
    """Return the box of TRUTH, shifted to the right by each number of pixels."""
    return TRUTH + np.array([(x, 0, 0, 0) for x in pixels])


def count(boxes: NDArray[np.float64], benchmark: Benchmark = PLAIN,
          *truths: NDArray[np.float64]) -> dict[str, Any]:
    wanted = list(truths) or [np.repeat(TRUTH, len(boxes), 0)]
    return score(curves_of(compare(boxes, wanted, benchmark), benchmark), benchmark)


def test_a_square_that_is_shifted() -> None:
    # A shift of d has an IoU of (20 - d) / (20 + d): 1, 0.6, 1/3 and 0. They exceed 20, 12 (0.6
    # does not exceed 0.6), 7 and 0 (0 does not exceed 0) of the 21 thresholds.
    found = count(shifted(0, 5, 10, 20))
    assert found == {'success_auc': pytest.approx((20 + 12 + 7 + 0) / 21 / 4),
                     'precision_20px': 1.0, 'normalized_precision': 0.25, 'frames': 4}
    assert count(shifted(0, 20, 20.01, 40))['precision_20px'] == 0.5
    # 0.15 and 0.195 of the width are at most 0.2.
    assert count(shifted(0, 3, 3.9, 4.1))['normalized_precision'] == 0.75


def test_a_perfect_result_does_not_reach_an_area_of_1() -> None:
    assert count(shifted(0, 0, 0))['success_auc'] == pytest.approx(20 / 21)


def test_the_overlap_of_boxes_without_area_or_contact() -> None:
    first = np.array([(0, 0, 10, 10), (0, 0, 10, 10), (5, 5, 1, 1), (0, 0, -3, 4.0)])
    second = np.array([(0, 0, 5, 20), (10, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 10.0)])
    assert overlaps(first, second)[:3] == pytest.approx([50 / 150, 0, 0.01])
    assert not overlaps(first, second)[3] > 0


def test_the_first_result_is_the_truth_in_some_toolkits() -> None:
    boxes = shifted(30, 0)
    assert count(boxes, LASHER)['precision_20px'] == 1.0
    assert count(boxes, BENCHMARKS['rgbt234'])['precision_20px'] == 0.5


def test_a_result_without_area_repeats_the_one_before() -> None:
    boxes = shifted(0, 0, 0, 0)
    boxes[1, 2], boxes[2, 3], boxes[3] = 0, -1, np.nan
    for name in ('lasher', 'lsotb-tir', 'ptb-tir'):
        assert count(boxes, BENCHMARKS[name])['success_auc'] == pytest.approx(20 / 21)
    assert count(boxes, BENCHMARKS['rgbt210'])['success_auc'] == pytest.approx(20 / 21 / 4)


def test_a_truth_at_the_border_counts_as_near_and_as_missed() -> None:
    """In these toolkits a truth with x = 0 is invalid, as is one that is not there."""
    truth = np.repeat(TRUTH, 5, 0)
    truth[1, 0], truth[2, 1], truth[3, 2], truth[4] = 0, 0, 0, np.nan
    boxes = truth.copy()
    boxes[1:] += 500
    for name in ('lasher', 'lsotb-tir', 'ptb-tir'):
        found = count(boxes, BENCHMARKS[name], truth)
        assert found['success_auc'] == pytest.approx(20 / 21 / 5)
        assert found['precision_20px'] == 1.0 and found['normalized_precision'] == 1.0


def test_a_frame_counts_with_the_better_of_two_truths() -> None:
    thermal, rgb = np.repeat(shifted(0), 3, 0), shifted(0, 30, 60)
    boxes = shifted(0, 30, 60)
    for name in ('rgbt234', 'gtot', 'vtuav'):
        found = count(boxes, BENCHMARKS[name], thermal, rgb)
        assert found['precision_20px'] == 1.0
        assert found['success_auc'] == pytest.approx(0.975 if name == 'gtot' else 20 / 21)
    assert count(boxes, PLAIN, thermal)['precision_20px'] == pytest.approx(1 / 3)


def test_gtot_counts_below_5_pixels_frame_by_frame_with_trapezoids() -> None:
    gtot = BENCHMARKS['gtot']
    # Of the success curves, 20, 12, 7 and 0 values are 1; trapezoids halve the first.
    first, second = (curves_of(compare(b, [np.repeat(TRUTH, len(b), 0)], gtot), gtot)
                     for b in (shifted(0, 5, 10, 20), shifted(4.9)))
    assert score(first, gtot) == {
        'success_auc': pytest.approx((19.5 + 11.5 + 6.5 + 0) / 20 / 4), 'precision_5px': 0.25,
        'precision_20px': 0.75, 'normalized_precision': 0.25, 'frames': 4}
    both = score(join([first, second], gtot), gtot)
    assert both['precision_5px'] == pytest.approx((1 + 1) / 5) and both['frames'] == 5
    # (20 - 4.9) / (20 + 4.9) = 0.606 exceeds 13 thresholds.
    assert both['success_auc'] == pytest.approx((19.5 + 11.5 + 6.5 + 0 + 12.5) / 20 / 5)


def test_other_benchmarks_average_sequences() -> None:
    long, short = (curves_of(compare(b, [np.repeat(TRUTH, len(b), 0)], PLAIN), PLAIN)
                   for b in (shifted(0, 40, 40, 40), shifted(0)))
    assert score(join([long, short], PLAIN), PLAIN)['precision_20px'] == (0.25 + 1) / 2


def test_lsotb_tir_averages_the_normalized_precision() -> None:
    # Errors of 0, 0.225, 0.475 and 1 are at most 51, 28, 3 and 0 of the 51 thresholds.
    boxes = shifted(0, 4.5, 9.5, 20)
    assert count(boxes, LSOTB)['normalized_precision'] == pytest.approx((51 + 28 + 3) / 51 / 4)
    assert count(boxes, BENCHMARKS['ptb-tir'])['normalized_precision'] == 0.25


def test_lsotb_tir_leaves_sequences_without_any_success_out_of_the_mean() -> None:
    truth = np.repeat(TRUTH, 2, 0)
    truth[:, 0] = 0
    lost, good = (curves_of(compare(shifted(0, 0), [t], LSOTB), LSOTB)
                  for t in (truth, np.repeat(TRUTH, 2, 0)))
    assert not lost.success.any()
    assert score(join([lost, good], LSOTB), LSOTB)['success_auc'] == pytest.approx(20 / 21)
    assert score(join([lost], LSOTB), LSOTB)['success_auc'] == 0
