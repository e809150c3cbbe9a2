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

"""What the teacher sees of a training batch."""

from typing import Any

from cgdet_core.data.views import lay_out, TeacherInput
from cgdet_core.losses.guidance import Guide
from cgdet_core.models.head import STRIDES
from cgdet_core.models.teachers import open_teacher, teacher_key, TeacherConfig
import torch
from torch import Tensor

CHUNK = 16  # pictures that the teacher sees at once


class TeacherGuide:
    """Hold the frozen teacher, outside of the module whose weights are trained and saved."""

    def __init__(self, config: TeacherConfig) -> None:
        # A student starts from the same weights with a teacher and without.
        with torch.random.fork_rng(devices=[]):
            self.teacher = open_teacher(config)
        cache = config.cache / teacher_key(config) if config.cache else None
        self.reader = TeacherInput(
            self.teacher.input_size, self.teacher.pad, self.teacher.channels, cache)

    def __deepcopy__(self, memo: Any) -> 'TeacherGuide':
        return self  # the averaged copy of the module needs no teacher of its own

    def of(self, batch: dict[str, Any]) -> Guide | None:
        """Give the features for a batch of `collate`, or None where no frame has RGB."""
        if 'views' not in batch:
            return None
        self._complete(batch)
        images = batch['images']
        features, masks = [], []
        for level, stride in enumerate(STRIDES):
            stacked = torch.stack([x['features'][level] for x in batch['inputs']])
            laid, mask = lay_out(
                stacked.float(), batch['views'], len(images), images.shape[2:], stride)
            features.append(laid)
            masks.append(mask)
        return Guide(features, masks)

    def _complete(self, batch: dict[str, Any]) -> None:
        """Run the teacher where only pixels are known, and keep what it gives."""
        missing = [i for i, x in enumerate(batch['inputs']) if 'pixels' in x]
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start:start + CHUNK]
            pixels = torch.stack([batch['inputs'][i]['pixels'] for i in chunk])
            with torch.autocast(pixels.device.type, enabled=False):
                found: list[Tensor] = self.teacher.features(pixels)
            for k, i in enumerate(chunk):
                # Half, as from the cache: what is cached already must change no weight.
                features = [level[k].half() for level in found]
                batch['inputs'][i] = {'features': features}
                self.reader.write(batch['sources'][i], features)
