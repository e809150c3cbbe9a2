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
Time training steps: `python -m cgdet_core.experiments.step_cost RECIPE.yaml [KEY=VALUE ...]`.

Compares L_det only with RCS and CMG added, with teacher features cached or computed in the step.
Variants run in separate processes, in turns. `ms` is a step's forward, losses, backward and
optimizer; `ms with data` is the time from step to step, including the wait for data.
"""

import argparse
import json
from pathlib import Path
import resource
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.training import DetectionTraining
from cgdet_core.errors import UserError
from cgdet_core.processes import FreshProcess
from cgdet_core.tasks import load_recipe
from cgdet_core.training.precision import resolve_precision
from cgdet_core.training.run import Averaging, quiet
import lightning
import numpy as np
import torch


class StepTimes(lightning.Callback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.ends: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.strategy.root_device.type == 'cuda':
            torch.cuda.synchronize()
        self.ends.append(perf_counter())
        self.seconds.append(self.ends[-1] - self._start)


class Times(NamedTuple):
    """The cost of one training: seconds of the steps of its second half, and peak memory."""

    steps: list[float]
    with_data: float  # mean from step to step, as waits come in bursts
    peak: float  # MiB, of the GPU, or without one of the process without its workers


def time_steps(recipe: DetectionRecipe, steps: int) -> Times:
    quiet()
    lightning.seed_everything(recipe.seed, verbose=False)
    times = StepTimes()
    trainer = lightning.Trainer(
        accelerator=recipe.run.accelerator, devices=1, precision=resolve_precision(recipe),
        max_steps=steps, callbacks=[times, Averaging(recipe.optim.ema_decay)], logger=False,
        gradient_clip_val=recipe.optim.clip_norm, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        limit_val_batches=0)
    trainer.fit(DetectionTraining(recipe))
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2 ** 20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 10
    later = times.ends[steps // 2 - 1:]
    return Times(times.seconds[steps // 2:], (later[-1] - later[0]) / (len(later) - 1), peak)


def benchmark(path: Path, overrides: list[str], steps: int, rounds: int) -> dict[str, Any]:
    """Return the milliseconds per step (medians of all rounds) and peak memory per variant."""
    recipe = load_recipe(path, overrides).model_copy(update={'coupled': None})
    assert isinstance(recipe, DetectionRecipe)
    if recipe.rcs is None or recipe.cmg is None:
        raise UserError(f'{path} must have both rcs and cmg.')
    with TemporaryDirectory() as folder:
        def variant(cache: Path | None) -> DetectionRecipe:
            assert recipe.cmg is not None
            # Full loss weights from the first step.
            cmg = recipe.cmg.model_copy(update={
                'warmup_epochs': 0,
                'teacher': recipe.cmg.teacher.model_copy(update={'cache': cache})})
            rcs = recipe.rcs and recipe.rcs.model_copy(update={'warmup_epochs': 0})
            return recipe.model_copy(update={'rcs': rcs, 'cmg': cmg})

        variants = {
            'plain': recipe.model_copy(update={'rcs': None, 'cmg': None}),
            'rcs': variant(None).model_copy(update={'cmg': None}),
            'rcs + cmg, cached': variant(recipe.cmg.teacher.cache or Path(folder)),
            'rcs + cmg, not cached': variant(None)}
        found: dict[str, list[Times]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, values in variants.items():
                with FreshProcess(f'timed {name}') as process:
                    found[name].append(process.call(time_steps, values, steps))
    plain = _numbers(found['plain'])
    return {
        'recipe': recipe.name, 'input': recipe.input_size, 'batch': recipe.optim.batch_size,
        'workers': recipe.run.workers,
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        **{name: {key: round(value, digits) for key, value, digits in (
            ('ms', ours['ms'], 1), ('ratio', ours['ms'] / plain['ms'], 3),
            ('ms with data', ours['ms with data'], 1),
            ('ratio with data', ours['ms with data'] / plain['ms with data'], 3),
            ('peak MiB', ours['peak'], 0), ('peak ratio', ours['peak'] / plain['peak'], 3))}
           for name, ours in ((name, _numbers(times)) for name, times in found.items())}}


def _numbers(times: list[Times]) -> dict[str, float]:
    return {'ms': 1e3 * float(np.median([s for t in times for s in t.steps])),
            'ms with data': 1e3 * float(np.median([t.with_data for t in times])),
            'peak': float(np.median([t.peak for t in times]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('recipe', type=Path)
    parser.add_argument('overrides', nargs='*', metavar='KEY=VALUE')
    parser.add_argument('--steps', type=int, default=60)
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_intermixed_args()
    try:
        numbers = benchmark(options.recipe, options.overrides, options.steps, options.rounds)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(json.dumps(numbers, indent=2))


if __name__ == '__main__':
    main()
