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
Measure the registration of RGB on real pairs; the tables of docs/datasets.md.

`python dev/registration.py DATA`, a folder with rgbt_road and flir_night. RGB of rgbt_road is
seen by cameras with known homographies; errors are in pixels of the thermal frame, median and
maximum over the field that both see, against the alignment that the set claims, and against that
alignment as it is estimated from the set itself.
"""

import json
from pathlib import Path
import sys
from typing import Any

from cgdet_core.data.bags.registration import by_homography
from cgdet_core.data.pairs.check import check_pairs
from cgdet_core.data.pairs.estimate import by_focal_lengths, estimate, Fit
from cgdet_core.data.pairs.reading import Pairs, PairSource, read_pairs
from cgdet_core.data.show import evenly
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))
from drive_points import BY_EYE  # noqa: E402

SOURCES = 'msrs', 'flir', 'llvip', 'm3fd'
COUNT = 40


def main(data: Path) -> None:
    """Print the tables."""
    drive = read_pairs(PairSource(data / 'flir_night' / 'drive'), 60)
    print('| drive | tiles | residual px | halves px | by eye, px |')
    fit = measure_drive('as recorded', drive)
    if fit is not None:
        compare(fit, drive)
    measure_drive('focal lengths known', drive, by_focal_lengths(765, 781, (640, 512), (776, 622)))
    for frames in (2, 10, 30):
        late = drive.rgb[frames:] + drive.rgb[:frames]
        measure_drive(f'RGB {frames * 10 / 60:.1f} s late', Pairs(drive.thermal, late, []))
    for part in (4, 10):
        dim = [picture // part for picture in drive.rgb]
        measure_drive(f'1/{part} of the light', Pairs(drive.thermal, dim, []))
    print('| rgbt_road | camera | tiles | halves px | claimed, px | own, px |')
    for name, pairs, others in sets(data / 'rgbt_road'):
        fit = measure_set(name, pairs)
        third = len(pairs.rgb) // 3
        late = pairs.rgb[third:] + pairs.rgb[:third]
        print('other times:', check_pairs(zip(pairs.thermal, late)))
        if fit is not None and others.rgb:
            compare(fit, others)


def measure_drive(name: str, pairs: Pairs, start: np.ndarray | None = None) -> Fit | None:
    """Print a row of the drive; return the fit."""
    fit = attempt(pairs, start)
    if fit is None:
        return None
    there = moved(fit.homography, [rgb for _, rgb, _ in BY_EYE])
    off = np.hypot(*(there - [thermal for _, _, thermal in BY_EYE]).T)
    print(f'| {name} | {fit.tiles} | {fit.residual_px:.1f} | {fit.halves_px:.1f} | '
          f'{np.median(off):.1f}, {off.max():.1f} |', flush=True)
    return fit


def compare(fit: Fit, pairs: Pairs) -> None:
    """Print the check of pairs before and after registration."""
    register = by_homography(fit.homography, fit.thermal_size)
    resized = [np.asarray(cv2.resize(p, fit.rgb_size)) for p in pairs.rgb]
    for words, rgb in (('before', pairs.rgb), ('after', map(register.apply, resized))):
        print(f'{words}: {check_pairs(zip(pairs.thermal, rgb))}', flush=True)


def measure_set(name: str, pairs: Pairs) -> Fit | None:
    """Print the rows of a set: as it is, and RGB as other cameras see it; return the first fit."""
    height, width = pairs.thermal[0].shape
    size = width, height
    rgb = [np.asarray(cv2.resize(p, size)) for p in pairs.rgb]
    itself = attempt(Pairs(pairs.thermal, rgb, []))
    for words, camera in (('as it is', np.eye(3)), *cameras(width, height).items()):
        seen = [np.asarray(cv2.warpPerspective(
            p, np.linalg.inv(camera), size, borderMode=cv2.BORDER_REPLICATE)) for p in rgb]
        fit = attempt(Pairs(pairs.thermal, seen, []))
        if fit is not None:
            own = '-' if itself is None else errors(fit, itself.homography @ camera)
            print(f'| {name} | {words} | {fit.tiles} | {fit.halves_px:.1f} | '
                  f'{errors(fit, camera)} | {own} |', flush=True)
    third = len(rgb) // 3
    attempt(Pairs(pairs.thermal, rgb[third:] + rgb[:third], []))
    return itself


def attempt(pairs: Pairs, start: np.ndarray | None = None) -> Fit | None:
    """Return the fit, or print why there is none."""
    try:
        return estimate(pairs.thermal, pairs.rgb, start)
    except UserError as error:
        print(f'refused: {error}', flush=True)
        return None


def cameras(width: int, height: int) -> dict[str, np.ndarray]:
    """Return homographies from RGB to thermal pixels."""
    angle = np.deg2rad(2)
    turn = np.array([(np.cos(angle), -np.sin(angle), 0), (np.sin(angle), np.cos(angle), 0),
                     (0, 0, 1)])
    tilt = np.array([(1, 0, 0), (0, 1, 0), (6e-5, -4e-5, 1)])
    middle = np.array([(1, 0, width / 2), (0, 1, height / 2), (0, 0, 1)])
    return {
        'narrower, 0.8': np.array([(0.8, 0, 0.1 * width), (0, 0.8, 0.08 * height), (0, 0, 1)]),
        'wider, 1.25': np.array([(1.25, 0, -0.12 * width), (0, 1.25, -0.1 * height), (0, 0, 1)]),
        'turned, tilted': middle @ turn @ np.diag([0.9, 0.9, 1]) @ tilt @ np.linalg.inv(middle)}


def moved(matrix: np.ndarray, points: Any) -> np.ndarray:
    """Return points (N, 2) under a homography."""
    return np.asarray(cv2.perspectiveTransform(
        np.array(points, float).reshape(-1, 1, 2), matrix)[:, 0])


def errors(fit: Fit, matrix: np.ndarray) -> str:
    """Return the median and maximum distance of a fit from a homography, in thermal pixels."""
    x, y = np.meshgrid(*(np.linspace(0.1, 0.9, 9) * n for n in fit.thermal_size))
    points = np.stack([x.ravel(), y.ravel()], 1)
    there = moved(np.linalg.inv(matrix), points)
    inside = ((there > 0) & (there < fit.rgb_size)).all(1)
    off = np.hypot(*(moved(fit.homography, there) - points)[inside].T)
    return f'{np.median(off):.1f}, {off.max():.1f}'


def sets(folder: Path) -> list[tuple[str, Pairs, Pairs]]:
    """Return at most 40 pairs of each source of rgbt_road from one mount, and 60 others."""
    items: dict[str, list[tuple[Path, Path]]] = {}
    for name in ('train_thermal', 'val_thermal', 'unlabelled_pairs'):
        for image in json.loads((folder / 'annotations' / f'{name}.json').read_text())['images']:
            if image['rgb_file_name'] and image['source'] in SOURCES:
                time = image['time_of_day'].replace('unknown', '')
                items.setdefault(f'{image["source"]} {time}'.strip(), []).append(
                    (folder / image['file_name'], folder / image['rgb_file_name']))
    found = []
    for name, files in items.items():
        chosen = evenly(sorted(files), COUNT)
        others = sorted(set(files) - set(chosen))[:60]
        found.append((name, read(chosen), read(others)))
    return found


def read(files: list[tuple[Path, Path]]) -> Pairs:
    """Return pairs of files."""
    return Pairs([read_thermal(thermal) for thermal, _ in files],
                 [np.asarray(read_rgb(rgb)[..., ::-1], np.uint8) for _, rgb in files], [])


if __name__ == '__main__':
    main(Path(sys.argv[1]))
