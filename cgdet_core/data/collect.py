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

"""Make a COCO set of images, videos and bags: choose frames, store them, pre-label them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
import os
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.extraction import thermal_frames, write_rgb
from cgdet_core.data.bags.pairing import BagPlan, Choice
from cgdet_core.data.coco import annotations_of, load_coco
from cgdet_core.data.coco_checks import check_different
from cgdet_core.data.formats.native import CLASSES
from cgdet_core.data.pairs.check import check_records
from cgdet_core.data.plans import chosen_frames, FramePlan
from cgdet_core.data.show import evenly, save_sheet
from cgdet_core.data.sources import Frame
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.files import check_new, free_stem, temporary_for, write_json
from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.drawing import save_frame
from cgdet_core.runtime.imaging.frames import SHEET
from cgdet_core.runtime.imaging.geometry import resize
from cgdet_core.runtime.imaging.signal import (
    CARD,
    check_signal,
    NO_TEMPERATURE,
    seen,
    to_kelvin,
    to_steps,
)
import cv2
import numpy as np
from numpy.typing import NDArray

SHOWN = 12  # frames of the contact sheet
COLDEST, HOTTEST = 150.0, 655.35  # kelvin of the median of a scene; 16 bits hold no more
# Of the frames of a source; clipped: with pixels beyond what 16 bits of the unit hold.
COUNTS = ('near_duplicates', 'kelvin_as_hundredths', 'not_kelvin', 'clipped_images',
          'clipped_pixels')
SMALL_WIDTH = 64  # pixels, for the comparison of near-duplicates
MIN_CHANGE = 0.01  # of a sequence, by default


class WrongUnit(ValueError):
    """The values of an image cannot be of its unit."""


@dataclass
class _Set:
    """The part of the set that has been written; the detector's boxes have at least the score."""

    folder: Path
    classes: tuple[str, ...]
    detector: Detector | None
    score: float
    unit: str = CARD
    polarity: str = ''
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    depth: Counter[str] = field(default_factory=Counter)
    stems: set[str] = field(default_factory=set)


def collect(
    plans: Sequence[BagPlan | FramePlan], output: Path, choice: Choice,
    detector: Detector | None = None, score: float = 0.3,
    progress: Callable[[int], None] = lambda images: None, classes: Sequence[str] = (),
) -> dict[str, Any]:
    """
    Write annotations.json, thermal/, rgb/, report.json and contact_sheet.png; return the report.

    detector: its detections with scores of at least `score` become annotations; it runs on the
    written frames, so that a bag needs no recorded detections and a newer model can be used.
    progress: called with the number of additional images read. classes: the file's categories,
    after those of the detector; person, bicycle and car if there are neither. The folder is
    written completely or not at all. UserError if it exists, or no frame can be read.
    """
    check_new(output)
    if detector is not None:
        check_signal(detector.card.normalization.kind, choice.unit, choice.polarity,
                     detector.card.name)
    known = () if detector is None else detector.card.classes
    names = tuple(dict.fromkeys([*known, *classes])) or CLASSES
    check_different(output, names)
    with temporary_for(output) as folder:
        folder.mkdir()
        made = _Set(folder, names, detector, score, choice.unit, choice.polarity)
        parts = [_write(made, plan, choice, progress) for plan in plans]
        if not made.images:
            unreadable = [w for p in parts for w in p['unreadable']]
            raise UserError(f'None of the frames ({len(unreadable)}) can be read, first: '
                            f'{unreadable[0]}.' if unreadable else 'There are no frames.',
                            *['unit'] * any(p['not_kelvin'] for p in parts))
        report = _finish(made, parts)
        write_json(folder / 'report.json', report)
        os.replace(folder, output)
    return report


