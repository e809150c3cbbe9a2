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
Generate the reference pages from the code.

`python -m cgdet_ros.tools.reference` writes the tables of docs/reference, and the policy of
docs/sros2.md, between their markers.
Tests compare them with the code, and the topics with running nodes. Tables whose modules are not
installed here (launch, or those of training) stay as they are.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
import re
import runpy
import sys
from typing import Any

from cgdet_core.cli.reference import commands, grids, plain, recipes, table
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import share_file
from cgdet_ros.detection.parameters import CLASS_SPEC, SPECS
from cgdet_ros.node.parameters import Spec
from cgdet_ros.tools.interfaces import DETECTOR, Interface, policy, TRACKER
from cgdet_ros.tracking.parameters import SPECS as TRACKER_SPECS

DOCS = Path(__file__).resolve().parents[2] / 'docs'
PAGES = [*sorted((DOCS / 'reference').glob('*.md')), DOCS / 'sros2.md']
BLOCK = re.compile(r'(<!-- generated: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)
EFFECTS = {'dynamic': '', 'static': '; takes effect on configure', 'read_only': '; only at start'}


def topic_table(interface: Interface) -> str:
    """Return the topics of a node as a Markdown table."""
    return table(('topic', '', 'type', ''), [
        (f'`{t.name}`', t.direction, f'`{t.type.replace("/msg/", "/")}`', t.description)
        for t in interface.topics])


def service_table(interface: Interface) -> str:
    """Return the services of a node as a Markdown table."""
    return table(('service', 'package of the type', ''), [
        (', '.join(f'`~/{name}`' for name in s.names), f'`{s.package}`', s.description)
        for s in interface.services])


def parameter_table(specs: Sequence[Spec]) -> str:
    """Return the parameters of a node as a Markdown table."""
    return table(('parameter', 'default', 'range', ''), [
        (f'`{s.name}`', f'`{plain(s.default)}`',
         ', '.join(f'`{c}`' for c in s.choices if c) or s.limits(),
         s.description + EFFECTS[s.effect])
        for s in specs])


def launch_table() -> str:
    """Return the launch files' arguments as a Markdown table; requires the package `launch`."""
    files: dict[tuple[str, str, str], list[str]] = {}  # by argument
    paths = sorted(share_file('launch').glob('*.launch.py'), reverse=True)
    for path in paths:
        description = runpy.run_path(str(path))['generate_launch_description']()
        for argument in description.get_launch_arguments():
            row = argument.name, _launch_default(argument.default_value), argument.description
            files.setdefault(row, []).append(path.name.removesuffix('.launch.py'))
    return table(('argument', 'default', 'launch file', ''), [
        (f'`{name}`', default, 'all' if len(names) == len(paths) else ', '.join(names), text)
        for (name, default, text), names in files.items()])


TABLES: dict[str, Callable[[], str]] = {
    'topics': partial(topic_table, DETECTOR), 'tracker_topics': partial(topic_table, TRACKER),
    'services': partial(service_table, DETECTOR),
    'tracker_services': partial(service_table, TRACKER),
    'policy': lambda: f'```xml\n{policy()}```\n',
    'parameters': partial(parameter_table, (*SPECS, CLASS_SPEC)),
    'tracker_parameters': partial(parameter_table, TRACKER_SPECS), 'launch': launch_table,
    'recipes': recipes, 'grids': grids, 'commands': commands}


def rewrite(text: str) -> str:
    """Return a Markdown text with updated generated blocks."""
    def block(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise UserError(f'There is no table {match[2]}, only {", ".join(TABLES)}.')
        try:
            return match[1] + TABLES[match[2]]() + match[3]
        except ImportError as error:
            if (error.name or 'cgdet_').startswith('cgdet_'):
                raise
            return match[0]

    return BLOCK.sub(block, text)


def _launch_default(substitutions: Any) -> str:
    if substitutions is None:
        return 'required'
    text = ''.join(s.text for s in substitutions)
    path = Path(text)
    return f'`{path.parent.name}/{path.name}`' if path.is_absolute() else f'`{plain(text)}`'


def main(paths: list[str]) -> None:
    """Update the generated blocks of Markdown files, by default of the reference pages."""
    for path in [Path(path) for path in paths] or PAGES:
        path.write_text(rewrite(path.read_text()))


if __name__ == '__main__':
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as problem:
        sys.exit(f'cgdet: {problem}')
