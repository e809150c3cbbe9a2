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

"""Training of coupled students: what each sees and learns from, resumption, ranks, files."""

from collections.abc import Callable, Iterator
import copy
import json
from pathlib import Path
import subprocess
from typing import Any

from cgdet_core.data.synthetic import write_coco
from cgdet_core.deployment.export import export
from cgdet_core.detection.student import load_student, Student
from cgdet_core.detection.training import DetectionTraining
from cgdet_core.distillation import coupling
from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.distillation.teachers import open_teacher
from cgdet_core.errors import UserError
from cgdet_core.tasks import parse_recipe, train
from cgdet_core.training import module as training
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch
from torch import nn, Tensor
import yaml

TERMS = ('rgb', 'style', 'content', 'swap')


@pytest.fixture(scope='module')
def values(recipe_values: dict, pairs: Path, rgb_teacher: Path) -> dict[str, Any]:
    """Return a recipe of coupled students in which every second frame of a batch is a pair."""
    return {
        **recipe_values, 'name': 'coupled', 'augment': {'mosaic': 0.5},
        'data': {'train': str(pairs), 'val': str(pairs), 'pair_share': 0.5},
        'optim': {'epochs': 3, 'batch_size': 4, 'warmup_epochs': 1},
        'cmg': {'weight': 0.5, 'teacher': {'path': str(rgb_teacher), 'cache': None}},
        'coupled': {'warmup_epochs': 0, 'match_gradients': True, 'keep_rgb': True}}


Step = tuple[DetectionTraining, dict[str, Any]]


def prepared(values: dict[str, Any]) -> DetectionTraining:
    """Return a module that computes the losses of a step without a trainer, in epoch 2.5."""
    torch.manual_seed(0)
    module: Any = DetectionTraining(parse_recipe(values, 'test')).train()
    average = copy.deepcopy(module)
    module.average = lambda: average
    module.epoch = lambda: 2.5
    module.step_generator = lambda: torch.Generator().manual_seed(3)
    if module.coupled is not None:
        module.coupled.matching.state.fill_(coupling.STEPS)
    return module


@pytest.fixture
def step(values: dict) -> Step:
    module = prepared(values)
    torch.manual_seed(1)
    return module, next(iter(module.train_dataloader()))


