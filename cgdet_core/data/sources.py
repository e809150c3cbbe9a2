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

"""Frames of image files, folders, videos, bags and COCO sets."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
import fnmatch
from functools import cached_property, partial
import logging
import os
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.io import bag_name, image_connections, image_messages, open_bag, whole
from cgdet_core.data.capture import images, open_capture, why_no_video
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import file_kind
from cgdet_core.runtime.imaging import frames
from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.decoding import format_of
from cgdet_core.runtime.imaging.message import view_pixels
from cgdet_core.runtime.imaging.signal import CARD, POLARITIES, seen
import cv2
import numpy as np
from numpy.typing import NDArray

MODEL_SUFFIXES = ('.onnx', '.ckpt', '.pt', '.pth', '.engine')
RATE = 25.0  # of a sequence that does not state its own, in Hz
# What `cgdet detect` writes into its output folder.
RESULTS = ('detections.json', 'detections.jsonl', 'detections.csv', 'classes.txt')
DRAWN = ('pictures', 'normalized')  # folders of images
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """
    A raw frame of any source; reading its pixels fails only if they are used.

    name: a file name for it. read: returns (H, W), or (H, W, 3) RGB of an RGB set. where: its
    origin, for errors. stamp_ns: of a bag's image header or of a stream's arrival. truth: the
    record in a COCO set. received_ns: when a bag's recorder received it.
    """

    name: str
    read: Callable[[], NDArray[Any]]
    where: str = ''
    stamp_ns: int | None = None
    truth: ImageRecord | None = None
    received_ns: int | None = None

    @cached_property
    def pixels(self) -> NDArray[Any]:
        """The raw pixels; UserError names the frame that cannot be read."""
        try:
            return self.read()
        except ValueError as error:
            raise self.error(error) from None

    def seen(self, unit: str, polarity: str, expected: str) -> 'Frame':
        """
        Return the thermal frame as a model sees it, see `signal.seen`.

        What a COCO set states of it counts where unit and polarity are not known.
        """
        if self.truth is None:
            return replace(self, read=lambda: seen(
                fill_dead_pixels(self.read())[0], unit, polarity, expected))
        record = replace(self.truth, unit=self.truth.unit if unit == CARD else unit,
                         polarity=polarity or self.truth.polarity)
        return replace(self, read=partial(record.read, 1, expected))

    def error(self, reason: Exception) -> UserError:
        """Return a UserError that names this frame; one that was raised for it stays as it is."""
        return reason if isinstance(reason, UserError) else UserError(
            f'{self.where or self.name}: {reason}.')


class Colors:
    """Convert frames to gray and remember the first one that was in color, such as a photo."""

    def __init__(self) -> None:
        self.found = ''

    def gray(self, pixels: NDArray[Any], where: str) -> NDArray[Any]:
        """Return gray (H, W) from gray or BGR (H, W, C)."""
        if not self.found and pixels.ndim == 3 and in_color(pixels):
            self.found = where
        return frames.to_gray(pixels)


def in_color(pixels: NDArray[Any]) -> bool:
    """Return whether 8- or 16-bit BGR (H, W, C) is in color, not gray with a codec's tint."""
    spread = np.ptp(pixels[::4, ::4, :3], axis=2)
    return bool(np.percentile(spread, 99) > 0.05 * np.iinfo(pixels.dtype).max)


@dataclass(frozen=True)
class Source:
    """
    Frames that belong together, checked as far as that is possible without reading them all.

    frames: to be read once. where: its origin, for messages. total: the number of frames, if it
    is known. name: of a sequence, without suffix. rate: of a sequence, in Hz; 0 for images.
    names: those of the frames, if they are known. files: what is read, as far as it is files.
    colors: of the frames read so far.
    """

    frames: Iterator[Frame]
    where: str
    total: int | None = None
    name: str = ''
    rate: float = 0.0
    names: Sequence[str] = ()
    files: Sequence[Path] = ()
    colors: Colors = field(default_factory=Colors)


def read_frames(
    path: str | Path, images: str | Path | None = None, classes: tuple[str, ...] | None = None,
    channels: int = 1, topic: str | None = None, polarity: str = POLARITIES[0],
) -> Iterator[Frame]:
    """
    Yield the frames of an image, a folder, a video, a bag, or a COCO file (see `load_coco`).

    topic: see `bag_frames`. polarity: of a COCO file, see `ImageRecord.read`.
    """
    path = Path(path)
    if path.suffix.lower() == '.json' and not path.is_dir():
        found = coco_frames(load_coco(path, images, classes, channels), '*', channels, polarity)
    else:
        found = open_path(path, topic).frames
    warn_of_topic(topic, [path])
    yield from found


