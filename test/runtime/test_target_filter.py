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

"""The filter learns a target, keeps its first samples, and rejects what looks like it."""

from cgdet_core.runtime.tracking.decoding import best_places, refine
from cgdet_core.runtime.tracking.filter import FilterSettings, TargetFilter
import numpy as np
from numpy.typing import NDArray
import pytest
from toy_tracker import settings

SIZE, CHANNELS = 16, 8


def features(center: tuple[int, int], seed: int = 0, other: tuple[int, int] | None = None,
             ) -> NDArray[np.float32]:
    """Return features with a target's 4x4 cells whose corner (x, y) `center` is in the middle."""
    rng = np.random.default_rng(seed)
    target = np.random.default_rng(99).standard_normal((CHANNELS, 4, 4))
    found = 0.3 * rng.standard_normal((CHANNELS, SIZE, SIZE))
    for number, place in enumerate(filter(None, (center, other))):
        x, y = place
        pattern = target if number == 0 else target + 0.8 * np.random.default_rng(
            98).standard_normal(target.shape)
        found[:, y - 2:y + 2, x - 2:x + 2] = pattern
    return (found / 10).astype(np.float32)


def started(**values: object) -> TargetFilter:
    made = TargetFilter(settings(), CHANNELS, SIZE, **values)
    made.start(features((8, 8))[None], np.array([[8.0, 8.0]]))
    return made


def peak(scores: NDArray[np.float32]) -> tuple[int, int]:
    row, column = divmod(int(scores.argmax()), scores.shape[1])
    return column, row


def test_a_moved_target_is_found() -> None:
    made = started()
    assert peak(made.scores(features((8, 8)))) == (8, 8)
    assert peak(made.scores(features((11, 5), 1))) == (11, 5)
    assert made.scores(features((11, 5), 1)).max() > 0.5


def test_steps_lower_the_residual() -> None:
    made = TargetFilter(settings(), CHANNELS, SIZE)
    made.start(features((8, 8))[None], np.array([[8.0, 8.0]]), steps=0)
    label, _, _ = settings().functions(SIZE, np.array([[8.0, 8.0]]))

    def residual() -> float:
        scores = made.scores(features((8, 8)))
        return float(np.square(np.where(label[0] > 0.1, scores - label[0],
                                        np.maximum(scores, 0))).sum())

    before = residual()
    made.improve(5)
    assert residual() < 0.5 * before


def test_a_sample_with_a_rival_lowers_the_rivals_score() -> None:
    made = started()
    seen = features((5, 8), 2, other=(11, 8))
    before = made.scores(seen)[8, 11]
    for _ in range(5):
        made.add(seen, np.array([5.0, 8.0]), rate=0.2)
    made.improve(5)
    after = made.scores(seen)
    assert after[8, 11] < 0.7 * before and peak(after) == (5, 8)


def test_the_first_sample_is_kept_and_has_its_share() -> None:
    made = started(capacity=4)
    first = made._samples[:, 0].copy()
    for number in range(10):
        made.add(features((8, 8), number + 3), np.array([8.0, 8.0]), rate=0.5)
    assert made.count == 4 and np.array_equal(made._samples[:, 0], first)
    assert made._weights[:4].sum() == pytest.approx(1)
    assert made._weights[0] == pytest.approx(made.share)


def test_functions_are_linear_between_knots_and_constant_beyond() -> None:
    made = FilterSettings(1, 1, 0.1, 0.5, (1.0, 0.5, 0.0), (1.0, 1.0, 0.0), (2.0, 2.0, 2.0))
    label, mask, weight = made.functions(8, np.array([[4.25, 4.0]]))
    assert label[0, 4, 4] == pytest.approx(0.75) and label[0, 0, 0] == 0
    assert mask[0, 4, 4] == 1 and mask[0, 4, 0] == 0 and (weight == 2).all()


def test_scores_are_interpolated_at_fine_cells() -> None:
    scores = np.zeros((9, 9), np.float32)
    scores[3, 5] = 1  # at x = 5 coarse cells: between fine cells 9 and 10
    fine = refine(scores)
    assert fine.shape == (16, 16)
    assert fine[5, 9] == pytest.approx(fine[6, 10]) == fine.max() > 0.5
    assert refine(np.full((9, 9), 0.7, np.float32)) == pytest.approx(np.full((16, 16), 0.7))


def test_the_best_place_and_its_rival() -> None:
    scores = np.zeros((16, 16), np.float32)
    scores[4, 4], scores[12, 12] = 0.8, 0.6
    centers = 8 * (np.arange(16) + 0.5)
    x, y = np.meshgrid(centers, centers)
    boxes = np.stack([x - 16, y - 16, x + 16, y + 16]).astype(np.float32)
    quality = np.full((16, 16), 0.5, np.float32)
    best, second = best_places(scores, boxes, quality, count=2)
    assert best.box == pytest.approx([20, 20, 52, 52]) and best.match == pytest.approx(0.25)
    assert second.box == pytest.approx([84, 84, 116, 116])
    window = np.ones((16, 16), np.float32)
    window[:8] = 0.5  # the target is expected further down
    assert best_places(scores, boxes, quality, window)[0].box == pytest.approx(second.box)
