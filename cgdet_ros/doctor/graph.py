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

"""The ROS graph around the detector: cameras, subscriptions, states, diagnostics."""

from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
import difflib
from shutil import which
from time import monotonic
from typing import Any

from cgdet_core.doctor import Check, Level
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_check_compatible, QoSCompatibility, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
IMAGES = {RAW: Image, COMPRESSED: CompressedImage}
DETECTIONS = 'vision_msgs/msg/Detection2DArray'
LEVELS: dict[bytes, Level] = {DiagnosticStatus.OK: 'OK', DiagnosticStatus.WARN: 'WARN'}
STATE_ADVICE = {
    'unconfigured': 'ros2 lifecycle set {} configure, then activate',
    'inactive': 'ros2 lifecycle set {} activate',
    'finalized': 'it was shut down for good: start it again',
    '': 'look at its log; if its process hangs, start it again'}
DISCOVERY_S = 1.5
SERVICE_TIMEOUT_S = 3.0
SIMILAR = 0.5  # of difflib, from which on a topic is offered in place of another

Cameras = list[tuple[str, str]]  # topic and type, of which one topic may have both


@dataclass
class Traffic:
    """The images received on a topic."""

    count: int = 0
    encodings: Counter[str] = field(default_factory=Counter)


@dataclass
class FoundNode:
    """A detector node: its name, image inputs and every topic it takes part in."""

    name: str
    inputs: dict[str, str]  # topic: type
    topics: set[str]


def graph_checks(node: Node, seconds: float) -> Iterator[Check]:
    """Look around, then listen for `seconds`."""
    _spin(node, DISCOVERY_S)
    # A debug image is no camera's, and to listen to it would make the detector draw.
    cameras = image_topics(node, {d.name for d in find_detectors(node, ())})
    statuses: dict[str, DiagnosticStatus] = {}
    heard = _listen(node, cameras, statuses, seconds)
    if not cameras:
        yield Check('graph', 'images', 'WARN', 'nothing publishes images',
                    'start the camera driver; are ROS_DOMAIN_ID and discovery range the same?')
    for topic, kind in cameras:
        yield camera_check(topic, kind, heard[topic, kind], seconds)
    detectors = find_detectors(node, statuses)
    if not detectors:
        yield Check('graph', 'detector', 'WARN', 'no detector node is running',
                    'ros2 launch cgdet_ros thermal_detect.launch.py' if which('ros2')
                    else 'python -m cgdet_ros.detector_node')
    for detector in detectors:
        yield from _detector_checks(node, detector, statuses, cameras)


def image_topics(node: Node, detectors: Container[str]) -> Cameras:
    """Return the topics on which others than these detectors publish images, with their types."""
    return [(topic, kind) for topic, _ in node.get_topic_names_and_types()
            if not topic.startswith(f'/{node.get_name()}/')
            for kind in sorted(published_types(node, topic, detectors) & IMAGES.keys())]


def published_types(node: Node, topic: str, detectors: Container[str]) -> set[str]:
    """Return the types that others than these detectors publish; not those of subscriptions."""
    return {publisher.topic_type for publisher in node.get_publishers_info_by_topic(topic)
            if _owner(publisher) not in detectors}


def find_detectors(node: Node, statuses: Container[str]) -> list[FoundNode]:
    """Return the lifecycle nodes that publish detections, or report as detectors."""
    found = []
    for name, namespace in set(node.get_node_names_and_namespaces()):
        full = f'{namespace.rstrip("/")}/{name}'
        try:
            published = dict(node.get_publisher_names_and_types_by_node(name, namespace))
            subscribed = dict(node.get_subscriber_names_and_types_by_node(name, namespace))
            services = dict(node.get_service_names_and_types_by_node(name, namespace))
        except RuntimeError:  # it has gone meanwhile
            continue
        if f'{full}/get_state' in services and (
                f'{full}: detector' in statuses
                or any(DETECTIONS in kinds for kinds in published.values())):
            inputs = {topic: kind for topic, kinds in subscribed.items() for kind in kinds
                      if kind in IMAGES}
            found.append(FoundNode(full, inputs, {*published, *subscribed}))
    return sorted(found, key=lambda d: d.name)


def camera_check(topic: str, kind: str, heard: Traffic, seconds: float) -> Check:
    """Say what a camera sends, and how often."""
    if not heard.count:
        return Check('graph', topic, 'WARN', f'has a publisher, but sent nothing in {seconds} s',
                     'is the camera running? Large images that never arrive: see transport')
    encodings = ', '.join(sorted(heard.encodings))
    return Check('graph', topic, 'OK',
                 f'{_short(kind)} {encodings} at {heard.count / seconds:.1f} Hz')


def _detector_checks(
    node: Node, detector: FoundNode, statuses: dict[str, DiagnosticStatus],
    cameras: Cameras,
) -> Iterator[Check]:
    yield state_check(detector.name, get_state(node, detector.name))
    for name, status in statuses.items():
        if name.startswith(f'{detector.name}:'):
            yield Check('graph', 'diagnostics', LEVELS.get(status.level, 'FAIL'),
                        f'{name}: {status.message}')
    for topic, kind in detector.inputs.items():
        published = published_types(node, topic, [detector.name])
        if not published:
            yield unconnected(topic, kind, cameras)
        elif kind not in published:
            yield wrong_type(topic, kind, min(published))
    for topic in sorted(detector.topics):
        yield from qos_checks(topic, node.get_publishers_info_by_topic(topic),
                              node.get_subscriptions_info_by_topic(topic))


