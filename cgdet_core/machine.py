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

"""Description of the machine that a measurement was made on."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from itertools import islice
import os
from pathlib import Path
import platform
import re
import subprocess
from typing import Any

from cgdet_core.runtime.processor import available_cores, processor

PACKAGES = ('numpy', 'opencv-python-headless', 'opencv-python', 'onnxruntime', 'onnxruntime-gpu',
            'openvino', 'tensorrt', 'tensorrt-rtx')
BUSY = 0.25  # load per core above which a machine is reported as busy


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, governor, clock, load, versions, date and commit."""
    load = os.getloadavg()[0]
    cores = available_cores()
    return {
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'system': f'{platform.system()} {platform.release()} {platform.machine()}',
        'cpu': processor(), 'cores': cores, 'cores_of_machine': os.cpu_count(),
        'governor': _read(Path('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor')),
        'mhz': clock(), 'load': round(load, 2), 'busy': load > BUSY * cores,
        'niceness': os.nice(0), 'python': platform.python_version(),
        'packages': installed(PACKAGES),
        'commit': commit()}


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed, without importing them."""
    return {package: found.version for package in packages
            for found in islice(metadata.distributions(name=package), 1)}


def clock() -> int | None:
    """Return the mean clock of the cores in MHz, or None if the system does not report it."""
    found = re.findall(r'(?m)^cpu MHz.*?:(.*)', _read(Path('/proc/cpuinfo')) or '')
    if not found:  # not in /proc/cpuinfo on ARM
        cores = Path('/sys/devices/system/cpu').glob('cpu[0-9]*/cpufreq/scaling_cur_freq')
        found = [int(text) / 1000 for core in cores if (text := _read(core))]
    return round(sum(map(float, found)) / len(found)) if found else None


def memory() -> dict[str, float | None]:
    """Return this process's resident memory and its peak since `forget_peak`, in MB."""
    kilobytes = dict(re.findall(r'(?m)^(\w+):\s+(\d+) kB', _read(Path('/proc/self/status')) or ''))
    return {name: round(int(kilobytes[key]) * 1024 / 1e6, 1) if key in kilobytes else None
            for name, key in (('resident', 'VmRSS'), ('peak', 'VmHWM'))}


def forget_peak() -> None:
    """Reset the peak of the resident memory; do nothing if the system does not support it."""
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors='replace').strip('\0\n ')
    except OSError:
        return None


def commit() -> str | None:
    """Return the commit of this code, with a plus if it was modified; None outside git."""
    here = Path(__file__).resolve().parent
    if not (here.parent / '.git').exists():
        return None
    try:
        found = subprocess.run(
            ['git', '-C', str(here), 'describe', '--always', '--abbrev=12', '--dirty=+',
             '--exclude=*'], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
