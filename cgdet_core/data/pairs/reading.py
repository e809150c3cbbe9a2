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

"""Pairs of a folder, a COCO set or a bag, as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgdet_core.data.bags import pairing
from cgdet_core.data.bags.io import color_picture, whole
from cgdet_core.data.coco import load_coco
from cgdet_core.data.show import evenly
from cgdet_core.data.sources import names_bag
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.frames import (
    files_below,
    IMAGE_SUFFIXES,
    read_bgr,
    read_image,
    to_gray,
)
from cgdet_core.runtime.imaging.message import view_message
import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PairSource:
    """
    Where pairs are: a COCO file, a bag, or a folder with thermal/ and rgb/.

    rgb: folder of the RGB images with the same names, of a folder of thermal ones. images: see
    `load_coco`. choice: of a bag's topics and stamps.
    """

    path: Path
    rgb: Path | None = None
    images: Path | None = None
    choice: pairing.Choice = pairing.Choice()


@dataclass(frozen=True)
class Pairs:
    """
    Raw thermal frames (H, W) and RGB (H', W', 3) BGR of the same times, in order.

    unreadable: why pairs were left out. files: all images of the source; none of a bag.
    """

    thermal: list[NDArray[Any]]
    rgb: list[NDArray[np.uint8]]
    names: list[str]
    unreadable: list[str]
    files: Sequence[Path] = ()


def read_pairs(
    source: PairSource, count: int, progress: Callable[[int], None] = lambda pairs: None,
) -> Pairs:
    """Read at most `count` pairs, evenly spaced; UserError if none can be read."""
    path = source.path
    if not path.exists():
        raise UserError(f'The source {path} does not exist.')
    coco = path.suffix.lower() == '.json'
    if source.images is not None and not coco:
        raise UserError(f'The folder of images {source.images} is for a COCO file, and {path} is '
                        'none; leave it out.', 'images')
    if names_bag(path):
        return _of_bag(path, source.choice, count, progress)
    files = _of_coco(source) if coco else _of_folder(path, source.rgb)
    found = Pairs([], [], [], [], [file for pair in files for file in pair])
    for thermal, rgb in evenly(files, count):
        progress(1)
        try:
            frame = _filled(read_image(thermal))
            picture = read_bgr(rgb)
        except UserError as error:
            found.unreadable.append(str(error).rstrip('.'))
            continue
        except ValueError as error:
            found.unreadable.append(f'{thermal}: {error}')
            continue
        found.thermal.append(frame)
        found.rgb.append(picture)
        found.names.append(thermal.name)
    return _some(found, path)


def _filled(image: NDArray[Any]) -> NDArray[Any]:
    return fill_dead_pixels(to_gray(image))[0]


def _some(found: Pairs, path: Path) -> Pairs:
    """Return pairs; UserError if there are none."""
    if not found.names:
        raise UserError(f'None of the {len(found.unreadable)} pairs of {path} can be read, first: '
                        f'{found.unreadable[0]}.')
    return found


def _of_coco(source: PairSource) -> list[tuple[Path, Path]]:
    coco = load_coco(source.path, source.images)
    found = [(r.path, r.rgb_path) for r in coco.images if r.rgb_path is not None]
    if not found:
        raise UserError(f'{source.path} has no frames with an RGB image (rgb_file_name).')
    return found


def _of_folder(folder: Path, rgb: Path | None) -> list[tuple[Path, Path]]:
    if folder.is_file():
        raise UserError(f'{folder} is neither a bag nor a COCO file (.json).')
    thermal = folder if rgb is not None else folder / 'thermal'
    rgb = rgb or folder / 'rgb'
    for place in (thermal, rgb):
        if not place.is_dir():
            raise UserError(f'The folder {place} does not exist; pairs are images of the same '
                            'names in thermal/ and rgb/ of a folder, or in two folders.', 'rgb')
    named, frames = _by_name(rgb), _by_name(thermal)
    found = [(frames[name], named[name]) for name in frames if name in named]
    if not found:
        raise UserError(f'No image of {thermal} has one of the same name in {rgb}.')
    return found


def _by_name(folder: Path) -> dict[Path, Path]:
    """Return the images of a folder by their names without suffix; UserError for two of one."""
    found: dict[Path, Path] = {}
    for path in files_below(folder, IMAGE_SUFFIXES):
        other = found.setdefault(path.relative_to(folder).with_suffix(''), path)
        if other is not path:
            raise UserError(f'{other} and {path} have one name; remove one, as pairs are images '
                            'of the same name.')
    return found


def _of_bag(
    path: Path, choice: pairing.Choice, count: int, progress: Callable[[int], None],
) -> Pairs:
    if choice.rgb_topic is None:
        raise UserError('Name the RGB topic of the bag.', 'rgb_topic')
    plan = pairing.plan_bag(path, choice)
    chosen = dict(evenly(sorted(plan.partners.items()), count))
    thermal: dict[int, NDArray[Any]] = {}
    rgb: dict[int, NDArray[np.uint8]] = {}
    unreadable = []
    parts: tuple[tuple[str | None, set[int], dict[int, Any], Callable[[Any], Any]], ...] = (
        (plan.thermal_topic, set(chosen), thermal, lambda message: _filled(view_message(message))),
        (plan.rgb_topic, set(chosen.values()), rgb, color_picture))
    for topic, stamps, found, read in parts:
        for stamp, message in pairing.messages(path, topic, stamps):
            progress(1)
            try:
                found[stamp] = read(whole(message))
            except (ValueError, cv2.error) as error:
                unreadable.append(f'{topic} at {stamp} ns: {error}')
    pairs = [(t, r) for t, r in sorted(chosen.items()) if t in thermal and r in rgb]
    return _some(Pairs([thermal[t] for t, _ in pairs], [rgb[r] for _, r in pairs],
                       [str(t) for t, _ in pairs], unreadable), path)