def _write(
    made: _Set, plan: BagPlan | FramePlan, choice: Choice, progress: Callable[[int], None],
) -> dict[str, Any]:
    """Write the chosen frames of a source, then the RGB images of the frames that were kept."""
    frames = thermal_frames(plan) if isinstance(plan, BagPlan) else chosen_frames(plan, choice)
    minimum = choice.min_change if choice.min_change is not None else (
        MIN_CHANGE * plan.is_sequence)
    part: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), 'unreadable': []}
    first = len(made.images)
    images: dict[int, dict[str, Any]] = {}  # by RGB stamp
    for image in _write_frames(made, plan, frames, minimum, part, progress):
        if (partner := plan.partners.get(image.get('stamp_ns', -1))) is not None:
            images[partner] = image
    how, color = None, ''
    if isinstance(plan, BagPlan):
        how = write_rgb(made.folder, plan, choice, images, part['unreadable'], progress)
    else:
        color = plan.source.colors.found
    mine = made.images[first:]
    return {'source': plan.name, **plan.report, 'chosen': len(plan.stamps), **part,
            'frames': len(mine), 'registration': how, 'in_color': color,
            'with_rgb': sum(i['rgb_file_name'] is not None for i in mine)}


def _write_frames(
    made: _Set, plan: BagPlan | FramePlan, frames: Iterator[Frame], minimum: float,
    part: dict[str, Any], progress: Callable[[int], None],
) -> Iterator[dict[str, Any]]:
    """Write frames that differ from the one before them, and yield their entries of the set."""
    last: NDArray[np.float32] | None = None
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except UserError as error:  # a video that was cut, after which there are no more frames
            part['unreadable'].append(str(error).rstrip('.'))
            return
        progress(1)
        try:
            raw = frame.pixels
            stored, clipped = _as_integers(raw, made.unit)
            small = _small(stored)
            if last is not None and last.shape == small.shape and change(last, small) < minimum:
                part['near_duplicates'] += 1
                continue
            in_kelvin = made.unit not in NO_TEMPERATURE and (
                raw.dtype == np.float32 or made.unit != CARD and raw.dtype == np.uint16)
            found = None if made.detector is None else made.detector.detect(
                seen(stored, 'centikelvin' if in_kelvin else CARD, made.polarity,
                     made.detector.card.polarity), made.score)
        except UserError as error:
            part['unreadable'].append(str(error).rstrip('.'))
            continue
        except (ValueError, cv2.error) as error:
            part['unreadable'].append(f'{frame.where}: {error}')
            part['not_kelvin'] += isinstance(error, WrongUnit)
            continue
        last = small
        part['kelvin_as_hundredths'] += int(in_kelvin)
        part['clipped_images'] += int(clipped > 0)
        part['clipped_pixels'] += clipped
        image = _add_frame(made, plan, frame, stored)
        if found is not None:
            made.annotations += annotations_of(found, image['id'], len(made.annotations) + 1)
        yield image


def _as_integers(raw: NDArray[Any], unit: str) -> tuple[NDArray[Any], int]:
    """
    Return a frame of a unit, one of `signal.UNITS`, as integers, which PNG can store.

    Also returns how many pixels are clipped, as 16 bits do not hold them.

    Temperatures become hundredths of a kelvin, fractions 65535ths. Float images of the unit CARD
    are in kelvin; a few dead pixels are filled. WrongUnit if the values cannot be of the unit.
    """
    raw, _ = fill_dead_pixels(raw)
    if raw.dtype == np.float32 and unit in NO_TEMPERATURE:
        _check_values(raw, unit)
        return to_steps(raw, unit)
    frame = to_kelvin(raw, unit)
    if frame.dtype != np.float32:
        return frame, 0
    if not COLDEST <= float(np.median(frame)) <= HOTTEST:
        raise _wrong_unit(raw, unit, 'counts' if raw.max() > HOTTEST else (
            'fraction' if 0 <= raw.min() and raw.max() <= 1 else 'celsius'))
    values = np.rint(frame * 100)
    stored = values.clip(0, 65535)
    return stored.astype(np.uint16), int(np.count_nonzero(values != stored))


