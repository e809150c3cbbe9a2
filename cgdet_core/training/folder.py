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

"""The folder of a run: the recipe as it ran, what started it, and a row of results an epoch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
import csv
import json
import os
from pathlib import Path
import shlex
import time
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import (
    check_outputs,
    in_use,
    write_atomically,
    write_json,
    write_table,
)
from cgdet_core.training.recipe import flat, read_values, Recipe, set_value
import yaml

RECIPE = 'recipe.yaml'
RUN = 'run.json'
RESULTS = 'results.csv'
PATIENCE_S = 10.0  # for the loading workers of a run that was killed
Row = dict[str, float]  # epoch, seconds, lr, train/..., val/...


def check_folder(recipe: Recipe, resume: bool) -> None:
    """Raise UserError if the folder cannot be written, or there is a run only if not resumed."""
    last = recipe.folder / 'last.ckpt'
    check_outputs(folders=[recipe.folder])
    if resume and not last.is_file():
        raise UserError(f'There is nothing to resume: {last} does not exist; if the run was '
                        'started with another name or run.output, name its folder.')
    if last.is_file() and not resume:
        raise UserError(f'{recipe.folder} already contains a run; resume it, or choose another '
                        'name or run.output.', 'resume')


def continuing(folder: Path) -> str:
    """Return how to continue the run in a folder, as part of a sentence."""
    return f'continue with "{shlex.join(["cgdet", "train", str(folder), "--resume"])}"'


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """
    Lock the folder of a run; UserError if another process trains in it.

    The kernel releases the lock of a dead process, but its loading workers may live some seconds.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    due = time.monotonic() + PATIENCE_S
    try:
        while in_use(descriptor):
            if time.monotonic() > due:
                raise UserError(f'Another process trains in {folder}; wait until it is finished, '
                                'or choose another name or run.output.')
            time.sleep(0.1)
        yield
    finally:
        for path in missing:
            with suppress(OSError):  # it is not empty
                path.rmdir()
        os.close(descriptor)


def write_start(recipe: Recipe, facts: dict[str, Any]) -> None:
    """Write the full recipe, which "cgdet train" reads again, and the facts of the run."""
    values = yaml.safe_dump(recipe.values(), sort_keys=False, allow_unicode=True)
    write_json(recipe.folder / RUN, facts)
    write_atomically(recipe.folder / RECIPE, (
        '# The recipe of this run with all its defaults; versions and commit are in run.json.\n'
        f'{values}').encode())


def read_facts(folder: Path) -> dict[str, Any]:
    """Return run.json, empty if there is none or it is damaged."""
    try:
        found = json.loads((folder / RUN).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def resumed_values(folder: Path, now: dict[str, Any] | None) -> dict[str, Any]:
    """
    Return the values of a run's recipe with what was edited since in the file it started from.

    now: the values of that file as they are now; None if the folder itself was named. Overrides
    at the start are part of the run's recipe, so they are no difference.
    """
    held = read_values(folder / RECIPE)
    started = read_facts(folder).get('started')
    before = started.get('values') if isinstance(started, dict) else None
    if now is None or not isinstance(before, dict):
        return held
    old, new = dict(flat(before)), dict(flat(json.loads(json.dumps(now, default=str))))
    for key in old.keys() - new.keys():
        _remove(held, key)
    for key, value in new.items():
        if key not in old or old[key] != value:
            set_value(held, key, value)
    return held


def _remove(values: dict[str, Any], key: str) -> None:
    *parents, last = key.split('.')
    node: Any = values
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(last, None)


def read_results(folder: Path, epochs: int) -> list[Row]:
    """Return the rows of results.csv up to an epoch, without empty cells."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError):  # edited by hand
        return []
    return [row for row in rows if row.get('epoch', 0) <= epochs]


def write_results(folder: Path, rows: Sequence[Row]) -> None:
    """Write results.csv, a column for every value that any epoch has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns.sort(key=lambda name: name.startswith('val/'))
    write_table(folder / RESULTS, columns, (
        {k: f'{v:.6g}' for k, v in row.items()} for row in rows))
