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

"""
The tasks of this package, for training: each is a recipe, a training module and a line here.

The recipe's key `task` selects one. A dict, not a pydantic discriminated union: pydantic refuses a
union of one, and errors name the key as it is in the recipe.
"""

from pathlib import Path
from typing import Any

from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.errors import UserError
from cgdet_core.tracking.recipe import TrackingRecipe
from cgdet_core.tracking.rgbt.config import RgbtRecipe
from cgdet_core.training.folder import RECIPE, resumed_values
from cgdet_core.training.recipe import (
    apply_overrides,
    check_values,
    read_values,
    Recipe,
    rename,
    set_value,
)

TASKS: dict[str, type[Recipe]] = {
    'detection': DetectionRecipe, 'tracking': TrackingRecipe, 'rgbt_tracking': RgbtRecipe}
RENAMED = {old: new for schema in TASKS.values() for old, new in schema.renamed.items()}


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply overrides `section.key=value` (YAML); UserError for a wrong key."""
    values = read_values(path)
    if 'variants' in values and 'name' not in values:
        raise UserError(f'{path} is a grid of recipes; use "cgdet ablate".')
    return parse_recipe(apply_overrides(values, overrides, RENAMED), str(path))


def parse_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Check the values of a recipe; `origin` names it in errors."""
    task = values.get('task', 'detection')
    if not isinstance(task, str) or task not in TASKS:
        raise UserError(f'{origin}: task: must be one of {", ".join(TASKS)}, not {task!r}.')
    return check_values(TASKS[task], rename(values, RENAMED), origin)


def load_resumed(path: Path, overrides: list[str] | None = None) -> Recipe:
    """
    Return the recipe that continues a run, by its folder or last.ckpt or the recipe it began with.

    It is the recipe in the folder, changed by what was edited in the named file since the start
    and by the overrides; those of the start need not be repeated.
    """
    if path.is_dir() or (path.name in (RECIPE, 'last.ckpt') and (
            path.parent / 'last.ckpt').is_file()):
        folder = path if path.is_dir() else path.parent
        if not (folder / RECIPE).is_file():
            raise UserError(f'{folder} has no {RECIPE}, so it is not the folder of a run; name '
                            'the recipe that the run was started with.')
        values = resumed_values(folder, None)
    else:
        given = load_recipe(path, overrides)
        folder = given.folder
        if not (folder / RECIPE).is_file():  # no run, or one of an earlier release
            return given
        values = resumed_values(folder, read_values(path))
    values = apply_overrides(rename(values, RENAMED), overrides, RENAMED)
    set_value(values, 'run.output', str(folder.parent))
    recipe = parse_recipe(values, str(folder / RECIPE))
    if recipe.name != folder.name:
        raise UserError(f'{folder} is the folder of a run named {recipe.name}; rename it to that, '
                        'or start a new run with name=... and optim.init=...')
    return recipe


def train(recipe: Recipe, resume: bool = False, progress: bool = True,
          started: dict[str, Any] | None = None) -> Path:
    """Train according to a recipe and return the best checkpoint; see `training.run.train`."""
    from cgdet_core.detection.training import DetectionTraining  # with torch: after the checks
    from cgdet_core.tracking.rgbt.training import RgbtTraining
    from cgdet_core.tracking.training import TrackingTraining
    from cgdet_core.training.module import TaskModule
    from cgdet_core.training.run import train as run

    modules: dict[str, type[TaskModule]] = {
        'detection': DetectionTraining, 'tracking': TrackingTraining,
        'rgbt_tracking': RgbtTraining}
    return run(recipe, modules[recipe.task], resume, progress, started)
