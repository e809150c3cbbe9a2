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
from typing import Any

from cgdet_core.errors import UserError
from cgdet_ros.detection.parameters import SPECS
from cgdet_ros.tools.reference import BLOCK, PAGES, rewrite, TABLES, TOPICS
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STANDARD = {'/rosout', '/parameter_events', '/clock', '/thermal_detector/transition_event'}


def blocks() -> dict[str, str]:
    """Return the generated blocks of all reference pages by name."""
    return {match[2]: match[0] for path in PAGES.glob('*.md')
            for match in BLOCK.finditer(path.read_text())}


def test_the_pages_have_every_table() -> None:
    assert PAGES == ROOT / 'docs' / 'reference' and blocks().keys() == TABLES.keys()


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


def test_parameter_file_contains_every_parameter_with_its_default() -> None:
    content = yaml.safe_load((ROOT / 'config' / 'thermal_detect.yaml').read_text())
    assert content == {'/**': {'ros__parameters': {s.name: s.default for s in SPECS}}}, (
        'config/thermal_detect.yaml differs from cgdet_ros/detection/parameters.py: update it.')


def topics_of(client: Any) -> set[tuple[str, str, str]]:
    """Return the topics of the detector on the graph, with type and direction."""
    node = ('thermal_detector', '/')
    topics = [('in', *t) for t in client.get_subscriber_names_and_types_by_node(*node)]
    topics += [('out', *t) for t in client.get_publisher_names_and_types_by_node(*node)]
    return {(name.removeprefix('/'), kind, direction)
            for direction, name, (kind, *_) in topics if name not in STANDARD}


@pytest.mark.ros
def test_topics_are_those_of_the_running_node(start: Callable) -> None:
    with start() as client:
        client.wait_active()
        named, always = ({(t.name.removeprefix('/'), t.type, t.direction) for t in TOPICS
                          if some or not t.optional} for some in (True, False))

        def found_all() -> bool:
            from rclpy.node import NodeNameNonExistentError
            try:
                return always <= topics_of(client.node)
            except NodeNameNonExistentError:  # not discovered yet
                return False

        client.wait(found_all)
        found = topics_of(client.node)
    assert found <= named, 'TOPICS in cgdet_ros/tools/reference.py differ from the node.'


def test_rewriting_changes_only_generated_blocks() -> None:
    text = 'before\n<!-- generated: topics -->\nSTALE\n<!-- end -->\nafter\n'
    new = rewrite(text)
    assert new.startswith('before\n<!-- generated: topics -->\n| topic |')
    assert new.endswith('|\n<!-- end -->\nafter\n') and 'STALE' not in new
    assert rewrite(new) == new
    with pytest.raises(UserError, match='no table colors, only topics'):
        rewrite(text.replace('topics', 'colors'))
