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

"""Feature cache: a teacher's features of whole pictures, one file each."""

import hashlib
import math
from pathlib import Path

from cgdet_core.distillation.layout import Layout
from cgdet_core.distillation.views import AS_A_PICTURE, View
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_atomically
import numpy as np
import torch
from torch import Tensor


class FeatureCache:
    """
    Store the features of whole pictures in a folder.

    One float16 file per picture, which the operating system caches in memory.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self._sizes = [math.prod(shape) for shape in layout.shapes]

    def has(self, view: View) -> bool:
        """Return whether the features of a view's picture are stored, without reading them."""
        path = self._path(view)
        return path.is_file() and path.stat().st_size == 2 * sum(self._sizes)

    def read(self, view: View) -> list[Tensor] | None:
        """Return a picture's features P3, P4, P5 (C, h, w), float16, or None if not stored."""
        if not self.has(view):
            return None
        flat = np.fromfile(self._path(view), np.float16)
        parts = np.split(flat, np.cumsum(self._sizes)[:-1])
        return [torch.from_numpy(p.reshape(s)) for p, s in zip(parts, self.layout.shapes)]

    def write(self, view: View, features: list[Tensor]) -> None:
        """Store the features (C, h, w), float16, of a view's picture."""
        flat = torch.cat([x.cpu().flatten() for x in features])
        write_atomically(self._path(view), flat.numpy().tobytes())

    def show(self, views: list[View], size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor]]:
        """
        Return features and masks on the cells of a sample of `size` (a Reader).

        See Layout.empty for their shapes. UserError if a picture's features are missing.
        """
        features, masks = self.layout.empty(size)
        for view in views:
            found = self.read(view)
            if found is None:
                raise UserError(f'The features of {view.picture} were removed from {self.folder}; '
                                'resume the run to compute them again.')
            self.layout.lay_out(view, found, features, masks)
        return features, masks

    def _path(self, view: View) -> Path:
        state, (width, height) = view.picture.stat(), self.layout.fitted(view.size)
        name = f'{view.picture.resolve()} {state.st_size} {state.st_mtime_ns} {width}x{height}'
        if view.thermal:
            name += f' {AS_A_PICTURE.to_dict()}'
        return self.folder / f'{hashlib.sha256(name.encode()).hexdigest()[:24]}.f16'
