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

"""`cgdet detect`."""

from collections import Counter
from collections.abc import Callable, Sequence
import os
from pathlib import Path
from statistics import median
import sys
from typing import Annotated, TYPE_CHECKING

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    Backend,
    check_local,
    COLORED,
    complain,
    ending,
    folder_option,
    names_of,
    Overwrite,
    Polarity,
    say,
    sentence_of,
    Topic,
    Unit,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.result import objects_text
from cgdet_core.runtime.files import model_file
from cgdet_core.runtime.imaging.signal import CARD, check_signal
from cgdet_core.words import counted
import cv2
import numpy as np
from numpy.typing import NDArray
import typer

if TYPE_CHECKING:
    from cgdet_core.data.sources import Source
    from cgdet_core.detection.outputs import Outputs
    from cgdet_core.detection.predict import Outcome

WINDOW = 'cgdet detect (any key: next image, q: stop)'
LOW = 0.1  # a threshold that shows almost all objects, and some boxes without one


def detect(
    sources: Annotated[list[str], typer.Argument(
        metavar='SOURCE...', help=(
            'Images, folders, "patterns", videos, bags, /dev/video0, rtsp:// or http:// '
            'addresses, - for a list on standard input; an ONNX file or a checkpoint before them '
            'is the model.'))],
    model: Annotated[str | None, typer.Option(
        help='ONNX file, checkpoint, or name of a model of this package, such as "thermal"; '
        '"shipped" by default.')] = None,
    output: Annotated[Path | None, folder_option(
        'Folder for the results; by default a new one, detections or detections_2 and so '
        'on.')] = None,
    formats: Annotated[list[str] | None, typer.Option(
        '--format', help='coco, jsonl, yolo or csv; coco by default; may be repeated.')] = None,
    score_threshold: Annotated[float | None, typer.Option(
        min=0, max=1, help="Minimum score; the model card's, by class, by default.")] = None,
    classes: Annotated[str | None, typer.Option(
        help='Only these classes, for example person,car.')] = None,
    topic: Topic = None,
    backend: Backend = 'auto',
    normalized: Annotated[bool, typer.Option(
        '--normalized-8bit', help='Also write the frames as the network sees them, as 8-bit '
        'images without boxes in their own size: for annotation tools.')] = False,
    unit: Unit = None,
    polarity: Polarity = None,
    show: Annotated[bool, typer.Option('--show', help='Show the frames in a window.')] = False,
    overwrite: Overwrite = False,
) -> None:
    """
    Detect objects; write the boxes, images with boxes, and a video of each video, bag or stream.

    An image that cannot be read is reported and left out; the exit status is then 1. After Ctrl-C
    the files contain what was done.
    """
    from cgdet_core.data.inputs import find_sources
    from cgdet_core.data.sources import viewed
    from cgdet_core.detection.outputs import Outputs
    from cgdet_core.detection.predict import check_model, detect_sources, open_thermal, restrict

    path, sources = _model_first(model, sources)
    check_model(path, backend)
    outputs = Outputs(output, formats or ('coco',), normalized)
    found = find_sources(sources, sys.stdin, topic)
    outputs.check(found, overwrite)
    window = _window() if show else None
    detector = open_thermal(path, backend)
    threshold = score_threshold if classes is None else restrict(
        detector.card.classes, names_of(classes),
        detector.card.thresholds if score_threshold is None else score_threshold)
    card, unit, polarity = detector.card, unit or CARD, polarity or ''
    check_signal(card.normalization.kind, unit, polarity, card.name)
    found = [viewed(source, unit, polarity, card.polarity) for source in found]
    lines = _Lines(found)

    def run() -> None:
        with outputs, common.counting('detecting', lines.total) as advance:
            for outcome in detect_sources(detector, found, outputs, threshold):
                advance(1)
                lines.add(outcome)
                if window is not None and outcome.picture is not None and not window(
                        outcome.picture, outcome.source):
                    lines.end_of_source(stopped=True)
                    return
            lines.end_of_source()

    reason, status = ending(run)
    if outputs.frames:
        lines.summarize(outputs, float(np.min(
            detector.card.thresholds if threshold is None else threshold)))
    elif not reason and not lines.failed:
        raise UserError(f'There are no frames in {", ".join(sources)}.')
    if reason:
        done = f'{counted(outputs.frames, "frame")} done' if outputs.frames else 'nothing was done'
        complain(f'{reason}; {done}.')
    elif lines.failed > 1 or lines.failed and outputs.frames:
        complain(f'{counted(lines.failed, "frame or source", "frames or sources")} could not be '
                 'read.')
    if status or lines.failed:
        raise typer.Exit(status or 1)


