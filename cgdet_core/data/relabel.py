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

"""Replacement of the boxes of a COCO set by those of an annotation tool."""

from collections import defaultdict
import os
from pathlib import Path, PurePosixPath
import re
from typing import Any

from cgdet_core.data.coco import read_coco
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_json, check_not_inputs, check_outputs, write_json

# What tools add to the stems of names: Label Studio in front, Roboflow behind.
ADDED = re.compile(
    r'^[0-9a-f]{8}-(?=.)|(?<=.)_(png|jpe?g|tiff?|bmp|webp)\.rf\.\w+$', re.IGNORECASE)


def relabel(path: Path, labels: Path, output: Path, overwrite: bool) -> tuple[int, int, int]:
    """
    Write a set's frames with the boxes of another COCO file, which lacks RGB and stamps.

    Frames are matched by file name, as tools may change folders and suffixes, and without what
    Label Studio and Roboflow add to it; frames that are not in the labels are left out. Return the
    numbers of frames, boxes and frames left out.
    UserError if the labels list an image that is not in the set, twice, or of another size.
    """
    if output.absolute().parent != path.absolute().parent:
        raise UserError(f'{output} must be in the folder of {path.name}, as image paths are '
                        'relative.')
    check_json(output)
    check_outputs([output], overwrite=overwrite)
    check_not_inputs([output], [path, labels])
    ours, theirs = read_coco(path), read_coco(labels)
    by_stem: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for frame in ours['images']:
        by_stem[PurePosixPath(frame['file_name']).stem].append(frame)
    ids: dict[int, int] = {}
    for image in theirs['images']:
        name = image['file_name']
        frame = _find(name, by_stem, path)
        if any(frame[side] != image[side] for side in ('width', 'height')):
            raise UserError(f'{name} has {image["width"]}x{image["height"]} pixels in {labels}, '
                            f'{frame["width"]}x{frame["height"]} in {path}.')
        if frame['id'] in ids.values():
            raise UserError(f'{labels} lists {name} twice.')
        ids[image['id']] = frame['id']
    for box in theirs['annotations']:
        if box['image_id'] not in ids:
            raise UserError(f'{labels} has a box of image {box["image_id"]}, which it does not '
                            'list.')
    labeled = set(ids.values())
    kept = [frame for frame in ours['images'] if frame['id'] in labeled]
    boxes = [box | {'image_id': ids[box['image_id']]} for box in theirs['annotations']]
    if isinstance(ours.get('info'), dict):
        ours['info'].pop('prelabels', None)
    content = ours | {'images': kept, 'categories': theirs['categories'], 'annotations': boxes}
    write_json(output, content, indent=None)
    return len(kept), len(boxes), len(ours['images']) - len(kept)


def _find(name: str, by_stem: dict[str, list[dict[str, Any]]], path: Path) -> dict[str, Any]:
    """Return the frame whose path has the longest common ending with the name."""
    place = PurePosixPath(name)
    stem = place.stem if place.stem in by_stem else ADDED.sub('', place.stem)
    frames = by_stem.get(stem)
    if not frames:
        raise UserError(f'{name} is not in {path}.')
    wanted = stem, *place.parts[-2::-1]

    def common(frame: dict[str, Any]) -> int:
        parts = PurePosixPath(frame['file_name']).with_suffix('').parts[::-1]
        return len(os.path.commonprefix([parts, wanted]))

    best = max(map(common, frames))
    found = [frame for frame in frames if common(frame) == best]
    if len(found) > 1:
        raise UserError(f'{name} matches {len(found)} frames of {path}; export file names with '
                        'more of their path.')
    return found[0]
