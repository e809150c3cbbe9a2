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

"""Split a COCO set into training and validation frames, with few scenes in both, or none."""

from collections.abc import Callable
import logging
from pathlib import Path
import re
from typing import Any

from cgdet_core.data.check import ALIKE, thumbnail
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco, read_coco
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs, write_json
from cgdet_core.runtime.imaging.frames import natural, read_thermal
from cgdet_core.words import counted
import numpy as np
from numpy.typing import NDArray

BLOCKS = 10  # of consecutive frames, if they are all of one scene
ROWS = 256  # frames that are compared with all earlier ones at a time
TRIES = 300  # random choices of groups, of which the most even one is taken
_log = logging.getLogger(__name__)


def split(
    path: Path, share: float, images: Path | None = None, pattern: str | None = None,
    seed: int = 0, overwrite: bool = False,
    progress: Callable[[int], None] = lambda frames: None,
) -> tuple[str, dict[str, dict[str, Any]]]:
    """
    Write <name>_train.json and <name>_val.json next to a set; return how, and their numbers.

    Groups of frames stay together: those with the same part of the file name that matches
    `pattern`, by default those of one bag or video. Frames of neither are grouped by
    near-duplicates and what is linked by them, or else by blocks of consecutive frames, whose
    borders have like frames on both sides. Of many choices of groups for val, the one is taken in
    which frames and boxes of all classes are nearest to `share`.
    """
    if not 0 < share < 1:
        raise UserError(f'The fraction for val must be between 0 and 1, not {share}', 'val')
    data = read_coco(path)
    outputs = [path.with_name(f'{path.stem}_{part}.json') for part in ('train', 'val')]
    check_outputs(outputs, overwrite=overwrite)
    coco = load_coco(path, images)
    if len(coco.images) < 2:
        raise UserError(f'{path} lists one frame, which cannot be split.')
    how, groups = _groups(coco, share, pattern, progress)
    if len(np.unique(groups)) < 2:
        raise UserError(f'{path} has one group of frames ({how}), which cannot be split.')
    chosen = _choose(groups, _contents(coco), share, seed)
    numbers = {}
    for output, part in zip(outputs, (~chosen, chosen)):
        ids = {record.image_id for record, mine in zip(coco.images, part) if mine}
        annotations = [a for a in data['annotations'] if a['image_id'] in ids]
        write_json(output, data | {
            'images': [i for i in data['images'] if i['id'] in ids],
            'annotations': annotations}, indent=None)
        mine = CocoSet(output, [r for r in coco.images if r.image_id in ids], coco.classes)
        numbers[output.name] = {'frames': len(ids), 'groups': len(np.unique(groups[part])),
                                'boxes': mine.boxes()}
    return how, numbers


def _groups(
    coco: CocoSet, share: float, pattern: str | None, progress: Callable[[int], None],
) -> tuple[str, NDArray[np.int64]]:
    """Return in words what forms a group, and the group of each frame (N,)."""
    if pattern is not None:
        try:
            found = [re.search(pattern, record.path.name) for record in coco.images]
        except re.error as error:
            raise UserError(f'The pattern {pattern!r} is not a regular expression: {error}',
                            'group') from None
        if not any(found):
            raise UserError(f'{pattern!r} is in none of the file names, such as '
                            f'{coco.images[0].path.name}.', 'group')
        if alone := sum(match is None for match in found):
            _log.warning('%r is not in %s; each is a group of its own.', pattern,
                         counted(alone, 'file name'))
        keys = [match[0] if match else record.path.name
                for match, record in zip(found, coco.images)]
        return f'by {pattern!r} in the file name', np.unique(keys, return_inverse=True)[1]
    recordings = [record.bag or record.video or '' for record in coco.images]
    names, groups = np.unique(recordings, return_inverse=True)
    rest = [n for n, name in enumerate(recordings) if not name or len(names) == 1]
    if not rest:
        return 'by bag or video', groups
    how, groups[rest] = _alike([coco.images[n] for n in rest], len(groups), share, progress)
    if len(rest) == len(groups):
        return how, groups
    groups[rest] += len(names)
    return f'by bag or video, other frames {how}', groups


def _alike(
    images: list[ImageRecord], total: int, share: float, progress: Callable[[int], None],
) -> tuple[str, NDArray[np.int64]]:
    """Return in words how frames (N,) of no recording are grouped, and their groups."""
    groups = _scenes(images, progress)
    if np.bincount(groups).max() <= max(share, 1 - share) * total and (
            len(np.unique(groups)) > 1 or len(images) < total):
        return 'by near-duplicates', groups
    order = sorted(range(len(images)), key=lambda i: natural(images[i].path))
    blocks = np.zeros(len(order), np.int64)
    blocks[order] = np.arange(len(order)) * BLOCKS // len(order)
    return ('by blocks of consecutive file names, as most frames are of one scene, which is '
            'then in both'), blocks


def _scenes(images: list[ImageRecord], progress: Callable[[int], None]) -> NDArray[np.int64]:
    """Return the scene of each frame (N,): near-duplicates, and theirs, are of one."""
    values = []
    for record in images:
        try:
            values.append(thumbnail(read_thermal(record.path)))
        except UserError as error:
            _log.warning('%s The frame is taken for a scene of its own.', error)
            values.append(np.zeros_like(thumbnail(np.zeros((1, 1), np.uint8))))
        progress(1)
    stacked = np.array(values)
    scene = np.arange(len(values))
    for start in range(0, len(values), ROWS):
        alike = stacked[start:start + ROWS] @ stacked[:start + ROWS].T >= ALIKE
        for i, near in enumerate(alike, start):
            found = np.flatnonzero(np.bincount(scene[:i][near[:i]]))
            if len(found):
                scene[i] = found[0]
            if len(found) > 1:
                scene[:i][np.isin(scene[:i], found)] = found[0]
    return np.unique(scene, return_inverse=True)[1]


def _contents(coco: CocoSet) -> NDArray[np.float64]:
    """Return the number of frames (1), and of boxes of each class, of each frame (N, 1 + C)."""
    rows = [np.bincount(r.labels[r.crowd == 0], minlength=len(coco.classes)) for r in coco.images]
    return np.hstack([np.ones((len(rows), 1)), np.array(rows).reshape(len(rows), -1)])


def _choose(
    groups: NDArray[np.int64], contents: NDArray[np.float64], share: float, seed: int,
) -> NDArray[np.bool_]:
    """Return whether each frame (N,) is for validation."""
    count = int(groups.max()) + 1
    sums = np.zeros((count, contents.shape[1]))
    np.add.at(sums, groups, contents)
    parts = sums / np.maximum(sums.sum(0), 1)
    rng = np.random.default_rng(seed)
    best, least = np.arange(1), np.inf
    for _ in range(TRIES):
        order = rng.permutation(count)
        held = int(np.searchsorted(parts[order, 0].cumsum(), share - 1e-9) + 1)
        held = min(held, count - 1)  # one group at least is for training
        error = _uneven(parts[order[:held]].sum(0), sums, share)
        if error < least:
            best, least = order[:held], error
    return np.isin(groups, best)


def _uneven(parts: NDArray[np.float64], sums: NDArray[np.float64], share: float) -> float:
    """Return the largest deviation from the share, of the frames and of classes with boxes."""
    return float(np.abs(parts - share)[sums.sum(0) > 0].max())
