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

from cgdet_core.data.coco import ImageRecord
from cgdet_core.distillation.guidance import Guide
from cgdet_core.distillation.teachers import open_teacher, teacher_key, TeacherConfig
from cgdet_core.distillation.views import TeacherInput, View
from cgdet_core.errors import UserError
from cgdet_core.training.ranks import rank_and_ranks
from rich.progress import track
import torch
from torch import Tensor

CHUNK = 16  # samples that the teacher sees at once, without a cache
HALF_MAX = 6e4  # about the largest value of half precision


class TeacherGuide:
    """Hold the frozen teacher, outside of the module whose weights are trained and saved."""

    def __init__(self, config: TeacherConfig, thermal: bool = False) -> None:
        # A student starts from the same weights with a teacher and without.
        with torch.random.fork_rng(devices=[]):
            self.teacher = open_teacher(config)
        # A teacher of random weights is another one every time.
        random = config.kind == 'torchvision' and config.weights is None
        cache = config.cache / teacher_key(config) if config.cache and not random else None
        self.reader = TeacherInput(
            self.teacher.input_size, self.teacher.pad, self.teacher.channels, cache,
            self.teacher.offset)
        self.thermal = thermal  # show the teacher frames without RGB as they are

    def __deepcopy__(self, memo: Any) -> 'TeacherGuide':
        return self  # the averaged copy of the module needs no teacher of its own

    def fill_cache(self, records: list[ImageRecord], device: torch.device, progress: bool) -> None:
        """
        Compute the features of all pictures that are not in the cache; each rank its share.

        One by one: features then depend on the picture alone, not on what else was missing.
        """
        self.teacher.to(device)
        if self.reader.cache is None:
            return
        rank, ranks = rank_and_ranks()
        views = [View.of(record, self.thermal) for record in records[rank::ranks]]
        missing = [v for v in views if v is not None and not self.reader.has(v)]
        for view in track(missing, 'teacher', disable=not progress or rank > 0, transient=True):
            features = self._see(self.reader.pixels([view], view.size)[None].to(device))
            try:
                self.reader.write(view, [level[0].half() for level in features])
            except OSError as error:
                raise UserError(
                    f'The cache of teacher features {self.reader.cache} cannot be written '
                    f'({error.strerror}); set cmg.teacher.cache to another folder.'
                ) from None

    def of(self, batch: dict[str, Any]) -> Guide | None:
        """Return the features for a batch of `collate`, or None where no frame has RGB."""
        if 'teacher_features' in batch:
            return Guide([x.float() for x in batch['teacher_features']],
                         [x.float() for x in batch['teacher_masks']])
        if 'teacher_pixels' not in batch:
            return None
        images, pixels = batch['images'], batch['teacher_pixels']
        parts = [self._see(chunk) for chunk in pixels.split(CHUNK)]
        found = [torch.cat(level) for level in zip(*parts)]
        return Guide(*self.reader.lay_out_samples(
            batch['teacher_views'], found, len(images), (images.shape[3], images.shape[2])))

    def _see(self, pixels: Tensor) -> list[Tensor]:
        """Run the teacher; no feature is beyond what half precision, the cache's, can hold."""
        with torch.autocast(pixels.device.type, enabled=False):
            found = self.teacher.features(pixels)
        return [level.float().clamp(-HALF_MAX, HALF_MAX) for level in found]
