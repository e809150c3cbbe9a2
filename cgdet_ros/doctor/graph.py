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

"""Check the ROS graph around our nodes: cameras, subscriptions, states, diagnostics."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
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
# The roles of our nodes, which are in their status names, and what each publishes.
PUBLISHED = {'detector': 'vision_msgs/msg/Detection2DArray',
             'tracker': 'vision_msgs/msg/Detection2D'}
LEVELS: dict[bytes, Level] = {DiagnosticStatus.OK: 'OK', DiagnosticStatus.WARN: 'WARN'}
STATE_ADVICE = {
    'unconfigured': 'ros2 lifecycle set {} configure, then activate',
    'inactive': 'ros2 lifecycle set {} activate',
    'finalized': 'it was shut down: restart it',
    '': 'check its log; restart it if its process hangs'}
DISCOVERY_S = 1.5
SERVICE_TIMEOUT_S = 3.0
SIMILAR = 0.5  # minimum ratio of difflib for a topic to be suggested in place of another

Cameras = list[tuple[str, str]]  # topic and type; a topic may have both types


@dataclass
class FoundNode:
    """A node of ours: its name and role, its image inputs, its pictures and all its topics."""

    name: str
    role: str
    inputs: dict[str, str]  # topic: type
    pictures: set[str]
    topics: set[str]


def graph_checks(node: Node, seconds: float) -> Iterator[Check]:
    """Check the graph after receiving images and diagnostics for `seconds`."""
    _spin(node, DISCOVERY_S)
    # A debug image is not a camera, and subscribing to it would make the node draw it.
    cameras = image_topics(node, find_nodes(node, ()))
    statuses: dict[str, DiagnosticStatus] = {}
    heard = _listen(node, cameras, statuses, seconds)
    if not cameras:
        yield Check('graph', 'images', 'WARN', 'no images are published',
                    'start the camera driver; check its ROS_DOMAIN_ID and discovery range')
    for topic, kind in cameras:
        yield camera_check(topic, kind, heard[topic, kind], seconds)
    nodes = find_nodes(node, statuses)
    if not nodes:
        yield Check('graph', 'detector', 'WARN', 'no detector or tracker node is running',
                    'ros2 launch cgdet_ros thermal_detect.launch.py' if which('ros2')
                    else 'python -m cgdet_ros.detector_node')
    running = Counter(f'{namespace.rstrip("/")}/{name}'
                      for name, namespace in node.get_node_names_and_namespaces())
    for found in nodes:
        yield from node_checks(node, found, statuses, cameras)
        if (number := running[found.name]) > 1:
            yield Check('graph', found.name, 'FAIL', f'{number} nodes have this name, and each '
                        'publishes and answers', 'end the others, or start them with another '
                        'node_name or namespace (one that was killed goes after 20 s)')


def image_topics(node: Node, ours: Iterable[FoundNode]) -> Cameras:
    """Return the image topics, with their types, that do not show what our nodes draw."""
    names = {found.name for found in ours}
    # image_transport publishes a picture again below its name.
    drawn = tuple(f'{topic}/' for found in ours for topic in found.pictures)
    return [(topic, kind) for topic, _ in node.get_topic_names_and_types()
            if not f'{topic}/'.startswith((f'/{node.get_name()}/', *drawn))
            for kind in sorted(published_types(node, topic, names) & IMAGES.keys())]


def published_types(node: Node, topic: str, ours: Container[str]) -> set[str]:
    """Return the types published by nodes other than these of ours, without subscriptions."""
    return {publisher.topic_type for publisher in node.get_publishers_info_by_topic(topic)
            if _owner(publisher) not in ours}


def find_nodes(node: Node, statuses: Container[str]) -> list[FoundNode]:
    """Return the lifecycle nodes that publish what our nodes do, or a status of one."""
    found = []
    for name, namespace in set(node.get_node_names_and_namespaces()):
        full = f'{namespace.rstrip("/")}/{name}'
        try:
            published = dict(node.get_publisher_names_and_types_by_node(name, namespace))
            subscribed = dict(node.get_subscriber_names_and_types_by_node(name, namespace))
            services = dict(node.get_service_names_and_types_by_node(name, namespace))
        except RuntimeError:  # the node has ended in the meantime
            continue
        role = next((role for role, wanted in PUBLISHED.items()
                     if f'{full}: {role}'.lstrip('/') in statuses
                     or any(wanted in kinds for kinds in published.values())), '')
        if role and f'{full}/get_state' in services:
            inputs = {topic: kind for topic, kinds in subscribed.items() for kind in kinds
                      if kind in IMAGES}
            pictures = {topic for topic, kinds in published.items() if IMAGES.keys() & kinds}
            found.append(FoundNode(full, role, inputs, pictures, {*published, *subscribed}))
    return sorted(found, key=lambda f: f.name)


def camera_check(topic: str, kind: str, heard: Counter[str], seconds: float) -> Check:
    """Report the encodings (of which `heard` has the counts) and the rate of a camera."""
    if not heard:
        return Check('graph', topic, 'WARN', f'has a publisher, but sent nothing in {seconds} s',
                     'check that the camera is running; if it is, see transport')
    return Check('graph', topic, 'OK',
                 f'{_short(kind)} {", ".join(sorted(heard))} at {heard.total() / seconds:.1f} Hz')


def node_checks(
    node: Node, found: FoundNode, statuses: dict[str, DiagnosticStatus], cameras: Cameras,
) -> Iterator[Check]:
    """Check the state, the diagnostics, the inputs and the QoS of a node of ours."""
    yield state_check(found.name, get_state(node, found.name))
    prefix = f'{found.name}:'.lstrip('/')
    for name, status in statuses.items():
        # A target that is lost is no fault of the robot.
        if name.startswith(prefix) and not name.startswith(f'{prefix} target '):
            yield Check('graph', 'diagnostics', LEVELS.get(status.level, 'FAIL'),
                        f'{name}: {status.message}')
    rgb = {value.value for value in getattr(statuses.get(f'{prefix} RGB'), 'values', ())
           if value.key == 'topic'}
    free = [camera for camera in cameras if camera[0] not in found.inputs]
    for topic, kind in found.inputs.items():
        published = published_types(node, topic, [found.name])
        if kind in published:
            continue
        if topic in rgb:
            yield unused_rgb(topic, kind)
        elif published:
            yield wrong_type(topic, kind, min(published), found.role)
        else:
            yield unconnected(topic, kind, free, found.role)
    for topic in sorted(found.topics):
        yield from qos_checks(topic, node.get_publishers_info_by_topic(topic),
                              node.get_subscriptions_info_by_topic(topic))


def state_check(name: str, state: str) -> Check:
    """Report the state of a lifecycle node, '' if it does not respond, and how to activate it."""
    if state == 'active':
        return Check('graph', name, 'OK', state)
    advice = STATE_ADVICE.get(state, 'wait, a transition is in progress')
    return Check('graph', name, 'WARN', state or 'does not respond', advice.format(name))


def unused_rgb(topic: str, kind: str) -> Check:
    """Report that nothing publishes the RGB images of a tracker, which goes on without."""
    return Check('graph', topic, 'WARN',
                 f'has no publisher of {_short(kind)}, the RGB images of the tracker',
                 'start the RGB camera, or set rgb_topic to its topic, whose name ends with '
                 '/compressed if it has CompressedImage')


def unconnected(topic: str, kind: str, cameras: Cameras, role: str = 'detector') -> Check:
    """Report that an input of a node has no publisher, and suggest a topic."""
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
    return Check('graph', topic, 'FAIL', f'is an input of the {role} without publisher', advice)


def wrong_type(topic: str, kind: str, published: str, role: str = 'detector') -> Check:
    """Report that an input of a node is published with another type."""
    return Check('graph', topic, 'FAIL',
                 f'has {_short(published)}, the {role} expects {_short(kind)}',
                 use(topic, published) if published in IMAGES else 'it is not an image topic')


def use(topic: str, kind: str) -> str:
    """Return how to configure a node for the images of this topic."""
    name = image_topic(topic, kind)
    if kind == RAW:
        return f'set input_transport to raw and image_topic to {name}'
    advice = f'set input_transport to compressed and image_topic to {name}'
    return advice if name != topic else f'{advice}, and remap {topic}/compressed to {topic}'


def image_topic(topic: str, kind: str) -> str:
    """Return what image_raw is remapped to for this topic, the raw one of compressed images."""
    return topic.removesuffix('/compressed') if kind == COMPRESSED else topic


def qos_checks(
    topic: str, publishers: list[TopicEndpointInfo], subscriptions: list[TopicEndpointInfo],
) -> Iterator[Check]:
    """Yield a failure for each incompatible publisher and subscription, qos_overrides included."""
    for publisher in publishers:
        for subscription in subscriptions:
            if publisher.topic_type != subscription.topic_type:
                continue
            result, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
            if result == QoSCompatibility.ERROR:
                yield Check('graph', topic, 'FAIL',
                            f'{_owner(publisher)} and {_owner(subscription)} have incompatible '
                            f'QoS: {reason.removeprefix("ERROR: ").strip().rstrip(";")}',
                            'change the publisher, or the subscription with its '
                            f'qos_overrides.{topic}.subscription parameters')


def get_state(node: Node, name: str) -> str:
    """Return the state of a lifecycle node, empty if it does not respond."""
    client = node.create_client(GetState, f'{name}/get_state')
    try:
        if not client.wait_for_service(SERVICE_TIMEOUT_S):
            return ''
        futures = []
        for _ in range(2):  # the first response is lost if the node has not discovered the client
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
) -> dict[tuple[str, str], Counter[str]]:
    """Count the images of each topic by encoding, and store the latest of each status."""
    heard: dict[tuple[str, str], Counter[str]] = {camera: Counter() for camera in cameras}

    def receiver(found: Counter[str]) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            encoding = message.format if hasattr(message, 'format') else message.encoding
            found[encoding or 'no encoding'] += 1

        return receive

    def report(message: DiagnosticArray) -> None:
        statuses.update((status.name, status) for status in message.status)

    # Best effort and volatile: matches every publisher.
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    subscriptions = [
        node.create_subscription(IMAGES[kind], topic, receiver(heard[topic, kind]), qos)
        for topic, kind in cameras]
    subscriptions.append(node.create_subscription(DiagnosticArray, '/diagnostics', report, 10))
    _spin(node, 0.5)  # until the publishers have discovered the subscriptions
    for found in heard.values():
        found.clear()
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
