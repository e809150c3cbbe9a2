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

"""Merge COCO sets into one, for a training on all of them."""

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import CocoSet, load_coco, read_coco
from cgdet_core.data.coco_checks import check_links
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_json, check_not_inputs, check_outputs, write_json


def merge(
    paths: Sequence[Path], output: Path, overwrite: bool = False,
) -> tuple[CocoSet, dict[str, list[str]]]:
    """
    Write the frames and boxes of several COCO files as one file; the images stay where they are.

    Categories are the same if their names are. Each frame keeps its other entries, and its set's
    unit and polarity; `source` is the name of its set's folder if it has none. Return the merged
    set, and the categories that each file lacks and another has boxes of: in its frames such
    objects count as background.
    UserError: fewer than two files, or an image that is in two.
    """
    if len(paths) < 2:
        raise UserError('There is one set; name two or more to merge.')
    check_json(output)
    check_outputs([output], overwrite=overwrite)
    check_not_inputs([output], paths)
    names: dict[str, int] = {}
    merged: dict[str, list[dict[str, Any]]] = {
        'licenses': [], 'images': [], 'categories': [], 'annotations': []}
    seen: dict[Path, Path] = {}
    used: dict[Path, set[str]] = {}
    for number, path in enumerate(paths, 1):
        coco, data = load_coco(path), read_coco(path)
        used[path] = {c['name'] for c in data['categories']}
        for category in data['categories']:
            names.setdefault(category['name'], len(names) + 1)
        merged['licenses'].append({'id': number, 'name': coco.license, 'url': ''})
        ids = {}
        for record, item in zip(coco.images, data['images']):
            place = record.path.resolve()
            if other := seen.get(place):
                raise UserError(f'{place} is in {other} and in {path}; a frame can be in a set '
                                'once.')
            seen[place] = path
            ids[item['id']] = len(merged['images']) + 1
            rgb = record.rgb_path and _from(output, record.rgb_path)
            merged['images'].append({
                **item, 'id': ids[item['id']], 'file_name': _from(output, record.path),
                'rgb_file_name': rgb, 'license': number, **record.stated(),
                'source': item.get('source') or path.resolve().parent.name})
        label_of = {c['id']: names[c['name']] for c in data['categories']}
        merged['annotations'] += [
            {**a, 'image_id': ids[a['image_id']], 'category_id': label_of[a['category_id']]}
            for a in data['annotations'] if a['image_id'] in ids]  # `load_coco` reports others
    for number, annotation in enumerate(merged['annotations'], 1):
        annotation['id'] = number
    merged['categories'] = [{'id': i, 'name': name} for name, i in names.items()]
    check_links(output, merged)  # before it is written
    write_json(output, merged, indent=None)
    coco = load_coco(output)
    counts = coco.boxes()
    lacking = {str(path): [n for n in coco.classes if counts[n] and n not in used[path]]
               for path in paths}
    return coco, {path: lacks for path, lacks in lacking.items() if lacks}


def _from(output: Path, path: Path) -> str:
    """Return a path relative to the folder of the output."""
    return Path(os.path.relpath(path.resolve(), output.resolve().parent)).as_posix()