def _model_first(model: str | None, sources: list[str]) -> tuple[Path, list[str]]:
    """Return the model, the shipped one by default, and the sources."""
    from cgdet_core.data.sources import MODEL_SUFFIXES

    named = model is not None or Path(sources[0]).suffix.lower() not in MODEL_SUFFIXES
    file = model_file(model or 'shipped') if named else Path(sources[0])
    check_local([file])
    if named:
        return file, sources
    if len(sources) == 1:
        raise UserError(f'Name what to detect in after the model {sources[0]}: images, folders, '
                        'videos, bags, a camera or an address.')
    return file, sources[1:]


class _Lines:
    """Print a line for each image, and for each sequence a line at its end."""

    def __init__(self, sources: 'Sequence[Source]') -> None:
        totals = [source.total for source in sources]
        self.total = sum(n or 0 for n in totals) if all(totals) else None
        self.failed = self._done = 0
        self._ms: list[float] = []
        self._source: Source | None = None
        self._frames, self._objects = 0, Counter[str]()
        self._colors: set[str] = set()

    def add(self, outcome: 'Outcome') -> None:
        """Report what became of a frame."""
        source = outcome.source
        if source is not self._source:
            self.end_of_source()
            self._source, self._frames, self._objects = source, 0, Counter()
        self._done += 1
        if isinstance(outcome.found, UserError):
            self.failed += 1
            complain(sentence_of(outcome.found))
            return
        self._ms.append(outcome.ms)
        self._frames += 1
        self._objects.update(outcome.objects)
        of = f'/{self.total}' if self.total else ''
        if not source.rate:
            say(f'{self._done}{of} {outcome.name}: {objects_text(outcome.objects)}, '
                f'{outcome.ms:.0f} ms')
        if source.colors.found and source.where not in self._colors:
            self._colors.add(source.where)
            say(COLORED.format(source.colors.found), 'yellow')

    def end_of_source(self, stopped: bool = False) -> None:
        """Report a sequence that has ended, or that was stopped."""
        if self._source is not None and self._source.rate:
            ended = '' if self._source.total or stopped else '; the stream has ended'
            say(f'{self._source.where}: {counted(self._frames, "frame")}, '
                f'{objects_text(self._objects)}{ended}')

    def summarize(self, outputs: 'Outputs', minimum: float) -> None:
        """Report all frames, and what was written; minimum: the lowest threshold."""
        from cgdet_core.data.video import video_advice

        say(f'{counted(outputs.frames, "frame")}: {objects_text(outputs.objects)}; '
            f'median {median(self._ms or [0.0]):.0f} ms a frame')
        if not outputs.objects and minimum > LOW:
            say(f'Boxes with lower scores are shown with --score-threshold {LOW:g}.')
        made = ', '.join(f'{name}/ ({counted(n, "image")})' if name in ('pictures', 'normalized')
                         else f'{name}/' if name == 'labels' else name
                         for name, n in outputs.made.items())
        say(f'Written to {outputs.folder}/: {made}')
        if any(name.endswith('.mp4') for name in outputs.made) and video_advice():
            say(video_advice(), 'yellow')


def _window() -> Callable[[NDArray[np.uint8], 'Source'], bool]:
    """Return the function that shows an image, and whether to go on; UserError without windows."""
    if sys.platform == 'linux' and not (
            os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        raise UserError('--show requires a display, but DISPLAY is not set; connect with '
                        '"ssh -X", or watch the images and videos that are written without it.')
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise UserError('--show requires an OpenCV with windows: "pip uninstall '
                        'opencv-python-headless", then "pip install opencv-python".') from None

    def show(picture: NDArray[np.uint8], source: 'Source') -> bool:
        cv2.imshow(WINDOW, picture)
        key = cv2.waitKey(1)
        while not source.rate and key < 0 and cv2.getWindowProperty(
                WINDOW, cv2.WND_PROP_VISIBLE) > 0:
            key = cv2.waitKey(50)
        return key not in (ord('q'), 27)

    return show
