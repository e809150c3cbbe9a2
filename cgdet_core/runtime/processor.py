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

"""The processor, which measurements and cached choices are made for."""

from pathlib import Path
import platform
import re


def processor() -> str:
    """Return the name of the processor."""
    found = re.search(r'(?m)^(?:model name|Model).*?:(.*)', _read('/proc/cpuinfo'))
    return found[1].strip() if found else (
        _read('/proc/device-tree/model') or platform.processor() or 'unknown')


def features() -> set[str]:
    """Return the instruction sets that Linux names, for example amx_bf16."""
    found = re.search(r'(?m)^(?:flags|Features).*?:(.*)', _read('/proc/cpuinfo'))
    return set(found[1].split()) if found else set()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors='replace').strip('\0\n ')
    except OSError:
        return ''
