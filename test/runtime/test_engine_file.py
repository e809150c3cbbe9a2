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

"""Engine files: written files are read back; all others are refused with a reason."""

from dataclasses import replace
import hashlib
import json
import os
from pathlib import Path

from cgdet_core.runtime.tensorrt.cache import EngineCache, log_progress, obtain
from cgdet_core.runtime.tensorrt.engine_file import (
    Damaged,
    EngineKey,
    Foreign,
    read_engine,
    write_engine,
)
import pytest

KEY = EngineKey('ab' * 32, 'tensorrt', '10.3.0', ('sm87',), 'Orin', 'fp16',
                {'images': (1, 1, 512, 640)})


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / 'thermal.engine'
    write_engine(path, KEY, 'thermal', bytes(range(256)) * 8)
    return path


def test_a_written_engine_is_read_back(engine: Path) -> None:
    found = read_engine(engine)
    assert (found.key, found.model) == (KEY, 'thermal')
    assert found.payload == bytes(range(256)) * 8
    assert [p.name for p in engine.parent.iterdir()] == ['thermal.engine']


def test_an_engine_of_open_batches_and_several_inputs_is_read_back(tmp_path: Path) -> None:
    key = replace(KEY, inputs={'target': ('batch', 3, 8, 8), 'search': ('batch', 3, 16, 16)})
    write_engine(tmp_path / 'a.engine', key, 'tracker', b'engine')
    assert read_engine(tmp_path / 'a.engine', key).key == key


def test_an_engine_of_the_first_release_is_still_used(tmp_path: Path) -> None:
    header = json.dumps({
        'model': 'thermal', 'onnx_sha256': 'ab' * 32, 'flavour': 'tensorrt', 'version': '10.3.0',
        'targets': ['sm87'], 'gpu': 'Orin', 'precision': 'fp16', 'shape': [1, 512, 640],
        'batches': [1, 4, 16], 'kind': 'engine', 'build': 1}).encode()
    content = b'CGDETENG' + len(header).to_bytes(4, 'little') + header + b'compiled'
    path = tmp_path / 'thermal-0123456789abcdef.engine'
    path.write_bytes(content + hashlib.sha256(content).digest())
    found = read_engine(path, KEY)
    assert (found.key, found.model, found.payload) == (KEY, 'thermal', b'compiled')
    served, _ = obtain(EngineCache(tmp_path), KEY, Path('thermal.onnx'),
                       lambda: pytest.fail('it was built again'), bytes, log_progress())
    assert served == b'compiled'
    with pytest.raises(Foreign, match='inputs is images'):
        read_engine(path, replace(KEY, inputs={'images': (1, 1, 256, 320)}))


@pytest.mark.parametrize('length', [0, 3, 8, 11, 12, 100, 400, -33, -32, -1])
def test_truncated(engine: Path, length: int) -> None:
    engine.write_bytes(engine.read_bytes()[:length])
    with pytest.raises(Damaged, match='truncated|not an engine|checksum'):
        read_engine(engine)


@pytest.mark.parametrize('place', [0, 8, 11, 13, 60, 700, -40, -1])
def test_one_flipped_bit_is_found(engine: Path, place: int) -> None:
    content = bytearray(engine.read_bytes())
    content[place] ^= 16
    engine.write_bytes(content)
    with pytest.raises(Damaged):
        read_engine(engine)


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cgdet_core.runtime.tensorrt import engine_file

    path = tmp_path / 'a.engine'
    monkeypatch.setattr(engine_file, 'asdict', lambda key: {'something': 'else'})
    write_engine(path, KEY, 'thermal', b'engine')
    with pytest.raises(Damaged, match='another version'):
        read_engine(path)


@pytest.mark.parametrize('change', [
    {'targets': None}, {'targets': 5}, {'targets': (['sm87'],)}, {'targets': ({},)},
    {'inputs': 'abc'}, {'inputs': {'images': 'abc'}}, {'inputs': {'images': (1, 'batch')}},
    {'precision': None}, {'build': '1'}])
def test_a_header_with_other_types_is_damaged(tmp_path: Path, change: dict) -> None:
    path = tmp_path / 'a.engine'
    write_engine(path, replace(KEY, **change), 'thermal', b'engine')
    for wanted in (None, KEY):
        with pytest.raises(Damaged, match='another version'):
            read_engine(path, wanted)


def test_a_header_nested_too_deeply_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cgdet_core.runtime.tensorrt import engine_file

    path = tmp_path / 'a.engine'
    with monkeypatch.context() as patch:
        patch.setattr(engine_file.json, 'dumps', lambda values: '[' * 200_000)
        write_engine(path, KEY, 'thermal', b'engine')
    with pytest.raises(Damaged, match='another version'):
        read_engine(path)


@pytest.mark.parametrize('mode', [0o664, 0o646, 0o666])
def test_a_file_others_may_write_is_not_read(engine: Path, mode: int) -> None:
    engine.chmod(mode)
    with pytest.raises(Damaged, match='other users'):
        read_engine(engine)


def test_another_users_file_is_not_read(engine: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip('only root can give a file away')
    os.chown(engine, 12345, 12345)
    with pytest.raises(Damaged, match='another user'):
        read_engine(engine)


def test_pipes_and_folders_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.engine')
    (tmp_path / 'folder.engine').mkdir()
    with pytest.raises(Damaged, match='not a file'):
        read_engine(tmp_path / 'pipe.engine')
    with pytest.raises((Damaged, OSError)):
        read_engine(tmp_path / 'folder.engine')


@pytest.mark.parametrize(('change', 'words'), [
    ({'onnx_sha256': 'cd' * 32}, 'onnx_sha256 is abababababab, not cdcdcdcdcdcd'),
    ({'backend': 'tensorrt_rtx'}, 'backend is tensorrt, not tensorrt_rtx'),
    ({'version': '10.7.0'}, 'version is 10.3.0, not 10.7.0'),
    ({'targets': ('sm86',)}, 'targets is sm87, not sm86'),
    ({'gpu': 'Thor'}, 'gpu is Orin, not Thor'),
    ({'precision': 'int8'}, 'precision is fp16, not int8'),
    ({'inputs': {'images': (1, 1, 256, 320)}},
     r'inputs is images 1\+1\+512\+640, not images 1\+1\+256\+320'),
    ({'batches': (1, 1, 2)}, 'batches is'),
    ({'kind': 'kernels'}, 'kind is engine'),
    ({'build': 99}, 'build is'),
])
def test_every_part_of_the_key_counts(change: dict, words: str) -> None:
    wanted = replace(KEY, **change)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(KEY.mismatch(wanted))
    assert KEY.mismatch(KEY) == '' and KEY.file_name('m') != wanted.file_name('m')


def test_an_engine_of_several_targets_matches_each() -> None:
    several = replace(KEY, targets=('sm86', 'sm87'))
    assert several.mismatch(KEY) == '' and KEY.mismatch(several)
