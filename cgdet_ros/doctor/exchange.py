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

"""Send thermal frames from one process to another, like a camera driver to the detector."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
import json
import os
import subprocess
import sys
import tempfile
from time import monotonic, monotonic_ns, sleep

from cgdet_core.processes import program
from cgdet_core.runtime.imaging.message import stamp_of
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

RATE_HZ = 60.0
WIDTH, HEIGHT = 640, 512
MATCH_TIMEOUT_S = 15.0
SETTLE_S = 0.5  # for the last frames to arrive


@dataclass(frozen=True)
class Exchange:
    """The numbers of sent and lost frames; latencies in ms, publication to callback."""

    sent: int
    lost: int
    p50: float | None
    p99: float | None


def summarize(sent: int, arrivals: Mapping[int, float]) -> Exchange:
    """Count the lost frames; arrivals: latency in seconds by frame number."""
    lost = len(set(range(sent)) - arrivals.keys())
    if not arrivals:
        return Exchange(sent, lost, None, None)
    p50, p99 = np.percentile(list(arrivals.values()), (50, 99)) * 1e3
    return Exchange(sent, lost, float(p50), float(p99))


def exchange(node: Node, seconds: float, environment: Mapping[str, str] | None = None) -> Exchange:
    """Receive the 60 Hz frames of a process with added environment; RuntimeError if it fails."""
    arrivals: dict[int, float] = {}

    def receive(message: Image) -> None:
        seconds = (monotonic_ns() - stamp_of(message.header)) * 1e-9
        arrivals[int(message.header.frame_id)] = seconds

    topic = f'/{node.get_name()}/test_image'
    subscription = node.create_subscription(
        Image, topic, receive, QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT))
    with tempfile.TemporaryFile('w+') as output:
        try:
            with program('cgdet_ros.doctor.exchange', topic, round(seconds * RATE_HZ),
                         stdout=output, stderr=subprocess.STDOUT,
                         env={**os.environ, **(environment or {})}) as process:
                deadline = monotonic() + 2 * MATCH_TIMEOUT_S + 3 * seconds
                while process.poll() is None and monotonic() < deadline:
                    rclpy.spin_once(node, timeout_sec=0.05)
        finally:
            node.destroy_subscription(subscription)
        output.seek(0)
        lines = output.read().strip().splitlines()
    if process.returncode or not lines:
        raise RuntimeError(
            lines[-1] if lines else f'the publisher ended, exit status {process.returncode}')
    return summarize(json.loads(lines[-1])['sent'], arrivals)


def publish(topic: str, frames: int) -> int:
    """Publish numbered frames best effort, as camera drivers do, and return their number."""
    node = rclpy.create_node('cgdet_test_camera')
    publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
    frame = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH), np.uint16)
    message = Image(height=HEIGHT, width=WIDTH, encoding='mono16', step=2 * WIDTH)
    message.data = frame.tobytes()
    end = monotonic() + MATCH_TIMEOUT_S
    while not publisher.get_subscription_count():
        if monotonic() > end:
            sys.exit(f'The subscriber was not discovered within {MATCH_TIMEOUT_S:.0f} s.')
        sleep(0.02)
    sleep(SETTLE_S)  # the subscriber may discover the publisher a moment later
    start = monotonic()
    for i in range(frames):
        sleep(max(0.0, start + i / RATE_HZ - monotonic()))
        message.header.frame_id = str(i)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(monotonic_ns(), 10**9)
        publisher.publish(message)
    sleep(SETTLE_S)
    node.destroy_node()
    return frames


def main() -> None:
    """Publish frames from the command line."""
    parser = argparse.ArgumentParser(prog='python -m cgdet_ros.doctor.exchange',
                                     description=__doc__)
    parser.add_argument('topic')
    parser.add_argument('frames', type=int)
    options = parser.parse_args()
    rclpy.init(args=[])
    try:
        print(json.dumps({'sent': publish(options.topic, options.frames)}))
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
