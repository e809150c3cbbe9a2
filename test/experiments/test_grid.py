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

"""Grids: reading, checks and error messages."""

from pathlib import Path
import shlex

from cgdet_core.distillation.objectives import OBJECTIVES
from cgdet_core.errors import UserError
from cgdet_core.experiments.grid import comparable, load_ablation, recipe_hash
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = {'plain': {'rcs': None}, 'rcs': {'rcs.weight': 0.3}, 'deep': {
    'rcs': {'weight': 0.4, 'queue': 8}, 'optim': {'lr': 0.5}}}


def write(folder: Path, recipe_values: dict, **grid: object) -> Path:
    """Write a recipe and a grid next to it."""
    (folder / 'tiny.yaml').write_text(yaml.safe_dump(recipe_values))
    path = folder / 'grid.yaml'
    path.write_text(yaml.safe_dump(
        {'base': 'tiny.yaml', 'seeds': [0, 5], 'variants': VARIANTS, **grid}, sort_keys=False))
    return path


def test_the_shipped_grid(tmp_path: Path) -> None:
    grid = load_ablation(ROOT / 'config' / 'train' / 'ablation.yaml', tmp_path)
    assert grid.variants[:4] == ['plain', 'rcs', 'cmg', 'both'] and grid.shown == 'both'
    on = {r.variant: (r.recipe.rcs is not None, r.recipe.cmg is not None) for r in grid.runs}
    assert [on[v] for v in grid.variants[:4]] == [
        (False, False), (True, False), (False, True), (True, True)]
    objectives = {r.recipe.cmg.objective for r in grid.runs if r.recipe.cmg}
    assert objectives == set(OBJECTIVES)
    teachers = {r.recipe.cmg.teacher.path for r in grid.runs if r.recipe.cmg}
    assert teachers == {None, Path('runs/rgb_teacher/best.ckpt')}


def test_the_command_of_the_shipped_grid(tmp_path: Path) -> None:
    path = ROOT / 'config' / 'train' / 'ablation.yaml'
    line = next(x for x in path.read_text().splitlines() if x.startswith('#   cgdet ablate'))
    overrides = shlex.split(line)[4:]
    grid = load_ablation(path, tmp_path, overrides)
    assert {r.recipe.input_size for r in grid.runs} == {(256, 192)}
    kinds = {r.variant: r.recipe.cmg.teacher.kind for r in grid.runs if r.recipe.cmg}
    assert kinds.pop('rgb_teacher') == 'cgdet' and set(kinds.values()) == {'onnx'}


def test_runs_are_ordered_by_seed(tmp_path: Path, recipe_values: dict) -> None:
    grid = load_ablation(write(tmp_path, recipe_values), tmp_path / 'out', ['optim.epochs=2'])
    assert [r.recipe.name for r in grid.runs] == [
        'plain_0', 'rcs_0', 'deep_0', 'plain_5', 'rcs_5', 'deep_5']
    assert grid.shown == 'deep'
    plain, rcs, deep = (r.recipe for r in grid.runs[3:])
    assert plain.rcs is None and rcs.rcs.weight == 0.3 and deep.rcs.queue == 8
    assert rcs.rcs.temperature == deep.rcs.temperature == 0.1
    assert deep.optim.lr == 0.5 and deep.optim.batch_size == 4
    assert all(r.recipe.optim.epochs == 2 and r.recipe.seed == r.seed for r in grid.runs)
    assert rcs.folder == tmp_path / 'out' / 'rcs_5'
    assert len({recipe_hash(r.recipe) for r in grid.runs}) == 6


def test_a_null_section_can_be_filled(tmp_path: Path, recipe_values: dict) -> None:
    path = write(tmp_path, {**recipe_values, 'rcs': None}, variants={'a': {'rcs.weight': 2}})
    assert load_ablation(path, tmp_path).runs[0].recipe.rcs.weight == 2


@pytest.mark.parametrize(('grid', 'words'), [
    ({'sedes': [1]}, "unknown key 'sedes', did you mean 'seeds'"),
    ({'variants': {}}, 'variants'),
    ({'variants': [1]}, 'variants'),
    ({'variants': {'a': {'rcs.wieght': 1}}},
     "variant a: unknown key 'rcs.wieght', did you mean 'rcs.weight'"),
    ({'variants': {'a': {'optim.lr': 'fast'}}}, 'variant a: optim.lr'),
    ({'variants': {'a': {'optim.epochs.x': 1}}}, 'does not name a section'),
    ({'variants': {'a': {'seed': 1}}}, 'may not set seed'),
    ({'variants': {'a': {'run': {'output': 'x'}}}}, 'may not set run.output'),
    ({'variants': {'../a': {}}}, 'not a valid folder name'),
    ({'seeds': []}, 'seeds'),
    ({'seeds': [1, 1]}, 'different numbers'),
    ({'seeds': [-1]}, 'different numbers'),
    ({'shown': 'bth'}, "'bth' is not one of the variants"),
    ({'base': 'none.yaml'}, 'does not exist'),
    ({'variants': {'a': {}, 'b': {'data.val': 'x.json'}}}, 'b has other data.val than a'),
    ({'variants': {'a': {}, 'b': {'classes': ['car']}}}, 'b has other classes than a'),
])
def test_wrong_grids_are_explained(
    tmp_path: Path, recipe_values: dict, grid: dict, words: str,
) -> None:
    with pytest.raises(UserError, match=words):
        load_ablation(write(tmp_path, recipe_values, **grid), tmp_path)


def test_a_recipe_is_not_a_grid(tmp_path: Path, recipe_values: dict) -> None:
    write(tmp_path, recipe_values)
    with pytest.raises(UserError, match='base: Field required|unknown key'):
        load_ablation(tmp_path / 'tiny.yaml', tmp_path)


def test_values_that_determine_the_numbers(tmp_path: Path, recipe_values: dict) -> None:
    path = write(tmp_path, recipe_values)

    def found(*overrides: str) -> str:
        return recipe_hash(load_ablation(path, tmp_path, list(overrides)).runs[0].recipe)

    assert found() == found('run.workers=2', 'run.val_every=9', 'name=x', 'data.cache_gib=1')
    assert len({found(), found('optim.lr=0.1'), found('run.precision=bf16-mixed'),
                found('normalization.kind=percentile')}) == 4
    early = found('run.patience=1')
    assert len({found(), early, found('run.patience=2'),
                found('run.patience=1', 'run.val_every=2')}) == 4, 'they end with other epochs'


def test_an_existing_run_of_another_recipe_is_refused(
    tmp_path: Path, recipe_values: dict,
) -> None:
    path = write(tmp_path, recipe_values)
    run = load_ablation(path, tmp_path).runs[1]
    run.recipe.folder.mkdir()
    (run.recipe.folder / 'recipe.yaml').write_text(yaml.safe_dump(run.values))
    load_ablation(path, tmp_path)
    with pytest.raises(UserError, match=r'rcs_0.*optim\.epochs, rcs\.weight'):
        load_ablation(write(tmp_path, recipe_values, variants={
            'plain': {}, 'rcs': {'rcs.weight': 0.9}}), tmp_path, ['optim.epochs=7'])
    assert comparable(run.recipe)['rcs.weight'] == 0.3
