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

"""Checks of a valid model and of broken files."""

import json
from pathlib import Path
import shutil

from cgdet_core.doctor.model import model_checks
import pytest

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'thermal.onnx'


def test_the_shipped_model_is_fine() -> None:
    checks = {c.name: c for c in model_checks(SHIPPED)}
    assert list(checks) == ['file and card', 'engine', 'inference']
    assert checks['inference'].level == 'OK' and ' ms for a 640x512' in checks['inference'].found
    card = json.loads(SHIPPED.with_suffix('.json').read_text())
    assert card['onnx_sha256'][:12] in checks['file and card'].found


@pytest.mark.parametrize('fault', ['no file', 'no card', 'other hash'])
def test_a_broken_model_is_one_failure(tmp_path: Path, fault: str) -> None:
    model = tmp_path / 'thermal.onnx'
    if fault != 'no file':
        shutil.copy(SHIPPED, model)
    if fault == 'other hash':
        shutil.copy(SHIPPED.with_suffix('.json'), tmp_path)
        model.write_bytes(model.read_bytes() + b'\0')
    checks = model_checks(model)
    assert [c.level for c in checks] == ['FAIL']
    assert 'thermal' in checks[0].found and checks[0].advice


def test_a_file_that_is_no_network_fails_at_inference(tmp_path: Path) -> None:
    import hashlib
    model = tmp_path / 'thermal.onnx'
    model.write_bytes(b'no network')
    card = json.loads(SHIPPED.with_suffix('.json').read_text())
    card['onnx_sha256'] = hashlib.sha256(b'no network').hexdigest()
    model.with_suffix('.json').write_text(json.dumps(card))
    last = model_checks(model)[-1]
    assert (last.name, last.level) == ('file and card', 'FAIL')
