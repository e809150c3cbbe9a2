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

"""Recipes: read, overridden, and explained when they are wrong."""

from pathlib import Path
import subprocess
import sys
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.tasks import load_recipe
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tmp_path: Path, recipe_values: dict) -> Path:
    """Write the tiny recipe."""
    path = tmp_path / 'r.yaml'
    path.write_text(yaml.safe_dump(recipe_values))
    return path


@pytest.mark.parametrize('path', [
    p for p in sorted((ROOT / 'config' / 'train').glob('*.yaml')) if p.name != 'ablation.yaml'
], ids=str)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    if recipe.task == 'detection':
        assert recipe.classes in ((), ('person',), ('person', 'bicycle', 'car'))


def test_overrides(recipe: Path) -> None:
    found = load_recipe(recipe, [
        'optim.lr=0.5', 'name=other', 'augment.scale=[1,2]', 'normalization.kind=percentile'])
    assert found.optim.lr == 0.5 and found.name == 'other' and found.augment.scale == (1, 2)
    assert found.normalization.kind == 'percentile'
    assert found.optim.epochs == 3


def test_paths_may_be_in_the_home_folder(
    recipe: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('HOME', '/home/a')
    found = load_recipe(recipe, [
        'data.train=~/t.json', 'run.output=~/runs', 'optim.init=~/b.ckpt', 'data.license=~/c',
        'imitation.teacher=[thermal, ~/d.onnx]', 'cmg.teacher={path: ~/e.onnx, cache: ~x/f}'])
    assert (found.data.train, found.run.output) == (Path('/home/a/t.json'), Path('/home/a/runs'))
    assert found.optim.init == Path('/home/a/b.ckpt') and found.data.license == '~/c'
    assert found.imitation.teacher == (Path('thermal'), Path('/home/a/d.onnx'))
    teacher = found.cmg.teacher
    assert (teacher.path, teacher.cache) == (Path('/home/a/e.onnx'), Path('~x/f'))


@pytest.mark.parametrize(('override', 'words'), [
    ('optim.epoch=3', "unknown key 'optim.epoch', did you mean 'optim.epochs'"),
    ('optim.leraning_rate=1', "unknown key 'optim.leraning_rate'; the keys there are .* lr, "),
    ('dta.train=x', "did you mean 'data'"),
    ('optim.lr=fast', 'optim.lr'),
    ('optim.lr=-1', 'optim.lr'),
    ('input_size=[640,500]', 'multiples of 32'),
    ('normalization.kind=magic', 'magic'),
    ('normalization.percentile=3', 'percentile'),
    ('model.chanels=[1,2,3,4]', "did you mean 'model.channels'"),
    ('seed=-1', 'seed'),
    ('seed=4294967296', 'seed'),
    ('classes=[car,person,car]', 'classes: must be different'),
    ('classes=[car,""]', 'classes: must be names; one is empty'),
    ('augment.scale=[2,1]', 'augment: scale must be'),
    ('augment.scale=[0,1]', 'augment: scale must be'),
    ('augment.scale=[1,.inf]', 'augment.scale'),
    ('optim.lr=.nan', 'optim.lr'),
    ('optim.weight_decay=.inf', 'optim.weight_decay'),
    ('cmg.teacher={path: x, bgr: true}', 'bgr is for a teacher of kind onnx'),
    ('rcs={temperature: .inf}', 'rcs.temperature'),
    ('rcs={warmup_epochs: 3, stop_epoch: 2}', 'rcs stops before its warm-up ends'),
    ('rcs={weigth: 1}', "did you mean 'rcs.weight'"),
    ('augment.noise=.inf', 'augment'),
    ('epochs', 'key=value'),
    ('=1', 'key=value'),
    ('optim.=1', 'key=value'),
    ('optim..lr=1', 'key=value'),
    ('seed=2026-99-99', 'not valid YAML'),
    ('classes=&a [*a]', 'not valid YAML'),
    ('name.x=1', 'does not name a section'),
    ('normalization=null', r'normalization: must be a section, \{key: value\}, not None'),
    ('input_size=640', r'input_size: must be a list, \[a, b\], not 640'),
    ('optim.epochs=1.5', 'optim.epochs: must be a whole number, not 1.5'),
    ('run.deterministic=maybe', 'run.deterministic: must be true or false'),
    ('run.precision=fp8', "run.precision: must be one of 'auto', '32-true'"),
    ('augment.scale=[1]', 'augment.scale.1: must have more entries'),
    ('augment=[1]', 'augment: must be a section'),
    ('optim.init=5', 'optim.init: must be'),
    ('data={trian: x, val: y}', "did you mean 'data.train'"),
    ('data={train: x}', 'data.val is missing'),
    ('run.patience=0', 'run.patience: must be greater than 0'),
])
def test_wrong_values_are_named(recipe: Path, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_recipe(recipe, [override])


@pytest.mark.parametrize(('text', 'words'), [
    ('', 'not a recipe'), ('- a', 'not a recipe'), ('a: [', 'not valid YAML'),
    ('name: x', 'data'), ('base: x.yaml\nvariants: {a: {}}', 'a grid of .*cgdet ablate')])
def test_files_that_are_no_recipe(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / 'r.yaml'
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_recipe(path)


@pytest.mark.parametrize(('content', 'words'), [
    (b'\x89PNG\r\n\x1a\n\xff\x00', 'is not a text file'), (b'name: \x00', 'is not a text file'),
    (b'{"images": [], "annotations": []}', 'is a COCO annotation file'),
    (b'# ' + b'x' * 1_100_000, 'it has 1.1 MB'), (b'a: 1\nb: [\n', 'line 3: '),
    (b'a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n' + b''.join(
        b'%c: &%c [%s]\n' % (n, n, b', '.join([b'*%c' % (n - 1)] * 9))
        for n in b'bcdefghijk'), 'is not valid YAML: its aliases expand to too many values'),
    (b'a: &a [*a]', 'is not valid YAML: it refers to itself'),
    (b'seed: ' + b'9' * 5000, 'is not valid YAML: a value cannot be read')], ids=str)
def test_other_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / 'r.yaml'
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_recipe(path)


def test_a_recipe_is_checked_without_torch() -> None:
    """So that a misspelled key is reported at once."""
    code = (
        'import sys\n'
        'from cgdet_core.errors import UserError\n'
        'import cgdet_core.cli\n'
        'import cgdet_core.training.folder\n'
        'from cgdet_core.tasks import load_recipe\n'
        'load_recipe(sys.argv[1])\n'
        'try: load_recipe(sys.argv[1], ["cmg.wieght=1"])\n'
        'except UserError as error: print(error)\n'
        'print(*sys.modules, sep="\\n")\n')
    result = subprocess.run(
        [sys.executable, '-c', code, str(ROOT / 'config' / 'train' / 'cgdet.yaml')],
        capture_output=True, text=True)
    assert "did you mean 'cmg.weight'" in result.stdout, result.stderr
    loaded = set(result.stdout.splitlines())
    assert 'pydantic' in loaded and not loaded & {'torch', 'torchvision', 'lightning', 'scipy'}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='does not exist'):
        load_recipe(tmp_path / 'no.yaml')


def test_what_another_recipe_is(recipe: Path) -> None:
    def changed(*overrides: str) -> list[str]:
        teacher = 'cmg.teacher={path: x, pad: 0}'
        old, new = (load_recipe(recipe, [teacher, *more]) for more in ((), overrides))
        return new.changes_since(old.record())

    assert not changed('data.cache_gib=0', 'cmg.teacher.cache=elsewhere')
    assert not changed('data.license=ours', 'run.output=elsewhere', 'run.patience=3')
    assert not changed("cmg.teacher.cache='.'")
    assert changed('cmg.teacher.cache=null') == ['cmg.teacher.cache']
    assert changed('optim.lr=1', 'cmg.teacher.path=y') == ['cmg.teacher.path', 'optim.lr']
    assert set(changed('cmg=null')) > {'cmg.weight'}


@pytest.mark.parametrize('overrides', [
    [], ['data.license=ours'], ['data.licence=ours'], ['data.license=x', 'data.licence=ours']])
def test_renamed_keys_are_read_and_overridden(recipe: Path, overrides: list[str]) -> None:
    values = yaml.safe_load(recipe.read_text())
    values['data']['licence'] = 'old'
    recipe.write_text(yaml.safe_dump(values))
    assert load_recipe(recipe, overrides).data.license == ('ours' if overrides else 'old')


def test_the_former_name_of_the_only_model_is_read(recipe: Path) -> None:
    found = load_recipe(recipe, ['optim.init=shipped', 'imitation.teacher=[shipped, a.onnx]'])
    assert found.optim.init == Path('thermal')
    assert found.imitation.teacher == (Path('thermal'), Path('a.onnx'))


@pytest.mark.parametrize('task', ['following', ['detection'], {'a': 1}, None])
def test_an_unknown_task_is_named(recipe: Path, task: Any) -> None:
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**values, 'task': task}))
    with pytest.raises(UserError, match='task: must be one of detection'):
        load_recipe(recipe)


def test_a_record_of_an_earlier_release_is_no_other_recipe(recipe: Path) -> None:
    new = load_recipe(recipe)
    record = new.record()
    del record['task']
    record['data']['licence'] = record['data'].pop('license')
    assert new.changes_since(record) == []
    record['optim']['lr'] = 7
    assert new.changes_since(record) == ['optim.lr']
