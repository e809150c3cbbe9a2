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

"""Pictures of frames with the target, and videos of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgdet_core.data.sources import Frame
from cgdet_core.data.video import open_video
from cgdet_core.runtime.imaging.drawing import Picture
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.tracking.drawing import draw_targets
from cgdet_core.runtime.tracking.target import Target
from cgdet_core.tracking.following import Box, corners, Show
import numpy as np
from numpy.typing import NDArray


def stretch(frame: NDArray[Any]) -> Normalization:
    """Return how a frame is shown in 8 bits: as it is, or stretched if it has more."""
    return Normalization('none' if frame.dtype == np.uint8 else 'percentile')


def draw_target(frame: NDArray[Any], target: Target, truth: Box | None = None) -> Picture:
    """Return a frame (H, W) as an image with the target, and the truth x, y, w, h, dashed."""
    return draw_targets(frame, [target], stretch(frame),
                        truth=None if truth is None else corners(truth)[None])


@contextmanager
def open_target_video(path: Path, rate: float) -> Iterator[Show]:
    """Yield the function that appends a frame with its target to a video, see `open_video`."""
    with open_video(path, rate) as write:
        def show(frame: Frame, target: Target, truth: Box | None) -> None:
            write(np.asarray(draw_target(frame.pixels, target, truth)))

        yield show
