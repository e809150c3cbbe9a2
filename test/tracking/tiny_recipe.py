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

"""Recipes of tiny trackers."""

from pathlib import Path
from typing import Any

import yaml


def write_recipe(folder: Path, pairs: Path, task: str, model: dict[str, Any],
                 **more: Any) -> Path:
    """Write a recipe of two epochs of eight samples, named `tiny`; more: further sections."""
    path = folder / f'{task}.yaml'
    path.write_text(yaml.safe_dump({
        'task': task, 'name': 'tiny', 'input_size': 128, 'model': model,
        'data': {'train': [str(pairs)], 'val': [str(pairs)], 'objects': 8, 'val_objects': 6,
                 'smallest': 6, 'sequences': {'scenes': 1, 'scene_frames': 2}},
        'crops': {'size': 128}, 'optim': {'epochs': 2, 'batch_size': 4, 'lr': 0.001},
        'run': {'output': str(folder / 'runs'), 'workers': 0, 'val_every': 1,
                'precision': '32-true', 'accelerator': 'cpu'}, **more}))
    return path
