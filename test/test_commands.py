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

"""Commands of README and docs have the options, keys and arguments that they are typed with."""

from importlib.util import find_spec
from pathlib import Path
import re
import shlex

from cgdet_core.cli import app
from cgdet_core.tasks import load_recipe
import pytest
import typer

ROOT = Path(__file__).resolve().parents[1]
NOT_CHECKED = {  # commands that these tests know only by their first words, and why
    'sudo': 'changes the machine', 'pip install': 'changes the environment',
    'rosdep install': 'requires a ROS installation', 'colcon build': 'requires colcon',
    'git clone': 'requires the network', 'alias': 'of a shell', 'cd': 'of a shell',
    'export': 'of a shell', 'mv': 'of a shell', 'zip': 'of a shell', 'source': 'of a shell',
    '.': 'of a shell', 'MODELS=$(ros2': 'of a shell', 'profile=$(ros2': 'of a shell',
    'ros2 topic': 'ros2cli has no wheel', 'ros2 lifecycle': 'ros2cli has no wheel',
    'ros2 security': 'sros2 has no wheel', 'ros2 service': 'ros2cli has no wheel',
}


def documented() -> list[tuple[str, str]]:
    """Return the commands of the blocks in README and docs, each with its document."""
    found = []
    for document in [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]:
        if document.name == 'cli.md':  # generated: usage lines
            continue
        for body in re.findall(r'^```\n(.*?)^```', document.read_text(), re.M | re.S):
            body = re.sub(r'( \\)?\n {2,}', ' ', body)  # lines that continue the last one
            lines = [shlex.join(shlex.split(line, comments=True)) for line in body.splitlines()
                     if re.match(r'(cgdet|ros2|make|python|pip|sudo|cd|colcon|rosdep|git) ', line)]
            found += [(document.name, command) for line in lines
                      for command in re.split(r" '?&&'? ", line)]
    return found


COMMANDS = documented()


def test_all_kinds_of_commands_are_found() -> None:
    firsts = {' '.join(command.split()[:2]) for _, command in COMMANDS}
    assert {'cgdet detect', 'cgdet train', 'ros2 launch', 'make demo', 'ros2 param'} <= firsts
    assert len(COMMANDS) > 60


@pytest.mark.parametrize(('document', 'command'), COMMANDS)
def test_a_documented_command_can_be_typed(document: str, command: str) -> None:
    words = shlex.split(command)
    if words[0] == 'cgdet':
        parse(words[1:])
    elif words[:3] == ['ros2', 'launch', 'cgdet_ros']:
        text = (ROOT / 'launch' / words[3]).read_text() + (
            ROOT / 'cgdet_ros/launching.py').read_text()
        declared = set(re.findall(r"'(\w+)': \(", text))
        assert {w.partition(':=')[0] for w in words[4:]} <= declared
    elif words[:2] == ['ros2', 'param']:
        specs = (ROOT / 'cgdet_ros/detection/parameters.py').read_text()
        assert f"'{words[4].split('.')[0]}'" in specs
    elif words[0] == 'make':
        text = (ROOT / 'Makefile').read_text()
        assert f'\n{words[1]}:' in text
        assert all(f'\n{w.partition("=")[0]} ?=' in text for w in words[2:])
    elif words[:2] == ['python', '-m']:
        assert find_spec(words[2])
    else:
        assert words[0] in NOT_CHECKED or ' '.join(words[:2]) in NOT_CHECKED


def parse(words: list[str]) -> None:
    """Parse a command as the command line does, and the keys of its recipe; do not run it."""
    group, name = typer.main.get_command(app), ''
    while hasattr(group, 'commands') and words:
        name, group, words = words[0], group.commands[words[0]], words[1:]
    context = group.make_context(name, words)
    if name == 'train' and not context.params['resume']:
        overrides = [o for o in context.params['overrides'] or [] if '...' not in o]
        load_recipe(ROOT / context.params['recipe'], overrides)
