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

"""Read YAML of unknown origin: an error of YAML for whatever cannot be read, and within bounds."""

from collections import Counter
import re
from typing import Any

import yaml

_NO_TEXT = re.compile('[\0\ud800-\udfff]')  # written as escapes; no path can have them
LIMIT = 4_000_000  # characters and values, counted wherever an alias repeats them


def load_yaml(text: str | bytes) -> Any:
    """
    Return the values of a YAML text, UTF-8 or UTF-16.

    yaml.YAMLError also for numbers, dates and texts that Python cannot represent, for a key that
    is there twice, and if the text is nested too deeply, refers to itself, or expands beyond LIMIT
    by its aliases.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > LIMIT:
            raise yaml.YAMLError('its aliases expand to too many values')
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError('it is nested too deeply') from None
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise yaml.YAMLError(f'a value cannot be read, {error}') from None
    finally:
        loader.dispose()


def _check_keys(node: yaml.MappingNode) -> None:
    """Raise YAMLError if a mapping has a key twice, of which YAML would keep the last."""
    keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for key, number in Counter(keys).items():
        if number > 1:
            raise yaml.YAMLError(f'the key {key[1][:60]!r} is there twice')


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return the size of a node with all that its aliases repeat; known: by the id of a node."""
    if id(node) not in known:
        known[id(node)] = None
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            size = sum(_size(part, known) for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            size = sum(_size(part, known) for part in node.value)
        elif _NO_TEXT.search(node.value):
            raise yaml.YAMLError('a text contains NUL or a lone surrogate')
        else:
            size = len(node.value)
        known[id(node)] = size + 1
    found = known[id(node)]
    if found is None:
        raise yaml.YAMLError('it refers to itself')
    return found
