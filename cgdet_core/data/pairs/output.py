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

"""The file and the picture of an estimated registration."""

from pathlib import Path

from cgdet_core.data.bags.registration import by_homography
from cgdet_core.data.pairs.edges import edges_of
from cgdet_core.data.pairs.estimate import Fit
from cgdet_core.data.pairs.reading import Pairs
from cgdet_core.data.show import evenly
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.drawing import as_seen, contact_sheet, FONT, Picture, save_picture
from cgdet_core.runtime.imaging.normalization import Normalization
import cv2
import numpy as np
import yaml

SHOWN = 4  # pairs of the picture
STRONG = 0.55  # strength of an edge that is drawn, 0 to 1
COLOR = (0, 255, 255)  # of thermal edges
BRIGHTNESS = 0.25  # that the mean of RGB is raised to, of 1


def save_fit(path: Path, fit: Fit, made_by: str) -> None:
    """Write a fit as YAML that `read_homography` reads."""
    values = fit.values()
    content = {
        'homography': [[float(f'{n:.9g}') for n in row] for row in fit.homography.tolist()],
        'thermal_size': values.pop('thermal_size'), 'rgb_size': values.pop('rgb_size'),
        'fit': values}
    text = f'# From RGB pixels to thermal pixels, {made_by}.\n' + yaml.safe_dump(
        content, sort_keys=False, default_flow_style=None)
    write_atomically(path, text.encode())


def save_overlay(path: Path, fit: Fit, pairs: Pairs) -> None:
    """Write RGB with the edges of thermal, before and after registration, of some pairs."""
    register = by_homography(fit.homography, fit.thermal_size)
    rows = []
    for thermal, rgb, name in evenly(list(zip(pairs.thermal, pairs.rgb, pairs.names)), SHOWN):
        edges = np.abs(edges_of(as_seen(thermal, Normalization('plateau')))) > STRONG
        before = np.asarray(cv2.resize(rgb, fit.thermal_size, interpolation=cv2.INTER_AREA))
        for picture, word in ((before, 'before'), (register.apply(rgb), 'after')):
            rows.append(_overlaid(picture, edges, f'{name} {word}'))
    save_picture(path, contact_sheet(rows, 2, fit.thermal_size[0]))


def _overlaid(picture: Picture, edges: np.ndarray, title: str) -> Picture:
    mean = max(float(picture.mean()) / 255, 1e-3)
    power = min(1.0, np.log(BRIGHTNESS) / np.log(mean)) if mean < BRIGHTNESS else 1.0
    shown = (255 * (picture / 255.0) ** power).astype(np.uint8)
    shown[edges] = COLOR
    for color, thick in ((0, 4), (255, 1)):
        cv2.putText(shown, title, (8, 24), FONT, 0.6, (color,) * 3, thick, cv2.LINE_AA)
    return shown
