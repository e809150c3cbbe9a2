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

"""`cgdet bag to-dataset`."""

from pathlib import Path
from typing import Annotated, Any

from cgdet_core.cli.common import console, exit_on_sigterm, say
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text
import typer


def bag_to_dataset(
    sources: Annotated[list[str], typer.Argument(
        metavar='BAG...', help='Bags, folders that hold bags, or shell patterns.')],
    output: Annotated[Path, typer.Option(help='Folder to make.')],
    thermal_topic: Annotated[str | None, typer.Option(
        help='Thermal images, raw or compressed; needed where there are several.')] = None,
    rgb_topic: Annotated[str | None, typer.Option(
        help='Color images, raw or compressed; without it the set is thermal alone.')] = None,
    max_gap_ms: Annotated[float, typer.Option(
        min=0, help='Most time between thermal frame and RGB image of a pair.')] = 20.0,
    rgb_offset_ms: Annotated[float, typer.Option(
        help="Added to RGB's stamps, where its clock is off.")] = 0.0,
    homography: Annotated[Path | None, typer.Option(
        help='YAML or JSON with 3x3 numbers, RGB pixels to thermal pixels.')] = None,
    rectify: Annotated[bool, typer.Option(
        '--rectify', help='Register by both CameraInfo and /tf_static of the bag.')] = False,
    plane_m: Annotated[float | None, typer.Option(
        help='Distance of the scene for --rectify; infinity by default.')] = None,
    every_s: Annotated[float, typer.Option(
        min=0, help='Least time between frames; all by default.')] = 0.0,
    max_frames: Annotated[int | None, typer.Option(
        min=1, help='Most frames of all bags together, evenly spread.')] = None,
    min_change: Annotated[float, typer.Option(
        min=0, help='Drop frames that differ by less than this share of their contrast from the '
        'one before.')] = 0.01,
    jpeg: Annotated[bool, typer.Option(
        '--jpeg', help='RGB as JPEG of quality 95 instead of PNG.')] = False,
    prelabel: Annotated[Path | None, typer.Option(
        help='Model (ONNX file or checkpoint) that draws boxes to start from.')] = None,
    score: Annotated[float, typer.Option(
        min=0, max=1, help='Least score of such a box.')] = 0.3,
) -> None:
    """Make a COCO set of bags: thermal frames, RGB of the same time laid onto them, pre-labels."""
    from cgdet_core.data.bags.dataset import make_dataset
    from cgdet_core.data.bags.pairing import Choice
    from cgdet_core.detection.bag_detection import find_bags
    from cgdet_core.detection.predict import open_detector

    choice = Choice(thermal_topic, rgb_topic, max_gap_ms, rgb_offset_ms, every_s, max_frames,
                    min_change, homography, rectify, plane_m, jpeg)
    detector = None if prelabel is None else open_detector(prelabel)
    with exit_on_sigterm(), Progress(console=console, transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def advance(what: str, frames: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=None)
            progress.advance(bars[what], frames)

        report = make_dataset(find_bags(sources), output, choice, detector, score, advance)
    _show(report, output)


def _show(report: dict[str, Any], output: Path) -> None:
    table = Table('bag', 'images', 'chosen', 'near-duplicates', 'unreadable', 'frames', 'with RGB',
                  'gap ms')
    for part in report['bags']:
        gap = part.get('gap_ms')
        table.add_row(Text(part['bag']), *(str(part[k]) for k in (
            'thermal_images', 'chosen', 'near_duplicates')), str(len(part['unreadable'])),
            str(part['frames']), str(part['with_rgb']), f'{gap["median"]:.1f}' if gap else '-')
    console.print(table)
    for part in report['bags']:
        for sentence in part['unreadable'][:1]:
            say(f'{part["bag"]}, left out: {sentence}', 'yellow')
    shift = report['alignment']
    if shift['believed']:
        say(f'RGB lies off by {shift["dx"]:+.1f}, {shift["dy"]:+.1f} px (right, down)')
    elif shift['pairs']:
        say(f'Alignment: {shift["note"]}', 'yellow')
    if 'prelabels' in report:
        counts = ', '.join(f'{name} {n}' for name, n in report['prelabels'].items()
                           if name != 'score')
        say(f'pre-labels: {counts}; look at each before training')
    say(f'{output}: annotations.json, report.json, contact_sheet.png')
