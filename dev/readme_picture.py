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
Draw the moving picture of README.md: detections of the shipped model in a folder of frames.

    python dev/readme_picture.py FRAMES docs/images/night_drive.webp

FRAMES are the thermal frames of a night drive, 20 Hz (FLIR conservator-cli sample data, MIT,
Copyright 2022 Teledyne FLIR LLC). Every second one of the last hundred is shown, at 10 Hz.
"""

from pathlib import Path
import sys

import cgdet_core as cg
import cv2
from PIL import Image

SIZE = (480, 384)
INTERVAL_MS = 100


def main(frames: Path, output: Path) -> None:
    """Detect in the frames and write the drawn ones as an animated WebP."""
    detector = cg.load()
    shown = [Image.fromarray(cv2.cvtColor(
        cv2.resize(detector(path).draw(), SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB))
        for path in sorted(frames.iterdir())[-100::2]]
    shown[0].save(output, save_all=True, append_images=shown[1:], duration=INTERVAL_MS, loop=0,
                  quality=60, method=6)


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]))
