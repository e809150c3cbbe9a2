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

"""Check the transport of images between processes: DDS profile, shared memory, discovery."""

from collections.abc import Mapping
from pathlib import Path
import shutil
from xml.etree import ElementTree

from cgdet_core.doctor import Check

# Fast DDS 2 reads the first name; Fast DDS 3 (since Kilted) the second, and warns about the first.
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
FAST_DDS_2 = ('humble', 'iron', 'jazzy')
FRAME_BYTES = 640 * 512 * 2
DEFAULT_SEGMENT = 512 << 10  # of Fast DDS
ROOM = 4  # frames that a segment should hold: it keeps those that readers have not taken
RANGES = ('SUBNET', 'LOCALHOST', 'OFF', 'SYSTEM_DEFAULT')
LAST_SAFE_DOMAIN = 101  # larger ones share ports with outgoing connections


def profile_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variable to set for the distribution, or both if that is unknown."""
    distribution = environment.get('ROS_DISTRO')
    if not distribution:
        return VARIABLES
    return VARIABLES[:1] if distribution in FAST_DDS_2 else VARIABLES[1:]


def segment_size(profile: Path) -> int | None:
    """
    Return the shared-memory segment of a Fast DDS profile in bytes, None if it has none.

    OSError and ElementTree.ParseError for a file that cannot be read; ValueError for one without
    a default participant profile, or whose size is not a number.
    """
    root = ElementTree.fromstring(profile.read_bytes())
    for element in root.iter():  # the namespace differs between Fast DDS 2 and 3
        element.tag = element.tag.rpartition('}')[2]
    participant = root.find(".//participant[@is_default_profile='true']")
    if participant is None:
        raise ValueError('it has no participant profile with is_default_profile="true"')
    builtin = participant.findtext('.//useBuiltinTransports', 'true').strip() in ('true', '1')
    sizes = [DEFAULT_SEGMENT] if builtin else []
    used = {(e.text or '').strip() for e in participant.findall('.//userTransports/transport_id')}
    for descriptor in root.iter('transport_descriptor'):
        if (descriptor.findtext('transport_id', '').strip() in used
                and descriptor.findtext('type', '').strip() == 'SHM'):
            sizes.append(int(descriptor.findtext('segment_size', str(DEFAULT_SEGMENT))))
    return max(sizes) if sizes else None


def exports(profile: Path, environment: Mapping[str, str]) -> str:
    """Return the shell commands that set a profile."""
    return '; '.join(f'export {name}={profile}' for name in profile_variables(environment))


def profile_check(environment: Mapping[str, str], shipped: Path) -> Check:
    """Check that the variables name a readable profile with enough memory for thermal frames."""
    advice = f'set it for the camera driver and the detector: {exports(shipped, environment)}'
    advised = profile_variables(environment)
    read = advised if advised == VARIABLES[:1] else VARIABLES
    named = {name: environment[name] for name in read if environment.get(name)}
    if not named:
        return _profile('WARN', f'not set; a 640x512 16-bit frame ({FRAME_BYTES} bytes) does not '
                        f'fit into the default segment ({DEFAULT_SEGMENT} bytes)', advice)
    for name, path in named.items():
        try:
            size = segment_size(Path(path))
        except (OSError, ElementTree.ParseError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            return _profile('FAIL', f'{name}={path}: {reason}', advice)
        if size is None:
            return _profile('WARN', f'{path} has no shared-memory transport', advice)
        if size < ROOM * FRAME_BYTES:
            return _profile(
                'FAIL' if size < FRAME_BYTES else 'WARN',
                f'the segment of {path} has {size} bytes, a 640x512 16-bit frame {FRAME_BYTES}',
                f'set segment_size to {16 << 20}, or {advice}')
    if missing := [name for name in advised if name not in named]:
        return _profile('WARN', f'{missing[0]} is not set; some distributions do not read the '
                        'other name, or warn about it',
                        f'export {missing[0]}={next(iter(named.values()))}')
    return _profile('OK', f'{path}, with room for at least {ROOM} frames')


def _profile(level: str, found: str, advice: str = '') -> Check:
    return Check('transport', 'profile', level, found, advice)  # type: ignore[arg-type]


def shared_memory_check(folder: Path = Path('/dev/shm'), needed: int = 64 << 20) -> Check:
    """Check that the shared memory has `needed` bytes free, for the segments of some processes."""
    advice = 'in a container: docker run --shm-size=512m, or --ipc=host'
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check('transport', 'shared memory', 'FAIL', f'{folder}: {error.strerror}', advice)
    found = f'{free / 2**20:.0f} MiB free in {folder}'
    if free < needed:
        return Check('transport', 'shared memory', 'WARN', found, advice)
    return Check('transport', 'shared memory', 'OK', found)


def discovery_checks(environment: Mapping[str, str]) -> list[Check]:
    """Check the environment variables for discovery."""
    text = environment.get('ROS_DOMAIN_ID', '')
    advice = f'choose a number from 0 to {LAST_SAFE_DOMAIN}, the same for all nodes'
    if not text:
        domain = Check('discovery', 'ROS_DOMAIN_ID', 'OK', 'not set: 0')
    elif not text.isdecimal() or int(text) > 232:
        domain = Check('discovery', 'ROS_DOMAIN_ID', 'FAIL', f'{text!r}', advice)
    elif int(text) > LAST_SAFE_DOMAIN:
        domain = Check('discovery', 'ROS_DOMAIN_ID', 'WARN',
                       f'{text}: its ports may be in use by other programs', advice)
    else:
        domain = Check('discovery', 'ROS_DOMAIN_ID', 'OK', text)
    return [domain, _range_check(environment)]


def _range_check(environment: Mapping[str, str]) -> Check:
    scope = environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '')
    only = environment.get('ROS_LOCALHOST_ONLY', '')
    name, found = 'range', scope or 'not set: the local network'
    if scope and scope not in RANGES:
        return Check('discovery', name, 'FAIL', f'ROS_AUTOMATIC_DISCOVERY_RANGE={scope!r}',
                     f'choose from {", ".join(RANGES)}')
    if only == '1':
        found = 'ROS_LOCALHOST_ONLY=1: this machine only, the range is ignored'
    if scope == 'OFF':
        return Check('discovery', name, 'WARN', 'OFF: no other node is found',
                     'unset ROS_AUTOMATIC_DISCOVERY_RANGE, or set it to LOCALHOST')
    return Check('discovery', name, 'OK', found)
