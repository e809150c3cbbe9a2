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

"""Trunks that torchvision builds, with the ImageNet weights that it downloads once."""

from collections.abc import Callable
from typing import Any

from cgdet_core.nets.published import published
from cgdet_core.nets.trunk import adopt, IMAGENET, load_matching, Origin, Trunk
import torch
from torch import nn, Tensor
from torchvision.models import get_model, get_model_weights

# By torchvision's name: the stem and the stages, of which the last three are at strides 8, 16, 32.
PARTS: dict[str, Callable[[Any], list[nn.Module]]] = {
    'mobilenet_v3_large': lambda m: [m.features[:4], m.features[4:7], m.features[7:13],
                                     m.features[13:16]],
    'mobilenet_v3_small': lambda m: [m.features[:2], m.features[2:4], m.features[4:9],
                                     m.features[9:12]],
    'regnet_y_400mf': lambda m: [nn.Sequential(m.stem, m.trunk_output[0]), *m.trunk_output[1:]],
    'resnet18': lambda m: [nn.Sequential(m.conv1, m.bn1, m.relu, m.maxpool, m.layer1),
                           m.layer2, m.layer3, m.layer4],
    'shufflenet_v2_x1_0': lambda m: [nn.Sequential(*m.conv1, m.maxpool),
                                     m.stage2, m.stage3, m.stage4],
}


class TorchvisionTrunk(Trunk):
    """The stem and stages of a network of torchvision."""

    def __init__(self, in_channels: int, name: str, network: nn.Module | None = None) -> None:
        super().__init__()
        self.in_channels, self.name = in_channels, name
        self.stem, *stages = PARTS[name](network or get_model(name, weights=None))
        self.stages = nn.ModuleList(stages)
        first = next(m for m in self.stem.modules() if isinstance(m, nn.Conv2d))
        first.weight = nn.Parameter(first.weight.detach()[:, :in_channels].clone())
        first.in_channels = in_channels
        with torch.no_grad():
            levels = self.eval()(torch.zeros(1, in_channels, 64, 64))
        self.train()
        self.widths = (levels[0].shape[1], levels[1].shape[1], levels[2].shape[1])
        self.origin = Origin(name, 'torchvision', 'BSD-3-Clause', 'ImageNet-1k')

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.outputs(x)[-3:]

    def load_pretrained(self) -> None:
        """Load torchvision's default weights, which it downloads once."""
        with published(get_model_weights(self.name).DEFAULT, f'The weights of {self.name}',
                       ', or start with optim.init: null') as weights:
            found = weights.get_state_dict()
        network = get_model(self.name, weights=None)
        load_matching(network, found, self.name)
        adopt(self, TorchvisionTrunk(3, self.name, network), IMAGENET)
