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

"""
Measure whether simple statistics know white hot from black hot.

    python dev/polarity.py FOLDER...

Each prints the share of the images in a folder (and below; at most 100, evenly spaced) that it
takes for white hot. All are odd: they take as many inverted images for black hot.
"""

from pathlib import Path
import sys

from cgdet_core.data.show import evenly
from cgdet_core.runtime.imaging.frames import IMAGE_SUFFIXES, read_thermal
import cv2
import numpy as np
from numpy.typing import NDArray

MOST = 100


def statistics(frame: NDArray[np.float32]) -> dict[str, float]:
    """Return values of a frame (H, W) that are above 0 if it is white hot, or so one hopes."""
    low, p1, middle, p99, high = np.percentile(frame, (0.1, 1, 50, 99, 99.9))
    half = len(frame) // 2
    detail = frame - cv2.GaussianBlur(frame, (0, 0), max(2, frame.shape[1] / 80))
    return {'skewness': float(((frame - frame.mean()) ** 3).mean()),
            'longer tail, 0.1 %': (high - middle) - (middle - low),
            'longer tail, 1 %': (p99 - middle) - (middle - p1),
            'mean above median': float(frame.mean() - middle),
            'ground warmer than sky': float(frame[half:].mean() - frame[:half].mean()),
            'skewness of detail': float((detail ** 3).mean())}


def main(folders: list[Path]) -> None:
    """Print the shares of each folder and of all images."""
    everything: list[list[bool]] = []
    for folder in folders:
        found = []
        paths = [p for p in sorted(folder.rglob('*')) if p.suffix.lower() in IMAGE_SUFFIXES]
        for path in evenly(paths, MOST):
            frame = read_thermal(path)[::2, ::2].astype(np.float32)
            found.append(statistics(frame))
        everything += [[value > 0 for value in values.values()] for values in found]
        _show(f'{folder}, {len(found)} images',
              np.mean([[value > 0 for value in values.values()] for values in found], 0))
    _show(f'all, {len(everything)} images', np.mean(everything, 0))


def _show(title: str, shares: NDArray[np.float64]) -> None:
    names = statistics(np.eye(4, dtype=np.float32))
    print(title + ': ' + ', '.join(f'{name} {100 * share:.1f} %'
                                   for name, share in zip(names, shares)), flush=True)


if __name__ == '__main__':
    main([Path(text) for text in sys.argv[1:]])
