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

"""ROS 2 bags (mcap and sqlite3) without ROS: write from COCO sets, read frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import fnmatch
import json
import os
from pathlib import Path
import shutil
from typing import Any

from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.errors import UserError
from cgdet_core.runtime.frames import read_thermal
from cgdet_core.runtime.image_message import view_message
from cgdet_core.runtime.normalization import Normalization, normalize
import numpy as np
from numpy.typing import NDArray
import yaml

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
TOPIC = '/image_raw'
START_NS = 1_700_000_000_000_000_000  # any date will do; a fixed one makes bags repeatable
MAPPING_KEY = 'cgdet_image_ids'  # custom data of the bag: stamp in ns -> COCO image id
SOURCE_KEY = 'cgdet_coco'  # custom data: name of the COCO file with these ids
BAG_SUFFIXES = ('.mcap', '.db3')  # of bags that are single files
# An 8-bit picture becomes 14-bit counts: what most uncooled cores deliver.
COUNTS_PER_LEVEL = 64


def _rosbags() -> Any:
    try:
        import rosbags.highlevel
        import rosbags.rosbag2
        import rosbags.typesys
    except ImportError:
        raise UserError('The rosbags module is missing; '
                        'install it with "pip install rosbags".') from None
    return rosbags


class NoTruth(UserError):
    """A bag and a COCO file that have no frame in common."""


@dataclass(frozen=True)
class BagFrame:
    """One raw frame of a bag with its header's stamp in nanoseconds."""

    stamp_ns: int
    frame: NDArray[Any]


def with_encoding(frame: NDArray[Any], encoding: str) -> NDArray[Any]:
    """Give a frame as mono8 or mono16 pixels; depth is reduced by a percentile stretch."""
    if encoding == 'mono16':
        return frame.astype(np.uint16) * COUNTS_PER_LEVEL if frame.dtype == np.uint8 else frame
    if frame.dtype == np.uint8:
        return frame
    return np.rint(normalize(frame, Normalization('percentile')) * 255).astype(np.uint8)


def write_bag(
    path: str | Path, frames: Iterator[tuple[NDArray[Any], int | None]], rate: float,
    encoding: str | None = None, storage: str = 'mcap', frame_id: str = 'thermal_camera',
    source: str = '',
) -> int:
    """
    Write frames with even stamps to a new bag and return their number.

    frames: (raw frame (H, W), COCO image id or None); rate in Hz; encoding mono8 or mono16,
    by default the frame's own depth; storage mcap or sqlite3; source the COCO file's name. The
    bag appears whole or not at all. UserError if it exists already or an option is not valid.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f'{path} exists already; choose another name or remove it.')
    if encoding not in (None, 'mono8', 'mono16'):
        raise UserError(f'The encoding {encoding!r} is not one of mono8, mono16.')
    if not rate > 0:
        raise UserError(f'The rate must be positive, not {rate}.')
    rosbags = _rosbags()
    plugins = {p.name.lower(): p for p in rosbags.rosbag2.StoragePlugin}
    if storage not in plugins:
        raise UserError(f'The storage {storage!r} is not one of {", ".join(plugins)}.')
    types = rosbags.typesys.get_typestore(rosbags.typesys.Stores.ROS2_JAZZY)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The storage file is named after its folder, so the bag is made in a folder of that name.
    work = path.parent / f'.{path.name}.{os.getpid()}.tmp'
    count, ids = 0, {}
    try:
        with rosbags.rosbag2.Writer(
                work / path.name, version=9, storage_plugin=plugins[storage]) as bag:
            connection = bag.add_connection(TOPIC, IMAGE_TYPE, typestore=types)
            for frame, image_id in frames:
                stamp = START_NS + round(count * 1e9 / rate)
                message = _image(types, with_encoding(frame, encoding) if encoding else frame,
                                 stamp, frame_id)
                bag.write(connection, stamp, types.serialize_cdr(message, IMAGE_TYPE))
                if image_id is not None:
                    ids[str(stamp)] = image_id
                count += 1
            bag.set_custom_data(MAPPING_KEY, json.dumps(ids))
            if source:
                bag.set_custom_data(SOURCE_KEY, source)
        if count == 0:
            raise UserError(f'No frame was found for {path}; no bag was written.')
        os.replace(work / path.name, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def _image(types: Any, frame: NDArray[Any], stamp: int, frame_id: str) -> Any:
    t = types.types
    frame = np.ascontiguousarray(frame)
    return t[IMAGE_TYPE](
        header=t['std_msgs/msg/Header'](
            stamp=t['builtin_interfaces/msg/Time'](
                sec=stamp // 10**9, nanosec=stamp % 10**9),
            frame_id=frame_id),
        height=frame.shape[0], width=frame.shape[1],
        encoding='mono8' if frame.dtype == np.uint8 else 'mono16', is_bigendian=0,
        step=frame.strides[0], data=frame.view(np.uint8).ravel())


def coco_frames(coco: CocoSet, match: str = '*') -> Iterator[tuple[NDArray[Any], int | None]]:
    """Read the frames of a set whose file name fits the shell pattern `match`, in order."""
    for record in coco.images:
        if fnmatch.fnmatch(record.path.name, match):
            yield read_thermal(record.path), record.image_id


@contextmanager
def open_bag(path: str | Path) -> Iterator[Any]:
    """Open a bag for reading as rosbags' AnyReader; UserError if it is none."""
    path = Path(path)
    if not path.exists():
        raise UserError(f'The bag {path} does not exist.')
    rosbags = _rosbags()
    types = rosbags.typesys.get_typestore(rosbags.typesys.Stores.ROS2_JAZZY)
    try:
        reader = rosbags.highlevel.AnyReader([path], default_typestore=types)
        reader.open()
    except Exception as error:  # rosbags' readers raise their own and the storages' errors
        raise UserError(f'{path} is not a ROS 2 bag that can be read: {error}') from None
    try:
        yield reader
    finally:
        reader.close()


