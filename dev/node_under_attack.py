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

"""Send image bombs to a running node; measure its memory, and when it detects again."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import re
from time import monotonic
from typing import Any

from cgdet_ros.resources import use_transport_profile
from cgdet_ros.tools.session import check_running, node_process, RELIABLE
from endurance_messages import Listener, picture
from image_bombs import BOMBS, declarations, largest
import rclpy
from sensor_msgs.msg import CompressedImage, Image

SIZE = 640, 512
# Of a bomb, so that no image replaces it before its turn; a longer one if the machine is busy.
HEAD_STARTS_S = 0.05, 0.1, 0.2, 0.4, 0.8
PERIOD_S = 0.05  # of the images after it
MAX_MB, MAX_S = 1000, 2.0
PATIENCE_S = 60.0
STATUS_S = 1.2  # until the diagnostics, which have a period of 1 s, count the last image


def attack_node() -> dict[str, dict[str, Any]]:
    """Return the figures of a node with raw images, and of one with compressed images."""
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)  # no other camera affects it
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    use_transport_profile()
    return {name: _attack(compressed) for name, compressed in (
        ('raw images', False), ('compressed images', True))}


def is_bad(figures: dict[str, Any]) -> bool:
    """Return whether a node took too much memory or time, missed an image, or detects worse."""
    return (figures['memory (MB)'] > MAX_MB or figures['slowest (s)'] > MAX_S
            or figures['refused'] + figures['read'] != figures['images']
            or not figures['same boxes'])


def _attack(compressed: bool) -> dict[str, Any]:
    good = picture(SIZE, compressed)
    slowest, worst, sent, read = 0.0, '', 0, 0
    with _node(compressed) as (listener, process):
        boxes = [d.bbox for d in listener.detect(good).detections]
        before = _peak_mb(process)
        listener.spin_for(STATUS_S)
        for name, bomb in _images(compressed):
            sent += 1
            for head_start in HEAD_STARTS_S:
                listener.outputs.clear()
                failed = int(listener.status['failed'])
                seconds = _seconds_until_detection(listener, bomb, good, head_start)
                listener.spin_for(STATUS_S)
                was_read = _stamp(bomb) in [stamp for stamp, _ in listener.outputs]
                if was_read or int(listener.status['failed']) > failed:
                    break
            read += was_read
            if seconds > slowest:
                slowest, worst = seconds, name
        same = [d.bbox for d in listener.detect(good).detections] == boxes
        return {'images': sent, 'refused': int(listener.status['failed']), 'read': read,
                'slowest (s)': round(slowest, 2), 'which': worst, 'memory before (MB)': before,
                'memory (MB)': _peak_mb(process), 'same boxes': same}


def _images(compressed: bool) -> Iterator[tuple[str, Any]]:
    if compressed:
        for name, data in (*BOMBS.items(), *largest()):
            yield name, CompressedImage(format='', data=data)
    else:
        for fields in declarations():
            yield '{encoding}, {width}x{height}'.format(**fields), Image(**fields)
        message = picture((8, 8))
        message.header.frame_id = 'x' * 2**20
        yield 'a frame_id of 1 MB', message


@contextmanager
def _node(compressed: bool) -> Iterator[tuple[Listener, int]]:
    transport, suffix = ('compressed', '/compressed') if compressed else ('raw', '')
    rclpy.init()
    listener = Listener(compressed)
    try:
        with node_process(None, '--log-level', 'fatal', input_transport=transport,
                              **{RELIABLE.format(suffix): 'reliable'}) as process:
            while not listener.camera.get_subscription_count():  # a busy machine takes minutes
                check_running(process)
                listener.spin_for(0.2)
            yield listener, process.pid
    finally:
        listener.destroy_node()
        rclpy.try_shutdown()


def _seconds_until_detection(
    listener: Listener, bomb: Any, good: Any, head_start: float,
) -> float:
    """Return the seconds from a bomb to the detections of an image after it."""
    bomb.header.stamp = listener.get_clock().now().to_msg()
    start = monotonic()
    listener.camera.publish(bomb)
    listener.spin_for(head_start)
    stamps: set[int] = set()
    while monotonic() < start + PATIENCE_S:
        good.header.stamp = listener.get_clock().now().to_msg()
        stamps.add(_stamp(good))
        listener.camera.publish(good)
        again = monotonic() + PERIOD_S
        while (left := again - monotonic()) > 0:
            rclpy.spin_once(listener, timeout_sec=left)
            if listener.outputs and listener.outputs[-1][0] in stamps:
                return monotonic() - start
    raise SystemExit(f'The node detected nothing for {PATIENCE_S:.0f} s after an image.')


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def _peak_mb(process: int) -> int:
    """Return the largest resident memory of a process so far, in MB."""
    found = re.search(r'VmHWM:\s+(\d+) kB', Path(f'/proc/{process}/status').read_text())
    assert found is not None
    return round(int(found[1]) * 1024 / 1e6)