def state_check(name: str, state: str) -> Check:
    """Say which state a lifecycle node is in, '' if it does not answer, and how to start it."""
    if state == 'active':
        return Check('graph', name, 'OK', state)
    advice = STATE_ADVICE.get(state, 'wait, it is changing its state')
    return Check('graph', name, 'WARN', state or 'does not answer', advice.format(name))


def unconnected(topic: str, kind: str, cameras: Cameras) -> Check:
    """Say that nothing publishes a detector's input, and which topic may have been meant."""
    same = [name for name, other in cameras if other == kind]
    near = difflib.get_close_matches(topic, same, 1, SIMILAR) or (same if len(same) == 1 else [])
    if near:
        wanted, meant = image_topic(topic, kind), image_topic(near[0], kind)
        advice = f'remap {wanted} to {meant} (the launch file: image_topic:={meant})'
    elif cameras and not same:
        other, other_kind = cameras[0]
        advice = f'only {_short(other_kind)} is published: {use(other, other_kind)}'
    else:
        advice = 'start the camera driver, or remap the topic'
    return Check('graph', topic, 'FAIL', 'is an input of the detector without a publisher', advice)


def wrong_type(topic: str, kind: str, published: str) -> Check:
    """Say that a detector's input is published with another type, which never arrives."""
    return Check('graph', topic, 'FAIL',
                 f'has {_short(published)}, the detector takes {_short(kind)}',
                 use(topic, published) if published in IMAGES else 'it has no images')


def use(topic: str, kind: str) -> str:
    """Return how to make a detector take the images of this topic."""
    name = image_topic(topic, kind)
    if kind == RAW:
        return f'set input_transport to raw and image_topic to {name}'
    advice = f'set input_transport to compressed and image_topic to {name}'
    return advice if name != topic else f'{advice}, and remap {topic}/compressed to {topic}'


def image_topic(topic: str, kind: str) -> str:
    """Return what image_raw is remapped to for this topic: compressed images are beside it."""
    return topic.removesuffix('/compressed') if kind == COMPRESSED else topic


def qos_checks(
    topic: str, publishers: list[TopicEndpointInfo], subscriptions: list[TopicEndpointInfo],
) -> Iterator[Check]:
    """Return a failure for each publisher and subscription of a type that never talk."""
    for publisher in publishers:
        for subscription in subscriptions:
            if publisher.topic_type != subscription.topic_type:
                continue
            result, reason = qos_check_compatible(
                publisher.qos_profile, subscription.qos_profile)
            if result == QoSCompatibility.ERROR:
                yield Check('graph', topic, 'FAIL',
                            f'{_owner(publisher)} publishes what {_owner(subscription)} does not '
                            f'take: {reason.removeprefix("ERROR: ").strip().rstrip(";")}',
                            'let the publisher offer it, or change the subscription by its '
                            f'qos_overrides.{topic}.subscription parameters')


def get_state(node: Node, name: str) -> str:
    """Ask a lifecycle node for its state; an empty string if it does not answer."""
    client = node.create_client(GetState, f'{name}/get_state')
    try:
        if not client.wait_for_service(SERVICE_TIMEOUT_S):
            return ''
        futures = []
        for _ in range(2):  # the first answer is lost if the node has not found us yet
            futures.append(client.call_async(GetState.Request()))
            rclpy.spin_until_future_complete(node, futures[-1], timeout_sec=SERVICE_TIMEOUT_S / 2)
            for future in futures:
                if future.done():
                    return str(future.result().current_state.label)
        return ''
    finally:
        node.destroy_client(client)


def _listen(
    node: Node, cameras: Cameras, statuses: dict[str, DiagnosticStatus], seconds: float,
) -> dict[tuple[str, str], Traffic]:
    """Count the images of each topic, and keep the latest status of every component."""
    heard = {camera: Traffic() for camera in cameras}

    def receiver(found: Traffic) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            found.count += 1
            encoding = message.format if hasattr(message, 'format') else message.encoding
            found.encodings[encoding or 'no encoding'] += 1

        return receive

    def report(message: DiagnosticArray) -> None:
        statuses.update((status.name, status) for status in message.status)

    # Best effort and volatile: what every publisher can serve.
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    subscriptions = [
        node.create_subscription(IMAGES[kind], topic, receiver(heard[topic, kind]), qos)
        for topic, kind in cameras]
    subscriptions.append(node.create_subscription(DiagnosticArray, '/diagnostics', report, 10))
    _spin(node, 0.5)  # until the publishers know
    for found in heard.values():
        found.count = 0
    _spin(node, seconds)
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
    return heard


def _short(kind: str) -> str:
    return kind.rpartition('/')[2]


def _owner(endpoint: TopicEndpointInfo) -> str:
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def _spin(node: Node, seconds: float) -> None:
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        rclpy.spin_once(node, timeout_sec=left)
