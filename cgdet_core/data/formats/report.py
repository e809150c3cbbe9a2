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

"""The report of a conversion, as JSON values and as a table."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgdet_core.data.formats.native import Listing

EXAMPLES = 5  # of missing files


@dataclass
class Tally:
    """Counters of a conversion."""

    depth: Counter[str] = field(default_factory=Counter)
    largest: Counter[str] = field(default_factory=Counter)  # value per bit depth
    sizes: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)  # "native -> ours"
    missing: dict[str, list[str]] = field(
        default_factory=lambda: {'thermal': [], 'rgb': [], 'unreadable': []})


def make_report(
    name: str, folder: Path, listing: Listing, sets: dict[str, dict[str, Any]], tally: Tally,
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
    if list(sets) == ['all']:
        notes.append('The set has no split; hold out its last frames for val.')
    shared = sum(len(s) > 1 for s in splits.values())
    if shared:
        notes.append(f'{shared} frames are in more than one split.')
    return {
        'format': name, 'folder': str(folder), 'read': listing.layout,
        'splits': {split: _numbers(content) for split, content in sets.items()},
        'bit_depth': dict(tally.depth), 'largest_value': dict(tally.largest),
        'sizes': dict(tally.sizes.most_common()),
        'classes': dict(sorted(tally.classes.items())),
        'boxes': {what: n for what, n in tally.boxes.items() if n},
        'left_out': {what: n for what, n in listing.counts.items() if n},
        'missing': {what: {'count': len(paths), 'examples': paths[:EXAMPLES]}
                    for what, paths in tally.missing.items()},
        'notes': notes}


def _numbers(content: dict[str, Any]) -> dict[str, int]:
    annotations = content['annotations']
    boxes = Counter(a['category_id'] for a in annotations if not a['iscrowd'])
    frames = {'images': len(content['images']),
              'with_rgb': sum(i['rgb_file_name'] is not None for i in content['images']),
              'empty': len(content['images']) - len({a['image_id'] for a in annotations})}
    classes = {c['name']: boxes[c['id']] for c in content['categories']}
    # If a class is named "empty", the numbers of frames take precedence.
    return frames | classes | frames | {'ignored': sum(a['iscrowd'] for a in annotations)}
