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

"""
Put the node under load and say what became of it: python dev/endurance.py {rate,...} --help.

Real processes over real DDS: the node as a user starts it, a camera in a process of its own,
this process as the one that listens. Each test prints its figures as JSON and ends with status 1
if the node did not keep what it promises. Too long, and too dependent on a machine, for CI.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import random
import subprocess
import sys
from time import monotonic, sleep, time_ns
from typing import Any

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.errors import UserError
from cgdet_core.runtime.image_message import ENCODINGS
from cgdet_ros.demo import detector_process
from cgdet_ros.resources import use_transport_profile
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

SLACK_MS = 5.0  # that an image may be older than one inference when its turn comes
PATIENCE_S = 120.0  # for a node that starts, or an image that is detected in
Figures = dict[str, Any]


class Listener(Node):
    """Hear what the detector says."""

    def __init__(self) -> None:
        super().__init__('endurance')
        self.outputs: list[tuple[int, int]] = []  # stamp of the image, time of arrival; ns
        self.last: Detection2DArray | None = None
        self.status: dict[str, str] = {}
        self.levels: dict[bytes, int] = {}
        self.create_subscription(Detection2DArray, 'detections', self._detections, 1000)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._diagnostics, 10)
        self.camera = self.create_publisher(Image, 'image_raw', 10)

    def _detections(self, message: Detection2DArray) -> None:
        stamp = message.header.stamp
        self.outputs.append((stamp.sec * 10**9 + stamp.nanosec, time_ns()))
        self.last = message

    def _diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if 'thermal_detector' in status.name:
                self.status |= {v.key: v.value for v in status.values}
                self.levels[status.level] = self.levels.get(status.level, 0) + 1

    def spin_for(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=min(left, 0.1))

    def detect(self, message: Image) -> Detection2DArray:
        """Send an image, again every second, until it is detected in."""
        end = monotonic() + PATIENCE_S
        while monotonic() < end:
            message.header.stamp = self.get_clock().now().to_msg()
            self.camera.publish(message)
            again = monotonic() + 1.0
            while monotonic() < again:
                rclpy.spin_once(self, timeout_sec=0.05)
                if self.last is not None and self.last.header.stamp == message.header.stamp:
                    return self.last
        sys.exit(f'The node detected nothing within {PATIENCE_S:.0f} s.')


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    """Give a synthetic scene as a 16-bit image message."""
    frame = to_counts(Scene.random(seed, *size).render()[0])
    message = Image(height=size[1], width=size[0], encoding='mono16', step=2 * size[0])
    message.data = frame.astype('<u2').tobytes()
    message.header.frame_id = 'thermal_optical'
    return message


@contextmanager
def node(options: argparse.Namespace) -> Iterator[tuple[Listener, int]]:
    """Start the node, give a listener and the node's process id once it detects."""
    rclpy.init()
    listener = Listener()
    try:
        with detector_process(options.model, '--log-level', 'fatal') as process:
            listener.detect(picture(options.size))
            yield listener, process.pid
    except UserError as error:
        sys.exit(str(error))
    finally:
        listener.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def camera(options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """Run a camera in a process of its own; it prints the number of images it has sent."""
    process = subprocess.Popen(
        [sys.executable, __file__, 'camera', '--hz', str(options.hz), '--seconds',
         str(options.seconds), '--size', *map(str, options.size)],
        stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_camera(options: argparse.Namespace) -> Figures:
    """Publish images at an even rate, stamped with the time they leave."""
    rclpy.init()
    source = rclpy.create_node('endurance_camera')
    publisher = source.create_publisher(Image, 'image_raw', 10)
    end = monotonic() + 10.0
    while not publisher.get_subscription_count() and monotonic() < end:
        sleep(0.01)
    sleep(0.2)
    message = picture(options.size)
    start = monotonic()
    count = int(options.hz * options.seconds)
    for number in range(count):
        sleep(max(0.0, start + number / options.hz - monotonic()))
        message.header.stamp = source.get_clock().now().to_msg()
        publisher.publish(message)
    took = monotonic() - start
    sleep(1.0)  # what lies in shared memory is read before it goes
    return {'sent': count, 'hz': round((count - 1) / took, 2)}


def test_rate(options: argparse.Namespace) -> tuple[Figures, bool]:
    """A camera at a fixed rate: nothing lost on the way, order kept, images fresh."""
    with node(options) as (listener, _):
        listener.spin_for(1.5)
        before, outputs = _counts(listener), len(listener.outputs)
        with camera(options) as source:
            while source.poll() is None:
                listener.spin_for(0.2)
            listener.spin_for(2.5)
            assert source.stdout is not None
            sent = json.loads(source.stdout.read())
        after = {k: v - before[k] for k, v in _counts(listener).items()}
        status = dict(listener.status)
        new = listener.outputs[outputs:]
    stamps = [stamp for stamp, _ in new]
    delays = np.array([arrival - stamp for stamp, arrival in new]) * 1e-6
    figures = {
        **sent, **after, 'lost on the way': sent['sent'] - after['received'],
        'outputs': len(new), 'output hz': round(len(new) / options.seconds, 2),
        'in order': stamps == sorted(set(stamps)),
        'stamp to detections ms': _percentiles(delays),
        'node': {k: v for k, v in status.items() if k.endswith((' ms', 'backend'))}}
    # An image waits for the inference in progress, which may be a slow one.
    limit = float(status['infer p99 ms']) + SLACK_MS
    good = (figures['lost on the way'] == 0 and figures['in order']
            and len(new) == after['processed'] and float(status['image age p99 ms']) <= limit)
    return figures, good


def test_frames(options: argparse.Namespace) -> tuple[Figures, bool]:
    """Many images, one after another as fast as they are detected: memory must stay flat."""
    message = picture(options.size)
    with node(options) as (listener, process):
        memory: list[float] = []
        start = monotonic()
        for number in range(options.frames):
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(number + 1, 10**9)
            listener.camera.publish(message)
            sent = len(listener.outputs)
            end = monotonic() + 2.0
            while len(listener.outputs) == sent and monotonic() < end:
                rclpy.spin_once(listener, timeout_sec=0.5)
            if number % max(1, options.frames // 100) == 0:
                memory.append(_resident_mb(process))
                listener.outputs.clear()
        seconds = monotonic() - start
        listener.spin_for(1.5)
        processed = int(listener.status['processed'])
    warm = memory[len(memory) // 10]
    growth = memory[-1] / warm - 1
    figures = {'frames': options.frames, 'processed': processed,
               'seconds': round(seconds, 1), 'memory MB after 10 %': warm,
               'memory MB at the end': memory[-1], 'growth': round(growth, 4)}
    return figures, growth < 0.01 and processed >= options.frames


def test_malformed(options: argparse.Namespace) -> tuple[Figures, bool]:
    """Malformed messages: none ends the node, and a good image is detected in as before."""
    rng = random.Random(options.seed)
    good = picture(options.size)
    with node(options) as (listener, process):
        before = _boxes(listener.detect(good))
        memory = _resident_mb(process)
        for _ in range(options.frames):
            listener.camera.publish(malformed(rng))
            rclpy.spin_once(listener, timeout_sec=0)
            # A burst would only be replaced in the slot: let most of them be looked at.
            sleep(0.002)
        listener.spin_for(2.5)
        status = dict(listener.status)
        after = _boxes(listener.detect(good))
        figures = {'sent': options.frames, 'received': int(status['received']),
                   'failed': int(status['failed']), 'dropped': int(status['dropped']),
                   'taken for images': int(status['processed']), 'boxes before': len(before),
                   'same boxes afterwards': before == after, 'memory MB before': memory,
                   'memory MB after': _resident_mb(process)}
    seen = figures['failed'] + figures['taken for images']
    return figures, before == after and len(before) > 0 and seen > options.frames / 2


def malformed(rng: random.Random) -> Image:
    """Give an image message with something wrong, or everything."""
    width, height = rng.choice((0, 1, 7, 64, 641, 2**31)), rng.choice((0, 1, 5, 48, 2**32 - 1))
    encoding = rng.choice((*ENCODINGS, 'mono16', 'mono8', '', 'yuv422', 'bgr8', 'rgb16',
                           '64FC1', 'bayer_rggb8', '16UC3', 'ü' * 40, '\1'))
    message = Image(height=height, width=width, encoding=encoding,
                    step=rng.choice((0, 1, width * 2 % 2**32, width % 2**32, 2**32 - 1)),
                    is_bigendian=rng.randrange(256))
    message.data = rng.randbytes(rng.choice((0, 1, 3, 100, 6144, 20000)))
    message.header.stamp.sec = rng.choice((0, -2**31, 2**31 - 1, 1_700_000_000))
    message.header.stamp.nanosec = rng.choice((0, 999_999_999, 2**32 - 1))
    message.header.frame_id = rng.choice(('', 'thermal', 'x' * 1000))
    return message


def test_restarts(options: argparse.Namespace) -> tuple[Figures, bool]:
    """A camera that is killed and started again and again: detections follow every time."""
    options.seconds = 3600.0
    recovered, seconds = 0, []
    with node(options) as (listener, process):
        memory = _resident_mb(process)
        for _ in range(options.frames):
            count, start = len(listener.outputs), monotonic()
            with camera(options):
                while len(listener.outputs) < count + 3 and monotonic() < start + PATIENCE_S:
                    rclpy.spin_once(listener, timeout_sec=0.1)
            recovered += len(listener.outputs) >= count + 3
            seconds.append(monotonic() - start)
        figures = {'restarts': options.frames, 'recovered': recovered,
                   's to the third detection': _percentiles(np.array(seconds)),
                   'memory MB before': memory, 'memory MB after': _resident_mb(process)}
    return figures, recovered == options.frames


def _counts(listener: Listener) -> dict[str, int]:
    return {k: int(listener.status[k]) for k in ('received', 'processed', 'dropped', 'failed')}


def _percentiles(values: Any) -> dict[str, float]:
    found = np.percentile(values, (50, 95, 99, 100))
    return dict(zip(('p50', 'p95', 'p99', 'max'), (round(float(v), 2) for v in found)))


def _resident_mb(process: int) -> float:
    pages = int(Path(f'/proc/{process}/statm').read_text().split()[1])
    return round(pages * os.sysconf('SC_PAGE_SIZE') / 1e6, 2)


def _boxes(message: Detection2DArray) -> list[tuple[float, ...]]:
    return [(d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.size_x, d.bbox.size_y,
             d.results[0].hypothesis.score) for d in message.detections]


TESTS = {'rate': test_rate, 'frames': test_frames, 'malformed': test_malformed,
         'restarts': test_restarts}
FRAMES = {'frames': 100_000, 'malformed': 10_000, 'restarts': 100}


def main() -> None:
    """Run one test from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('test', choices=(*TESTS, 'camera'), metavar=f'{{{",".join(TESTS)}}}',
                        help='; '.join(f'{k}: {v.__doc__}' for k, v in TESTS.items()))
    parser.add_argument('--model', type=Path, help='ONNX file; the shipped model by default')
    parser.add_argument('--size', type=int, nargs=2, default=(640, 512),
                        metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--hz', type=float, default=30.0)
    parser.add_argument('--seconds', type=float, default=60.0, help='of the rate test')
    parser.add_argument('--frames', type=int, help='images, or restarts')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    options.frames = options.frames or FRAMES.get(options.test, 0)
    if options.test == 'camera':
        print(json.dumps(run_camera(options)))
        return
    # A graph of our own: no other camera plays into the test.
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    use_transport_profile()
    figures, good = TESTS[options.test](options)
    print(json.dumps({'test': options.test, 'passed': bool(good), **figures}, indent=1))
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main()
