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

"""The bond that nav2's lifecycle manager waits for."""

from collections.abc import Callable
import json
from pathlib import Path
import sys
from typing import Any

import pytest
from toy_models import gray, write_model

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ros
Status = pytest.importorskip('bond.msg', reason='the package bond is not installed').Status
Start = Callable[..., Any]


def test_an_active_node_has_a_bond(start: Start, toy: Path) -> None:
    with start(model_path=toy, autostart=False) as client:
        heard: list[Any] = []
        client.node.create_subscription(Status, 'bond', heard.append, 100)
        client.wait(lambda: client.node.count_publishers('bond'))
        instances = set()
        assert client.change_state('configure') and not heard
        for _ in range(2):
            assert client.change_state('activate')
            del heard[:]
            client.wait(lambda: len(heard) > 3 and all(m.active for m in heard))
            assert {m.id for m in heard} == {'thermal_detector'}
            instances |= {m.instance_id for m in heard}
            assert heard[-1].heartbeat_timeout == 4.0
            assert client.change_state('deactivate')
            client.wait(lambda: not heard[-1].active)
        assert len(instances) == 2, 'an old message does not belong to a new bond'


def test_a_reload_of_the_model_keeps_the_bond(start: Start, tmp_path: Path) -> None:
    model = write_model(tmp_path / 'model.onnx', fails=True)
    with start(model_path=model, max_failures=1) as client:
        heard: list[Any] = []
        client.node.create_subscription(Status, 'bond', heard.append, 100)
        client.wait_active()
        client.images.publish(client.image(gray(1.0), 'mono8'))
        client.status(of='detector', restarts='1', state='active')
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        del heard[:-1]
        client.wait(lambda: len(heard) > 5)
        assert all(m.active for m in heard) and len({m.instance_id for m in heard}) == 1


def test_the_generated_bond_has_the_type_hash_it_was_checked_with() -> None:
    path = Path(sys.prefix) / 'share' / 'bond' / 'msg' / 'Status.json'
    if not path.is_file():
        pytest.skip('bond comes from the ROS distribution here')
    expected = json.loads((ROOT / 'dev' / 'bond' / 'type_hashes.json').read_text())
    found = {e['type_name']: e['hash_string'] for e in json.loads(path.read_text())['type_hashes']}
    assert found['bond/msg/Status'] == expected['bond/msg/Status']
