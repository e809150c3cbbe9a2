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
Draw a frame of counts as minimum to maximum, by percentiles and by plateau equalization.

    python dev/normalizations_picture.py FRAME docs/images/normalizations.webp

FRAME in the documents: a frame of 14-bit counts in fog (FLIR conservator-cli sample data, MIT,
Copyright 2022 Teledyne FLIR LLC).
"""

from pathlib import Path
import sys

from cgdet_core.runtime.imaging.drawing import as_seen, save_picture
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.imaging.normalization import Normalization
import cv2
import numpy as np

SIZE = (480, 384)


def main(frame: Path, output: Path) -> None:
    """Write the three views of a frame next to each other."""
    counts = read_thermal(frame)
    views = {'minimum to maximum': as_seen(counts, Normalization(
                 'percentile', low_percentile=0.0, high_percentile=100.0)),
             'percentile': as_seen(counts, Normalization('percentile')),
             'plateau': as_seen(counts, Normalization('plateau'))}
    tiles = [cv2.resize(view, SIZE, interpolation=cv2.INTER_AREA) for view in views.values()]
    for name, tile in zip(views, tiles):
        cv2.putText(tile, name, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 0, 4, cv2.LINE_AA)
        cv2.putText(tile, name, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 1, cv2.LINE_AA)
    save_picture(output, np.hstack(tiles))


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]))
