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

"""Registration of RGB to thermal frames from the images alone, and how well it fits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cgdet_core.data.pairs import search, tiles
from cgdet_core.data.pairs.edges import (
    against_others,
    change_of,
    edges_of,
    Floats,
    Gray,
    is_dark,
    MAX_DARK,
    MIN_WON,
    shrink,
    warped_edges,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.drawing import as_seen
from cgdet_core.runtime.imaging.frames import to_gray
from cgdet_core.runtime.imaging.normalization import Normalization
import numpy as np
from numpy.typing import NDArray

MIN_PAIRS = 16
MIN_CHANGE = 0.1  # share of the edges' energy; less is a camera that stands
MIN_SCORE = 9.0  # of the place; unrelated pairs reach 5
MAX_RESIDUAL = 0.006  # of the frame's width: median of the tiles, about 4 of 640 pixels
MAX_HALVES = 0.01  # of the frame's width: between the registrations by either half of the pairs
MAX_ZOOM = 8.0  # of the fields of view, by the focal lengths
RGB_WIDTH = 960  # pixels; more detail than thermal has is of no use


@dataclass(frozen=True)
class Fit:
    """
    A homography from RGB to thermal pixels and how well it fits, sizes as (width, height).

    pairs: those used; dark: those left out. score: of the search, in standard deviations.
    tiles: those with a place of their own; residual_px: the median of their distances from where
    the homography puts them, residual_90_px: the 90th percentile. halves_px: the median distance
    between the registrations by the first and the second half of the pairs. correlation: of the
    edges of the pairs; by_chance: of frames with RGB images of other times; won: the share of
    comparisons in which a frame's own RGB image correlates better. Pixels are thermal ones.
    """

    homography: Floats
    thermal_size: tuple[int, int]
    rgb_size: tuple[int, int]
    pairs: int
    dark: int
    score: float
    tiles: int
    residual_px: float
    residual_90_px: float
    halves_px: float
    correlation: float
    by_chance: float
    won: float

    def values(self) -> dict[str, Any]:
        """Return the fields as values of a YAML or JSON file, rounded, without the homography."""
        found = asdict(self)
        del found['homography']
        return {name: [*value] if isinstance(value, tuple) else
                round(value, 3) if isinstance(value, float) else value
                for name, value in found.items()}

    def sentence(self) -> str:
        """Return the numbers as a sentence."""
        return (f'{self.tiles} tiles are {self.residual_px:.1f} px (median) from where the '
                f'homography puts them, the registrations by either half of the {self.pairs} '
                f'pairs differ by {self.halves_px:.1f} px, and the edges correlate by '
                f'{self.correlation:.3f} ({self.by_chance:.3f} with RGB images of other times).')


def estimate(
    thermal: Sequence[NDArray[Any]], rgb: Sequence[NDArray[np.uint8]],
    start: Floats | None = None,
) -> Fit:
    """
    Estimate the homography from RGB to thermal pixels of two cameras on one mount.

    thermal: raw frames (H, W); rgb: images (H', W', 3) BGR or (H', W'), all of the same sizes
    and in the order of time. start: a rough homography, of which the zoom is used, such as
    `by_focal_lengths`. UserError states why the images do not determine one.
    """
    ours, theirs, dark = _usable(thermal, rgb)
    shapes = ours[0].shape, np.asarray(rgb[0]).shape
    reduce = tiles.scaling(shapes[1], theirs[0].shape)
    zoom = None if start is None else zoom_of(start @ np.linalg.inv(reduce), theirs[0].shape)
    places = _places(ours, theirs, zoom)
    if places[0][1] < MIN_SCORE:
        raise UserError(
            f'RGB has no place in the thermal frames: the best one scores {places[0][1]:.1f}, '
            f'{MIN_SCORE:g} are required and unrelated images reach 5. Check that the pairs are '
            'of the same time and that both cameras see the same scene, or take more pairs.')
    middle = len(ours) // 2
    parts = slice(None), slice(None, middle), slice(middle, None)
    found = [tiles.refine(ours[part], theirs[part], place)
             for part, (place, _) in zip(parts, places)]
    if found[0] is None:
        raise UserError('RGB has a rough place in the thermal frames, but too few parts of them '
                        'show the same edges; take more pairs, of scenes with houses, poles or '
                        'cars all over the image.')
    matrix, residuals = found[0]
    halves = _distance(found[1] and found[1][0], found[2] and found[2][0], shapes[0],
                       theirs[0].shape)
    distances = np.hypot(*residuals.T)
    fit = Fit(matrix @ reduce, _size(shapes[0]), _size(shapes[1]), len(ours), dark, places[0][1],
              len(distances), float(np.median(distances)), float(np.percentile(distances, 90)),
              halves, *_compared(ours, theirs, matrix))
    _check(fit)
    return fit


def by_focal_lengths(
    thermal_px: float, rgb_px: float, thermal_size: tuple[int, int], rgb_size: tuple[int, int],
) -> Floats:
    """
    Return a start from focal lengths in pixels: same axis, scene at infinity.

    UserError if they are no lengths, or the fields of view are too different.
    """
    if not (0 < thermal_px < np.inf and 0 < rgb_px < np.inf):
        raise UserError(f'Focal lengths must be positive, not {thermal_px:g} and {rgb_px:g}',
                        'focal_px')
    zoom = thermal_px / rgb_px
    if not 1 / MAX_ZOOM <= (wider := zoom * rgb_size[0] / thermal_size[0]) <= MAX_ZOOM:
        raise UserError(f'By the focal lengths, {thermal_px:g} px for thermal and {rgb_px:g} px '
                        f'for RGB, RGB shows {wider:.3g} times the width that thermal shows; '
                        'state the one of thermal first', 'focal_px')
    x, y = (a / 2 - zoom * b / 2 for a, b in zip(thermal_size, rgb_size))
    return np.array([(zoom, 0, x), (0, zoom, y), (0, 0, 1)])


def zoom_of(matrix: Floats, shape: tuple[int, ...]) -> float:
    """Return the zoom of a homography in the middle of an image."""
    middle = np.array([shape[1] / 2, shape[0] / 2])
    there = _moved(matrix, np.stack([middle, middle + (1, 0), middle + (0, 1)]))
    return float(np.sqrt(abs(np.linalg.det((there[1:] - there[0]).T))))


def _usable(
    thermal: Sequence[NDArray[Any]], rgb: Sequence[NDArray[np.uint8]],
) -> tuple[list[Gray], list[Gray], int]:
    """Return the pairs as gray 8-bit images without dark ones, and the number of dark ones."""
    sizes = {(t.shape, r.shape[:2]) for t, r in zip(thermal, rgb, strict=True)}
    if len(sizes) > 1:
        raise UserError(f'The pairs have {len(sizes)} different sizes; register the images of '
                        'each pair of cameras separately.')
    grays = [np.asarray(to_gray(picture), np.uint8) for picture in rgb]
    lit = [not is_dark(gray) for gray in grays]
    dark = len(grays) - sum(lit)
    if dark > MAX_DARK * len(grays):
        raise UserError(f'RGB is black or uniform in {dark} of {len(grays)} pairs, too many to '
                        'register it; take pairs of the same cameras by day, as the mounting is '
                        'the same.')
    if sum(lit) < MIN_PAIRS:
        raise UserError(f'{sum(lit)} pairs are too few to register RGB; {MIN_PAIRS} or more are '
                        'required, better 40, from different places.')
    ours = [as_seen(t, Normalization('plateau')) for t, good in zip(thermal, lit) if good]
    change = change_of(np.stack([edges_of(shrink(t, search.WIDTH)) for t in ours]))
    if change < MIN_CHANGE:
        raise UserError('All frames show the same scene, so that nothing can be compared with '
                        'chance; take pairs of a camera that moves.')
    return ours, [shrink(g, RGB_WIDTH) for g, good in zip(grays, lit) if good], dark


def _places(
    thermal: Sequence[Gray], rgb: Sequence[Gray], zoom: float | None,
) -> list[tuple[Floats, float]]:
    """Return the homography and the score of the place by all pairs, and by either half."""
    small = [shrink(gray, search.WIDTH) for gray in thermal]
    seen = [shrink(gray, 2 * search.WIDTH) for gray in rgb]
    ours = tiles.scaling(thermal[0].shape, small[0].shape)
    theirs = tiles.scaling(rgb[0].shape, seen[0].shape)
    guess = None if zoom is None else zoom * ours[0, 0] / theirs[0, 0]
    places = search.search(
        small, seen, search.zooms(small[0].shape[1], seen[0].shape[1], guess),
        np.arange(len(small)) < len(small) // 2)
    return [(np.linalg.inv(ours) @ place.matrix() @ theirs, place.score) for place in places]


def _moved(matrix: Floats, points: Floats) -> Floats:
    there = np.hstack([points, np.ones((len(points), 1))]) @ matrix.T
    return np.asarray(there[:, :2] / there[:, 2:])


def _distance(
    first: Floats | None, second: Floats | None, shape: tuple[int, ...], rgb: tuple[int, ...],
) -> float:
    """Return the median distance of where two homographies put points of the thermal frame."""
    if first is None or second is None:
        return float('inf')
    x, y = np.meshgrid(*(np.linspace(0.05, 0.95, 10) * n for n in (shape[1], shape[0])))
    points: Floats = np.array([x.ravel(), y.ravel()], np.float64).T
    there = _moved(np.asarray(np.linalg.inv(first), np.float64), points)
    inside = ((there >= 0) & (there < (rgb[1], rgb[0]))).all(1)
    if not inside.any():
        return float('inf')
    return float(np.median(np.hypot(*(_moved(second, there) - points)[inside].T)))


def _compared(
    thermal: Sequence[Gray], rgb: Sequence[Gray], matrix: Floats,
) -> tuple[float, float, float]:
    """Return how pairs correlate under a homography, see `against_others`."""
    small = [shrink(gray, search.WIDTH) for gray in thermal]
    scale = tiles.scaling(thermal[0].shape, small[0].shape)
    theirs, seen = warped_edges(rgb, scale @ matrix, _size(small[0].shape))
    return against_others(np.stack([edges_of(gray) for gray in small]), theirs, seen)


def _check(fit: Fit) -> None:
    """Raise UserError for a fit that is not to be trusted."""
    width = fit.thermal_size[0]
    wrong = ''
    if fit.won < MIN_WON:
        wrong = (f'a frame fits its own RGB image better than one of another time in only '
                 f'{fit.won:.0%} of the comparisons')
    elif fit.halves_px == np.inf:
        wrong = 'the first or the second half of the pairs alone determines no registration'
    elif fit.halves_px > MAX_HALVES * width:
        wrong = (f'the registrations by the first and the second half of the pairs differ by '
                 f'{fit.halves_px:.1f} px')
    elif fit.residual_px > MAX_RESIDUAL * width:
        wrong = f'the parts of the image disagree by {fit.residual_px:.1f} px (median)'
    if wrong:
        raise UserError(f'RGB cannot be registered reliably: {wrong}. Check that the pairs are of '
                        'the same time and the cameras were not moved, take more pairs of '
                        'different scenes, or calibrate the cameras.')


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[1], shape[0]
