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

"""Make a paired COCO set from bags: choose frames, pair and register RGB, and write them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
import os
from pathlib import Path
from typing import Any

from cgdet_core.data.bags import pairing
from cgdet_core.data.bags.io import color_picture, image_messages, open_bag
from cgdet_core.data.bags.pairing import BagPlan, Choice
from cgdet_core.data.bags.registration import Registration
from cgdet_core.data.coco import annotations_of, load_coco
from cgdet_core.data.formats.alignment import alignment_of
from cgdet_core.data.formats.native import CLASSES
from cgdet_core.data.show import evenly, save_sheet
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.files import check_outputs, temporary_for, write_json
from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.drawing import save_picture
from cgdet_core.runtime.imaging.geometry import resize
from cgdet_core.runtime.imaging.message import view_message
from cgdet_core.runtime.imaging.signal import CARD, check_signal, NO_TEMPERATURE, seen, to_kelvin
import cv2
import numpy as np
from numpy.typing import NDArray

SHOWN = 12  # frames of the contact sheet
COLDEST, HOTTEST = 150.0, 655.35  # kelvin of the median of a scene; 16 bits hold no more
# Of the frames of a bag; clipped: with pixels beyond what 16 bits of the unit hold.
COUNTS = ('near_duplicates', 'kelvin_as_hundredths', 'not_kelvin', 'clipped_images',
          'clipped_pixels')
SMALL_WIDTH = 64  # pixels, for the comparison of near-duplicates


class NotKelvin(ValueError):
    """The values of an image cannot be temperatures of its unit."""


@dataclass
class _Set:
    """The part of the set that has been written."""

    folder: Path
    classes: tuple[str, ...]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    depth: Counter[str] = field(default_factory=Counter)


def make_dataset(
    bags: Sequence[Path], output: Path, choice: Choice, detector: Detector | None = None,
    score: float = 0.3, progress: Callable[[int], None] = lambda images: None,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """
    Write annotations.json, thermal/, rgb/, report.json and contact_sheet.png; return the report.

    detector: its detections with scores of at least `score` become annotations; it runs on the
    written frames, so that a bag needs no recorded detections and a newer model can be used.
    progress: called with the number of additional images read. classes: the file's categories,
    after those of the detector; person, bicycle and car if there are neither. The folder is
    written completely or not at all. UserError if it exists, or a bag, its topics, stamps or
    calibration are invalid.
    """
    if output.exists():
        raise UserError(f'{output} already exists; choose another name or remove it.')
    check_outputs(folders=[output])
    if detector is not None:
        check_signal(detector.card.normalization.kind, choice.unit, choice.polarity,
                     detector.card.name)
    plans = [pairing.plan_bag(path, choice) for path in bags]
    repeated = [name for name, n in Counter(p.name for p in plans).items() if n > 1]
    if repeated:
        raise UserError(f'Two bags are named {repeated[0]}; rename one, as frames are identified '
                        'by the name of their bag.')
    pairing.spread(plans, choice.max_frames)
    for plan in plans:
        pairing.pair(plan, choice)
    with temporary_for(output) as folder:
        folder.mkdir()
        known = () if detector is None else detector.card.classes
        made = _Set(folder, tuple(dict.fromkeys([*known, *classes])) or CLASSES)
        parts = [_write_bag(made, plan, choice, detector, score, progress) for plan in plans]
        if not made.images:
            unreadable = [w for p in parts for w in p['unreadable']]
            raise UserError(f'None of {len(unreadable)} frames could be read, first '
                            f'{unreadable[0]}.', *['unit'] * any(p['not_kelvin'] for p in parts))
        report = _finish(made, parts, choice.polarity)
        if detector is not None:
            counts = Counter(made.classes[a['category_id'] - 1] for a in made.annotations)
            report['prelabels'] = {'score': score, **{c: counts[c] for c in made.classes}}
        write_json(folder / 'report.json', report)
        os.replace(folder, output)
    return report


def _write_bag(
    made: _Set, plan: BagPlan, choice: Choice, detector: Detector | None, score: float,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Write a bag's chosen frames, then the RGB images of the frames that were kept."""
    unreadable: list[str] = []
    images: dict[int, dict[str, Any]] = {}  # by RGB stamp
    first, counts = len(made.images), Counter[str]()
    last: NDArray[np.float32] | None = None
    for stamp, message in _messages(plan.path, plan.thermal_topic, set(plan.stamps.tolist())):
        progress(1)
        try:
            raw = view_message(_whole(message))
            frame, clipped = _as_integers(raw, choice.unit)
            small = _small(frame)
            if last is not None and last.shape == small.shape and (
                    change(last, small) < choice.min_change):
                counts['near_duplicates'] += 1
                continue
            labels = None if detector is None else detector.detect(
                seen(frame, CARD, choice.polarity, detector.card.polarity), score)
        except (ValueError, cv2.error) as error:
            unreadable.append(f'{plan.thermal_topic} at {stamp} ns: {error}')
            counts['not_kelvin'] += isinstance(error, NotKelvin)
            continue
        last = small
        counts['kelvin_as_hundredths'] += choice.unit not in NO_TEMPERATURE and (
            raw.dtype == np.float32 or choice.unit != CARD and raw.dtype == np.uint16)
        counts['clipped_images'] += clipped > 0
        counts['clipped_pixels'] += clipped
        image = _add_frame(made, plan.name, stamp, frame)
        if labels is not None:
            made.annotations += annotations_of(labels, image['id'], len(made.annotations) + 1)
        if stamp in plan.partners:
            images[plan.partners[stamp]] = image
    how = _write_rgb(made.folder, plan, choice, images, unreadable, progress)
    mine = made.images[first:]
    return plan.report | {
        'chosen': len(plan.stamps), 'frames': len(mine),
        'with_rgb': sum(i['rgb_file_name'] is not None for i in mine), 'registration': how,
        **{name: counts[name] for name in COUNTS}, 'unreadable': unreadable}


