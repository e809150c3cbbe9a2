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

"""The topics and services of the nodes, and the SROS 2 policy that allows exactly them."""

from dataclasses import dataclass
from xml.etree import ElementTree


@dataclass(frozen=True)
class Topic:
    """A topic of a node, relative to its namespace and to the camera's name, if there is one."""

    name: str
    type: str
    direction: str  # in, out
    description: str
    optional: bool = False  # depends on a parameter or an installed package


@dataclass(frozen=True)
class Service:
    """Services of a node with a common purpose, relative to its name."""

    names: tuple[str, ...]
    package: str
    description: str


@dataclass(frozen=True)
class Interface:
    """All topics and services of a node."""

    node: str
    topics: tuple[Topic, ...]
    services: tuple[Service, ...]


IMAGES = (
    Topic('image_raw', 'sensor_msgs/msg/Image', 'in', '`mono8`, `8UC1`, `mono16`, `16UC1`, '
          '`32FC1`; all other encodings through cv_bridge, color as gray; best effort, depth 1'),
    Topic('ffc_status', 'std_msgs/msg/Bool', 'in', 'if `ffc_topic` is this name: true while the '
          'shutter of the camera is closed; best effort, depth 1', optional=True),
    Topic('image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 'in', 'instead, with '
          '`input_transport: compressed`: PNG (8 or 16 bit), JPEG, TIFF', optional=True),
)
STATUS = (
    Topic('bond', 'bond/msg/Status', 'out', 'the heartbeat of the active node for '
          "nav2's lifecycle manager, if the package bond is installed", optional=True),
    Topic('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', 'out', '1 Hz: state, rates, '
          'dropped frames, latency percentiles, last error'),
)
TOPICS = (
    *IMAGES,
    Topic('detections', 'vision_msgs/msg/Detection2DArray', 'out', 'one per processed image, also '
          "when empty; the image's header; boxes in its pixels"),
    Topic('label_info', 'vision_msgs/msg/LabelInfo', 'out', 'latched: class ids, names, '
          'threshold'),
    Topic('vision_info', 'vision_msgs/msg/VisionInfo', 'out', 'latched: model, and topic of the '
          'class map'),
    Topic('debug_image', 'sensor_msgs/msg/Image', 'out', 'the image with its detections, drawn '
          'only if there is a subscriber'),
    Topic('annotations', 'foxglove_msgs/msg/ImageAnnotations', 'out', 'the same as an overlay for '
          'Foxglove, if foxglove_msgs is installed', optional=True),
    Topic('latency_histogram', 'std_msgs/msg/UInt32MultiArray', 'out', '1 Hz, if the parameter of '
          'that name is true'),
    *STATUS,
)
TRACKER_TOPICS = (
    *IMAGES,
    Topic('~/start', 'vision_msgs/msg/Detection2D', 'in', 'follow the object in this box, on the '
          'image with its stamp (0: the newest); an `id` becomes that of the target, the class id '
          'is kept'),
    Topic('~/point', 'geometry_msgs/msg/PointStamped', 'in', 'follow what is at this point (x, y '
          'in pixels) of the image with its stamp (0: the newest): a detection, or else a box of '
          '`point_size_px`'),
    Topic('~/follow_id', 'std_msgs/msg/String', 'in', 'follow the detection with this id, which '
          'becomes that of the target'),
    Topic('~/stop_id', 'std_msgs/msg/String', 'in', 'end the target with this id'),
    Topic('detections', 'vision_msgs/msg/Detection2DArray', 'in', 'of the detector node, for '
          '`~/follow_id` and `~/point`'),
    Topic('rgb/image_raw', 'sensor_msgs/msg/Image', 'in', 'if `rgb_topic` is this name: `rgb8`, '
          '`bgr8` and other color (CompressedImage if the name ends with /compressed), registered '
          'to the thermal pixels', optional=True),
    Topic('~/target', 'vision_msgs/msg/Detection2D', 'out', 'one per target and processed image; '
          "the image's header; the box in its pixels, a prediction unless the target is tracked; "
          'the score is the probability that it is on the target; `id` and class id stay for the '
          'life of the target'),
    Topic('~/state', 'diagnostic_msgs/msg/DiagnosticArray', 'out', 'one per processed image, also '
          "without targets; the image's header; a status per target: OK tracked, WARN uncertain, "
          'ERROR lost'),
    Topic('~/debug_image', 'sensor_msgs/msg/Image', 'out', 'the image with its targets, drawn '
          'only if there is a subscriber'),
    *STATUS,
)
# Of every lifecycle node: name, direction.
STANDARD_TOPICS = (('/clock', 'in'), ('/parameter_events', 'in'), ('/parameter_events', 'out'),
                   ('/rosout', 'out'), ('~/transition_event', 'out'))
SERVICES = (
    Service(('enable',), 'std_srvs', 'SetBool; true: configure if necessary, and activate; false: '
            'deactivate, the model stays loaded; if std_srvs is installed'),
    Service(('change_state', 'get_state', 'get_available_states', 'get_available_transitions',
             'get_transition_graph'), 'lifecycle_msgs', 'the lifecycle'),
    Service(('describe_parameters', 'get_parameters', 'get_parameter_types', 'list_parameters',
             'set_parameters', 'set_parameters_atomically'), 'rcl_interfaces', 'the parameters'),
    Service(('get_logger_levels', 'set_logger_levels'), 'rcl_interfaces', 'the level of each '
            'logger; not on Humble'),
    Service(('get_type_description',), 'type_description_interfaces', 'the definitions of message '
            'types; not on Humble'),
)
TRACKER_SERVICES = (
    Service(('stop',), 'std_srvs', 'Trigger; ends all targets, also those that wait for their '
            'image; if std_srvs is installed'),
    *SERVICES,
)
DETECTOR = Interface('thermal_detector', TOPICS, SERVICES)
TRACKER = Interface('target_tracker', TRACKER_TOPICS, TRACKER_SERVICES)


def policy() -> str:
    """Return the policy as XML, for `ros2 security create_permission`; an enclave per node."""
    root = ElementTree.Element('policy', version='0.2.0')
    enclaves = ElementTree.SubElement(root, 'enclaves')
    for interface in (DETECTOR, TRACKER):
        enclave = ElementTree.SubElement(enclaves, 'enclave', path=f'/{interface.node}')
        profile = ElementTree.SubElement(
            ElementTree.SubElement(enclave, 'profiles'), 'profile', ns='/', node=interface.node)
        topics = [(t.name, t.direction) for t in interface.topics] + list(STANDARD_TOPICS)
        for rule, direction in (('subscribe', 'in'), ('publish', 'out')):
            _allow(profile, 'topic', rule, [name for name, way in topics if way == direction])
        _allow(profile, 'service', 'reply',
               [f'~/{name}' for service in interface.services for name in service.names])
    ElementTree.indent(root)
    return (f'<?xml version="1.0" encoding="UTF-8"?>\n'
            f'{ElementTree.tostring(root, encoding="unicode")}\n')


def _allow(profile: ElementTree.Element, kind: str, rule: str, names: list[str]) -> None:
    parent = ElementTree.SubElement(profile, f'{kind}s', {rule: 'ALLOW'})
    for name in sorted(names):
        ElementTree.SubElement(parent, kind).text = name
