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
Ablations: train the variants of a recipe over seeds, one run after the other, and compare them.

Every run is a separate process (`cgdet train`), as a user would start it from the recipe in its
folder: its memory is freed afterwards, a crash stops only one run, and a run may use several
devices. Tables and figures need only result.json and arrays.npz of each run, no models, and can
be written while the grid is still running.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import io
import json
import os
from pathlib import Path
import platform
import time

from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.errors import UserError
from cgdet_core.experiments.figures import write_figures
from cgdet_core.experiments.grid import Ablation, recipe_hash, Run
from cgdet_core.experiments.measure import measure, VERSION
from cgdet_core.experiments.statistics import markdown, Result, summarize
from cgdet_core.processes import program
from cgdet_core.runtime.files import in_use, model_file, write_atomically, write_json
from cgdet_core.runtime.processor import processor
from cgdet_core.training.checkpoints import KEY, read_checkpoint
import numpy as np
import torch
import yaml


def run_ablation(
    ablation: Ablation, progress: Callable[[str], None] = lambda sentence: None,
) -> int:
    """
    Train and measure every run that is not finished, and write the tables after each.

    Several processes may work on one grid: each takes runs that no other process works on.
    Returns the number of runs still in progress in other processes. progress: called for each run
    that starts. UserError if a training fails.
    """
    if torch.distributed.is_torchelastic_launched():
        raise UserError('"cgdet ablate" starts the trainings itself: run it without torchrun and '
                        'set the number of processes of each run with run.devices=...')
    _check_files(ablation)
    busy = 0
    for number, run in enumerate(ablation.runs, 1):
        if result_of(run):
            continue
        with _lock(run.recipe.folder) as lock:
            if lock is None:
                busy += 1
            elif not result_of(run):  # another process may just have finished it
                progress(f'run {number} of {len(ablation.runs)}: {run.recipe.name}')
                _measure(run, _train(run, lock))
                write_tables(ablation)
    return busy


def _check_files(ablation: Ablation) -> None:
    """Raise UserError before the first run if a file that a variant names is missing."""
    for run in ablation.runs:
        for what, path in _files(run.recipe):
            if not (path.is_file() or _made_by_the_grid(path, ablation) or result_of(run)):
                raise UserError(f'The variant {run.variant} requires the {what} {path}, which '
                                'does not exist; make it, or remove the variant from the grid.')


def _files(recipe: DetectionRecipe) -> Iterator[tuple[str, Path]]:
    """Yield what a recipe reads, in a word, and its path."""
    data, unlabeled = recipe.data, recipe.unlabeled
    for frames in (data.train, data.val, unlabeled and unlabeled.frames):
        if frames:
            yield 'frames', frames
    for section in (recipe.cmg, unlabeled):
        if section and section.teacher and section.teacher.path:
            yield 'teacher', section.teacher.path
    for teacher in recipe.imitation.teachers if recipe.imitation else ():
        yield 'teacher', model_file(teacher)
    if recipe.optim.init not in (None, 'imagenet'):
        assert recipe.optim.init is not None
        yield 'starting weights', model_file(recipe.optim.init)


def _made_by_the_grid(path: Path, ablation: Ablation) -> bool:
    return any(run.recipe.folder.resolve() in path.resolve().parents for run in ablation.runs)


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """Yield the descriptor of a run's lock, or None if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('a') as file:
        yield None if in_use(file) else file.fileno()


def _train(run: Run, lock: int) -> float:
    """Train or resume; return the seconds of training, without sessions that were killed."""
    folder = run.recipe.folder
    last, spent = folder / 'last.ckpt', folder / 'train_seconds.txt'
    before = float(spent.read_text()) if spent.is_file() else 0.0
    if last.is_file() and read_checkpoint(last)['epoch'] + 1 >= run.recipe.optim.epochs:
        return before
    path = folder / 'recipe.yaml'
    write_atomically(path, yaml.safe_dump(run.values, sort_keys=False).encode())
    resume = ['--resume'] if last.is_file() else []
    start = time.monotonic()
    try:
        # The training inherits the lock, so that it keeps its run if it outlives this process.
        # In a terminal both receive Ctrl-C; a training handles only the first one.
        with program('cgdet_core', 'train', path, 'run.report=false', *resume,
                     patience_s=None, pass_fds=[lock]) as process:
            code = process.wait()
    finally:
        seconds = before + time.monotonic() - start
        write_atomically(spent, f'{seconds:.1f}\n'.encode())
    if code == 130:
        raise KeyboardInterrupt
    if code != 0:
        why = f'signal {-code}' if code < 0 else f'exit status {code}'
        raise UserError(f'The training of {run.recipe.name} failed ({why}); fix the error above '
                        'and run the same command again.')
    return seconds


def _measure(run: Run, seconds: float) -> None:
    """Write arrays.npz, then result.json, which marks the run as finished."""
    recipe, last = run.recipe, run.recipe.folder / 'last.ckpt'
    found, arrays = measure(last, recipe.frames(recipe.data.val))
    checkpoint = read_checkpoint(last)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomically(recipe.folder / 'arrays.npz', content.getvalue())
    machine = {
        'cpu': processor(), 'cores': os.cpu_count(),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(), 'torch': torch.__version__}
    write_json(run.result, {
        'version': VERSION, 'variant': run.variant, 'seed': run.seed,
        'recipe': recipe_hash(recipe), 'checkpoint': last.name, 'epochs': checkpoint['epoch'] + 1,
        'commit': checkpoint[KEY]['card']['training']['commit'],
        'train_seconds': round(seconds, 1), 'machine': machine, 'data': recipe.data.val.name,
        **found})


def result_of(run: Run) -> Result | None:
    """Read a run's result; None if there is none, or one of an earlier version of the numbers."""
    if not run.result.is_file():
        return None
    try:
        result: Result = json.loads(run.result.read_text())
    except ValueError as error:
        raise UserError(f'{run.result} is not a readable JSON file: {error}; remove it to '
                        'measure the run again.') from None
    return result if result.get('version') == VERSION else None


def write_tables(ablation: Ablation) -> list[Result]:
    """Write table.md and table.json of the finished runs, and return their results."""
    results = [result for run in ablation.runs if (result := result_of(run))]
    if not results:
        raise UserError(f'No run in {ablation.output} is finished yet.')
    summary = summarize(results, ablation.variants)
    runs = [{k: r[k] for k in ('variant', 'seed', 'recipe', 'commit', 'train_seconds', 'machine')}
            for r in results]
    total = len(ablation.runs)
    write_json(ablation.output / 'table.json', {**summary, 'runs': runs, 'grid': total})
    write_atomically(ablation.output / 'table.md', markdown(summary, total).encode())
    return results


def report(ablation: Ablation) -> list[Path]:
    """Write tables and figures of the finished runs, and return their files."""
    results = write_tables(ablation)
    done = {(r['variant'], r['seed']) for r in results}
    folders = {(r.variant, r.seed): r.recipe.folder for r in ablation.runs
               if (r.variant, r.seed) in done}
    recipe = ablation.runs[0].recipe
    figures = write_figures(
        results, folders, (ablation.variants[0], ablation.shown),
        recipe.frames(recipe.data.val), recipe.normalization, ablation.output)
    return [ablation.output / 'table.md', ablation.output / 'table.json', *figures]
