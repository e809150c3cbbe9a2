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

"""Outputs: checked before the work, written atomically, and named by their own name."""

import os
from pathlib import Path

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs, temporary_for, write_atomically
import pytest


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    write_atomically(path, b'old')
    with pytest.raises(TypeError):
        write_atomically(path, 'not bytes')  # type: ignore[arg-type]
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_that_cannot_be_written_are_reported_before_the_work(tmp_path: Path) -> None:
    there = tmp_path / 'there.json'
    there.write_text('{}')
    (tmp_path / 'folder.json').mkdir()
    check_outputs([there, tmp_path / 'new' / 'deep' / 'a.json'])
    check_outputs([Path('relative.json')], overwrite=False)
    for path, words in ((there, 'already exists'), (there / 'a.json', 'is not a folder'),
                        (tmp_path / 'folder.json', 'is a folder')):
        with pytest.raises(UserError, match=words):
            check_outputs([tmp_path / 'good.json', path], overwrite=path != there)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['folder.json', 'there.json']


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_permission_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match='no permission to write'):
        check_outputs([tmp_path / 'new' / 'a.json'])


def test_a_failure_names_the_output_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / 'out'
    with pytest.raises(OSError) as failed, temporary_for(target) as folder:
        folder.mkdir()
        (folder / 'missing' / 'a').touch()
    assert failed.value.filename == str(target)
    with pytest.raises(OSError) as failed, temporary_for(target):
        Path('/dev/full').write_bytes(b'more than fits')
    assert failed.value.filename == str(target) and 'space' in str(failed.value.strerror)
    with pytest.raises(OSError) as failed, temporary_for(target):
        (tmp_path / 'another').read_bytes()
    assert failed.value.filename.endswith('another')
    assert not list(tmp_path.iterdir())
