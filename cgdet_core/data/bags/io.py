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

"""ROS 2 bags (mcap and sqlite3) without ROS: write frames, and read them."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, ExitStack
from heapq import merge
import json
from math import inf
from operator import itemgetter
import os
from pathlib import Path, PurePath
import re
import struct
from types import SimpleNamespace
from typing import Any, TYPE_CHECKING

from cgdet_core.data.bags.storage import (
    message_of,
    prepare_rosbags,
    problem,
    readable,
    URI,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_new, temporary_for
from cgdet_core.runtime.imaging.frames import bag_suffix, BAG_SUFFIXES, ZSTD
from cgdet_core.runtime.imaging.message import stamp_of, view_image, view_pixels
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cgdet_core.data.sources import Frame

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
TOPIC = '/image_raw'
START_NS = 1_700_000_000_000_000_000  # any date; a fixed one makes bags repeatable
LAST_NS = 2**31 * 10**9  # after all stamps, whose seconds are of 32 bits
MAPPING_KEY = 'cgdet_image_ids'  # custom data of the bag: stamp in ns -> COCO image id
SOURCE_KEY = 'cgdet_image_list'  # custom data: fingerprint of the COCO set, as ids are not unique
# The pictures of our node, also as image_transport publishes them again.
DRAWN = re.compile(r'(.*/)?debug_image(/(compressed|compressedDepth|theora|ffmpeg|zstd))?')
# Converts 8-bit images to 14-bit counts, as most uncooled cores deliver.
COUNTS_PER_LEVEL = 64
ENCODING_OF = {'uint8': 'mono8', 'uint16': 'mono16', 'float32': '32FC1'}
# Other encodings of color cameras -> bytes per pixel and conversion to BGR.
CAMERA_ENCODINGS = {
    'yuv422': (2, cv2.COLOR_YUV2BGR_UYVY), 'uyvy': (2, cv2.COLOR_YUV2BGR_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2BGR_YUY2), 'yuyv': (2, cv2.COLOR_YUV2BGR_YUY2),
    # OpenCV names a Bayer pattern by its second row and column, ROS by its first.
    'bayer_rggb8': (1, cv2.COLOR_BayerBG2BGR), 'bayer_bggr8': (1, cv2.COLOR_BayerRG2BGR),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGR2BGR), 'bayer_grbg8': (1, cv2.COLOR_BayerGB2BGR)}


def _rosbags() -> Any:
    try:
        import rosbags.highlevel
        import rosbags.rosbag2
        import rosbags.typesys
    except ImportError:
        raise UserError('The rosbags module is missing; '
                        'install it with "pip install rosbags".') from None
    return rosbags


def with_encoding(frame: NDArray[Any], encoding: str) -> NDArray[Any]:
    """Return a frame as mono8 or mono16 pixels; the depth is reduced by a percentile stretch."""
    if encoding == 'mono16':
        return frame.astype(np.uint16) * COUNTS_PER_LEVEL if frame.dtype == np.uint8 else frame
    if frame.dtype == np.uint8:
        return frame
    return np.rint(normalize(frame, Normalization('percentile')) * 255).astype(np.uint8)


def write_bag(
    path: str | Path, frames: 'Iterable[Frame]', rate: float, encoding: str | None = None,
    storage: str = 'mcap', source: str = '',
    unreadable: Callable[[UserError], None] | None = None,
) -> int:
    """
    Write frames with evenly spaced stamps to a new bag and return their number.

    rate: in Hz. encoding: mono8 or mono16, by default the frame's own type. storage: mcap or
    sqlite3. source: the fingerprint of the COCO set. unreadable: called for each frame that cannot
    be read, whose time is left empty; without it the first one is an error. The bag is written
    completely or not at all. UserError if it already exists, an option is not valid, or no frame
    can be read.
    """
    path = Path(path)
    check_new(path)
    if encoding not in (None, 'mono8', 'mono16'):
        raise UserError(f'The encoding {encoding!r} is not one of mono8, mono16.')
    if not 0 < rate < inf:
        raise UserError(f'The rate must be positive and finite, not {rate}.', 'rate')
    if rate > 1e9:
        raise UserError(f'The rate must be at most 1e9, as stamps are in nanoseconds, not {rate}.',
                        'rate')
    rosbags = _rosbags()
    plugins = {p.name.lower(): p for p in rosbags.rosbag2.StoragePlugin}
    if storage not in plugins:
        raise UserError(f'The storage {storage!r} is not one of {", ".join(plugins)}.')
    if storage == 'sqlite3' and URI.search(str(path)):
        raise UserError(f'{path} cannot be written as an SQLite file, because of ?, #, % or '
                        'bytes that are not UTF-8 in it; choose another name or mcap.', 'storage')
    types = _types()
    count, number, ids = 0, -1, {}
    # The storage file is named after its folder, and "ros2 bag reindex" requires the number.
    with temporary_for(path) as work:
        folder = work / f'{path.name}_0'
        with rosbags.rosbag2.Writer(
                folder, version=9, storage_plugin=plugins[storage]) as bag:
            connection = bag.add_connection(TOPIC, IMAGE_TYPE, typestore=types)
            for number, frame in enumerate(frames):
                stamp = START_NS + round(number * 1e9 / rate)
                if stamp >= LAST_NS:
                    raise UserError(f'At the rate {rate:g} the stamp of frame {number} is later '
                                    'than any of ROS 2; choose a higher one.', 'rate')
                try:
                    pixels = with_encoding(frame.pixels, encoding) if encoding else frame.pixels
                except UserError as error:
                    if unreadable is None:
                        raise
                    unreadable(error)
                    continue
                message = _image(types.types, np.ascontiguousarray(pixels), stamp)
                bag.write(connection, stamp, types.serialize_cdr(message, IMAGE_TYPE))
                if frame.truth is not None:
                    ids[str(stamp)] = frame.truth.image_id
                count += 1
            bag.set_custom_data(MAPPING_KEY, json.dumps(ids))
            if source:
                bag.set_custom_data(SOURCE_KEY, source)
        if count == 0:
            raise UserError(f'No frame for {path} could be read; no bag was written.'
                            if number >= 0 else
                            f'There are no frames for {path}; no bag was written.')
        os.replace(folder, path)
    return count


def _image(types: dict[str, Any], frame: NDArray[Any], stamp: int) -> Any:
    time = types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return types[IMAGE_TYPE](
        header=types['std_msgs/msg/Header'](stamp=time, frame_id='thermal_camera'),
        height=frame.shape[0], width=frame.shape[1],
        encoding=ENCODING_OF[frame.dtype.name], is_bigendian=0,
        step=frame.strides[0], data=frame.view(np.uint8).ravel())


class Bag:
    """
    The files of a bag as one; UserError if a message cannot be read.

    Messages are read by the standard definitions: those in a bag may be incomplete, or damaged, or
    of topics that are not read. readers: rosbags' of each file. path and place: see `problem`.
    """

    def __init__(self, readers: list[Any], path: Path, place: Path) -> None:
        self.typestore = _types()
        self.path = path
        self._readers, self._place = readers, place
        self.connections: list[Any] = [c for reader in readers for c in reader.connections]
        full = [reader for reader in readers if reader.message_count]
        self.duration = max((r.end_time for r in full), default=0) - min(
            (r.start_time for r in full), default=0)  # in nanoseconds

    def messages(
        self, connections: Collection[Any] | None = None,
    ) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, recorder's time and data of the messages, by time; None: of all."""
        chosen = self.connections if connections is None else connections
        mine = [(r, [c for c in chosen if c.owner is r.storage]) for r in self._readers]
        try:
            for connection, received, raw in merge(
                    *(_in_time(reader, own) for reader, own in mine if own), key=itemgetter(1)):
                if connection is not None:
                    yield connection, received, message_of(raw)
        except Exception as error:
            raise problem(self.path, error, self._place) from None

    def deserialize(self, raw: bytes, kind: str) -> Any:
        """Return a message; an error of rosbags if it is damaged."""
        return self.typestore.deserialize_cdr(raw, kind)


