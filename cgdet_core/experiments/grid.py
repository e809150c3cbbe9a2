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

"""The grid of an ablation: variants of a recipe and seeds."""

import hashlib
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.errors import UserError
from cgdet_core.tasks import load_recipe, parse_recipe, RENAMED
from cgdet_core.training import recipe as recipes
from cgdet_core.training.precision import resolve_precision
from pydantic import Field, field_validator

RESERVED = ('name', 'seed', 'run.output')  # set by the grid itself


class AblationConfig(recipes.Strict):
    """The contents of a grid file; the first variant is the reference of the differences."""

    base: Path  # recipe, relative to this file
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)  # every variant is trained with each
    variants: dict[str, dict[str, Any]] = Field(min_length=1)  # changes to the base, by name
    shown: str | None = None  # variant shown next to the reference; the last by default

    @field_validator('seeds')
    @classmethod
    def _once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value) or min(value) < 0:
            raise ValueError('must be different numbers of at least 0')
        return value

    @field_validator('variants', mode='before')
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name in value:
            if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', str(name)):
                raise ValueError(f'{name!r} is not a valid folder name')
        return {k: {} if v is None else v for k, v in value.items()}


class Run(NamedTuple):
    """A variant with a seed."""

    variant: str
    seed: int
    values: dict[str, Any]  # of the recipe, unchecked, as in its file
    recipe: DetectionRecipe

    @property
    def result(self) -> Path:
        """The file that marks the run as finished."""
        return self.recipe.folder / 'result.json'


class Ablation(NamedTuple):
    """A grid of runs, in the order in which they are trained."""

    variants: list[str]
    shown: str
    runs: list[Run]
    output: Path


def load_ablation(path: str | Path, output: Path, overrides: list[str] | None = None) -> Ablation:
    """
    Read a grid; overrides `section.key=value` change the base recipe.

    Runs are ordered seed by seed, so that an unfinished grid can already be compared. UserError
    names an unknown key with the nearest valid one, an invalid value, or a run of another recipe.
    """
    path = Path(path)
    config = recipes.check_values(AblationConfig, recipes.read_values(path), str(path))
    variants = list(config.variants)
    if config.shown is not None and config.shown not in variants:
        raise UserError(f'{path}: shown: {config.shown!r} is not one of the variants '
                        f'{", ".join(variants)}.')
    base = path.parent / config.base
    runs = [_run(path, base, variant, config.variants[variant], seed, output, overrides)
            for seed in config.seeds for variant in variants]
    first = runs[0].recipe
    for run in runs:
        for key, same in (('data.val', run.recipe.data.val == first.data.val),
                          ('classes', run.recipe.classes == first.classes)):
            if not same:
                raise UserError(f'{path}: the variant {run.variant} has other {key} than '
                                f'{variants[0]}; variants are compared on the same frames and '
                                'classes.')
        file = run.recipe.folder / 'recipe.yaml'
        changed = file.is_file() and recipes.differences(
            comparable(load_recipe(file).resolved()), comparable(run.recipe.resolved()))
        if changed:
            raise UserError(
                f'The run {run.recipe.folder} was trained with another recipe '
                f'({", ".join(changed)} changed); choose another output folder or remove the run.',
                'output')
    return Ablation(variants, config.shown or variants[-1], runs, output)


def _run(
    path: Path, base: Path, variant: str, changes: dict[str, Any], seed: int, output: Path,
    overrides: list[str] | None,
) -> Run:
    values = recipes.apply_overrides(
        recipes.rename(recipes.read_values(base), RENAMED), overrides, RENAMED)
    for key, value in recipes.flat(changes):
        if key in RESERVED:
            raise UserError(f'{path}: the variant {variant} may not set {key}; the grid does.')
        recipes.set_value(values, RENAMED.get(key, key), value)
    recipes.set_value(values, 'run.output', str(output))
    values |= {'name': f'{variant}_{seed}', 'seed': seed}
    recipe = parse_recipe(values, f'{path}: variant {variant}')
    if not isinstance(recipe, DetectionRecipe):
        raise UserError(f'{path}: an ablation compares detectors, not recipes of {recipe.task}.')
    return Run(variant, seed, values, recipe)


def comparable(recipe: recipes.Recipe) -> dict[str, Any]:
    """Return the values that determine a run's numbers, as `section.key`."""
    values = recipe.model_dump(mode='json', exclude={'name', 'run'})
    kept = {'precision', 'devices', 'nodes'}
    if recipe.run.patience is not None:  # decides with which epoch a run ends
        kept |= {'patience', 'val_every'}
    values['run'] = recipe.run.model_dump(mode='json', include=kept)
    values['run']['precision'] = resolve_precision(recipe)
    return recipe.decisive(values)


def recipe_hash(recipe: recipes.Recipe) -> str:
    text = json.dumps(comparable(recipe), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
