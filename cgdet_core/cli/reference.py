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

"""Tables of all recipe keys and of all commands, for the reference pages."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
import inspect
import json
from pathlib import Path
import re
from typing import Any, get_args, Literal

from cgdet_core.cli.common import app, word_of
import typer

FIELD = re.compile(r' {4}(\w+): .*?(?: {2}# (.*))?')
SIGNS = {'ge': '>=', 'gt': '>', 'le': '<=', 'lt': '<'}
Row = tuple[str, ...]


def recipes() -> str:
    """Return the keys of every task's recipe as a Markdown table."""
    from cgdet_core.tasks import TASKS

    return _key_table([row for schema in TASKS.values() for row in key_rows(schema)])


def grids() -> str:
    """Return the keys of a grid of recipes as a Markdown table."""
    from cgdet_core.experiments.grid import AblationConfig

    return _key_table(list(key_rows(AblationConfig)))


def _key_table(rows: list[Row]) -> str:
    return table(('key', 'default', 'values', ''), [
        (f'`{key}`', default if default in ('', 'required') else f'`{default}`', allowed, meaning)
        for key, default, allowed, meaning in rows])


def key_rows(schema: type[Any], parents: str = '') -> Iterator[Row]:
    """Yield key, default, values and meaning of a schema's keys and of its sections, in order."""
    from pydantic import BaseModel

    notes = meanings(schema)
    if is_dataclass(schema):
        for entry in fields(schema):
            yield f'{parents}{entry.name}', plain(entry.default), '', notes[entry.name]
        return
    for name, info in schema.model_fields.items():
        section = next((a for a in (info.annotation, *get_args(info.annotation))
                        if isinstance(a, type) and (issubclass(a, BaseModel) or is_dataclass(a))),
                       None)
        default = 'required' if info.is_required() else plain(info.default)
        if isinstance(info.default, BaseModel) or is_dataclass(info.default):
            default = ''  # those of its keys
        yield f'{parents}{name}', default, values(info), info.description or notes[name]
        if section is not None:
            yield from key_rows(section, f'{parents}{name}.')


def meanings(schema: type[Any]) -> dict[str, str]:
    """Return the comment of each field: at the end of its line, or in the lines above it."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        above: list[str] = []
        source = inspect.getsource(base) if base.__module__.startswith('cgdet_core') else ''
        for line in source.splitlines():
            if line.startswith('    # '):
                above.append(line[6:])
                continue
            if match := FIELD.fullmatch(line):
                found[match[1]] = match[2] or ' '.join(above) or found.get(match[1], '')
            above = []
    return found


def values(info: Any) -> str:
    """Return the choices or the limits of a key, of its pydantic field."""
    annotations = (info.annotation, *get_args(info.annotation))
    choices = [c for a in annotations if getattr(a, '__origin__', None) is Literal
               for c in get_args(a)]
    if choices and Path not in annotations:
        return ', '.join(map(plain, choices))
    limits = [f'{sign} {getattr(m, name)}' for m in info.metadata
              for name, sign in SIGNS.items() if hasattr(m, name)]
    return ', '.join(limits)


def plain(value: Any) -> str:
    """Return a value in YAML notation."""
    if isinstance(value, str | Path) and str(value):
        return str(value)
    return json.dumps(value, default=str)


def commands() -> str:
    """Return a section for every command: description, usage, arguments and options."""
    return '\n'.join(_sections(typer.main.get_command(app), 'cgdet'))


def _sections(command: Any, name: str) -> Iterator[str]:
    """Yield the section of a command and of those below it."""
    groups: dict[str, list[Any]] = {'argument': [], 'option': []}
    for parameter in command.params:
        groups[parameter.param_type_name].append(parameter)
    below = getattr(command, 'commands', {})
    words = ['COMMAND ...'] if below else [word_of(p) for p in groups['argument']]
    options = ' [OPTIONS]' if groups['option'] else ''
    yield f'## {name}\n\n{inspect.cleandoc(command.help or "")}\n'
    yield f'```\n{" ".join([name + options, *words])}\n```\n'
    if command.params:
        yield table(('', 'default', ''), [
            (f'`{word_of(p) if p.param_type_name == "argument" else _option(p)}`', _default(p),
             ' '.join((p.help or '').split())) for p in command.params])
    for part, child in below.items():
        yield from _sections(child, f'{name} {part}')


def _option(option: Any) -> str:
    """Return the names of an option and, if it has one, the word for its value."""
    return ' '.join([', '.join(option.opts), *filter(None, [option.metavar])])


def _default(parameter: Any) -> str:
    if parameter.required:
        return 'required'
    flag = getattr(parameter, 'is_flag', False)
    return '' if flag or parameter.default in (None, ()) else f'`{plain(parameter.default)}`'


def table(head: Row, rows: list[Row]) -> str:
    """Return a Markdown table."""
    lines = [head, ('---',) * len(head), *rows]
    return ''.join('| ' + ' | '.join(c.replace('|', r'\|') for c in line) + ' |\n'
                   for line in lines)
