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

"""Write detections as they are made: COCO, JSON lines, YOLO, CSV, images and videos."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
import csv
from io import StringIO
import json
import math
import os
from pathlib import Path
from typing import Any, Literal, TextIO

from cgdet_core.data.coco import annotations_of
from cgdet_core.data.sources import DRAWN, Frame, RESULTS, Source
from cgdet_core.data.to_yolo import yolo_lines
from cgdet_core.data.video import open_video, Write
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import (
    check_outputs,
    free_folder,
    free_stem,
    in_use,
    read_json,
    remove_leftovers,
    write_atomically,
    write_json,
)
from cgdet_core.runtime.imaging.drawing import as_seen, save_frame, save_picture
import numpy as np
from numpy.typing import NDArray

FORMATS = ('coco', 'jsonl', 'yolo', 'csv')
FOLDER = Path('detections')  # by default; then detections_2 and so on
COLUMNS = ('file_name', 'class', 'score', 'x1', 'y1', 'x2', 'y2')


class Outputs:
    """
    The output folder of a run, which is made with the first frame.

    Each frame is a line of detections.jsonl as soon as it is finished; `close`, also after an
    exception, writes the COCO file from these lines and removes them if they were not asked for.
    So what was done remains, also after a crash; nothing remains if that was no frame.

    folder: None for a new one. formats: of FORMATS. normalized: also write the frames as the
    network sees them, 8-bit. frames, objects: what was written; names: of the frames. Use it as a
    context manager.
    """

    def __init__(self, folder: Path | None, formats: Sequence[str] = ('coco',),
                 normalized: bool = False) -> None:
        wrong = [name for name in formats if name not in FORMATS]
        if wrong:
            raise UserError(f'There is no format {wrong[0]!r}; choose from {", ".join(FORMATS)}.')
        self.folder, self._new = folder or free_folder(FOLDER), folder is None
        self._made: list[Path] = []  # folders that this run has made, the inner ones first
        self.formats, self.normalized = formats, normalized
        self.frames, self.objects = 0, Counter[str]()
        self.classes: tuple[str, ...] = ()
        self._files: dict[str, TextIO] = {}
        self.names: set[str] = set()
        self._stems: set[str] = set()
        self._overwrite = False
        self._videos = ExitStack()
        self._video = ''
        self._write_frame: Write | None = None
        self._start_ns = self._written = 0
        self._last = np.zeros((0, 0, 3), np.uint8)
        self.made: dict[str, int] = {}  # files and folders, in order -> number of frames

    def __enter__(self) -> 'Outputs':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self, sources: Sequence[Source], overwrite: bool) -> None:
        """
        Raise UserError if something is in the way, or would be written over a file of a source.

        overwrite: the results of an earlier run in the folder are removed with the first frame.
        """
        self._overwrite = overwrite
        pictures = [self.folder / name for name in DRAWN]
        written = [self.folder / name for name in RESULTS[:3]] + [
            self.folder / f'{source.name}.mp4' for source in sources if source.rate]
        ours = {Path(os.path.realpath(path)) for path in pictures + written}
        for source in sources:
            for path in map(Path, map(os.path.realpath, source.files)):
                if not ours.isdisjoint((path, *path.parents)):
                    raise UserError(f'Results would be written into the source {source.where}; '
                                    'choose another output folder.', 'output')
        folders = [*pictures, self.folder / 'labels']
        check_outputs(written, folders, overwrite)
        if not any((self.folder / name).is_file() for name in RESULTS[:3]):
            for place in folders:
                if place.is_dir() and any(place.iterdir()):
                    raise UserError(f'{place} is not a result of "cgdet detect"; choose another '
                                    'output folder.', 'output')

    def write(self, source: Source, frame: Frame, found: Detections, card: DetectionCard,
              picture: NDArray[np.uint8], ms: float) -> None:
        """Write a frame's detections, and its image with boxes, `picture`, (H, W, 3) BGR."""
        if not self._files:
            self._open(card.classes)
        self.names.add(frame.name)
        stem = free_stem(frame.name, self._stems)
        if source.rate:
            self._write_video(source, frame.stamp_ns, picture)
        else:
            save_picture(self.folder / 'pictures' / f'{stem}.png', picture)
            self._count('pictures')
        if self.normalized:
            gray = as_seen(frame.pixels, card.normalization)
            save_frame(self.folder / 'normalized' / f'{stem}.png', gray)
            self._count('normalized')
        objects = [{'class': card.classes[a['category_id'] - 1], 'score': a['score'],
                    'bbox': a['bbox'], 'area': a['area']} for a in annotations_of(found, 0, 0)]
        height, width = frame.pixels.shape[:2]
        if 'yolo' in self.formats:
            path = self.folder / 'labels' / f'{stem}.txt'
            write_atomically(path, yolo_lines(found.boxes, found.labels, width, height).encode())
            self._count('labels')
        if 'csv' in self.formats:
            self._append('detections.csv', _rows(frame.name, found, card.classes))
            self._count('detections.csv')
        line = {'file_name': frame.name, 'width': width, 'height': height,
                'source': source.where if source.rate else frame.where or source.where,
                'stamp_ns': frame.stamp_ns, 'ms': round(ms, 2), 'objects': objects}
        self._append('detections.jsonl', json.dumps(line) + '\n')
        self.frames += 1
        self.objects.update(str(entry['class']) for entry in objects)

    def close(self) -> None:
        """Complete the video and the COCO file; OSError if the disk is full."""
        files, self._files = self._files, {}
        try:
            self._videos.close()
        finally:
            for file in files.values():
                with suppress(OSError):
                    file.close()
            if files and self.frames:
                self._finish(self.folder / 'detections.jsonl')
            elif self.classes and not self.frames:  # the first frame was not finished
                self._remove()

    def _finish(self, journal: Path) -> None:
        self.made = {journal.name: self.frames, **self.made}
        if 'coco' in self.formats:
            write_json(self.folder / 'detections.json', _coco(journal, self.classes), None)
            self.made = {'detections.json': self.frames, **self.made}
        if 'jsonl' not in self.formats:
            journal.unlink()
            del self.made[journal.name]

    def _remove(self) -> None:
        """Remove what a run without any finished frame has written: parts of the first one."""
        for name in (*RESULTS, *filter(None, [self._video])):
            (self.folder / name).unlink(missing_ok=True)
        _remove_frames(self.folder, self._stems)
        for folder in self._made:
            with suppress(OSError):  # something else is in it
                folder.rmdir()

    def _open(self, classes: tuple[str, ...]) -> None:
        made = [f for f in (self.folder, *self.folder.parents) if not f.exists()]
        while self._new:  # another run may have taken the name since
            with suppress(FileExistsError):
                self.folder.mkdir(parents=True)
                break
            self.folder = free_folder(FOLDER)
            made = [self.folder]
        self.folder.mkdir(parents=True, exist_ok=True)
        journal = self.folder / 'detections.jsonl'
        file = self._claim(journal)
        self.classes, self._made = classes, made  # from now on, `close` may remove what is there
        self._files[journal.name] = file
        earlier = _remove_earlier(self.folder) if self._overwrite else []
        file.truncate(0)
        # Only now, so that a killed run leaves a list of frames: without one, a folder with
        # pictures is not a result.
        for path in earlier:
            if path != journal:
                path.unlink()
        if 'csv' in self.formats:
            self._files['detections.csv'] = _create(self.folder / 'detections.csv')
            self._append('detections.csv', ','.join(COLUMNS) + '\n')
        if 'yolo' in self.formats:
            write_atomically(self.folder / 'classes.txt',
                             ''.join(f'{name}\n' for name in classes).encode())

    def _claim(self, journal: Path) -> TextIO:
        """Open and lock the journal; UserError if another run writes or wrote to the folder."""
        refused = UserError(f'Another run has begun to write to {self.folder}; choose another '
                            'output folder.', 'output')
        if not self._overwrite and any((self.folder / name).exists() for name in RESULTS[:3]):
            raise refused
        try:
            file = _create(journal, 'a' if self._overwrite else 'x')
        except FileExistsError:
            raise refused from None
        if in_use(file):
            file.close()
            raise refused
        return file

    def _count(self, name: str) -> None:
        self.made[name] = self.made.get(name, 0) + 1

    def _append(self, name: str, text: str) -> None:
        try:
            self._files[name].write(text)
            self._files[name].flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder / name)) from None

    def _write_video(self, source: Source, stamp_ns: int | None,
                     picture: NDArray[np.uint8]) -> None:
        """Append a frame to the source's video, for as long as it lasts by its stamp."""
        name = f'{source.name}.mp4'
        if self._video != name or self._write_frame is None:
            self._videos.close()
            self._video, self._start_ns, self._written = name, stamp_ns or 0, 0
            self._write_frame = self._videos.enter_context(
                open_video(self.folder / name, source.rate))
        seconds = 0.0 if stamp_ns is None else (stamp_ns - self._start_ns) / 1e9
        # Before a gap, the last frame stays for up to a second; every frame is written once.
        gap = round(seconds * source.rate) - self._written
        for _ in range(min(gap, math.ceil(source.rate))):
            self._write_frame(self._last)
            self._written += 1
        self._write_frame(picture)
        self._last = picture
        self._written += 1
        self._count(name)


