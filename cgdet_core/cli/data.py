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

"""`cgdet data`."""

from pathlib import Path
from typing import Annotated, Any

from cgdet_core.cli.common import console, counting, Images, Match, Overwrite, say
from cgdet_core.errors import UserError
from rich.table import Table
from rich.text import Text
import typer

data_app = typer.Typer(no_args_is_help=True, help=(
    'Convert data sets to COCO, show them, and replace their boxes.'))


@data_app.command('convert')
def data_convert(
    name: Annotated[str, typer.Argument(metavar='FORMAT', help=(
        'flir-adas-v1, flir-adas-v2, flir-aligned, llvip, kaist, m3fd, msrs, yolo or voc.'))],
    folder: Annotated[Path, typer.Argument(metavar='DATASET', help='Folder of the data set.')],
    output: Annotated[Path | None, typer.Option(
        help='Folder to write to; DATASET/annotations by default.')] = None,
    rgb: Annotated[Path | None, typer.Option(
        help='Folder of RGB images with the same names (yolo, voc).')] = None,
    labels: Annotated[Path | None, typer.Option(
        help='Label folder, if there are several (llvip, kaist, msrs).')] = None,
    bits: Annotated[int | None, typer.Option(
        help='8 or 16, if a set has both (flir-adas); 16 by default.')] = None,
    unregistered_rgb: Annotated[bool, typer.Option(
        '--unregistered-rgb', help='Pair RGB of another field of view (flir-adas-v1).')] = False,
    renames: Annotated[list[str] | None, typer.Option(
        '--map', metavar='NATIVE=CLASS',
        help='CLASS: any name, ignore-NAME (ignored in evaluation) or drop.')] = None,
    hold_out: Annotated[float | None, typer.Option(
        help='Fraction of frames for val, taken from the end, if a set has no split.')] = None,
    frames: Annotated[int, typer.Option(min=1, help='Frames on the contact sheet.')] = 12,
    overwrite: Overwrite = False,
) -> None:
    """Write a data set's labels as COCO, with a report and a contact sheet."""
    from cgdet_core.data.formats.convert import convert
    from cgdet_core.data.formats.native import Options

    mapping = {}
    for rename in renames or []:
        native, equals, target = rename.rpartition('=')
        if not equals:
            raise UserError(f'--map requires NATIVE=CLASS, such as truck=car, not {rename!r}.')
        mapping[native.strip()] = target.strip()
    options = Options(rgb, labels, bits, unregistered_rgb)
    with counting('reading') as progress:
        place, report = convert(
            name, folder, output, options, mapping, hold_out, frames, overwrite, progress)
    _show(report, place)


def _show(report: dict[str, Any], output: Path) -> None:
    """Print the numbers as tables, and warnings in yellow."""
    table = Table('', *report['splits'], title=report['format'])
    for what in next(iter(report['splits'].values())):
        title = Text(what.replace('with_rgb', 'with RGB'))
        table.add_row(title, *(str(n[what]) for n in report['splits'].values()))
    console.print(table)
    facts = Table(show_header=False, box=None)
    for what, value in _facts(report):
        facts.add_row(what, value)
    console.print(facts, highlight=False)
    for note in _warnings(report):
        say(note, 'yellow')
    names = ', '.join(f'{split}_thermal.json' for split in report['splits'])
    say(f'{output}: {names}, report.json, contact_sheet.png')


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    def joined(values: dict[str, int]) -> str:
        return ', '.join(f'{what} {n}' for what, n in values.items()) or 'none'

    largest = report['largest_value']
    shift = report['alignment']
    facts = [
        ('read', report['read']),
        ('bit depth', ', '.join(f'{depth} {n} (up to {largest[depth]})'
                                for depth, n in report['bit_depth'].items())),
        ('sizes', joined(dict(list(report['sizes'].items())[:6]))),
        ('classes', joined(report['classes'])),
        ('boxes', joined(report['boxes'])),
        ('left out', joined(report['left_out']))]
    if shift['believed']:
        facts.append(('RGB is off by', f'{shift["dx"]:+.1f}, {shift["dy"]:+.1f} px (right, down), '
                      f'scatter {shift["scatter"]:.1f} px, from {shift["pairs_believed"]} of '
                      f'{shift["pairs"]} pairs'))
    return facts


def _warnings(report: dict[str, Any]) -> list[str]:
    warnings = list(report['notes'])
    for what, entry in report['missing'].items():
        if entry['count']:
            files = {'thermal': 'thermal images are missing, left out',
                     'rgb': 'RGB images are missing, their frames are thermal only',
                     'unreadable': 'thermal images cannot be read, left out'}[what]
            warnings.append(f'{entry["count"]} {files}: {", ".join(entry["examples"])}'
                            + (' ...' if entry['count'] > len(entry['examples']) else ''))
    if not report['alignment']['believed']:
        warnings.append('Alignment: ' + report['alignment']['note'])
    return warnings


@data_app.command('relabel')
def data_relabel(
    path: Annotated[Path, typer.Argument(metavar='COCO.json', help='The set.')],
    labels: Annotated[Path, typer.Argument(
        metavar='LABELS.json', help='Export of an annotation tool for the set, also COCO.')],
    output: Annotated[Path | None, typer.Option(
        help='File to write, in the same folder; labelled.json by default.')] = None,
    overwrite: Overwrite = False,
) -> None:
    """Replace the boxes of a set by those of an annotation tool; keep RGB images and stamps."""
    from cgdet_core.data.coco import relabel

    output = output or path.with_name('labelled.json')
    frames, boxes, left = relabel(path, labels, output, overwrite)
    say(f'{output}: {frames} frames, {boxes} boxes'
        + (f'; {left} frames that are not in {labels.name} were left out' if left else ''))


@data_app.command('show')
def data_show(
    path: Annotated[Path, typer.Argument(metavar='COCO.json', help='The set.')],
    images: Images = None,
    output: Annotated[Path, typer.Option(
        help='PNG file for one sheet, or folder for one image per frame.')] = Path('show.png'),
    count: Annotated[int, typer.Option(min=1, help='Number of frames, evenly spaced.')] = 12,
    match: Match = '*',
    overwrite: Overwrite = False,
) -> None:
    """Draw boxes on thermal and RGB side by side."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.data.show import show

    shown = show(load_coco(path, images), output, count, match, overwrite)
    say(f'{output}: {shown} frames')
