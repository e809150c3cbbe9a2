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

"""Words of messages."""

from cgdet_core.words import counted, duration
import pytest


@pytest.mark.parametrize(('number', 'words', 'text'), [
    (0, ('frame',), '0 frames'), (1, ('frame',), '1 frame'), (2, ('box', 'boxes'), '2 boxes'),
    (1, ('box', 'boxes'), '1 box')])
def test_numbers_have_their_nouns(number: int, words: tuple[str, ...], text: str) -> None:
    assert counted(number, *words) == text


@pytest.mark.parametrize(('seconds', 'text'), [
    (7.4, '7 s'), (99, '99 s'), (130, '2 min'), (3599, '1 h 0 min'), (9000, '2 h 30 min')])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
