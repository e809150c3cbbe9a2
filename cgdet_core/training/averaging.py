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

"""Averaged weights, which are validated and deployed."""

import lightning
from lightning.pytorch.callbacks import WeightAveraging
import torch
from torch import Tensor


class Averaging(WeightAveraging):
    """Keep an exponential moving average of the weights, which follows them closely at first."""

    def __init__(self, decay: float) -> None:
        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            keep = min(decay, (1 + float(count)) / (10 + float(count)))
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(averaged, current, 1 - keep)
            else:
                for a, c in zip(averaged, current):
                    a.copy_(c)

        super().__init__(multi_avg_fn=average)

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
    ) -> None:
        """Move the average to the module's device: it was created before the module was moved."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)
