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

"""Checks of valid and invalid profiles, shared memory and domains."""

from pathlib import Path

from cgdet_ros.doctor.transport import (
    discovery_checks,
    FRAME_BYTES,
    profile_check,
    segment_size,
    shared_memory_check,
    VARIABLES,
)
import pytest

SHIPPED = Path(__file__).resolve().parents[2] / 'config' / 'fastdds.xml'


def profile(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = SHIPPED.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / 'profile.xml'
    path.write_text(text)
    return path


def test_the_shipped_profile_has_room_for_thermal_frames() -> None:
    assert segment_size(SHIPPED) == 16 << 20 > 20 * FRAME_BYTES
    assert profile_check(dict.fromkeys(VARIABLES, str(SHIPPED)), SHIPPED).level == 'OK'


def test_a_profile_without_namespace_and_size_has_the_default_segment(tmp_path: Path) -> None:
    path = profile(tmp_path, ('<segment_size>16777216</segment_size>', ''),
                   (' xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"', ''))
    assert segment_size(path) == 512 << 10


def test_builtin_transports_count(tmp_path: Path) -> None:
    path = profile(tmp_path, ('<type>SHM</type>', '<type>UDPv6</type>'),
                   ('Transports>false<', 'Transports>true<'))
    assert segment_size(path) == 512 << 10


@pytest.mark.parametrize(('changes', 'level', 'words'), [
    ((('16777216', '500000'),), 'FAIL', 'has 500000 bytes'),
    ((('16777216', '1000000'),), 'WARN', 'has 1000000 bytes'),
    ((('16777216', 'large'),), 'FAIL', 'large'),
    ((('<type>SHM</type>', '<type>UDPv6</type>'),), 'WARN', 'no shared-memory transport'),
    (((' is_default_profile="true"', ''),), 'FAIL', 'is_default_profile'),
    ((('</profiles>', ''),), 'FAIL', 'no element found')])
def test_a_wrong_profile_is_named_with_its_fault(
    tmp_path: Path, changes: tuple[tuple[str, str], ...], level: str, words: str,
) -> None:
    path = profile(tmp_path, *changes)
    check = profile_check(dict.fromkeys(VARIABLES, str(path)), SHIPPED)
    assert check.level == level and words in check.found and str(path) in check.found
    assert f'export {VARIABLES[0]}={SHIPPED}' in check.advice


def test_missing_profiles(tmp_path: Path) -> None:
    assert profile_check({}, SHIPPED).level == 'WARN'
    gone = profile_check({VARIABLES[0]: str(tmp_path / 'no.xml')}, SHIPPED)
    assert gone.level == 'FAIL' and 'No such file' in gone.found
    one = profile_check({VARIABLES[0]: str(SHIPPED)}, SHIPPED)
    assert one.level == 'WARN' and one.advice == f'export {VARIABLES[1]}={SHIPPED}'


@pytest.mark.parametrize(('distribution', 'name', 'other'), [
    ('humble', *VARIABLES), ('jazzy', *VARIABLES), ('kilted', *reversed(VARIABLES))])
def test_a_distribution_needs_the_variable_that_it_reads(
    distribution: str, name: str, other: str,
) -> None:
    here = {'ROS_DISTRO': distribution}
    assert profile_check(here | {name: str(SHIPPED)}, SHIPPED).level == 'OK'
    check = profile_check(here | {other: str(SHIPPED)}, SHIPPED)
    assert check.level == 'WARN' and check.advice.endswith(f'export {name}={SHIPPED}')


def test_shared_memory(tmp_path: Path) -> None:
    assert shared_memory_check(tmp_path, needed=0).level == 'OK'
    assert shared_memory_check(tmp_path, needed=1 << 60).level == 'WARN'
    assert shared_memory_check(tmp_path / 'none').level == 'FAIL'


@pytest.mark.parametrize(('environment', 'levels'), [
    ({}, ('OK', 'OK')),
    ({'ROS_DOMAIN_ID': '42', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, ('OK', 'OK')),
    ({'ROS_DOMAIN_ID': '102'}, ('WARN', 'OK')),
    ({'ROS_DOMAIN_ID': '233'}, ('FAIL', 'OK')),
    ({'ROS_DOMAIN_ID': 'lab'}, ('FAIL', 'OK')),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'localhost'}, ('OK', 'FAIL')),
    ({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}, ('OK', 'WARN'))])
def test_discovery(environment: dict[str, str], levels: tuple[str, str]) -> None:
    assert tuple(c.level for c in discovery_checks(environment)) == levels


def test_the_older_variable_wins_over_the_range() -> None:
    _, scope = discovery_checks({'ROS_LOCALHOST_ONLY': '1'})
    assert 'this machine only' in scope.found
