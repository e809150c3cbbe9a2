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

"""The precision that a machine computes fastest in without loss of accuracy."""

from typing import Literal

from cgdet_core.runtime.processor import features
from cgdet_core.training.recipe import Recipe
from lightning.pytorch.accelerators import MPSAccelerator
import torch

BFLOAT16 = {'avx512_bf16', 'amx_bf16'}  # of x86; without them bfloat16 is slower than float32


def resolve_precision(recipe: Recipe) -> Literal['32-true', '16-mixed', 'bf16-mixed']:
    """Return `run.precision`, and for `auto` bf16-mixed where it is computed by hardware."""
    if recipe.run.precision != 'auto':
        return recipe.run.precision
    if recipe.run.accelerator in ('auto', 'gpu', 'cuda') and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif recipe.run.accelerator in ('auto', 'gpu', 'mps') and MPSAccelerator.is_available():
        native = False
    else:
        native = bool(BFLOAT16 & features())
    return 'bf16-mixed' if native else '32-true'