def _write_rgb(
    folder: Path, plan: BagPlan, choice: Choice, images: dict[int, dict[str, Any]],
    unreadable: list[str], progress: Callable[[int], None],
) -> str | None:
    """Write the RGB images with these stamps; return how they were registered."""
    registrations: dict[tuple[int, ...], Registration | None] = {}  # by both sizes
    for stamp, message in _messages(plan.path, plan.rgb_topic, set(images)):
        progress(1)
        try:
            picture = color_picture(_whole(message))
        except (ValueError, cv2.error) as error:
            unreadable.append(f'{plan.rgb_topic} at {stamp} ns: {error}')
            continue
        image = images[stamp]
        size = image['width'], image['height']
        sizes = (*size, *picture.shape)
        if sizes not in registrations:
            registrations[sizes] = pairing.open_registration(plan, choice, size, picture)
        registration = registrations[sizes]
        if registration is not None:
            picture = registration.apply(picture)
        name = f'rgb/{Path(image["file_name"]).stem}{".jpg" if choice.jpeg else ".png"}'
        save_picture(folder / name, picture)
        image |= {'rgb_file_name': name, 'rgb_stamp_ns': stamp}
    return next((r.description for r in registrations.values() if r is not None), None)


def _messages(path: Path, topic: str | None, stamps: set[int]) -> Iterator[tuple[int, Any]]:
    """Yield the first message of a topic with each of these stamps."""
    if not stamps:
        return
    with open_bag(path) as reader:
        for _, stamp, message in image_messages(reader, path, topic):
            if stamp in stamps:
                stamps.remove(stamp)
                yield stamp, message
            if not stamps:
                return


def _whole(message: Any) -> Any:
    if isinstance(message, ValueError):
        raise message
    return message


def _as_integers(raw: NDArray[Any], unit: str) -> tuple[NDArray[Any], int]:
    """
    Return a frame of a unit, one of `signal.UNITS`, as integers, which PNG can store.

    Also returns how many pixels are clipped, as 16 bits do not hold them.

    Temperatures become hundredths of a kelvin, fractions 65535ths. Float images of the unit CARD
    are in kelvin; a few dead pixels are filled. NotKelvin if the values cannot be of the unit.
    """
    raw, _ = fill_dead_pixels(raw)
    frame = to_kelvin(raw, unit)
    if frame.dtype != np.float32:
        return frame, 0
    middle = float(np.median(frame))
    if unit not in NO_TEMPERATURE and not COLDEST <= middle <= HOTTEST:
        guess = 'counts' if raw.max() > HOTTEST else (
            'fraction' if 0 <= raw.min() and raw.max() <= 1 else 'celsius')
        raise NotKelvin(f'the values, {raw.min():.3g} to {raw.max():.3g}, cannot be '
                        f'{"kelvin" if unit == CARD else unit}; state their unit, which is '
                        f'probably {guess}')
    scale = {'fraction': 65535, 'counts': 1}.get(unit, 100)
    values = np.rint(frame * scale)
    stored = values.clip(0, 65535)
    return stored.astype(np.uint16), int(np.count_nonzero(values != stored))


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


def _add_frame(made: _Set, bag: str, stamp: int, frame: NDArray[Any]) -> dict[str, Any]:
    name = f'thermal/{bag}_{stamp}.png'
    save_picture(made.folder / name, frame)
    height, width = frame.shape
    made.depth[str(frame.dtype)] += 1
    made.images.append({
        'id': len(made.images) + 1, 'file_name': name, 'rgb_file_name': None, 'width': width,
        'height': height, 'source': bag, 'bag': bag, 'stamp_ns': stamp})
    return made.images[-1]


def _finish(made: _Set, parts: list[dict[str, Any]], polarity: str) -> dict[str, Any]:
    """Write the annotation file and the contact sheet, drawn from the written files."""
    path = made.folder / 'annotations.json'
    write_json(path, {
        'info': {'description': 'made by "cgdet bag to-dataset"'} | (
            {'polarity': polarity} if polarity else {}),
        'licenses': [],  # which CVAT's import requires
        'categories': [{'id': i + 1, 'name': c} for i, c in enumerate(made.classes)],
        'images': made.images, 'annotations': made.annotations}, indent=None)
    records = load_coco(path).images
    paired = [r for r in records if r.rgb_path is not None]
    save_sheet(made.folder / 'contact_sheet.png', evenly(paired or records, SHOWN), made.classes)
    sizes = Counter(f'{r.width}x{r.height}' for r in records)
    return {'bags': parts, 'frames': len(records), 'with_rgb': len(paired),
            'bit_depth': dict(made.depth), 'sizes': dict(sizes.most_common()),
            'alignment': alignment_of(records)}
