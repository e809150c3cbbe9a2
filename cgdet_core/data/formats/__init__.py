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

"""Readers of native data set layouts; a new one is one function and one entry in FORMATS."""

from collections.abc import Callable
from pathlib import Path

from cgdet_core.data.formats.flir import read_flir_aligned, read_flir_v1, read_flir_v2
from cgdet_core.data.formats.kaist import read_kaist
from cgdet_core.data.formats.native import Listing, Options
from cgdet_core.data.formats.voc import read_llvip, read_m3fd, read_voc
from cgdet_core.data.formats.yolo import read_msrs, read_yolo

FORMATS: dict[str, Callable[[Path, Options], Listing]] = {
    'flir-adas-v1': read_flir_v1, 'flir-adas-v2': read_flir_v2, 'flir-aligned': read_flir_aligned,
    'llvip': read_llvip, 'kaist': read_kaist, 'm3fd': read_m3fd, 'msrs': read_msrs,
    'yolo': read_yolo, 'voc': read_voc}

# What the authors state; for the COCO file's `info`, from where it reaches the model card.
LICENSES = {
    'flir-adas-v1': 'FLIR ADAS, non-commercial research',
    'flir-adas-v2': 'FLIR ADAS, non-commercial research',
    'flir-aligned': 'FLIR ADAS, non-commercial research', 'llvip': 'LLVIP, see its terms'}