def _remove_earlier(folder: Path) -> list[Path]:
    """Remove images and labels of an earlier run's frames; return the files that list them."""
    lists: list[Path] = []
    names: dict[str, None] = {}
    readers: dict[str, Callable[[Path], list[str]]] = {
        'json': lambda path: [image['file_name'] for image in read_json(path)['images']],
        'jsonl': lambda path: [line['file_name'] for line in _lines(path)],
        'csv': lambda path: [row['file_name'] for row in csv.DictReader(
            path.read_text(encoding='utf-8', errors='surrogateescape').splitlines())]}
    for end, read in readers.items():
        path = folder / f'detections.{end}'
        with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):  # none of ours
            names.update(dict.fromkeys(map(str, read(path))))
            lists.append(path)
    taken: set[str] = set()
    _remove_frames(folder, [free_stem(name, taken) for name in names])
    return lists


def _remove_frames(folder: Path, stems: Iterable[str]) -> None:
    """Remove the images and labels of frames, and the inner folders that are empty then."""
    for stem in stems:
        for place, end in (('labels', 'txt'), *((place, 'png') for place in DRAWN)):
            (folder / place / f'{stem}.{end}').unlink(missing_ok=True)
    for inner in (folder / 'labels', *(folder / name for name in DRAWN)):
        remove_leftovers(path for path in inner.rglob('.*.0.tmp') if path.is_dir())
        for path in (*sorted(inner.rglob('*'), reverse=True), inner):
            with suppress(OSError):  # it is a file, or not empty
                path.rmdir()


