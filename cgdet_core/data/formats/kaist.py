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

"""KAIST Multispectral Pedestrian: people only; labels in several corrections and layouts."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
import os
from pathlib import Path
import re

from cgdet_core.data.formats import native
from cgdet_core.data.formats.native import Item, Listing, NativeFrame, Options, Pictures
from cgdet_core.data.formats.voc import parse_voc
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import read_text

# In the benchmark, crowds, doubtful persons and riders are neither required nor counted as false
# detections.
CLASSES = {'person': 'person', 'people': 'ignore-person', 'person?': 'ignore-person',
           'person?a': 'ignore-person', 'cyclist': 'ignore-person'}
NIGHT = ('set03', 'set04', 'set05', 'set09', 'set10', 'set11')
EVERY = {'train': 2, 'test': 20}  # I00001, I00003 ... and I00019, I00039 ...
# Words in the names of label folders: "sanitized" (Li et al., 2018) for training, "improved"
# (Liu et al., 2016; annotations_KAIST_test_set) for the test, then the later of the authors' own.
PREFERRED = {'train': ('saniti', 'improve', 'new'),
             'test': ('improve', 'test_set', 'testset', 'saniti', 'new')}
HEAVY = 2  # occlusion: 0 none, 1 partial, 2 heavy
NAME = re.compile(r'(set\d\d)[/_](V\d{3})[/_](I\d{5})\.(?:txt|xml)$')


def read_kaist(folder: Path, options: Options) -> Listing:
    """
    Read [images/]setXX/VXXX/{lwir,visible}/; set00 to set05 train, set06 to set11 test.

    Labels are text (bbGt) or XML files, in a tree or flat. If there are several sets, the
    corrected ones are read ("sanitized" and the improved test set), or `options.labels`. Flat
    files are already a selection; of a tree, every 2nd frame is for training and every 20th for
    testing, as in the benchmark.
    """
    options.allow('kaist', 'labels')
    images = folder / 'images' if (folder / 'images').is_dir() else folder
    if not any(images.glob('set[01][0-9]/V*/lwir')):
        raise native.wrong_layout(folder, 'KAIST', 'images/set00/V000/{lwir,visible}/I00000.jpg')
    found = _labels(folder, options.labels)
    if not found:
        raise UserError(f'{folder} has no KAIST labels: expected text or XML files such as '
                        'set00/V000/I00001.txt or set00_V000_I00001.txt below it (vbb files '
                        'must be exported first).')
    listing = Listing([], CLASSES, '')
    pictured: set[str] = set()
    for video, keys in groupby(sorted(found), lambda key: key.rpartition('/')[0]):
        thermal, rgb = (Pictures(images / video / part) for part in ('lwir', 'visible'))
        pictured.update(f'{video}/{name}' for name in thermal)
        time = 'night' if video.startswith(NIGHT) else 'day'
        for key in keys:
            name = key.rpartition('/')[2]
            listing.frames.append(NativeFrame(
                _split(key), thermal[name], rgb[name], parse_kaist(found[key][0]), time))
    listing.counts['frames outside the selection or without labels, left out'] = len(
        pictured - found.keys())
    used = Counter(source for _, source in found.values())
    listing.layout = ', '.join(f'{n} from {source}' for source, n in sorted(used.items()))
    return listing


def _split(key: str) -> str:
    return 'train' if key < 'set06' else 'test'


def _labels(folder: Path, chosen: Path | None) -> dict[str, tuple[Path, str]]:
    """Return the best label file of each frame (set00/V000/I00001), and its folder."""
    root = folder if chosen is None else native.resolve(folder, chosen)
    sources: dict[str, dict[str, Path]] = {}
    for path in _walk(root):
        match = NAME.search(path.as_posix())
        if match is None:
            continue
        tree = path.parent.name == match[2]
        key = '/'.join(match.groups()[:3])
        if tree and (int(match[3][1:]) + 1) % EVERY[_split(key)]:
            continue
        place = os.path.relpath(path.parents[2] if tree else path.parent, folder)
        sources.setdefault(place, {})[key] = path
    found: dict[str, tuple[Path, str]] = {}
    for split, words in PREFERRED.items():
        # One source per split, as other corrections follow other labeling rules.
        ranks = {s: next((i for i, word in enumerate(words) if word in s.lower()), len(words))
                 for s in sources}
        for source in sorted(sources, key=lambda s: (ranks[s], s)):
            keys = {k: (p, source) for k, p in sources[source].items() if _split(k) == split}
            found |= keys
            if keys:
                break
    return found


def _walk(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        # The image folders hold a hundred thousand files and no labels.
        folders[:] = sorted(f for f in folders if f not in ('lwir', 'visible'))
        yield from (Path(place) / f for f in files if not f.startswith('.'))


def parse_kaist(path: Path) -> list[Item]:
    """Read a label file; heavily occluded people and those marked as ignored are ignored."""
    if path.suffix == '.xml':
        return parse_voc(path, HEAVY).items
    items = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith('%'):
            continue
        try:
            x, y, w, h = map(native.number, words[1:5])
            occlusion = int(native.number(words[5])) if len(words) > 5 else 0
            marked = int(native.number(words[10])) if len(words) > 10 else 0
        except (ValueError, OverflowError):
            raise UserError(f'{path}, line {number}: "{line[:60]}" is not "name x y width '
                            'height occlusion ...".') from None
        items.append(Item(words[0], (x, y, x + w, y + h), occlusion >= HEAVY or marked == 1))
    return items