def _in_time(reader: Any, connections: list[Any]) -> Iterator[tuple[Any, int, bytes]]:
    """Yield no connection at the start of a file, so that `merge` reads no message before."""
    # What a damaged summary counts or starts with may be wrong; rosbags goes by the chunks.
    yield None, min([reader.start_time if reader.message_count else 0, *(
        chunk.message_start_time for chunk in getattr(reader.storage, 'chunks', []))]), b''
    yield from reader.messages(connections)


def _types() -> Any:
    rosbags = _rosbags()
    return rosbags.typesys.get_typestore(rosbags.typesys.Stores.ROS2_JAZZY)


@contextmanager
def open_bag(path: str | Path) -> Iterator[Bag]:
    """Open a bag; UserError if it cannot be read."""
    path, rosbags = Path(path), _rosbags()
    prepare_rosbags()
    with ExitStack() as stack:
        place = path
        try:
            place, files = stack.enter_context(readable(path))
            readers = [stack.enter_context(rosbags.rosbag2.Reader(file)) for file in files]
        except UserError:
            raise
        except Exception as error:  # rosbags raises its own errors and those of the storages
            raise problem(path, error, place) from None
        yield Bag(readers, path, place)


def image_connections(
    reader: Any, path: str | Path, topic: str | None = None, other: str | None = None,
    field: str = 'topic',
) -> list[Any]:
    """
    Return the connections of an image topic, raw or compressed, by default the only one.

    A topic with compressed messages only may be named as in image_transport, without
    `/compressed`. other: a topic to exclude. The compressed topic of a raw one has the same
    images and is not counted as another choice, unless the raw one has none; neither are the
    pictures that our node draws, nor topics without messages. UserError lists the topics with
    their numbers of messages; `field` is the parameter that selects one.
    """
    images = [c for c in reader.connections
              if c.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE) and is_ros2(c)]
    counts: Counter[str] = Counter()
    for connection in images:
        counts[connection.topic] += connection.msgcount
    topic, other = (small if t is not None and (small := f'{t}/compressed') in counts and (
        t not in counts or counts[small] and not counts[t]) else t for t in (topic, other))
    raw = {c.topic for c in images if c.msgtype == IMAGE_TYPE}
    copies = {t for t in counts if t not in raw and (of := t.rpartition('/')[0]) in raw
              and (counts[of] or not counts[t])}
    choice = [topic] if topic is not None else [
        t for t in counts if t not in (other, *copies) and not DRAWN.fullmatch(t)]
    if topic is None and any(counts[t] for t in choice):
        choice = [t for t in choice if counts[t]]
    if len(choice) == 1 and choice[0] in counts:  # whatever a file counts
        return [c for c in images if c.topic == choice[0]]
    wrong = f'no images on {topic}' if topic is not None else (
        'several image topics' if len(choice) > 1 else 'no images of a camera')
    if not counts:
        others = {c.ext.serialization_format for c in reader.connections if not is_ros2(c)}
        raise UserError(f'{path} has {wrong}: it has no image topic' + (
            f' of ROS 2; its messages are serialized as {", ".join(sorted(others))}, convert them '
            'to cdr.' if others else '.'))
    listed = ', '.join(f'{t} ({n})' for t, n in sorted(counts.items()))
    raise UserError(f'{path} has {wrong}; its image topics with their numbers of messages: '
                    f'{listed}; choose one.', field)


