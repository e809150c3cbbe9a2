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

"""Run the checks of `cgdet doctor` that require ROS; print one JSON object per line."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
import importlib
import json
import os
from pathlib import Path
from xml.etree import ElementTree

from ament_index_python.packages import get_package_share_directory
from cgdet_core.doctor import Check
from cgdet_ros.doctor.transport import (
    discovery_checks,
    exports,
    profile_check,
    profile_variables,
    shared_memory_check,
)
import rclpy
from rclpy.node import Node

TOLERATED = 0.01  # share of lost frames that is only a warning: the machine may be busy


def checks(node: Node, seconds: float, profile: Path) -> Iterator[Check]:
    """Check ROS, its transport and the graph."""
    yield from ros_versions()
    yield from discovery_checks(os.environ)
    rmw = rclpy.get_rmw_implementation_identifier()
    yield Check('transport', 'RMW', 'OK', f'{rmw} {package_version(rmw)}'.strip())
    if rmw.startswith('rmw_fastrtps'):
        yield profile_check(os.environ, profile)
        yield shared_memory_check()
    else:
        yield Check('transport', 'profile', 'OK', f'for Fast DDS only, not used by {rmw}')
    yield self_test(node, seconds, profile)
    from cgdet_ros.doctor.graph import graph_checks

    yield from graph_checks(node, seconds)


def ros_versions() -> Iterator[Check]:
    """Check the distribution and the message packages."""
    yield Check('ROS 2', 'rclpy', 'OK',
                f'{package_version("rclpy")} of {os.environ.get("ROS_DISTRO", "PyPI")}')
    for package in ('vision_msgs', 'sensor_msgs', 'diagnostic_msgs', 'lifecycle_msgs'):
        try:
            importlib.import_module(f'{package}.msg')
        except ImportError as error:
            yield Check('ROS 2', package, 'FAIL', str(error),
                        'rosdep install --from-paths src --ignore-src')
        else:
            yield Check('ROS 2', package, 'OK', package_version(package) or 'installed')


def package_version(package: str) -> str:
    """Return the version in a package's package.xml, empty if there is none."""
    try:
        path = Path(get_package_share_directory(package)) / 'package.xml'
        return ElementTree.parse(path).findtext('version', '')
    except (LookupError, OSError, ElementTree.ParseError):
        return ''


def self_test(node: Node, seconds: float, profile: Path) -> Check:
    """Exchange frames with another process; if some are lost, repeat it with the profile."""
    # Measured, because Fast DDS releases differ in the settings that they use.
    from cgdet_ros.doctor.exchange import exchange, RATE_HZ

    try:
        first = exchange(node, seconds)
        if not first.lost:
            return Check('transport', 'self-test', 'OK',
                         f'0 of {first.sent} 640x512 16-bit frames lost at {RATE_HZ:.0f} Hz, '
                         f'latency p50 {first.p50:.1f} ms, p99 {first.p99:.1f} ms')
        names = profile_variables(os.environ)
        second = exchange(node, seconds, dict.fromkeys(names, str(profile)))
    except RuntimeError as error:
        return Check('transport', 'self-test', 'FAIL', str(error),
                     'check discovery and shared memory above')
    found = (f'{first.lost} of {first.sent} 640x512 16-bit frames lost at {RATE_HZ:.0f} Hz; '
             f'with {profile.name} for the publisher {second.lost}')
    if second.lost < first.lost:
        advice = f'set for the publisher, the camera driver: {exports(profile, os.environ)}'
    else:
        advice = 'the profile does not help: check CPU load and free shared memory'
    level = 'FAIL' if first.lost > TOLERATED * first.sent else 'WARN'
    return Check('transport', 'self-test', level, found, advice)  # type: ignore[arg-type]


def main(args: list[str] | None = None) -> None:
    """Run the checks from the command line."""
    parser = argparse.ArgumentParser(prog='python -m cgdet_ros.doctor.checks', description=__doc__)
    parser.add_argument('--seconds', type=float, default=2.0)
    options = parser.parse_args(args)
    from cgdet_core.runtime.files import share_file

    try:
        rclpy.init(args=[])
    except RuntimeError as error:  # RCLError
        if 'log directory' not in str(error):
            raise
        found = str(error).partition(', at ')[0]
        show(iter([Check('ROS 2', 'rclpy', 'FAIL', found,
                         'set ROS_LOG_DIR to a writable folder')]))
        return
    node = rclpy.create_node(f'cgdet_doctor_{os.getpid()}')
    try:
        show(checks(node, options.seconds, share_file('config/fastdds.xml')))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def show(found: Iterator[Check]) -> None:
    """Print each check when it is done."""
    for check in found:
        print(json.dumps(asdict(check)), flush=True)


if __name__ == '__main__':
    main()
