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

"""Conversion of native data sets to paired COCO files, with a report and a contact sheet."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
import difflib
from glob import escape
import os
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import counts_text, load_coco
from cgdet_core.data.formats import FORMATS, LICENSES
from cgdet_core.data.formats.native import DROP, IGNORE, Listing, NativeFrame, Options
from cgdet_core.data.pairs.check import check_records
from cgdet_core.data.show import evenly, save_sheet
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs, finish, together, write_json
from cgdet_core.runtime.imaging.frames import read_thermal, SHEET
from cgdet_core.words import counted

NO_OPTIONS = Options()
LABELS = ('.txt', '.xml', '.json', '.csv')  # suffixes of files that are often beside an image
OUTSIDE, CLIPPED = 'degenerate or outside, dropped', 'clipped to the picture'
FEW, BEYOND_PX = 5, 2.0  # boxes that say something of a format, and how far out they reach


@dataclass
class Tally:
    """Counters of a conversion."""

    depth: Counter[str] = field(default_factory=Counter)
    largest: Counter[str] = field(default_factory=Counter)  # value per bit depth
    sizes: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    beyond: int = 0  # boxes that reach clearly out of their image
    classes: Counter[str] = field(default_factory=Counter)  # "native -> ours"
    dropped: Counter[str] = field(default_factory=Counter)  # background on request, by name
    emptied: int = 0  # frames whose objects were all dropped
    missing: dict[str, list[str]] = field(
        default_factory=lambda: {'thermal': [], 'rgb': [], 'unreadable': []})
    reason: str = ''  # why the first unreadable image is


def convert(
    name: str, folder: Path, output: Path | None = None, options: Options = NO_OPTIONS,
    mapping: dict[str, str] | None = None, hold_out: float | None = None,
    frames_shown: int = 12, overwrite: bool = False, chosen: tuple[str, ...] | None = None,
    progress: Callable[[int], None] = lambda frames: None, unit: str | None = None,
    polarity: str | None = None,
) -> tuple[Path, dict[str, Any]]:
    """
    Write <split>_thermal.json, report.json and contact_sheet.png; return folder and report.

    output: folder/annotations by default, where load_coco finds the images without an option.
    mapping: native class name -> class, IGNORE and a class, or DROP; replaces the format's own.
    chosen: the classes of the set; objects of others become ignore regions; by default all.
    hold_out: fraction of frames, from the end, for val if a set has no split. progress: called
    with the number of frames more that were read. unit: of 16-bit frames, which the files state
    for training and evaluation, as the polarity. UserError if the layout is a different one,
    nothing can be read, or an output file exists.
    """
    listing = _read(name, folder, options)
    output = output or folder / 'annotations'
    mapping = mapping or {}
    own = {k.lower(): v for k, v in mapping.items()}
    classes = listing.classes | own
    for item in (item for frame in listing.frames for item in frame.items):
        classes.setdefault(item.name.lower(), item.name)
    if chosen is not None:
        classes = _chosen(chosen, classes, own, listing)
    categories = _categories(listing, classes, chosen)
    _check_listing(listing, classes, mapping, folder, chosen or ())
    if hold_out is not None:
        _hold_out(listing, hold_out)
    splits = list(dict.fromkeys(f.split for f in listing.frames))
    targets = {s: output / f'{s}_thermal.json' for s in splits}
    sheet, report_file = output / SHEET, output / 'report.json'
    files = [path.name for path in (*targets.values(), sheet, report_file)]
    finished = finish(report_file, files)  # what this replaces is of a run that was killed
    check_outputs([output / name for name in files], overwrite=overwrite or finished)
    tally, sets = Tally(), {split: {
        'info': {'description': f'{name}, converted by cgdet'} | (
            {'license': LICENSES[name]} if name in LICENSES else {}) | (
            {'unit': unit} if unit else {}) | ({'polarity': polarity} if polarity else {}),
        'categories': [{'id': i + 1, 'name': c} for i, c in enumerate(categories)],
        'images': [], 'annotations': []} for split in splits}
    with together(report_file, files) as made:
        for frame in listing.frames:
            _add(sets[frame.split], frame, folder, name, classes, tally)
            progress(1)
        sets = {s: content for s, content in sets.items() if content['images']}
        _check_read(tally, len(listing.frames), bool(sets), folder)
        for split, content in sets.items():
            write_json(made / targets[split].name, content, indent=None)
        records = [r for split in sets
                   for r in load_coco(made / targets[split].name, folder).images]
        report = _report(name, folder, listing, sets, tally, chosen or categories)
        report['alignment'] = check_records(records).values()
        # Frames of both modalities are preferred.
        shown = [r for r in records if r.rgb_path is not None] or records
        save_sheet(made / sheet.name, evenly(shown, frames_shown), categories)
        write_json(made / report_file.name, report)
    return output, report


def _check_read(tally: Tally, total: int, some: bool, folder: Path) -> None:
    """Raise UserError if no image can be used, or most have another size than labels state."""
    resized = tally.missing.get('resized', [])
    if len(resized) * 2 > total:
        raise UserError(f'{len(resized)} of the {total} thermal images have another size than '
                        f'their labels state, the first is {resized[0]}; convert the images that '
                        'were labeled.')
    boxes = tally.classes.total() - tally.dropped.total()
    for what, wrong in (('are outside of their images or have no area', tally.boxes[OUTSIDE]),
                        ('reach beyond their images', tally.beyond)):
        if wrong >= FEW and 2 * wrong > boxes:
            raise UserError(f'{wrong} of {counted(boxes, "box", "boxes")} {what}; the labels seem '
                            'to be of another format, or of other images.')
    if some:
        return
    what = f'None of the {total} thermal images of the labels can be used'
    if tally.missing['thermal']:
        place = folder / tally.missing['thermal'][0]
        other = next((path for path in sorted(place.parent.glob(f'{escape(place.stem)}.*'))
                      if path.suffix.lower() not in LABELS), None)
        raise UserError(f'{what}, the first is missing: {tally.missing["thermal"][0]}; '
                        + (f'convert {other.name} and the others to PNG.' if other else
                           'unpack the images there.'))
    raise UserError(f'{what}: {tally.reason}')


def _read(name: str, folder: Path, options: Options) -> Listing:
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        raise UserError(f'The format {name!r} is not one of {", ".join(FORMATS)}'
                        + (f'; did you mean {near[0]!r}?' if near else
                           '; COCO files, which most annotation tools write, are read as they '
                           'are.'))
    if not folder.is_dir():
        raise UserError(f'The folder {folder} does not exist.')
    return FORMATS[name](folder, options)


def _chosen(
    chosen: tuple[str, ...], classes: dict[str, str], mapping: dict[str, str], listing: Listing,
) -> dict[str, str]:
    """
    Return the mapping with which only the chosen classes have objects.

    A chosen native class is one, whatever the format makes of it; objects of the others are
    ignore regions.
    """
    if not all(chosen) or len(set(chosen)) < len(chosen):
        raise UserError('The classes must be different names, such as person,dog', 'classes')
    classes = classes | {name.lower(): name for name in chosen
                         if name.lower() in classes.keys() - mapping.keys()}
    known = {*listing.categories, *(t.removeprefix(IGNORE) for t in classes.values())} - {DROP}
    for name in chosen:
        if name not in known:
            raise UserError(f'The set has no class {name!r}, but {", ".join(sorted(known))}',
                            'classes')
    return {native: IGNORE + target if target not in chosen and target != DROP
            and not target.startswith(IGNORE) else target for native, target in classes.items()}


def _categories(
    listing: Listing, classes: dict[str, str], chosen: tuple[str, ...] | None,
) -> tuple[str, ...]:
    """Return the classes of the output set, in order; the chosen ones first."""
    names = [target.removeprefix(IGNORE) for target in classes.values() if target != DROP]
    if '' in names:
        native = next(n for n, target in classes.items() if target in ('', IGNORE))
        raise UserError(f'The class {native!r} is mapped to an empty name; map it with '
                        f'"{native}=CLASS", "{native}={IGNORE}CLASS" or "{native}={DROP}"', 'map')
    return tuple(dict.fromkeys([*(chosen or listing.categories), *names]))


def _hold_out(listing: Listing, share: float) -> None:
    """Assign the last frames to val, so that neighbors in time are in the same split."""
    if {f.split for f in listing.frames} != {'all'}:
        raise UserError('Frames are held out only of sets without a split; this set has one',
                        'hold_out')
    if not 0 < share < 1:
        raise UserError(f'The fraction held out must be between 0 and 1, not {share}', 'hold_out')
    first = round(len(listing.frames) * (1 - share))
    if not 0 < first < len(listing.frames):
        raise UserError(f'The fraction {share:g} of {counted(len(listing.frames), "frame")} '
                        f'leaves none for {"val" if first else "train"}', 'hold_out')
    for number, frame in enumerate(listing.frames):
        frame.split = 'train' if number < first else 'val'


def _add(
    content: dict[str, Any], frame: NativeFrame, folder: Path, source: str,
    classes: dict[str, str], tally: Tally,
) -> None:
    """Append a frame with its boxes, or count the reason why it is left out."""
    try:
        thermal = read_thermal(frame.thermal)
        reason = '' if frame.declared in (None, thermal.shape[::-1]) else 'resized'
    except UserError as error:
        reason = 'unreadable' if frame.thermal.is_file() else 'thermal'
        if reason == 'unreadable':
            tally.reason = tally.reason or str(error)
    if reason:
        tally.missing.setdefault(reason, []).append(_relative(frame.thermal, folder))
        return
    rgb = None if frame.rgb is None else _relative(frame.rgb, folder)
    if frame.rgb is not None and rgb is not None and not frame.rgb.is_file():
        tally.missing['rgb'].append(rgb)
        rgb = None
    height, width = thermal.shape
    depth = str(thermal.dtype)
    tally.depth[depth] += 1
    tally.largest[depth] = max(tally.largest[depth], int(thermal.max()))
    tally.sizes[f'{width}x{height}'] += 1
    ids = {c['name']: c['id'] for c in content['categories']}
    number = len(content['images']) + 1
    content['images'].append({
        'id': number, 'file_name': _relative(frame.thermal, folder), 'rgb_file_name': rgb,
        'width': width, 'height': height, 'source': source, 'time_of_day': frame.time_of_day})
    gone = [classes[item.name.lower()] == DROP for item in frame.items]
    tally.emptied += bool(gone) and all(gone)
    for name, crowd, box in _boxes(frame, (width, height), classes, tally):
        content['annotations'].append({
            'id': len(content['annotations']) + 1, 'image_id': number, 'category_id': ids[name],
            'bbox': box, 'area': round(box[2] * box[3], 2), 'iscrowd': int(crowd)})


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _boxes(
    frame: NativeFrame, size: tuple[int, int], classes: dict[str, str], tally: Tally,
) -> list[tuple[str, bool, list[float]]]:
    """Return (class, crowd, x y width height) of the boxes that are kept, clipped to the image."""
    scale = size if frame.fractions else (1, 1)
    kept: dict[tuple[str, bool, tuple[float, ...]], None] = {}
    for item in frame.items:
        target = classes[item.name.lower()]
        name = target.removeprefix(IGNORE)
        ignore = item.ignore or target != name
        tally.classes[f'{item.name} -> {IGNORE * (ignore and target != DROP)}{name}'] += 1
        if target == DROP:
            tally.dropped[item.name] += 1
            continue
        corners = tuple(round(v * s, 2) for v, s in zip(item.box, scale * 2))
        left, top, right, bottom = (min(max(v, 0.0), n) for v, n in zip(corners, size * 2))
        if not (right - left >= 1 and bottom - top >= 1):
            tally.boxes[OUTSIDE] += 1
            continue
        tally.boxes[CLIPPED] += (left, top, right, bottom) != corners
        tally.beyond += any(abs(a - b) > BEYOND_PX for a, b in zip(
            corners, (left, top, right, bottom)))
        box = left, top, round(right - left, 2), round(bottom - top, 2)
        key = name, ignore, box
        tally.boxes['repeated, dropped'] += key in kept
        kept[key] = None
    return [(name, crowd, list(box)) for name, crowd, box in kept]


def _check_listing(
    listing: Listing, classes: dict[str, str], mapping: dict[str, str], folder: Path,
    chosen: tuple[str, ...],
) -> None:
    if not listing.frames:
        raise UserError(f'{folder} has no labeled frames'
                        + ''.join(f'; {n} {what}' for what, n in listing.counts.items() if n)
                        + '.')
    names = sorted({i.name for f in listing.frames for i in f.items})
    if names and all(classes[n.lower()] == DROP for n in names):
        raise UserError(f'None of the classes of {folder} ({", ".join(names[:12])}) is kept; '
                        f'map them as in "{names[0]}=CLASS"', 'map')
    if chosen and not {classes[n.lower()] for n in names} & {*chosen}:
        raise UserError(f'{folder} has no box of {", ".join(chosen)}, but of {", ".join(names)}',
                        'classes')
    known = {n.lower() for n in names} | listing.classes.keys()
    listing.notes += [f'"{native}={target}": no box has the class {native!r}.'
                      for native, target in mapping.items() if native.lower() not in known]


def _report(
    name: str, folder: Path, listing: Listing, sets: dict[str, dict[str, Any]], tally: Tally,
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return the JSON values of a report; sets are the COCO contents by split."""
    splits = defaultdict(set)
    for split, content in sets.items():
        for image in content['images']:
            splits[image['file_name']].add(split)
    notes = list(listing.notes)
    if len(tally.depth) > 1:
        notes.append(f'{tally.depth["uint8"]} of {tally.depth.total()} thermal images are '
                     '8-bit, stretched by the camera, unlike the 16-bit ones.')
    if tally.reason:
        notes.append(f'The first image that cannot be read: {tally.reason}')
    if list(sets) == ['all']:
        notes.append('The set has no split; "cgdet data split" makes one.')
    left_out = Counter[str]()
    for content in sets.values():
        names = {c['id']: c['name'] for c in content['categories'] if c['name'] not in classes}
        left_out.update(names[a['category_id']] for a in content['annotations']
                        if a['category_id'] in names)
    if left_out:
        notes.append(f'Left out on request, as ignore regions: {counts_text(left_out)}.')
    if tally.dropped:
        notes.append(f'Dropped on request, now background: {counts_text(tally.dropped)}. '
                     f'Frames that count as empty by that: {tally.emptied}; "{IGNORE}CLASS" keeps '
                     'ignore regions instead.')
    shared = sum(len(s) > 1 for s in splits.values())
    if shared:
        notes.append(f'In more than one split: {counted(shared, "frame")}.')
    return {
        'format': name, 'folder': str(folder), 'read': listing.layout,
        'splits': {split: _numbers(content, classes) for split, content in sets.items()},
        'bit_depth': dict(tally.depth), 'largest_value': dict(tally.largest),
        'sizes': dict(tally.sizes.most_common()),
        'classes': dict(sorted(tally.classes.items())),
        'boxes': {what: n for what, n in tally.boxes.items() if n},
        'left_out': {what: n for what, n in listing.counts.items() if n},
        'missing': {what: {'count': len(paths), 'examples': paths[:5]}
                    for what, paths in tally.missing.items()},
        'notes': notes}


def _numbers(content: dict[str, Any], shown: tuple[str, ...]) -> dict[str, int]:
    annotations = content['annotations']
    boxes = Counter(a['category_id'] for a in annotations if not a['iscrowd'])
    frames = {'images': len(content['images']),
              'with_rgb': sum(i['rgb_file_name'] is not None for i in content['images']),
              'empty': len(content['images']) - len({a['image_id'] for a in annotations})}
    classes = {c['name']: boxes[c['id']] for c in content['categories'] if c['name'] in shown}
    # If a class is named "empty", the numbers of frames take precedence.
    return frames | classes | frames | {'ignored': sum(a['iscrowd'] for a in annotations)}
