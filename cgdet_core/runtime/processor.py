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

"""The processor, which measurements and cached choices are made for, and the share of it."""

from collections.abc import Iterator
import os
from pathlib import Path
import platform
import re

CGROUPS = Path('/sys/fs/cgroup')


def processor() -> str:
    """Return the name of the processor."""
    found = re.search(r'(?m)^(?:model name|Model).*?:(.*)', _read('/proc/cpuinfo'))
    return found[1].strip() if found else (
        _read('/proc/device-tree/model') or platform.processor() or 'unknown')


def features() -> set[str]:
    """Return the instruction sets that Linux names, for example amx_bf16."""
    found = re.search(r'(?m)^(?:flags|Features).*?:(.*)', _read('/proc/cpuinfo'))
    return set(found[1].split()) if found else set()


def available_cores(memberships: str | None = None, root: Path = CGROUPS) -> int:
    """
    Return the cores this process may use: of its affinity mask, at most its CPU quota.

    A container's quota (docker --cpus) leaves the mask as it is; more threads than the quota are
    stopped while others wait for them. A fraction of a core is not counted, but at least one is.
    memberships: the text of /proc/self/cgroup, by default this process's; root: where control
    groups are mounted.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = _quotas(_read('/proc/self/cgroup') if memberships is None else memberships, root)
    return max(1, min([cores, *(int(quota + 1e-6) for quota in quotas)]))


def _quotas(memberships: str, root: Path) -> Iterator[float]:
    """Yield the CPU quotas, in cores, of this process's control groups and those above them."""
    for line in memberships.splitlines():
        _, controllers, name = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        # Version 1 has a mount for each set of controllers, version 2 one for all.
        for mount in {root / controllers, root / 'cpu'} if controllers else {root}:
            group = mount / name.strip('/')
            # A container sees its own group at the mount, also where it has the host's name.
            for folder in {mount, group, *(p for p in group.parents if mount in p.parents)}:
                if controllers:
                    words = [_read(folder / f'cpu.cfs_{key}_us') for key in ('quota', 'period')]
                else:
                    words = _read(folder / 'cpu.max').split()
                # Without a limit: "max" in version 2, -1 in version 1.
                if len(words) == 2 and words[0].isdecimal() and int(words[1] or 0):
                    yield int(words[0]) / int(words[1])


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors='replace').strip('\0\n ')
    except OSError:
        return ''
