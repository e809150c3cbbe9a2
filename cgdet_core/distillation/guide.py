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

"""Guide: the teacher's features of a training batch, and the cache of those of whole pictures."""

from collections import Counter
from collections.abc import Callable
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.data.coco import ImageRecord
from cgdet_core.distillation.config import TeacherConfig, Unpaired
from cgdet_core.distillation.layout import Layout
from cgdet_core.distillation.scales import PICTURES, scales_of, standardize, sums_of
from cgdet_core.distillation.store import PictureStore
from cgdet_core.distillation.teachers import cache_folder, open_teacher
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
from cgdet_core.training.ranks import gather_entries, rank_and_ranks
import numpy as np
from rich.progress import track
import torch
from torch import Tensor

CHUNK = 16  # samples per run of the teacher, without a cache
HALF_MAX = 6e4  # about the largest value of half precision
# Called in loading workers with a sample's views and size; returns pixels for the teacher, or
# features and masks from the cache.
Reader = Callable[[list[View], tuple[int, int]], Any]

_log = logging.getLogger(__name__)


class TeacherPyramid(NamedTuple):
    """The teacher's features of a batch, on the student's cells."""

    features: list[Tensor]  # P3, P4, P5: (N, C_l, H/stride, W/stride)
    masks: list[Tensor]  # (N, 1, H/stride, W/stride): 1 where the features are real

    def rows(self, flags: Tensor) -> 'TeacherPyramid':
        """Return the features of the flagged samples (N,)."""
        return TeacherPyramid([x[flags] for x in self.features], [x[flags] for x in self.masks])


