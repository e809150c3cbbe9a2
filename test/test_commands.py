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

"""Commands of README and docs can be typed as they are, and are run by a test or listed here."""

from importlib.util import find_spec
from pathlib import Path
import re
import shlex
from typing import Any

from cgdet_core.cli import app
from cgdet_core.tasks import load_recipe
import pytest
import typer

ROOT = Path(__file__).resolve().parents[1]
# The test that runs a command, with small data, by the words that the command starts with.
RUN_BY = {
    'python -m cgdet_core.deployment.average': 'deployment/test_average.py',
    'cgdet ablate': 'experiments/test_ablation.py',
    'cgdet bag evaluate': 'cli/test_cli.py',
    'cgdet bag from-coco': 'cli/test_cli.py',
    'cgdet bag play': 'ros/test_bags_over_dds.py',
    'cgdet bag to-dataset': 'cli/test_cli.py',
    'cgdet bag track': 'tracking/test_bag_track.py',
    'cgdet benchmark': 'deployment/test_benchmark.py',
    'cgdet build-engine': 'cli/test_engine_commands.py',
    'cgdet data check': 'data/test_check.py',
    'cgdet data collect': 'test_first_hour.py',
    'cgdet data convert': 'data/test_convert.py',
    'cgdet data merge': 'test_first_hour.py',
    'cgdet data register': 'data/pairs/test_estimate.py',
    'cgdet data relabel': 'test_first_hour.py',
    'cgdet data show': 'test_first_hour.py',
    'cgdet data split': 'data/test_check.py',
    'cgdet data to-yolo': 'data/test_to_yolo.py',
    'cgdet detect': 'test_first_hour.py',
    'cgdet distill': 'training/test_distilled_training.py',
    'cgdet doctor': 'ros/test_doctor_graph.py',
    'cgdet engines clean': 'cli/test_engine_commands.py',
    'cgdet engines list': 'cli/test_engine_commands.py',
    'cgdet evaluate': 'cli/test_cli.py',
    'cgdet export': 'deployment/test_precisions.py',
    'cgdet fit-scores': 'detection/test_scores.py',
    'cgdet report': 'detection/test_report.py',
    'cgdet train': 'test_first_hour.py',
    'cgdet track evaluate': 'tracking/test_track_command.py',
    'cgdet track fit-scores': 'tracking/test_tracker_scores.py',
    'cgdet track run': 'tracking/test_track_command.py',
    'cgdet track train': 'tracking/test_tracker_training.py',
    'cgdet verify': 'deployment/test_verify.py',
    'python -m cgdet_core.experiments.pseudo_labels': 'experiments/test_pseudo_labels.py',
    'python -m cgdet_core.experiments.step_cost': 'experiments/test_step_cost.py',
    'python -m cgdet_ros.detector_node': 'ros/test_thermal_drivers.py',
    'python -m cgdet_ros.tools.demo': 'ros/test_bags_over_dds.py',
    'python -m cgdet_ros.tools.reference': 'ros/test_reference.py',
    'ros2 launch cgdet_ros evaluate_bag.launch.py': 'ros/test_launch.py',
    'ros2 launch cgdet_ros multi_camera.launch.py': 'ros/test_launch.py',
    'ros2 launch cgdet_ros thermal_detect.launch.py': 'ros/test_launch.py',
    'ros2 launch cgdet_ros track_target.launch.py': 'ros/test_launch.py',
    'python dev/robustness.py': 'test_attacks.py',
}
NO_CLI = 'ros2cli has no wheel; '
# Commands that no test runs, and why.
NOT_RUN = {
    'MODELS=$(ros2 pkg': NO_CLI + 'share_file finds the same files',
    'profile=$(ros2 pkg': NO_CLI + 'share_file finds the same files',
    'ros2 lifecycle set': NO_CLI + 'ros/test_lifecycle.py calls its service',
    'ros2 param': NO_CLI + 'ros/test_parameters.py calls its services',
    'ros2 security': 'sros2 has no wheel',
    'ros2 service call': NO_CLI + 'ros/test_lifecycle.py calls the service',
    'ros2 run cgdet_ros': NO_CLI + 'test_installation.py runs the program',
    'ros2 topic': NO_CLI + 'tests subscribe to the topics',
    'ros2 bag': NO_CLI + 'rosbag2 has none either',
    'make demo': 'updates .venv; tests run the program that it starts, cgdet_ros.tools.demo',
    'make runtime': 'installs packages', 'make setup': 'installs packages',
    'make test': 'runs these tests', 'make lint': 'CI runs it', 'make clean': 'removes .venv',
    'pip install': 'changes the environment', 'sudo': 'changes the machine',
    'rosdep install': 'requires a ROS installation', 'colcon': 'requires colcon',
    'git clone': 'requires the network', 'docker': 'requires a Docker daemon',
    'rosdoc2 build': 'requires rosdoc2', 'pre-commit install': 'changes the checkout',
    'python -m cgdet_core.experiments.refinding': 'takes minutes; '
    'tracking/test_tracker_scores.py measures one event',
    'python -m cgdet_core.experiments.starts': 'takes minutes; '
    'tracking/test_tracker_scores.py measures one sequence',
    'python dev/': 'a program for developers, whose numbers are in the documents',
    'python -m pytest': 'runs these tests',
    'alias': 'of a shell', 'cd': 'of a shell', 'export': 'of a shell', 'mv': 'of a shell',
    'zip': 'of a shell', 'source': 'of a shell', '.': 'of a shell',
}
PROGRAMS = (r'cgdet|ros2|make|python|pip|sudo|cd|colcon|rosdep|rosdoc2|git|docker|export|alias|mv'
            r'|zip|source|pre-commit|\.|\w+=\$\(ros2')
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'docker/README.md',
         *sorted(page for page in (ROOT / 'docs').rglob('*.md')
                 if page.name != 'cli.md')]  # generated: usage lines