def distinct_topics(reader: Any) -> set[str]:
    """Give the image topics but for compressed ones beside their raw one: the same images."""
    images = {c.topic: c.msgtype for c in reader.connections
              if c.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE)}
    return {topic for topic, kind in images.items() if kind == IMAGE_TYPE
            or images.get(topic.rpartition('/')[0]) != IMAGE_TYPE}


def image_connections(reader: Any, path: str | Path, topic: str | None = None) -> list[Any]:
    """
    Find the connections of the thermal images' topic, raw or compressed, by default the only one.

    UserError where there is none or a choice.
    """
    wanted = distinct_topics(reader) if topic is None else {topic}
    found = [c for c in reader.connections
             if c.topic in wanted and c.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE)]
    topics = sorted({c.topic for c in found})
    if len(topics) != 1:
        has = ', '.join(topics) or 'none'
        raise UserError(f'{path} must have one image topic to read, found: {has}'
                        + ('; choose one with --topic.' if topics else '.'))
    return found


def is_compressed(path: str | Path, topic: str | None = None) -> bool:
    """Tell whether a bag's thermal images are CompressedImage messages."""
    with open_bag(path) as reader:
        return bool(image_connections(reader, path, topic)[0].msgtype == COMPRESSED_TYPE)


def read_frames(path: str | Path, topic: str | None = None) -> Iterator[BagFrame]:
    """
    Read the raw frames of a bag in the order of recording.

    topic: the image topic, raw or compressed, needed where there are several. UserError names a
    message that is no valid thermal image.
    """
    with open_bag(path) as reader:
        connections = image_connections(reader, path, topic)
        messages = enumerate(reader.messages(connections))
        while True:
            number: int | str = 'next'
            try:
                number, (connection, _, raw) = next(messages)
                message = reader.deserialize(raw, connection.msgtype)
                frame = view_message(message)
            except StopIteration:
                return
            except Exception as error:  # damaged files raise the storages' own errors
                raise UserError(f'{path}, image {number}: {error}.') from None
            stamp = message.header.stamp
            yield BagFrame(stamp.sec * 10**9 + stamp.nanosec, frame)


def bag_name(path: str | Path) -> str:
    """Give a bag's name, that of its folder or of its single file."""
    path = Path(path)
    return path.stem if path.suffix in BAG_SUFFIXES else path.name


def custom_data(path: str | Path) -> dict[str, str]:
    """Give what the writer of a bag left in its metadata."""
    metadata = Path(path) / 'metadata.yaml'
    if not metadata.is_file():
        return {}
    information = yaml.safe_load(metadata.read_text(encoding='utf-8'))
    return information['rosbag2_bagfile_information'].get('custom_data') or {}


def truth_by_stamp(path: str | Path, coco: CocoSet) -> dict[int, ImageRecord]:
    """
    Find the annotated record of each stamp of a bag.

    From the bag's own table (bags of "cgdet bag from-coco"), or the records' `stamp_ns`, where
    records with the bag's name come before those of other bags, whose clock may be the same.
    NoTruth if there is none.
    """
    with open_bag(path):
        pass  # says what is wrong with a path that is no bag
    table = json.loads(custom_data(path).get(MAPPING_KEY, '{}'))
    by_id = {r.image_id: r for r in coco.images}
    found = {int(stamp): by_id[i] for stamp, i in table.items() if i in by_id}
    stamped = [r for r in coco.images if r.stamp_ns is not None]
    stamped = [r for r in stamped if r.bag == bag_name(path)] or stamped
    found |= {r.stamp_ns: r for r in stamped if r.stamp_ns is not None}
    if not found:
        raise NoTruth(f'No frame of {path} can be matched to {coco.path}: make the bag with '
                        '"cgdet bag from-coco" or give each image record its "stamp_ns".')
    return found
