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

"""Inference backends behind one small protocol."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """Run a network of fixed input size; built by loading a model, which checks its shapes."""

    max_batch: int  # images of one call
    rows: int  # K, boxes per image

    def infer(
        self, images: NDArray[np.float32],
        boxes: NDArray[np.float32], scores: NDArray[np.float32],
    ) -> None:
        """
        Run images (N, C, H, W), N from 1 to max_batch, and fill the caller's arrays.

        boxes (N, K, 4) x1, y1, x2, y2 in input pixels and scores (N, K, num_classes), all three
        float32 and C-contiguous.
        """
        ...

    def describe(self) -> str:
        """Name the backend, its version and device, for logs and diagnostics."""
        ...

    def close(self) -> None:
        """Free the model's memory; the backend can't be used afterwards, nor be in use now."""
        ...