def documented() -> list[tuple[str, str]]:
    """Return the commands of the blocks in README and docs, each with its document."""
    found = []
    for document in PAGES:
        for kind, body in re.findall(r'^```(\w*)\n(.*?)^```', document.read_text(), re.M | re.S):
            if kind:  # Python, YAML, XML
                continue
            body = re.sub(r'( \\)?\n {2,}', ' ', body)  # lines that continue the last one
            lines = [shlex.join(shlex.split(line, comments=True)) for line in body.splitlines()
                     if re.match(fr'({PROGRAMS}) ', line)]
            found += [(document.name, command) for line in lines
                      for command in line.split(" '&&' ")]
    return found


def mentioned() -> list[tuple[str, str]]:
    """Return the commands in the text of README and docs, some without arguments."""
    return [(page.name, command) for page in PAGES
            for command in re.findall(fr'`((?:{PROGRAMS}) [^`\n]+)`', re.sub(
                r'^```.*?^```', '', page.read_text(), flags=re.M | re.S))]


COMMANDS, MENTIONED = documented(), mentioned()


def test_all_kinds_of_commands_are_found() -> None:
    firsts = {' '.join(command.split()[:2]) for _, command in COMMANDS}
    assert {'cgdet detect', 'cgdet train', 'ros2 launch', 'make demo', 'ros2 param',
            'docker build', 'ros2 service', 'export ROS_SECURITY_ENABLE=true'} <= firsts
    assert len(COMMANDS) > 90 and len(MENTIONED) > 30


@pytest.mark.parametrize(('document', 'command'), sorted({*COMMANDS, *MENTIONED}))
def test_a_documented_command_is_run_or_listed(document: str, command: str) -> None:
    known = [words for words in (*RUN_BY, *NOT_RUN) if begins(command.replace("'", ''), words)
             or (document, command) in MENTIONED and words.startswith(f'{command} ')]
    assert known, f'{document}: {command}: add a test that runs it, or the reason why none does'


def begins(command: str, words: str) -> bool:
    return command.startswith(words) if words.endswith('/') else (
        f'{command} '.startswith(f'{words} '))


@pytest.mark.parametrize(('command', 'test'), RUN_BY.items())
def test_the_test_of_a_command_has_its_words(command: str, test: str) -> None:
    words = [word for word in command.split() if word not in (
        'cgdet', 'python', '-m', 'ros2', 'launch', 'cgdet_ros', 'dev/robustness.py')]
    assert re.search(r"""[\'", ]+""".join(map(re.escape, words)), (
        ROOT / 'test' / test).read_text())


def test_the_lists_have_no_more_than_the_documents() -> None:
    commands = [command.replace("'", '') for _, command in (*COMMANDS, *MENTIONED)]
    unused = [words for words in (*RUN_BY, *NOT_RUN)
              if not any(begins(command, words) for command in commands)]
    assert not unused


@pytest.mark.parametrize(('document', 'command'), [
    (page, command) for page, command in MENTIONED if command.startswith('cgdet ')])
def test_options_in_the_text_exist(document: str, command: str) -> None:
    group: Any = typer.main.get_command(app)
    for word in command.split()[1:]:
        group = getattr(group, 'commands', {}).get(word, group)
    known = {option for parameter in group.params for option in parameter.opts}
    assert set(re.findall(r'(?<= )--[\w-]+', command)) <= known


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
        assert re.search(rf"\b{words[4].split('.')[0]}\b", specs)
    elif words[0] == 'make':
        text = (ROOT / 'Makefile').read_text()
        assert f'\n{words[1]}:' in text
        assert all(f'\n{w.partition("=")[0]} ?=' in text for w in words[2:])
    elif words[:2] == ['python', '-m']:
        assert find_spec(words[2])


def parse(words: list[str]) -> None:
    """Parse a command as the command line does, and the keys of its recipe; do not run it."""
    group, name = typer.main.get_command(app), ''
    while hasattr(group, 'commands') and words:
        name, group, words = words[0], group.commands[words[0]], words[1:]
    context = group.make_context(name, words)
    if name == 'train' and not context.params['resume']:
        overrides = [o for o in context.params['overrides'] or [] if '...' not in o]
        load_recipe(ROOT / context.params['recipe'], overrides)