def warn_of_topic(topic: str | None, sources: Iterable[str | Path]) -> None:
    """Log the first source that a topic says nothing about, as it is not a bag."""
    other = None if topic is None else next(
        (path for path in sources if not names_bag(Path(path))), None)
    if other is not None:
        _log.warning('%s is not a bag, so the topic %s does not apply to it.', other, topic)


def names_bag(path: Path) -> bool:
    """Return whether a path is that of a bag, also of ROS 1 or without metadata."""
    return (path.suffix.lower() == '.bag' and not path.is_dir() or frames.is_bag(path)
            or frames.lacks_metadata(path))


def open_path(path: Path, topic: str | None = None, name: str = '') -> Source:
    """
    Return the frames of an image, a folder, a video, a bag or a COCO file; UserError if not.

    topic: see `bag_frames`. name: of a sequence, by default the file's without suffix.
    """
    suffix = '' if path.is_dir() else path.suffix.lower()
    if not path.exists():
        raise UserError(f'The source {path} does not exist.')
    if suffix == '.json':
        if path.with_suffix('.onnx').is_file():
            raise UserError(f'{path} is the card of a model, not a source of frames; name '
                            f'{path.with_suffix(".onnx")} as the model.')
        coco = load_coco(path)
        return Source(coco_frames(coco), str(path), len(coco.images),
                      names=[_name(record) for record in coco.images],
                      files=[path, *(record.path for record in coco.images)])
    if suffix in MODEL_SUFFIXES:
        raise UserError(f'{path} is a model, not a source of frames; a model comes before the '
                        'sources.')
    if suffix in frames.VIDEO_SUFFIXES:
        return _open_video(path, name or path.stem)
    if names_bag(path):
        return _open_bag(path, topic, name)
    if path.is_dir():
        found, videos = _images_below(path), frames.files_below(path, frames.VIDEO_SUFFIXES)
        if not found:
            drawn = any(map(frames.is_drawn, path.rglob('*.png')))
            raise UserError(f'The folder {path} has no images '
                            f'({", ".join(frames.IMAGE_SUFFIXES)}) and is not a bag'
                            + ', but pictures that cgdet drew' * drawn
                            + (f'; name its videos, such as {videos[0]}.' if videos else '.'))
        if videos:
            _log.warning('%s: only the images are read; name its videos, such as %s.', path,
                         videos[0])
        return pictures(found, path)
    if suffix not in frames.IMAGE_SUFFIXES and path.is_file() and not _is_image(path):
        kind = file_kind(path)
        if kind.startswith('a ROS 2 bag'):
            suffix = '.db3' if 'SQLite' in kind else '.mcap'
            raise UserError(f'{path} seems to be {kind}; rename a bag to '
                            f'{path.with_suffix(suffix).name}, or name the folder that has its '
                            'metadata.yaml.')
        raise UserError(
            f'{path} is no source of frames' + (f', it seems to be {kind}' if kind else '')
            + f'; convert it to images ({", ".join(frames.IMAGE_SUFFIXES)}; 16-bit PNG or TIFF '
            f'keep the counts), a video ({", ".join(frames.VIDEO_SUFFIXES)}) or a ROS 2 bag.')
    return pictures([path])


def _is_image(path: Path) -> bool:
    with path.open('rb') as file:
        return bool(format_of(file.read(8)))


def pictures(paths: Sequence[Path], folder: Path | None = None) -> Source:
    """
    Return image files, named relative to a folder, by default the one that contains all.

    Each page of a TIFF is a frame.
    """
    colors = Colors()
    places = [Path(os.path.abspath(path)) for path in paths]
    root = os.path.abspath(folder) if folder else os.path.commonpath([p.parent for p in places])
    found: list[Frame] = []
    for place, path in zip(places, paths):
        name, pages = place.relative_to(root), frames.find_pages(path)
        found += [Frame(name.as_posix(), partial(_read_picture, path, colors), str(path))] if (
            len(pages) <= 1) else [
            Frame(name.with_stem(f'{name.stem}_{number:06d}').as_posix(),
                  partial(_read_picture, path, colors, page), f'{path}, page {number}')
            for number, page in enumerate(pages)]
    # Copies of the frames, as they keep their pixels.
    return Source(map(replace, found), str(folder or paths[0]), len(found),
                  names=[frame.name for frame in found], files=paths, colors=colors)


