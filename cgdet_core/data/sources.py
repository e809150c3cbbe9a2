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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import fnmatch
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.io import image_connections, open_bag, stamp_of
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging import frames
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.imaging.message import view_message
import cv2
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """
    A raw frame of any source; reading its pixels fails only if they are used.

    name: a file name for it. read: returns (H, W), or (H, W, 3) RGB of an RGB set. where: its
    origin, for errors. stamp_ns: of a bag's image header. truth: the record in a COCO set.
    """

    name: str
    read: Callable[[], NDArray[Any]]
    where: str = ''
    stamp_ns: int | None = None
    truth: ImageRecord | None = None

    @cached_property
    def pixels(self) -> NDArray[Any]:
        """The raw pixels; UserError names the frame that cannot be read."""
        try:
            return self.read()
        except UserError:
            raise
        except ValueError as error:
            raise self.error(error) from None

    def error(self, reason: Exception) -> UserError:
        """Return a UserError that names this frame."""
        return UserError(f'{self.where or self.name}: {reason}.')


def read_frames(
    path: str | Path, images: str | Path | None = None, classes: tuple[str, ...] | None = None,
    channels: int = 1,
) -> Iterator[Frame]:
    """Yield the frames of an image, a folder, a video, a bag, or a COCO file (see `load_coco`)."""
    path = Path(path)
    if path.suffix.lower() == '.json':
        yield from coco_frames(load_coco(path, images, classes, channels), channels=channels)
    elif not path.exists():
        raise UserError(f'The source {path} does not exist.')
    elif path.suffix.lower() in frames.VIDEO_SUFFIXES:
        yield from _video_frames(path)
    elif frames.is_bag(path) or frames.lacks_metadata(path):
        yield from bag_frames(path)
    elif path.is_dir():
        pictures = sorted(p for p in path.rglob('*') if p.suffix.lower() in frames.IMAGE_SUFFIXES)
        if not pictures:
            raise UserError(f'The folder {path} has no images '
                            f'({", ".join(frames.IMAGE_SUFFIXES)}) and is not a bag.')
        for picture in pictures:
            yield Frame(picture.relative_to(path).as_posix(), partial(read_thermal, picture),
                        str(picture))
    else:
        yield Frame(path.name, partial(read_thermal, path), str(path))


def _video_frames(path: Path) -> Iterator[Frame]:
    capture = cv2.VideoCapture(str(path))
    number = 0
    try:
        while (found := capture.read())[0]:
            yield Frame(f'{path.stem}_{number:06d}.png', partial(frames.to_gray, found[1]),
                        f'{path}, frame {number}')
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise UserError(f'{path} is not a video that OpenCV can read.')


def bag_frames(path: str | Path, topic: str | None = None) -> Iterator[Frame]:
    """
    Yield the images of a bag in order; UserError names a message that cannot be read.

    topic: the image topic, raw or compressed, required if there are several.
    """
    path = Path(path)
    with open_bag(path) as reader:
        connections = image_connections(reader, path, topic)
        messages = enumerate(reader.messages(connections))
        while True:
            number: int | str = 'next'
            try:
                number, (connection, _, raw) = next(messages)
                message = reader.deserialize(raw, connection.msgtype)
            except StopIteration:
                return
            except Exception as error:  # damaged files raise errors of the storage plugins
                raise UserError(f'{path}, image {number}: {error}.') from None
            stamp = stamp_of(message)
            yield Frame(f'{path.stem}_{stamp}.png', partial(view_message, message),
                        f'{path}, image {number}', stamp)


def coco_frames(coco: CocoSet, match: str = '*', channels: int = 1) -> Iterator[Frame]:
    """Return the frames of a set whose file name matches the shell pattern `match`, in order."""
    return (Frame(record.path.name, partial(frames.read_frame, record.path, channels),
                  str(record.path), record.stamp_ns, record)
            for record in coco.images if fnmatch.fnmatch(record.path.name, match))
