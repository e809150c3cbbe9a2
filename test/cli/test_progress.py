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

"""Progress of commands, lines without a terminal and a bar in one; and tables."""

from io import StringIO

from cgdet_core.cli import common
from cgdet_core.cli.common import counting, show_report, show_table, tracked
import pytest
from rich.console import Console
from rich.table import Table


def test_without_a_terminal_there_are_lines_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    clock = iter([0.0, 4.0, 11.0, 12.0, 40.0])
    monkeypatch.setattr(common, 'monotonic', lambda: next(clock))
    with counting('evaluating', 4) as advance:
        assert list(tracked('abcd', advance)) == [*'abcd']
    assert capsys.readouterr().out.splitlines() == [
        'evaluating: 2 of 4 frames, 11 s left', 'evaluating: 4 of 4 frames']


def test_a_total_may_be_unknown_or_come_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(common, 'PAUSE_S', 0.0)
    with counting('measuring', noun='turn') as advance:
        advance()
        advance(1, 2)
    assert capsys.readouterr().out.splitlines() == ['measuring: 1 turn', 'measuring: 2 of 2 turns']


def test_in_a_terminal_a_bar_starts_with_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = StringIO()
    monkeypatch.setattr(common, 'console', Console(file=shown, force_terminal=True, width=80))
    with counting('evaluating', 2) as advance:
        assert not shown.getvalue()
        advance(2)
        assert 'evaluating' in shown.getvalue()


@pytest.mark.parametrize('width', [20, 60])
def test_no_table_is_cut(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    shown = StringIO()
    monkeypatch.setattr(common, 'console', Console(file=shown, width=width))
    table = Table('name', 'value')
    table.add_column('fixed', no_wrap=True)
    table.add_row('abcdefghijklmnopqrstuvwxyz' * 2, '0123456789', '9876543210')
    show_table(table)
    text = shown.getvalue()
    assert '\u2026' not in text and max(map(len, text.splitlines())) <= width
    for letters in ('abcdefghijklmnopqrstuvwxyz', '0123456789'):
        assert set(letters) <= set(text)


def test_classes_that_are_not_measured_are_in_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = StringIO()
    monkeypatch.setattr(common, 'console', Console(file=shown, width=60))
    metrics = dict.fromkeys(('AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large'), 0.5)
    report = {**metrics, 'per_class': {'person': metrics}, 'other_classes': {'dog': 117, 'cat': 1}}
    show_report(report, None)
    lines = shown.getvalue().splitlines()
    assert any(line.split()[1:5] == ['dog', '\u2502', '-', '\u2502'] for line in lines)
    assert 'boxes: dog 117, cat 1' in ' '.join(' '.join(lines).split())
