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

"""Boxes of an annotation tool back onto the set that they were drawn for."""

from collections import Counter
import json
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import read_values
from cgdet_core.errors import UserError
from cgdet_core.outputs import check_outputs, write_atomically


def relabel(path: Path, labels: Path, output: Path, overwrite: bool) -> tuple[int, int, int]:
    """
    Write a set's frames with the boxes of another COCO file, which knows neither RGB nor stamps.

    Frames are found by their file names, the last part of them where folders differ; frames that
    the labels do not have are left out. Returns frames, boxes, frames left out. UserError where a
    labelled frame is not in the set, or has another size.
    """
    if output.resolve().parent != path.resolve().parent:
        raise UserError(f'{output} must lie beside {path.name}: names of pictures are relative.')
    check_outputs([output], overwrite)
    ours, theirs = read_values(path), read_values(labels)
    frames = _by_name(ours['images'], path)
    ids: dict[int, int] = {}
    for image in theirs['images']:
        frame = frames.get(Path(image['file_name']).name)
        if frame is None:
            raise UserError(f'{labels} has {image["file_name"]}, which is not in {path}.')
        if any(frame[side] != image[side] for side in ('width', 'height')):
            raise UserError(
                f'{image["file_name"]} has {image["width"]}x{image["height"]} pixels in '
                f'{labels}, {frame["width"]}x{frame["height"]} in {path}.')
        ids[image['id']] = frame['id']
    if stray := [a for a in theirs['annotations'] if a['image_id'] not in ids]:
        raise UserError(f'{labels} has {len(stray)} boxes of images that it does not list.')
    labelled = set(ids.values())
    kept = [image for image in ours['images'] if image['id'] in labelled]
    boxes = [box | {'image_id': ids[box['image_id']]} for box in theirs['annotations']]
    content = ours | {'images': kept, 'categories': theirs['categories'], 'annotations': boxes}
    write_atomically(output, (json.dumps(content) + '\n').encode())
    return len(kept), len(boxes), len(ours['images']) - len(kept)


def _by_name(images: list[dict[str, Any]], path: Path) -> dict[str, dict[str, Any]]:
    names = [Path(image['file_name']).name for image in images]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UserError(f'{path} has {count} pictures called {name}; give each a name of its own.')
    return dict(zip(names, images))
