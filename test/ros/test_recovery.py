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

"""The schedule of reloads: waits that double, and what resets them."""

from cgdet_ros.node import loading
from cgdet_ros.node.loading import Recovery
import pytest


def fail(item: Recovery, times: int, limit: int = 3) -> None:
    for _ in range(times):
        item.failed('no memory', limit)


def test_only_consecutive_failures_schedule_a_reload() -> None:
    item = Recovery()
    fail(item, 2)
    item.inferred()
    fail(item, 2)
    assert item.seconds_left() is None and item.failures == 2
    fail(item, 1)
    assert item.seconds_left() == pytest.approx(1.0, abs=0.5) and not item.begin()
    assert item.error and item.error_time
    item.inferred()
    assert item.seconds_left() is None and not item.error and item.error_time
    fail(item, 1000, limit=0)
    assert item.seconds_left() is None and item.failures == 1000


def test_waits_double_up_to_a_minute_and_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(loading, 'monotonic', lambda: now)
    item, waits = Recovery(), []
    fail(item, 3)
    for _ in range(8):
        waits.append(item.seconds_left())
        now += waits[-1]
        assert item.begin() and not item.begin() and item.failures == 0
        item.again('no card')
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60] and item.restarts == 8
    item.give_up()
    assert item.seconds_left() is None
    fail(item, 3)
    assert item.seconds_left() == 1
