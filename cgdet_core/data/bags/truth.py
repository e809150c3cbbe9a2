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

"""The annotations of the frames of a bag, by their stamps."""

import hashlib
import json
import os
from pathlib import Path

from cgdet_core.data.bags.io import bag_name, MAPPING_KEY, open_bag, SOURCE_KEY
from cgdet_core.data.bags.storage import read_metadata
from cgdet_core.data.coco import CocoSet, ImageRecord, read_coco
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_json

TRUTH = '_truth.json'  # end of the name of a bag's annotations


def fingerprint(coco: CocoSet) -> str:
    """Return a hash of a set's list of images; a renamed copy of the file has the same hash."""
    images = sorted((r.image_id, r.path.name, r.width, r.height) for r in coco.images)
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()[:16]


def truth_file(bag: Path) -> Path:
    """Return the path of the annotations that are written next to a bag."""
    return bag.with_name(f'{bag.name}{TRUTH}')


def write_truth(bag: Path, coco: CocoSet) -> Path:
    """
    Write the annotations of a bag that was made from a set next to it, and return their path.

    The frames are found by stamp and bag, also in bags that "ros2 bag convert" made of it, which
    lack the table of the set's images.
    """
    data, path = read_coco(coco.path), truth_file(bag)
    records = {record.image_id: (stamp, record)
               for stamp, record in truth_by_stamp(bag, coco).items()}
    images = []
    for image in data['images']:
        if image['id'] in records:
            stamp, record = records[image['id']]
            files = {'file_name': record.path, 'rgb_file_name': record.rgb_path}
            images.append({**image, 'stamp_ns': stamp, 'bag': bag_name(bag), **{
                key: os.path.relpath(file, path.parent) for key, file in files.items() if file}})
    write_json(path, {**data, 'images': images, 'annotations': [
        a for a in data['annotations'] if a['image_id'] in records]}, None)
    return path


def truth_by_stamp(path: str | Path, *sets: CocoSet) -> dict[int, ImageRecord]:
    """
    Return the annotated record of each stamp of a bag, from any of the sets.

    Records are found by the bag's own table (bags of "cgdet bag from-coco") in the set that it
    was made from, otherwise by their `stamp_ns`. Only records with the bag's name or none are
    used, as several bags may have the same (simulated) clock; if all are of one bag, it may have
    been renamed. UserError if there is no record, or two for one stamp.
    """
    path = Path(path)
    with open_bag(path):
        pass  # raises UserError if it is not a bag
    data = read_metadata(path).get('custom_data') or {} if path.is_dir() else {}
    try:
        source = data.get(SOURCE_KEY)
        table = {int(s): i for s, i in json.loads(data.get(MAPPING_KEY, '{}')).items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f'The table of image ids in the metadata of {path} is damaged; make the '
                        'bag again with "cgdet bag from-coco".') from None
    found: list[tuple[int, ImageRecord, CocoSet]] = []
    for coco in sets:
        if source is None or source == fingerprint(coco):
            by_id = {r.image_id: r for r in coco.images}
            found += [(stamp, by_id[i], coco) for stamp, i in table.items() if i in by_id]
    if not found:
        stamped = [(r.stamp_ns, r, c) for c in sets for r in c.images if r.stamp_ns is not None]
        found = [f for f in stamped if f[1].bag in (None, bag_name(path))]
        if not found and len({r.bag for _, r, _ in stamped}) == 1:
            found = stamped
    truth: dict[int, tuple[ImageRecord, CocoSet]] = {}
    for stamp, record, coco in found:
        other, its = truth.setdefault(stamp, (record, coco))
        if other is not record:
            advice = 'remove one of them' if its is not coco else (
                'remove one of them, or, if its images have the same stamp, record the bag again '
                'with a camera driver that sets header.stamp')
            raise UserError(
                f'Two images match {path} at {stamp} ns: {other.path.name} of {its.path} and '
                f'{record.path.name} of {coco.path}; {advice}.')
    if not truth:
        names = ', '.join(str(c.path) for c in sets)
        reason = 'it was made from other images' if source else (
            f'use the {TRUTH} that "cgdet bag from-coco" wrote next to the bag, or add "stamp_ns" '
            f'to each image record, and {bag_name(path)!r} as its "bag"')
        raise UserError(f'No frame of {path} can be matched to {names}: {reason}.')
    return {stamp: record for stamp, (record, _) in truth.items()}
