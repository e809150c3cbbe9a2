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

"""Teachers: a frozen pyramid of the right strides, or an error that states what is wrong."""

from collections.abc import Callable
import os
from pathlib import Path
from typing import Any

from cgdet_core.detection.student import load_student
from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.distillation.teachers import open_teacher, teacher_key
from cgdet_core.errors import UserError
from cgdet_core.training.checkpoints import KEY
import onnx
from onnx import helper, TensorProto
from pydantic import ValidationError
import pytest
import torch
from torch import nn
from torchvision.models import get_model

# The smallest of torchvision's detectors with strides of 8, 16 and 32.
SMALL: dict[str, Any] = {
    'kind': 'torchvision', 'model': 'retinanet_resnet50_fpn', 'input_size': (96, 64)}


def pictures(count: int, width: int = 160, height: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8,
                         generator=generator)


def shapes(features: list[torch.Tensor]) -> list[tuple[int, ...]]:
    return [tuple(f.shape) for f in features]


def test_our_own_detector_returns_its_pyramid(rgb_teacher: Path) -> None:
    teacher = open_teacher(TeacherConfig(path=rgb_teacher))
    found = teacher.features(pictures(2))
    assert teacher.input_size == (160, 128) and teacher.channels == (16, 16, 16)
    assert shapes(found) == [(2, 16, 16, 20), (2, 16, 8, 10), (2, 16, 4, 5)]
    student, _ = load_student(rgb_teacher)
    for one, two in zip(found, student.pyramid(pictures(2) / 255)):
        assert not one.requires_grad
        torch.testing.assert_close(one, two.detach())


CARD_2 = {'version': 2, 'task': 'tracking', 'inputs': {
    'images': {'shape': ['batch', 3, 96, 64]}}}


def test_any_tasks_checkpoint_returns_its_pyramid(tmp_path: Path, rgb_teacher: Path) -> None:
    """Trunk and neck are enough, of a card and network that detection cannot read."""
    data = torch.load(rgb_teacher, weights_only=True)
    model = {k: v for k, v in data[KEY]['model'].items() if k not in ('head_channels', 'bins')}
    weights = {k: v for k, v in data['state_dict'].items() if '.head.' not in k}
    torch.save({KEY: {'card': CARD_2, 'model': {**model, 'search_size': 7}},
                'state_dict': {**weights, 'student.correlation.weight': torch.ones(3)}},
               tmp_path / 'tracker.ckpt')
    teacher = open_teacher(TeacherConfig(path=tmp_path / 'tracker.ckpt'))
    assert teacher.input_size == (64, 96)
    original = open_teacher(TeacherConfig(path=rgb_teacher))
    for one, two in zip(teacher.features(pictures(2)), original.features(pictures(2))):
        assert torch.equal(one, two)


@pytest.mark.parametrize(('change', 'words'), [
    (lambda data: data[KEY]['card'].clear(), 'does not fit this version'),
    (lambda data: data[KEY]['model'].update(neck_channels=32), 'does not fit this version'),
    (lambda data: data[KEY]['model'].update(trunk='swin'), 'does not fit this version'),
    (lambda data: data.pop(KEY), 'is not a checkpoint of "cgdet train"')])
def test_a_checkpoint_that_does_not_fit_is_named(
    tmp_path: Path, rgb_teacher: Path, change: Callable[[dict], Any], words: str,
) -> None:
    data = torch.load(rgb_teacher, weights_only=True)
    change(data)
    torch.save(data, tmp_path / 'other.ckpt')
    with pytest.raises(UserError, match=f'other.ckpt {words}'):
        open_teacher(TeacherConfig(path=tmp_path / 'other.ckpt'))


def test_a_thermal_checkpoint_is_no_teacher(trained: Path) -> None:
    with pytest.raises(UserError, match='trained on thermal frames'):
        open_teacher(TeacherConfig(path=trained / 'last.ckpt'))


@pytest.mark.parametrize('kind', ['cgdet', 'onnx'])
def test_a_missing_file(tmp_path: Path, kind: str) -> None:
    tensors = ('a', 'b', 'c') if kind == 'onnx' else None
    config = TeacherConfig(kind=kind, path=tmp_path / 'no', tensors=tensors)
    with pytest.raises(UserError, match='does not exist'):
        open_teacher(config)


@pytest.mark.parametrize(('values', 'words'), [
    ({'kind': 'cgdet'}, 'needs its path'), ({'kind': 'onnx'}, 'needs its path'),
    ({'kind': 'onnx', 'path': 'x'}, 'needs tensors'),
    ({'kind': 'cgdet', 'path': 'x', 'tensors': ('a', 'b', 'c')}, 'tensors is for'),
    ({'kind': 'torchvision', 'pad': 114}, 'pad is for'),
    ({'kind': 'torchvision', 'path': 'x'}, 'path is not for'),
    ({'kind': 'torchvision', 'input_size': (100, 64)}, 'multiples of 32')])
