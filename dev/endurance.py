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
Test the node under load: python dev/endurance.py {rate,...} --help.

The processes and DDS are real: the node as a user starts it, a camera in a separate process, and
this process as the subscriber. Each test prints its results as JSON and ends with status 1 if it
failed. The tests take too long for CI and depend too much on the machine.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

from cgdet_core.errors import UserError
from cgdet_ros.resources import use_transport_profile
from cgdet_ros.tools.session import node_process
from endurance_messages import create_camera, Listener, malformed, PATIENCE_S, picture
import numpy as np
import rclpy
from vision_msgs.msg import Detection2DArray

SLACK_MS = 5.0  # by which an image may be older than one inference
# A command for which home, temporary and working folder are read-only, as in many containers.
READ_ONLY = ('unshare', '--map-root-user', '--mount', 'sh', '-ec',
             'for folder in "$HOME" /tmp /var/tmp; do mount --bind "$folder" "$folder"; '
             'mount -o remount,bind,ro "$folder"; done; cd "$HOME"; exec "$@"', 'sh')
Figures = dict[str, Any]


@contextmanager
def listening(compressed: bool, tracker: bool = False) -> Iterator[Listener]:
    """Yield a listener, and destroy it afterwards."""
    rclpy.init()
    listener = Listener(compressed, tracker)
    try:
        yield listener
    finally:
        listener.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def node(options: argparse.Namespace) -> Iterator[tuple[Listener, int]]:
    """Start the node; yield a listener and the node's process id once it detects or follows."""
    parameters = {'input_transport': 'compressed' if options.compressed else 'raw'}
    if options.tracker:  # alone: a detector would only run while the target is lost
        parameters['detector_model_path'] = '""'
    try:
        with listening(options.compressed, options.tracker) as listener, node_process(
                options.model, '--log-level', 'fatal', **parameters,
                node='tracker' if options.tracker else 'detector') as process:
            listener.detect(picture(options.size, options.compressed))
            yield listener, process.pid
    except UserError as error:
        sys.exit(str(error))


