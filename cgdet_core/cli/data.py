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

from cgdet_core.cli.common import (
    counting,
    folder_option,
    Images,
    Json,
    Match,
    names_of,
    Overwrite,
    Polarity,
    say,
    show_table,
    Unit,
    write_report,
)
from cgdet_core.errors import UserError
from cgdet_core.words import counted
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
import typer

NAMED = 10  # unreadable files in a line
data_app = typer.Typer(no_args_is_help=True, help=(
    'Collect frames, convert data sets to COCO and to YOLO, check, show, merge and split them, '
    'replace their boxes, and register RGB.'))


@data_app.command('convert')
def data_convert(
    name: Annotated[str, typer.Argument(metavar='FORMAT', help=(
        'flir-adas-v1, flir-adas-v2, flir-aligned, llvip, kaist, m3fd, msrs, yolo or voc.'))],
    folder: Annotated[Path, typer.Argument(metavar='DATASET', help='Folder of the data set.')],
    output: Annotated[Path | None, folder_option(
        'Folder to write to; DATASET/annotations by default.')] = None,
    rgb: Annotated[Path | None, typer.Option(
        help='Folder of RGB images with the same names (yolo, voc).')] = None,
    labels: Annotated[Path | None, typer.Option(
        help='Label folder, if there are several (llvip, kaist, msrs).')] = None,
    bits: Annotated[int | None, typer.Option(
        help='8 or 16, if a set has both (flir-adas); 16 by default.')] = None,
    unregistered_rgb: Annotated[bool, typer.Option(
        '--unregistered-rgb', help='Pair RGB of another field of view (flir-adas-v1).')] = False,
    classes: Annotated[str | None, typer.Option(
        metavar='NAME,...', help='Classes of the set; objects of others become ignore regions. '
        'By default all.')] = None,
    renames: Annotated[list[str] | None, typer.Option(
        '--map', metavar='NATIVE=CLASS',
        help='CLASS: any name, ignore-NAME (an ignore region) or drop (background).')] = None,
    hold_out: Annotated[float | None, typer.Option(
        help='Fraction of frames for val, taken from the end, if a set has no split.')] = None,
    frames: Annotated[int, typer.Option(min=1, help='Frames on the contact sheet.')] = 12,
    unit: Unit = None, polarity: Polarity = None,
    overwrite: Overwrite = False,
) -> None:
    """
    Write a data set's labels as COCO, with a report and a contact sheet.

    An image that cannot be read is reported and left out; the exit status is then 1.
    """
    from cgdet_core.data.formats.convert import convert
    from cgdet_core.data.formats.native import Options

    mapping: dict[str, str] = {}
    for rename in renames or []:
        native, equals, target = rename.rpartition('=')
        if not equals:
            raise UserError(f'--map requires NATIVE=CLASS, such as truck=car, not {rename!r}.')
        if mapping.setdefault(native.strip(), target.strip()) != target.strip():
            raise UserError(f'--map has two targets of {native.strip()}; name one.')
    options = Options(rgb, labels, bits, unregistered_rgb)
    chosen = None if classes is None else names_of(classes)
    with counting('reading') as progress:
        place, report = convert(
            name, folder, output, options, mapping, hold_out, frames, overwrite, chosen, progress,
            unit, polarity)
    _show(report, place)
    if count := report['missing']['unreadable']['count']:
        raise UserError(f'{counted(count, "thermal image")} could not be read; the set is of the '
                        'others.')


def _show(report: dict[str, Any], output: Path) -> None:
    """Print the numbers as tables, and warnings in yellow."""
    table = Table('', *report['splits'], title=report['format'])
    for what in next(iter(report['splits'].values())):
        title = Text(what.replace('with_rgb', 'with RGB'))
        table.add_row(title, *(str(n[what]) for n in report['splits'].values()))
    show_table(table)
    facts = Table(show_header=False, box=None)
    for what, value in _facts(report):
        facts.add_row(what, value)
    show_table(facts)
    for note in _warnings(report):
        say(note, 'yellow')
    names = ', '.join(f'{split}_thermal.json' for split in report['splits'])
    say(f'{output}: {names}, report.json, contact_sheet.png')


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    def joined(values: dict[str, int]) -> str:
        return ', '.join(f'{what} {n}' for what, n in values.items())

    largest = report['largest_value']
    facts = [
        ('read', report['read']),
        ('bit depth', ', '.join(f'{depth} {n} (up to {largest[depth]})'
                                for depth, n in report['bit_depth'].items())),
        ('sizes', joined(dict(list(report['sizes'].items())[:6]))),
        ('classes', joined(report['classes'])),
        ('boxes changed', joined(report['boxes'])),
        ('left out', joined(report['left_out']))]
    if report['alignment']['good']:
        facts.append(('pairs', report['alignment']['sentence']))
    return [(what, value) for what, value in facts if value]


