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

"""The options before the command: versions, the log, completion by a real bash."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

import cgdet_core
from cgdet_core.cli import app
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
COMPLETE = """
source ~/.bash_completions/cgdet.sh
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cgdet_completion cgdet; echo "${COMPREPLY[@]}"
"""


def test_versions_are_printed_without_importing_the_modules() -> None:
    code = ('import sys; sys.argv[1:] = ["--version"]; import atexit; '
            'atexit.register(lambda: print(*{"torch", "onnxruntime"} & set(sys.modules))); '
            'from cgdet_core.__main__ import main; main()')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    first, python, *modules, imported = done.stdout.split('\n')[:-1]
    assert first == f'cgdet {cgdet_core.__version__}'
    assert python == f'Python {sys.version.split()[0]}'
    assert f'numpy {np.__version__}' in modules and imported == ''


def test_the_backend_is_named_only_if_asked_for(
    tmp_path: Path, run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    # The command ends when the model is loaded, at an image that cannot be read.
    bad = tmp_path / 'no.png'
    bad.write_text('text')
    model = ROOT / 'models' / 'thermal.onnx'
    command = ('detect', model, bad, '--output', tmp_path / 'out')
    for options, wanted in (((), False), (('--verbose',), True)):
        done = run_cgdet(*options, *command)
        assert done.returncode == 1 and 'no.png' in done.stderr
        assert ('Inference by ' in done.stdout) == wanted


def test_the_program_has_one_help() -> None:
    result = CliRunner().invoke(app, ['--help'], env={'COLUMNS': '200'})
    assert result.exit_code == 0
    for words in ('--version', '--verbose', '--install-completion', 'thermal object detectors'):
        assert words in result.output


@pytest.mark.parametrize('line', [
    'evaluate thermal --data x', 'verify thermal --against thermal --data x',
    'export thermal --output x', 'benchmark thermal', 'build-engine thermal', 'doctor thermal',
    'bag evaluate thermal x --data x', 'bag track x --model thermal --box x',
    'track run thermal x --box x --output x'])
def test_models_of_the_package_have_names(line: str) -> None:
    command, words = get_command(app), line.split()
    while hasattr(command, 'commands'):
        command = command.commands[words.pop(0)]
    values = command.make_context(line, words).params
    models = [values.get(name) for name in ('model', 'models', 'source', 'against')]
    found = [Path(m[0] if isinstance(m, list) else m).name for m in models if m not in (None, 'x')]
    assert found == ['thermal.onnx'] * line.count('thermal')


def test_a_tracker_of_the_package_has_a_name() -> None:
    done = CliRunner().invoke(app, ['track', 'evaluate', 'thermal_tracker'])
    assert 'Name the folders of sequences after the model' in str(done.exception)


@pytest.mark.parametrize('command', [
    'detect', 'verify', 'build-engine', 'export', 'bag evaluate', 'data collect'])
def test_the_topic_can_be_chosen_wherever_a_bag_is_read(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), '--help'], env={'COLUMNS': '200'})
    assert result.exit_code == 0 and '-topic ' in result.output


def test_usage_lines_and_help_are_those_of_the_reference() -> None:
    result = CliRunner().invoke(app, ['detect', '--help'], env={'COLUMNS': '80'})
    assert ' detect [OPTIONS] SOURCE... ' in result.output
    assert re.search(r'--output +FOLDER ', result.output)
    text = ' '.join(result.output.split())
    assert 'the exit status is then 1. After Ctrl-C the files contain what was done.' in text
    lines = [line.strip() for line in result.output.splitlines()]
    assert not any(line.endswith('After Ctrl-C') for line in lines)  # as the docstring breaks it
    result = CliRunner().invoke(app, ['train', '--help'], env={'COLUMNS': '80'})
    assert ' train [OPTIONS] RECIPE [KEY=VALUE]... ' in result.output


@pytest.mark.parametrize('command', [
    'detect none.png --output found.json', 'evaluate m.onnx --data d.json --output e.html',
    'bag evaluate m.onnx bag --data d.json --output report.json',
    'data convert yolo folder --output all.json', 'data check d.json --output check.png',
    'data collect clip.mp4 --output set.json', 'data to-yolo d.json --output data.yaml'])
def test_a_folder_that_is_named_like_a_file_is_refused(command: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert isinstance(result.exception, UserError)
    assert 'is named like a file, but several files are written' in str(result.exception)
    assert result.exception.fields == ('output',)


@pytest.mark.parametrize('command', [
    ['detect', ''], ['detect', 'a.png', '--output', ''], ['data', 'show', 'a.json', '--output=']])
def test_an_empty_argument_is_not_the_current_folder(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, UserError)
    assert 'as a variable that is not set is' in str(result.exception)


@pytest.mark.parametrize('command', [
    'data register pairs --output mount.yaml/', 'data split all.json/',
    'data merge a.json b.json --output=all.json/', 'train recipe.yaml data.train=all.json/'])
def test_a_file_with_a_slash_at_its_end_is_refused(command: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert isinstance(result.exception, UserError)
    assert 'is named like a file, but "/" at its end makes it a folder' in str(result.exception)


@pytest.mark.parametrize(('command', 'words'), [
    ('data register . --output .', '. is a folder; name a file'),
    ('data split .', '. is a folder; a COCO annotation file is required'),
    ('bag from-coco set.json .', '. already exists')])
def test_the_current_folder_is_no_file(
    command: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command.split())
    assert isinstance(result.exception, UserError) and words in str(result.exception)


def test_names_that_are_no_unicode_are_printed(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((20, 30), np.uint8))
    (tmp_path / 'set.json').write_text(json.dumps({
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 30, 'height': 20}],
        'categories': [{'id': 1, 'name': 'a\ud800'}]}))
    done = subprocess.run(
        [sys.executable, '-m', 'cgdet_core', 'data', 'check', tmp_path / 'set.json', '--output',
         tmp_path / 'out'], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, 'PYTHONIOENCODING': 'utf-8:surrogateescape'})
    assert done.returncode == 0 and 'a\\ud800' in done.stdout, done.stderr


def test_a_class_has_one_target() -> None:
    result = CliRunner().invoke(app, [
        'data', 'convert', 'yolo', 'set', '--map', 'dog=person', '--map', 'dog=drop'])
    assert str(result.exception) == '--map has two targets of dog; name one.'


def test_a_real_bash_completes_commands_and_options(tmp_path: Path) -> None:
    bash = shutil.which('bash')
    if bash is None:
        pytest.skip('bash is not installed')
    program = tmp_path / 'bin' / 'cgdet'
    program.parent.mkdir()
    program.write_text(f'#!{sys.executable}\nimport sys\n'
                       'from cgdet_core.__main__ import main\nsys.exit(main())\n')
    program.chmod(0o755)
    environment = {**os.environ, 'HOME': str(tmp_path), 'PYTHONPATH': os.pathsep.join(
        [str(ROOT), os.environ.get('PYTHONPATH', '')]),
        'PATH': f'{program.parent}{os.pathsep}{os.environ["PATH"]}'}

    def run(script: str, *words: str) -> str:
        done = subprocess.run([bash, '-c', script, 'bash', *words], capture_output=True, text=True,
                              env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # bash stays the parent, by which the shell is detected.
    assert 'bash completion installed' in run('cgdet --install-completion; exit $?')
    assert run(COMPLETE, 'cgdet', 'evalu') == 'evaluate'
    assert run(COMPLETE, 'cgdet', 'engines', '') == 'list clean'
    assert run(COMPLETE, 'cgdet', 'engines', 'clean', '--a') == '--all'