@contextmanager
def camera(options: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    """Run a camera in a separate process, which prints the number of images it has sent."""
    process = subprocess.Popen(
        [sys.executable, __file__, 'camera', '--hz', str(options.hz), '--seconds',
         str(options.seconds), '--size', *map(str, options.size),
         *(['--compressed'] if options.compressed else [])],
        stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run_camera(options: argparse.Namespace) -> Figures:
    """Publish images at a constant rate, stamped with the time of publication."""
    rclpy.init()
    source = rclpy.create_node('endurance_camera')
    publisher = create_camera(source, options.compressed)
    end = monotonic() + 10.0
    while not publisher.get_subscription_count() and monotonic() < end:
        sleep(0.01)
    sleep(0.2)
    # In turns: equal images would be those of a closed shutter.
    messages = [picture(options.size, options.compressed, moment=n) for n in range(2)]
    start = monotonic()
    count = int(options.hz * options.seconds)
    for number in range(count):
        message = messages[number % 2]
        sleep(max(0.0, start + number / options.hz - monotonic()))
        message.header.stamp = source.get_clock().now().to_msg()
        publisher.publish(message)
    took = monotonic() - start
    sleep(1.0)  # shared memory is read before it is removed
    return {'sent': count, 'hz': round((count - 1) / took, 2)}


def test_rate(options: argparse.Namespace) -> tuple[Figures, bool]:
    """Publish at a fixed rate: no image is lost in transport, order is kept, images are recent."""
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
    ages = _ages(status, delays)
    figures = {
        **sent, **after, 'lost on the way': sent['sent'] - after['received'],
        'outputs': len(new), 'output hz': round(len(new) / options.seconds, 2),
        'in order': stamps == sorted(set(stamps)), **ages,
        'overhead p50 ms': float(status['overhead p50 ms']),
        'of it pre p50 + post p50 ms': round(
            float(status['pre p50 ms']) + float(status['post p50 ms']), 2),
        'backend': status['backend']}
    # An image waits for the inference in progress, which may be slow.
    good = (figures['lost on the way'] == 0 and figures['in order']
            and len(new) == after['processed']
            and ages['age p99 within the bound']['p99 of inference']['at its turn'])
    return figures, bool(good)


def _ages(status: dict[str, str], delays: Any) -> Figures:
    """
    Compare the age of images with one inference and SLACK_MS, for each definition of the two.

    The node reports its last 1000 frames. delays: of all frames, until detections are received.
    """
    shares = ('p50', 'p95', 'p99', 'max')
    ages = {'at its turn': {k: float(status[f'image age {k} ms']) for k in shares},
            'at the output': _percentiles(delays)}
    inference = {k: float(status[f'infer {k} ms']) for k in shares}
    bounds = {f'{k} of inference': round(inference[k] + SLACK_MS, 2) for k in ('p50', 'p99')}
    return {
        'inference ms': inference,
        **{f'image age {when} ms': age for when, age in ages.items()},
        'bound ms': bounds,
        'age p99 within the bound': {
            name: {when: age['p99'] <= bound for when, age in ages.items()}
            for name, bound in bounds.items()}}


def test_frames(options: argparse.Namespace) -> tuple[Figures, bool]:
    """Publish many images, each after the detections of the last: memory must not grow."""
    message = picture(options.size, options.compressed)
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
    """Publish malformed messages: the node must keep running and detect as before."""
    rng = random.Random(options.seed)
    good = picture(options.size, options.compressed)
    # In a burst most messages would be replaced before they are processed.
    pause = 0.02 if options.compressed else 0.002  # more of the compressed ones are valid images
    with node(options) as (listener, process):
        before = _boxes(listener.detect(good))
        memory = _resident_mb(process)
        for _ in range(options.frames):
            listener.camera.publish(malformed(rng, options.compressed))
            rclpy.spin_once(listener, timeout_sec=0)
            sleep(pause)
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


def test_restarts(options: argparse.Namespace) -> tuple[Figures, bool]:
    """Kill and restart a camera repeatedly: detections must follow every time."""
    options.seconds = 3600.0
    recovered, seconds, middle = 0, [], 0.0
    with node(options) as (listener, process):
        memory = _resident_mb(process)
        for number in range(options.frames):
            if number == options.frames // 2:
                middle = _resident_mb(process)
            count, start = len(listener.outputs), monotonic()
            with camera(options):
                while len(listener.outputs) < count + 3 and monotonic() < start + PATIENCE_S:
                    rclpy.spin_once(listener, timeout_sec=0.1)
            recovered += len(listener.outputs) >= count + 3
            seconds.append(monotonic() - start)
        figures = {'restarts': options.frames, 'recovered': recovered,
                   's to the third detection': _percentiles(np.array(seconds)),
                   'memory MB before': memory, 'memory MB half way': middle,
                   'memory MB after': _resident_mb(process)}
    return figures, recovered == options.frames


def test_readonly(options: argparse.Namespace) -> tuple[Figures, bool]:
    """Run with only ROS_LOG_DIR writable: the node detects; without it, an error says why."""
    command = [*READ_ONLY, sys.executable, '-m', 'cgdet_ros.detector_node']
    if options.model:
        command += ['--ros-args', '-p', f'model_path:={options.model.resolve()}']
    with TemporaryDirectory() as home, TemporaryDirectory(dir='/dev/shm') as logs:
        os.environ |= {'HOME': home, 'TMPDIR': home, 'ROS_LOG_DIR': logs}
        os.environ.pop('XDG_CACHE_HOME', None)
        if subprocess.run([*READ_ONLY, 'true']).returncode:
            sys.exit('Mounting is not permitted here (see above); run the test as root.')
        locked = subprocess.run([*READ_ONLY, 'touch', 'file'], capture_output=True).returncode
        with listening(False) as listener:
            process = subprocess.Popen(command)
            try:
                boxes = _boxes(listener.detect(picture(options.size)))
            finally:
                process.send_signal(signal.SIGINT)
                status = process.wait(20)
        named = sorted(path.name for path in Path(logs).iterdir())
        without = {k: v for k, v in os.environ.items() if k not in ('ROS_LOG_DIR', 'ROS_HOME')}
        ended = subprocess.run(command, env=without, capture_output=True, text=True,
                               timeout=PATIENCE_S)
    figures: Figures = {'read-only': bool(locked), 'boxes': len(boxes), 'exit status': status,
               'log files': len(named), 'exit status without ROS_LOG_DIR': ended.returncode,
               'and says': ended.stderr.strip()}
    sentence = ended.stderr.strip().splitlines()
    return figures, (figures['read-only'] and len(boxes) > 0 and status == 0
                     and ended.returncode == 1 and len(sentence) == 1
                     and 'ROS_LOG_DIR' in sentence[0])


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
         'restarts': test_restarts, 'readonly': test_readonly}
FRAMES = {'frames': 100_000, 'malformed': 10_000, 'restarts': 100}


def main() -> None:
    """Run one test from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('test', choices=(*TESTS, 'camera'), metavar=f'{{{",".join(TESTS)}}}',
                        help='; '.join(f'{k}: {v.__doc__}' for k, v in TESTS.items()))
    parser.add_argument('--model', type=Path, help='ONNX file; the shipped model by default')
    parser.add_argument('--tracker', action='store_true',
                        help='rate: of the tracker node, which follows one target')
    parser.add_argument('--compressed', action='store_true',
                        help='send CompressedImage to a node with input_transport compressed')
    parser.add_argument('--size', type=int, nargs=2, default=(640, 512),
                        metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--hz', type=float, default=30.0)
    parser.add_argument('--seconds', type=float, default=60.0, help='duration of the rate test')
    parser.add_argument('--frames', type=int, help='number of images or restarts')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    if options.tracker and options.test not in ('rate', 'camera'):
        parser.error('--tracker is for the rate test')
    options.frames = options.frames or FRAMES.get(options.test, 0)
    if options.test == 'camera':
        print(json.dumps(run_camera(options)))
        return
    # A separate domain, so that no other camera affects the test.
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    use_transport_profile()
    figures, good = TESTS[options.test](options)
    print(json.dumps({'test': options.test, 'passed': bool(good), **figures}, indent=1))
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main()
