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

"""The linters of a ROS distribution, if one is installed."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('linter', ['copyright', 'flake8', 'pep257'])
def test_ament_linter(linter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(f'ament_{linter}', reason='no ROS distribution with ament linters here')
    monkeypatch.chdir(ROOT)
    main = import_module(f'ament_{linter}.main').main
    assert main(argv=['cgdet_core', 'cgdet_ros', 'launch', 'test', 'setup.py']) == 0