def again(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch whose entries a step may replace."""
    return {**batch, 'targets': [dict(t) for t in batch['targets']]}


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.named_buffers()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_rgb_student_starts_as_the_thermal_one_on_gray_pictures(step: Step) -> None:
    module, _ = step
    gray = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        expected = copy.deepcopy(module.student).eval()(gray)
        found = copy.deepcopy(module.coupled.student).eval()(gray.expand(2, 3, 64, 96))
    torch.testing.assert_close(found, expected)


def test_other_weights_start_as_without_an_rgb_student(values: dict, step: Step) -> None:
    alone = prepared({**values, 'coupled': None})
    module, _ = step
    for name, value in alone.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name
    assert module.coupled is not None and alone.coupled is None
    assert set(alone.losses(next(iter(alone.train_dataloader()))).terms) == {'det', 'cmg'}


def test_both_students_see_the_same_patches_hidden_and_teachers_none(step: Step) -> None:
    module, batch = step
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, inputs: seen.update({name: inputs[0].detach().clone()})

    module.average().student.backbone.register_forward_pre_hook(keep('teacher'))
    module.student.backbone.register_forward_pre_hook(keep('thermal'))
    module.coupled.student.backbone.register_forward_pre_hook(keep('rgb'))
    module.losses(again(batch))
    rows = batch['rgb_rows']
    assert len(rows) >= 2
    images = batch['images'].as_subclass(Tensor)
    torch.testing.assert_close(seen['teacher'], images[rows])
    others = [n for n in range(4) if n not in rows]
    assert torch.equal(seen['thermal'][others], images[others]), 'without RGB nothing is hidden'
    for row, rgb, painted in zip(rows, seen['rgb'], batch['rgb']):
        hidden = (seen['thermal'][row] != images[row]).any(0)
        of_rgb = (rgb != painted).any(0)
        blocks = [x.unfold(0, 32, 32).unfold(1, 32, 32).any(3).any(2) for x in (hidden, of_rgb)]
        assert torch.equal(*blocks) and blocks[0].sum() == 5, 'a quarter of 20 patches'


def test_objects_that_are_hidden_are_neither_objects_nor_background(step: Step) -> None:
    module, _ = step
    visible = torch.ones(1, 1, 128, 160)
    visible[:, :, 32:64, 32:64] = 0
    boxes = torch.tensor([[34.0, 34, 60, 60], [60, 40, 80, 60], [100, 10, 120, 40]])
    target = {'boxes': boxes, 'labels': torch.tensor([0, 1, 2]), 'scores': torch.ones(3),
              'ignored': torch.zeros(0, 4)}
    found = module.coupled.seen([target], visible)[0]
    assert found['labels'].tolist() == [1, 2] and torch.equal(found['boxes'], boxes[1:])
    assert torch.equal(found['ignored'], boxes[:1])


@pytest.mark.parametrize('name', ['style', 'content', 'swap'])
def test_the_gradient_of_each_term_reaches_both_students(step: Step, name: str) -> None:
    module, batch = step
    if name == 'swap':  # a new head is blind to what it sees
        for student in (module.student, module.coupled.student):
            nn.init.normal_(student.head.box_out.weight)
    module.losses(again(batch)).terms[name].backward()
    for student in (module.student, module.coupled.student):
        gradients = [p.grad.abs().max() for p in student.backbone.parameters()
                     if p.grad is not None]
        assert len(gradients) > 10 and max(gradients) > 0


def test_statistics_of_the_two_modalities_are_never_mixed(step: Step) -> None:
    """Each student has its own layers, whose statistics only its own pictures change."""
    module, batch = step
    students = module.student, module.coupled.student
    own, other = ({p.data_ptr() for p in [*s.parameters(), *s.buffers()]} for s in students)
    assert not own & other

    def after(**changes: Tensor) -> list[dict[str, Tensor]]:
        changed = copy.deepcopy(module)
        changed.average, changed.epoch = module.average, module.epoch
        changed.step_generator = module.step_generator
        changed.losses({**again(batch), **changes})
        return [buffers(changed.student), buffers(changed.coupled.student)]

    start = [buffers(student) for student in students]
    plain = after()
    of_rgb = after(rgb=1 - batch['rgb'])
    of_thermal = after(images=1 - batch['images'])
    assert not same(start[0], plain[0]) and not same(start[1], plain[1])
    assert same(plain[0], of_rgb[0]) and not same(plain[1], of_rgb[1])
    assert same(plain[1], of_thermal[1]) and not same(plain[0], of_thermal[0])


def test_the_rgb_student_learns_nothing_where_no_rgb_is(step: Step) -> None:
    module, batch = step
    batch = {**again(batch), 'rgb_bare': [torch.tensor([[0.0, 0, 160, 128]])] * len(
        batch['rgb_rows']), 'rgb_shown': batch['rgb_shown'] * 0}
    terms = module.losses(batch).terms
    for name in TERMS:
        assert terms[name] == 0, name
    assert terms['det'] > 0


def test_without_pairs_in_a_batch_every_weight_has_a_gradient(step: Step) -> None:
    """DDP waits for all of them on each rank."""
    module, batch = step
    lonely = {k: v for k, v in again(batch).items() if not k.startswith(('rgb', 'teacher'))}
    before = buffers(module.coupled.student)
    found = module.losses(lonely)
    torch.stack([*found.terms.values()]).sum().backward()
    assert [found.terms[name].item() for name in TERMS] == [0] * 4
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    assert same(before, buffers(module.coupled.student))


def test_the_thermal_teacher_of_an_imitation_also_teaches_content(
    values: dict, trained: Path,
) -> None:
    module = prepared({**values, 'classes': ['person', 'bicycle', 'car'], 'imitation': {
        'teacher': str(trained / 'last.ckpt')}})
    assert [type(a) for a in module.coupled.coupling.adapt_thermal] == [nn.Conv2d] * 3
    assert module._thermal_teacher() is module.imitation.students[0]
    batch = next(iter(module.train_dataloader()))
    assert module.losses(batch).terms['content'] > 0


def test_pseudo_labels_teach_both_students(values: dict, pairs: Path) -> None:
    module = prepared({**values, 'classes': ['person', 'bicycle', 'car'], 'data': {
        **values['data'], 'pair_share': None}, 'unlabeled': {
        'frames': str(pairs), 'burn_in_epochs': 0, 'sources': ['student']}})
    batch = next(iter(module.train_dataloader()))
    targets = [{'boxes': torch.tensor([[20.0, 20, 60, 90]]), 'labels': torch.tensor([0]),
                'scores': torch.ones(1), 'ignored': torch.zeros(0, 4)} for _ in range(4)]
    flags = batch['unlabeled']
    outputs = module.student(batch['images'])
    every = module._learn(outputs, targets, flags)
    labels, pseudo = (module._learn(outputs, [
        {**t, 'boxes': t['boxes'][:0], 'labels': t['labels'][:0], 'scores': t['scores'][:0],
         'ignored': torch.tensor([[0.0, 0, 160, 128]])} if flag == kind else t
        for t, flag in zip(targets, flags.tolist())], flags) for kind in (True, False))
    assert labels > 0 and pseudo > 0
    torch.testing.assert_close(every, labels + pseudo)
    assert module.losses(batch).terms['rgb'] > 0


def test_pseudo_labels_may_teach_classes_only(values: dict, pairs: Path) -> None:
    module = prepared({**values, 'classes': ['person', 'bicycle', 'car'], 'data': {
        **values['data'], 'pair_share': None}, 'unlabeled': {
        'frames': str(pairs), 'burn_in_epochs': 0, 'sources': ['student']}})
    target = {'boxes': torch.tensor([[20.0, 20, 60, 90]]), 'labels': torch.tensor([0]),
              'ignored': torch.zeros(0, 4)}
    for flag, more, teaches_boxes in (
            (True, {'box_weights': torch.zeros(1)}, False),
            (True, {'box_weights': torch.ones(1)}, True), (False, {}, True)):
        logits, distributions = (part.detach().requires_grad_() for part in module.student(
            next(iter(module.train_dataloader()))['images'][:1]))
        module._learn(
            (logits, distributions), [{**target, **more}], torch.tensor([flag])).backward()
        assert logits.grad.any()
        assert bool(distributions.grad.any()) == teaches_boxes


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory, values: dict) -> Iterator[Path]:
    """Return a folder with a whole run, and one that was interrupted and resumed."""
    folder = tmp_path_factory.mktemp('coupled')
    run = {**values['run'], 'val_every': 3, 'output': str(folder)}

    def trained(name: str, resume: bool = False) -> None:
        train(parse_recipe({**values, 'run': run, 'name': name}, 'test'), resume, progress=False)

    def interrupt(module: DetectionTraining) -> None:
        if module.current_epoch == 2:
            raise UserError('interrupted')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coupling, 'STEPS', 7)  # of three steps an epoch
        trained('whole')
        with pytest.MonkeyPatch.context() as interrupted:
            interrupted.setattr(DetectionTraining, 'on_train_epoch_start', interrupt)
            with pytest.raises(UserError, match='interrupted'):
                trained('parts')
        state = torch.load(folder / 'parts/last.ckpt', weights_only=True)['coupled_gradients']
        assert state[0] == 6, 'interrupted while gradients were measured'
        trained('parts', True)
    yield folder


def test_an_interrupted_and_resumed_run_ends_with_the_same_weights(runs: Path) -> None:
    whole, parts = (torch.load(runs / name / 'last.ckpt', weights_only=True)
                    for name in ('whole', 'parts'))
    for part in ('state_dict', 'current_model_state'):
        assert same(whole[part], parts[part])
    assert torch.equal(whole['coupled_gradients'], parts['coupled_gradients'])
    assert whole['coupled_gradients'][0] == 7 and (whole['coupled_gradients'][1:] > 0).all()


def test_every_term_and_its_gradient_is_logged(
    tmp_path: Path, values: dict, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, 'NORMS_EVERY', 10)
    data = {**values['data'], 'pair_share': 0.25}
    run = {**values['run'], 'val_every': 5, 'output': str(tmp_path)}
    train(parse_recipe({
        **values, 'data': data, 'run': run, 'optim': {**values['optim'], 'epochs': 4},
        'coupled': {'warmup_epochs': 1, 'stop_epoch': 4}}, 'test'), progress=False)
    log = EventAccumulator(str(tmp_path / 'coupled' / 'logs'))
    log.Reload()
    last = {tag: log.Scalars(tag)[-1].value for tag in log.Tags()['scalars']}
    total = sum(last[f'train/{name}'] for name in ('det', 'cmg', *TERMS))
    assert last['train/loss'] == pytest.approx(total, rel=1e-4)
    assert all(last[f'train/{name}'] > 0 and last[f'gradient/{name}'] > 0 for name in TERMS)


def test_the_thermal_student_alone_is_deployed(
    runs: Path, tmp_path: Path, onnx_model: Path,
) -> None:
    best = runs / 'whole' / 'best.ckpt'
    weights = torch.load(best, weights_only=True)['state_dict']
    assert {name.split('.')[0] for name in weights} == {'student', 'coupled', 'cmg'}
    student, card = load_student(best)
    assert card.channels == 1 and all(
        torch.equal(value, weights[f'student.{name}'])
        for name, value in student.state_dict().items())
    exported = export(best, tmp_path / 'coupled.onnx')
    plain = json.loads(onnx_model.with_suffix('.json').read_text())
    assert exported.parameters == plain['parameters']


def test_the_rgb_student_is_a_checkpoint_of_its_own(
    runs: Path, tmp_path: Path, pairs: Path, rgb_teacher: Path,
    run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    path = runs / 'parts' / 'rgb.ckpt'
    student, card = load_student(path)
    weights = torch.load(runs / 'parts' / 'best.ckpt', weights_only=True)['state_dict']
    assert isinstance(student, Student) and card.channels == 3
    for name, value in student.state_dict().items():
        assert torch.equal(value, weights[f'coupled.student.{name}']), name
    assert open_teacher(TeacherConfig(path=path)).channels == (16, 16, 16)
    result = run_cgdet('evaluate', path, '--data', pairs, '--json', tmp_path / 'r.json')
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'r.json').read_text())['images'] == 6, 'frames with RGB'


def test_two_processes_train_one_of_which_never_sees_rgb(
    tmp_path: Path, values: dict, program: Callable[..., subprocess.CompletedProcess],
) -> None:
    """Every batch of four has one pair, which the first of two ranks gets."""
    recipe = tmp_path / 'recipe.yaml'
    recipe.write_text(yaml.safe_dump({
        **values, 'augment': {'mosaic': 0.0}, 'data': {**values['data'], 'pair_share': 0.25},
        'optim': {'epochs': 2, 'batch_size': 2, 'warmup_epochs': 1},
        'run': {**values['run'], 'val_every': 2, 'devices': 2, 'output': str(tmp_path)}}))
    result = program('train', recipe)
    assert result.returncode == 0, result.stdout + result.stderr
    content = torch.load(tmp_path / 'coupled' / 'last.ckpt', weights_only=True)
    assert content['global_step'] == 6 and content['coupled_gradients'][0] == 6
    assert (tmp_path / 'coupled' / 'rgb.ckpt').is_file()


@pytest.mark.parametrize(('changes', 'words'), [
    ({'cmg': None}, r'coupled needs the RGB teacher cmg\.teacher'),
    ({'data': {'rgb': False}, 'cmg': {'unpaired': 'thermal'}}, r'sees nothing without data\.rgb'),
    ({'coupled': {'warmup_epochs': 2, 'stop_epoch': 1}}, 'coupled stops before its warm-up'),
    ({'coupled': {'mask_ratio': 1}}, r'coupled\.mask_ratio: must be less than 1'),
    ({'coupled': {'stile': 1}}, r"did you mean 'coupled\.style'"),
    ({'data': {'pair_share': None, 'train': 'scenes'}, 'cmg': {'unpaired': 'thermal'}},
     'lists no RGB images .*, which coupled needs'),
    ({'data': {'train': 'lacking'}}, r'1 of the RGB images .*scene_00002\.png'),
], ids=str)
def test_a_recipe_or_data_that_do_not_fit_are_refused(
    tmp_path: Path, values: dict, scenes: Path, changes: dict, words: str,
) -> None:
    lacking = write_coco(tmp_path / 'lacking', 4, 1, 4, (160, 128), rgb=1)
    (lacking.parent / 'rgb' / 'scene_00002.png').unlink()
    files = {'scenes': str(scenes), 'lacking': str(lacking)}
    changed = {key: {**values[key], **part} if part else None for key, part in changes.items()}
    if 'data' in changed:
        changed['data']['train'] = files.get(changed['data']['train'], changed['data']['train'])
        if changed['data']['train'] == files['lacking']:
            changed['data']['pair_share'] = None
    with pytest.raises(UserError, match=words):
        DetectionTraining(parse_recipe({**values, **changed}, 'test'))
