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

"""`cgdet data collect`."""

from pathlib import Path
import sys
from typing import Annotated, Any

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    COLORED,
    complain,
    folder_option,
    names_of,
    Polarity,
    say,
    show_table,
    Unit,
)
from cgdet_core.runtime.files import check_new, check_outside, model_file
from cgdet_core.runtime.imaging.signal import CARD
from cgdet_core.words import counted
from rich.table import Table
from rich.text import Text
import typer

Output = Annotated[Path, folder_option('Folder to create.')]
MaxFrames = Annotated[int | None, typer.Option(
    min=1, help='Maximum number of frames of all sources, evenly spaced.')]
MinChange = Annotated[float | None, typer.Option(
    min=0, help='Drop frames that differ from the previous one by less than this fraction of '
    'their contrast; by default 0.01 in videos and bags, 0 for images.')]
Prelabels = Annotated[str | None, typer.Option(
    help='ONNX file, checkpoint, or a name such as "shipped": makes boxes to start labeling '
    'from.')]
Score = Annotated[float, typer.Option(min=0, max=1, help='Minimum score of these boxes.')]
ThermalTopic = Annotated[str | None, typer.Option(
    help='Thermal image topic, raw or compressed; required if a bag has several.')]
RgbTopic = Annotated[str | None, typer.Option(
    help='Color image topic, raw or compressed; without it the set is thermal only.')]
MaxGap = Annotated[float, typer.Option(
    min=0, help='Maximum time between thermal frame and RGB image of a pair.')]
RgbOffset = Annotated[float, typer.Option(
    help="Added to the RGB stamps, if that camera's clock is off.")]
Homography = Annotated[Path | None, typer.Option(
    help='YAML or JSON file with the 3x3 matrix from RGB to thermal pixels, as "cgdet data '
    'register" writes it.')]
Rectify = Annotated[bool, typer.Option(
    '--rectify', help='Register by the CameraInfo topics and /tf_static of the bag.')]
Plane = Annotated[float | None, typer.Option(
    help='Distance of the scene for --rectify; infinity by default.')]
Jpeg = Annotated[bool, typer.Option(
    '--jpeg', help='Write RGB as JPEG (quality 95) instead of PNG.')]


def bag_to_dataset(
    sources: Annotated[list[str], typer.Argument(
        metavar='BAG...', help='Bags, folders that hold bags, or shell patterns.')],
    output: Output, thermal_topic: ThermalTopic = None, rgb_topic: RgbTopic = None,
    max_gap_ms: MaxGap = 20.0, rgb_offset_ms: RgbOffset = 0.0, homography: Homography = None,
    rectify: Rectify = False, plane_m: Plane = None,
    every_s: Annotated[float, typer.Option(
        min=0, help='Minimum time between frames; all by default.')] = 0.0,
    max_frames: MaxFrames = None, min_change: MinChange = None, jpeg: Jpeg = False,
    prelabel: Prelabels = None,
    score: Score = 0.3,
    classes: Annotated[list[str] | None, typer.Option(
        '--class', help="Class to label, after the model's; may be repeated; person, bicycle and "
        'car by default.')] = None,
    unit: Unit = None, polarity: Polarity = None,
) -> None:
    """Make a COCO set from bags, as "cgdet data collect" does from any source."""
    data_collect(
        sources, output, 1, 1 / every_s if every_s else None, max_frames, min_change, prelabel,
        score, ','.join(classes or ()) or None, unit, thermal_topic, rgb_topic, max_gap_ms,
        rgb_offset_ms, homography, rectify, plane_m, jpeg, polarity)


