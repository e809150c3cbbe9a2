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

"""Publish a bag over ROS 2 on machines without rosbag2: `cgdet bag play`."""

import argparse
from collections.abc import Callable
import importlib
from pathlib import Path
import sys
from time import monotonic, sleep
from typing import Any

from cgdet_core.data.bags.io import COMPRESSED_TYPE, image_connections, is_ros2, open_bag
from cgdet_core.errors import UserError
from cgdet_ros.node.starting import create, init
from cgdet_ros.resources import use_transport_profile
import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

MATCH_TIMEOUT_S = 10.0
PAUSE_S = 5.0  # a longer one is announced
QUEUED = QoSProfile(depth=10)
# The depth is for several publishers of one topic, such as /tf_static.
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CLOCK_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def message_class(name: str) -> Any:
    """Import the class of 'package/msg/Type'; UserError if there is none."""
    package, _, kind = name.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), kind)
    except (ImportError, AttributeError, TypeError):  # of a name that is none
        raise UserError(
            f'The bag contains {name} messages, but {package} is not installed.') from None


def play(
    node: Node, path: str | Path, rate: float = 1.0,
    on_publish: Callable[[bytes], None] | None = None, only_images: bool = False,
    clock: bool = False, answered: Callable[[], None] | None = None, topic: str | None = None,
) -> int:
    """
    Publish every message of a bag once, at its time, and return their number.

    Messages are published byte for byte as recorded, and latched if they were. Playing starts when
    every topic has a subscriber, or after 10 s. rate: speed relative to the recording. Topics
    whose message package is not installed, or whose name ROS 2 does not allow, are skipped with a
    warning. on_publish is called with each serialized message. only_images: play only the image
    topic, as `image_raw` or `image_raw/compressed`; topic: which, if there are several. clock:
    publish the time of each message on /clock before it, in place of a recorded clock, for nodes
    with use_sim_time. answered: called after each message; it may wait, and then the rest is
    played later by as much.
    """
    if not rate > 0:
        raise UserError(f'The rate must be positive, not {rate}.')
    try:
        return _play(node, path, rate, on_publish, only_images, clock, answered, topic)
    except Exception:
        if rclpy.ok():
            raise
        raise KeyboardInterrupt from None  # Ctrl-C shut the context down while publishing


def _play(
    node: Node, path: str | Path, rate: float, on_publish: Callable[[bytes], None] | None,
    only_images: bool, clock: bool, answered: Callable[[], None] | None, topic: str | None,
) -> int:
    with open_bag(path) as reader:
        connections = image_connections(reader, path, topic) if only_images else [
            c for c in reader.connections if is_ros2(c) and not (clock and c.topic == '/clock')]
        publishers = _create_publishers(node, connections, only_images)
        if not publishers:
            raise UserError(f'{path} contains no topic that can be played.')
        connections = [c for c in connections if c.topic in publishers]
        time = node.create_publisher(Clock, '/clock', CLOCK_QOS) if clock else None
        try:
            _wait_for_subscribers(list(publishers.values()))
            start, first, count = monotonic(), None, 0
            for connection, recorded, raw in reader.messages(connections):
                first = recorded if first is None else first
                due = start + (recorded - first) * 1e-9 / rate
                early = due - monotonic()
                if early > PAUSE_S:  # nothing was recorded, or the recorder's clock was set
                    node.get_logger().info(f'the next message comes in {early:.0f} s')
                _sleep_until(due)
                if answered is not None:
                    start += max(0.0, -early)
                if not rclpy.ok():
                    break
                if time is not None:
                    time.publish(Clock(clock=Time(nanoseconds=recorded).to_msg()))
                data = bytes(raw)
                if on_publish is not None:
                    on_publish(data)
                publishers[connection.topic].publish(data)
                count += 1
                if answered is not None:
                    answered()
        finally:
            if time is not None:
                node.destroy_publisher(time)
            for publisher in publishers.values():
                if rclpy.ok():
                    publisher.wait_for_all_acked(Duration(seconds=2))
                node.destroy_publisher(publisher)
    return count


def _create_publishers(node: Node, connections: list[Any], only_images: bool) -> dict[str, Any]:
    """Create one publisher per topic, also if several were recorded."""
    latched = {c.topic for c in connections if c.topic == '/tf_static' or any(
        qos.durability.name == 'TRANSIENT_LOCAL' for qos in c.ext.offered_qos_profiles)}
    publishers = {}
    for topic, name in {c.topic: c.msgtype for c in connections}.items():
        image = 'image_raw/compressed' if name == COMPRESSED_TYPE else 'image_raw'
        try:
            publishers[topic] = node.create_publisher(
                message_class(name), image if only_images else topic,
                LATCHED if topic in latched else QUEUED)
        except UserError as error:
            node.get_logger().warning(f'{error} The topic {topic} is skipped.')
        except InvalidTopicNameException:
            node.get_logger().warning(
                f'ROS 2 does not allow the name {topic}. The topic is skipped.')
    return publishers


def _sleep_until(end: float) -> None:
    """Sleep until a time of monotonic(), or until SIGTERM, which does not interrupt sleep()."""
    while rclpy.ok() and (left := end - monotonic()) > 0:
        sleep(min(left, 0.1))


def _wait_for_subscribers(publishers: list[Any]) -> None:
    end = monotonic() + MATCH_TIMEOUT_S
    while monotonic() < end and rclpy.ok():
        if all(p.get_subscription_count() for p in publishers):
            sleep(0.2)  # the subscriber may discover the publisher a moment later
            return
        sleep(0.02)


def main(args: list[str] | None = None) -> None:
    """Play a bag from the command line."""
    parser = argparse.ArgumentParser(prog='cgdet bag play', description=__doc__)
    parser.add_argument('bag')
    parser.add_argument('--rate', type=float, default=1.0, help='speed relative to the recording')
    parser.add_argument('--loop', action='store_true', help='repeat at the end')
    parser.add_argument('--clock', action='store_true', help='publish the bag time on /clock')
    options, ros_args = parser.parse_known_args(args)
    if ros_args and ros_args[0] != '--ros-args':
        sys.exit(f'cgdet: unrecognized arguments: {" ".join(ros_args)}; those of ROS follow '
                 '--ros-args, and "cgdet bag play --help" lists the others')
    use_transport_profile()
    try:
        init(ros_args)
        node = create(lambda: Node('cgdet_bag_player'))
    except UserError as error:
        sys.exit(f'cgdet: {error}')
    try:
        while True:
            count = play(node, options.bag, options.rate, clock=options.clock)
            if not rclpy.ok():
                sys.exit(130)
            node.get_logger().info(f'{count} messages of {options.bag} published')
            if not options.loop:
                break
    except UserError as error:
        sys.exit(f'cgdet: {error}')
    except (KeyboardInterrupt, ExternalShutdownException):
        sys.exit(130)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