def test_incomplete_configurations_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TeacherConfig.model_validate(values)


class Pyramid(nn.Module):
    """A pyramid with one output per level, as a detector's graph names them."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.student.pyramid(images))


@pytest.fixture(scope='module')
def exported(rgb_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny teacher's pyramid as ONNX for any batch; test_views has one for a batch."""
    path = tmp_path_factory.mktemp('exported') / 'pyramid.onnx'
    torch.onnx.export(
        Pyramid(load_student(rgb_teacher)[0]).eval(), (torch.zeros(2, 3, 128, 160),), str(path),
        dynamo=False, input_names=['images'], output_names=['low', 'middle', 'high'],
        dynamic_axes={name: {0: 'n'} for name in ('images', 'low', 'middle', 'high')})
    return path


def test_an_onnx_detector_equals_its_original(exported: Path, rgb_teacher: Path) -> None:
    teacher = open_teacher(TeacherConfig(
        kind='onnx', path=exported, tensors=('low', 'middle', 'high')))
    assert teacher.input_size == (160, 128) and teacher.channels == (16, 16, 16)
    original = open_teacher(TeacherConfig(path=rgb_teacher))
    for one, two in zip(teacher.features(pictures(3)), original.features(pictures(3))):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_an_onnx_detector_accepts_another_size(exported: Path, rgb_teacher: Path) -> None:
    size = (96, 64)
    teacher = open_teacher(TeacherConfig(
        kind='onnx', path=exported, tensors=('low', 'middle', 'high'), input_size=size))
    original = open_teacher(TeacherConfig(path=rgb_teacher))
    images = torch.nn.functional.interpolate(pictures(2), size[::-1])
    for one, two in zip(teacher.features(images), original.features(images)):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_what_an_onnx_detector_was_trained_on(
    tmp_path: Path, pooling_teacher: Callable[..., Path],
) -> None:
    """The features of a teacher of mean colors show its input."""
    path = pooling_teacher(tmp_path / 'p.onnx')
    red = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    red[:, 0] = 200

    def color(**values: Any) -> list[float]:
        teacher = open_teacher(TeacherConfig(
            kind='onnx', path=path, tensors=('p8', 'p16', 'p32'), input_size=(64, 64), **values))
        return teacher.features(red)[0][0, :, 0, 0].tolist()

    assert color() == pytest.approx([200 / 255, 0, 0])
    assert color(bgr=True, full_range=True) == pytest.approx([0, 0, 200])


@pytest.mark.parametrize(('tensors', 'words'), [
    (('low', 'middle', 'hihg'), 'no tensor .*hihg'),
    (('low', 'high', 'middle'), 'not a pyramid of strides 8, 16 and 32')])
def test_wrong_tensors_are_named(
    exported: Path, tensors: tuple[str, str, str], words: str,
) -> None:
    with pytest.raises(UserError, match=words):
        open_teacher(TeacherConfig(kind='onnx', path=exported, tensors=tensors))


def test_onnx_files_that_cannot_be_used_are_explained(
    tmp_path: Path, pooling_teacher: Callable[..., Path],
) -> None:
    damaged = tmp_path / 'damaged.onnx'
    damaged.write_bytes(b'no onnx')
    # A constant of one size, multiplied with the picture: no other size can run.
    model = onnx.load(pooling_teacher(tmp_path / 'fixed.onnx'))
    model.graph.initializer[0].CopyFrom(helper.make_tensor(
        'gain', TensorProto.FLOAT, (1, 1, 64, 64), [1.0] * 64 * 64))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 64
    onnx.save(model, fixed := tmp_path / 'fixed.onnx')
    for path, tensors, size, words in (
            (damaged, ('a', 'b', 'c'), None, 'not a readable ONNX file'),
            (pooling_teacher(tmp_path / 'p.onnx'), ('p8', 'p16', 'p32'), None, 'any input size'),
            (fixed, ('p8', 'p16', 'p32'), (320, 256), 'cannot run at 320x256')):
        with pytest.raises(UserError, match=words):
            open_teacher(TeacherConfig(kind='onnx', path=path, tensors=tensors, input_size=size))


