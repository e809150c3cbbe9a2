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

"""What makes a sequence hard, as its benchmark says: flags of sequences or of frames."""

from collections.abc import Iterator
from pathlib import Path
import re

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import read_text
from cgdet_core.tracking.benchmarks import Benchmark
from cgdet_core.tracking.sequences import Entry
from cgdet_core.words import counted
import numpy as np
from numpy.typing import NDArray

FLAGS = ('att', 'anno/att', 'tiranno/att', 'AttriSeqsTxt')  # NAME.txt: a line of flags
LISTS = 'attr_txt'  # SequencesName.txt, and a file for each attribute: a flag a sequence
ABOVE = 3  # folders above a sequence in which these are looked for


def find_attributes(
    entry: Entry, benchmark: Benchmark, frames: int,
) -> dict[str, NDArray[np.bool_]]:
    """
    Return the frames (N,) of a sequence that have each attribute; none without files of them.

    A benchmark states them for whole sequences, VOT for each frame (`occlusion.label`).
    """
    found: dict[str, NDArray[np.bool_]] = {}
    for path in sorted(entry.folder.glob('*.label')):
        flags = _flags(path)
        if len(flags) != frames:
            raise UserError(f'{path} has {len(flags)} flags, but there are '
                            f'{counted(frames, "frame")}.')
        found[path.stem.replace('_', ' ')] = flags
    if found or not benchmark.attributes:
        return found
    flags = _of_sequence(entry.folder, benchmark)
    return {name: np.ones(frames, bool) for name, flag in zip(benchmark.attributes, flags) if flag}


def _of_sequence(folder: Path, benchmark: Benchmark) -> NDArray[np.bool_]:
    """Return a flag for each attribute of a benchmark, or nothing if there is no file of them."""
    name = folder.resolve().name
    for place in _places(folder):
        for path in (place / part / f'{name}.txt' for part in FLAGS):
            if path.is_file():
                flags = _flags(path)
                if len(flags) != len(benchmark.attributes):
                    raise UserError(f'{path} has {len(flags)} flags, but {benchmark.title} has '
                                    f'{len(benchmark.attributes)} attributes.')
                return flags
        listed = place / LISTS / 'SequencesName.txt'
        if listed.is_file():
            names = read_text(listed).split()
            columns = [_flags(place / LISTS / f'{attribute}.txt')
                       for attribute in benchmark.attributes]
            if name in names and all(len(column) == len(names) for column in columns):
                return np.array([column[names.index(name)] for column in columns])
    return np.zeros(0, bool)


def _places(folder: Path) -> Iterator[Path]:
    yield folder
    yield from list(folder.resolve().parents)[:ABOVE]


def _flags(path: Path) -> NDArray[np.bool_]:
    text = read_text(path)
    try:
        return np.array([float(cell) > 0 for cell in re.split(r'[,\s]+', text.strip()) if cell])
    except ValueError:
        raise UserError(f'{path} cannot be read as flags, 0 or 1.') from None
