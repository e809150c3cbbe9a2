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

"""A bag of a thermal and an RGB camera, as recorded from drivers."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

THERMAL, RGB = '/thermal/image_raw', '/rgb/image_raw'
START = 1_750_000_000_000_000_000
PERIOD = 100_000_000  # ns


def write_two_cameras(
    path: Path, thermal: dict[int, np.ndarray], rgb: dict[int, np.ndarray],
    compressed: tuple[str, str] = ('', ''), cameras: dict[str, dict[str, Any]] | None = None,
    pose: tuple[np.ndarray, np.ndarray] | None = None, clock_ns: int = 0,
) -> Path:
    """
    Write frames by stamp; thermal (H, W), RGB (H, W, 3) BGR or (H, W, 2) YUV.

    compressed: formats such as .png and .jpg of thermal and RGB, '' for raw ones. cameras:
    fields of the CameraInfo of each image topic. pose: quaternion x, y, z, w and translation of
    the RGB camera in the thermal camera's frame, through a common mount. clock_ns: offset of the
    RGB stamps ahead of the recorder's time.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import get_typestore, Stores

    store = get_typestore(Stores.ROS2_JAZZY)
    t = store.types

    def header(stamp: int, topic: str) -> Any:
        time = t['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
        return t['std_msgs/msg/Header'](stamp=time, frame_id=topic.split('/')[1] + '_optical')

    def image(stamp: int, topic: str, frame: np.ndarray, form: str) -> Any:
        if form:
            data = cv2.imencode(form, frame)[1].ravel()
            return t['sensor_msgs/msg/CompressedImage'](
                header=header(stamp, topic), format=form[1:], data=data)
        gray = {np.uint8: 'mono8', np.uint16: 'mono16', np.float32: '32FC1'}
        kind = gray[frame.dtype.type] if frame.ndim == 2 else {2: 'yuv422', 3: 'bgr8'}[
            frame.shape[2]]
        return t['sensor_msgs/msg/Image'](
            header=header(stamp, topic), height=frame.shape[0], width=frame.shape[1],
            encoding=kind, is_bigendian=0, step=frame.strides[0],
            data=np.ascontiguousarray(frame).view(np.uint8).ravel())

    messages = []
    for topic, frames, form in ((THERMAL, thermal, compressed[0]), (RGB, rgb, compressed[1])):
        for stamp, frame in frames.items():
            message = image(stamp, topic, frame, form)
            received = stamp - (clock_ns if topic == RGB else 0)
            messages.append((received, topic + '/compressed' * bool(form), message))
    for topic, fields in (cameras or {}).items():
        messages.append((START, topic.rsplit('/', 1)[0] + '/camera_info', _info(
            t, header(START, topic), **fields)))
    if pose is not None:
        vector, rotation = t['geometry_msgs/msg/Vector3'], t['geometry_msgs/msg/Quaternion']
        transform = t['geometry_msgs/msg/Transform']
        links = []
        for child, quaternion, move in (
                ('thermal_optical', (0.5, -0.5, 0.5, 0.5), (0.2, 0.0, 1.0)),
                (None, *pose)):
            parent = 'mount' if child else 'thermal_optical'
            place = t['std_msgs/msg/Header'](
                stamp=t['builtin_interfaces/msg/Time'](sec=0, nanosec=0), frame_id=parent)
            links.append(t['geometry_msgs/msg/TransformStamped'](
                header=place, child_frame_id=child or 'rgb_optical', transform=transform(
                    translation=vector(*map(float, move)),
                    rotation=rotation(*map(float, quaternion)))))
        messages.append((START, '/tf_static', t['tf2_msgs/msg/TFMessage'](transforms=links)))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connections = {}
        for received, topic, message in sorted(messages, key=lambda m: m[0]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=store)
            bag.write(connections[topic], received, store.serialize_cdr(message, kind))
    return path


def _info(t: Any, header: Any, size: tuple[int, int], k: np.ndarray, d: list[float],
          model: str = 'plumb_bob') -> Any:
    p = np.zeros((3, 4))
    p[:, :3] = k
    return t['sensor_msgs/msg/CameraInfo'](
        header=header, height=size[1], width=size[0], distortion_model=model,
        d=np.array(d, float), k=np.array(k, float).ravel(), r=np.eye(3).ravel(), p=p.ravel(),
        binning_x=0, binning_y=0, roi=t['sensor_msgs/msg/RegionOfInterest'](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False))


def scene(i: int, size: tuple[int, int] = (160, 128)) -> np.ndarray:
    """Return 14-bit counts with noise and a warm square that moves to the right with i."""
    rng = np.random.default_rng(i)
    frame = rng.normal(8000, 8, size[::-1])
    x = 10 + 9 * i % (size[0] - 50)
    frame[40:70, x:x + 30] += 900
    return frame.astype(np.uint16)


def center(mask: np.ndarray) -> np.ndarray:
    """Return the center of a mask's pixels, x and y."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.mean(), ys.mean()])
