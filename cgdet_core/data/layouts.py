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

"""Recognize data sets that are not COCO, for errors that say how to convert them."""

from pathlib import Path

NAMES = ('data.yaml', 'data.yml', 'dataset.yaml', 'classes.txt')  # of the classes of YOLO sets


def conversion(path: Path) -> str:
    """Return what a folder, or a file in it, is of and the command that converts it, or ''."""
    folder = path if path.is_dir() else path.parent
    places = folder, folder.parent
    named = [p for p in places if any((p / name).is_file() for name in NAMES)]
    split = [p for p in places if (p / 'images').is_dir() and (p / 'labels').is_dir()]
    voc = [p for p in places if next(p.glob('Annotation*/*.xml'), None)]
    for found, name, word in ((named + split, 'YOLO', 'yolo'), (voc, 'VOC', 'voc')):
        if found:
            return (f'{path} is of a {name} set, and a COCO annotation file is required; '
                    f'"cgdet data convert {word} {found[0]}" writes it.')
    return ''