@pytest.mark.parametrize('shape', [(1, 64, 64, 3), (1, 3, 64), (64,)])
def test_onnx_inputs_that_are_not_images_are_named(tmp_path: Path, shape: tuple) -> None:
    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [value('x')],
                              [value('y')])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)],
                                ir_version=9), tmp_path / 'm.onnx')
    with pytest.raises(UserError, match=r'must be \(n, 3, height, width\), it is \('):
        open_teacher(TeacherConfig(kind='onnx', path=tmp_path / 'm.onnx', tensors=('y',) * 3))


def test_a_torchvision_detector_returns_its_pyramid() -> None:
    teacher = open_teacher(TeacherConfig(**SMALL, weights=None))
    assert teacher.channels == (256, 256, 256)
    assert shapes(teacher.features(pictures(1, 96, 64))) == [
        (1, 256, 8, 12), (1, 256, 4, 6), (1, 256, 2, 3)]


@pytest.mark.parametrize(('model', 'words'), [
    ('retinanet_resnet5', 'has no detector .*retinanet_resnet50_fpn_v2'),
    ('mobilenet_v3_small', 'has no detector'), ('deeplabv3_resnet50', 'has no detector'),
    ('ssd300_vgg16', 'ssd300_vgg16 has no feature'), ('ssdlite320_mobilenet_v3_large', 'has no f'),
    ('fasterrcnn_mobilenet_v3_large_320_fpn', 'no features of stride 8')])
def test_torchvision_models_without_a_pyramid_are_named(model: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_teacher(TeacherConfig(kind='torchvision', model=model, weights=None))


def test_unknown_weights_of_a_torchvision_model_are_named() -> None:
    with pytest.raises(UserError, match="no weights 'COCO'; it has COCO_V1, DEFAULT"):
        open_teacher(TeacherConfig(**SMALL, weights='COCO'))


def test_a_failed_download_states_what_to_do(hub: Path) -> None:
    with pytest.raises(UserError, match=r'cannot be downloaded .*\$TORCH_HOME/hub/checkpoints'):
        open_teacher(TeacherConfig(**SMALL))
    assert not list(hub.iterdir())


def test_weights_in_torch_home_are_loaded_without_a_network(
    publish: Callable[[str, Any], Path],
) -> None:
    torch.manual_seed(11)
    weights = get_model(SMALL['model'], weights=None, weights_backbone=None,
                        num_classes=91).state_dict()
    # Frozen normalization, which the COCO weights are for, has one entry less.
    path = publish(SMALL['model'], {
        k: v for k, v in weights.items() if 'num_batches_tracked' not in k})
    teacher = open_teacher(TeacherConfig(**SMALL))
    own = teacher.backbone.state_dict()
    assert torch.equal(own['body.conv1.weight'], weights['backbone.body.conv1.weight'])
    content = path.read_bytes()
    for damaged in (b'damaged', b'', content[:-1], content[:-1] + b'?'):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match='not those that torchvision publishes; delete'):
            open_teacher(TeacherConfig(**SMALL))


class Harmful:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize('forced', ['', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'])
def test_code_in_the_weights_is_not_executed_even_if_the_hash_matches(
    publish: Callable[[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    forced: str,
) -> None:
    """The name carries 32 bits of the hash, which a file can be made to match."""
    if forced:
        monkeypatch.setenv(forced, '1')
    before = dict(os.environ)
    publish(SMALL['model'], Harmful(tmp_path / 'executed'))
    with pytest.raises(UserError, match='not those that torchvision publishes'):
        open_teacher(TeacherConfig(**SMALL))
    assert not (tmp_path / 'executed').exists() and dict(os.environ) == before


def test_another_teacher_or_input_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / 't.ckpt'
    path.write_bytes(b'one')
    keys = [teacher_key(TeacherConfig(path=path)),
            teacher_key(TeacherConfig(path=path, input_size=(64, 64)))]
    path.write_bytes(b'two')
    keys.append(teacher_key(TeacherConfig(path=path)))
    assert len(set(keys)) == 3
    moved = tmp_path / 'moved.ckpt'
    moved.write_bytes(b'two')
    assert teacher_key(TeacherConfig(path=moved, cache=None)) == keys[2]


@pytest.mark.parametrize(('values', 'key'), [
    ({}, '906c4dda422db9f2'),
    ({'kind': 'onnx', 'tensors': ('a', 'b', 'c'), 'bgr': True, 'full_range': True, 'pad': 114,
      'input_size': (64, 32)}, 'e8f73a2a6a9f49a0')])
def test_a_teacher_keeps_its_key(tmp_path: Path, values: dict[str, Any], key: str) -> None:
    """A user's cache is stored under it; another key would recompute hours of features."""
    path = tmp_path / 'teacher'
    path.write_bytes(b'one')
    assert teacher_key(TeacherConfig(path=path, **values)) == key