def is_ros2(connection: Any) -> bool:
    """Return whether the messages of a connection are serialized as those of ROS 2."""
    return connection.ext.serialization_format in ('cdr', '')


def topic_messages(reader: Bag, topic: str, kind: str) -> Iterator[Any]:
    """Yield each message of a topic of a type; UserError if one is damaged."""
    connections = [c for c in reader.connections if c.topic == topic and c.msgtype == kind]
    for _, _, raw in reader.messages(connections):
        try:
            yield reader.deserialize(raw, kind)
        except Exception as error:  # of rosbags, or whatever damaged bytes lead to
            raise UserError(f'{reader.path}: a message of {topic} is damaged '
                            f'({error or type(error).__name__}).') from None


def image_messages(
    reader: Any, path: str | Path, topic: str | None = None,
) -> Iterator[tuple[int, int, Any]]:
    """
    Yield the recorder's time, the stamp, and the message of each image, see `image_connections`.

    Times in nanoseconds. In place of a damaged message, a ValueError that states why.
    """
    for connection, received, raw in reader.messages(image_connections(reader, path, topic)):
        message: Any
        try:
            message = reader.deserialize(raw, connection.msgtype)
            stamp = stamp_of(message.header)
        except Exception as error:  # of rosbags, or whatever damaged bytes lead to
            message = ValueError(f'the message is damaged ({error or type(error).__name__})')
            stamp = received
            if len(raw) >= 12:  # of CDR: its kind in 4 bytes, then the header's stamp
                seconds, nanoseconds = struct.unpack_from('<iI' if raw[1] else '>iI', raw, 4)
                stamp = seconds * 10**9 + nanoseconds
        yield received, stamp, message


def whole(message: Any) -> Any:
    """Return a message of `image_messages`; ValueError states why it is damaged."""
    if isinstance(message, ValueError):
        raise message
    return message


def color_picture(message: Any) -> NDArray[np.uint8]:
    """Return BGR (H, W, 3) of an Image or CompressedImage; ValueError states why it cannot."""
    encoding = getattr(message, 'encoding', '')
    if encoding not in CAMERA_ENCODINGS:
        pixels = view_pixels(message)
        if pixels.dtype != np.uint8:
            raise ValueError(f'a color image must be 8-bit, but this one is {pixels.dtype}')
        return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    size, conversion = CAMERA_ENCODINGS[encoding]
    gray = np.ascontiguousarray(view_image(SimpleNamespace(
        height=message.height, width=message.width * size, encoding='mono8', is_bigendian=0,
        step=message.step, data=message.data)))
    return cv2.cvtColor(gray.reshape(message.height, message.width, size), conversion)


def is_compressed(path: str | Path, topic: str | None = None) -> bool:
    """Return whether a bag's thermal images are CompressedImage messages."""
    with open_bag(path) as reader:
        return bool(image_connections(reader, path, topic)[0].msgtype == COMPRESSED_TYPE)


def bag_name(path: str | Path) -> str:
    """Return the name of a bag: that of its folder or single file."""
    path = Path(os.path.abspath(path))  # "." has no name
    return PurePath(path.name.removesuffix(ZSTD)).stem if bag_suffix(
        path) in BAG_SUFFIXES else path.name
