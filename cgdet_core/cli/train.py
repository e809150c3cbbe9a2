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

"""`cgdet train`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import shlex
import signal
from typing import Annotated, Any

from cgdet_core.cli import common
from cgdet_core.cli.common import say
from cgdet_core.errors import UserError
import typer

RecipeArgument = Annotated[Path, typer.Argument(
    help='Recipe, a YAML file; with --resume also the folder of a run, or its last.ckpt.')]
Overrides = Annotated[list[str] | None, typer.Argument(
    metavar='[KEY=VALUE]...', help='Changes to the recipe.')]
Resume = Annotated[bool, typer.Option(
    '--resume', help='Continue from last.ckpt, with the recipe of the run.')]


def train(recipe: RecipeArgument, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a detector from a recipe."""
    run_recipe(recipe, overrides, resume)


def distill(recipe: RecipeArgument, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a detector also, or only, on frames without labels, with the help of RGB."""
    run_recipe(recipe, overrides, resume, 'unlabeled')


def run_recipe(recipe: Path, overrides: list[str] | None, resume: bool, needs: str = '',
               tasks: tuple[str, ...] = ()) -> None:
    """Train; needs: a section that the recipe must have; tasks: one of which it must be of."""
    # Without torch: what is wrong with a recipe or its folder is reported at once.
    from cgdet_core.tasks import load_recipe, load_resumed
    from cgdet_core.tasks import train as run
    from cgdet_core.training.folder import check_folder, RECIPE
    from cgdet_core.training.recipe import read_values

    if recipe.is_dir() and not resume:
        raise UserError(f'{recipe} is a folder; name a recipe, or continue the run in it.',
                        'resume')
    values = load_resumed(recipe, overrides) if resume else load_recipe(recipe, overrides)
    if tasks and values.task not in tasks:
        raise UserError(f'The recipe {recipe} is of the task {values.task}, not {tasks[0]}; use '
                        '"cgdet train".')
    if needs and getattr(values, needs, None) is None:
        raise UserError(f'The recipe {recipe} has no section {needs}, the frames without labels; '
                        'add it, as in config/train/distill.yaml, or use "cgdet train".')
    check_folder(values, resume)
    own = (values.folder, values.folder / RECIPE)  # has no more to say than the run knows
    started: dict[str, Any] = {} if recipe.resolve() in [p.resolve() for p in own] else {
        'recipe': str(recipe), 'overrides': overrides or [], 'values': read_values(recipe)}
    with _stopping() as stop:
        try:
            best = run(values, resume, started=started)
        except (KeyboardInterrupt, RuntimeError):
            if not stop:
                raise
            for number in (signal.SIGINT, signal.SIGTERM):  # a second one changes nothing
                signal.signal(number, signal.SIG_IGN)
            report_interruption(values, stop[0])
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(_next)(values, best)


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Interrupt on SIGTERM as on Ctrl-C; yield a list that then contains the signal."""
    received: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as started by nohup or in the background
            signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report_interruption(recipe: Any, number: int) -> None:
    """Report what an interrupted run has, and exit as the signal asks for."""
    from cgdet_core.training.folder import continuing, read_results

    folder, epochs = recipe.folder, recipe.optim.epochs
    rows = read_results(folder, epochs)
    if rows and rows[-1]['epoch'] >= epochs:
        what = (f'interrupted after the last epoch: the checkpoints are complete; '
                f'"{shlex.join(["cgdet", "report", str(folder)])}" draws what was left out.')
    elif (folder / 'last.ckpt').is_file():
        what = f'interrupted; {continuing(folder)}.'
    else:
        what = 'interrupted before the end of the first epoch; nothing was saved.'
    common.complain(what)
    raise typer.Exit(128 + number) from None


def _next(recipe: Any, best: Path) -> None:
    """Print the files of a run and the commands that come next."""
    files = sorted(p.name for p in best.parent.iterdir()
                   if p.suffix in ('.csv', '.json', '.png', '.yaml'))
    say(f'In {best.parent}: {", ".join(files)}')
    say(f'The best checkpoint is {best}')
    model = f'{recipe.name}.onnx'
    steps = [['export', best, '--output', model]]
    if recipe.task == 'detection':
        images = ['--images', recipe.data.images] if recipe.data.images else []
        data = ['--data', recipe.data.val, *images]
        steps = [['report', best.parent], *steps, ['fit-scores', model, *data],
                 ['evaluate', model, *data]]
    lines = [shlex.join(['cgdet', *map(str, step)]) for step in steps]
    say('Next: ' + '\n      '.join(lines))