def _warnings(report: dict[str, Any]) -> list[str]:
    warnings = list(report['notes'])
    for what, entry in report['missing'].items():
        if entry['count']:
            files = {'thermal': 'thermal images are missing, left out',
                     'rgb': 'RGB images are missing, their frames are thermal only',
                     'unreadable': 'thermal images cannot be read, left out',
                     'resized': 'thermal images have another size than their labels state, left '
                     'out'}[what]
            warnings.append(f'{entry["count"]} {files}: {", ".join(entry["examples"])}'
                            + (' ...' if entry['count'] > len(entry['examples']) else ''))
    if report['alignment']['pairs'] and not report['alignment']['good']:
        warnings.append(report['alignment']['sentence'])
    return warnings


@data_app.command('relabel')
def data_relabel(
    path: Annotated[Path, typer.Argument(metavar='COCO.json', help='The set.')],
    labels: Annotated[Path, typer.Argument(
        metavar='LABELS.json', help='Export of an annotation tool for the set, also COCO.')],
    output: Annotated[Path | None, typer.Option(
        metavar='FILE', help='COCO file to write, in the same folder; labelled.json by '
        'default.')] = None,
    overwrite: Overwrite = False,
) -> None:
    """Replace the boxes of a set by those of an annotation tool; keep RGB images and stamps."""
    from cgdet_core.data.relabel import relabel

    output = output or path.with_name('labelled.json')
    frames, boxes, left = relabel(path, labels, output, overwrite)
    say(f'{output}: {counted(frames, "frame")}, {counted(boxes, "box", "boxes")}'
        + (f'; left out: {counted(left, "frame")} not in {labels.name}' if left else ''))


@data_app.command('show')
def data_show(
    path: Annotated[Path, typer.Argument(metavar='COCO.json', help='The set.')],
    images: Images = None,
    output: Annotated[Path, typer.Option(
        metavar='FILE|FOLDER', help='A .png file for one sheet, or a folder for one image per '
        'frame.')] = Path('show.png'),
    count: Annotated[int, typer.Option(min=1, help='Number of frames, evenly spaced.')] = 12,
    match: Match = '*',
    overwrite: Overwrite = False,
) -> None:
    """Draw boxes on thermal and RGB side by side."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.data.show import show

    shown = show(load_coco(path, images), output, count, match, overwrite)
    say(f'{output}: {counted(shown, "frame")}')


@data_app.command('merge')
def data_merge(
    paths: Annotated[list[Path], typer.Argument(metavar='COCO.json...', help='The sets.')],
    output: Annotated[Path, typer.Option(
        metavar='FILE', help='COCO file to write.')] = Path('merged.json'),
    overwrite: Overwrite = False,
) -> None:
    """Merge sets into one file, for a training on all of them; the images stay where they are."""
    from cgdet_core.data.coco import counts_text
    from cgdet_core.data.merge import merge

    coco, lacking = merge(paths, output, overwrite=overwrite)
    say(f'{output}: {counted(len(coco.images), "frame")}; boxes: {counts_text(coco.boxes())}; '
        f'license: {coco.license}')
    for path, names in lacking.items():
        say(f'{path} has no category {", ".join(names)}: objects of it in its frames are '
            'background, unless they are labelled.', 'yellow')


@data_app.command('split')
def data_split(
    path: Annotated[Path, typer.Argument(metavar='COCO.json', help='The set.')],
    val: Annotated[float, typer.Option(help='Fraction of the frames for validation.')] = 0.2,
    group: Annotated[str | None, typer.Option(
        metavar='PATTERN', help='Part of the file name (a regular expression) that frames of one '
        'scene share; by default bags and videos, near-duplicates or blocks of consecutive '
        'names.')] = None,
    images: Images = None,
    seed: Annotated[int, typer.Option(min=0, help='Seed of the choice of groups.')] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Split a set into training and validation frames; frames of one scene stay together."""
    from cgdet_core.data.coco import counts_text
    from cgdet_core.data.split import split

    with counting('reading') as progress:
        how, numbers = split(path, val, images, group, seed, overwrite, progress)
    say(f'Split {how}:')
    for name, n in numbers.items():
        say(f'{path.with_name(name)}: {counted(n["frames"], "frame")} in '
            f'{counted(n["groups"], "group")}; boxes: '
            + counts_text(n['boxes']))


