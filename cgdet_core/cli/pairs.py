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

"""`cgdet data register`."""

from pathlib import Path
from typing import Annotated

from cgdet_core.cli.common import counting, Images, Overwrite, say
from cgdet_core.errors import UserError
from cgdet_core.words import counted
import typer


def data_register(
    path: Annotated[Path, typer.Argument(metavar='PAIRS', help=(
        'Bag, COCO file, or folder with thermal/ and rgb/.'))],
    output: Annotated[Path, typer.Option(
        metavar='FILE', help='YAML file to write; a picture, .png, beside it.',
    )] = Path('registration.yaml'),
    rgb: Annotated[Path | None, typer.Option(
        help='Folder of the RGB images with the same names; PAIRS has the thermal ones.')] = None,
    images: Images = None,
    thermal_topic: Annotated[str | None, typer.Option(
        help='Thermal image topic of a bag; required if it has several.')] = None,
    rgb_topic: Annotated[str | None, typer.Option(help='Color image topic of a bag.')] = None,
    max_gap_ms: Annotated[float, typer.Option(
        min=0, help='Maximum time between the images of a pair of a bag.')] = 20.0,
    rgb_offset_ms: Annotated[float, typer.Option(
        help="Added to the RGB stamps of a bag, if that camera's clock is off.")] = 0.0,
    focal_px: Annotated[tuple[float, float] | None, typer.Option(
        metavar='THERMAL RGB', help='Focal lengths in pixels, if known; fewer zooms are '
        'tried.')] = None,
    count: Annotated[int, typer.Option(
        min=16, help='Maximum number of pairs, evenly spaced.')] = 60,
    overwrite: Overwrite = False,
) -> None:
    """
    Estimate the homography from RGB to thermal pixels from the images of one mount.

    A pair that cannot be read is reported and left out; the exit status is then 1.
    """
    from cgdet_core.data.bags.pairing import Choice
    from cgdet_core.data.pairs.estimate import by_focal_lengths, estimate
    from cgdet_core.data.pairs.output import save_fit, save_overlay
    from cgdet_core.data.pairs.reading import PairSource, read_pairs
    from cgdet_core.runtime.files import check_outputs
    from cgdet_core.runtime.imaging.frames import check_not_among

    if output.suffix == '.png':
        raise UserError(f'{output} is the name of the picture; name a YAML file', 'output')
    check_outputs([output], overwrite=overwrite)
    picture = output.with_suffix('.png')
    check_outputs([picture], overwrite=overwrite)
    choice = Choice(thermal_topic, rgb_topic, max_gap_ms, rgb_offset_ms)
    with counting('reading') as progress:
        pairs = read_pairs(PairSource(path, rgb, images, choice), count, progress)
    check_not_among([output, picture], pairs.files)
    start = None if focal_px is None else by_focal_lengths(
        *focal_px, pairs.thermal[0].shape[::-1], pairs.rgb[0].shape[1::-1])
    fit = estimate(pairs.thermal, pairs.rgb, start)
    save_fit(output, fit, f'made by "cgdet data register" from {fit.pairs} pairs')
    save_overlay(picture, fit, pairs)
    say(fit.sentence())
    say(f'{output}, {picture}')
    if pairs.unreadable:
        raise UserError(f'{counted(len(pairs.unreadable), "image")} could not be read, first: '
                        f'{pairs.unreadable[0]}.')
