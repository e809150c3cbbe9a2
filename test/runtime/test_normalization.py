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

"""Normalization: monotone, in range, the same for every unit, robust to odd frames."""

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.runtime.imaging.normalization import KINDS, Normalization, normalize
from hypothesis import given, settings, strategies
from hypothesis.extra import numpy as arrays
import numpy as np
import pytest

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
FRAMES = strategies.one_of(
    arrays.arrays(np.uint8, SHAPES), arrays.arrays(np.uint16, SHAPES),
    arrays.arrays(np.float32, SHAPES, elements=strategies.floats(200, 400, width=32)))


def allowed(frame: np.ndarray, kind: str) -> bool:
    return not (kind == 'window' and frame.dtype == np.uint8)


@settings(max_examples=150, deadline=None)
@given(frame=FRAMES, kind=strategies.sampled_from(KINDS))
def test_values_of_any_frame_are_finite_in_range_and_keep_its_order(frame, kind) -> None:
    if not allowed(frame, kind):
        return
    before = frame.copy()
    result = normalize(frame, Normalization(kind))
    assert result.shape == frame.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.min() >= 0 and result.max() <= 1
    order = np.argsort(frame, axis=None, kind='stable')
    assert (np.diff(result.ravel()[order]) >= -1e-6).all()
    assert (frame == before).all()


@pytest.mark.parametrize('kind', ['percentile', 'plateau'])
def test_the_unit_does_not_matter(kind: str) -> None:
    levels = (Scene.random(3, 160, 128).render()[0] * 3 - 750).astype(np.uint8)
    spec = Normalization(kind)
    expected = normalize(levels, spec)
    assert expected.std() > 0.1
    for factor, offset in ((64, 0), (257, 0), (40, 3000)):
        counts = levels.astype(np.uint16) * factor + offset
        np.testing.assert_allclose(normalize(counts, spec), expected, atol=1e-5)


@pytest.mark.parametrize('kind', ['percentile', 'plateau'])
@pytest.mark.parametrize('size', [(160, 128), (640, 512)])
def test_kelvin_is_seen_as_hundredths_of_it_are(kind: str, size: tuple[int, int]) -> None:
    counts = to_counts(Scene.random(4, *size).render()[0])
    spec = Normalization(kind)
    kelvin = counts.astype(np.float32) / 100
    np.testing.assert_allclose(normalize(kelvin, spec), normalize(counts, spec), atol=2e-3)


@pytest.mark.parametrize('kind', ['percentile', 'plateau'])
@pytest.mark.parametrize('steps', [20000, 300, 60])  # of 65535; from 100 on they are stretched
def test_fractions_are_seen_as_their_65535ths_are(kind: str, steps: int) -> None:
    kelvin, _, _ = Scene.random(4, 640, 512).render()
    counts = np.rint(30000 + steps * (kelvin - kelvin.min()) / np.ptp(kelvin)).astype(np.uint16)
    spec = Normalization(kind)
    np.testing.assert_allclose(normalize((counts / 65535).astype(np.float32), spec),
                               normalize(counts, spec), atol=2e-2 if steps < 1000 else 2e-3)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_the_plateau_is_the_plain_formula(dtype: type) -> None:
    counts = to_counts(Scene.random(6, 160, 128).render()[0])
    frame = (counts // 128 if dtype == np.uint8 else counts).astype(dtype)
    low, high = np.percentile(frame, (0.5, 99.9), method='inverted_cdf')
    bins, edges = np.histogram(frame, 64, (low, high))
    mean = frame.size / 64
    weights = np.minimum(bins, 3 * mean) + mean / 2
    expected = np.interp(frame, edges, np.append(0, np.cumsum(weights)) / weights.sum())
    np.testing.assert_allclose(normalize(frame, Normalization()), expected, atol=1e-6)


def test_16_bit_detail_survives_where_the_usual_scaling_loses_it() -> None:
    counts = to_counts(Scene.random(1).render()[0])
    usual = (counts / 256).astype(np.uint8)
    assert len(np.unique(usual)) < 32
    for kind in ('window', 'percentile', 'plateau'):
        assert len(np.unique(normalize(counts, Normalization(kind)))) > 500


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_a_flat_frame_stays_flat(dtype, normalization: Normalization) -> None:
    result = normalize(np.full((20, 30), 90, dtype), normalization)
    assert np.ptp(result) == 0


@pytest.mark.parametrize(('kind', 'gain'), [('percentile', 1.0), ('plateau', 7.0)])
def test_noise_of_a_flat_frame_is_not_amplified(kind: str, gain: float) -> None:
    noise = np.random.default_rng(0).integers(-3, 4, (64, 64))
    spec = Normalization(kind, min_span_16bit=100)
    result = normalize((29000 + noise).astype(np.uint16), spec)
    # The steepest the curve can be: (plateau_limit + 0.5) / 0.5 times the straight stretch.
    assert 0.05 < np.ptp(result) <= 6 / 100 * gain + 1e-6


@pytest.mark.parametrize('kind', ['percentile', 'plateau'])
def test_dead_and_hot_pixels_change_nothing_else(kind: str) -> None:
    counts = to_counts(Scene.random(2, 320, 256).render()[0])
    damaged = counts.copy()
    damaged.ravel()[::4001] = 0
    damaged.ravel()[1::4001] = 65535
    good = damaged == counts
    difference = np.abs(normalize(damaged, Normalization(kind)) -
                        normalize(counts, Normalization(kind)))
    assert difference[good].max() < 0.05


def test_window_maps_kelvin() -> None:
    spec = Normalization('window', low_kelvin=270.0, high_kelvin=310.0)
    for frame in (np.array([[270, 290, 310, 400]], np.float32),
                  np.array([[27000, 29000, 31000, 40000]], np.uint16)):
        np.testing.assert_allclose(normalize(frame, spec), [[0, 0.5, 1, 1]], atol=1e-5)
    celsius = Normalization('window', kelvin_per_count=0.04, kelvin_offset=0.0,
                            low_kelvin=270.0, high_kelvin=310.0)
    assert normalize(np.array([[7250]], np.uint16), celsius) == pytest.approx(0.5)


def test_strided_views_and_output_buffers(normalization: Normalization) -> None:
    wide = np.random.default_rng(0).integers(0, 4000, (40, 64)).astype(np.uint16)
    view = wide[:, :50]
    out = np.zeros((60, 80), np.float32)
    result = normalize(view, normalization, out[:40, :50])
    assert result.base is not None and np.shares_memory(result, out)
    np.testing.assert_array_equal(out[:40, :50], normalize(view.copy(), normalization))
    assert (out[40:] == 0).all() and (out[:, 50:] == 0).all()


@pytest.mark.parametrize(('frame', 'words'), [
    (np.zeros((0, 4), np.uint8), 'shape'),
    (np.zeros((4, 4, 3), np.uint8), 'shape'),
    (np.zeros((4, 4), np.int32), 'int32'),
    (np.full((4, 4), np.nan, np.float32), 'NaN'),
    (np.full((4, 4), np.inf, np.float32), 'NaN or infinite'),
])
def test_bad_frames_are_refused_with_a_reason(frame, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        normalize(frame, Normalization())


def test_bad_specifications_are_refused() -> None:
    for values in ({'kind': 'minmax'}, {'low_percentile': 99.95}, {'min_span_16bit': 0},
                   {'low_kelvin': 400.0}, {'plateau': 2}):
        with pytest.raises(ValueError):
            Normalization.from_dict(values)
    with pytest.raises(ValueError, match='temperatures'):
        normalize(np.zeros((4, 4), np.uint8), Normalization('window'))