@data_app.command('check')
def data_check(
    path: Annotated[Path, typer.Argument(metavar='COCO.json', help='The set.')],
    val: Annotated[Path | None, typer.Option(
        help='Validation set, to be compared with this training set.')] = None,
    images: Images = None,
    model: Annotated[str | None, typer.Option(
        help='ONNX file, checkpoint, or a name such as "shipped": compare its confident '
        'detections with the boxes.')] = None,
    output: Annotated[Path | None, folder_option(
        'Folder for a contact sheet of each kind of finding; by default a new one, '
        'data_check or data_check_2 and so on.')] = None,
    json_path: Json = None, overwrite: Overwrite = False,
) -> None:
    """Look at a set before training: sizes, boxes, near-duplicates, doubtful labels."""
    from cgdet_core.data.check import check, save_findings, sheets, UNREADABLE
    from cgdet_core.data.coco import load_coco
    from cgdet_core.detection.predict import open_thermal
    from cgdet_core.runtime.files import check_outputs, free_folder, model_file
    from cgdet_core.runtime.imaging.frames import check_not_among

    output = output or free_folder(Path('data_check'))
    check_outputs(sheets(output), overwrite=overwrite)
    sets = [load_coco(path, images)]
    if val is not None:
        sets.append(load_coco(val, images, sets[0].classes))
    paths = [record.path for coco in sets for record in coco.images]
    check_not_among(sheets(output), paths)
    detector = None if model is None else open_thermal(model_file(model))
    with counting('checking', sum(len(coco.images) for coco in sets)) as progress:
        report, findings = check(sets, detector, progress)
    fitting = _show_sets(report['sets'])
    write_report(report, json_path)
    shown = [finding for finding in findings if finding.kind not in UNREADABLE]
    for finding in findings:
        frames = len(finding.places)
        where = '' if finding.count == frames else f' in {counted(frames, "frame")}'
        names = [str(record.rgb_path if finding.kind == 'unreadable_rgb' else record.path)
                 for record, _, _ in finding.places]
        files = f'{finding.kind}.png' if finding in shown else (
            ', '.join(names[:NAMED]) + ', ...' * (frames > NAMED))
        say(f'{finding.words}: {finding.count}{where}, {files}', 'yellow')
    save_findings(output, shown, sets[0].classes)
    if shown:
        say(f'The sheets are in {output}')
    elif not findings and fitting:
        say('Nothing stands out.')


def _show_sets(sets: list[dict[str, Any]]) -> bool:
    """Print a line for each set and a table of boxes; return whether RGB fits, if any."""
    from cgdet_core.data.coco import counts_text

    for numbers in sets:
        sizes = list(numbers['sizes'].items())
        shown = ', '.join(f'{size} ({n})' if len(sizes) > 1 else size for size, n in sizes[:3])
        facts = [counted(numbers['frames'], 'frame'), shown + ', ...' * (len(sizes) > 3),
                 ' and '.join(numbers['depth']), 'color, not thermal' * numbers['color'],
                 f'{numbers["with_rgb"]} with RGB' * bool(numbers['with_rgb']),
                 counted(numbers['ignored'], 'ignore region') * bool(numbers['ignored']),
                 f'license {numbers["license"]}']
        say(f'{numbers["file"]}: ' + '; '.join(filter(None, facts)))
        if numbers['with_rgb']:
            say('    ' + numbers['pairs']['sentence'],
                None if numbers['pairs']['good'] else 'yellow')
        if numbers['prelabels']:
            say(f'    {counted(numbers["prelabels"], "box", "boxes")} by a model (with a score), '
                'not checked by a person', 'yellow')
        if numbers['others']:
            say('    boxes of classes that the first set does not list: '
                + counts_text(numbers['others']), 'yellow')
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column('class', overflow='fold')
    for head in ('boxes', 'in frames', 'median size', 'tiny'):
        table.add_column(head, justify='right', overflow='fold')
    for name in sets[0]['classes']:
        rows = [numbers['classes'][name] for numbers in sets]
        sides = [row['median_size'] for row in rows]
        cells = [[str(row[key]) for row in rows] for key in ('boxes', 'frames', 'tiny')]
        cells.insert(2, ['-' if side is None else f'{side[0]:.0f}x{side[1]:.0f}'
                         for side in sides])
        table.add_row(name, *(' / '.join(texts) for texts in cells),
                      style=None if all(row['boxes'] for row in rows) else 'yellow')
    show_table(table)
    return all(n['pairs']['good'] for n in sets if n['with_rgb'])
