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

"""The results of an evaluation, and the file that "cgdet report" reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.io import bag_name
from cgdet_core.data.bags.truth import truth_by_stamp
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.data.sources import bag_frames
from cgdet_core.detection.metrics import Report
from cgdet_core.detection.scores import judge_all, Judged
from cgdet_core.errors import UserError
from cgdet_core.machine import commit
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import read_json, write_json
from cgdet_core.runtime.inference.card import file_sha256, read_card
import numpy as np
from numpy.typing import NDArray

FILE = 'evaluation.json'
FORMAT = 'cgdet evaluation'
VERSION = 1


@dataclass(frozen=True)
class Evaluation:
    """
    The frames of a set or of bags with the detections of a model, in the same order.

    about: model, model_sha256, backend, command, date, commit. sets: annotations, paths with the
    SHA-256. images: the folder of their file names, if it was set. stamps: bag and stamp in
    nanoseconds of each frame; empty for a set. report: the metrics.
    """

    about: Mapping[str, Any]
    card: DetectionCard
    sets: Mapping[Path, str]
    images: Path | None
    records: Sequence[ImageRecord]
    found: Sequence[Detections]
    report: Report
    stamps: Sequence[tuple[Path, int]] = ()
    topic: str | None = None

    @cached_property
    def judged(self) -> Judged:
        """Which detections are right."""
        return judge_all(self.found, self.records, self.card)

    def name(self, index: int) -> str:
        """Return the name of a frame: of its file, or of its bag with the stamp."""
        if not self.stamps:
            return self.records[index].path.name
        bag, stamp = self.stamps[index]
        return f'{bag_name(bag)} {stamp}'

    def pixels(self, wanted: set[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the index and the raw pixels of each wanted frame; a bag is read once."""
        if not self.stamps:
            for index in sorted(wanted):
                yield index, self.records[index].read(self.card.channels)
        places = {self.stamps[i]: i for i in wanted} if self.stamps else {}
        for bag in dict.fromkeys(bag for bag, _ in places):
            for frame in bag_frames(bag, self.topic):
                assert frame.stamp_ns is not None
                index = places.pop((bag, frame.stamp_ns), -1)  # the first of repeated stamps
                if index >= 0:
                    yield index, frame.pixels


def describe(model: Path, backend: str, command: str) -> dict[str, Any]:
    """Return the `about` of an evaluation that has just been made."""
    return {'model': model.name, 'model_sha256': file_sha256(model), 'backend': backend,
            'command': command, 'commit': commit(),
            'date': datetime.now(timezone.utc).isoformat(timespec='seconds')}


def hashes(sets: Sequence[CocoSet]) -> dict[Path, str]:
    """Return the annotation files of sets with their SHA-256."""
    return {coco.path.absolute(): file_sha256(coco.path) for coco in sets}


def save(evaluation: Evaluation, path: Path) -> None:
    """Write the detections and the metrics, without annotations and images."""
    bags = list(dict.fromkeys(bag for bag, _ in evaluation.stamps))
    frames = []
    for i, found in enumerate(evaluation.found):
        origin: dict[str, Any] = {'image_id': evaluation.records[i].image_id}
        if evaluation.stamps:
            bag, stamp = evaluation.stamps[i]
            origin = {'bag': bags.index(bag), 'stamp_ns': stamp}
        frames.append({**origin, 'boxes': decimals(found.boxes), 'scores': decimals(found.scores),
                       'labels': found.labels.tolist()})
    write_json(path, {
        'format': FORMAT, 'version': VERSION, **evaluation.about,
        'data': [{'path': str(p), 'sha256': digest} for p, digest in evaluation.sets.items()],
        'images': str(evaluation.images.absolute()) if evaluation.images else None,
        'bags': [str(bag.absolute()) for bag in bags], 'topic': evaluation.topic,
        'report': evaluation.report, 'card': evaluation.card.to_dict(), 'frames': frames,
    }, indent=None)


def load(path: Path, data: Path | None = None, images: Path | None = None) -> Evaluation:
    """
    Read the file of an evaluation with its annotations.

    data and images: where annotations and images are now, if they were moved. UserError if the
    file is something else, or annotations have changed.
    """
    values = read_json(path)
    if not isinstance(values, dict) or values.get('format') != FORMAT:
        raise UserError(f'{path} is not the {FILE} of an evaluation; write one with '
                        '"cgdet evaluate" or "cgdet bag evaluate" and --output.')
    if values.get('version') != VERSION:
        raise UserError(f'{path} has version {values.get("version")}, but this package reads '
                        f'version {VERSION}; repeat the evaluation.')
    try:
        return _restore(values, path, data, images)
    except UserError:  # a ValueError, but ours
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f'{path} is damaged ({type(error).__name__}: {error}); repeat the '
                        'evaluation.') from None


def _restore(
    values: dict[str, Any], path: Path, data: Path | None, images: Path | None,
) -> Evaluation:
    card = read_card(values['card'], DetectionCard, path)
    sources = {Path(entry['path']): entry['sha256'] for entry in values['data']}
    if data is not None:
        if len(sources) != 1:
            raise UserError(f'{path} has several annotation files, which cannot be replaced.')
        sources = {data: next(iter(sources.values()))}
    for source, digest in sources.items():
        if not source.is_file():
            raise UserError(f'The annotation file {source} of {path} does not exist; name the '
                            'file if it was moved.', 'data')
        if file_sha256(source) != digest:
            raise UserError(f'{source} has changed since {path} was written; repeat the '
                            'evaluation.')
    if images is None and values['images'] is not None:
        images = Path(values['images'])
    sets = [load_coco(source, images, card.classes, card.channels) for source in sources]
    bags = [Path(bag) for bag in values['bags']]
    stamps = [(bags[f['bag']], f['stamp_ns']) for f in values['frames']] if bags else []
    truth = {bag: truth_by_stamp(bag, *sets) for bag in bags}
    by_id = {record.image_id: record for record in sets[0].images}
    records = ([truth[bag][stamp] for bag, stamp in stamps] if bags
               else [by_id[frame['image_id']] for frame in values['frames']])
    found = [Detections(np.array(f['boxes'], np.float32).reshape(-1, 4),
                        np.array(f['scores'], np.float32), np.array(f['labels'], np.int64))
             for f in values['frames']]
    keys = ('model', 'model_sha256', 'backend', 'command', 'commit', 'date')
    return Evaluation({key: values[key] for key in keys}, card, sources, images, records, found,
                      values['report'], stamps, values['topic'])


def decimals(values: NDArray[np.float32]) -> list[Any]:
    """Return numbers as the shortest decimals that are read as the same float32."""
    numbers: list[Any] = values.astype(str).astype(float).tolist()
    return numbers
