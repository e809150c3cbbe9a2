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

"""Corruptions: repeatable, of the frame's type, stronger from strength to strength."""

from cgdet_core.data.corruptions import corrupt, CORRUPTIONS, STRENGTHS
from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import numpy as np
import pytest


@pytest.fixture(scope='module', params=['8 bit', '16 bit', 'kelvin'])
def frame(request: pytest.FixtureRequest) -> np.ndarray:
    counts = to_counts(Scene.random(5, 160, 128).render()[0])
    if request.param != '8 bit':
        return counts if request.param == '16 bit' else counts / np.float32(100)
    return (normalize(counts, Normalization('percentile')) * 200 + 20).astype(np.uint8)


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_each_strength_changes_more(frame: np.ndarray, name: str) -> None:
    before = frame.copy()
    changes = []
    for strength in STRENGTHS:
        frames = [corrupt(frame, name, strength, number) for number in range(8)]
        assert all(f.dtype == frame.dtype and f.shape == frame.shape for f in frames)
        changes.append(np.mean([np.abs(f - frame.astype(np.float64)).mean() for f in frames]))
    np.testing.assert_array_equal(frame, before)
    assert changes[0] > 0 and changes == sorted(changes) and len(set(changes)) > 2


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_the_same_seed_and_number_are_the_same_frame(frame: np.ndarray, name: str) -> None:
    np.testing.assert_array_equal(corrupt(frame, name, 3, 4, 9), corrupt(frame, name, 3, 4, 9))


@pytest.mark.parametrize('name', ['fixed-pattern noise', 'row noise', 'dead pixels', 'fog'])
def test_another_seed_is_other_noise(frame: np.ndarray, name: str) -> None:
    assert (corrupt(frame, name, 3, 4, 1) != corrupt(frame, name, 3, 4, 2)).any()


def test_fixed_patterns_stay_and_row_noise_does_not(frame: np.ndarray) -> None:
    for name in ('fixed-pattern noise', 'dead pixels'):
        np.testing.assert_array_equal(corrupt(frame, name, 3, 1), corrupt(frame, name, 3, 2))
    assert (corrupt(frame, 'row noise', 3, 1) != corrupt(frame, 'row noise', 3, 2)).any()


def test_dead_pixels_have_the_share_and_the_ends_of_the_type(frame: np.ndarray) -> None:
    changed = corrupt(frame, 'dead pixels', 5)
    ends = (changed <= changed.min()) | (changed >= changed.max())
    assert 0.04 < ends.mean() < 0.06
    np.testing.assert_allclose(changed[~ends], frame[~ends], rtol=1e-6)
    if frame.dtype != np.float32:
        assert (changed.min(), changed.max()) == (0, np.iinfo(frame.dtype).max)


def test_polarity_inverts_its_share_of_the_frames(frame: np.ndarray) -> None:
    for strength, share in ((1, 0.2), (3, 0.6), (5, 1.0)):
        other = [np.abs(corrupt(frame, 'polarity', strength, n) - frame.astype(float)).max() > 1
                 for n in range(200)]
        assert abs(np.mean(other) - share) < 0.08
    flipped = corrupt(frame, 'polarity', 5).astype(np.float64)
    assert np.corrcoef(flipped.ravel(), frame.ravel())[0, 1] < -0.95