class FeatureCache:
    """Store the features of whole pictures in a folder: a file of float16 and its checksum."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self._store = PictureStore(folder, '.f16')
        self._sizes = [math.prod(shape) for shape in layout.shapes]

    def check(self, view: View) -> str:
        """
        Return whether the features of a view's picture are stored: missing, changed, old or good.

        Changed since they were written: they are removed. Old: by a release without checksums;
        they are given one.
        """
        path = self._path(view)
        if not path.is_file():
            return 'missing'
        if path.stat().st_size == 2 * sum(self._sizes):
            self._store.write(path, path.read_bytes())
            return 'old'
        if self.read(view) is None:
            path.unlink()
            return 'changed'
        return 'good'

    def read(self, view: View) -> list[Tensor] | None:
        """Return P3, P4, P5 (C, h, w), float16, of a picture; None if not stored or damaged."""
        content = self._store.read(self._path(view))
        if content is None or len(content) != 2 * sum(self._sizes):
            return None
        parts = np.split(np.frombuffer(bytearray(content), np.float16),
                         np.cumsum(self._sizes)[:-1])
        return [torch.from_numpy(p.reshape(s)) for p, s in zip(parts, self.layout.shapes)]

    def write(self, view: View, features: list[Tensor]) -> None:
        """Store the features (C, h, w), float16, of a view's picture."""
        content = torch.cat([x.cpu().flatten() for x in features]).numpy().tobytes()
        self._store.write(self._path(view), content)

    def show(self, views: list[View], size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """Return `Layout.empty` filled with features (a Reader); UserError if any are missing."""
        features, masks = self.layout.empty(size)
        for view in views:
            found = self.read(view)
            if found is None:
                raise UserError(f'The features of {view.picture} were removed from {self.folder} '
                                'or changed there; resume the run to compute them again.')
            self.layout.lay_out(view, found, features, masks)
        return features, masks

    def _path(self, view: View) -> Path:
        return self._store.path(view, self.layout.fitted(view.size))


class Guide:
    """Run the frozen teacher, which is neither trained nor saved, or look up its features."""

    def __init__(self, config: TeacherConfig, unpaired: Unpaired = 'skip') -> None:
        # A student starts from the same weights with and without a teacher.
        with torch.random.fork_rng(devices=[]):
            self.teacher = open_teacher(config)
        self.layout = Layout(self.teacher.input_size, self.teacher.pad, self.teacher.channels,
                             self.teacher.offset)
        folder = cache_folder(config)
        self.cache = None if folder is None else FeatureCache(folder, self.layout)
        self.unpaired: Unpaired = unpaired  # what the teacher sees if there is no RGB
        self.scales: list[Tensor] | None = None  # if set, `of` returns features of unit scale

    def __deepcopy__(self, memo: Any) -> 'Guide':
        return self  # the averaged copy of the module needs no separate teacher

    @property
    def reader(self) -> Reader:
        """Return the function that loading workers call; it does not refer to the teacher."""
        return self.layout.show if self.cache is None else self.cache.show

    def fill_cache(self, records: list[ImageRecord], device: torch.device, progress: bool) -> None:
        """
        Check the cache and compute missing features, each rank its share.

        The teacher sees the pictures one by one, so that none affects another.
        """
        self.teacher.to(device)
        if self.cache is None:
            return
        rank, ranks = rank_and_ranks()
        views = [View.of(record, self.unpaired) for record in records[rank::ranks]]
        found = Counter[str]()
        for view in track(views, 'teacher', disable=not progress or rank > 0, transient=True):
            state = 'good' if view is None else self.cache.check(view)
            found[state] += 1
            if view is not None and state in ('missing', 'changed'):
                features = self._see(self.layout.pixels([view], view.size)[None].to(device))
                self.cache.write(view, [level[0].half() for level in features])
        if found['changed']:
            _log.warning('%d files of the teacher features in %s were changed since they were '
                         'written; they were computed again.', found['changed'], self.cache.folder)
        if found['old']:
            _log.warning('%d files of the teacher features in %s had no checksum, as earlier '
                         'releases wrote none; they have one now.', found['old'],
                         self.cache.folder)

    def measure_scales(self, records: list[ImageRecord], device: torch.device,
                       progress: bool) -> None:
        """
        Set `scales` from whole pictures, each rank its share; all ranks have the same result.

        Features are read from the cache if they are there. Without a cache the teacher runs once
        on each of these pictures: the samples it sees later have the same channels.
        """
        every = [View.of(record, self.unpaired) for record in records]
        views = [view for view in every if view is not None]
        chosen = views[::-(-len(views) // PICTURES)]
        rank, ranks = rank_and_ranks()
        sums = {}
        for i in track(range(rank, len(chosen), ranks), 'teacher',
                       disable=not progress or rank > 0, transient=True):
            features = self.cache.read(chosen[i]) if self.cache is not None else None
            if features is None:
                pixels = self.layout.pixels([chosen[i]], chosen[i].size)[None].to(device)
                features = [level[0] for level in self._see(pixels)]
            sums[i] = [sums_of(x) for x in self.layout.covered(chosen[i], features)]
        self.scales = scales_of(list(gather_entries(sums).values()))

    def of(self, batch: dict[str, Any]) -> TeacherPyramid | None:
        """Return the features for a batch, or None if it has no picture for the teacher."""
        found = self._of(batch)
        if found is None or self.scales is None:
            return found
        return found._replace(features=[
            standardize(*level) for level in zip(found.features, found.masks, self.scales)])

    def _of(self, batch: dict[str, Any]) -> TeacherPyramid | None:
        if 'teacher_features' in batch:
            return TeacherPyramid([x.float() for x in batch['teacher_features']],
                                  [x.float() for x in batch['teacher_masks']])
        if 'teacher_pixels' not in batch:
            return None
        images, pixels = batch['images'], batch['teacher_pixels']
        parts = [self._see(chunk) for chunk in pixels.split(CHUNK)]
        found = [torch.cat(level) for level in zip(*parts)]
        return TeacherPyramid(*self.layout.lay_out_samples(
            batch['teacher_views'], found, len(images), (images.shape[3], images.shape[2])))

    def _see(self, pixels: Tensor) -> list[Tensor]:
        """Run the teacher; features are clamped to half precision, in which they are cached."""
        with torch.autocast(pixels.device.type, enabled=False):
            found = self.teacher.features(pixels)
        return [level.float().clamp(-HALF_MAX, HALF_MAX) for level in found]


def batch_teacher(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Stack the teacher's part of a batch; {} if no sample shows a picture.

    Either `teacher_features` and `teacher_masks`, per level (N, C, H/stride, W/stride) and (N, 1,
    H/stride, W/stride) float16; or, without a cache, `teacher_pixels` (V, 3, H, W) uint8 of the
    V samples that show a picture, and `teacher_views`, V pairs (number of the sample, its views).
    """
    shown = [(n, s['views']) for n, s in enumerate(samples) if 'teacher' in s and s['views']]
    if not shown:
        return {}
    content = [s['teacher'] for s in samples]
    if isinstance(content[0], tuple):
        features, masks = ([torch.stack(level) for level in zip(*part)] for part in zip(*content))
        return {'teacher_features': features, 'teacher_masks': masks}
    return {'teacher_pixels': torch.stack([content[n] for n, _ in shown]), 'teacher_views': shown}
