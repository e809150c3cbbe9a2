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

"""The reference pages and the parameter file are equal to the code."""

from collections.abc import Callable
from pathlib import Path
import re
from typing import Any
from xml.etree import ElementTree

from cgdet_core.errors import UserError
from cgdet_ros.detection.parameters import SPECS
from cgdet_ros.tools.interfaces import DETECTOR, Interface, policy, STANDARD_TOPICS, TRACKER
from cgdet_ros.tools.reference import BLOCK, PAGES, rewrite, TABLES
from cgdet_ros.tracking.parameters import SPECS as TRACKER_SPECS
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Not on Humble, or without std_srvs.
NEWER = ('get_logger_levels', 'set_logger_levels', 'get_type_description', 'enable', 'stop')


def blocks() -> dict[str, str]:
    """Return the generated blocks of all reference pages by name."""
    return {match[2]: match[0] for path in PAGES
            for match in BLOCK.finditer(path.read_text())}


def test_the_pages_have_every_table() -> None:
    assert blocks().keys() == TABLES.keys()


@pytest.mark.parametrize('name', TABLES)
def test_table_is_equal_to_the_code(name: str) -> None:
    if name == 'launch':
        pytest.importorskip('launch_ros', reason='no ROS distribution with launch here')
    if name in ('recipes', 'grids'):
        pytest.importorskip('lightning', reason='training is not installed')
    found = blocks()[name]
    assert found == rewrite(found), (
        'docs/reference is out of date: run "python -m cgdet_ros.tools.reference".')


def test_every_key_and_option_has_a_meaning() -> None:
    rows = [line for block in blocks().values() for line in block.splitlines()
            if line.startswith('| `')]
    assert len(rows) > 200
    assert [row for row in rows if row.endswith('|  |')] == []


@pytest.mark.parametrize(('file', 'specs'), [
    ('thermal_detect.yaml', SPECS), ('track_target.yaml', TRACKER_SPECS)])
def test_parameter_file_contains_every_parameter_with_its_default(file: str, specs: Any) -> None:
    content = yaml.safe_load((ROOT / 'config' / file).read_text())
    assert content == {'/**': {'ros__parameters': {s.name: s.default for s in specs}}}, (
        f'config/{file} differs from SPECS of the node: update it.')


def topics_of(client: Any, node: str) -> set[tuple[str, str, str]]:
    """Return the topics of a node on the graph, with type and direction."""
    place = (node, '/')
    standard = {'/rosout', '/parameter_events', '/clock', f'/{node}/transition_event'}
    topics = [('in', *t) for t in client.get_subscriber_names_and_types_by_node(*place)]
    topics += [('out', *t) for t in client.get_publisher_names_and_types_by_node(*place)]
    return {(name, kind, direction)
            for direction, name, (kind, *_) in topics if name not in standard}


def check_interface(client: Any, interface: Interface) -> None:
    """Assert that the running node has the topics and services of an interface, and no others."""
    node = interface.node
    named, always = ({(full_name(t.name, node), t.type, t.direction) for t in interface.topics
                      if some or not t.optional} for some in (True, False))
    listed = {f'/{node}/{name}' for s in interface.services for name in s.names}
    newer = {f'/{node}/{name}' for name in NEWER}

    def services() -> set[str]:
        return {name for name, _ in client.node.get_service_names_and_types_by_node(node, '/')}

    def found_all() -> bool:
        from rclpy.node import NodeNameNonExistentError
        try:
            return always <= topics_of(client.node, node) and listed - services() <= newer
        except NodeNameNonExistentError:  # not discovered yet
            return False

    client.wait(found_all)
    subscribed, published = (
        {name for name, _ in get(node, '/')} for get in (
            client.node.get_subscriber_names_and_types_by_node,
            client.node.get_publisher_names_and_types_by_node))
    where = 'cgdet_ros/tools/interfaces.py differs from the node.'
    assert topics_of(client.node, node) <= named, where
    assert services() <= listed, where
    assert services() <= allowed(node, 'services', 'reply')
    assert subscribed <= allowed(node, 'topics', 'subscribe')
    assert published <= allowed(node, 'topics', 'publish')


@pytest.mark.ros
def test_topics_are_those_of_the_running_node(start: Callable) -> None:
    with start() as client:
        client.wait_active()
        check_interface(client, DETECTOR)


@pytest.mark.ros
def test_topics_are_those_of_the_running_tracker(track: Callable) -> None:
    with track() as client:
        client.wait_active()
        check_interface(client, TRACKER)


def full_name(name: str, node: str) -> str:
    """Return the name of a topic or service of a node in no namespace."""
    name = name.replace('~', f'/{node}')
    return name if name.startswith('/') else f'/{name}'


def allowed(node: str, kind: str, rule: str) -> set[str]:
    """Return the full names that the policy allows a node for a rule."""
    profile, = ElementTree.fromstring(policy()).findall(
        f'enclaves/enclave[@path="/{node}"]/profiles/profile')
    assert (profile.get('ns'), profile.get('node')) == ('/', node)
    return {full_name(e.text or '', node)
            for e in profile.findall(f'{kind}[@{rule}="ALLOW"]/{kind[:-1]}')}


def test_the_policy_allows_what_the_nodes_have_and_nothing_else() -> None:
    root = ElementTree.fromstring(policy())
    assert root.tag == 'policy' and root.get('version') == '0.2.0'
    enclaves = root.findall('enclaves/enclave')
    assert [e.get('path') for e in enclaves] == ['/thermal_detector', '/target_tracker']
    for enclave, interface in zip(enclaves, (DETECTOR, TRACKER)):
        rules = [(e.tag, *e.attrib.items()) for e in enclave.findall('profiles/profile/*')]
        assert rules == [('topics', ('subscribe', 'ALLOW')), ('topics', ('publish', 'ALLOW')),
                         ('services', ('reply', 'ALLOW'))]
        texts = [e.text for e in enclave.findall('profiles/profile/*/*')]
        assert all(re.fullmatch(r'(/|~/)?[a-z_]+(/[a-z_]+)*', text or '') for text in texts)
        ways = [t.direction for t in interface.topics] + [way for _, way in STANDARD_TOPICS]
        assert len(texts) == len(ways) + sum(len(s.names) for s in interface.services)


def test_rewriting_changes_only_generated_blocks() -> None:
    text = 'before\n<!-- generated: topics -->\nSTALE\n<!-- end -->\nafter\n'
    new = rewrite(text)
    assert new.startswith('before\n<!-- generated: topics -->\n| topic |')
    assert new.endswith('|\n<!-- end -->\nafter\n') and 'STALE' not in new
    assert rewrite(new) == new
    with pytest.raises(UserError, match='no table colors, only topics'):
        rewrite(text.replace('topics', 'colors'))
