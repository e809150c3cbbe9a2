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

"""
Write docs/licenses.md: the licenses of what ships, and of what it is installed with.

Run `.venv/bin/python dev/licenses.py` after dev/lock.py. What ships is read from the cards of the
models and NOTICE, the packages from dev/locks and the metadata that each has installed here.
"""

from importlib.metadata import distribution, PackageNotFoundError
import json
from pathlib import Path
import re
import sys

from setup_env import FULL, LOCKS, ROOT, RUNTIME

CLASSIFIER = 'License :: '
HEAD = """# Licenses

This page is written by `python dev/licenses.py`.

## What ships

The code is under the [Apache License 2.0](../LICENSE). A model's weights depend on data; its card
names them and their license (`training`). Weights that "cgdet train" can begin with do not ship;
they are in [NOTICE](../NOTICE).

| model | trained on | license of the data | began with |
|---|---|---|---|
"""


def locked(name: str) -> list[str]:
    """Return the packages of a lock."""
    text = (LOCKS / f'{name}.txt').read_text()
    return list(dict.fromkeys(re.findall(r'^([a-z0-9][a-z0-9._-]*)==', text, re.MULTILINE)))


def license_of(package: str) -> tuple[str, str] | None:
    """Return the version and the license of an installed package, None if it is not installed."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return None
    data = found.metadata
    classes = [c.rpartition(' :: ')[2] for c in data.get_all('Classifier', [])
               if c.startswith(CLASSIFIER) and not c.endswith('OSI Approved')]
    text = (data.get('License') or '').strip()
    brief = text if re.fullmatch(r'(?!UNKNOWN)\w.{0,60}', text) else ''
    words = (data.get('License-Expression') or ', '.join(classes) or brief
             or license_of_ros(package) or 'see its files')
    return found.version, words.replace('|', '/')


def license_of_ros(package: str) -> str:
    """Return the license in the package.xml of a ROS wheel, whose metadata have none."""
    name = re.sub('^ros-(jazzy-)?', '', package).replace('-', '_')
    path = Path(sys.prefix) / 'share' / name / 'package.xml'
    if not path.is_file():
        return ''
    return ', '.join(re.findall(r'<license[^>]*>([^<]+)</license>', path.read_text()))


def models() -> list[str]:
    """Return a row of the table for each model that ships."""
    rows = []
    for path in sorted((ROOT / 'models').glob('*.json')):
        training = json.loads(path.read_text())['training']
        start = (training.get('init') or {}).get('recipe', {}).get('name', 'random weights')
        rows.append(f'| `{path.with_suffix(".onnx").name}` | {", ".join(training["data"])} | '
                    f'{training["license"]} | {start} |')
    return rows


def packages(names: list[str]) -> list[str]:
    """Return a table of installed packages, and a line with those that other machines install."""
    rows, missing = ['| package | version | license |', '|---|---|---|'], []
    for name in names:
        if found := license_of(name):
            rows.append(f'| {name} | {found[0]} | {found[1]} |')
        else:
            missing.append(name)
    return rows + ['', f'Only on other machines or Pythons: {", ".join(missing)}.'] * bool(missing)


def main() -> None:
    """Write the page."""
    runtime = locked(f'{RUNTIME}-ros')
    more = [name for name in locked(f'{FULL}-ros') + locked('no-deps') if name not in runtime]
    text = HEAD + '\n'.join([
        *models(), '', '## What the node and the demo are installed with', '',
        'On a robot they come from the distribution or by rosdep. The ROS packages are those of',
        'PyPI, which are for machines without a distribution.', '', *packages(runtime), '',
        '## What training and the tests are installed with, in addition', '', *packages(more)])
    (ROOT / 'docs' / 'licenses.md').write_text(text + '\n')


if __name__ == '__main__':
    main()
