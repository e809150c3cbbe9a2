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

"""The example of docs/reference/python.md runs as it stands."""

from pathlib import Path
import re
import subprocess
import sys

import cgdet_core.runtime.detection.result
import cv2
import numpy as np
import pytest

PAGE = (Path(__file__).resolve().parents[1] / 'docs' / 'reference' / 'python.md').read_text()


def test_the_example_detects_prints_and_draws(tmp_path: Path) -> None:
    example, = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    image = np.random.default_rng(0).integers(7000, 8000, (120, 160)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    done = subprocess.run([sys.executable, '-c', example], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match(r'no objects|\d+ (person|bicycle|car)', done.stdout)
    assert cv2.imread(str(tmp_path / 'boxes.png')).shape == (120, 160, 3)


@pytest.mark.parametrize('name', sorted(set(re.findall(r'`result\.(\w+)', PAGE))))
def test_what_the_page_names_exists(name: str) -> None:
    result = cgdet_core.runtime.detection.result.Result
    assert hasattr(result, name) or name in result.__dataclass_fields__
