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

"""Follow a target in a source of the user's own, and write what was found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
import re
from typing import Any

from cgdet_core.data.sources import RATE, Source
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import write_table
from cgdet_core.runtime.tracking.target import Target
from cgdet_core.tracking.following import (
    Clock,
    Follower,
    PIXELS,
    read_or_tell,
    read_rgb_of,
    sides,
)
from cgdet_core.tracking.pictures import open_target_video
from cgdet_core.tracking.truth import LARGEST
import numpy as np
from numpy.typing import NDArray

VIDEO = '.mp4'
NAMED = re.compile(r'\.[A-Za-z]\w*')  # a suffix of files, not of a date or version
COLUMNS = ('file', 'x', 'y', 'w', 'h', 'score', 'state')


def outputs_of(output: Path, source: Source) -> list[Path]:
    """Return the files that `follow_source` writes: a video, and in a folder also a table."""
    if output.suffix.lower() == VIDEO:
        return [output]
    if NAMED.fullmatch(output.suffix) and not output.is_dir():
        raise UserError(f'{output} is named like a file; name a video ({VIDEO}), or a folder for '
                        f'a video and a table, such as {output.with_suffix("")}.', 'output')
    name = source.name or 'track'
    return [output / f'{name}{VIDEO}', output / f'{name}.csv']


def parse_box(text: str) -> NDArray[np.float32]:
    """Return x1, y1, x2, y2 of a text X,Y,W,H; UserError if it is none, or has no area."""
    try:
        x, y, w, h = (float(cell) for cell in text.split(','))
    except ValueError:
        raise UserError(f'A box is X,Y,W,H in pixels, for example 120,80,30,60, not {text!r}.',
                        'box') from None
    if not (np.abs((x, y, w, h)) < LARGEST).all():
        raise UserError(f'The box {text} is not in pixels.', 'box')
    if not (w > 0 and h > 0):
        raise UserError(f'The box {text} has no area; W and H must be positive.', 'box')
    return np.array((x, y, x + w, y + h), np.float32)


def follow_source(
    follower: Follower, source: Source, box: NDArray[np.float32], output: Path, clock: Clock,
    first: int = 0, rgb: Sequence[Path | None] = (),
    unreadable: Callable[[UserError], None] | None = None,
) -> Iterator[Target]:
    """
    Follow the target with the box (4,) x1, y1, x2, y2 in frame `first`; yield it in each frame.

    rgb: the RGB image of each frame, None where there is none, for a tracker that sees both.
    clock: takes the stamps. unreadable: called for each later frame that cannot be read, which is
    left out.
    Writes the files of `outputs_of`, also if the source ends with an error; the table has the
    columns of a truth, so that it can be corrected and used as one. UserError if there is no
    frame `first`.
    """
    rows: list[dict[str, str]] = []
    rate = source.rate or RATE
    try:
        with ExitStack() as stack:
            show = None
            for number, frame in enumerate(source.frames):
                if number < first:
                    continue
                pixels = read_or_tell(PIXELS, frame, unreadable if number > first else None)
                if pixels is None:
                    continue
                stamp = clock.at(frame, number / rate if frame.stamp_ns is None
                                 else frame.stamp_ns / 1e9)
                color: dict[str, Any] = {}
                if number < len(rgb) and (picture := rgb[number]):
                    color['rgb'] = read_rgb_of(picture, pixels.shape, unreadable)
                try:
                    target = (follower.follow(pixels, stamp, **color) if number > first
                              else follower.start(pixels, box, stamp, **color))
                except ValueError as error:
                    raise frame.error(error) from None
                show = show or stack.enter_context(
                    open_target_video(outputs_of(output, source)[0], rate))
                show(frame, target, None)
                rows.append(dict(zip(COLUMNS, (
                    frame.name, *(f'{v:.2f}' for v in sides(target.box)), f'{target.score:.4f}',
                    target.state.value))))
                yield target
        if show is None:
            raise UserError(f'{source.where} has no frame {first}.', 'frame')
    finally:
        for path in outputs_of(output, source)[1:] if rows else ():
            write_table(path, COLUMNS, rows)
