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

import errno
import os
from pathlib import Path
import signal
import subprocess
import sys

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import (
    check_outputs,
    finish,
    remove_leftovers,
    temporary_for,
    together,
    write_atomically,
)
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
    with pytest.raises(OSError) as failed, temporary_for(target) as folder:
        raise OSError(errno.ENOSPC, 'No space left', 'source', None, str(folder / 'copy'))
    assert failed.value.filename == str(target)  # not what shutil.copyfile copied
    with pytest.raises(OSError) as failed, temporary_for(target):
        (tmp_path / 'another').read_bytes()
    assert failed.value.filename.endswith('another')
    with pytest.raises(ValueError), temporary_for(tmp_path / 'new' / 'deep' / 'out') as folder:
        raise ValueError
    assert not list(tmp_path.iterdir())
    with temporary_for(tmp_path / 'new' / 'deep' / 'out') as folder:
        folder.mkdir()
        folder.rename(tmp_path / 'new' / 'deep' / 'out')
    assert (tmp_path / 'new' / 'deep' / 'out').is_dir()


def killed(code: str, folder: Path) -> None:
    """Run code in a new process that a signal ends where it says `die()`."""
    code = f'import os, signal\nfrom pathlib import Path\nfolder = Path({str(folder)!r})\n' \
        'from cgdet_core.runtime import files\n' \
        'def die(*_, **__):\n    os.kill(os.getpid(), signal.SIGKILL)\n' + code
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    write_atomically(path, b'old')
    killed('os.replace = die\nfiles.write_atomically(folder / "a.json", b"half")', tmp_path)
    assert path.read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 2
    write_atomically(path, b'new')
    assert path.read_bytes() == b'new' and list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    with temporary_for(path) as temporary:
        temporary.write_bytes(b'slow')
        write_atomically(path, b'quick')
        with pytest.raises(UserError, match='Another process writes .*a.json; wait'):
            with temporary_for(path):
                raise AssertionError
        remove_leftovers(tmp_path.glob('.*.tmp'))
        assert temporary.read_bytes() == b'slow'
        os.replace(temporary, path)
    assert path.read_bytes() == b'slow' and list(tmp_path.iterdir()) == [path]


def test_hidden_folders_of_others_are_not_written_to(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / 'a.json', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'kept').touch()
    (tmp_path / '.a.json.0.tmp').symlink_to(elsewhere)
    (tmp_path / '.a.json.1.tmp').mkdir()
    (tmp_path / '.a.json.1.tmp').chmod(0o777)
    (tmp_path / '.a.json.2.tmp').touch()
    write_atomically(path, b'new')
    assert path.read_bytes() == b'new'
    assert [p.name for p in elsewhere.iterdir()] == ['kept']


@pytest.mark.parametrize('moved', range(-1, 3))
def test_files_are_replaced_together_also_if_the_process_is_killed(
    tmp_path: Path, moved: int,
) -> None:
    """moved: how many renames succeed, of the folder and of its files."""
    names = ('a', 'b')
    for name in names:
        (tmp_path / name).write_text('old')
    (tmp_path / 'c').write_text('another')
    killed(f"""real, left = os.replace, iter([True] * ({moved} + 1))
os.replace = lambda *a: real(*a) if next(left, False) else die()
with files.together(folder / 'a', ['a', 'b']) as made:
    (made / 'a').write_text('new')
    (made / 'b').write_text('new')
die()
""", tmp_path)
    complete = finish(tmp_path / 'a', names)
    assert complete == (0 <= moved < 2)
    expected = 'new' if moved >= 0 else 'old'
    assert [(tmp_path / name).read_text() for name in names] == [expected] * 2
    (tmp_path / '.a.complete').mkdir()
    (tmp_path / '.a.complete' / 'd').touch()  # of a run with other names
    with together(tmp_path / 'a', names) as made:
        (made / 'a').write_text('newest')
    assert (tmp_path / 'a').read_text() == 'newest' and (tmp_path / 'b').read_text() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a', 'b', 'c']


def test_only_the_named_files_are_moved_and_no_link_is_followed(tmp_path: Path) -> None:
    private = tmp_path / 'private'
    private.mkdir()
    (private / 'a').write_text('kept')
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / '.a.complete').symlink_to(private)
    assert not finish(tmp_path / 'models' / 'a', ['a'])
    assert (private / 'a').read_text() == 'kept'