def data_collect(
    sources: Annotated[list[str], typer.Argument(
        metavar='SOURCE...', help='Images, folders of images or bags, videos, bags, "patterns", '
        'addresses, - for a list on standard input; a camera or a stream alone.')],
    output: Output,
    every: Annotated[int, typer.Option(
        min=1, metavar='N', help='Take every N-th frame only.')] = 1,
    rate: Annotated[float | None, typer.Option(
        metavar='HZ', help='Maximum frames per second of videos and bags; all by '
        'default.')] = None,
    max_frames: MaxFrames = None, min_change: MinChange = None,
    model: Prelabels = None,
    score_threshold: Score = 0.3,
    classes: Annotated[str | None, typer.Option(
        metavar='NAME,...', help="Classes to label, after the model's; person,bicycle,car by "
        'default.')] = None,
    unit: Unit = None, thermal_topic: ThermalTopic = None, rgb_topic: RgbTopic = None,
    max_gap_ms: MaxGap = 20.0, rgb_offset_ms: RgbOffset = 0.0, homography: Homography = None,
    rectify: Rectify = False, plane_m: Plane = None, jpeg: Jpeg = False,
    polarity: Polarity = None,
) -> None:
    """
    Make a COCO set to label from images, videos and bags, at their depth, with pre-labels.

    The boxes of --model have a score and count as not checked, until "cgdet data relabel" replaces
    them. Of bags, registered RGB images of the same time can be taken as well. A frame that cannot
    be read is reported and left out; the exit status is then 1.
    """
    from cgdet_core.data.bags.pairing import Choice
    from cgdet_core.data.collect import collect
    from cgdet_core.data.inputs import find_recordings
    from cgdet_core.data.plans import make_plans
    from cgdet_core.data.sources import Source
    from cgdet_core.detection.predict import check_model, open_thermal

    check_new(output)
    choice = Choice(thermal_topic, rgb_topic, max_gap_ms, rgb_offset_ms, every, rate, max_frames,
                    min_change, homography, rectify, plane_m, jpeg, unit or CARD,
                    polarity or '')
    wanted = names_of(classes)
    path = None if model is None else model_file(model)
    if path is not None:
        check_model(path)
    with common.exit_on_sigterm():
        found = find_recordings(sources, sys.stdin, thermal_topic)
        check_outside(output, [Path(s.where) for s in found if isinstance(s, Source)])
        plans = make_plans(found, choice)
        detector = None if path is None else open_thermal(path)
        total = sum(len(plan.stamps) + len(plan.partners) for plan in plans) or max_frames
        with common.counting('reading', total, 'image') as progress:
            report = collect(plans, output, choice, detector, score_threshold, progress, wanted)
    _show(report, output)
    if failed := sum(len(part['unreadable']) for part in report['sources']):
        complain(f'{counted(failed, "image")} could not be read.')
        raise typer.Exit(1)


def _show(report: dict[str, Any], output: Path) -> None:
    paired = report['with_rgb'] > 0
    table = Table('source', 'images', 'chosen', 'alike', 'unreadable', 'frames',
                  *['with RGB', 'gap ms'] * paired)
    for part in report['sources']:
        gap = part.get('gap_ms')
        table.add_row(Text(part['source']), *(str(part[k]) for k in (
            'images', 'chosen', 'near_duplicates')), str(len(part['unreadable'])),
            str(part['frames']), *[str(part['with_rgb']), f'{gap["median"]:.1f}' if gap else '-']
            * paired)
    show_table(table)
    for part in report['sources']:
        _show_faults(part)
    if (pairs := report['alignment'])['pairs']:
        say(pairs['sentence'], None if pairs['good'] else 'yellow')
    depths = ' and '.join(f'{kind.removeprefix("uint")}-bit' for kind in report['bit_depth'])
    say(f'{output}: {counted(report["frames"], "frame")}, {depths}; annotations.json, '
        'report.json, contact_sheet.png')
    if 'prelabels' in report:
        boxes = ', '.join(f'{name} {n}' for name, n in report['prelabels']['boxes'].items())
        say(f'pre-labels: {boxes}; check each frame, then "cgdet data relabel"')
    else:
        say('There are no boxes yet; --model shipped makes some to start from.')


def _show_faults(part: dict[str, Any]) -> None:
    """Report what is wrong with the images of a source."""
    for sentence in part['unreadable'][:1]:
        say(f'{part["source"]}, left out: {sentence}', 'yellow')
    if part['not_kelvin']:
        say(f'{part["source"]}: the values of {counted(part["not_kelvin"], "image")} cannot be '
            'of their unit; state it (--unit).', 'yellow')
    if part['clipped_images']:
        say(f'{part["source"]}: {part["clipped_pixels"]} pixels of {part["clipped_images"]} '
            'frames are clipped, as 16 bits do not hold their values (temperatures above '
            '655.35 K, counts above 65535, fractions above 1, or below 0).', 'yellow')
    if part['repeated_stamps']:
        say(f'{part["source"]}, left out: {counted(part["repeated_stamps"], "image")} with the '
            'stamp of an earlier one; the camera driver must set header.stamp.', 'yellow')
    if part['in_color']:
        say(COLORED.format(part['in_color']), 'yellow')