def _images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and below, without those that `cgdet detect` wrote."""
    found = frames.files_below(folder, frames.IMAGE_SUFFIXES)
    above = {part for path in found for part in path.relative_to(folder).parents}
    written = {folder / part for part in above if part.name in DRAWN and any(
        (folder / part.parent / name).is_file() for name in RESULTS)}
    for place in sorted(written):
        _log.info('%s is left out: its images are results of "cgdet detect".', place)
    return [path for path in found if written.isdisjoint(path.parents)]


def _read_picture(path: Path, colors: Colors, page: int | None = None) -> NDArray[Any]:
    return colors.gray(frames.read_image(path, page), str(path))


def _open_video(path: Path, name: str) -> Source:
    capture = open_capture(path, str(path))
    try:
        if not capture.isOpened():
            raise UserError(f'{path} is not a video that OpenCV can read{why_no_video(path)}.')
        if not capture.grab():
            raise UserError(f'The video {path} has no frames that OpenCV can read.')
        total, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    colors = Colors()
    return Source(_video_frames(path, name, colors), str(path), int(total) if total > 0 else None,
                  name, rate if 0 < rate <= 1000 else RATE, files=[path], colors=colors)


def _video_frames(path: Path, name: str, colors: Colors) -> Iterator[Frame]:
    for number, image in enumerate(images(open_capture(path, ''), str(path))):
        where = f'{path}, frame {number}'
        yield Frame(f'{name}_{number:06d}.png', partial(colors.gray, image, where), where)


def _open_bag(path: Path, topic: str | None, name: str) -> Source:
    with open_bag(path) as reader:
        total = sum(c.msgcount for c in image_connections(reader, path, topic))
        seconds = reader.duration / 1e9
    name = name or bag_name(path)
    rate = (total - 1) / seconds if total > 1 and seconds > 0 else 0.0
    colors = Colors()
    return Source(bag_frames(path, topic, name, colors), str(path), total or None, name,
                  rate if 1 <= rate <= 1000 else RATE, files=[path], colors=colors)


def bag_frames(path: str | Path, topic: str | None = None, name: str = '',
               colors: Colors | None = None) -> Iterator[Frame]:
    """
    Yield the images of a bag in order; UserError if the rest of the bag is damaged.

    Their names contain their stamps, and a number from the second with the same one on. A message
    that is damaged is a frame that cannot be read, with the time of its recording.
    topic: the image topic, raw or compressed, required if there are several. name: the start of
    the frames' names, by default the bag's. colors: remembers images in color.
    """
    path, colors = Path(path), colors or Colors()
    with open_bag(path) as reader:
        stamps = Counter[int]()
        for number, (received, stamp, message) in enumerate(
                image_messages(reader, path, topic)):
            where = f'{path}, image {number}'
            stamps[stamp] += 1
            again = f'_{stamps[stamp]}' if stamps[stamp] > 1 else ''
            yield Frame(f'{name or bag_name(path)}_{stamp}{again}.png',
                        partial(_read_message, message, where, colors), where, stamp,
                        received_ns=received)


def _read_message(message: Any, where: str, colors: Colors) -> NDArray[Any]:
    return colors.gray(view_pixels(whole(message)), where)


def coco_frames(
    coco: CocoSet, match: str = '*', channels: int = 1, polarity: str = POLARITIES[0],
) -> Iterator[Frame]:
    """
    Return the frames of a set whose file name matches the shell pattern `match`, in order.

    channels, polarity: see `ImageRecord.read`.
    """
    return (Frame(_name(record), partial(record.read, channels, polarity),
                  str(record.path), record.stamp_ns, record)
            for record in coco.images if fnmatch.fnmatch(record.path.name, match))


def viewed(source: Source, unit: str, polarity: str, expected: str) -> Source:
    """Return a source of a unit and polarity as a model sees it, see `signal.seen`."""
    return replace(source, frames=(
        frame.seen(unit, polarity, expected) for frame in source.frames))


def _name(record: ImageRecord) -> str:
    return record.file_name or record.path.name
