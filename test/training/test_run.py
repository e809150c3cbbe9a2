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

"""Training runs: their files, exact resumption, and safe interruption by Ctrl-C."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

from cgdet_core.data.synthetic import write_coco
from cgdet_core.detection.student import load_student
from cgdet_core.detection.training import DetectionTraining, make_card
from cgdet_core.errors import UserError
from cgdet_core.tasks import parse_recipe, train
from cgdet_core.training.folder import alone_in
from cgdet_core.training.run import make_trainer, reason_of
from forked import PROGRAM
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess]


def command(folder: Path, values: dict, *more: str) -> list[str]:
    recipe = folder / 'recipe.yaml'
    recipe.write_text(yaml.safe_dump(
        {**values, 'run': {**values['run'], 'output': str(folder)}}))
    return ['train', str(recipe), *more]


def test_a_run_leaves_checkpoints_and_logs(trained: Path) -> None:
    assert (trained / 'best.ckpt').is_file() and (trained / 'last.ckpt').is_file()
    assert list((trained / 'logs').glob('events.*'))
    student, card = load_student(trained / 'last.ckpt')
    assert card.name == 'tiny' and card.training['seed'] == 0
    assert card.training['recipe']['optim']['epochs'] == 3
    data = torch.load(trained / 'last.ckpt', weights_only=True)
    assert data['epoch'] == 2
    # The state to deploy is the averaged one, not the latest step's.
    latest = data['current_model_state']
    assert any(not torch.equal(v, latest[k]) for k, v in data['state_dict'].items())
    assert torch.equal(student.head.cls_out.bias, data['state_dict']['student.head.cls_out.bias'])


def test_the_card_of_a_run_names_no_folder(trained: Path, recipe_values: dict) -> None:
    values = {**recipe_values, 'run': {'output': '/somewhere/runs'},
              'optim': {'init': str(trained / 'last.ckpt')}}
    card = make_card(parse_recipe(values, 'test').resolved(), 'CC0')
    text = json.dumps(card.to_dict())
    assert '"annotations.json"' in text and '/' not in text.replace('fp32/', '')
    assert card.training['init']['recipe']['name'] == 'tiny'


def test_killed_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, trained: Path, recipe_values: dict, run_cgdet: Run,
) -> None:
    run = subprocess.Popen([*PROGRAM, *command(tmp_path, recipe_values, 'optim.epochs=3')],
                           cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / 'tiny' / 'last.ckpt'
    end = time.monotonic() + 120
    while not last.is_file() and time.monotonic() < end:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert torch.load(last, weights_only=True)['epoch'] < 2, 'killed too late to tell anything'
    result = run_cgdet(*command(tmp_path, recipe_values, '--resume'))
    assert result.returncode == 0, result.stderr
    expected = torch.load(trained / 'last.ckpt', weights_only=True)
    found = torch.load(last, weights_only=True)
    for part in ('state_dict', 'current_model_state'):
        assert expected[part].keys() == found[part].keys()
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), name


def test_ctrl_c_leaves_only_whole_checkpoints(tmp_path: Path, recipe_values: dict) -> None:
    run = subprocess.Popen([*PROGRAM, *command(tmp_path, recipe_values, 'optim.epochs=200')],
                           cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    last = tmp_path / 'tiny' / 'last.ckpt'
    end = time.monotonic() + 120
    while not last.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert 'interrupted' in errors and 'Traceback' not in errors
    for checkpoint in (tmp_path / 'tiny').glob('*.ckpt'):
        load_student(checkpoint)
    assert {p.name for p in (tmp_path / 'tiny').iterdir()} <= {
        'last.ckpt', 'best.ckpt', 'logs', 'recipe.yaml', 'run.json', 'results.csv'}


@pytest.mark.parametrize('more', [(), ('--resume', 'name=none')])
def test_neither_overwrites_nor_resumes_nothing(
    trained: Path, recipe_values: dict, tmp_path: Path, run_cgdet: Run, more: tuple[str, ...],
) -> None:
    result = run_cgdet(*command(tmp_path, recipe_values, f'run.output={trained.parent}', *more))
    assert result.returncode == 1
    assert ('nothing to resume' if more else 'already contains a run') in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('run', [
    {'accelerator': 'abacus'},
    pytest.param({'accelerator': 'gpu'}, marks=pytest.mark.skipif(
        torch.cuda.is_available(), reason='there is a GPU')),
    pytest.param({'accelerator': 'gpu', 'devices': 99}, marks=pytest.mark.skipif(
        not torch.cuda.is_available(), reason='no GPU here'))])
def test_a_machine_that_cannot_train_is_explained(
    tmp_path: Path, recipe_values: dict, run: dict,
) -> None:
    recipe = parse_recipe({**recipe_values, 'run': {**run, 'output': str(tmp_path)}}, 'test')
    with pytest.raises(UserError, match=f'run.accelerator={run["accelerator"]} and run.devices'):
        make_trainer(recipe, 'val/AP50', progress=False)


def test_a_damaged_picture_is_named_although_a_worker_read_it(
    tmp_path: Path, recipe_values: dict, run_cgdet: Run,
) -> None:
    annotations = write_coco(tmp_path, 8, 1, 8, (160, 128))
    (tmp_path / 'thermal' / 'scene_00003.png').write_bytes(b'damaged')
    result = run_cgdet(
        *command(tmp_path, recipe_values, f'data.train={annotations}', 'run.workers=1'))
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'scene_00003.png is not an image' in result.stderr


def test_a_killed_worker_is_one_sentence(tmp_path: Path, recipe_values: dict) -> None:
    """As the kernel does it when memory or /dev/shm is full."""
    run = subprocess.Popen(
        [*PROGRAM, *command(tmp_path, recipe_values, 'run.workers=1', 'optim.epochs=500')],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    last = tmp_path / 'tiny' / 'last.ckpt'
    children = Path(f'/proc/{run.pid}/task/{run.pid}/children')
    workers: list[str] = []
    end = time.monotonic() + 240
    while not (last.is_file() and workers) and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
        workers = children.read_text().split()
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1 and 'Traceback' not in errors
    assert 'cgdet: A loading worker was killed' in errors.splitlines()[-1]
    assert f'continue with "cgdet train {tmp_path / "tiny"} --resume".' in errors


@pytest.mark.parametrize(('error', 'words'), [
    (torch.OutOfMemoryError('CUDA out of memory.'), 'memory of the GPU is full'),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
     'memory of this machine is full'),
    (RuntimeError('DataLoader worker (pid 1) is killed by signal: Bus error.'), 'run.workers'),
    (RuntimeError('unable to allocate shared memory(shm) for file </torch_1>'), '--shm-size'),
    (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), '')])
def test_only_a_lack_of_memory_is_explained(error: RuntimeError, words: str) -> None:
    found = reason_of(error)
    assert (words in found) if words else found == ''


def test_a_run_learns_from_some_of_the_frames(recipe_values: dict) -> None:
    values = {**recipe_values, 'data': {**recipe_values['data'], 'max_frames': 5}}
    module = DetectionTraining(parse_recipe(values, 'test'))
    names = [record.path.name for record in module.val_set.images]
    chosen = [record.path.name for record in module.train_set.images]
    assert chosen == [names[i] for i in (0, 2, 5, 8, 11)]


def test_nothing_that_a_checkpoint_says_is_deleted(
    tmp_path: Path, trained: Path, recipe_values: dict,
) -> None:
    run = tmp_path / 'runs' / 'tiny'
    others = [tmp_path / 'precious', run / 'kept']
    for folder in others:
        folder.mkdir(parents=True)
        (folder / 'file').touch()
    data = torch.load(trained / 'last.ckpt', weights_only=True)
    states = [s for s in data['callbacks'].values() if 'best_model_path' in s]
    assert len(states) == 2
    for state, named in zip(states, (f'{run}/../../precious', str(run / 'kept'))):
        worst = torch.tensor(-1.0)
        state.update(
            dirpath=str(run.resolve()), best_model_path=named, last_model_path=named,
            kth_best_model_path=named, best_k_models={named: worst}, kth_value=worst,
            best_model_score=worst)
    torch.save(data, run / 'last.ckpt')
    values = {**recipe_values, 'optim': {**recipe_values['optim'], 'epochs': 4},
              'run': {**recipe_values['run'], 'output': str(tmp_path / 'runs')}}
    best = train(parse_recipe(values, 'test'), resume=True, progress=False)
    assert torch.load(best, weights_only=True)['epoch'] == 3
    assert all((folder / 'file').is_file() for folder in others)


def test_a_moved_run_keeps_its_best_checkpoint(
    tmp_path: Path, trained: Path, recipe_values: dict,
) -> None:
    """The best score is known where the folder is now, and forgotten with its weights."""
    for name, kept in (('whole', True), ('last only', False)):
        run = tmp_path / name / 'tiny'
        run.mkdir(parents=True)
        data = torch.load(trained / 'last.ckpt', weights_only=True)
        for state in data['callbacks'].values():
            if state.get('monitor') is not None and 'best_k_models' in state:
                state['best_model_score'] = state['kth_value'] = torch.tensor(2.0)
                state['best_k_models'] = {state['kth_best_model_path']: torch.tensor(2.0)}
        torch.save(data, run / 'last.ckpt')
        if kept:
            shutil.copy(trained / 'best.ckpt', run)
        values = {**recipe_values, 'optim': {**recipe_values['optim'], 'epochs': 4},
                  'run': {**recipe_values['run'], 'output': str(run.parent)}}
        best = train(parse_recipe(values, 'test'), resume=True, progress=False)
        assert (best.read_bytes() == (trained / 'best.ckpt').read_bytes()) is kept
        assert (torch.load(best, weights_only=True)['epoch'] == 3) is not kept


def test_only_one_process_trains_in_a_folder(
    tmp_path: Path, recipe_values: dict, monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = parse_recipe({**recipe_values, 'run': {'output': str(tmp_path)}}, 'test')
    with alone_in(recipe.folder):
        monkeypatch.setattr('cgdet_core.training.folder.PATIENCE_S', 0.0)
        with pytest.raises(UserError, match='Another process trains in .*/tiny; wait'):
            train(recipe, progress=False)
        assert recipe.folder.is_dir()
    assert not recipe.folder.exists(), 'nothing was written'


def test_it_waits_for_the_workers_of_a_killed_run(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, '-c', 'import fcntl, os, sys, time\n'
         'fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n'
         'print(flush=True)\ntime.sleep(1)', str(tmp_path)], stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline()
    with alone_in(tmp_path):
        assert worker.wait(5) == 0
    assert tmp_path.is_dir()
