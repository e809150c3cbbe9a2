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

"""The feature pyramid that tasks share: its trunks, and what older runs hold of it."""

from cgdet_core.detection.config import StudentConfig
from cgdet_core.detection.student import Student
from cgdet_core.errors import UserError
from cgdet_core.nets import config as config_module
from cgdet_core.nets.config import PyramidConfig
from cgdet_core.nets.pyramid import FeaturePyramid, NECKS, TRUNKS
from cgdet_core.tasks import parse_recipe
import pytest
import torch

SIZES = {'channels': (8, 8, 16, 16), 'depths': (1, 1, 1, 1), 'neck_channels': 16}


def test_a_students_pyramid_is_the_pyramid_of_the_same_weights() -> None:
    student = Student(3, StudentConfig(head_channels=16, bins=8, **SIZES)).eval()
    network = FeaturePyramid(PyramidConfig(**SIZES)).eval()
    weights = student.state_dict()
    assert {name.partition('.')[0] for name in weights} == {'backbone', 'neck', 'head'}
    network.load_state_dict({k: v for k, v in weights.items() if not k.startswith('head.')})
    images = torch.rand(1, 1, 64, 96)
    for one, two in zip(student.pyramid(images), network.pyramid(images)):
        assert torch.equal(one, two)


def test_runs_of_before_there_were_trunks_are_the_same(recipe_values: dict) -> None:
    """They lack the key; what they hold and hash must not differ from what is written now."""
    old = StudentConfig.model_validate({**SIZES, 'in_channels': 1})
    assert old.trunk == 'csp' and old == StudentConfig(trunk='csp', **SIZES)
    assert 'trunk' not in old.model_dump() and 'trunk' not in old.model_dump_json()
    model = parse_recipe(recipe_values, 'test').model_dump(mode='json')['model']
    assert list(model) == ['in_channels', 'channels', 'depths', 'neck_channels', 'head_channels',
                           'bins']


def test_an_unknown_trunk_is_named(recipe_values: dict) -> None:
    model = {**recipe_values['model'], 'trunk': 'resnet'}
    with pytest.raises(UserError, match=r'model\.trunk: must be one of csp, efficientnet_lite0'):
        parse_recipe({**recipe_values, 'model': model}, 'test')


def test_a_recipe_knows_what_can_be_built() -> None:
    assert config_module.TRUNKS == list(TRUNKS) and config_module.NECKS == list(NECKS)


def test_a_further_trunk_is_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRUNKS, 'other', TRUNKS['csp'])
    monkeypatch.setattr(config_module, 'TRUNKS', [*config_module.TRUNKS, 'other'])
    config = PyramidConfig(trunk='other', neck_channels=16)
    assert config.model_dump()['trunk'] == 'other'
    assert PyramidConfig.model_validate(config.model_dump()) == config
    assert FeaturePyramid(config).eval().pyramid(torch.zeros(1, 1, 32, 32))[0].shape == (
        1, 16, 4, 4)