def _check_values(raw: NDArray[np.float32], unit: str) -> None:
    """Raise WrongUnit for float values that are not of a unit without temperatures."""
    middle = float(np.median(raw))
    if unit == 'fraction' and not 0 <= middle <= 1:
        raise _wrong_unit(raw, unit, 'counts' if 1 < middle <= 65535 else 'celsius')
    if unit == 'counts' and (not 0 <= middle <= 65535 or raw.min() < raw.max() <= 1):
        raise _wrong_unit(raw, unit, 'celsius' if middle < 0 else 'fraction')


def _wrong_unit(raw: NDArray[np.float32], unit: str, guess: str) -> WrongUnit:
    return WrongUnit(f'the values, {raw.min():.3g} to {raw.max():.3g}, cannot be '
                     f'{"kelvin" if unit == CARD else unit}; state their unit, which is '
                     f'probably {guess}')


def _small(frame: NDArray[Any]) -> NDArray[np.float32]:
    height = max(1, round(frame.shape[0] * SMALL_WIDTH / frame.shape[1]))
    small = np.empty((height, SMALL_WIDTH), np.float32)
    resize(frame.astype(np.float32), small)
    # An offset of the whole frame, as after a flat-field correction, is not a change.
    return small - np.median(small)


def change(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the mean absolute difference of two small frames as a fraction of their contrast."""
    spread = max(float(np.ptp(np.percentile(x, (0.5, 99.5)))) for x in (a, b))
    return float(np.abs(a - b).mean()) / max(spread, 1e-9)


def _add_frame(
    made: _Set, plan: BagPlan | FramePlan, frame: Frame, pixels: NDArray[Any],
) -> dict[str, Any]:
    """Write a frame, images into a folder of their source, and return its entry of the set."""
    stem = free_stem(
        frame.name if plan.is_sequence else f'{plan.name}/{frame.name}', made.stems)
    name = f'thermal/{stem}.png'
    save_frame(made.folder / name, pixels)
    height, width = pixels.shape
    made.depth[str(pixels.dtype)] += 1
    image = {'id': len(made.images) + 1, 'file_name': name, 'rgb_file_name': None, 'width': width,
             'height': height, 'source': plan.name}
    if plan.is_sequence:
        image['bag' if isinstance(plan, BagPlan) else 'video'] = plan.name
    if frame.stamp_ns is not None:
        image['stamp_ns'] = frame.stamp_ns
    made.images.append(image)
    return image


def _finish(made: _Set, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the annotation file and the contact sheet, drawn from the written files."""
    path = made.folder / 'annotations.json'
    info: dict[str, Any] = {'description': 'made by "cgdet data collect"'}
    if made.unit in NO_TEMPERATURE:  # else hundredths of a kelvin, or what the model's card says
        info['unit'] = made.unit
    if made.polarity:
        info['polarity'] = made.polarity
    if made.detector is not None:
        info['prelabels'] = {'model': made.detector.card.name, 'score_threshold': made.score}
    write_json(path, {
        'info': info, 'licenses': [],  # which CVAT's import requires
        'categories': [{'id': i + 1, 'name': c} for i, c in enumerate(made.classes)],
        'images': made.images, 'annotations': made.annotations}, indent=None)
    records = load_coco(path).images
    paired = [r for r in records if r.rgb_path is not None]
    save_sheet(made.folder / SHEET, evenly(paired or records, SHOWN), made.classes)
    sizes = Counter(f'{r.width}x{r.height}' for r in records)
    report = {'sources': parts, 'frames': len(records), 'with_rgb': len(paired),
              'bit_depth': dict(made.depth), 'sizes': dict(sizes.most_common()),
              'alignment': check_records(records).values()}
    if made.detector is not None:
        boxes = Counter(made.classes[a['category_id'] - 1] for a in made.annotations)
        report['prelabels'] = {**info['prelabels'], 'boxes': {c: boxes[c] for c in made.classes}}
    return report
