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

"""What the demo plays: a bag, pictures, or a drawn street; and the model that detects in it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
import sys

from cgdet_core.cli.common import counting
from cgdet_core.data.bags.io import write_bag
from cgdet_core.data.bags.truth import truth_by_stamp
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.data.sources import bag_frames, Frame, read_frames
from cgdet_core.data.synthetic import CLASSES, record, SceneFrame, sequence
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.words import counted
import numpy as np
from numpy.typing import NDArray

BAG = 'cgdet_demo_bag'  # name of the bag of pictures or scenes, in the output folder
SEED = 424242  # of the drawn street; not used in training
SECONDS = 20.0  # of the street by default; other lengths have other people
FOLLOWED = 54  # its track that is followed: a person in a crowd, who is hidden five times
SEEN_WELL = 0.9  # share of the target that is visible when it is chosen
STREET_HZ, PICTURES_HZ = 20.0, 10.0
Target = tuple[int, NDArray[np.float64]]


@dataclass
class DemoInput:
    """A bag to play, and what is known about it."""

    bag: Path
    name: str  # for people
    truth: dict[int, ImageRecord] = field(default_factory=dict)  # by stamp
    unreadable: list[str] = field(default_factory=list)  # pictures that are left out
    topic: str | None = None  # of the images, if the bag has several
    target: Target | None = None  # number of the frame and box (4,) from which it is followed

    def frames(self) -> Iterator[Frame]:
        """Return the frames of the bag."""
        return bag_frames(self.bag, self.topic)


def open_input(bag: str | None, images: str | None, data: str | None, seconds: float,
               folder: Path, card: DetectionCard, topic: str | None = None) -> DemoInput:
    """Return the bag to play; pictures, or a street of some seconds, become one in `folder`."""
    if bag:
        truth = truth_by_stamp(bag, load_coco(data, None, card.classes)) if data else {}
        return DemoInput(Path(bag), str(bag), truth, topic=topic)
    path = folder / BAG
    if images:
        source = DemoInput(path, images)
        with counting('reading') as advance:
            truth = _write(path, _readable(
                read_frames(images, classes=card.classes, topic=topic), source.unreadable),
                PICTURES_HZ, card, advance)
        return replace(source, truth=truth)
    total = round(seconds * STREET_HZ)
    source = DemoInput(path, f'a street drawn for the demo, {counted(total, "frame")}')

    def frames() -> Iterator[Frame]:
        for number, (scene, frame) in enumerate(street(seconds, card.classes)):
            if source.target is None and seconds == SECONDS:
                source.target = _target(number, scene)
            yield frame

    with counting('drawing a street', total) as advance:
        source.truth = _write(path, frames(), STREET_HZ, card, advance)
    return source


def _target(number: int, scene: SceneFrame) -> Target | None:
    """Return the start of what is followed, if it is seen well in a frame."""
    rows = np.flatnonzero((scene.track_ids == FOLLOWED) & (scene.visible > SEEN_WELL))
    return (number, scene.boxes[rows[0]].astype(np.float64)) if len(rows) else None


def street(seconds: float, classes: tuple[str, ...]) -> Iterator[tuple[SceneFrame, Frame]]:
    """Yield scenes of a drawn street, and their frames: 14-bit counts, boxes of these classes."""
    for number, (scene, counts, _) in enumerate(record(sequence(SEED, seconds, STREET_HZ), SEED)):
        name = f'street_{number:05d}.png'
        yield scene, Frame(name, partial(np.asarray, counts), truth=_truth(
            scene, ImageRecord(number, Path(name), *counts.shape[::-1]), classes))


def _truth(scene: SceneFrame, record: ImageRecord, classes: tuple[str, ...]) -> ImageRecord:
    """Return a record with the boxes of a drawn frame; other classes are left out."""
    known = np.array([CLASSES[label] in classes for label in scene.labels], bool)
    boxes = scene.boxes[known]
    return replace(
        record, boxes=boxes, areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        labels=np.array([classes.index(CLASSES[i]) for i in scene.labels[known]], np.int64),
        crowd=np.zeros(len(boxes), np.int64))


def _readable(frames: Iterator[Frame], unreadable: list[str]) -> Iterator[Frame]:
    """Yield the frames that can be read; name the others and add them to a list."""
    any_good = False
    for frame in frames:
        try:
            good = frame.pixels.size > 0
        except UserError as error:
            good = False
            print(f'cgdet: {error}', file=sys.stderr)
        if good:
            any_good = True
            yield frame
        else:
            unreadable.append(frame.name)
    if not any_good:
        raise UserError('None of the pictures can be read.')


def _write(path: Path, frames: Iterable[Frame], rate: float, card: DetectionCard,
           progress: Callable[[int], None]) -> dict[int, ImageRecord]:
    """Write frames as a bag, and return the truth of those that have one."""
    records: list[ImageRecord] = []

    def recorded() -> Iterator[Frame]:
        for frame in frames:
            progress(1)
            if frame.truth is not None:
                records.append(frame.truth)
            yield frame

    write_bag(path, recorded(), rate)
    return truth_by_stamp(path, CocoSet(path, records, card.classes)) if records else {}
