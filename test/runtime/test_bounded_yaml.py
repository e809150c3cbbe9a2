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

"""YAML of unknown origin: read as usual, and refused where it would not end."""

from cgdet_core.runtime.bounded_yaml import load_yaml
import pytest
import yaml


@pytest.mark.parametrize('text', [
    '', 'a: 1\nb: [x, 2.5, null, true]', 'a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]',
    '2026-11-29', '{"a": {"b": [1, 2]}}'])
def test_it_reads_what_yaml_reads(text: str) -> None:
    assert load_yaml(text) == yaml.safe_load(text)


def laughs(levels: int, item: str = 'lol', line: str = '[{}]') -> str:
    """Return aliases of aliases: 9 ** levels items."""
    lines = [f'a0: &a0 {item}']
    lines += [f'a{n}: &a{n} ' + line.format(', '.join([f'*a{n - 1}'] * 9))
              for n in range(1, levels + 1)]
    return '\n'.join(lines)


@pytest.mark.parametrize(('text', 'words'), [
    (laughs(12), 'too many values'),
    (laughs(12, '{x: 1}', '{{<<: [{}]}}'), 'too many values'),
    (laughs(3, 'x' * 100_000), 'too many values'),
    ('a: &a [*a]', 'refers to itself'), ('a: &a {b: *a}', 'refers to itself'),
    ('[' * 20_000 + ']' * 20_000, 'nested too deeply'), ('{a: ' * 3000, 'nested too deeply'),
    ('a: ' + '9' * 5000, 'cannot be read'), ('a: 2026-99-99', 'cannot be read'),
    ('a: !!int ""', 'cannot be read'), ('a: !!timestamp x', 'cannot be read'),
    ('a: !!python/object/apply:os.system [ls]', 'could not determine a constructor'),
    ('a: 1\nb: {c: 1, d: 2, c: 3}', "the key 'c' is there twice"),
    ('names: {0: person, 0: car}', "the key '0' is there twice"),
    (r'a: [b: "\0"]', 'contains NUL or a lone'), (r'a: "\ud800"', 'a lone surrogate'),
    ('a: [', 'parsing'), ('a: \0', 'not allowed')])
def test_what_does_not_end_or_cannot_be_read_is_an_error_of_yaml(text: str, words: str) -> None:
    with pytest.raises(yaml.YAMLError, match=words):
        load_yaml(text)


def test_a_long_list_is_read() -> None:
    assert len(load_yaml('[' + 'x, ' * 2000 + ']')) == 2000