def _create(path: Path, mode: Literal['w', 'x', 'a'] = 'w') -> TextIO:
    return path.open(mode, encoding='utf-8', errors='surrogateescape', newline='')


def _rows(name: str, found: Detections, classes: tuple[str, ...]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator='\n').writerows(
        [name, classes[label], f'{score:.5f}', *(f'{v:.2f}' for v in box)]
        for box, score, label in zip(found.boxes, found.scores, found.labels))
    return text.getvalue()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of JSON lines, without an incomplete last one."""
    with path.open(encoding='utf-8') as file:
        for line in file:
            if line.endswith('\n'):
                yield json.loads(line)


def _coco(journal: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the COCO file of JSON lines, with a score for each box: a pre-label import."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    number: Callable[[str], int] = {name: i + 1 for i, name in enumerate(classes)}.__getitem__
    for image_id, line in enumerate(_lines(journal), 1):
        images.append({'id': image_id, **{k: line[k] for k in ('file_name', 'width', 'height')}})
        annotations += [
            {'id': len(annotations) + i, 'image_id': image_id, 'category_id': number(o['class']),
             'bbox': o['bbox'], 'area': o['area'], 'iscrowd': 0, 'segmentation': [],
             'score': o['score']} for i, o in enumerate(line['objects'], 1)]
    return {'images': images, 'annotations': annotations,
            'categories': [{'id': number(name), 'name': name} for name in classes]}
