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

"""M3FD: roads and a campus; VOC labels of six classes shared by both modalities."""

from collections import Counter
from pathlib import Path

from cgdet_core.data.formats.native import Listing, Options, Pictures, wrong_layout
from cgdet_core.data.formats.voc import first_folder, labeled, split_lists, stems_of

# A bus or truck is not a "car", a motorcycle not a "bicycle", but similar enough that detecting
# one as such is not counted as wrong.
CLASSES = {'people': 'person', 'car': 'car', 'bus': 'ignore-car', 'truck': 'ignore-car',
           'motorcycle': 'ignore-bicycle', 'lamp': 'drop'}


def read_m3fd(folder: Path, options: Options) -> Listing:
    """Read Ir/, Vis/ and Annotation/*.xml, and the lists in meta/ if there are any."""
    options.allow('m3fd')
    labels, ir = first_folder(folder, ('Annotation', 'Annotations')), first_folder(
        folder, ('Ir', 'ir', 'IR'))
    vis = first_folder(folder, ('Vis', 'vis', 'VIS', 'Vi'))
    if labels is None or ir is None or not any(labels.glob('*.xml')):
        raise wrong_layout(folder, 'M3FD', 'Ir/, Vis/ and Annotation/*.xml')
    thermal, rgb, counts = Pictures(ir), Pictures(vis or folder / 'Vis'), Counter[str]()
    lists = split_lists(folder / 'meta') or {'all': stems_of(labels, thermal)}
    frames = [f for split, stems in lists.items()
              for f in labeled(stems, split, thermal, rgb, labels, counts)]
    return Listing(frames, CLASSES, 'lists of meta/' if (folder / 'meta').is_dir()
                   else 'no split of its own', counts)
