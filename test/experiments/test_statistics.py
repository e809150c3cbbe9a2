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

"""Statistics of an ablation against values computed by hand and from tables."""

import math

from cgdet_core.experiments.statistics import (
    common_recall,
    markdown,
    metrics_of,
    paired_difference,
    spread,
    summarize,
)
import pytest


def result(variant: str, seed: int, ap: float, duplicates: float | None = 1.0) -> dict:
    """Return a run's numbers; most of them are not used here."""
    count = {'duplicates': duplicates, 'found': 5, 'objects': 12}
    by_recall = {'0.3': 3.0, '0.4': duplicates}
    return {
        'variant': variant, 'seed': seed, 'AP': ap, 'AP50': 2 * ap, 'AP75': None,
        'per_class': {'person': {'AP': ap, 'AP50': 0.5}, 'car': {'AP': None, 'AP50': None}},
        'per_time_of_day': {'night': {'AP': 0.1, 'AP50': 0.3, 'images': 1}},
        'duplicates': {'before_nms': count, 'before_nms_relative': count, 'after_nms': count},
        'duplicates_at_recall': {'before_nms': by_recall, 'after_nms': by_recall},
        'confusion': {'confused': 0.25}, 'separability': {'silhouette': 0.5, 'neighbours': 0.75}}


@pytest.mark.parametrize(('freedom', 'printed'), [
    (1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228),
    (29, 2.045), (120, 1.980)])
def test_intervals_are_students(freedom: int, printed: float) -> None:
    differences = dict(enumerate(range(freedom + 1)))
    found = paired_difference(differences, dict.fromkeys(differences, 0))
    error = spread(list(differences.values()))['std'] / math.sqrt(freedom + 1)
    assert (found['high'] - found['mean']) / error == pytest.approx(printed, abs=5e-4)
    assert found['high'] + found['low'] == pytest.approx(2 * found['mean'])


def test_spread() -> None:
    assert spread([1, 2, 6]) == {'mean': 3, 'std': pytest.approx(math.sqrt(7))}
    assert spread([4]) == {'mean': 4, 'std': None}
    assert spread([]) == {'mean': None, 'std': None}


def test_paired_difference() -> None:
    # Differences 1, 2, 3 over the seeds 0, 1, 2: mean 2, deviation 1, half 4.3027 / sqrt 3.
    found = paired_difference({0: 11, 1: 22, 2: 33, 7: 0}, {2: 30, 1: 20, 0: 10, 5: 9})
    assert (found['mean'], found['n']) == (2, 3)
    assert found['low'] == pytest.approx(2 - 2.48414, abs=1e-5)
    assert found['high'] == pytest.approx(2 + 2.48414, abs=1e-5)
    assert paired_difference({3: 5}, {3: 4}) == {'mean': 1, 'low': None, 'high': None, 'n': 1}
    assert paired_difference({3: 5}, {4: 4})['mean'] is None


def test_metrics_of_a_run() -> None:
    found = metrics_of(result('a', 0, 0.2), 0.3)
    assert found['AP'] == 0.2 and found['AP50 person'] == 0.5 and found['AP50 night'] == 0.3
    assert found['AP50 car'] is None and found['confused'] == 0.25
    assert list(found)[-8:] == [
        'duplicates', 'duplicates, relative', 'duplicates after NMS', 'confused', 'silhouette',
        'neighbours', 'duplicates at equal recall', 'after NMS at equal recall']
    assert (found['duplicates'], found['duplicates at equal recall']) == (1, 3)
    assert metrics_of(result('a', 0, 0.2), None)['after NMS at equal recall'] is None


@pytest.mark.parametrize(('found', 'objects', 'expected'), [
    ((5,), 12, 0.4), ((19, 20, 21), 100, 0.2), ((1,), 12, None), ((12,), 12, 0.9),
    ((0,), 0, None)])
def test_duplicates_are_compared_where_the_reference_is(
    found: tuple[int, ...], objects: int, expected: float | None,
) -> None:
    runs = [{'variant': 'plain', 'duplicates': {'before_nms': {'found': n, 'objects': objects}}}
            for n in found]
    other = {'variant': 'rcs', 'duplicates': {'before_nms': {'found': 9, 'objects': 9}}}
    assert common_recall([other, *runs], 'plain') == expected
    assert common_recall([other], 'plain') is None


def test_a_grid_half_done() -> None:
    runs = [result('both', 0, 0.3), result('plain', 1, 0.4), result('plain', 0, 0.2)]
    summary = summarize(runs, ['plain', 'rcs', 'both'])
    plain, both = summary['variants']['plain'], summary['variants']['both']
    assert plain['seeds'] == [0, 1] and summary['variants']['rcs']['seeds'] == []
    assert plain['metrics']['AP']['mean'] == pytest.approx(0.3)
    assert 'difference' not in plain['metrics']['AP']
    assert both['metrics']['AP']['difference']['mean'] == pytest.approx(0.1)
    assert both['metrics']['AP']['std'] is None
    text = markdown(summary, 6)
    assert '3 of 6 runs are finished' in text and 'rcs' not in text
    assert '| plain | 2 | 0.300 ± 0.141 |' in text
    assert '| both | 1 | +0.100 |' in text and 'Difference to plain' in text


def test_intervals_are_written_out() -> None:
    runs = [result(v, s, 0.1 * s + 0.01 * (1 + s) * (v == 'rcs'))
            for v in ('plain', 'rcs') for s in range(3)]
    text = markdown(summarize(runs, ['plain', 'rcs']), 6)
    assert '| rcs | 3 | +0.020 [-0.005, +0.045] |' in text


def test_runs_without_a_number() -> None:
    runs = [result('plain', 0, 0.1, None), result('rcs', 0, 0.1, 2.0)]
    summary = summarize(runs, ['plain', 'rcs'])
    duplicates = summary['variants']['plain']['metrics']['duplicates']
    assert duplicates['mean'] is None and duplicates['values'] == {}
    assert summary['variants']['rcs']['metrics']['duplicates']['difference']['n'] == 0
    assert '- |' in markdown(summary, 2)


def test_only_other_variants_are_finished() -> None:
    text = markdown(summarize([result('rcs', 0, 0.1)], ['plain', 'rcs']), 2)
    assert 'Difference' not in text and '| rcs | 1 |' in text
