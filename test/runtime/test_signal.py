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

"""Units and polarity of thermal frames."""

from dataclasses import replace

from cgdet_core.data.synthetic import Scene
from cgdet_core.runtime.detection.card import detection_card, DetectionCard
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
from cgdet_core.runtime.imaging.signal import CARD, inverted, seen, to_kelvin, UNITS
import numpy as np
import pytest

WINDOW = Normalization('window')
# How each unit encodes a temperature in kelvin, from the manuals and sources of the cameras.
ENCODED = {
    'centikelvin': lambda k: np.rint(100 * k).astype(np.uint16),
    'decikelvin': lambda k: np.rint(10 * k).astype(np.uint16),
    'u10.6': lambda k: np.rint(64 * (k - 273.15)).astype(np.uint16),
    'optris': lambda k: np.rint(10 * (k - 273.15) + 1000).astype(np.uint16),
    'kelvin': lambda k: k.astype(np.float32),
    'celsius': lambda k: (k - 273.15).astype(np.float32)}


@pytest.fixture(scope='module')
def kelvin() -> np.ndarray:
    frame = Scene.random(3, 160, 128).render()[0]
    return frame - frame.min() + np.float32(274)  # above 0 degrees Celsius, for U10.6


@pytest.mark.parametrize('unit', sorted(ENCODED))
def test_a_window_sees_the_same_in_every_unit(kelvin: np.ndarray, unit: str) -> None:
    found = normalize(to_kelvin(ENCODED[unit](kelvin), unit), WINDOW)
    step = 0.0 if unit in ('kelvin', 'celsius') else UNITS[unit][0]
    tolerance = (step / 2 + 1e-4) / (WINDOW.high_kelvin - WINDOW.low_kelvin)
    np.testing.assert_allclose(found, normalize(kelvin, WINDOW), atol=tolerance)


def test_every_unit_of_a_temperature_is_tested() -> None:
    assert {*ENCODED, 'counts', 'fraction'} == set(UNITS)


def test_counts_and_8_bit_frames_have_no_temperature(kelvin: np.ndarray) -> None:
    counts = ENCODED['centikelvin'](kelvin)
    gray = (counts >> 8).astype(np.uint8)
    assert to_kelvin(counts, 'counts') is counts and to_kelvin(counts, CARD) is counts
    assert all(to_kelvin(gray, unit) is gray for unit in UNITS)


@pytest.mark.parametrize('unit', ['centikelvin', 'decikelvin', 'u10.6', 'optris'])
def test_a_recipe_names_the_unit_of_16_bit_frames(kelvin: np.ndarray, unit: str) -> None:
    named = Normalization.from_dict({'kind': 'window', 'unit': unit})
    raw = ENCODED[unit](kelvin)
    np.testing.assert_allclose(
        normalize(raw, named), normalize(to_kelvin(raw, unit), WINDOW), atol=1e-5)
    assert Normalization.from_dict(named.to_dict()) == named


@pytest.mark.parametrize(('values', 'words'), [
    ({'unit': 'fahrenheit'}, 'unit must be one of counts, fraction, centi'),
    ({'unit': 'centikelvin', 'kelvin_per_count': 0.1}, 'unit or kelvin_per_count'),
    ({'unit': ['kelvin']}, 'unit must be one of'),
    ({'unit': 'counts', 'kind': 'window'}, 'the unit counts has none'),
    ({'unit': 'fraction', 'kind': 'window'}, 'the unit fraction has none')])
def test_wrong_units_are_named(values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Normalization.from_dict(values)


@pytest.mark.parametrize('kind', ['none', 'percentile', 'plateau'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_an_inverted_camera_looks_the_same_after_inversion(
    kelvin: np.ndarray, kind: str, dtype: type,
) -> None:
    spec = Normalization(kind)
    counts = ENCODED['centikelvin'](kelvin)
    frame = {np.uint8: (normalize(counts, spec) * 255).astype(np.uint8), np.uint16: counts,
             np.float32: kelvin}[dtype]
    camera = -frame if dtype == np.float32 else np.iinfo(dtype).max - frame
    again = inverted(camera)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, frame)
    # 14-bit counts that are inverted within their own range differ by a constant only.
    if dtype == np.uint16 and kind != 'none':
        low = inverted((16383 - frame // 4).astype(np.uint16))
        np.testing.assert_allclose(normalize(low, spec), normalize(frame // 4, spec), atol=1e-4)


@pytest.mark.parametrize('kind', ['none', 'percentile', 'plateau'])
@pytest.mark.parametrize('unit', [CARD, 'fraction'])
def test_black_hot_fractions_look_as_white_hot_ones(kind: str, unit: str) -> None:
    scene = (0.4 + 0.02 * np.random.default_rng(0).random((64, 80))).astype(np.float32)
    scene[20:40, 30:40] += 0.03  # less than the smallest span of kelvin
    white, black = (normalize(seen(frame, unit, polarity, 'white_hot'), Normalization(kind))
                    for frame, polarity in ((scene, 'white_hot'), (1 - scene, 'black_hot')))
    np.testing.assert_allclose(black, white, atol=0.01)


def test_dead_pixels_do_not_hide_that_values_are_fractions() -> None:
    frame = np.full((16, 16), 0.25, np.float32)
    frame[0, 0], frame[8, 8] = np.nan, np.inf
    assert inverted(frame)[1, 1] == 0.75
    assert np.isnan(inverted(np.full((8, 8), np.nan, np.float32))).all()


def test_celsius_near_zero_is_not_taken_for_fractions() -> None:
    frame = np.linspace(-3, 4, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert 0 < np.median(frame) < 1
    np.testing.assert_array_equal(inverted(frame), -frame)


def test_a_card_has_a_polarity() -> None:
    card = detection_card('m', ('person',), (64, 64), Normalization())
    assert card.polarity == 'white_hot'
    black = replace(card, polarity='black_hot')
    assert DetectionCard.from_dict(black.to_dict()) == black
    values = card.to_dict()
    del values['polarity']  # a card written before there was a polarity
    assert DetectionCard.from_dict(values) == card
    with pytest.raises(ValueError, match='polarity must be one of white_hot, black_hot'):
        replace(card, polarity='auto')
