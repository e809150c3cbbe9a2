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

"""The benchmark of training steps, as a user runs it."""

import json
from pathlib import Path
import subprocess
import sys

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs_with_loading_workers(
    tmp_path: Path, recipe_values: dict, pairs: Path, rgb_teacher: Path,
) -> None:
    recipe = tmp_path / 'recipe.yaml'
    recipe.write_text(yaml.safe_dump({
        **recipe_values, 'data': {'train': str(pairs), 'val': str(pairs)}, 'rcs': {},
        'cmg': {'teacher': {'path': str(rgb_teacher), 'cache': str(tmp_path / 'features')}}}))
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_core.experiments.step_cost', str(recipe), '--steps', '4',
         'run.workers=1', '--rounds', '1'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    variants = {k: v for k, v in report.items() if isinstance(v, dict)}
    assert list(variants) == ['plain', 'rcs', 'rcs + cmg, cached', 'rcs + cmg, not cached']
    for numbers in variants.values():
        assert min(numbers.values()) > 0
    assert report['workers'] == 1
    # A benchmark leaves no run folder.
    assert {p.name for p in tmp_path.iterdir()} <= {'recipe.yaml', 'features'}
